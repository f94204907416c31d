//! The fields of a report: one table a kind of row.

use super::loss::CAUSES;
use super::{Field, Identified, Shape, Table, Value, or_null};
use crate::model::row::Identity;
use crate::model::stream::{Context, Lost};
use crate::model::tcp::{Comm, End, State, TimeWaitEnd};
use crate::study::report::{
    Bin, ChurnRow, Count, CounterRow, FailureRow, Group, GroupRow, OpenRow, Overview, Peak, Point, SlowRow, StateRow,
};

/// The head of a report.
pub static REPORT: Table<Overview> = Table::new("report: report", REPORT_FIELDS);

/// The fields of its head.
static REPORT_FIELDS: &[Field<Overview>] = &[
    event("Always `report`.", |_, _| Value::Word("report")),
    Field {
        name: "from",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When the first recording began: wall-clock time in UTC with 9 digits.",
        value: |row, _| Value::Time(row.from_unix_ns),
    },
    Field {
        name: "to",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When the last recording ended.",
        value: |row, _| Value::Time(row.to_unix_ns),
    },
    number("duration_ns", "ns", "From the one to the other.", |row, _| Value::U64(row.duration_ns())),
    number("events", "", "Events read.", |row, _| Value::U64(row.events)),
    number("transitions", "", "Changes of state that follow from them, whatever the filters.", |row, _| {
        Value::U64(row.transitions)
    }),
    number(
        "lost",
        "",
        "Events that were lost while recording, or with damaged parts of traces, as far as their number is known: what \
         they would have told is missing.",
        |row, _| Value::U64(row.lost),
    ),
    flag("lost_at_least", "Whether more may be lost than that.", |row, _| Value::Bool(row.lost_at_least)),
    number("damaged", "", "Damaged places in the traces: what they held is missing.", |row, _| Value::U64(row.damaged)),
    number(
        "connections",
        "",
        "Connections that are told of; each end on a machine that was recorded counts.",
        |row, _| Value::U64(row.connections),
    ),
    number("opened", "", "Connections of which the opening was seen.", |row, _| Value::U64(row.opened)),
    or_null(real(
        "opened_per_second",
        "1/s",
        "Openings a second, on average; null when the period has no length.",
        |row, _| Value::real(row.per_second(row.opened)),
    )),
    or_null(real(
        "opened_peak_per_second",
        "1/s",
        "Openings in the busiest second; null when the period has no length.",
        |row, _| Value::real(row.opened_peak.map(|peak| peak.value)),
    )),
    or_null(time("opened_peak_time", "When that second began; null when the period has no length.", |row, _| {
        peak_time(row.opened_peak)
    })),
    number("ended", "", "Connections that have ended, after their TIME_WAIT.", |row, _| Value::U64(row.ended)),
    or_null(real(
        "ended_per_second",
        "1/s",
        "Ends a second, on average; null when the period has no length.",
        |row, _| Value::real(row.per_second(row.ended)),
    )),
    or_null(real(
        "ended_peak_per_second",
        "1/s",
        "Ends in the busiest second; null when the period has no length.",
        |row, _| Value::real(row.ended_peak.map(|peak| peak.value)),
    )),
    or_null(time("ended_peak_time", "When that second began; null when the period has no length.", |row, _| {
        peak_time(row.ended_peak)
    })),
    number("open", "", "Connections that had not ended when the recording did.", |row, _| Value::U64(row.open)),
    number(
        "incomplete",
        "",
        "Connections that were not seen from their opening on, or of which an event may have been lost.",
        |row, _| Value::U64(row.incomplete),
    ),
    number(
        "failed",
        "",
        "Connections that ended otherwise than by FINs in both directions; those whose end was not seen, or that their \
         process disconnected, are not counted.",
        |row, _| Value::U64(row.failed),
    ),
    number("reset", "", "Connections that a reset ended, from either side.", |row, _| Value::U64(row.reset)),
    number("counted", "", "Connections of which bytes and retransmissions are known.", |row, _| {
        Value::U64(row.counted)
    }),
    number("bytes_sent", "bytes", "Payload that those sent, retransmissions included.", |row, _| {
        Value::U64(row.bytes_sent)
    }),
    number("bytes_received", "bytes", "Payload that those received.", |row, _| Value::U64(row.bytes_received)),
    number("retransmits", "segments", "Segments that those retransmitted.", |row, _| Value::U64(row.retransmits)),
    number(
        "closer_undecided",
        "",
        "Open connections that neither side had begun to close. All others are in the rows of report_count by closer: one \
         that is open is counted there as soon as a side has closed.",
        |row, _| Value::U64(row.closer_undecided),
    ),
];

