//! What a report consists of: plain data, which every output renders.

use crate::model::named;
use crate::model::row::{Connection, Held};
use crate::model::stream::{Context, Lost};
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};
use crate::study::counts::{Bin, By, CounterRow, Group, TRACKED};
use crate::study::diagnose::Case;
use crate::study::diagnose::finding::Finding;

/// What a report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What its tables group by; `None`: whatever is asked most often, but every way is told where there is room.
    pub by: Option<By>,
    /// How many rows its tables have; the slowest connections too.
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
    /// What was asked for.
    pub options: Options,
    /// Of all of them.
    pub overview: Overview,
    /// Names of the hosts.
    pub hosts: Vec<Box<str>>,
    /// Events that were lost: why, and how many.
    pub lost: Vec<Lost>,
    /// Damaged places in the traces.
    pub damage: Vec<Box<str>>,
    /// What the kernel has counted and no connection shows, by counter and network namespace; highest first.
    pub counters: Vec<CounterRow>,
    /// How many connections have which property: by closer, end, end of TIME_WAIT, and state of those still open; only
    /// those that there are, most first.
    pub counts: Vec<Count>,
    /// The states in which sockets pile up, in the order of [`STUDIED`](crate::study::counts::STUDIED).
    pub states: Vec<StateRow>,
    /// Who and where they are, by each way of grouping: all connections first, most first; then those in each studied
    /// state, those that were there longest together first.
    pub groups: Vec<GroupRow>,
    /// Resets and failures, by kind and by each way of grouping; most first.
    pub failures: Vec<FailureRow>,
    /// Short-lived connections that repeat, most first.
    pub churn: Vec<ChurnRow>,
    /// What was still open in the end, by state and by each way of grouping; most first.
    pub open: Vec<OpenRow>,
    /// How it went on.
    pub points: Vec<Point>,
    /// The connections that were longest in TIME_WAIT, in CLOSE_WAIT and at all; longest first.
    pub slowest: Vec<SlowRow>,
    /// What is wrong on each host, where that was diagnosed.
    pub cases: Vec<Case>,
}

/// Figures of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// When the first recording began, in ns of Unix time.
    pub from_unix_ns: i64,
    /// When the last one ended.
    pub to_unix_ns: i64,
    /// Events read.
    pub events: u64,
    /// Changes of state that follow from them, whatever the filters.
    pub transitions: u64,
    /// Events that were lost, as far as their number is known.
    pub lost: u64,
    /// Whether more may be lost than that.
    pub lost_at_least: bool,
    /// Damaged places.
    pub damaged: u64,
    /// Connections: each end on a machine that was recorded counts.
    pub connections: u64,
    /// Those whose opening was seen.
    pub opened: u64,
    /// Those that have ended, TIME_WAIT and all.
    pub ended: u64,
    /// Those that had not, in the end.
    pub open: u64,
    /// Those of them that neither side had begun to close.
    pub closer_undecided: u64,
    /// Those that were not seen from their opening on, or of which something may have been lost.
    pub incomplete: u64,
    /// Those that ended by a reset, a timeout or in another way that is no orderly close.
    pub failed: u64,
    /// Those that were closed by a reset, from either side.
    pub reset: u64,
    /// Most openings in a second.
    pub opened_peak: Option<Peak>,
    /// Most ends in a second.
    pub ended_peak: Option<Peak>,
    /// Payload sent by the ended ones of which that is known.
    pub bytes_sent: u64,
    /// Payload received by those.
    pub bytes_received: u64,
    /// Segments that those retransmitted.
    pub retransmits: u64,
    /// How many those are.
    pub counted: u64,
}

impl Overview {
    /// How long it took, in ns.
    pub fn duration_ns(&self) -> u64 {
        u64::try_from(self.to_unix_ns.saturating_sub(self.from_unix_ns)).unwrap_or(0)
    }

    /// So many in a second on average; `None` when it took no time.
    pub fn per_second(&self, count: u64) -> Option<f64> {
        let ns = self.duration_ns();
        (ns > 0).then(|| per_second(count, ns))
    }
}

/// The highest value, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Mean of the bucket.
    pub value: f64,
    /// When the bucket begins, in ns of Unix time.
    pub unix_ns: i64,
    /// How long it is, in ns.
    pub width_ns: u64,
}

/// Which property connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Who closed; of those that have ended, and of those still open of which that is decided.
    Closer(Closer),
    /// How it ended; of those that have.
    End(End),
    /// How the TIME_WAIT ended; of those that have ended and were due one.
    TimeWaitEnd(TimeWaitEnd),
    /// The state they were in when the recording ended; of those still open.
    Open(State),
}

impl Property {
    /// What is told of the connections.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Closer(_) => "closer",
            Self::End(_) => "end",
            Self::TimeWaitEnd(_) => "time_wait_end",
            Self::Open(_) => "open",
        }
    }

    /// The word for it.
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
    /// Which.
    pub property: Property,
    /// How many.
    pub connections: u64,
    /// Of all of which that is told, from 0 to 1.
    pub share: f64,
}

