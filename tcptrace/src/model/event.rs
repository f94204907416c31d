//! What happened, as the kernel reported it: the engine's only input, live and from a trace.
//!
//! Times are in ns of `CLOCK_BOOTTIME`.

mod look;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::named;
use crate::model::tcp::{State, Task, Tuple};

pub use self::look::{Bound, Call, FailedCall, Idle, Inspected, Timer};

/// What identifies a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Id {
    /// Its cookie: unique as long as the kernel runs, and kept by the mini-socket that takes over.
    Cookie(u64),
    /// Its address in the kernel, which the kernel uses again as soon as the socket is gone.
    Address(u64),
}

impl Id {
    /// The number that rows show.
    pub fn number(self) -> u64 {
        match self {
            Self::Cookie(number) | Self::Address(number) => number,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Tracing began: earlier events were not seen.
    Started {
        /// When every probe was attached.
        at: u64,
    },
    /// A socket changed its state.
    Change(Change),
    /// A full socket is gone, descriptor and all.
    Destroyed {
        at: u64,
        id: Id,
        /// Whether both directions were shut down by then. A close shuts them down. A disconnect opens them again, and
        /// so does a close that includes one, as with a linger time of 0 (`tcp_disconnect`). `None`: unknown.
        shut: Option<bool>,
    },
    /// A process accepted a connection.
    Accepted { at: u64, id: Id, task: Task },
    /// From now on accepts are seen, or not any more.
    AcceptsWatched { at: u64, watched: bool },
    /// A survey began: tcptrace asks the kernel which sockets exist. The answers come later, between other events.
    SurveyBegun { at: u64 },
    /// A socket that the kernel named when it was asked.
    Found(Found),
    /// Every socket of a network namespace has been found.
    Surveyed {
        at: u64,
        /// Inode number of the namespace.
        netns: u32,
    },
    /// The survey is over.
    SurveyEnded { at: u64 },
    /// A scan began: tcptrace looks for the processes that hold each socket.
    ScanBegun { at: u64 },
    /// A process was found to have a descriptor of a socket.
    Holder(Holder),
    /// What the kernel showed of a socket that it named, beyond that it exists.
    Inspected(Inspected),
    /// A system call failed that leaves no trace in the kernel.
    FailedCall(FailedCall),
    /// Progress of a connection's data.
    Flow(Flow),
    /// A socket carries data of an MPTCP connection.
    Subflow(Subflow),
    /// The scan is over.
    ScanEnded { at: u64 },
    /// A socket was found in a map of sockets, where its bytes can bypass TCP.
    Bypassing { at: u64, id: Id },
    /// A reset was sent.
    ResetSent {
        at: u64,
        /// The sender.
        id: Id,
        /// Why, where the kernel gives a reason.
        reason: ResetReason,
    },
    /// A reset was received.
    ResetReceived {
        at: u64,
        /// The receiver.
        id: Id,
    },
    /// Something happened to a mini-socket.
    Mini(Mini),
    /// Events are missing here.
    Lost {
        /// When; no earlier item of the stream is younger.
        at: u64,
        cause: Cause,
        /// How many; 0 if the events missing up to here were counted before. For [`Cause::Damage`], 0 is an unknown
        /// number.
        events: u64,
    },
    /// Nothing else has happened until then.
    Passed { at: u64 },
    /// The machine slept: time passed that no kernel timer counted.
    Suspended {
        /// When this was noticed.
        at: u64,
        /// How long, in ns.
        ns: u64,
    },
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> u64 {
        match *self {
            Self::Started { at }
            | Self::Destroyed { at, .. }
            | Self::Accepted { at, .. }
            | Self::AcceptsWatched { at, .. }
            | Self::SurveyBegun { at }
            | Self::Surveyed { at, .. }
            | Self::SurveyEnded { at }
            | Self::ScanBegun { at }
            | Self::ScanEnded { at }
            | Self::ResetSent { at, .. }
            | Self::ResetReceived { at, .. }
            | Self::Bypassing { at, .. }
            | Self::Lost { at, .. }
            | Self::Passed { at }
            | Self::Suspended { at, .. } => at,
            Self::Change(change) => change.at,
            Self::Mini(mini) => mini.at,
            Self::Found(found) => found.at,
            Self::Holder(holder) => holder.found.at,
            Self::Inspected(inspected) => inspected.at,
            Self::FailedCall(call) => call.at,
            Self::Flow(flow) => flow.at,
            Self::Subflow(subflow) => subflow.at,
        }
    }
}

impl Event {
    /// The socket it concerns, if any.
    pub fn id(&self) -> Option<Id> {
        match *self {
            Self::Destroyed { id, .. }
            | Self::Accepted { id, .. }
            | Self::ResetSent { id, .. }
            | Self::ResetReceived { id, .. }
            | Self::Bypassing { id, .. } => Some(id),
            Self::Change(change) => Some(change.id),
            Self::Mini(mini) => Some(mini.id),
            Self::Found(found) => Some(found.id),
            Self::Holder(holder) => Some(holder.found.id),
            Self::Inspected(inspected) => Some(inspected.id),
            Self::Flow(flow) => Some(flow.id),
            Self::Subflow(subflow) => Some(subflow.id),
            Self::Started { .. }
            | Self::AcceptsWatched { .. }
            | Self::SurveyBegun { .. }
            | Self::Surveyed { .. }
            | Self::SurveyEnded { .. }
            | Self::ScanBegun { .. }
            | Self::ScanEnded { .. }
            | Self::FailedCall(_)
            | Self::Lost { .. }
            | Self::Passed { .. }
            | Self::Suspended { .. } => None,
        }
    }
}

impl Event {
    /// The network namespace and the index of the interface that its addresses need, if any.
    pub fn interface(&self) -> Option<(u32, u32)> {
        let (netns, interface) = match self {
            Self::Change(change) => (change.netns, change.interface),
            Self::Found(found) | Self::Holder(Holder { found, .. }) => (found.netns, found.interface),
            _ => return None,
        };
        netns.filter(|_| interface != 0).map(|netns| (netns, interface))
    }
}

/// A change of state of a full socket, at `inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: u64,
    pub id: Id,
    /// Its address too, where that links it to an earlier event that had only the address.
    pub address: Option<u64>,
    /// Both ends, as far as they are set.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// User id of the socket.
    pub uid: Option<u32>,
    /// Id of its control group, where the hook shows it.
    pub cgroup: Option<u64>,
    /// Index of the interface that its link-local addresses need; 0 where it has none, or the hook does not show it.
    pub interface: u32,
    /// The state it leaves.
    pub old: State,
    /// The state it enters; the same again when `close` follows `shutdown`.
    pub new: State,
    /// `None` where the hook shows none.
    pub flags: Option<Flags>,
    /// How long data had not moved, where it leaves ESTABLISHED or is closed; `None` where the hook does not show it.
    pub idle: Option<Idle>,
    /// The task on the CPU, which may be unrelated to the socket.
    pub task: Option<Task>,
    /// More facts, when it is closed.
    pub end: Option<EndFacts>,
}

/// A socket that a survey or scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub at: u64,
    pub id: Id,
    /// Both ends.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// User id of the socket; `None` for a mini-socket, which keeps none.
    pub uid: Option<u32>,
    /// Id of its control group.
    pub cgroup: Option<u64>,
    /// Index of the interface that its link-local addresses need; 0 where it has none, or it is unknown.
    pub interface: u32,
    /// Its state; for a mini-socket its substate.
    pub state: State,
    pub kept: Kept,
}