/// A host.
pub static REPORT_HOST: Table<Box<str>> = Table::new("report: report_host", REPORT_HOST_FIELDS);

/// The fields of a host.
static REPORT_HOST_FIELDS: &[Field<Box<str>>] = &[
    event("Always `report_host`.", |_, _| Value::Word("report_host")),
    text("host", "Name of a host that was recorded, escaped as in comm.", |row, _| Value::Name(row.as_bytes())),
];

/// A loss.
pub static REPORT_LOSS: Table<Lost> = Table::new("report: report_loss", REPORT_LOSS_FIELDS);

/// The fields of a loss.
static REPORT_LOSS_FIELDS: &[Field<Lost>] = &[
    event("Always `report_loss`.", |_, _| Value::Word("report_loss")),
    word("cause", CAUSES, |row, _| Value::Word(row.cause.as_str())),
    number("events", "", "How many, as far as that is known.", |row, _| Value::U64(row.events)),
    flag("lost_at_least", "Whether more may be lost than that.", |row, _| Value::Bool(row.at_least)),
];

/// A damaged place.
pub static REPORT_DAMAGE: Table<Box<str>> = Table::new("report: report_damage", REPORT_DAMAGE_FIELDS);

/// The fields of a damaged place.
static REPORT_DAMAGE_FIELDS: &[Field<Box<str>>] = &[
    event("Always `report_damage`.", |_, _| Value::Word("report_damage")),
    text("detail", "Where in which file, and what is wrong with it.", |row, _| Value::Name(row.as_bytes())),
];

/// A counter of what no connection shows.
pub static REPORT_COUNTER: Table<CounterRow> = Table::new("report: report_counter", REPORT_COUNTER_FIELDS);

/// The fields of a counter of what no connection shows.
static REPORT_COUNTER_FIELDS: &[Field<CounterRow>] = &[
    event("Always `report_counter`.", |_, _| Value::Word("report_counter")),
    word("counter", "A counter of the kernel, as in rows of `watch`.", |row, _| Value::Word(row.counter.as_str())),
    number("increase", "", "By how much it has grown. No connection shows these.", |row, _| Value::U64(row.increase)),
    time("first", "When it was first seen to have grown.", |row, _| Value::Time(row.first_unix_ns)),
    time("last", "When it was last seen to have grown.", |row, _| Value::Time(row.last_unix_ns)),
    word("what", "What it counts.", |row, _| Value::Word(row.counter.what())),
    word("meaning", "Why it grows.", |row, _| Value::Word(row.counter.why())),
    Field::OTHERS,
    Field::PARTIAL,
    Field::GROUP_HOST,
    Field::GROUP_NETNS,
    Field::GROUP_NETNS_NAME,
];

/// A count.
pub static REPORT_COUNT: Table<Count> = Table::new("report: report_count", REPORT_COUNT_FIELDS);

/// The fields of a count.
static REPORT_COUNT_FIELDS: &[Field<Count>] = &[
    event("Always `report_count`.", |_, _| Value::Word("report_count")),
    word(
        "property",
        "What connections are counted by: closer, end or time_wait_end (those that have ended), or open (the others: by \
         the state that they were in when the recording ended).",
        |row, _| Value::Word(row.property.kind()),
    ),
    word("value", "A word of that, as in the rows of connections.", |row, _| Value::Word(row.property.word())),
    number("connections", "", "How many.", |row, _| Value::U64(row.connections)),
    real("share", "", "Of all that are counted by this property, from 0 to 1.", |row, _| Value::Real(row.share)),
];

/// A state in which sockets pile up.
pub static REPORT_STATE: Table<StateRow> = Table::new("report: report_state", REPORT_STATE_FIELDS);

