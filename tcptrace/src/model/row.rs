//! What the engine concludes: the rows that every output renders.

mod status;

use std::fmt;
use std::net::SocketAddr;

use crate::model::counters::Increase;
use crate::model::event::{Cause, Idle, Kept, Multipath, Totals};
use crate::model::finding::Finding;
use crate::model::socket::{Holding, Timer};
use crate::model::tcp::{Closer, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple, scoped};

pub use self::status::{Ending, Report, Stalled, Status, Stuck};

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
    /// Index of the only interface that it uses; 0 where it may use any, or that is unknown.
    pub interface: u32,
    /// Which end this is.
    pub side: Side,
    /// Whose it is.
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

/// One state of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Which.
    pub state: State,
    /// How long; never [`Held::Unknown`].
    pub held: Held,
}

/// A connection, ended or open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which.
    pub identity: Identity,
    /// When it began, in ns of `CLOCK_BOOTTIME`; `None` when that was not seen.
    pub opened_ns: Option<u64>,
    /// When it ended, or was looked at while it was open, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// What has become of it by then.
    pub status: Status,
    /// Who closed.
    pub closer: Closer,
    /// The process that closed it, which need not be its owner.
    pub closed_by: Option<Task>,
    /// The states it went through, in order.
    pub stays: Vec<Stay>,
    /// What the socket had counted when it was closed; `None` where nobody saw it, or bytes may have bypassed TCP.
    pub totals: Option<Totals>,
    /// How long data had not moved when the first FIN or reset ended ESTABLISHED; `None` when nobody saw it.
    pub idle: Option<Idle>,
    /// Whether everything of it was seen.
    pub complete: bool,
}

impl Connection {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.status.open().is_some()
    }

    /// Whether an earlier row has told of its end: only its descriptor is, or was until now, left.
    pub fn ended_before(&self) -> bool {
        matches!(self.status, Status::Unreleased { .. } | Status::Released { .. })
    }

    /// When it ended; `None` where its row does not say that.
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
    /// The end of a connection, or a look at one.
    Connection(Connection),
    /// Something is missing here.
    Loss(Loss),
    /// What an audit found.
    Audit(Finding),
    /// The kernel has counted what no event tells.
    Counter(Increase),
}

impl Row {
    /// Whether it is about a socket that stays as it is, rather than about a change or an end.
    pub fn is_standing(&self) -> bool {
        match self {
            Self::Transition(row) => row.stuck.is_some(),
            Self::Connection(row) => !matches!(row.status, Status::Ended(_)),
            Self::Loss(_) | Self::Audit(_) | Self::Counter(_) => false,
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
            Self::Connection(row) => row.boot_ns,
            Self::Loss(row) => row.boot_ns,
            Self::Audit(Finding::Counter(row)) => row.at,
            Self::Audit(Finding::Verdict(row)) => row.at,
            Self::Audit(Finding::Unseen(row)) | Self::Counter(row) => row.at,
        }
    }
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was found, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Which. Its owner is the process that holds it.
    pub identity: Identity,
    /// Its state; for a mini-socket its substate.
    pub state: State,
    /// What has it.
    pub kept: Kept,
    /// Who closed, as far as its state tells.
    pub closer: Option<Closer>,
    /// How long it has been in this state.
    pub age: Held,
    /// Who has a descriptor of it; `None` when nobody was found.
    pub holding: Option<Holding>,
    /// Who listens for it, if nobody has accepted it and that is one process.
    pub listener: Option<Task>,
    /// How much of its TIME_WAIT is left, in ns.
    pub time_wait_left_ns: Option<u64>,
    /// Bytes received that its process has not read; of a listener, the connections that wait to be accepted.
    pub recv_queue: u32,
    /// Bytes sent that the peer has not acknowledged; of a listener, how many connections may wait.
    pub send_queue: u32,
    /// Its timer.
    pub timer: Timer,
    /// In how many ns that timer is due.
    pub timer_left_ns: u64,
    /// Retransmissions, or probes, that went unanswered.
    pub retransmits: u8,
    /// Its number in `/proc/PID/fd`; 0 when it has none.
    pub inode: u32,
    /// The MPTCP connection of which it is a subflow.
    pub multipath: Option<Multipath>,
    /// How long ago the last segment came that acknowledged anything, in ns; `None` where the kernel was not asked.
    pub idle_ns: Option<u64>,
}
