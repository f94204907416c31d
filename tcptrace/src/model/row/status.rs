//! The status of a connection: it has ended, it is open, or it has been in one state for too long.

use crate::model::event::Multipath;
use crate::model::row::Held;
use crate::model::tcp::{End, State, Task, TimeWaitEnd};

/// The status of a connection at the time of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has ended, at the time of its row.
    Ended(Ending),
    /// It is open; nothing else is to report.
    Open {
        state: State,
        /// How long it has been in that state.
        age: Held,
        /// Whether the socket of a server was accepted; `None` when unknown.
        accepted: Option<bool>,
    },
    /// It is open, and has waited too long for its process or its peer.
    Waiting {
        state: State,
        /// How long. In [`State::Established`]: how long the peer has acknowledged nothing of what was written, or how
        /// long the MPTCP connection has been seen in its state.
        age: Held,
        /// Who holds it, and the progress of its data.
        report: Box<Report>,
    },
    /// It ended some time ago, and its descriptor is still open.
    Unreleased {
        /// How it ended.
        ending: Ending,
        /// How long ago.
        age: Held,
        /// Who holds it.
        report: Box<Report>,
    },
    /// It ended some time ago, was reported as unreleased, and its last descriptor is closed now.
    Released {
        /// How it ended.
        ending: Ending,
        /// How long ago.
        age: Held,
        /// Whether the socket of a server was accepted; `None` when unknown.
        accepted: Option<bool>,
    },
}

impl Status {
    /// How it ended; `None` while it is open.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Ended(ending) | Self::Unreleased { ending, .. } | Self::Released { ending, .. } => Some(*ending),
            Self::Open { .. } | Self::Waiting { .. } => None,
        }
    }

    /// The state that it is still in, and for how long; `None` once it has ended.
    pub fn open(&self) -> Option<(State, Held)> {
        match self {
            Self::Open { state, age, .. } | Self::Waiting { state, age, .. } => Some((*state, *age)),
            Self::Ended(_) | Self::Unreleased { .. } | Self::Released { .. } => None,
        }
    }

    /// The state that its socket is in, and for how long: [`State::Closed`] if the connection is over and its
    /// descriptor is open, or was until now. `None` for a connection that has just ended.
    pub fn lasting(&self) -> Option<(State, Held)> {
        match self {
            Self::Ended(_) => None,
            Self::Open { state, age, .. } | Self::Waiting { state, age, .. } => Some((*state, *age)),
            Self::Unreleased { age, .. } | Self::Released { age, .. } => Some((State::Closed, *age)),
        }
    }

    /// What is known of a socket that has been in one state for too long.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Waiting { report, .. } | Self::Unreleased { report, .. } => Some(report),
            Self::Ended(_) | Self::Open { .. } | Self::Released { .. } => None,
        }
    }

    /// Whether the socket of a server was accepted, where the row says so.
    pub fn accepted(&self) -> Option<bool> {
        match self {
            Self::Ended(_) => None,
            Self::Open { accepted, .. } | Self::Released { accepted, .. } => *accepted,
            Self::Waiting { report, .. } | Self::Unreleased { report, .. } => report.accepted,
        }
    }
}

/// How a connection ended, and how its TIME_WAIT ended if one was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub end: End,
    /// How its TIME_WAIT ended; `None` when none was due.
    pub time_wait: Option<TimeWaitEnd>,
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        Self { end, time_wait: None }
    }
}

/// Why a row reports a lasting state instead of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The socket has been in its state for too long, and still is.
    Waiting(Report),
    /// The connection was over, and its last descriptor is closed now.
    Released {
        /// Whether the socket of a server was accepted; `None` when unknown.
        accepted: Option<bool>,
    },
}

impl Stuck {
    /// What is known of a socket that still waits.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Waiting(report) => Some(report),
            Self::Released { .. } => None,
        }
    }

    /// Whether the socket of a server was accepted.
    pub fn accepted(&self) -> Option<bool> {
        match self {
            Self::Waiting(report) => report.accepted,
            Self::Released { accepted } => *accepted,
        }
    }
}

/// Who holds a socket that has been in one state for too long, and the progress of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// The first process that holds it now, and its descriptor.
    pub holder: Option<(Task, u32)>,
    /// Number of descriptors; `None` if no scan has looked.
    pub holders: Option<u32>,
    /// Whether the socket of a server was accepted; `None` when unknown.
    pub accepted: Option<bool>,
    /// The listening process, if the socket was not accepted and only one process listens.
    pub listener: Option<Task>,
    /// Progress of its data; `None` if nobody looked.
    pub stalled: Option<Stalled>,
    /// The MPTCP connection that it is a subflow of, if known.
    pub multipath: Option<Multipath>,
}

/// Progress of the data of a socket that stays in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Bytes written that the peer has not acknowledged, a FIN among them.
    pub unacked: u32,
    /// Bytes that the peer has acknowledged or sent since the first look at it in this state.
    pub bytes_since: u64,
}
