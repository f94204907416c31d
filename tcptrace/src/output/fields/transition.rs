//! The fields of `watch`.

use crate::model::row::{Identity, Reason, Report, Stuck, Transition};
use crate::model::tcp::Closer;

use super::{Field, Identified, MayBeStuck, Shape, Streamed, Table, Value, name};

impl Streamed for Transition {
    const KIND: &'static str = "transitions";

    fn fields() -> [&'static [Field<Self>]; 2] {
        [TRANSITION_FIELDS, STUCK_TRANSITION_FIELDS]
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns
    }
}

impl Identified for Transition {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl MayBeStuck for Transition {
    fn report(&self) -> Option<&Report> {
        self.stuck.as_ref()?.report()
    }

    fn accepted(&self) -> Option<bool> {
        self.stuck.as_ref()?.accepted()
    }
}

/// The `event` of a row.
fn event(row: &Transition) -> &'static str {
    match row.stuck {
        None => "transition",
        Some(Stuck::Waiting(_)) => "stuck",
        Some(Stuck::Released { .. }) => "released",
    }
}

/// A change of state.
pub static TRANSITION: Table<Transition> =
    Table::new("watch", TRANSITION_FIELDS).with(STUCK_TRANSITION_FIELDS, |row| row.stuck.is_some());

static TRANSITION_FIELDS: &[Field<Transition>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "transition; with --report-stuck also stuck (the socket is still in old) or released (the last \
              descriptor of a stuck socket is closed).",
        value: |row, _| Value::Word(event(row)),
    },
    Field {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it happened: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
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
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "State before: CLOSED, LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, \
              CLOSING, LAST_ACK or TIME_WAIT.",
        value: |row, _| Value::Word(row.old.as_str()),
    },
    Field {
        name: "new",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "State after, in the words of old.",
        value: |row, _| Value::Word(row.new.as_str()),
    },
    Field {
        name: "held_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time spent in old; null when unknown.",
        value: |row, _| Value::number(row.held.known_ns()),
    },
    Field {
        name: "held_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether held_ns is a lower bound.",
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
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "Who closed: active (our FIN first), passive (the peer's FIN first), simultaneous, reset_local, \
              reset_remote, timeout, killed, never_established or unknown; null until it is decided.",
        value: |row, _| Value::word(row.closer.map(Closer::as_str)),
    },
    Field {
        name: "reason",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "Reason for the change: a word of a connection's end, or of its time_wait_end; null when there is none \
              to report.",
        value: |row, _| Value::word(row.reason.map(Reason::as_str)),
    },
    Field {
        name: "orphan",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether the socket is an orphan: no process holds it any more, but its connection lives on.",
        value: |row, _| Value::Bool(row.orphan),
    },
    Field::NETNS_NAME,
    Field::CGROUP_ID,
    Field::CONTAINER,
    Field::UNIT,
    Field {
        name: "close_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the process that closed the socket, which may not be its owner; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.pid)),
    },
    Field {
        name: "close_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the process that closed the socket, escaped as in comm; null when unknown.",
        value: |row, _| name(row.closed_by.as_ref()),
    },
    Field::POD,
    Field::POD_NAMESPACE,
    Field::CONTAINER_NAME,
];

/// The further fields of a stuck socket.
static STUCK_TRANSITION_FIELDS: &[Field<Transition>] = &[
    Field::HOLDER_PID,
    Field::HOLDER_COMM,
    Field::FD,
    Field::HOLDERS,
    Field::ACCEPTED,
    Field::LISTENER_PID,
    Field::LISTENER_COMM,
    Field::BYTES_UNACKED,
    Field::BYTES_SINCE,
    Field::MPTCP_SUBFLOW,
    Field::MPTCP_TOKEN,
    Field::MPTCP_STATE,
];
