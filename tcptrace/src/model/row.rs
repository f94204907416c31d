//! The engine's conclusions: the rows that every output renders.

mod status;

use std::fmt;
use std::net::SocketAddr;

use crate::model::counters::Increase;
use crate::model::event::{Cause, Idle, Kept, Multipath, Totals};
use crate::model::finding::Finding;
use crate::model::socket::{Holding, Timer};
use crate::model::tcp::{Closer, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple, scoped};

pub use self::status::{Ending, Report, Stalled, Status, Stuck};

/// A duration in ns: unknown, a lower bound, or exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Held {
    /// Nothing of it was seen.
    #[default]
    Unknown,
    /// A lower bound: tracing began in the middle, or something was lost.
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

    /// The same, if it may have gone on unseen.
    #[must_use]
    pub fn or_longer(self) -> Self {
        self.known_ns().map_or(Self::Unknown, Self::AtLeast)
    }

    /// Whether it is a lower bound.
    pub fn is_at_least(self) -> bool {
        matches!(self, Self::AtLeast(_))
    }
}

/// The owner of a socket, and how tcptrace knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub task: Task,
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
    /// Index of the only interface that it uses; 0 where it may use any, or that is unknown.
    pub interface: u32,
    /// Which end this is.
    pub side: Side,
    pub owner: Option<Owner>,
}

impl Identity {
    /// The local end. A link-local address has the index of its interface, if that is known.
    pub fn local(&self) -> SocketAddr {
        scoped(self.tuple.local(), self.interface)
    }

    /// The remote end, likewise.
    pub fn remote(&self) -> SocketAddr {
        scoped(self.tuple.remote(), self.interface)
    }
}

/// Why a transition happened, where a reason is known.
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
    pub identity: Identity,
    /// The state it leaves.
    pub old: State,
    /// The state it enters.
    pub new: State,
    /// How long it was in `old`.
    pub held: Held,
    /// Who closed, once known.
    pub closer: Option<Closer>,
    pub reason: Option<Reason>,
    /// Whether no process holds the socket any more, and a mini-socket lives on.
    pub orphan: bool,
    /// The process that closed the socket, if one did; it may not be the owner.
    pub closed_by: Option<Task>,
    /// Set if this is not a change, but the report of a lasting state: `new` equals `old`.
    pub stuck: Option<Stuck>,
}

/// One state of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    pub state: State,
    /// Never [`Held::Unknown`].
    pub held: Held,
}

/// A connection, ended or open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub identity: Identity,
    /// When it began, in ns of `CLOCK_BOOTTIME`; `None` when that was not seen.
    pub opened_ns: Option<u64>,
    /// When it ended, or when tcptrace looked at it while it was open, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Its status at that time.
    pub status: Status,
    pub closer: Closer,
    /// The process that closed it, which may not be its owner.
    pub closed_by: Option<Task>,
    /// The states it went through, in order.
    pub stays: Vec<Stay>,
    /// What the socket had counted when it was closed; `None` when unknown, or when bytes may have bypassed TCP.
    pub totals: Option<Totals>,
    /// How long data had not moved when the first FIN or reset ended ESTABLISHED; `None` when nobody saw it.
    pub idle: Option<Idle>,
    /// Whether all of it was seen.
    pub complete: bool,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.status.open().is_some()
    }

    /// Whether an earlier row reported its end: only its descriptor is left, or was until now.
    pub fn ended_before(&self) -> bool {
        matches!(self.status, Status::Unreleased { .. } | Status::Released { .. })
    }

    /// Whether it is over, and its descriptor is open.
    pub fn is_unreleased(&self) -> bool {
        matches!(self.status, Status::Unreleased { .. })
    }

    /// When it ended; `None` where its row does not say.
    pub fn closed_ns(&self) -> Option<u64> {
        matches!(self.status, Status::Ended(_)).then_some(self.boot_ns)
    }

    /// How it ended; `None` while it is open.
    pub fn end(&self) -> Option<End> {
        self.status.ending().map(|ending| ending.end)
    }

    /// How its TIME_WAIT ended; `None` when none was due, or the connection is open.
    pub fn time_wait_end(&self) -> Option<TimeWaitEnd> {
        self.status.ending()?.time_wait
    }

    /// How long it was in a state; [`Held::Unknown`] if it never was, or if nobody saw.
    pub fn held(&self, state: State) -> Held {
        self.stays.iter().find(|stay| stay.state == state).map_or(Held::Unknown, |stay| stay.held)
    }
}

/// Events are missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    pub cause: Cause,
    /// How many events, or sockets where they were forgotten; `None` when unknown.
    pub count: Option<u64>,
}

impl Loss {
    /// The loss that an event reports; `None` if the event only shows how far an earlier one extends.
    pub fn of(at: u64, cause: Cause, events: u64) -> Option<Self> {
        match (cause, events) {
            (Cause::Damage, 0) => Some(Self { boot_ns: at, cause, count: None }),
            (_, 0) => None,
            _ => Some(Self { boot_ns: at, cause, count: Some(events) }),
        }
    }
}

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

/// The engine's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A change of state.
    Transition(Transition),
    /// The end of a connection, or a look at one.
    Connection(Connection),
    /// Events are missing here.
    Loss(Loss),
    /// What an audit found.
    Audit(Finding),
    /// Growth of a kernel counter that no event shows.
    Counter(Increase),
}

impl Row {
    /// Whether it is about a socket that stays as it is, not about a change or an end.
    pub fn is_standing(&self) -> bool {
        match self {
            Self::Transition(row) => row.stuck.is_some(),
            Self::Connection(row) => !matches!(row.status, Status::Ended(_)),
            Self::Loss(_) | Self::Audit(_) | Self::Counter(_) => false,
        }
    }

    /// The connection it is about, if any.
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
            Self::Connection(row) => row.boot_ns,
            Self::Loss(row) => row.boot_ns,
            Self::Audit(Finding::Counter(row)) => row.at,
            Self::Audit(Finding::Verdict(row)) => row.at,
            Self::Audit(Finding::Unseen(row)) | Self::Counter(row) => row.at,
        }
    }
}

/// One socket of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was found, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// The owner is the process that holds it.
    pub identity: Identity,
    /// Its state; for a mini-socket its substate.
    pub state: State,
    pub kept: Kept,
    /// Who closed, as far as its state shows.
    pub closer: Option<Closer>,
    /// How long it has been in this state.
    pub age: Held,
    /// Who holds it; `None` if nobody was found.
    pub holding: Option<Holding>,
    /// The listening process, if nobody has accepted it and only one process listens.
    pub listener: Option<Task>,
    /// Time left in TIME_WAIT, in ns.
    pub time_wait_left_ns: Option<u64>,
    /// Bytes received that its process has not read; of a listener, connections in the accept queue.
    pub recv_queue: u32,
    /// Bytes sent that the peer has not acknowledged; of a listener, the size of its accept queue.
    pub send_queue: u32,
    pub timer: Timer,
    /// Time until that timer is due, in ns.
    pub timer_left_ns: u64,
    /// Unanswered retransmissions or probes.
    pub retransmits: u8,
    /// Its number in `/proc/PID/fd`; 0 when it has none.
    pub inode: u32,
    /// The MPTCP connection that it is a subflow of.
    pub multipath: Option<Multipath>,
    /// How long ago the last segment came that acknowledged anything, in ns; `None` where the kernel was not asked.
    pub idle_ns: Option<u64>,
    /// Whether both ends use TCP timestamps; `None` where the kernel was not asked.
    pub timestamps: Option<bool>,
}
