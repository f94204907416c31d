//! The fields of a report, with one table per kind of row.

use serde_json::{Value as Tree, json};

use super::loss::CAUSES;
use super::{Field, Identified, Shape, Table, Value, or_null};
use crate::model::row::Identity;
use crate::model::stream::{Context, Lost};
use crate::model::tcp::{Comm, End, State, TimeWaitEnd};
use crate::output::sanitise_message;
use crate::study::report::{
    Bin, ChurnRow, Count, CounterRow, FailureRow, FiredRow, Group, GroupRow, OpenRow, Overview, Peak, Point, SlowRow,
    StateRow,
};

/// The totals of a report.
pub static REPORT: Table<Overview> = Table::new("report: report", REPORT_FIELDS);

static REPORT_FIELDS: &[Field<Overview>] = &[
    event("Always `report`.", |_, _| Value::Word("report")),
    Field {
        name: "from",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "Start of the first recording: wall-clock time in UTC with 9 digits.",
        value: |row, _| Value::Time(row.from_unix_ns),
    },
    Field {
        name: "to",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "End of the last recording.",
        value: |row, _| Value::Time(row.to_unix_ns),
    },
    number("duration_ns", "ns", "Time between from and to.", |row, _| Value::U64(row.duration_ns())),
    number("events", "", "Events read.", |row, _| Value::U64(row.events)),
    number("transitions", "", "Changes of state, before filters.", |row, _| Value::U64(row.transitions)),
    number(
        "lost",
        "",
        "Events lost while recording, or in damaged parts of traces, as far as their number is known. The report does \
         not include them.",
        |row, _| Value::U64(row.lost),
    ),
    flag("lost_at_least", "Whether lost is a lower bound.", |row, _| Value::Bool(row.lost_at_least)),
    number("damaged", "", "Damaged places in the traces. The report does not include their events.", |row, _| {
        Value::U64(row.damaged)
    }),
    number(
        "connections",
        "",
        "Connections in the report. Each recorded end counts, so one on loopback counts twice.",
        |row, _| Value::U64(row.connections),
    ),
    number("opened", "", "Connections whose opening was seen.", |row, _| Value::U64(row.opened)),
    or_null(real(
        "opened_per_second",
        "1/s",
        "Mean openings per second; null when the period has no length.",
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
    number("ended", "", "Connections that ended, after their TIME_WAIT.", |row, _| Value::U64(row.ended)),
    or_null(real("ended_per_second", "1/s", "Mean ends per second; null when the period has no length.", |row, _| {
        Value::real(row.per_second(row.ended))
    })),
    or_null(real(
        "ended_peak_per_second",
        "1/s",
        "Ends in the busiest second; null when the period has no length.",
        |row, _| Value::real(row.ended_peak.map(|peak| peak.value)),
    )),
    or_null(time("ended_peak_time", "When that second began; null when the period has no length.", |row, _| {
        peak_time(row.ended_peak)
    })),
    number("open", "", "Connections still open when the recording ended.", |row, _| Value::U64(row.open)),
    number("incomplete", "", "Connections whose opening was not seen, or of which an event may be lost.", |row, _| {
        Value::U64(row.incomplete)
    }),
    number(
        "failed",
        "",
        "Connections that ended in another way than by FINs in both directions. Connections whose end was not seen, \
         or that their process disconnected, do not count.",
        |row, _| Value::U64(row.failed),
    ),
    number("reset", "", "Connections ended by a reset from either side.", |row, _| Value::U64(row.reset)),
    number("counted", "", "Connections with known bytes and retransmissions.", |row, _| Value::U64(row.counted)),
    number("bytes_sent", "bytes", "Payload that the counted connections sent, including retransmissions.", |row, _| {
        Value::U64(row.bytes_sent)
    }),
    number("bytes_received", "bytes", "Payload that the counted connections received.", |row, _| {
        Value::U64(row.bytes_received)
    }),
    number("retransmits", "segments", "Segments that the counted connections retransmitted.", |row, _| {
        Value::U64(row.retransmits)
    }),
    number(
        "closer_undecided",
        "",
        "Open connections that neither side has begun to close. All others are in the rows of report_count by closer, \
         including open ones that one side has closed.",
        |row, _| Value::U64(row.closer_undecided),
    ),
];

/// A host.
pub static REPORT_HOST: Table<Box<str>> = Table::new("report: report_host", REPORT_HOST_FIELDS);

static REPORT_HOST_FIELDS: &[Field<Box<str>>] = &[
    event("Always `report_host`.", |_, _| Value::Word("report_host")),
    text("host", "Name of a recorded host, escaped as in comm.", |row, _| Value::Name(row.as_bytes())),
];

/// A loss.
pub static REPORT_LOSS: Table<Lost> = Table::new("report: report_loss", REPORT_LOSS_FIELDS);

static REPORT_LOSS_FIELDS: &[Field<Lost>] = &[
    event("Always `report_loss`.", |_, _| Value::Word("report_loss")),
    word("cause", CAUSES, |row, _| Value::Word(row.cause.as_str())),
    number("events", "", "Number of events, as far as known.", |row, _| Value::U64(row.events)),
    flag("lost_at_least", "Whether events is a lower bound.", |row, _| Value::Bool(row.at_least)),
];

/// A damaged place.
pub static REPORT_DAMAGE: Table<Box<str>> = Table::new("report: report_damage", REPORT_DAMAGE_FIELDS);

static REPORT_DAMAGE_FIELDS: &[Field<Box<str>>] = &[
    event("Always `report_damage`.", |_, _| Value::Word("report_damage")),
    text("detail", "File and position, and what is wrong there.", |row, _| Value::Name(row.as_bytes())),
];

/// Why a flight recorder has written a trace, with what JSON has of it as objects.
pub struct FiredFields {
    row: FiredRow,
    figures: Tree,
    finding: Tree,
}

impl FiredFields {
    pub(in crate::output) fn new(row: &FiredRow) -> Self {
        let figures = row.fired.figures.iter().map(|(name, figure)| (safe(name), json!(figure)));
        Self { row: row.clone(), figures: Tree::Object(figures.collect()), finding: safe_tree(&row.fired.finding) }
    }
}

/// Text from a trace.
fn safe(text: &str) -> String {
    sanitise_message(text).into_owned()
}

/// JSON from a trace.
fn safe_tree(tree: &Tree) -> Tree {
    match tree {
        Tree::String(text) => Tree::String(safe(text)),
        Tree::Array(all) => all.iter().map(safe_tree).collect(),
        Tree::Object(all) => all.iter().map(|(name, tree)| (safe(name), safe_tree(tree))).collect(),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) => tree.clone(),
    }
}

/// Why a flight recorder has written a trace by itself.
pub static REPORT_FIRED: Table<FiredFields> = Table::new("report: report_fired", REPORT_FIRED_FIELDS);

static REPORT_FIRED_FIELDS: &[Field<FiredFields>] = &[
    event("Always `report_fired`: a flight recorder has written a trace by itself.", |_, _| {
        Value::Word("report_fired")
    }),
    text("host", "Name of the host.", |it, _| Value::Name(it.row.host.as_bytes())),
    time("time", "When the condition held.", |it, _| Value::Time(it.row.unix_ns)),
    sentence("when", "The condition, as it was typed.", |it, _| Value::Text(&it.row.fired.when)),
    or_null(sentence("rule", "The rule that found something; null where figures made the condition hold.", |it, _| {
        it.row.fired.rule.as_deref().map_or(Value::Null, Value::Text)
    })),
    sentence("headline", "What is going on, in a sentence.", |it, _| Value::Text(&it.row.fired.headline)),
    Field {
        name: "figures",
        nullable: false,
        unit: "",
        shape: Shape::Figures,
        doc: "The figures of the condition, by name.",
        value: |it, _| Value::Tree(&it.figures),
    },
    Field {
        name: "finding",
        nullable: true,
        unit: "",
        shape: Shape::Object,
        doc: "The finding, as `diagnose` prints it; null where figures made the condition hold.",
        value: |it, _| if it.finding.is_null() { Value::Null } else { Value::Tree(&it.finding) },
    },
];

/// A kernel counter that no connection shows.
pub static REPORT_COUNTER: Table<CounterRow> = Table::new("report: report_counter", REPORT_COUNTER_FIELDS);

static REPORT_COUNTER_FIELDS: &[Field<CounterRow>] = &[
    event("Always `report_counter`.", |_, _| Value::Word("report_counter")),
    word("counter", "A counter of the kernel, as in rows of `watch`.", |row, _| Value::Word(row.counter.as_str())),
    number("increase", "", "Amount by which it has grown. No connection shows these.", |row, _| {
        Value::U64(row.increase)
    }),
    time("first", "When growth was first seen.", |row, _| Value::Time(row.first_unix_ns)),
    time("last", "When growth was last seen.", |row, _| Value::Time(row.last_unix_ns)),
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

static REPORT_COUNT_FIELDS: &[Field<Count>] = &[
    event("Always `report_count`.", |_, _| Value::Word("report_count")),
    word(
        "property",
        "Property that connections are counted by: closer; end or time_wait_end of ended ones; or open (the state of \
         open ones when the recording ended).",
        |row, _| Value::Word(row.property.kind()),
    ),
    word("value", "Value of the property, as in the rows of connections.", |row, _| Value::Word(row.property.word())),
    number("connections", "", "Number of connections.", |row, _| Value::U64(row.connections)),
    real("share", "", "Share of all counted by this property, from 0 to 1.", |row, _| Value::Real(row.share)),
];

/// A state in which sockets pile up.
pub static REPORT_STATE: Table<StateRow> = Table::new("report: report_state", REPORT_STATE_FIELDS);

static REPORT_STATE_FIELDS: &[Field<StateRow>] = &[
    event("Always `report_state`.", |_, _| Value::Word("report_state")),
    word("state", "TIME_WAIT, CLOSE_WAIT or FIN_WAIT2.", |row, _| Value::Word(row.state.as_str())),
    number("sockets", "", "Number of sockets that were in the state, if any of that time was seen.", |row, _| {
        Value::U64(row.sockets)
    }),
    number("at_least", "", "Number of sockets whose time in the state is a lower bound.", |row, _| {
        Value::U64(row.at_least)
    }),
    number("open", "", "Number of sockets still in the state when the recording ended.", |row, _| Value::U64(row.open)),
    number("never_accepted", "", "Number that no process accepted.", |row, _| Value::U64(row.never_accepted)),
    or_null(number("min_ns", "ns", "Shortest of the exactly known times; null when there are none.", |row, _| {
        Value::number(row.exact.min)
    })),
    or_null(number(
        "p50_ns",
        "ns",
        "Median time in the state, to within 0.4 %. Like p90_ns and p99_ns, it is a Kaplan-Meier estimate, which \
         takes lower bounds into account; null when unknown.",
        |row, _| Value::number(row.p50.known_ns()),
    )),
    or_null(number("p90_ns", "ns", "90th percentile; null when unknown.", |row, _| Value::number(row.p90.known_ns()))),
    or_null(number("p99_ns", "ns", "99th percentile; null when unknown.", |row, _| Value::number(row.p99.known_ns()))),
    or_null(number("max_ns", "ns", "Longest of the exactly known times; null when there are none.", |row, _| {
        Value::number(row.exact.max)
    })),
    or_null(number("at_least_p50_ns", "ns", "Median of the lower bounds; null when there are none.", |row, _| {
        Value::number(row.parts_p50)
    })),
    or_null(number("at_least_max_ns", "ns", "Longest of the lower bounds; null when there are none.", |row, _| {
        Value::number(row.parts.max)
    })),
    or_null(real(
        "peak_sockets",
        "",
        "Largest number of sockets in the state, averaged over peak_duration_ns; null when unknown.",
        |row, _| Value::real(row.peak.map(|peak| peak.value)),
    )),
    or_null(time("peak_time", "When that short time began; null when unknown.", |row, _| peak_time(row.peak))),
    or_null(number("peak_duration_ns", "ns", "Length of that short time; null when unknown.", |row, _| {
        Value::number(row.peak.map(|peak| peak.width_ns))
    })),
    number(
        "unplaced",
        "",
        "Number of sockets left out of peak_sockets and report_point, because it is unknown when they were in the \
         state.",
        |row, _| Value::U64(row.unplaced),
    ),
    flag("p50_at_least", P50_AT_LEAST, |row, _| Value::Bool(row.p50.is_at_least())),
    flag("p90_at_least", "Whether p90_ns is a lower bound.", |row, _| Value::Bool(row.p90.is_at_least())),
    flag("p99_at_least", "Whether p99_ns is a lower bound.", |row, _| Value::Bool(row.p99.is_at_least())),
];

/// A bar of a histogram.
pub static REPORT_BUCKET: Table<(State, Bin)> = Table::new("report: report_bucket", REPORT_BUCKET_FIELDS);

static REPORT_BUCKET_FIELDS: &[Field<(State, Bin)>] = &[
    event("Always `report_bucket`.", |_, _| Value::Word("report_bucket")),
    word("state", "The state that the sockets were in.", |(state, _), _| Value::Word(state.as_str())),
    number("from_ns", "ns", "Lower limit of the time in the state, inclusive.", |(_, bin), _| Value::U64(bin.from_ns)),
    or_null(number("to_ns", "ns", "Upper limit, exclusive; null when there is none.", |(_, bin), _| {
        Value::number(bin.to_ns)
    })),
    number("exact", "", "Number of sockets whose time is known exactly.", |(_, bin), _| Value::U64(bin.exact)),
    number("at_least", "", "Number of sockets whose lower bound is in these limits.", |(_, bin), _| {
        Value::U64(bin.at_least)
    }),
];

/// A group of connections.
pub static REPORT_GROUP: Table<GroupRow> = Table::new("report: report_group", REPORT_GROUP_FIELDS);

static REPORT_GROUP_FIELDS: &[Field<GroupRow>] = &[
    event("Always `report_group`.", |_, _| Value::Word("report_group")),
    or_null(word("state", "Counts only connections that were in this state; null: all connections.", |row, _| {
        Value::word(row.state.map(State::as_str))
    })),
    Field::BY,
    number("connections", "", "Number of connections.", |row, _| Value::U64(row.connections)),
    real("share", "", "Share of all connections, or of all that were in state, from 0 to 1.", |row, _| {
        Value::Real(row.share)
    }),
    or_null(number("total_ns", "ns", "Sum of their times in state, as far as seen; null without state.", |row, _| {
        Value::number(row.total)
    })),
    or_null(real(
        "total_share",
        "",
        "Share of the time of all sockets in state, from 0 to 1: the group's share of the sockets in state, averaged \
         over time. Groups with the largest share come first. Null without state.",
        |row, _| Value::real(row.total_share),
    )),
    number("open", "", "Number still open when the recording ended; with state, number still in it.", |row, _| {
        Value::U64(row.open)
    }),
    number("failed", "", "Number that failed, as in the row of the report.", |row, _| Value::U64(row.failed)),
    or_null(number("at_least", "", "Number whose time in state is a lower bound; null without state.", |row, _| {
        Value::number(row.at_least)
    })),
    or_null(number(
        "never_accepted",
        "",
        "Number of those in state that no process accepted; null without state.",
        |row, _| Value::number(row.state.map(|_| row.never_accepted)),
    )),
    or_null(number(
        "p50_ns",
        "ns",
        "Median time in state (without state: in ESTABLISHED), to within 2 %. Like p90_ns and p99_ns, it is a \
         Kaplan-Meier estimate, which takes lower bounds into account; null when unknown.",
        |row, _| Value::number(row.p50.known_ns()),
    )),
    or_null(number("p90_ns", "ns", "90th percentile; null when unknown.", |row, _| Value::number(row.p90.known_ns()))),
    or_null(number("longest_ns", "ns", "Longest of those times; null when all are unknown.", |row, _| {
        Value::number(row.longest.known_ns())
    })),
    flag("longest_at_least", "Whether longest_ns is a lower bound.", |row, _| Value::Bool(row.longest.is_at_least())),
    number("bytes_sent", "bytes", "Payload that the group sent, as far as known.", |row, _| Value::U64(row.bytes_sent)),
    number("bytes_received", "bytes", "Payload that the group received, as far as known.", |row, _| {
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
    or_null(number("p99_ns", "ns", "99th percentile; null when unknown.", |row, _| Value::number(row.p99.known_ns()))),
    flag("p50_at_least", P50_AT_LEAST, |row, _| Value::Bool(row.p50.is_at_least())),
    flag("p90_at_least", "Whether p90_ns is a lower bound.", |row, _| Value::Bool(row.p90.is_at_least())),
    flag("p99_at_least", "Whether p99_ns is a lower bound.", |row, _| Value::Bool(row.p99.is_at_least())),
];

/// Failures of a group.
pub static REPORT_FAILURE: Table<FailureRow> = Table::new("report: report_failure", REPORT_FAILURE_FIELDS);

static REPORT_FAILURE_FIELDS: &[Field<FailureRow>] = &[
    event("Always `report_failure`.", |_, _| Value::Word("report_failure")),
    word("end", "How the connections ended, in the words of end in rows of connections.", |row, _| {
        Value::Word(row.end.as_str())
    }),
    Field::BY,
    number("connections", "", "Number of connections of the group.", |row, _| Value::U64(row.connections)),
    real("share", "", "Share of all that ended in this way, from 0 to 1.", |row, _| Value::Real(row.share)),
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

/// Short-lived connections between the same two ends.
pub static REPORT_CHURN: Table<(ChurnRow, Option<f64>)> = Table::new("report: report_churn", REPORT_CHURN_FIELDS);

static REPORT_CHURN_FIELDS: &[Field<(ChurnRow, Option<f64>)>] = &[
    event("Always `report_churn`: short-lived connections between one process and one peer.", |_, _| {
        Value::Word("report_churn")
    }),
    word("side", "Side of the process: client or server; unknown for the others.", |(row, _), _| {
        Value::Word(row.side.as_str())
    }),
    number("connections", "", "Number of connections that left ESTABLISHED within 1 s.", |(row, _), _| {
        Value::U64(row.connections)
    }),
    or_null(real(
        "per_second",
        "1/s",
        "Mean number per second of the period; null when the period has no length.",
        |(_, rate), _| Value::real(*rate),
    )),
    number(
        "longer",
        "",
        "Number of connections between the same two ends that were in ESTABLISHED for longer.",
        |(row, _), _| Value::U64(row.longer),
    ),
    number(
        "active",
        "",
        "Number of short-lived connections that the process closed first, so that it has their TIME_WAIT.",
        |(row, _), _| Value::U64(row.active),
    ),
    or_null(number(
        "p50_ns",
        "ns",
        "Median of their times in ESTABLISHED, to within 2 %; null when there are none.",
        |(row, _), _| Value::number(row.p50),
    )),
    or_null(number(
        "mean_bytes_sent",
        "bytes",
        "Mean payload sent per connection; null when unknown.",
        |(row, _), _| Value::number(row.bytes_sent),
    )),
    or_null(number(
        "mean_bytes_received",
        "bytes",
        "Mean payload received per connection; null when unknown.",
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

/// Connections that were still open.
pub static REPORT_OPEN: Table<OpenRow> = Table::new("report: report_open", REPORT_OPEN_FIELDS);

static REPORT_OPEN_FIELDS: &[Field<OpenRow>] = &[
    event("Always `report_open`.", |_, _| Value::Word("report_open")),
    word("state", "Their state when the recording ended.", |row, _| Value::Word(row.state.as_str())),
    Field::BY,
    number("connections", "", "Number of connections of the group.", |row, _| Value::U64(row.connections)),
    real("share", "", "Share of all in that state then, from 0 to 1.", |row, _| Value::Real(row.share)),
    number("never_accepted", "", "Number that no process accepted.", |row, _| Value::U64(row.never_accepted)),
    or_null(number("oldest_ns", "ns", "Time in state of the oldest one; null when unknown.", |row, _| {
        Value::number(row.oldest.known_ns())
    })),
    flag("oldest_at_least", "Whether oldest_ns is a lower bound.", |row, _| Value::Bool(row.oldest.is_at_least())),
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

static REPORT_POINT_FIELDS: &[Field<Point>] = &[
    event("Always `report_point`.", |_, _| Value::Word("report_point")),
    time("time", "Start of this part of the period.", |row, _| Value::Time(row.from_unix_ns)),
    number("duration_ns", "ns", "Length of this part.", |row, _| Value::U64(row.width_ns)),
    number("opened", "", "Connections that were opened in it.", |row, _| Value::U64(row.opened)),
    number("ended", "", "Connections that ended in it, after their TIME_WAIT.", |row, _| Value::U64(row.ended)),
    number("failed", "", "Number of those ends that failed, as in the row of the report.", |row, _| {
        Value::U64(row.failed)
    }),
    real("time_wait", "", "Mean number of sockets in TIME_WAIT.", |row, _| Value::Real(row.sockets[0])),
    real("close_wait", "", "Mean number of sockets in CLOSE_WAIT.", |row, _| Value::Real(row.sockets[1])),
    real("fin_wait2", "", "Mean number of sockets in FIN_WAIT2.", |row, _| Value::Real(row.sockets[2])),
    real("established", "", "Mean number of sockets in ESTABLISHED.", |row, _| Value::Real(row.sockets[3])),
    real("syn_sent", "", "Mean number of sockets in SYN_SENT.", |row, _| Value::Real(row.sockets[4])),
    real("syn_recv", "", "Mean number of sockets in SYN_RECV.", |row, _| Value::Real(row.sockets[5])),
    real("fin_wait1", "", "Mean number of sockets in FIN_WAIT1.", |row, _| Value::Real(row.sockets[6])),
    real("closing", "", "Mean number of sockets in CLOSING.", |row, _| Value::Real(row.sockets[7])),
    real("last_ack", "", "Mean number of sockets in LAST_ACK.", |row, _| Value::Real(row.sockets[8])),
];

/// One of the slowest connections.
pub static REPORT_SLOWEST: Table<SlowRow> = Table::new("report: report_slowest", REPORT_SLOWEST_FIELDS);

static REPORT_SLOWEST_FIELDS: &[Field<SlowRow>] = &[
    event("Always `report_slowest`.", |_, _| Value::Word("report_slowest")),
    word(
        "slow",
        "The time by which it is among the longest: time_wait, close_wait or lifetime (from opening to end).",
        |row, _| Value::Word(row.slow.as_str()),
    ),
    number("held_ns", "ns", "That time.", |row, _| Value::U64(row.held.known_ns().unwrap_or(0))),
    flag("held_at_least", "Whether held_ns is a lower bound.", |row, _| Value::Bool(row.held.is_at_least())),
    or_null(text("host", "Name of its host, escaped as in comm; null when unknown.", |row, _| {
        Value::name(Some(row.host.as_bytes()).filter(|host| !host.is_empty()))
    })),
    or_null(time("opened", "When it was opened; null when not seen.", |row, context| {
        row.connection.opened_ns.map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns)))
    })),
    or_null(time("closed", "When it ended, after its TIME_WAIT; null when it was still open.", |row, context| {
        row.connection.closed_ns().map_or(Value::Null, |ns| Value::Time(context.clock.unix_ns(ns)))
    })),
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
    word("closer", "Who closed, in the words of closer in rows of connections.", |row, _| {
        Value::Word(row.connection.closer.as_str())
    }),
    or_null(word(
        "end",
        "How it ended, in the words of end in rows of connections; null when it was still open.",
        |row, _| Value::word(row.connection.end().map(End::as_str)),
    )),
    Field {
        name: "states",
        nullable: false,
        unit: "ns",
        shape: Shape::States,
        doc: "The states it went through, in order, and the time in each; at_least marks a lower bound.",
        value: |row, _| Value::States(&row.connection.stays),
    },
    or_null(word(
        "time_wait_end",
        "How its TIME_WAIT ended, in the words of time_wait_end in rows of connections; null when none was due.",
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
    flag("complete", "False when its opening was not seen, or an event of it may be lost.", |row, _| {
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

impl<R: Grouped> Field<R> {
    pub(super) const BY: Self = word(
        "by",
        "Grouping: process (name and control group), remote (address and port of a server, address of a client), \
         lport (local port of a server), container (else unit, else control group) or netns.",
        |row, _| Value::Word(row.group().by.as_str()),
    );
    pub(super) const OTHERS: Self = or_null(number(
        "others",
        "",
        "Number of groups that this row sums up; null for a row of one group.",
        |row, _| Value::number(row.group().others),
    ));
    pub(super) const PARTIAL: Self = flag(
        "partial",
        "Whether there were more groups than tcptrace keeps. Then some connections of this group may count among the \
         others, and others may count some groups twice.",
        |row, _| Value::Bool(row.group().is_partial),
    );
    pub(super) const GROUP_HOST: Self = or_null(text(
        "host",
        "Name of the host, escaped as in comm; null for groups without a host, and for the others.",
        |row, _| Value::name(row.group().host.as_ref().map(|host| host.as_bytes())),
    ));
    pub(super) const GROUP_PID: Self = or_null(number(
        "pid",
        "",
        "Process id, if the group is one process; null when unknown, or when not grouped by process.",
        |row, _| Value::number(row.group().pid),
    ));
    pub(super) const GROUP_PROCESSES: Self = or_null(number(
        "processes",
        "",
        "Number of processes, of which at most 1024 are distinguished; null when unknown, or when not grouped by \
         process.",
        |row, _| Value::number(row.group().processes),
    ));
    pub(super) const GROUP_COMM: Self = or_null(text(
        "comm",
        "Name of the process, escaped as in rows of connections; null when unknown, or when not grouped by process.",
        |row, _| name_of(row.group()),
    ));
    pub(super) const GROUP_CONTAINER: Self = or_null(text(
        "container",
        "Id of the container; null when there is none, or when not grouped by process or container.",
        |row, _| Value::name(row.group().container.as_ref().map(|id| id.as_bytes())),
    ));
    pub(super) const GROUP_UNIT: Self = or_null(text(
        "unit",
        "Systemd unit, if there is no container; null otherwise, or when not grouped by process or container.",
        |row, _| Value::name(row.group().unit.as_deref()),
    ));
    pub(super) const GROUP_CGROUP: Self = or_null(text(
        "cgroup",
        "Path of the control group, if there is neither; null otherwise, or when not grouped by process or container.",
        |row, _| Value::name(row.group().cgroup.as_deref()),
    ));
    pub(super) const GROUP_REMOTE: Self = Field {
        name: "remote",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "Remote address and port, written as in rows of connections; null when not grouped by remote. Port 0: \
              any port of clients, or it is unknown which end is the client.",
        value: |row, _| match (row.group().remote(), row.group().remote_zone.as_deref()) {
            (None, _) => Value::Null,
            (Some(remote), None) => Value::Address(remote),
            (Some(remote), Some(zone)) => Value::Zoned(remote, zone),
        },
    };
    pub(super) const GROUP_LPORT: Self = or_null(number(
        "local_port",
        "",
        "Local port of servers; null for clients, when it is unknown which end is the client, or when not grouped by \
         lport.",
        |row, _| Value::number(row.group().local_port),
    ));
    pub(super) const GROUP_NETNS: Self = or_null(number(
        "netns",
        "",
        "Inode number of the network namespace; null when unknown, for clients' ports, or when not grouped by lport \
         or netns.",
        |row, _| Value::number(row.group().netns),
    ));
    pub(super) const GROUP_NETNS_NAME: Self = or_null(text(
        "netns_name",
        "Name of the network namespace, escaped as in comm; null when it has none, or when not grouped by lport or \
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

const P50_AT_LEAST: &str = "Whether p50_ns is a lower bound: the median is beyond the seen times, or unseen \
                            beginnings could move it.";

/// Takes the value of a field from a row.
pub(super) type Taker<R> = for<'r> fn(&'r R, &'r Context) -> Value<'r>;

pub(super) const fn event<R>(doc: &'static str, value: Taker<R>) -> Field<R> {
    word("event", doc, value)
}

pub(super) const fn word<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Word, doc, value }
}

pub(super) const fn text<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Name, doc, value }
}

const fn sentence<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Text, doc, value }
}

pub(super) const fn flag<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Bool, doc, value }
}

pub(super) const fn time<R>(name: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit: "RFC 3339", shape: Shape::Time, doc, value }
}

pub(super) const fn number<R>(name: &'static str, unit: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit, shape: Shape::Number, doc, value }
}

pub(super) const fn real<R>(name: &'static str, unit: &'static str, doc: &'static str, value: Taker<R>) -> Field<R> {
    Field { name, nullable: false, unit, shape: Shape::Real, doc, value }
}