/// The fields of a state in which sockets pile up.
static REPORT_STATE_FIELDS: &[Field<StateRow>] = &[
    event("Always `report_state`.", |_, _| Value::Word("report_state")),
    word("state", "TIME_WAIT, CLOSE_WAIT or FIN_WAIT2.", |row, _| Value::Word(row.state.as_str())),
    number("sockets", "", "How many sockets were in it, as far as something of that time was seen.", |row, _| {
        Value::U64(row.sockets)
    }),
    number("at_least", "", "How many of them were in it for longer than was seen, or may have been.", |row, _| {
        Value::U64(row.at_least)
    }),
    number("open", "", "How many of them still were in it when the recording ended.", |row, _| Value::U64(row.open)),
    number("never_accepted", "", "How many of them no process had accepted.", |row, _| Value::U64(row.never_accepted)),
    or_null(number("min_ns", "ns", "Shortest of the times that are known exactly; null when none is.", |row, _| {
        Value::number(row.exact.min)
    })),
    or_null(number(
        "p50_ns",
        "ns",
        "Median time in it, to within 0.4 %: the Kaplan-Meier estimate, as are p90_ns and p99_ns, which counts stays that are \
         not over or were seen in part; null when unknown.",
        |row, _| Value::number(row.p50.known_ns()),
    )),
    or_null(number("p90_ns", "ns", "The time that nine of ten do not exceed; null when unknown.", |row, _| {
        Value::number(row.p90.known_ns())
    })),
    or_null(number("p99_ns", "ns", "The time that 99 of a hundred do not exceed; null when unknown.", |row, _| {
        Value::number(row.p99.known_ns())
    })),
    or_null(number("max_ns", "ns", "Longest of the times that are known exactly; null when none is.", |row, _| {
        Value::number(row.exact.max)
    })),
    or_null(number(
        "at_least_p50_ns",
        "ns",
        "Median of what was seen of the other times; null without such.",
        |row, _| Value::number(row.parts_p50),
    )),
    or_null(number(
        "at_least_max_ns",
        "ns",
        "Longest of what was seen of the other times; null without such.",
        |row, _| Value::number(row.parts.max),
    )),
    or_null(real(
        "peak_sockets",
        "",
        "The most sockets that were in it, on average over the short time of peak_duration_ns; null when nothing is known.",
        |row, _| Value::real(row.peak.map(|peak| peak.value)),
    )),
    or_null(time("peak_time", "When that short time began; null when nothing is known.", |row, _| peak_time(row.peak))),
    or_null(number("peak_duration_ns", "ns", "How long that short time was; null when nothing is known.", |row, _| {
        Value::number(row.peak.map(|peak| peak.width_ns))
    })),
    number(
        "unplaced",
        "",
        "How many of the sockets are left out of peak_sockets and report_point, since it is not known when they were in it.",
        |row, _| Value::U64(row.unplaced),
    ),
    flag("p50_at_least", P50_AT_LEAST, |row, _| Value::Bool(row.p50.is_at_least())),
    flag("p90_at_least", "Whether p90_ns is a lower bound.", |row, _| Value::Bool(row.p90.is_at_least())),
    flag("p99_at_least", "Whether p99_ns is a lower bound.", |row, _| Value::Bool(row.p99.is_at_least())),
];

/// A bar of a histogram.
pub static REPORT_BUCKET: Table<(State, Bin)> = Table::new("report: report_bucket", REPORT_BUCKET_FIELDS);

/// The fields of a bar of a histogram.
static REPORT_BUCKET_FIELDS: &[Field<(State, Bin)>] = &[
    event("Always `report_bucket`.", |_, _| Value::Word("report_bucket")),
    word("state", "The state that the sockets were in.", |(state, _), _| Value::Word(state.as_str())),
    number("from_ns", "ns", "They were in it for this time or longer.", |(_, bin), _| Value::U64(bin.from_ns)),
    or_null(number("to_ns", "ns", "And for less than this; null without a bound.", |(_, bin), _| {
        Value::number(bin.to_ns)
    })),
    number("exact", "", "How many of which the time is known exactly.", |(_, bin), _| Value::U64(bin.exact)),
    number(
        "at_least",
        "",
        "How many of which this much was seen, and which may have been in it for longer.",
        |(_, bin), _| Value::U64(bin.at_least),
    ),
];

/// A group of connections.
pub static REPORT_GROUP: Table<GroupRow> = Table::new("report: report_group", REPORT_GROUP_FIELDS);

