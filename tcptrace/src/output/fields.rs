//! What every row consists of: name, unit, meaning and value of each field, in order.
//!
//! These tables are the only definition of JSON and CSV. Fields may be added; none is ever renamed, moved in meaning or
//! dropped. The fields of a socket that is stuck follow those of its row: always in CSV, in JSON on such rows only.

mod audit;
mod feature;
mod loss;
mod report;
mod snapshot;

use std::net::SocketAddr;

use crate::lifecycle::{Connection, Identity, Owner, Reason, Stay, Stuck, Transition};
use crate::names::Group;
use crate::tcp::{Closer, OwnerSource, State, Task, TimeWaitEnd};

use super::Context;

pub use self::audit::{AUDIT_FIELDS, AUDITED_FIELDS};
pub use self::feature::FEATURE_FIELDS;
pub use self::loss::LOSS_FIELDS;
pub use self::report::{
    REPORT_BUCKET_FIELDS, REPORT_CHURN_FIELDS, REPORT_COUNT_FIELDS, REPORT_DAMAGE_FIELDS, REPORT_FAILURE_FIELDS,
    REPORT_FIELDS, REPORT_GROUP_FIELDS, REPORT_HOST_FIELDS, REPORT_LOSS_FIELDS, REPORT_OPEN_FIELDS,
    REPORT_POINT_FIELDS, REPORT_SLOWEST_FIELDS, REPORT_STATE_FIELDS,
};
pub use self::snapshot::{COUNT_FIELDS, SOCKET_FIELDS};

/// One field of a row.
pub struct Field<R> {
    /// Its name in JSON and CSV.
    pub name: &'static str,
    /// The unit or notation of its value; empty for words, names and plain numbers.
    pub unit: &'static str,
    /// What kind of value it has.
    pub shape: Shape,
    /// What it means, and when it is null: one that never is does not speak of it.
    pub doc: &'static str,
    /// Takes it from a row.
    pub value: for<'r> fn(&'r R, &'r Context) -> Value<'r>,
}

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// True or false.
    Bool,
    /// A whole number, not negative.
    Number,
    /// A number with at most 4 decimal places, not negative.
    Real,
    /// One of our own words.
    Word,
    /// A name that somebody else chose, escaped.
    Name,
    /// Wall-clock time.
    Time,
    /// An address and a port.
    Address,
    /// A hexadecimal number.
    Hex,
    /// States in order, each with how long it lasted.
    States,
}

impl<R> Field<R> {
    /// Whether it may be null.
    pub fn is_nullable(&self) -> bool {
        self.doc.to_ascii_lowercase().contains("null")
    }
}