/// Who keeps a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Processes, by their descriptors; or the kernel, for its own use.
    Held,
    /// Its listener: it is still in the accept queue.
    Queued,
    /// Nobody: it is an orphan.
    Orphan,
    /// Nobody: it is a mini-socket.
    Mini {
        /// Time until its timer is due, in ns.
        due_ns: u64,
    },
}

/// Progress of a connection's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub at: u64,
    pub id: Id,
    /// Bytes that the peer has acknowledged, SYN and FIN among them.
    pub acked: u64,
    /// Bytes received, the peer's FIN among them.
    pub received: u64,
    /// Bytes written that the peer has not acknowledged, a FIN among them.
    pub unacked: u32,
}

/// A TCP socket that is a subflow of an MPTCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subflow {
    /// When it was found.
    pub at: u64,
    pub id: Id,
    /// The MPTCP connection.
    pub of: Multipath,
}

/// An MPTCP connection, as its subflows know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multipath {
    /// Its token on this host; a listener has none.
    pub token: Option<NonZeroU32>,
    /// Its own state, which may differ from that of every subflow; `None` if its socket was not found.
    pub state: Option<State>,
}

/// A process that has a descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub found: Found,
    pub task: Task,
    pub fd: u32,
}

/// Flags of a full socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags {
    /// No process holds it any more (`SOCK_DEAD`).
    pub dead: bool,
    /// The peer's FIN was received (`SOCK_DONE`).
    pub done: bool,
    /// It belongs to a process: it is neither in the accept queue nor an orphan.
    pub has_socket: bool,
    /// The receiving direction is shut down.
    pub rcv_shutdown: bool,
    /// The sending direction is shut down.
    pub send_shutdown: bool,
    /// Whether it has ever sent a segment, even if only a SYN. `None` where the hook does not say; it does when a
    /// socket leaves SYN_SENT.
    pub has_sent: Option<bool>,
    /// With whom it shares its address and port; `None` where the hook does not say, which it does when a process opens a
    /// socket and when it is closed. A child and a mini-socket have it from their listener and full socket.
    pub reuse: Option<Reuse>,
}