/// The fields of a group of connections.
static REPORT_GROUP_FIELDS: &[Field<GroupRow>] = &[
    event("Always `report_group`.", |_, _| Value::Word("report_group")),
    or_null(word("state", "Counted are those that were in this state; null: all.", |row, _| {
        Value::word(row.state.map(State::as_str))
    })),
    Field::BY,
    number("connections", "", "How many.", |row, _| Value::U64(row.connections)),
    real("share", "", "Of all, or of all that were in state, from 0 to 1.", |row, _| Value::Real(row.share)),
    or_null(number(
        "total_ns",
        "ns",
        "How long all of them together were in state, as far as it was seen; null without state.",
        |row, _| Value::number(row.total),
    )),
    or_null(real(
        "total_share",
        "",
        "Of the time of all in state, from 0 to 1: their share of the sockets that were there at any moment, on average. \
         Groups with the largest come first. Null without state.",
        |row, _| Value::real(row.total_share),
    )),
    number("open", "", "How many had not ended when the recording did; with state: still were in it.", |row, _| {
        Value::U64(row.open)
    }),
    number("failed", "", "How many of the group failed, as in the row of the report.", |row, _| Value::U64(row.failed)),
    or_null(number(
        "at_least",
        "",
        "How many were in state for longer than was seen, or may have been; null without state.",
        |row, _| Value::number(row.at_least),
    )),
    or_null(number(
        "never_accepted",
        "",
        "How many of those in state no process had accepted; null without state.",
        |row, _| Value::number(row.state.map(|_| row.never_accepted)),
    )),
    or_null(number(
        "p50_ns",
        "ns",
        "Median time in state (without state: in ESTABLISHED), to within 2 %: the Kaplan-Meier estimate, as are p90_ns and \
         p99_ns, which counts stays that are not over or were seen in part; null when unknown.",
        |row, _| Value::number(row.p50.known_ns()),
    )),
    or_null(number("p90_ns", "ns", "The time that nine of ten do not exceed; null when unknown.", |row, _| {
        Value::number(row.p90.known_ns())
    })),
    or_null(number("longest_ns", "ns", "Longest of those times; null when nothing was seen of any.", |row, _| {
        Value::number(row.longest.known_ns())
    })),
    flag(
        "longest_at_least",
        "Whether longest_ns is only the known part of a time that may have been longer.",
        |row, _| Value::Bool(row.longest.is_at_least()),
    ),
    number("bytes_sent", "bytes", "Payload that the group sent, as far as that is known.", |row, _| {
        Value::U64(row.bytes_sent)
    }),
    number("bytes_received", "bytes", "Payload that the group received, as far as that is known.", |row, _| {
        Value::U64(row.bytes_received)
    }),
    Field::OTHERS,
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
    or_null(number("p99_ns", "ns", "The time that 99 of a hundred do not exceed; null when unknown.", |row, _| {
        Value::number(row.p99.known_ns())
    })),
    flag("p50_at_least", P50_AT_LEAST, |row, _| Value::Bool(row.p50.is_at_least())),
    flag("p90_at_least", "Whether p90_ns is a lower bound.", |row, _| Value::Bool(row.p90.is_at_least())),
    flag("p99_at_least", "Whether p99_ns is a lower bound.", |row, _| Value::Bool(row.p99.is_at_least())),
];

/// Failures of a group.
pub static REPORT_FAILURE: Table<FailureRow> = Table::new("report: report_failure", REPORT_FAILURE_FIELDS);

/// The fields of failures of a group.
static REPORT_FAILURE_FIELDS: &[Field<FailureRow>] = &[
    event("Always `report_failure`.", |_, _| Value::Word("report_failure")),
    word("end", "How the connections ended, in a word as in their own rows.", |row, _| Value::Word(row.end.as_str())),
    Field::BY,
    number("connections", "", "How many of the group.", |row, _| Value::U64(row.connections)),
    real("share", "", "Of all that ended so, from 0 to 1.", |row, _| Value::Real(row.share)),
    Field::OTHERS,
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
];

/// Short-lived connections between the same two.
pub static REPORT_CHURN: Table<(ChurnRow, Option<f64>)> = Table::new("report: report_churn", REPORT_CHURN_FIELDS);