/// The value of a field, before a format writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'r> {
    /// Unknown, or there is none.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    U64(u64),
    /// A number of which 4 decimal places are written.
    Real(f64),
    /// One of our own words: printable ASCII without quotes, backslashes, commas or semicolons.
    Word(&'static str),
    /// A name that a process chose for itself: any bytes.
    Name(&'r [u8]),
    /// A time, in ns since the Unix epoch.
    Time(i64),
    /// An address and a port.
    Address(SocketAddr),
    /// A number written in lower-case hexadecimal without a prefix.
    Hex(u64),
    /// States in order, each with how long it lasted.
    States(&'r [Stay]),
}

impl Value<'_> {
    fn number(value: Option<impl Into<u64>>) -> Self {
        value.map_or(Self::Null, |number| Self::U64(number.into()))
    }

    fn real(value: Option<f64>) -> Self {
        value.map_or(Self::Null, Self::Real)
    }

    fn word(word: Option<&'static str>) -> Self {
        word.map_or(Self::Null, Self::Word)
    }
}

impl<'r> Value<'r> {
    fn name(name: Option<&'r [u8]>) -> Self {
        name.map_or(Self::Null, Self::Name)
    }
}

/// A row of a stream: of `watch` or of `connections`.
pub trait Streamed: Identified + Sized + 'static {
    /// What such rows are called.
    const KIND: &'static str;

    /// Its fields, and those that only a socket has that is stuck.
    fn fields() -> [&'static [Field<Self>]; 2];

    /// When it happened, in ns of `CLOCK_BOOTTIME`.
    fn boot_ns(&self) -> u64;
}

impl Streamed for Transition {
    const KIND: &'static str = "transitions";

    fn fields() -> [&'static [Field<Self>]; 2] {
        [TRANSITION_FIELDS, STUCK_TRANSITION_FIELDS]
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns
    }
}

impl Streamed for Connection {
    const KIND: &'static str = "connections";

    fn fields() -> [&'static [Field<Self>]; 2] {
        [CONNECTION_FIELDS, STUCK_CONNECTION_FIELDS]
    }

    fn boot_ns(&self) -> u64 {
        self.closed_ns
    }
}

/// The fields of a change of state.
pub static TRANSITION_FIELDS: &[Field<Transition>] = &[
    Field {
        name: "event",
        unit: "",
        shape: Shape::Word,
        doc: "transition; or, with --report-stuck, stuck (it is still in old) or released (it was, and its last \
              descriptor is closed).",
        value: |row, _| Value::Word(event(row.stuck.as_ref(), "transition")),
    },
    Field {
        name: "time",
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it happened: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "When it happened, as CLOCK_BOOTTIME, which never steps.",
        value: |row, _| Value::U64(row.boot_ns),
    },
    Field::CONN,
    Field::PROTOCOL,
    Field::FAMILY,
    Field::LOCAL,
    Field::REMOTE,
    Field::NETNS,
    Field {
        name: "old",
        unit: "",
        shape: Shape::Word,
        doc: "The state it leaves: CLOSED, LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, \
              CLOSING, LAST_ACK or TIME_WAIT.",
        value: |row, _| Value::Word(row.old.as_str()),
    },
    Field {
        name: "new",
        unit: "",
        shape: Shape::Word,
        doc: "The state it enters, in the words of old.",
        value: |row, _| Value::Word(row.new.as_str()),
    },
    Field {
        name: "held_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "Time spent in old; null when nothing of it was seen.",
        value: |row, _| Value::number(row.held.known_ns()),
    },
    Field {
        name: "held_at_least",
        unit: "",
        shape: Shape::Bool,
        doc: "Whether held_ns is only the known part of a time that may have been longer.",
        value: |row, _| Value::Bool(row.held.is_at_least()),
    },
    Field::PID,
    Field::TID,
    Field::COMM,
    Field::UID,
    Field::CGROUP,
    Field::OWNER_SOURCE,
    Field::SIDE,
    Field {
        name: "closer",
        unit: "",
        shape: Shape::Word,
        doc: "Who closed: active (our FIN first), passive (the peer's FIN first), simultaneous, reset_local, \
              reset_remote, timeout, killed, never_established or unknown; null until it is decided.",
        value: |row, _| Value::word(row.closer.map(Closer::as_str)),
    },
    Field {
        name: "reason",
        unit: "",
        shape: Shape::Word,
        doc: "Why it happened, where there is something to say: a word of a connection's end, or of its \
              time_wait_end; null otherwise.",
        value: |row, _| Value::word(row.reason.map(Reason::as_str)),
    },
    Field {
        name: "orphan",
        unit: "",
        shape: Shape::Bool,
        doc: "Whether no process holds the socket any more while its connection lives on.",
        value: |row, _| Value::Bool(row.orphan),
    },
    Field::NETNS_NAME,
    Field::CGROUP_ID,
    Field::CONTAINER,
    Field::UNIT,
    Field {
        name: "close_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who closed the socket, who need not be its owner; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.pid)),
    },
    Field {
        name: "close_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of the process that closed the socket, escaped as in comm; null when unknown.",
        value: |row, _| name(row.closed_by.as_ref()),
    },
];

/// The fields that only a socket that is stuck has.
pub static STUCK_TRANSITION_FIELDS: &[Field<Transition>] = &[
    Field::HOLDER_PID,
    Field::HOLDER_COMM,
    Field::FD,
    Field::HOLDERS,
    Field::ACCEPTED,
    Field::LISTENER_PID,
    Field::LISTENER_COMM,
];

/// The fields of a connection that has ended.
pub static CONNECTION_FIELDS: &[Field<Connection>] = &[
    Field {
        name: "event",
        unit: "",
        shape: Shape::Word,
        doc: "connection; or, with --report-stuck, stuck (it has not ended, or its descriptor is still open) or released \
              (its last descriptor is closed).",
        value: |row, _| Value::Word(event(row.stuck.as_deref(), "connection")),
    },
    Field {
        name: "opened",
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it began: wall-clock time in UTC with 9 digits; null when that was not seen.",
        value: |row, context| row.opened_ns.map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns))),
    },
    Field {
        name: "closed",
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it ended, after its TIME_WAIT: wall-clock time in UTC with 9 digits, converted from boot_ns; null for \
              stuck and released.",
        value: |row, context| match row.stuck {
            Some(_) => Value::Null,
            None => Value::Time(context.clock.unix_ns(row.closed_ns)),
        },
    },
    Field {
        name: "boot_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "When it ended or was reported, as CLOCK_BOOTTIME, which never steps.",
        value: |row, _| Value::U64(row.closed_ns),
    },
    Field::CONN,
    Field::PROTOCOL,
    Field::FAMILY,
    Field::LOCAL,
    Field::REMOTE,
    Field::NETNS,
    Field::PID,
    Field::TID,
    Field::COMM,
    Field::UID,
    Field::CGROUP,
    Field::OWNER_SOURCE,
    Field::SIDE,
    Field {
        name: "closer",
        unit: "",
        shape: Shape::Word,
        doc: "Who closed: active (our FIN first), passive (the peer's FIN first), simultaneous, reset_local, \
              reset_remote, timeout, killed, never_established or unknown.",
        value: |row, _| Value::Word(row.closer.as_str()),
    },
    Field {
        name: "end",
        unit: "",
        shape: Shape::Word,
        doc: "How it ended: fin, fin_wait2_timeout, refused, connect_timeout, retransmit_timeout, keepalive_timeout, \
              user_timeout, reset_received, reset_unread_data, reset_linger0, reset_data_after_close, reset_other, \
              disconnected, no_local_port, unreachable, closed_while_connecting, never_accepted, orphan_killed, killed \
              or unknown; null while it has not.",
        value: |row, _| Value::word((!row.is_open()).then(|| row.end.as_str())),
    },
    Field {
        name: "states",
        unit: "ns",
        shape: Shape::States,
        doc: "The states it went through, in order, and how long each lasted; at_least where it may have been longer. \
              JSON: objects of state, ns, at_least. CSV: STATE:ns joined by semicolons, a plus sign for at_least.",
        value: |row, _| Value::States(&row.stays),
    },
    Field {
        name: "established_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in ESTABLISHED; null when it never was, or nothing of it was seen.",
        value: |row, _| Value::number(row.held(State::Established).known_ns()),
    },
    Field {
        name: "close_wait_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in CLOSE_WAIT; null when it never was, or nothing of it was seen.",
        value: |row, _| Value::number(row.held(State::CloseWait).known_ns()),
    },
    Field {
        name: "time_wait_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in TIME_WAIT; null when it never was, or nothing of it was seen.",
        value: |row, _| Value::number(row.held(State::TimeWait).known_ns()),
    },
    Field {
        name: "time_wait_end",
        unit: "",
        shape: Shape::Word,
        doc: "How its TIME_WAIT ended: expired, reused, new_syn, reset, killed, netns_gone, refused (none was created: \
              tcp_max_tw_buckets, or no memory) or unknown; null when none was due.",
        value: |row, _| Value::word(row.time_wait_end.map(TimeWaitEnd::as_str)),
    },
    Field {
        name: "bytes_sent",
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload sent, retransmissions included; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_sent)),
    },
    Field {
        name: "bytes_received",
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_received)),
    },
    Field {
        name: "bytes_unread",
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received that the process had not read when it closed; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_unread)),
    },
    Field {
        name: "retransmits",
        unit: "segments",
        shape: Shape::Number,
        doc: "Segments retransmitted; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.retransmits)),
    },
    Field {
        name: "srtt_us",
        unit: "us",
        shape: Shape::Number,
        doc: "Smoothed round-trip time when it closed; null when none was measured or it is unknown.",
        value: |row, _| Value::number(row.totals.and_then(|totals| totals.srtt_us)),
    },
    Field {
        name: "close_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who closed the socket, who need not be its owner; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.pid)),
    },
    Field {
        name: "close_tid",
        unit: "",
        shape: Shape::Number,
        doc: "Thread id of who closed the socket; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.tid)),
    },
    Field {
        name: "close_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of the process that closed the socket, escaped as in comm; null when unknown.",
        value: |row, _| name(row.closed_by.as_ref()),
    },
    Field {
        name: "complete",
        unit: "",
        shape: Shape::Bool,
        doc: "False when its beginning was not seen, or an event of it may have been lost.",
        value: |row, _| Value::Bool(row.complete),
    },
    Field::NETNS_NAME,
    Field::CGROUP_ID,
    Field::CONTAINER,
    Field::UNIT,
];