/// Whether a socket shares its address and port with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reuse {
    /// `SO_REUSEADDR` is set.
    pub address: bool,
    /// `SO_REUSEPORT` is set.
    pub port: bool,
}

/// What a socket had counted when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Payload bytes sent, retransmissions included, as `ss -i` shows them.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Bytes received that the process never read.
    pub bytes_unread: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// Smoothed round-trip time in µs; `None` when none was measured.
    pub srtt_us: Option<u32>,
    /// Data, a SYN or a FIN was not acknowledged.
    pub in_flight: bool,
    /// Latest retransmissions in a row without an answer.
    pub retransmits_unanswered: u8,
    /// Whether its peer had sent a reset; `None` when unknown.
    pub reset_received: Option<bool>,
}

/// What a socket shows when it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EndFacts {
    /// What it had counted.
    pub totals: Totals,
    /// `sk_err`: an errno, or 0.
    pub err: u16,
    /// `SO_KEEPALIVE` is set.
    pub keepalive: bool,
    /// `SO_LINGER` is set with a time of 0.
    pub linger0: bool,
    /// `TCP_LINGER2` is negative.
    pub linger2_negative: bool,
    /// Everything written was acknowledged.
    pub all_acked: bool,
    /// Data or a FIN was in flight.
    pub in_flight: bool,
    /// `TCP_USER_TIMEOUT` is set.
    pub user_timeout: bool,
    /// Retransmissions of what is in flight.
    pub retransmits: u8,
    /// Unanswered probes.
    pub probes: u8,
    /// The mini-socket that took over.
    pub mini: Birth,
}

/// Whether a mini-socket took over from a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Birth {
    /// tcptrace cannot see it.
    #[default]
    NotWatched,
    /// None was made.
    None,
    /// One was made.
    Made {
        /// `FIN_WAIT2` or `TIME_WAIT`.
        substate: State,
        /// Time until its timer is due, in ns.
        due_ns: u64,
    },
}

/// Something that happened to a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mini {
    pub at: u64,
    /// Id of the full socket that it took over from.
    pub id: Id,
    /// Both ends.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// `FIN_WAIT2` or `TIME_WAIT`.
    pub substate: State,
    /// Time until its timer was due, in ns, exact to the tick; negative when overdue.
    pub due_ns: i64,
    pub what: MiniEvent,
}

/// What happened to a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiniEvent {
    /// Its timer fired.
    Expired,
    /// It received a FIN.
    Fin,
    /// The kernel gave it more time.
    Rearmed,
    /// It ended before its time.
    Killed(KilledBy),
}

/// Who ended a mini-socket before its time, according to the kernel's own call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KilledBy {
    /// `connect` took over its addresses and ports.
    Connect,
    /// A segment that it does not accept: in TIME_WAIT a new SYN for a listener; in FIN_WAIT2 data, which the kernel
    /// answers with a reset.
    Segment,
    /// The peer's reset.
    Reset,
    /// `ss -K` or the like.
    Admin,
    /// Its network namespace went away.
    Netns,
    /// The stack does not show it, nor whether the mini-socket ended or got more time.
    Unknown,
}

