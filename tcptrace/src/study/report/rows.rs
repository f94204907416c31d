//! What a report consists of: plain data, which every output renders.

use std::net::{IpAddr, SocketAddr};

use crate::model::counters::Unseen;
use crate::model::named;
use crate::model::row::{Connection, Held};
use crate::model::stream::{Context, Lost};
use crate::model::tcp::{Closer, Comm, End, Side, State, TimeWaitEnd};

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

/// States whose sockets are counted over time, in the order in which they are stacked.
pub const TRACKED: [State; 9] = [
    State::TimeWait,
    State::CloseWait,
    State::FinWait2,
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::Closing,
    State::LastAck,
];

/// States that are looked at closely: where sockets pile up.
pub const STUDIED: [State; 3] = [State::TimeWait, State::CloseWait, State::FinWait2];

named! {
    /// What connections are grouped by.
    #[derive(Default, clap::ValueEnum)]
    By {
        /// Name and control group of the process that owns them.
        #[default]
        Process = "process",
        /// Remote end: of clients address and port, of servers the address.
        Remote = "remote",
        /// Local port that servers listen at.
        Lport = "lport",
        /// Container; or systemd unit, or control group, where there is none.
        Container = "container",
        /// Network namespace.
        Netns = "netns",
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
    /// The states in which sockets pile up, in the order of [`STUDIED`].
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

/// How many durations are in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// From this on, in ns.
    pub from_ns: u64,
    /// Below that; `None` without a bound.
    pub to_ns: Option<u64>,
    /// Those that are known exactly.
    pub exact: u64,
    /// Those of which the known part is in it.
    pub at_least: u64,
}

/// Which connections belong together. What does not tell a group from others is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they are grouped by.
    pub by: By,
    /// It stands for so many groups that have no row of their own; at least, if [`Group::is_partial`].
    pub others: Option<u64>,
    /// Other connections of it may be counted among the others: there were more groups than are kept.
    pub is_partial: bool,
    /// Name of the host.
    pub host: Option<Box<str>>,
    /// Name of the process.
    pub comm: Option<Comm>,
    /// Its id, if it is one.
    pub pid: Option<u32>,
    /// How many processes it is.
    pub processes: Option<u64>,
    /// Whether there may be more of them.
    pub processes_at_least: bool,
    /// Id of the container.
    pub container: Option<Box<str>>,
    /// Systemd unit.
    pub unit: Option<Box<[u8]>>,
    /// Path of the control group.
    pub cgroup: Option<Box<[u8]>>,
    /// Remote address.
    pub remote_ip: Option<IpAddr>,
    /// Remote port, of clients.
    pub remote_port: Option<u16>,
    /// What stands for the interface of a link-local remote address, where it is known.
    pub remote_zone: Option<Box<str>>,
    /// Local port, of servers.
    pub local_port: Option<u16>,
    /// Network namespace, by inode number.
    pub netns: Option<u32>,
    /// Its name.
    pub netns_name: Option<Box<[u8]>>,
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
    /// How many were in ESTABLISHED for less than [`SHORT_NS`], and have left it.
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

/// A connection that was in ESTABLISHED for less than this, in ns, is short-lived.
pub const SHORT_NS: u64 = 1_000_000_000;

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

/// What the kernel has counted in a network namespace, and no connection shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Which counter.
    pub counter: Unseen,
    /// Which namespace, or how many others.
    pub group: Group,
    /// By how much it has grown.
    pub increase: u64,
    /// When that was seen first, in ns of Unix time.
    pub first_unix_ns: i64,
    /// And last.
    pub last_unix_ns: i64,
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

impl Bin {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.exact == 0 && self.at_least == 0
    }
}

impl Report {
    /// Between which two there were most short-lived connections; of both ends of the same ones, the client.
    pub fn busiest_pair(&self) -> Option<&ChurnRow> {
        let pairs = self.churn.iter().filter(|row| row.group.others.is_none());
        pairs.max_by_key(|row| (row.connections, row.side == Side::Client))
    }
}

impl Group {
    /// The remote end, as far as the group has one.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote_ip.map(|ip| SocketAddr::new(ip, self.remote_port.unwrap_or(0)))
    }
}

/// How many in a second.
pub(super) fn per_second(count: u64, ns: u64) -> f64 {
    count as f64 * 1e9 / ns as f64
}