/// The fields that only a connection that is stuck has.
pub static STUCK_CONNECTION_FIELDS: &[Field<Connection>] = &[
    Field {
        name: "state",
        unit: "",
        shape: Shape::Word,
        doc: "The state that it is in, in the words of states; CLOSED when only its descriptor is left.",
        value: |row, _| Value::word(row.stuck.as_ref().map(|stuck| stuck.state.as_str())),
    },
    Field {
        name: "age_ns",
        unit: "ns",
        shape: Shape::Number,
        doc: "How long it has been in state; null when unknown.",
        value: |row, _| Value::number(row.stuck.as_ref().and_then(|stuck| stuck.age.known_ns())),
    },
    Field {
        name: "age_at_least",
        unit: "",
        shape: Shape::Bool,
        doc: "Whether age_ns is only the known part of a time that may be longer.",
        value: |row, _| row.stuck.as_ref().map_or(Value::Null, |stuck| Value::Bool(stuck.age.is_at_least())),
    },
    Field::HOLDER_PID,
    Field::HOLDER_COMM,
    Field::FD,
    Field::HOLDERS,
    Field::ACCEPTED,
    Field::LISTENER_PID,
    Field::LISTENER_COMM,
];

/// A row about a connection.
pub trait Identified {
    /// Which connection.
    fn identity(&self) -> &Identity;

