//! What has become of a connection: it has ended, it is open, or it has been in one state for too long.

use crate::model::event::Multipath;
use crate::model::row::Held;
use crate::model::tcp::{End, State, Task, TimeWaitEnd};

/// What has become of a connection by the time of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has ended, at the time of its row.
    Ended(Ending),
    /// It is open, and was only looked at.
    Open {
        /// The state that it is in.
        state: State,
        /// How long it has been in that state.
        age: Held,
        /// Whether the socket of a server was accepted; `None` when unknown.
        accepted: Option<bool>,
    },
    /// It is open, and has waited too long for its process or its peer.
    Waiting {
        /// The state that it is in.
        state: State,
        /// How long; in [`State::Established`], for how long the peer has acknowledged nothing of what was written, or for
        /// how long the MPTCP connection has been seen in its state.
        age: Held,
        /// Who has it, and how far its data has come.
        report: Box<Report>,
    },
    /// It ended some time ago, and its descriptor is still open.
    Unreleased {
        /// How it ended.
        ending: Ending,
        /// How long ago.
        age: Held,
        /// Who has it.
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

    /// The state that its socket is in, and for how long: [`State::Closed`] when the connection is over and its
    /// descriptor is, or was until now, open; `None` for one that has just ended.
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

/// How a connection ended: how, and what became of its TIME_WAIT where one was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How.
    pub end: End,
    /// How its TIME_WAIT ended; `None` when none was due.
    pub time_wait: Option<TimeWaitEnd>,
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        Self { end, time_wait: None }
    }
}

/// Why a transition is none: its socket stays in the state that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It has been there for too long, and still is.
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

/// Who has a socket that has been in one state for too long, and how far its data has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// Who has a descriptor of it at this moment, and which: the first process, if there are several.
    pub holder: Option<(Task, u32)>,
    /// How many descriptors of it there are; `None` when nobody looked.
    pub holders: Option<u32>,
    /// Whether the socket of a server was accepted; `None` when unknown.
    pub accepted: Option<bool>,
    /// Who listens, if it was not accepted and that is one process.
    pub listener: Option<Task>,
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
