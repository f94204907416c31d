//! The content of a report: plain data that every output renders.

use crate::model::fired::Fired;
use crate::model::named;
use crate::model::row::{Connection, Held};
use crate::model::stream::{Context, Lost};
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};
use crate::study::counts::{Bin, By, CounterRow, Group, TRACKED};
use crate::study::diagnose::Case;
use crate::study::diagnose::finding::Finding;

/// Options of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How its tables group connections; `None`: by the most useful property, or by every one if there is room.
    pub by: Option<By>,
    /// Rows of each table, including the slowest connections.
    pub top: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { by: None, top: 10 }
    }
}

/// What happened to the connections of one or more traces.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The options that were requested.
    pub options: Options,
    /// Totals.
    pub overview: Overview,
    pub hosts: Vec<Box<str>>,
    /// Lost events, by cause.
    pub lost: Vec<Lost>,
    /// Damaged places in the traces.
    pub damage: Vec<Box<str>>,
    /// Increases of the kernel's counters that no connection shows, by counter and network namespace; highest first.
    pub counters: Vec<CounterRow>,
    /// Connections by closer, end, end of TIME_WAIT, and state if still open. Only properties that occur, most frequent
    /// first.
    pub counts: Vec<Count>,
    /// The states in which sockets pile up, in the order of [`STUDIED`](crate::study::counts::STUDIED).
    pub states: Vec<StateRow>,
    /// Groups by each property. All connections come first, most first; then the connections in each studied state,
    /// longest total time first.
    pub groups: Vec<GroupRow>,
    /// Resets and failures, by kind and by each way of grouping; most first.
    pub failures: Vec<FailureRow>,
    /// Short-lived connections that repeat; most first.
    pub churn: Vec<ChurnRow>,
    /// Connections that were still open when the recording ended, by state and by each way of grouping; most first.
    pub open: Vec<OpenRow>,
    /// The course over time.
    pub points: Vec<Point>,
    /// The connections that were longest in TIME_WAIT, in CLOSE_WAIT, and from open to end; longest first.
    pub slowest: Vec<SlowRow>,
    /// What is wrong on each host, where that was diagnosed.
    pub cases: Vec<Case>,
    /// Why flight recorders have written these traces.
    pub fired: Vec<FiredRow>,
}

/// Why a flight recorder has written a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct FiredRow {
    /// When, in ns of Unix time.
    pub unix_ns: i64,
    pub host: Box<str>,
    pub fired: Fired,
}

/// Totals of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// Start of the first recording, in ns of Unix time.
    pub from_unix_ns: i64,
    /// End of the last recording, in ns of Unix time.
    pub to_unix_ns: i64,
    pub events: u64,
    /// Transitions that follow from the events, regardless of filters.
    pub transitions: u64,
    /// Lost events, as far as their number is known.
    pub lost: u64,
    /// Whether the number of lost events is a lower bound.
    pub lost_at_least: bool,
    /// Damaged places.
    pub damaged: u64,
    /// Connections; both ends count if both machines were recorded.
    pub connections: u64,
    /// Connections whose opening was seen.
    pub opened: u64,
    /// Connections that have ended, including their TIME_WAIT.
    pub ended: u64,
    /// Connections that were still open when the recording ended.
    pub open: u64,
    /// Open connections that neither side had begun to close.
    pub closer_undecided: u64,
    /// Connections that were not seen from their opening on, or that may lack lost events.
    pub incomplete: u64,
    /// Connections that ended by a reset, a timeout or otherwise without an orderly close.
    pub failed: u64,
    /// Connections that a reset closed, from either side.
    pub reset: u64,
    /// Most openings in a second.
    pub opened_peak: Option<Peak>,
    /// Most ends in a second.
    pub ended_peak: Option<Peak>,
    /// Bytes sent by ended connections with known totals.
    pub bytes_sent: u64,
    /// Bytes received by ended connections with known totals.
    pub bytes_received: u64,
    /// Segments retransmitted by ended connections with known totals.
    pub retransmits: u64,
    /// Ended connections with known totals.
    pub counted: u64,
}

impl Overview {
    /// Duration, in ns.
    pub fn duration_ns(&self) -> u64 {
        u64::try_from(self.to_unix_ns.saturating_sub(self.from_unix_ns)).unwrap_or(0)
    }

    /// The average rate of a count; `None` if the duration is zero.
    pub fn per_second(&self, count: u64) -> Option<f64> {
        let ns = self.duration_ns();
        (ns > 0).then(|| per_second(count, ns))
    }
}

/// The highest value, and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Mean of the bucket.
    pub value: f64,
    /// When the bucket begins, in ns of Unix time.
    pub unix_ns: i64,
    /// Length of the bucket, in ns.
    pub width_ns: u64,
}

/// A property that connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The closer, of ended connections and of open ones with a known closer.
    Closer(Closer),
    /// The end, of ended connections.
    End(End),
    /// The end of TIME_WAIT, of ended connections that were due one.
    TimeWaitEnd(TimeWaitEnd),
    /// The state at the end of the recording, of open connections.
    Open(State),
}

impl Property {
    /// The name of the property.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Closer(_) => "closer",
            Self::End(_) => "end",
            Self::TimeWaitEnd(_) => "time_wait_end",
            Self::Open(_) => "open",
        }
    }

    /// The word for its value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closer(closer) => closer.as_str(),
            Self::End(end) => end.as_str(),
            Self::TimeWaitEnd(end) => end.as_str(),
            Self::Open(state) => state.as_str(),
        }
    }
}

/// How many connections have a property.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    pub property: Property,
    pub connections: u64,
    /// Share of the connections with this property known, from 0 to 1.
    pub share: f64,
}