    /// Whose it is.
    fn owner(&self) -> Option<&Owner> {
        self.identity().owner.as_ref()
    }
}

impl Identified for Transition {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Identified for Connection {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// A row about a connection that may be stuck.
pub trait MayBeStuck {
    /// How, if it is.
    fn stuck(&self) -> Option<&Stuck>;
}

impl MayBeStuck for Transition {
    fn stuck(&self) -> Option<&Stuck> {
        self.stuck.as_ref()
    }
}

impl MayBeStuck for Connection {
    fn stuck(&self) -> Option<&Stuck> {
        self.stuck.as_deref()
    }
}

fn event(stuck: Option<&Stuck>, otherwise: &'static str) -> &'static str {
    match stuck {
        Some(Stuck { released: true, .. }) => "released",
        Some(_) => "stuck",
        None => otherwise,
    }
}

/// A name that is empty is one that was not known.
fn name(task: Option<&Task>) -> Value<'_> {
    Value::name(task.map(|task| task.comm.bytes()).filter(|name| !name.is_empty()))
}

fn group<'r>(row: &impl Identified, context: &'r Context) -> Option<&'r Group> {
    context.names.group(row.identity().cgroup?)
}

/// What says which connection a row is about.
impl<R: Identified> Field<R> {
    const CONN: Self = Self {
        name: "conn",
        unit: "hex",
        shape: Shape::Hex,
        doc: "The connection: its socket's cookie, which `ss -e` shows as sk:.",
        value: |row, _| Value::Hex(row.identity().conn),
    };
    const PROTOCOL: Self =
        Self { name: "protocol", unit: "", shape: Shape::Word, doc: "Always `tcp`.", value: |_, _| Value::Word("tcp") };
    const FAMILY: Self = Self {
        name: "family",
        unit: "",
        shape: Shape::Word,
        doc: "ipv4 or ipv6. IPv4-mapped IPv6 addresses count as, and are printed as, IPv4.",
        value: |row, _| Value::Word(row.identity().tuple.family()),
    };
    const LOCAL: Self = Self {
        name: "local",
        unit: "address:port",
        shape: Shape::Address,
        doc: "The local end, an IPv6 address in brackets. Port 0: the kernel has not chosen one yet.",
        value: |row, _| Value::Address(row.identity().tuple.local()),
    };
    const REMOTE: Self = Self {
        name: "remote",
        unit: "address:port",
        shape: Shape::Address,
        doc: "The remote end, an IPv6 address in brackets. Port 0: a listener, which has none.",
        value: |row, _| Value::Address(row.identity().tuple.remote()),
    };
    const NETNS: Self = Self {
        name: "netns",
        unit: "",
        shape: Shape::Number,
        doc: "Inode number of its network namespace, as in /proc/PID/ns/net; null when unknown.",
        value: |row, _| Value::number(row.identity().netns),
    };
    const PID: Self = Self {
        name: "pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of its owner, in the initial pid namespace (snapshot: in that of the mounted /proc); null when \
              unknown.",
        value: |row, _| Value::number(row.owner().map(|owner| owner.task.pid)),
    };
    const TID: Self = Self {
        name: "tid",
        unit: "",
        shape: Shape::Number,
        doc: "Id of the thread of its owner that connected, accepted, listened or closed, in the initial pid namespace; \
              null when unknown.",
        value: |row, _| Value::number(row.owner().map(|owner| owner.task.tid)),
    };
    const COMM: Self = Self {
        name: "comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of the process that owns it, chosen by itself. What is not printable is escaped: \\x1b for a byte, \\u{202e} \
              for a character, \\\\ for the backslash. In CSV a name that begins like a formula begins with a single \
              quote. Null when unknown.",
        value: |row, _| name(row.owner().map(|owner| &owner.task)),
    };
    const UID: Self = Self {
        name: "uid",
        unit: "",
        shape: Shape::Number,
        doc: "User id of the socket; null when unknown.",
        value: |row, _| Value::number(row.identity().uid),
    };
    const CGROUP: Self = Self {
        name: "cgroup",
        unit: "",
        shape: Shape::Name,
        doc: "Path of the socket's control group below the root of the unified hierarchy, escaped as in comm; null when \
              unknown.",
        value: |row, context| Value::name(group(row, context).map(|group| group.path.as_ref())),
    };
    const CGROUP_ID: Self = Self {
        name: "cgroup_id",
        unit: "",
        shape: Shape::Number,
        doc: "Id of the socket's control group, which is the inode number of its directory; null when unknown.",
        value: |row, _| Value::number(row.identity().cgroup),
    };
    const CONTAINER: Self = Self {
        name: "container",
        unit: "",
        shape: Shape::Name,
        doc: "Id of the container that the socket belongs to, where the path of its control group tells; null otherwise.",
        value: |row, context| {
            Value::name(group(row, context).and_then(|group| group.container.as_ref()).map(|id| id.as_bytes()))
        },
    };
    const UNIT: Self = Self {
        name: "unit",
        unit: "",
        shape: Shape::Name,
        doc: "The systemd unit that the socket belongs to, where the path of its control group tells; null otherwise.",
        value: |row, context| Value::name(group(row, context).and_then(|group| group.unit.as_deref())),
    };
    const NETNS_NAME: Self = Self {
        name: "netns_name",
        unit: "",
        shape: Shape::Name,
        doc: "Name of its network namespace, as `ip netns` or a container runtime gave it, escaped as in comm; null when \
              it has none.",
        value: |row, context| Value::name(row.identity().netns.and_then(|netns| context.names.namespace(netns))),
    };
    const OWNER_SOURCE: Self = Self {
        name: "owner_source",
        unit: "",
        shape: Shape::Word,
        doc: "Where its owner is known from: connect, accept, listen, close (it closed it, and nobody is known to have \
              opened it), scan (it was found to hold a descriptor of it) or unknown.",
        value: |row, _| Value::Word(row.owner().map_or(OwnerSource::Unknown, |owner| owner.source).as_str()),
    };
    const SIDE: Self = Self {
        name: "side",
        unit: "",
        shape: Shape::Word,
        doc: "client (it connected), server (a listener made it) or unknown (its opening was not seen).",
        value: |row, _| Value::Word(row.identity().side.as_str()),
    };
}

