//! What the engine concludes: the rows that every output renders.

use std::fmt;

use crate::audit::Finding;
use crate::counters::Increase;
use crate::event::{Cause, Multipath};
use crate::tcp::{Closer, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple};

/// A duration in ns that says how much of it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Held {
    /// Nothing of it was seen.
    #[default]
    Unknown,
    /// It lasted this long or longer: tracing began in the middle, or something was lost.
    AtLeast(u64),
    /// It lasted exactly this long.
    Exactly(u64),
}

impl Held {
    /// The part that was seen, in ns.
    pub fn known_ns(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::AtLeast(ns) | Self::Exactly(ns) => Some(ns),
        }
    }

    /// Whether it may have lasted longer than the known part.
    pub fn is_at_least(self) -> bool {
        matches!(self, Self::AtLeast(_))
    }
}

/// Whose socket it is, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub task: Task,
    /// Where it is known from.
    pub source: OwnerSource,
}

/// What identifies a connection in every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The socket's cookie: the same number that `ss -e` shows as `sk:`.
    pub conn: u64,
    /// Both ends, as far as they are known.
    pub tuple: Tuple,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// User id of the socket.
    pub uid: Option<u32>,
    /// Id of the socket's control group.
    pub cgroup: Option<u64>,
    /// Which end this is.
    pub side: Side,
    /// Whose it is.
    pub owner: Option<Owner>,
}

/// Why a transition happened, where there is something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connection ended.
    End(End),
    /// The TIME_WAIT ended, or never began.
    TimeWait(TimeWaitEnd),
}

impl Reason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End(end) => end.as_str(),
            Self::TimeWait(end) => end.as_str(),
        }
    }
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Which connection.
    pub identity: Identity,
    /// The state it leaves.
    pub old: State,
    /// The state it enters.
    pub new: State,
    /// How long it was in `old`.
    pub held: Held,
    /// Who closed, once that is known.
    pub closer: Option<Closer>,
    /// Why.
    pub reason: Option<Reason>,
    /// Whether no process holds the socket any more, and a mini-socket lives on.
    pub orphan: bool,
    /// The process that closed the socket, once one has; it need not be the owner.
    pub closed_by: Option<Task>,
    /// No change at all, but a state that lasts: `new` is `old` again.
    pub stuck: Option<Stuck>,
}

/// A socket that has been in one state for long, and still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The state: one that waits for somebody, or [`State::Closed`] when the connection is over and its descriptor is
    /// still open.
    pub state: State,
    /// How long; in [`State::Established`], for how long the peer has acknowledged nothing of what was written, or for how
    /// long the MPTCP connection has been seen in its state.
    pub age: Held,
    /// Who has a descriptor of it at this moment, and which: the first process, if there are several.
    pub holder: Option<(Task, u32)>,
    /// How many descriptors of it there are; `None` when nobody looked.
    pub holders: Option<u32>,
    /// Whether the socket of a server was accepted; `None` when unknown.
    pub accepted: Option<bool>,
    /// Who listens, if it was not accepted and that is one process.
    pub listener: Option<Task>,
    /// It is over now: the descriptor was closed.
    pub released: bool,
    /// It does not wait for long: it was only still open when the recording ended.
    pub merely_open: bool,
    /// How far its data has come; `None` when nobody looked.
    pub stalled: Option<Stalled>,
    /// The MPTCP connection of which it is known to be a subflow.
    pub multipath: Option<Multipath>,
}

/// How far the data of a socket has come that stays in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Bytes written that the peer has not acknowledged, a FIN among them.
    pub unacked: u32,
    /// Bytes that the peer has acknowledged or sent since the first look at it in this state.
    pub bytes_since: u64,
}

/// One state of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Which.
    pub state: State,
    /// How long; never [`Held::Unknown`].
    pub held: Held,
}

/// A connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which.
    pub identity: Identity,
    /// When it began, in ns of `CLOCK_BOOTTIME`; `None` when that was not seen.
    pub opened_ns: Option<u64>,
    /// When it ended.
    pub closed_ns: u64,
    /// Who closed.
    pub closer: Closer,
    /// How.
    pub end: End,
    /// The process that closed it, which need not be its owner.
    pub closed_by: Option<Task>,
    /// The states it went through, in order.
    pub stays: Vec<Stay>,
    /// How its TIME_WAIT ended; `None` when none was due or it is not over.
    pub time_wait_end: Option<TimeWaitEnd>,
    /// What the socket had counted when it was closed; `None` where nobody saw it, or bytes may have bypassed TCP.
    pub totals: Option<Totals>,
    /// Whether everything of it was seen.
    pub complete: bool,
    /// It has not ended, or its descriptor is still open: what is known so far.
    pub stuck: Option<Box<Stuck>>,
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
}

impl Connection {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.stuck.as_ref().is_some_and(|stuck| stuck.state != State::Closed)
    }

    /// How long it was in a state; [`Held::Unknown`] where it never was or nobody saw.
    pub fn held(&self, state: State) -> Held {
        self.stays.iter().find(|stay| stay.state == state).map_or(Held::Unknown, |stay| stay.held)
    }
}

/// Something is missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Why.
    pub cause: Cause,
    /// How many events, or sockets where they were forgotten; `None` when unknown.
    pub count: Option<u64>,
}

impl Loss {
    /// What an event says of a loss; `None` when it only says how far one goes that was told before.
    pub fn of(at: u64, cause: Cause, events: u64) -> Option<Self> {
        match (cause, events) {
            (Cause::Damage, 0) => Some(Self { boot_ns: at, cause, count: None }),
            (_, 0) => None,
            _ => Some(Self { boot_ns: at, cause, count: Some(events) }),
        }
    }
}

/// For people.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.cause.words();
        match (self.count, self.cause) {
            (Some(count), Cause::Evicted) => write!(f, "{count} {words}"),
            (Some(count), _) => write!(f, "{count} events lost: {words}"),
            (None, _) => write!(f, "events lost: {words}"),
        }
    }
}

/// What the engine puts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A change of state.
    Transition(Transition),
    /// The end of a connection.
    Connection(Connection),
    /// Something is missing here.
    Loss(Loss),
    /// What an audit found.
    Audit(Finding),
    /// The kernel has counted what no event tells.
    Counter(Increase),
}

impl Row {
    /// What is stuck, if it is about that.
    pub fn stuck(&self) -> Option<&Stuck> {
        match self {
            Self::Transition(row) => row.stuck.as_ref(),
            Self::Connection(row) => row.stuck.as_deref(),
            Self::Loss(_) | Self::Audit(_) | Self::Counter(_) => None,
        }
    }

    /// Which connection it is about, if it is about one.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Transition(row) => Some(&row.identity),
            Self::Connection(row) => Some(&row.identity),
            Self::Loss(_) | Self::Audit(_) | Self::Counter(_) => None,
        }
    }

    /// When it happened, in ns of `CLOCK_BOOTTIME`.
    pub fn boot_ns(&self) -> u64 {
        match self {
            Self::Transition(row) => row.boot_ns,
            Self::Connection(row) => row.closed_ns,
            Self::Loss(row) => row.boot_ns,
            Self::Audit(Finding::Counter(row)) => row.at,
            Self::Audit(Finding::Verdict(row)) => row.at,
            Self::Audit(Finding::Unseen(row)) | Self::Counter(row) => row.at,
        }
    }
}
