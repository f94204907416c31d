//! The fields of sockets as they are found, and of their counts.

use super::{Field, Identified, MayBeStuck, Shape, Table, Value, name};
use crate::model::event::{Kept, Multipath};
use crate::model::row::{Entry, Identity, Report};
use crate::model::tcp::{State, Task};
use crate::study::snapshot::{Count, Shares};

/// A socket that exists.
pub static SOCKET: Table<Entry> = Table::new("snapshot --list", SOCKET_FIELDS);

/// The fields of a socket that exists.
static SOCKET_FIELDS: &[Field<Entry>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `socket`.",
        value: |_, _| Value::Word("socket"),
    },
    Field {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it was found: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "When it was found, as CLOCK_BOOTTIME, which never steps.",
        value: |row, _| Value::U64(row.boot_ns),
    },
    Field::CONN,
    Field::PROTOCOL,
    Field::FAMILY,
    Field::LOCAL,
    Field::REMOTE,
    Field::NETNS,
    Field::NETNS_NAME,
    Field {
        name: "state",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Its state: LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSING, TIME_WAIT, CLOSE_WAIT \
              or LAST_ACK.",
        value: |row, _| Value::Word(row.state.as_str()),
    },
    Field {
        name: "kept",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "What has it: held (a process, or the kernel for its own use), queued (its listener: nobody has accepted \
              it yet), orphan (nobody any more) or mini (nobody, and only a mini-socket is left).",
        value: |row, _| Value::Word(kept(row.kept)),
    },
    Field {
        name: "age_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "How long it has been in state, as far as the kernel tells: for a TIME_WAIT, what of 60 s has passed; for \
              CLOSE_WAIT, CLOSING and a FIN_WAIT2 that is no mini-socket, the time since its last segment came; null when \
              unknown.",
        value: |row, _| Value::number(row.age.known_ns()),
    },
    Field {
        name: "age_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether age_ns is only the known part of a time that may be longer.",
        value: |row, _| Value::Bool(row.age.is_at_least()),
    },
    Field {
        name: "time_wait_left_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "How much of its TIME_WAIT is left; null in other states.",
        value: |row, _| Value::number(row.time_wait_left_ns),
    },
    Field {
        name: "recv_queue",
        nullable: false,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received that the process has not read, one more for a FIN that it has not read; of a listener, how many \
              connections wait to be accepted.",
        value: |row, _| Value::U64(row.recv_queue.into()),
    },
    Field {
        name: "send_queue",
        nullable: false,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload sent that the peer has not acknowledged; of a listener, how many connections may wait.",
        value: |row, _| Value::U64(row.send_queue.into()),
    },
    Field {
        name: "timer",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "Its timer, in the words of ss: on (retransmission), keepalive, timewait or persist; null when none runs.",
        value: |row, _| Value::word(row.timer.as_str()),
    },
    Field {
        name: "timer_left_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "When that timer is due; null when none runs.",
        value: |row, _| Value::number(row.timer.as_str().map(|_| row.timer_left_ns)),
    },
    Field {
        name: "retransmits",
        nullable: false,
        unit: "segments",
        shape: Shape::Number,
        doc: "Retransmissions or probes in a row that went unanswered.",
        value: |row, _| Value::U64(row.retransmits.into()),
    },
    Field::PID,
    Field::COMM,
    Field::FD,
    Field::HOLDERS,
    Field::OWNER_SOURCE,
    Field {
        name: "inode",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "The number in /proc/PID/fd, socket:[inode]; null when no descriptor can name it.",
        value: |row, _| Value::number((row.inode != 0).then_some(row.inode)),
    },
    Field::UID,
    Field::CGROUP,
    Field::CGROUP_ID,
    Field::CONTAINER,
    Field::UNIT,
    Field::LISTENER_PID,
    Field::LISTENER_COMM,
    Field::MPTCP_SUBFLOW,
    Field::MPTCP_TOKEN,
    Field::MPTCP_STATE,
    Field {
        name: "idle_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "How long ago the last segment came that acknowledged anything (tcpi_last_ack_recv), to the ms: without --idle, \
              of sockets in CLOSE_WAIT, CLOSING and FIN_WAIT2 only; null when unknown.",
        value: |row, _| Value::number(row.idle_ns),
    },
];

