//! Kinds of evidence.

use std::fmt;

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Transitions, as they happened.
    Events,
    /// Which sockets there are.
    Sockets,
    /// What the kernel shows of them: queues, timers, when data last moved.
    Inspections,
    /// Who has a descriptor of which socket.
    Owners,
    /// The kernel's counters.
    Counters,
    /// Settings.
    Settings,
    /// Accept queues, over time.
    AcceptQueues,
    /// Descriptors of processes, and their limits.
    Limits,
    /// Which connections were accepted, and when.
    Accepts,
    /// System calls that failed.
    FailedCalls,
    /// At least so many seconds of tracing.
    Time(u64),
    /// No event may be missing: absence proves something.
    NoLosses,
    /// Files that set values at boot.
    SettingFiles,
}

/// When a trace holds a kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recorded {
    /// In any case.
    Always,
    /// Unless it was recorded with `--no-facts`.
    WithFacts,
    /// If that was asked for.
    OnRequest,
    /// Never: only the running host has it.
    Never,
}

impl Need {
    /// When a trace holds it.
    pub fn recorded(self) -> Recorded {
        match self {
            // Unless it was recorded with `--accept auto` or `never`.
            Self::Accepts => Recorded::Always,
            Self::Events | Self::Sockets | Self::Owners | Self::Time(_) | Self::NoLosses => Recorded::Always,
            Self::Inspections | Self::Counters | Self::Settings | Self::AcceptQueues | Self::Limits => {
                Recorded::WithFacts
            }
            Self::FailedCalls => Recorded::OnRequest,
            Self::SettingFiles => Recorded::Never,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("transitions"),
            Self::Sockets => f.write_str("sockets"),
            Self::Inspections => f.write_str("queues and ages of sockets"),
            Self::Owners => f.write_str("owners of sockets"),
            Self::Counters => f.write_str("kernel counters"),
            Self::Settings => f.write_str("settings"),
            Self::AcceptQueues => f.write_str("accept queues"),
            Self::Limits => f.write_str("limits of processes"),
            Self::Accepts => f.write_str("accepts"),
            Self::FailedCalls => f.write_str("failed system calls"),
            Self::Time(seconds) => write!(f, "{seconds}s of tracing"),
            Self::NoLosses => f.write_str("no lost events"),
            Self::SettingFiles => f.write_str("sysctl files"),
        }
    }
}