/// What is known of a socket that is stuck.
impl<R: MayBeStuck> Field<R> {
    const HOLDER_PID: Self = Self {
        name: "holder_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who has a descriptor of it now; the lowest, if there are several; null when nobody was found.",
        value: |row, _| Value::number(holder(row).map(|(task, _)| task.pid)),
    };
    const HOLDER_COMM: Self = Self {
        name: "holder_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of who has a descriptor of it now, escaped as in comm; null when nobody was found.",
        value: |row, _| name(holder(row).map(|(task, _)| task)),
    };
    const FD: Self = Self {
        name: "fd",
        unit: "",
        shape: Shape::Number,
        doc: "The descriptor by which the holder has it; null when nobody was found.",
        value: |row, _| Value::number(holder(row).map(|(_, fd)| *fd)),
    };
    const HOLDERS: Self = Self {
        name: "holders",
        unit: "",
        shape: Shape::Number,
        doc: "How many descriptors of it there are; null when nobody looked.",
        value: |row, _| Value::number(row.stuck().and_then(|stuck| stuck.holders)),
    };
    const ACCEPTED: Self = Self {
        name: "accepted",
        unit: "",
        shape: Shape::Bool,
        doc: "False when no process has accepted it: it waits in its listener's queue. Null for a client, or when unknown.",
        value: |row, _| row.stuck().and_then(|stuck| stuck.accepted).map_or(Value::Null, Value::Bool),
    };
    const LISTENER_PID: Self = Self {
        name: "listener_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who listens for it, if it was not accepted; null when unknown, or when there are several.",
        value: |row, _| Value::number(listener(row).map(|task| task.pid)),
    };
    const LISTENER_COMM: Self = Self {
        name: "listener_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of who listens for it, if it was not accepted, escaped as in comm; null when unknown.",
        value: |row, _| name(listener(row)),
    };
}

