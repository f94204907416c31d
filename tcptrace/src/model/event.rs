//! What happened, as the kernel reported it: the engine's only input, live and from a trace.
//!
//! Times are in ns of `CLOCK_BOOTTIME`.

mod look;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::named;
use crate::model::tcp::{State, Task, Tuple};

pub use self::look::{Bound, Call, FailedCall, Idle, Inspected, Timer};

/// How a socket is told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// Its cookie: unique as long as the kernel runs, and kept by the mini-socket that takes over.
    Cookie(u64),
    /// Its address in the kernel, which is used again as soon as the socket is gone.
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

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Tracing began: what happened before was not seen.
    Started {
        /// When every probe was attached.
        at: u64,
    },
    /// A socket changed its state.
    Change(Change),
    /// A full socket is gone, descriptor and all.
    Destroyed {
        /// When.
        at: u64,
        /// Which.
        id: Id,
        /// Whether both of its directions were shut down then. A close shuts them, a disconnect opens them again, and so
        /// does a close that goes by way of one, as with a linger time of 0 (`tcp_disconnect`). `None`: not known.
        shut: Option<bool>,
    },
    /// A process accepted a connection.
    Accepted {
        /// When.
        at: u64,
        /// Which.
        id: Id,
        /// Who.
        task: Task,
    },
    /// Somebody began to ask the kernel which sockets there are. What it answers comes later, between other events.
    SurveyBegun {
        /// When.
        at: u64,
    },
    /// A socket that the kernel named when it was asked.
    Found(Found),
    /// Every socket of a network namespace has been found.
    Surveyed {
        /// When.
        at: u64,
        /// Which namespace, by inode number.
        netns: u32,
    },
    /// The survey is over.
    SurveyEnded {
        /// When.
        at: u64,
    },
    /// Somebody began to look who has the descriptors of which sockets.
    ScanBegun {
        /// When.
        at: u64,
    },
    /// A process was found to have a descriptor of a socket.
    Holder(Holder),
    /// What the kernel showed of a socket that it named, beyond that it exists.
    Inspected(Inspected),
    /// A system call failed that leaves no trace in the kernel.
    FailedCall(FailedCall),
    /// How far the data of a connection has come.
    Flow(Flow),
    /// A socket carries data of an MPTCP connection.
    Subflow(Subflow),
    /// The scan is over.
    ScanEnded {
        /// When.
        at: u64,
    },
    /// A socket was found in a map of sockets, where its bytes can bypass TCP.
    Bypassing {
        /// When.
        at: u64,
        /// Which.
        id: Id,
    },
    /// A reset was sent.
    ResetSent {
        /// When.
        at: u64,
        /// By which socket.
        id: Id,
        /// Why, where the kernel says so.
        reason: ResetReason,
    },
    /// A reset was received.
    ResetReceived {
        /// When.
        at: u64,
        /// By which socket.
        id: Id,
    },
    /// Something happened to a mini-socket.
    Mini(Mini),
    /// Events are missing here.
    Lost {
        /// When: no event before it is younger.
        at: u64,
        /// Why.
        cause: Cause,
        /// How many; 0 where others may be missing up to here that were counted before. For [`Cause::Damage`] 0 is an
        /// unknown number.
        events: u64,
    },
    /// Nothing else has happened until then.
    Passed {
        /// Until when.
        at: u64,
    },
    /// The machine slept: time passed that no timer of the kernel saw.
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
    /// Which socket it concerns, if it is one.
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
    /// The network namespace and the index of the interface that its addresses need, if they need one.
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
    /// When.
    pub at: u64,
    /// Which socket.
    pub id: Id,
    /// Its address too, where that ties it to an earlier event that knew nothing else.
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
    /// What its flags say; `None` where the hook shows none.
    pub flags: Option<Flags>,
    /// How long data had not moved, where it leaves ESTABLISHED or is closed; `None` where the hook does not show it.
    pub idle: Option<Idle>,
    /// Who was on the CPU, which need not have to do with the socket.
    pub task: Option<Task>,
    /// More, when it is closed.
    pub end: Option<EndFacts>,
}

/// A socket as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// When.
    pub at: u64,
    /// Which.
    pub id: Id,
    /// Both ends.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// User id of the socket; `None` for a mini-socket, which keeps none.
    pub uid: Option<u32>,
    /// Id of its control group.
    pub cgroup: Option<u64>,
    /// Index of the interface that its link-local addresses need; 0 where it has none, or nobody said.
    pub interface: u32,
    /// Its state; for a mini-socket its substate.
    pub state: State,
    /// What has it.
    pub kept: Kept,
}

/// What has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Processes, by their descriptors; or the kernel, for its own use.
    Held,
    /// Its listener: nobody has accepted it yet.
    Queued,
    /// Nobody any more: an orphan.
    Orphan,
    /// Nobody, and it is a mini-socket.
    Mini {
        /// In how many ns its timer is due.
        due_ns: u64,
    },
}

/// How far the data of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// When.
    pub at: u64,
    /// Which.
    pub id: Id,
    /// Bytes that the peer has acknowledged, SYN and FIN among them.
    pub acked: u64,
    /// Bytes received, the peer's FIN among them.
    pub received: u64,
    /// Bytes that its process has written, and the peer not acknowledged; a FIN among them.
    pub unacked: u32,
}

/// A TCP socket that is a subflow of an MPTCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subflow {
    /// When it was found.
    pub at: u64,
    /// Which.
    pub id: Id,
    /// The MPTCP connection.
    pub of: Multipath,
}

