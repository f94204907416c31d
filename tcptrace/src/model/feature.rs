//! What the kernel side can measure, and which hook serves it.

use std::borrow::Cow;
use std::fmt;

use super::named;

named! {
    /// What a hook is for.
    Feature {
        /// Every change of state.
        Transitions = "transitions",
        /// The end of a full socket.
        Destroy = "destroy",
        /// Resets sent.
        ResetSent = "reset_sent",
        /// Resets received.
        ResetReceived = "reset_received",
        /// Whether a mini-socket took over, and in which state.
        MiniCreated = "time_wait_created",
        /// The natural end of TIME_WAIT and orphaned FIN_WAIT2.
        MiniExpired = "time_wait_expired",
        /// Their early end, and who caused it.
        MiniKilled = "time_wait_killed",
        /// The FIN that turns an orphan's FIN_WAIT2 into TIME_WAIT, when it comes.
        MiniFin = "fin_wait2_to_time_wait",
        /// Who accepts a connection.
        Accept = "accept",
        /// Calls of `bind`, `listen` and `accept` that fail; only on demand.
        FailedCalls = "failed_calls",
        /// Who holds a socket.
        Holders = "holders",
    }
}

impl Feature {
    /// What tcptrace can report with it.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Transitions => "every change of state",
            Self::Destroy => "when a socket is really gone",
            Self::ResetSent => "resets sent, and why",
            Self::ResetReceived => "resets received",
            Self::MiniCreated => "entry into TIME_WAIT, or its refusal",
            Self::MiniExpired => "end of TIME_WAIT by its timer",
            Self::MiniKilled => "early end of TIME_WAIT, and by whom",
            Self::MiniFin => "orphan's FIN_WAIT2 turning TIME_WAIT, live",
            Self::Accept => "which process accepts a connection",
            Self::FailedCalls => "bind, listen and accept calls that failed",
            Self::Holders => "which processes hold a socket",
        }
    }
}

/// What kind of hook serves a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A tracepoint whose arguments the program reads by type, which needs BTF. It identifies sockets by their cookies.
    Btf,
    /// A classic tracepoint: it shows the fields of its record, and no cookies.
    Classic,
    /// An iterator, which runs on request.
    Iterator,
}

/// How a feature is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Attached to this hook.
    Attached {
        /// The kind of hook.
        by: Tier,
        /// The hook's name, for people.
        hook: String,
    },
    /// Attached to this hook, which shows only a part.
    Partly {
        /// The hook's name, for people.
        hook: String,
        /// What it does not show, and what to do.
        missing: String,
    },
    /// Left out on request.
    Declined {
        /// The request.
        reason: String,
    },
    /// Not attached.
    Unavailable {
        /// Why, and what to do.
        reason: String,
    },
}

impl Service {
    /// Whether it works.
    pub fn is_attached(&self) -> bool {
        matches!(self, Self::Attached { .. } | Self::Partly { .. })
    }

    /// Whether it shows only a part.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partly { .. })
    }

    /// The hook and what it does not show, or why there is none.
    pub fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Attached { hook, .. } => hook.into(),
            Self::Partly { hook, missing } => format!("{hook}, {missing}").into(),
            Self::Declined { reason } | Self::Unavailable { reason } => reason.into(),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())
    }
}