/// The fields of short-lived connections between the same two.
static REPORT_CHURN_FIELDS: &[Field<(ChurnRow, Option<f64>)>] = &[
    event("Always `report_churn`: short-lived connections from one process to one end.", |_, _| {
        Value::Word("report_churn")
    }),
    word("side", "Which end the process is: client or server; unknown for the others.", |(row, _), _| {
        Value::Word(row.side.as_str())
    }),
    number("connections", "", "How many were in ESTABLISHED for less than 1 s, and have left it.", |(row, _), _| {
        Value::U64(row.connections)
    }),
    or_null(real(
        "per_second",
        "1/s",
        "That many a second of the whole period; null when it has no length.",
        |(_, rate), _| Value::real(*rate),
    )),
    number("longer", "", "How many between the same two were in ESTABLISHED for longer.", |(row, _), _| {
        Value::U64(row.longer)
    }),
    number(
        "active",
        "",
        "How many of the short-lived ones the process closed first: it has their TIME_WAIT.",
        |(row, _), _| Value::U64(row.active),
    ),
    or_null(number(
        "p50_ns",
        "ns",
        "Median of their times in ESTABLISHED, to within 2 %; null without any.",
        |(row, _), _| Value::number(row.p50),
    )),
    or_null(number(
        "mean_bytes_sent",
        "bytes",
        "Payload that one of them sent, on average; null when unknown.",
        |(row, _), _| Value::number(row.bytes_sent),
    )),
    or_null(number(
        "mean_bytes_received",
        "bytes",
        "Payload that one of them received, on average; null when unknown.",
        |(row, _), _| Value::number(row.bytes_received),
    )),
    Field::OTHERS,
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
];

/// Connections that had not ended.
pub static REPORT_OPEN: Table<OpenRow> = Table::new("report: report_open", REPORT_OPEN_FIELDS);

/// The fields of connections that had not ended.
static REPORT_OPEN_FIELDS: &[Field<OpenRow>] = &[
    event("Always `report_open`.", |_, _| Value::Word("report_open")),
    word("state", "The state that they were in when the recording ended.", |row, _| Value::Word(row.state.as_str())),
    Field::BY,
    number("connections", "", "How many of the group.", |row, _| Value::U64(row.connections)),
    real("share", "", "Of all that were in state then, from 0 to 1.", |row, _| Value::Real(row.share)),
    number("never_accepted", "", "How many of them no process had accepted.", |row, _| Value::U64(row.never_accepted)),
    or_null(number(
        "oldest_ns",
        "ns",
        "For how long the oldest one had been in state; null when unknown.",
        |row, _| Value::number(row.oldest.known_ns()),
    )),
    flag("oldest_at_least", "Whether that is only the known part of a time that may have been longer.", |row, _| {
        Value::Bool(row.oldest.is_at_least())
    }),
    Field::OTHERS,
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
];

/// A part of the time.
pub static REPORT_POINT: Table<Point> = Table::new("report: report_point", REPORT_POINT_FIELDS);

/// The fields of a part of the time.
static REPORT_POINT_FIELDS: &[Field<Point>] = &[
    event("Always `report_point`.", |_, _| Value::Word("report_point")),
    time("time", "When this part of the period begins.", |row, _| Value::Time(row.from_unix_ns)),
    number("duration_ns", "ns", "How long it is.", |row, _| Value::U64(row.width_ns)),
    number("opened", "", "Connections that were opened in it.", |row, _| Value::U64(row.opened)),
    number("ended", "", "Connections that ended in it, after their TIME_WAIT.", |row, _| Value::U64(row.ended)),
    number("failed", "", "Those of them that failed, as in the row of the report.", |row, _| Value::U64(row.failed)),
    real("time_wait", "", "How many sockets were in TIME_WAIT, on average.", |row, _| Value::Real(row.sockets[0])),
    real("close_wait", "", "How many sockets were in CLOSE_WAIT, on average.", |row, _| Value::Real(row.sockets[1])),
    real("fin_wait2", "", "How many sockets were in FIN_WAIT2, on average.", |row, _| Value::Real(row.sockets[2])),
    real("established", "", "How many sockets were in ESTABLISHED, on average.", |row, _| Value::Real(row.sockets[3])),
    real("syn_sent", "", "How many sockets were in SYN_SENT, on average.", |row, _| Value::Real(row.sockets[4])),
    real("syn_recv", "", "How many sockets were in SYN_RECV, on average.", |row, _| Value::Real(row.sockets[5])),
    real("fin_wait1", "", "How many sockets were in FIN_WAIT1, on average.", |row, _| Value::Real(row.sockets[6])),
    real("closing", "", "How many sockets were in CLOSING, on average.", |row, _| Value::Real(row.sockets[7])),
    real("last_ack", "", "How many sockets were in LAST_ACK, on average.", |row, _| Value::Real(row.sockets[8])),
];

/// One of the slowest connections.
pub static REPORT_SLOWEST: Table<SlowRow> = Table::new("report: report_slowest", REPORT_SLOWEST_FIELDS);