/// An MPTCP connection, as its subflows know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipath {
    /// Its token on this host; a listener has none.
    pub token: Option<NonZeroU32>,
    /// Its own state, which need not be that of any subflow; `None` if its socket was not found.
    pub state: Option<State>,
}

/// A process that has a descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The socket.
    pub found: Found,
    /// The process.
    pub task: Task,
    /// The descriptor.
    pub fd: u32,
}

/// Flags of a full socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags {
    /// No process holds it any more (`SOCK_DEAD`).
    pub dead: bool,
    /// The peer's FIN was received (`SOCK_DONE`).
    pub done: bool,
    /// It belongs to a process: not waiting to be accepted, not orphaned.
    pub has_socket: bool,
    /// Nothing more is received.
    pub rcv_shutdown: bool,
    /// Nothing more is sent.
    pub send_shutdown: bool,
    /// Whether it has ever sent a segment, were it only a SYN; `None` where the hook does not say, which it does when a
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
    /// Something that it had sent was not acknowledged: data, a SYN or a FIN.
    pub in_flight: bool,
    /// Retransmissions in a row, the last ones, that nothing had answered.
    pub retransmits_unanswered: u8,
    /// Whether a reset of its peer had come; `None` when unknown.
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
    /// Probes not answered.
    pub probes: u8,
    /// The mini-socket that took over.
    pub mini: Birth,
}

/// Whether a mini-socket took over from a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Birth {
    /// Nobody looked.
    #[default]
    NotWatched,
    /// None was made.
    None,
    /// One was made.
    Made {
        /// `FIN_WAIT2` or `TIME_WAIT`.
        substate: State,
        /// In how many ns its timer is due.
        due_ns: u64,
    },
}

/// Something that happened to a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mini {
    /// When.
    pub at: u64,
    /// Which: the id of the full socket that it took over from.
    pub id: Id,
    /// Both ends.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// `FIN_WAIT2` or `TIME_WAIT`.
    pub substate: State,
    /// In how many ns its timer was due, to the tick; negative when overdue.
    pub due_ns: i64,
    /// What.
    pub what: MiniEvent,
}

/// What happened to a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiniEvent {
    /// Its timer fired.
    Expired,
    /// It took in a FIN.
    Fin,
    /// It was given more time.
    Rearmed,
    /// It ended before its time.
    Killed(KilledBy),
}

/// Who ended a mini-socket before its time, by the kernel's own call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KilledBy {
    /// `connect` took over its addresses and ports.
    Connect,
    /// A segment that it cannot take: in TIME_WAIT a new SYN for a listener, in FIN_WAIT2 data, which is answered with
    /// a reset.
    Segment,
    /// The peer's reset.
    Reset,
    /// `ss -K` or the like.
    Admin,
    /// Its network namespace went away.
    Netns,
    /// The stack does not say, not even whether the mini-socket ended or was given more time.
    Unknown,
}

/// Why the kernel sent a reset (`enum sk_rst_reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResetReason {
    /// The kernel does not say, or it is none of the others.
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
    /// It was in a state that takes one: of a disconnect, and of a close that goes by way of one.
    State,
}

named! {
    /// Why something is missing.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    Cause {
        /// The trace is of a version that did not say.
        #[default]
        Unknown = "unknown",
        /// The ring buffer was full: events came faster than they were read.
        RingFull = "ring_full",
        /// The ring buffer was full, because nobody took what was to be printed.
        OutputSlow = "output_slow",
        /// The kernel did not run a program, because it was running already (`recursion_misses`), nor the one that
        /// stands in for it.
        Recursion = "recursion",
        /// The disk was full or did not keep up.
        Disk = "disk",
        /// The trace is damaged, or files of it are not there.
        Damage = "damage",
        /// More sockets than may be followed.
        Evicted = "evicted",
        /// The kernel did not report the closing of a socket, or the FIN that came to an orphan, nor that it missed
        /// one: later events of the socket prove it, or two surveys in a row that did not find it.
        Unreported = "unreported",
        /// The kernel has counted what was neither seen nor counted as lost, as an audit has found.
        Unaccounted = "unaccounted",
        /// More rows waited for a filter to be able to decide than are held back.
        FilterFull = "filter_full",
    }
}

impl Cause {
    /// For people, with what helps.
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

/// What was lost between the kernel and us, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Transitions that did not fit into the ring buffer.
    pub ring_full: u64,
    /// Other records that did not fit.
    pub ring_full_others: u64,
    /// Transitions that did not fit, while nobody took the output.
    pub output_slow: u64,
    /// Other records that did not fit, likewise.
    pub output_slow_others: u64,
    /// Times a program was kept from running because it was running already (`recursion_misses`), and none stood in.
    pub recursion: u64,
    /// Transitions kept out by a filter in the kernel: not lost, but not shown.
    pub filtered: u64,
    /// Events that could not be written into a trace.
    pub unwritten: u64,
}

impl Losses {
    /// Counts what did not fit into the ring buffer.
    pub fn drop(&mut self, cause: Cause, transitions: u64, others: u64) {
        let (counted, counted_others) = match cause {
            Cause::OutputSlow => (&mut self.output_slow, &mut self.output_slow_others),
            _ => (&mut self.ring_full, &mut self.ring_full_others),
        };
        *counted += transitions;
        *counted_others += others;
    }

    /// Everything that is missing.
    pub fn total(&self) -> u64 {
        self.by_cause().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// What was lost by which cause, where there was something.
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