/// A count.
pub static COUNT: Table<Count> = Table::new("snapshot", COUNT_FIELDS);

/// The fields of a count.
static COUNT_FIELDS: &[Field<Count>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `count`.",
        value: |_, _| Value::Word("count"),
    },
    Field {
        name: "by",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "What is counted: sockets by state; or, of the states that are a sign of trouble, by owner, or (remote) by \
              the end that most of them have in common, which is a local port, or a remote address and port.",
        value: |row, _| Value::Word(row.by.as_str()),
    },
    Field {
        name: "state",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "Their state: CLOSED, LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSING, TIME_WAIT, \
              CLOSE_WAIT or LAST_ACK; null for a sum of several states.",
        value: |row, _| Value::word(row.state.map(State::as_str)),
    },
    Field {
        name: "total",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many there are; null when unknown.",
        value: |row, _| Value::number(row.total),
    },
    Field {
        name: "held",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many of them processes have, or the kernel for its own use; null when unknown.",
        value: |row, _| share(row, |shares| shares.held),
    },
    Field {
        name: "queued",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many of them wait to be accepted; null when unknown.",
        value: |row, _| share(row, |shares| shares.queued),
    },
    Field {
        name: "orphan",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many of them nobody has any more; null when unknown.",
        value: |row, _| share(row, |shares| shares.orphan),
    },
    Field {
        name: "mini",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many of them are mini-sockets; null when unknown.",
        value: |row, _| share(row, |shares| shares.mini),
    },
    Field {
        name: "pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who holds all of them; null when nobody is known to, and by state.",
        value: |row, _| Value::number(row.owner.map(|task| task.pid)),
    },
    Field {
        name: "comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of who holds all of them, chosen by the process and escaped as in rows of sockets; null when nobody \
              is known to, and by state.",
        value: |row, _| name(row.owner.as_ref()),
    },
    Field {
        name: "listener_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who listens for those that wait to be accepted; null when unknown.",
        value: |row, _| Value::number(row.listener.map(|task| task.pid)),
    },
    Field {
        name: "listener_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of who listens for those that wait to be accepted, escaped as in comm; null when unknown.",
        value: |row, _| name(row.listener.as_ref()),
    },
    Field {
        name: "local",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "By remote: the local end, an IPv6 address in brackets; otherwise null. A port of 0 or an unspecified \
              address differs among them.",
        value: |row, _| row.ends.map_or(Value::Null, |ends| Value::Address(ends.local())),
    },
    Field {
        name: "remote",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "By remote: the remote end, an IPv6 address in brackets; otherwise null. A port of 0 or an unspecified \
              address differs among them.",
        value: |row, _| row.ends.map_or(Value::Null, |ends| Value::Address(ends.remote())),
    },
    Field {
        name: "netns",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "By remote: inode number of their network namespace; otherwise null.",
        value: |row, _| Value::number(row.netns),
    },
    Field {
        name: "several_owners",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "By remote: whether they do not all have the same owner, so that pid is null.",
        value: |row, _| Value::Bool(row.several_owners),
    },
    Field {
        name: "groups",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "By owner and by remote: how many groups this row sums up, which are those beyond --top; null in other rows.",
        value: |row, _| Value::number(row.groups),
    },
];

impl Identified for Entry {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl MayBeStuck for Entry {
    fn report(&self) -> Option<&Report> {
        None
    }

    fn accepted(&self) -> Option<bool> {
        (self.kept == Kept::Queued).then_some(false)
    }

    fn holder(&self) -> Option<(&Task, u32)> {
        self.holding.as_ref().map(|holding| (&holding.task, holding.fd))
    }

    fn holders(&self) -> Option<u32> {
        self.holding.map(|holding| holding.count)
    }

    fn listener(&self) -> Option<&Task> {
        self.listener.as_ref()
    }

    fn is_subflow(&self) -> Option<bool> {
        Some(self.multipath.is_some())
    }

    fn multipath(&self) -> Option<Multipath> {
        self.multipath
    }
}

fn kept(kept: Kept) -> &'static str {
    match kept {
        Kept::Held => "held",
        Kept::Queued => "queued",
        Kept::Orphan => "orphan",
        Kept::Mini { .. } => "mini",
    }
}

fn share(row: &Count, of: impl Fn(Shares) -> u64) -> Value<'static> {
    Value::number(row.shares.map(of))
}
