//! The fields of a frame of `top`.

use super::report::{Grouped, event, flag, number, real, time, word};
use super::{Field, Shape, Table, Value, name, or_null};
use crate::model::tcp::State;
use crate::study::counts::Group;
use crate::study::diagnose::finding::Finding;
use crate::study::top::{Frame, GroupRow, Queue, Waiter};

/// The totals of a frame.
pub static TOP: Table<Frame> = Table::new(
    "top --once: top",
    &[
        event("Always `top`.", |_, _| Value::Word("top")),
        time("time", "The moment that the rows describe: wall-clock time in UTC with 9 digits.", |row, _| {
            Value::Time(row.unix_ns)
        }),
        number("observed_ns", "ns", "For how long tcptrace has looked.", |row, _| Value::U64(row.observed_ns)),
        flag("surveyed", "Whether the sockets that existed before have been found, and are counted.", |row, _| {
            Value::Bool(row.is_surveyed)
        }),
        number("sockets", "", "Sockets now, without listeners.", |row, _| Value::U64(row.total())),
        real("opened_per_second", "1/s", "Connections opened a second, in the last 10 s.", |row, _| {
            Value::Real(row.rates.opened)
        }),
        real("ended_per_second", "1/s", "Connections ended a second, when their socket is closed.", |row, _| {
            Value::Real(row.rates.ended)
        }),
        real("failed_per_second", "1/s", "Those of them that ended without an orderly close.", |row, _| {
            Value::Real(row.rates.failed)
        }),
        number("lost", "", "Events that were lost, as far as their number is known.", |row, _| {
            Value::U64(row.lost_events())
        }),
        Field {
            name: "lost_by_cause",
            nullable: false,
            unit: "",
            shape: Shape::Counts,
            doc: "The lost events by cause.",
            value: |row, _| Value::Counts(&row.lost),
        },
    ],
);

/// Sockets in one state.
pub static TOP_STATE: Table<(State, u64)> = Table::new(
    "top --once: top_state",
    &[
        event("Always `top_state`.", |_, _| Value::Word("top_state")),
        word("state", "The state.", |row, _| Value::Word(row.0.as_str())),
        number("sockets", "", "Sockets in this state now.", |row, _| Value::U64(row.1)),
    ],
);

/// How often something happens.
pub static TOP_RATE: Table<(&'static str, &'static str, f64)> = Table::new(
    "top --once: top_rate",
    &[
        event("Always `top_rate`.", |_, _| Value::Word("top_rate")),
        word("property", "closer or end (of failed connections).", |row, _| Value::Word(row.0)),
        word("word", "Its value, as in rows of connections.", |row, _| Value::Word(row.1)),
        real("per_second", "1/s", "Ended connections with this value a second, in the last 10 s.", |row, _| {
            Value::Real(row.2)
        }),
    ],
);

macro_rules! sockets {
    ($name:literal, $state:ident) => {
        number($name, "", concat!("Its sockets in ", $name, ", in the spelling of states."), |row: &GroupRow, _| {
            Value::U64(row.level.of(State::$state))
        })
    };
}

/// A group of sockets.
pub static TOP_GROUP: Table<GroupRow> = Table::new(
    "top --once: top_group",
    &[
        event("Always `top_group`.", |_, _| Value::Word("top_group")),
        Field::BY,
        number("sockets", "", "Its sockets now, listeners left out.", |row, _| Value::U64(row.level.sockets())),
        sockets!("established", Established),
        sockets!("time_wait", TimeWait),
        sockets!("close_wait", CloseWait),
        sockets!("fin_wait2", FinWait2),
        sockets!("syn_sent", SynSent),
        sockets!("syn_recv", SynRecv),
        sockets!("fin_wait1", FinWait1),
        sockets!("closing", Closing),
        sockets!("last_ack", LastAck),
        real("opened_per_second", "1/s", "Connections opened a second, in the last 10 s.", |row, _| {
            Value::Real(row.opened)
        }),
        real("failed_per_second", "1/s", "Connections that ended without an orderly close, a second.", |row, _| {
            Value::Real(row.failed)
        }),
        or_null(number("oldest_close_wait_ns", "ns", "Its oldest CLOSE_WAIT; null without one.", |row, _| {
            Value::number(row.oldest.known_ns())
        })),
        flag("oldest_at_least", "Whether oldest_close_wait_ns is a lower bound.", |row, _| {
            Value::Bool(row.oldest.is_at_least())
        }),
        or_null(number(
            "queued",
            "",
            "Connections in the accept queues of the port; null when not grouped by lport.",
            |row, _| Value::number(row.queue.map(|queue| queue.0)),
        )),
        or_null(number("queue_limit", "", "How many these queues are for; null likewise.", |row, _| {
            Value::number(row.queue.map(|queue| queue.1))
        })),
        or_null(number(
            "ports_free",
            "",
            "Local ports that are left for this destination; null when unknown, or when not grouped by remote.",
            |row, _| Value::number(row.ports.map(|ports| ports.0)),
        )),
        or_null(real(
            "ports_left_s",
            "s",
            "Seconds until none is, at the present rate; null if some stay free.",
            |row, _| Value::real(row.ports.and_then(|ports| ports.1)),
        )),
        Field::PARTIAL,
        Field::GROUP_HOST,
        Field::GROUP_PID,
        Field::GROUP_PROCESSES,
        Field::GROUP_COMM,
        Field::GROUP_CONTAINER,
        Field::GROUP_UNIT,
        Field::GROUP_CGROUP,
        Field::GROUP_REMOTE,
        Field::GROUP_LPORT,
        Field::GROUP_NETNS,
        Field::GROUP_NETNS_NAME,
    ],
);

