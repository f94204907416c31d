//! The fields of sockets that exist, and of their counts.

use super::{Field, Identified, MayBeStuck, Shape, Table, Value, name};
use crate::model::event::{Kept, Multipath};
use crate::model::row::{Entry, Identity, Report};
use crate::model::tcp::{State, Task};
use crate::study::snapshot::{Count, Shares};

/// A socket that exists.
pub static SOCKET: Table<Entry> = Table::new("snapshot --list", SOCKET_FIELDS);

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
        doc: "When the socket was listed: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "When the socket was listed, as CLOCK_BOOTTIME, which never steps.",
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
        doc: "Who owns it: held (a process, or the kernel itself), queued (its listener: it is still in the accept \
              queue), orphan (no process any more) or mini (no process, and only a mini-socket is left).",
        value: |row, _| Value::Word(kept(row.kept)),
    },
    Field {
        name: "age_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in state, if the kernel knows it: for TIME_WAIT, how much of the 60 s has passed; for CLOSE_WAIT, \
              CLOSING and a FIN_WAIT2 that is not a mini-socket, the time since its last segment arrived; null when \
              unknown.",
        value: |row, _| Value::number(row.age.known_ns()),
    },
    Field {
        name: "age_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether age_ns is a lower bound.",
        value: |row, _| Value::Bool(row.age.is_at_least()),
    },
    Field {
        name: "time_wait_left_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Remaining time in TIME_WAIT; null in other states.",
        value: |row, _| Value::number(row.time_wait_left_ns),
    },
    Field {
        name: "recv_queue",
        nullable: false,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received that the process has not read, plus one for an unread FIN; for a listener, the connections in its \
              accept queue.",
        value: |row, _| Value::U64(row.recv_queue.into()),
    },
    Field {
        name: "send_queue",
        nullable: false,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload sent that the peer has not acknowledged; for a listener, the limit of its accept queue.",
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
        doc: "Time until that timer fires; null when none runs.",
        value: |row, _| Value::number(row.timer.as_str().map(|_| row.timer_left_ns)),
    },
    Field {
        name: "retransmits",
        nullable: false,
        unit: "segments",
        shape: Shape::Number,
        doc: "Consecutive retransmissions or probes without an answer.",
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
        doc: "Inode number of the socket, as in /proc/PID/fd (socket:[inode]); null when no descriptor can name it.",
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
    Field::POD,
    Field::POD_NAMESPACE,
    Field::CONTAINER_NAME,
];

/// A count.
pub static COUNT: Table<Count> = Table::new("snapshot", COUNT_FIELDS);

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
        doc: "Grouping: by state; or, for states that signal trouble, by owner, or by remote: the end that most \
              sockets share, which is a local port, or a remote address and port.",
        value: |row, _| Value::Word(row.by.as_str()),
    },
    Field {
        name: "state",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "State: CLOSED, LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSING, TIME_WAIT, \
              CLOSE_WAIT or LAST_ACK; null for a sum of several states.",
        value: |row, _| Value::word(row.state.map(State::as_str)),
    },
    Field {
        name: "total",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number of sockets; null when unknown.",
        value: |row, _| Value::number(row.total),
    },
    Field {
        name: "held",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number owned by a process, or by the kernel itself; null when unknown.",
        value: |row, _| share(row, |shares| shares.held),
    },
    Field {
        name: "queued",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number still in an accept queue; null when unknown.",
        value: |row, _| share(row, |shares| shares.queued),
    },
    Field {
        name: "orphan",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number no longer owned by any process; null when unknown.",
        value: |row, _| share(row, |shares| shares.orphan),
    },
    Field {
        name: "mini",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number that are mini-sockets; null when unknown.",
        value: |row, _| share(row, |shares| shares.mini),
    },
    Field {
        name: "pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the owner of all of them; null when unknown, and by state.",
        value: |row, _| Value::number(row.owner.map(|task| task.pid)),
    },
    Field {
        name: "comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the owner of all of them, escaped as in rows of sockets; null when unknown, and by state.",
        value: |row, _| name(row.owner.as_ref()),
    },
    Field {
        name: "listener_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the owner of the listener, for sockets in an accept queue; null when unknown.",
        value: |row, _| Value::number(row.listener.map(|task| task.pid)),
    },
    Field {
        name: "listener_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the owner of the listener, for sockets in an accept queue, escaped as in comm; null when \
              unknown.",
        value: |row, _| name(row.listener.as_ref()),
    },
    Field {
        name: "local",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "By remote: local address and port, IPv6 addresses in brackets; otherwise null. Port 0 or an unspecified \
              address: the sockets differ in it.",
        value: |row, _| row.ends.map_or(Value::Null, |ends| Value::Address(ends.local())),
    },
    Field {
        name: "remote",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "By remote: remote address and port, IPv6 addresses in brackets; otherwise null. Port 0 or an \
              unspecified address: the sockets differ in it.",
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
        doc: "By remote: whether the sockets have different owners, so that pid is null.",
        value: |row, _| Value::Bool(row.several_owners),
    },
    Field {
        name: "groups",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "By owner and by remote: number of groups that this row sums up, beyond --top; null in other rows.",
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