/// The fields of one of the slowest connections.
static REPORT_SLOWEST_FIELDS: &[Field<SlowRow>] = &[
    event("Always `report_slowest`.", |_, _| Value::Word("report_slowest")),
    word(
        "slow",
        "What it is among the longest in: time_wait, close_wait or lifetime (from its opening to its end).",
        |row, _| Value::Word(row.slow.as_str()),
    ),
    number("held_ns", "ns", "How long it was.", |row, _| Value::U64(row.held.known_ns().unwrap_or(0))),
    flag("held_at_least", "Whether held_ns is only the known part of a time that may have been longer.", |row, _| {
        Value::Bool(row.held.is_at_least())
    }),
    or_null(text("host", "Name of its host, escaped as in comm; null when unknown.", |row, _| {
        Value::name(Some(row.host.as_bytes()).filter(|host| !host.is_empty()))
    })),
    or_null(time("opened", "When it began; null when that was not seen.", |row, context| {
        row.connection.opened_ns.map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns)))
    })),
    or_null(time(
        "closed",
        "When it ended, after its TIME_WAIT; null when it had not when the recording ended.",
        |row, context| row.connection.closed_ns().map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns))),
    )),
    Field::CONN,
    Field::FAMILY,
    Field::LOCAL,
    Field::REMOTE,
    Field::NETNS,
    Field::NETNS_NAME,
    Field::PID,
    Field::COMM,
    Field::UID,
    Field::CGROUP,
    Field::CONTAINER,
    Field::UNIT,
    Field::OWNER_SOURCE,
    Field::SIDE,
    word("closer", "Who closed, in a word as in the rows of connections.", |row, _| {
        Value::Word(row.connection.closer.as_str())
    }),
    or_null(word("end", "How it ended, in a word as in the rows of connections; null while it had not.", |row, _| {
        Value::word(row.connection.end().map(End::as_str))
    })),
    Field {
        name: "states",
        nullable: false,
        unit: "ns",
        shape: Shape::States,
        doc: "The states it went through, in order, and how long each lasted; at_least where it may have been longer.",
        value: |row, _| Value::States(&row.connection.stays),
    },
    or_null(word(
        "time_wait_end",
        "How its TIME_WAIT ended, in a word as in the rows of connections; null when none was due.",
        |row, _| Value::word(row.connection.time_wait_end().map(TimeWaitEnd::as_str)),
    )),
    or_null(number("bytes_sent", "bytes", "Payload sent; null when unknown.", |row, _| {
        Value::number(row.connection.totals.map(|totals| totals.bytes_sent))
    })),
    or_null(number("bytes_received", "bytes", "Payload received; null when unknown.", |row, _| {
        Value::number(row.connection.totals.map(|totals| totals.bytes_received))
    })),
    or_null(number("retransmits", "segments", "Segments retransmitted; null when unknown.", |row, _| {
        Value::number(row.connection.totals.map(|totals| totals.retransmits))
    })),
    flag("complete", "False when its beginning was not seen, or an event of it may have been lost.", |row, _| {
        Value::Bool(row.connection.complete)
    }),
];

impl Identified for SlowRow {
    fn identity(&self) -> &Identity {
        &self.connection.identity
    }
}

/// A row about a group of connections.
pub trait Grouped {
    /// Which.
    fn group(&self) -> &Group;
}

impl Grouped for GroupRow {
    fn group(&self) -> &Group {
        &self.group
    }
}

impl Grouped for FailureRow {
    fn group(&self) -> &Group {
        &self.group
    }
}

impl Grouped for CounterRow {
    fn group(&self) -> &Group {
        &self.group
    }
}

impl Grouped for OpenRow {
    fn group(&self) -> &Group {
        &self.group
    }
}

impl Grouped for (ChurnRow, Option<f64>) {
    fn group(&self) -> &Group {
        &self.0.group
    }
}

