//! The fields of `connections`.

use crate::model::event::Idle;
use crate::model::row::{Connection, Identity, Report, Status};
use crate::model::tcp::{End, State, TimeWaitEnd};

use super::{Field, Identified, MayBeStuck, Shape, Streamed, Table, Value, name};

impl Streamed for Connection {
    const KIND: &'static str = "connections";

    fn fields() -> [&'static [Field<Self>]; 2] {
        [CONNECTION_FIELDS, STUCK_CONNECTION_FIELDS]
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns
    }
}

impl Identified for Connection {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl MayBeStuck for Connection {
    fn report(&self) -> Option<&Report> {
        self.status.report()
    }

    fn accepted(&self) -> Option<bool> {
        self.status.accepted()
    }
}

/// The `event` of a row.
fn event(row: &Connection) -> &'static str {
    match row.status {
        Status::Ended(_) => "connection",
        Status::Open { .. } => "open",
        Status::Waiting { .. } | Status::Unreleased { .. } => "stuck",
        Status::Released { .. } => "released",
    }
}

/// A connection, ended or not.
pub static CONNECTION: Table<Connection> =
    Table::new("connections", CONNECTION_FIELDS).with(STUCK_CONNECTION_FIELDS, |row| row.status.lasting().is_some());

static CONNECTION_FIELDS: &[Field<Connection>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "connection when it has ended; open when the trace ended first (export, timeline); with --report-stuck \
              also stuck (it waits too long, or it has ended while its descriptor is open) and released (its last \
              descriptor is closed).",
        value: |row, _| Value::Word(event(row)),
    },
    Field {
        name: "opened",
        nullable: true,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it was opened: wall-clock time in UTC with 9 digits; null when not seen.",
        value: |row, context| row.opened_ns.map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns))),
    },
    Field {
        name: "closed",
        nullable: true,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When it ended, after its TIME_WAIT: wall-clock time in UTC with 9 digits, converted from boot_ns; null for \
              open, stuck and released.",
        value: |row, context| row.closed_ns().map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns))),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "When it ended or was reported, as CLOCK_BOOTTIME, which never steps; for open, when the trace ended.",
        value: |row, _| Value::U64(row.boot_ns),
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
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Who closed: active (our FIN first), passive (the peer's FIN first), simultaneous, reset_local, \
              reset_remote, timeout, killed, never_established or unknown; for open and stuck, also unknown while \
              neither side has closed.",
        value: |row, _| Value::Word(row.closer.as_str()),
    },
    Field {
        name: "end",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "How it ended: fin, fin_wait2_timeout, refused, connect_timeout, retransmit_timeout, keepalive_timeout, \
              user_timeout, reset_received, reset_unread_data, reset_linger0, reset_data_after_close, reset_other, \
              disconnected, no_local_port, unreachable, closed_while_connecting, never_accepted, orphan_killed, killed \
              or unknown; null while it is open.",
        value: |row, _| Value::word(row.end().map(End::as_str)),
    },
    Field {
        name: "states",
        nullable: false,
        unit: "ns",
        shape: Shape::States,
        doc: "The states it went through, in order, and the time in each; at_least marks a lower bound. \
              JSON: objects of state, ns, at_least. CSV: STATE:ns joined by semicolons, a plus sign for at_least.",
        value: |row, _| Value::States(&row.stays),
    },
    Field {
        name: "established_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in ESTABLISHED; null when it never was, or unknown.",
        value: |row, _| Value::number(row.held(State::Established).known_ns()),
    },
    Field {
        name: "close_wait_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in CLOSE_WAIT; null when it never was, or unknown.",
        value: |row, _| Value::number(row.held(State::CloseWait).known_ns()),
    },
    Field {
        name: "time_wait_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in TIME_WAIT; null when it never was, or unknown.",
        value: |row, _| Value::number(row.held(State::TimeWait).known_ns()),
    },
    Field {
        name: "time_wait_end",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "How its TIME_WAIT ended: expired, reused, new_syn, reset, killed, netns_gone, refused (the kernel \
              created none: tcp_max_tw_buckets, or no memory) or unknown; null when none was due.",
        value: |row, _| Value::word(row.time_wait_end().map(TimeWaitEnd::as_str)),
    },
    Field {
        name: "bytes_sent",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload sent, including retransmissions; null when unknown. This and the next counters are unknown for \
              a socket in a sockmap (a BPF map of sockets), where bytes bypass TCP.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_sent)),
    },
    Field {
        name: "bytes_received",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_received)),
    },
    Field {
        name: "bytes_unread",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Payload received that the process had not read when it closed; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.bytes_unread)),
    },
    Field {
        name: "retransmits",
        nullable: true,
        unit: "segments",
        shape: Shape::Number,
        doc: "Segments retransmitted; null when unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.retransmits)),
    },
    Field {
        name: "srtt_us",
        nullable: true,
        unit: "us",
        shape: Shape::Number,
        doc: "Smoothed round-trip time when it closed; null when not measured or unknown.",
        value: |row, _| Value::number(row.totals.and_then(|totals| totals.srtt_us)),
    },
    Field {
        name: "close_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the process that closed the socket, which may not be its owner; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.pid)),
    },
    Field {
        name: "close_tid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Id of the thread that closed the socket; null when unknown.",
        value: |row, _| Value::number(row.closed_by.map(|task| task.tid)),
    },
    Field {
        name: "close_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the process that closed the socket, escaped as in comm; null when unknown.",
        value: |row, _| name(row.closed_by.as_ref()),
    },
    Field {
        name: "complete",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "False when its opening was not seen, or an event of it may be lost.",
        value: |row, _| Value::Bool(row.complete),
    },
    Field::NETNS_NAME,
    Field::CGROUP_ID,
    Field::CONTAINER,
    Field::UNIT,
    Field {
        name: "in_flight",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether data, a SYN or a FIN was unacknowledged when its socket was closed; null when unknown.",
        value: |row, _| row.totals.map_or(Value::Null, |totals| Value::Bool(totals.in_flight)),
    },
    Field {
        name: "retransmits_unanswered",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Consecutive retransmissions without an answer when its socket was closed (icsk_retransmits); null when \
              unknown.",
        value: |row, _| Value::number(row.totals.map(|totals| totals.retransmits_unanswered)),
    },
    Field {
        name: "reset_received",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether the peer sent a reset (RST), including one in TIME_WAIT. If end is refused, false means an ICMP \
              error. Null when unknown.",
        value: |row, _| match row.totals.and_then(|totals| totals.reset_received) {
            Some(came) => Value::Bool(came),
            None => Value::Null,
        },
    },
    Field {
        name: "idle_before_close_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "How long no data had been received or sent when the connection began to end: when the first FIN or reset ended \
              ESTABLISHED. Counted from the handshake where there was no data. Whole kernel ticks; null when unknown.",
        value: |row, _| Value::number(row.idle.and_then(Idle::quiet_ns)),
    },
    Field::POD,
    Field::POD_NAMESPACE,
    Field::CONTAINER_NAME,
];

/// The further fields of an open or stuck connection.
static STUCK_CONNECTION_FIELDS: &[Field<Connection>] = &[
    Field {
        name: "state",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Current state, in the words of states; CLOSED when only its descriptor is left.",
        value: |row, _| Value::word(row.status.lasting().map(|(state, _)| state.as_str())),
    },
    Field {
        name: "age_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "Time in state so far; in ESTABLISHED, the time in which the peer has acknowledged none of the data \
              written; null when unknown.",
        value: |row, _| Value::number(row.status.lasting().and_then(|(_, age)| age.known_ns())),
    },
    Field {
        name: "age_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether age_ns is a lower bound.",
        value: |row, _| row.status.lasting().map_or(Value::Null, |(_, age)| Value::Bool(age.is_at_least())),
    },
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