/// The stays in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRow {
    pub state: State,
    /// Stays of known or partly known duration.
    pub sockets: u64,
    /// Stays whose duration is a lower bound.
    pub at_least: u64,
    /// Sockets in the state when the recording ended.
    pub open: u64,
    /// Sockets in CLOSE_WAIT that no process had accepted.
    pub never_accepted: u64,
    /// Median of all stays, including those that have not ended.
    pub p50: Held,
    /// 90th percentile.
    pub p90: Held,
    /// 99th percentile.
    pub p99: Held,
    /// Range of the exact durations.
    pub exact: Range,
    /// Range of the lower bounds.
    pub parts: Range,
    /// Median of the lower bounds, in ns.
    pub parts_p50: Option<u64>,
    /// The most sockets in the state at one time.
    pub peak: Option<Peak>,
    /// Stays that are missing from the course over time, because their time is unknown.
    pub unplaced: u64,
    pub bins: Vec<Bin>,
}

/// A range of durations, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub min: Option<u64>,
    pub max: Option<u64>,
}

/// A group of connections: all of its connections, or those that were in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    /// The state that the connections were in; `None` for all connections.
    pub state: Option<State>,
    pub group: Group,
    pub connections: u64,
    /// Share of all connections, from 0 to 1.
    pub share: f64,
    /// Sum of all times in the state, as far as observed, in ns; with a state only.
    pub total: Option<u64>,
    /// Share of that sum over all groups, from 0 to 1. This is also the average share of the sockets in that state at
    /// any moment.
    pub total_share: Option<f64>,
    /// Connections that were still open when the recording ended, or still in that state.
    pub open: u64,
    /// Connections that ended by a reset, a timeout or otherwise without an orderly close.
    pub failed: u64,
    /// Stays whose duration is a lower bound; with a state only.
    pub at_least: Option<u64>,
    /// Sockets in CLOSE_WAIT that no process had accepted.
    pub never_accepted: u64,
    /// Median of the times in the state, including stays that have not ended. For all connections: of the times in
    /// ESTABLISHED.
    pub p50: Held,
    /// 90th percentile of those times.
    pub p90: Held,
    /// 99th percentile of those times.
    pub p99: Held,
    /// Longest of those times.
    pub longest: Held,
    /// Bytes sent by ended connections with known totals.
    pub bytes_sent: u64,
    /// Bytes received by ended connections with known totals.
    pub bytes_received: u64,
}

/// How many connections of a group failed in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRow {
    pub end: End,
    pub group: Group,
    pub connections: u64,
    /// Share of all connections that failed in this way, from 0 to 1.
    pub share: f64,
}

/// Repeated short-lived connections between the same process and the same remote end.
#[derive(Clone, Debug, PartialEq)]
pub struct ChurnRow {
    /// The process and the remote end: a client, or a server and its port.
    pub group: Group,
    /// The side of the process.
    pub side: Side,
    /// Connections that left ESTABLISHED after less than [`SHORT_NS`](crate::study::counts::SHORT_NS).
    pub connections: u64,
    /// Other connections between the two.
    pub longer: u64,
    /// Short-lived connections that this side closed first, so that it gets the TIME_WAIT.
    pub active: u64,
    /// Median of their times in ESTABLISHED, in ns.
    pub p50: Option<u64>,
    /// Mean payload sent per connection, in bytes; `None` if unknown.
    pub bytes_sent: Option<u64>,
    /// Mean payload received per connection, in bytes; `None` if unknown.
    pub bytes_received: Option<u64>,
}

/// Connections of a group that were open in one state when the recording ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenRow {
    pub state: State,
    pub group: Group,
    pub connections: u64,
    /// Share of all open connections in this state, from 0 to 1.
    pub share: f64,
    /// Connections that no process had accepted yet.
    pub never_accepted: u64,
    /// Time of the oldest one in the state.
    pub oldest: Held,
}

/// A point of the course over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Start, in ns of Unix time.
    pub from_unix_ns: i64,
    /// Length, in ns.
    pub width_ns: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections that ended, including their TIME_WAIT.
    pub ended: u64,
    /// Ended connections that failed.
    pub failed: u64,
    /// Mean number of sockets in each of [`TRACKED`].
    pub sockets: [f64; TRACKED.len()],
}

named! {
    /// The duration that ranks the slowest connections.
    Slow {
        /// Time in TIME_WAIT.
        TimeWait = "time_wait",
        /// Time in CLOSE_WAIT.
        CloseWait = "close_wait",
        /// Time from its opening to its end.
        Lifetime = "lifetime",
    }
}

/// One of the slowest connections.
#[derive(Clone, Debug)]
pub struct SlowRow {
    pub slow: Slow,
    pub held: Held,
    pub connection: Connection,
    pub host: Box<str>,
    /// The clock of its host, and the names of its network namespace and control group.
    pub context: Context,
}

impl Report {
    /// What was found that nothing else explains, the most severe first.
    pub fn causes(&self) -> Vec<&Finding> {
        let mut causes: Vec<_> = self.cases.iter().flat_map(|case| case.diagnosis.causes()).collect();
        causes.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        causes
    }

    /// The pair with most short-lived connections; if both ends were recorded, the client's.
    pub fn busiest_pair(&self) -> Option<&ChurnRow> {
        let pairs = self.churn.iter().filter(|row| row.group.others.is_none());
        pairs.max_by_key(|row| (row.connections, row.side == Side::Client))
    }
}

/// The rate per second.
pub(super) fn per_second(count: u64, ns: u64) -> f64 {
    count as f64 * 1e9 / ns as f64
}