/// Why the kernel sent a reset (`enum sk_rst_reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResetReason {
    /// The kernel gives no reason, or another one.
    #[default]
    Other,
    /// Data came after we had closed.
    AbortOnData,
    /// We closed with data unread.
    AbortOnClose,
    /// We closed with a negative `TCP_LINGER2`.
    AbortOnLinger,
    /// Too many orphans, or memory short.
    AbortOnMemory,
    /// Keepalive probes went unanswered.
    KeepaliveTimeout,
    /// Its state calls for one: on a disconnect, and on a close that includes one.
    State,
}

named! {
    /// Why events are missing.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    Cause {
        /// The trace is of a version that did not record the cause.
        #[default]
        Unknown = "unknown",
        /// The ring buffer was full: events came faster than they were read.
        RingFull = "ring_full",
        /// The ring buffer was full, because nobody read tcptrace's output.
        OutputSlow = "output_slow",
        /// Recursion: the kernel did not run a program that was running already (`recursion_misses`), nor the program
        /// that stands in for it.
        Recursion = "recursion",
        /// The disk was full or did not keep up.
        Disk = "disk",
        /// The trace is damaged, or some of its files are missing.
        Damage = "damage",
        /// There are more sockets than tcptrace may follow.
        Evicted = "evicted",
        /// The kernel reported neither the closing of a socket (or the FIN for an orphan) nor a loss. Later events of
        /// the socket prove it, or two surveys in a row that did not find the socket.
        Unreported = "unreported",
        /// An audit found that the kernel has counted events that were neither seen nor counted as lost.
        Unaccounted = "unaccounted",
        /// More rows waited for the filter's decision than it keeps.
        FilterFull = "filter_full",
    }
}

impl Cause {
    /// For people, with a remedy where there is one.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "cause not recorded",
            Self::RingFull => "ring buffer full, try --ring-size",
            Self::OutputSlow => "output not taken fast enough",
            Self::Recursion => "program was running already",
            Self::Disk => "not written",
            Self::Damage => "trace damaged",
            Self::Evicted => "sockets forgotten, try --max-sockets",
            Self::Unreported => "not reported by the kernel",
            Self::Unaccounted => "unaccounted for by the audit",
            Self::FilterFull => "rows held back too long for the filter",
        }
    }
}

/// Losses between the kernel and tcptrace, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Transitions that did not fit into the ring buffer.
    pub ring_full: u64,
    /// Other records that did not fit.
    pub ring_full_others: u64,
    /// Transitions that did not fit, while nobody read the output.
    pub output_slow: u64,
    /// Other records that did not fit, likewise.
    pub output_slow_others: u64,
    /// Times the kernel did not run a program because it was running already (`recursion_misses`), nor its stand-in.
    pub recursion: u64,
    /// Transitions that a filter left out in the kernel: not lost, but not shown.
    pub filtered: u64,
    /// Events that could not be written into a trace.
    pub unwritten: u64,
}

impl Losses {
    /// Counts records that did not fit into the ring buffer.
    pub fn drop(&mut self, cause: Cause, transitions: u64, others: u64) {
        let (counted, counted_others) = match cause {
            Cause::OutputSlow => (&mut self.output_slow, &mut self.output_slow_others),
            _ => (&mut self.ring_full, &mut self.ring_full_others),
        };
        *counted += transitions;
        *counted_others += others;
    }

    /// The sum over all causes.
    pub fn total(&self) -> u64 {
        self.by_cause().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The losses that are not 0, by cause.
    pub fn by_cause(&self) -> impl Iterator<Item = (Cause, u64)> {
        let causes = [
            (Cause::RingFull, self.ring_full.saturating_add(self.ring_full_others)),
            (Cause::OutputSlow, self.output_slow.saturating_add(self.output_slow_others)),
            (Cause::Recursion, self.recursion),
            (Cause::Disk, self.unwritten),
        ];
        causes.into_iter().filter(|(_, count)| *count > 0)
    }
}