/// A socket that waits.
pub static TOP_WAITER: Table<Waiter> = Table::new(
    "top --once: top_waiter",
    &[
        event("Always `top_waiter`.", |_, _| Value::Word("top_waiter")),
        Field {
            name: "conn",
            nullable: false,
            unit: "",
            shape: Shape::Hex,
            doc: "Id of the connection, as in its rows.",
            value: |row, _| Value::Hex(row.key.conn),
        },
        address("local", "Local end.", |row, _| Value::Address(row.local)),
        address("remote", "Remote end.", |row, _| Value::Address(row.remote)),
        word("state", "CLOSE_WAIT or FIN_WAIT2.", |row, _| Value::Word(row.state.as_str())),
        or_null(number("age_ns", "ns", "Time in state; null when unknown.", |row, _| {
            Value::number(row.age.known_ns())
        })),
        flag("age_at_least", "Whether age_ns is a lower bound.", |row, _| Value::Bool(row.age.is_at_least())),
        or_null(number("pid", "", "Process id of the owner; null when unknown.", |row, _| {
            Value::number(row.owner.map(|owner| owner.task.pid))
        })),
        Field {
            name: "comm",
            nullable: true,
            unit: "",
            shape: Shape::Name,
            doc: "Its name, escaped as in rows of connections; null when unknown.",
            value: |row, _| name(row.owner.as_ref().map(|owner| &owner.task)),
        },
        or_null(number("fd", "", "A descriptor of it; null when no scan has shown one.", |row, _| {
            Value::number(row.fd)
        })),
    ],
);

/// An accept queue.
pub static TOP_QUEUE: Table<Queue> = Table::new(
    "top --once: top_queue",
    &[
        event("Always `top_queue`.", |_, _| Value::Word("top_queue")),
        Field {
            name: "local",
            nullable: false,
            unit: "address:port",
            shape: Shape::Address,
            doc: "Where it listens.",
            value: |row, _| Value::Address(crate::study::diagnose::say::end(row.queue.ip, row.queue.port)),
        },
        number("netns", "", "Inode number of its network namespace.", |row, _| Value::U64(row.netns.into())),
        number("queued", "", "Connections that wait to be accepted.", |row, _| Value::U64(row.queue.queued.into())),
        number("limit", "", "How many may wait; one more fits.", |row, _| Value::U64(row.queue.limit.into())),
        or_null(number("requests", "", "Connections in SYN_RECV; null when unknown.", |row, _| {
            Value::number(row.queue.requests)
        })),
        or_null(number("pid", "", "Process id of the listener; null when unknown.", |row, _| {
            Value::number(row.task.map(|task| task.pid))
        })),
    ],
);

/// A finding in short.
pub static TOP_FINDING: Table<Finding> = Table::new(
    "top --once: top_finding",
    &[
        event("Always `top_finding`.", |_, _| Value::Word("top_finding")),
        word("id", "The rule.", |row, _| Value::Word(row.id)),
        word("severity", "critical, warning or note.", |row, _| Value::Word(row.severity.as_str())),
        word("confidence", "certain, likely or possible.", |row, _| Value::Word(row.confidence.as_str())),
        Field {
            name: "headline",
            nullable: false,
            unit: "",
            shape: Shape::Name,
            doc: "What is going on and for whom.",
            value: |row, _| Value::Name(row.headline.as_bytes()),
        },
        or_null(word("because_of", "The rule whose finding explains this one; null where none does.", |row, _| {
            Value::word(row.because_of)
        })),
        number("count", "", "Connections, sockets or calls that it is about.", |row, _| Value::U64(row.count)),
    ],
);

const fn address(name: &'static str, doc: &'static str, value: super::report::Taker<Waiter>) -> Field<Waiter> {
    Field { name, nullable: false, unit: "address:port", shape: Shape::Address, doc, value }
}

impl Grouped for GroupRow {
    fn group(&self) -> &Group {
        &self.group
    }
}