fn holder(row: &impl MayBeStuck) -> Option<&(Task, u32)> {
    row.stuck()?.holder.as_ref()
}

fn listener(row: &impl MayBeStuck) -> Option<&Task> {
    row.stuck()?.listener.as_ref()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::event::Cause;
    use crate::report::TRACKED;
    use crate::tcp::{End, Side};

    fn names<R>(fields: &[Field<R>]) -> Vec<&'static str> {
        fields.iter().map(|field| field.name).collect()
    }

    fn assert_documented<R>(fields: &[Field<R>]) {
        for field in fields {
            let name = field.name;
            assert!(field.doc.ends_with('.') && !field.doc.contains("  "), "{name}: {}", field.doc);
            let unit = ["_ns", "_us"].into_iter().find_map(|suffix| name.ends_with(suffix).then(|| &suffix[1..]));
            assert!(unit.is_none_or(|unit| unit == field.unit), "{name} is in {}", field.unit);
        }
        assert_eq!(names(fields).into_iter().collect::<HashSet<_>>().len(), fields.len(), "names are unique");
    }

    fn assert_words<R>(fields: &[Field<R>], name: &str, words: impl Iterator<Item = &'static str>) {
        let field = fields.iter().find(|field| field.name == name).expect("a field");
        let documented: HashSet<&str> =
            field.doc.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')).collect();
        for word in words {
            assert!(documented.contains(word), "the doc of {name} leaves out {word}");
        }
    }

    #[test]
    fn every_field_is_documented() {
        assert_documented(TRANSITION_FIELDS);
        assert_documented(CONNECTION_FIELDS);
        assert_documented(STUCK_TRANSITION_FIELDS);
        assert_documented(SOCKET_FIELDS);
        assert_documented(COUNT_FIELDS);
        assert_documented(FEATURE_FIELDS);
        assert_documented(LOSS_FIELDS);
        assert_documented(AUDIT_FIELDS);
        assert_documented(AUDITED_FIELDS);
        assert_documented(STUCK_CONNECTION_FIELDS);
        assert_documented(REPORT_FIELDS);
        assert_documented(REPORT_HOST_FIELDS);
        assert_documented(REPORT_LOSS_FIELDS);
        assert_documented(REPORT_DAMAGE_FIELDS);
        assert_documented(REPORT_COUNT_FIELDS);
        assert_documented(REPORT_STATE_FIELDS);
        assert_documented(REPORT_BUCKET_FIELDS);
        assert_documented(REPORT_GROUP_FIELDS);
        assert_documented(REPORT_FAILURE_FIELDS);
        assert_documented(REPORT_CHURN_FIELDS);
        assert_documented(REPORT_OPEN_FIELDS);
        assert_documented(REPORT_POINT_FIELDS);
        assert_documented(REPORT_SLOWEST_FIELDS);
    }

    #[test]
    fn every_word_is_documented() {
        let closers = || Closer::ALL.iter().map(|word| word.as_str());
        assert_words(TRANSITION_FIELDS, "old", State::ALL.iter().map(|word| word.as_str()));
        assert_words(TRANSITION_FIELDS, "closer", closers());
        assert_words(TRANSITION_FIELDS, "side", Side::ALL.iter().map(|word| word.as_str()));
        assert_words(TRANSITION_FIELDS, "owner_source", OwnerSource::ALL.iter().map(|word| word.as_str()));
        assert_words(CONNECTION_FIELDS, "closer", closers());
        assert_words(LOSS_FIELDS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
        assert_words(CONNECTION_FIELDS, "end", End::ALL.iter().map(|word| word.as_str()));
        assert_words(CONNECTION_FIELDS, "time_wait_end", TimeWaitEnd::ALL.iter().map(|word| word.as_str()));
    }

    #[test]
    fn names_are_a_contract() {
        let transition = "event time boot_ns conn protocol family local remote netns old new held_ns held_at_least pid \
                          tid comm uid cgroup owner_source side closer reason orphan netns_name cgroup_id container unit \
                          close_pid close_comm";
        assert_eq!(names(TRANSITION_FIELDS).join(" "), transition);
        let connection = "event opened closed boot_ns conn protocol family local remote netns pid tid comm uid cgroup \
                          owner_source side closer end states established_ns close_wait_ns time_wait_ns time_wait_end \
                          bytes_sent bytes_received bytes_unread retransmits srtt_us close_pid close_tid close_comm \
                          complete netns_name cgroup_id container unit";
        assert_eq!(names(CONNECTION_FIELDS).join(" "), connection);
        let socket = "event time boot_ns conn protocol family local remote netns netns_name state kept age_ns age_at_least \
                      time_wait_left_ns recv_queue send_queue timer timer_left_ns retransmits pid comm fd holders \
                      owner_source inode uid cgroup cgroup_id container unit listener_pid listener_comm";
        assert_eq!(names(SOCKET_FIELDS).join(" "), socket);
        let count =
            "event by state total held queued orphan mini pid comm listener_pid listener_comm local remote netns";
        assert_eq!(names(COUNT_FIELDS).join(" "), count);
        assert_eq!(names(FEATURE_FIELDS).join(" "), "event feature purpose available detail");
        assert_eq!(names(LOSS_FIELDS).join(" "), "event time boot_ns cause count");
        let audit = "event time boot_ns netns netns_name counter seen expected difference within";
        assert_eq!(names(AUDIT_FIELDS).join(" "), audit);
        let audited = "event time boot_ns namespaces gone unclear transitions lost lost_transitions unexplained";
        assert_eq!(names(AUDITED_FIELDS).join(" "), audited);
        let stuck = "holder_pid holder_comm fd holders accepted listener_pid listener_comm";
        let figures = "event from to duration_ns events transitions lost damaged connections opened opened_per_second \
                       opened_peak_per_second opened_peak_time ended ended_per_second ended_peak_per_second \
                       ended_peak_time open incomplete failed reset counted bytes_sent bytes_received retransmits";
        assert_eq!(names(REPORT_FIELDS).join(" "), figures);
        let group = "others partial host pid processes comm container unit cgroup remote local_port";
        let groups = "event state by connections share total_ns total_share open failed at_least never_accepted p50_ns \
                      p90_ns longest_ns longest_at_least bytes_sent bytes_received";
        assert_eq!(names(REPORT_GROUP_FIELDS).join(" "), format!("{groups} {group} netns netns_name"));
        let failure = "event end by connections share";
        assert_eq!(names(REPORT_FAILURE_FIELDS).join(" "), format!("{failure} {group} netns netns_name"));
        let open = "event state by connections share never_accepted oldest_ns oldest_at_least";
        assert_eq!(names(REPORT_OPEN_FIELDS).join(" "), format!("{open} {group} netns netns_name"));
        let churn = "event side connections per_second longer active p50_ns mean_bytes_sent mean_bytes_received";
        assert_eq!(names(REPORT_CHURN_FIELDS).join(" "), format!("{churn} {group}"));
        assert_eq!(names(REPORT_COUNT_FIELDS).join(" "), "event property value connections share");
        let state = "event state sockets at_least open never_accepted min_ns p50_ns p90_ns p99_ns max_ns at_least_p50_ns \
                     at_least_max_ns peak_sockets peak_time peak_duration_ns unplaced";
        assert_eq!(names(REPORT_STATE_FIELDS).join(" "), state);
        assert_eq!(names(REPORT_BUCKET_FIELDS).join(" "), "event state from_ns to_ns exact at_least");
        let states = TRACKED.map(|state| state.as_str().to_ascii_lowercase()).join(" ");
        let point = format!("event time duration_ns opened ended failed {states}");
        assert_eq!(names(REPORT_POINT_FIELDS).join(" "), point);
        let slowest = "event slow held_ns held_at_least host opened closed conn family local remote netns netns_name pid \
                       comm uid cgroup container unit owner_source side closer end states time_wait_end bytes_sent \
                       bytes_received retransmits complete";
        assert_eq!(names(REPORT_SLOWEST_FIELDS).join(" "), slowest);
        assert_eq!(names(STUCK_TRANSITION_FIELDS).join(" "), stuck);
        assert_eq!(names(STUCK_CONNECTION_FIELDS).join(" "), format!("state age_ns age_at_least {stuck}"));
    }
}