/// How long sockets were in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRow {
    /// Which.
    pub state: State,
    /// How many were in it for a time of which something is known.
    pub sockets: u64,
    /// Of those, how many for a time that is only known in part.
    pub at_least: u64,
    /// How many are still in it, in the end.
    pub open: u64,
    /// How many nobody had accepted; of those in CLOSE_WAIT.
    pub never_accepted: u64,
    /// Median of all, those that are not over included.
    pub p50: Held,
    /// Nine of ten are no longer.
    pub p90: Held,
    /// 99 of a hundred are no longer.
    pub p99: Held,
    /// Of the times that are known exactly.
    pub exact: Range,
    /// Of the known parts of the others.
    pub parts: Range,
    /// Median of those parts, in ns.
    pub parts_p50: Option<u64>,
    /// How many sockets were in it at most.
    pub peak: Option<Peak>,
    /// How many are missing from what is told over time: it is not known when they were in it.
    pub unplaced: u64,
    /// Small histogram.
    pub bins: Vec<Bin>,
}

/// Between which bounds durations are, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Shortest.
    pub min: Option<u64>,
    /// Longest.
    pub max: Option<u64>,
}

/// A group of connections, all of them or those that were in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    /// Those that were in this state; `None` for all.
    pub state: Option<State>,
    /// Which.
    pub group: Group,
    /// How many.
    pub connections: u64,
    /// Of all of them, from 0 to 1.
    pub share: f64,
    /// How long all of them together were in the state, as far as it was seen, in ns; with a state only.
    pub total: Option<u64>,
    /// Of that time of all sockets, from 0 to 1: of those that were there at any moment, on average.
    pub total_share: Option<f64>,
    /// Still open in the end; still in that state.
    pub open: u64,
    /// Ended by a reset, a timeout or in another way that is no orderly close.
    pub failed: u64,
    /// Were in the state for a time that is only known in part; with a state only.
    pub at_least: Option<u64>,
    /// Nobody had accepted them; of those in CLOSE_WAIT.
    pub never_accepted: u64,
    /// Median of the times in the state, those that are not over included; for all: of those in ESTABLISHED.
    pub p50: Held,
    /// 90th percentile of those.
    pub p90: Held,
    /// 99th percentile of those.
    pub p99: Held,
    /// The longest time.
    pub longest: Held,
    /// Payload sent by the ended ones of which that is known, in bytes.
    pub bytes_sent: u64,
    /// Payload received by those.
    pub bytes_received: u64,
}

/// How many connections of a group failed in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRow {
    /// How.
    pub end: End,
    /// Which.
    pub group: Group,
    /// How many.
    pub connections: u64,
    /// Of all that failed in this way, from 0 to 1.
    pub share: f64,
}

/// Short-lived connections from the same process to the same end, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ChurnRow {
    /// The process, and the other end: that of a client, or of a server and its port.
    pub group: Group,
    /// Which end the process is.
    pub side: Side,
    /// How many were in ESTABLISHED for less than [`SHORT_NS`](crate::study::counts::SHORT_NS), and have left it.
    pub connections: u64,
    /// All others between the two.
    pub longer: u64,
    /// How many of the short-lived ones were closed by this side, which gets the TIME_WAIT.
    pub active: u64,
    /// Median of their times in ESTABLISHED, in ns.
    pub p50: Option<u64>,
    /// Mean payload that each sent, in bytes; `None` when unknown.
    pub bytes_sent: Option<u64>,
    /// Mean payload that each received.
    pub bytes_received: Option<u64>,
}

/// Connections of a group that were still open in the end, in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenRow {
    /// Which state.
    pub state: State,
    /// Which group.
    pub group: Group,
    /// How many.
    pub connections: u64,
    /// Of all that were open in this state, from 0 to 1.
    pub share: f64,
    /// How many nobody had accepted yet.
    pub never_accepted: u64,
    /// For how long the oldest one had been in the state.
    pub oldest: Held,
}

/// What there was in a part of the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Since when, in ns of Unix time.
    pub from_unix_ns: i64,
    /// For how long, in ns.
    pub width_ns: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections that ended, TIME_WAIT and all.
    pub ended: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Mean number of sockets in each of [`TRACKED`].
    pub sockets: [f64; TRACKED.len()],
}

named! {
    /// What a connection is among the slowest of.
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
    /// In what.
    pub slow: Slow,
    /// How long.
    pub held: Held,
    /// Which one.
    pub connection: Connection,
    /// Name of its host.
    pub host: Box<str>,
    /// Its host's clock, and the names of its network namespace and control group.
    pub context: Context,
}

impl Report {
    /// What was found that nothing else explains, the most severe first.
    pub fn causes(&self) -> Vec<&Finding> {
        let mut causes: Vec<_> = self.cases.iter().flat_map(|case| case.diagnosis.causes()).collect();
        causes.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        causes
    }

    /// Between which two there were most short-lived connections; of both ends of the same ones, the client.
    pub fn busiest_pair(&self) -> Option<&ChurnRow> {
        let pairs = self.churn.iter().filter(|row| row.group.others.is_none());
        pairs.max_by_key(|row| (row.connections, row.side == Side::Client))
    }
}

/// How many in a second.
pub(super) fn per_second(count: u64, ns: u64) -> f64 {
    count as f64 * 1e9 / ns as f64
}