/// What says which connections a row is about.
impl<R: Grouped> Field<R> {
    const BY: Self = word(
        "by",
        "What connections are grouped by: process (its name and control group), remote (address and port of a server, \
         address of a client), lport (local port of a server), container (or unit, or control group) or netns.",
        |row, _| Value::Word(row.group().by.as_str()),
    );
    const OTHERS: Self = or_null(number(
        "others",
        "",
        "This row stands for so many groups that have none of their own; null when it stands for one.",
        |row, _| Value::number(row.group().others),
    ));
    const PARTIAL: Self = flag(
        "partial",
        "Whether there were more groups than are kept: some of this one may be counted among the others; of the others, \
         that some may be counted twice in others.",
        |row, _| Value::Bool(row.group().is_partial),
    );
    const GROUP_HOST: Self = or_null(text(
        "host",
        "Name of the host, escaped as in comm; null for groups that have no host, and for the others.",
        |row, _| Value::name(row.group().host.as_ref().map(|host| host.as_bytes())),
    ));
    const GROUP_PID: Self = or_null(number(
        "pid",
        "",
        "Process id, if it is one process; null when unknown, or when it is not grouped by process.",
        |row, _| Value::number(row.group().pid),
    ));
    const GROUP_PROCESSES: Self = or_null(number(
        "processes",
        "",
        "How many processes, at most 1024 of which are told apart; null when unknown, or when it is not grouped by process.",
        |row, _| Value::number(row.group().processes),
    ));
    const GROUP_COMM: Self = or_null(text(
        "comm",
        "Name of the process, escaped as in rows of connections; null when unknown, or when it is not grouped by process.",
        |row, _| name_of(row.group()),
    ));
    const GROUP_CONTAINER: Self = or_null(text(
        "container",
        "Id of the container; null when there is none, or when it is not grouped by process or container.",
        |row, _| Value::name(row.group().container.as_ref().map(|id| id.as_bytes())),
    ));
    const GROUP_UNIT: Self = or_null(text(
        "unit",
        "Systemd unit, where there is no container; null otherwise, or when it is not grouped by process or container.",
        |row, _| Value::name(row.group().unit.as_deref()),
    ));
    const GROUP_CGROUP: Self = or_null(text(
        "cgroup",
        "Path of the control group, where there is neither; null otherwise, or when it is not grouped by process or \
         container.",
        |row, _| Value::name(row.group().cgroup.as_deref()),
    ));
    const GROUP_REMOTE: Self = Field {
        name: "remote",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "The remote end, an IPv6 address in brackets, one that is link-local with its interface, where that is known; null \
              when it is not grouped by that. Port 0: clients' ports, any, \
              or unknown which end is the client.",
        value: |row, _| match (row.group().remote(), row.group().remote_zone.as_deref()) {
            (None, _) => Value::Null,
            (Some(remote), None) => Value::Address(remote),
            (Some(remote), Some(zone)) => Value::Zoned(remote, zone),
        },
    };
    const GROUP_LPORT: Self = or_null(number(
        "local_port",
        "",
        "Local port of servers; null for those of clients, when it is unknown which end is the client, or when it is not \
         grouped by that.",
        |row, _| Value::number(row.group().local_port),
    ));
    const GROUP_NETNS: Self = or_null(number(
        "netns",
        "",
        "Inode number of the network namespace; null when unknown, for clients' ports, or when it is not grouped by lport or \
         netns.",
        |row, _| Value::number(row.group().netns),
    ));
    const GROUP_NETNS_NAME: Self = or_null(text(
        "netns_name",
        "Name of the network namespace, escaped as in comm; null when it has none, or when it is not grouped by lport or \
         netns.",
        |row, _| Value::name(row.group().netns_name.as_deref()),
    ));
}

fn name_of(group: &Group) -> Value<'_> {
    Value::name(group.comm.as_ref().map(Comm::bytes).filter(|name| !name.is_empty()))
}

fn peak_time(peak: Option<Peak>) -> Value<'static> {
    peak.map_or(Value::Null, |peak| Value::Time(peak.unix_ns))
}

const P50_AT_LEAST: &str = "Whether p50_ns is a lower bound: the median lies beyond what was seen, or beginnings that were not seen could move it.";

/// Takes the value of a field from a row.
type Taker<R> = for<'r> fn(&'r R, &'r Context) -> Value<'r>;

const fn event<R>(doc: &'static str, value: Taker<R>) -> Field<R> {
    word("event", doc, value)
}

const fn word<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Word, doc, value }
}

const fn text<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Name, doc, value }
}

const fn flag<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Bool, doc, value }
}

const fn time<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "RFC 3339", shape: Shape::Time, doc, value }
}

const fn number<R>(name: &'static str, unit: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit, shape: Shape::Number, doc, value }
}

const fn real<R>(name: &'static str, unit: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit, shape: Shape::Real, doc, value }
}
