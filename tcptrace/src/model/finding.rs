//! The kernel counters that an audit compares with the events, and what it finds.

use serde::{Deserialize, Serialize};

use super::counters::{Increase, Unseen};
use super::named;

/// After this time, an event has been both reported and counted, in either order. In between, something else may take
/// the CPU.
pub const MARGIN_NS: u64 = 100_000_000;

named! {
    /// A kernel counter, or the sum of several.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    Counter {
        /// Connections begun: a SYN was sent (`tcp_connect`).
        ActiveOpens = "ActiveOpens",
        /// Connections that a listener received (`tcp_create_openreq_child`).
        PassiveOpens = "PassiveOpens",
        /// Connections that ended before they were established (`tcp_done`). The kernel also counts requests that were
        /// reset before they became a socket. No event shows those; they are at most `EmbryonicRsts`.
        AttemptFails = "AttemptFails",
        /// Connections that ended in ESTABLISHED or CLOSE_WAIT (`tcp_set_state`).
        EstabResets = "EstabResets",
        /// Mini-sockets, in TIME_WAIT or FIN_WAIT2. Since 5.18 the kernel counts them when they are made
        /// (`__inet_twsk_schedule`), before when their timer fires (`tw_timer_handler`). `TWKilled` are those with a
        /// timer of 4 s at most.
        #[serde(rename = "TW+TWKilled")]
        Tw = "TW+TWKilled",
        /// Mini-sockets whose addresses and ports `connect` took over (`__inet_check_established`).
        #[serde(rename = "TWRecycled")]
        TwRecycled = "TWRecycled",
        /// Mini-sockets that could not be made (`tcp_time_wait`).
        #[serde(rename = "TCPTimeWaitOverflow")]
        TwOverflow = "TCPTimeWaitOverflow",
        /// Connections that the kernel gave up because no answer came in time (`tcp_write_err`).
        #[serde(rename = "TCPAbortOnTimeout")]
        AbortOnTimeout = "TCPAbortOnTimeout",
    }
}

/// The kernel's counters in a network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Inode number of the namespace.
    pub netns: u32,
    /// The namespace's cookie, where the kernel has one (5.14 and newer). It stays unique; the kernel reuses inode
    /// numbers.
    pub cookie: Option<u64>,
    /// The counters were read after this, in ns of `CLOCK_BOOTTIME`,
    pub from: u64,
    /// and before this.
    pub to: u64,
    /// The value of each counter; `None` where the kernel does not have it.
    pub values: [Option<u64>; Counter::ALL.len()],
    /// Requests that were reset before they became a socket (`EmbryonicRsts`).
    pub embryonic_resets: u64,
    /// The value of each counter of [`Unseen`].
    pub unseen: [u64; Unseen::ALL.len()],
}

/// What an audit finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// One counter, compared.
    Counter(Compared),
    /// Growth of a counter whose events cannot be seen, and are not lost.
    Unseen(Increase),
    /// The result over all counters, which comes last.
    Verdict(Verdict),
}

/// A kernel counter, and the events that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// When it was read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    pub counter: Counter,
    /// Events that were seen.
    pub seen: u64,
    /// By how much the kernel's counter has grown.
    pub expected: u64,
    /// How many of these events happened while the counter was read, or may be counted in another way.
    pub within: u64,
}

impl Compared {
    /// How far apart both are.
    pub fn difference(&self) -> u64 {
        self.seen.abs_diff(self.expected)
    }

    /// The part of the difference that the moment of reading cannot explain.
    pub fn certain_difference(&self) -> u64 {
        self.difference().saturating_sub(self.within)
    }
}

/// The result of an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Network namespaces that were compared.
    pub namespaces: u64,
    /// Network namespaces that were gone at the end, or could not be entered.
    pub gone: u64,
    /// Network namespaces that cannot be compared: their inode number belonged to another one before.
    pub unclear: u64,
    /// Changes of state of full sockets, seen in the namespaces that were compared.
    pub transitions: u64,
    /// Events that are known to be lost.
    pub lost: u64,
    /// Changes of state among the lost events, in any network namespace.
    pub lost_transitions: u64,
    /// Differences that the lost events do not explain: the sum over all counters.
    pub unexplained: u64,
}
