//! The kernel's counters that an audit compares with what was seen, and what it finds.

use serde::{Deserialize, Serialize};

use super::counters::{Increase, Unseen};
use super::named;

/// What happens between an event and its being counted, or the other way round, is over by then: the CPU may have been
/// taken from whoever did it.
pub const MARGIN_NS: u64 = 100_000_000;

named! {
    /// A counter of the kernel, or several taken together.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    Counter {
        /// Connections that were begun: a SYN was sent (`tcp_connect`).
        ActiveOpens = "ActiveOpens",
        /// Connections that a listener has got (`tcp_create_openreq_child`).
        PassiveOpens = "PassiveOpens",
        /// Connections that ended before they were established (`tcp_done`). The kernel also counts requests that were
        /// reset before they became a socket, of which no event tells: no more than `EmbryonicRsts`.
        AttemptFails = "AttemptFails",
        /// Connections that ended in ESTABLISHED or CLOSE_WAIT (`tcp_set_state`).
        EstabResets = "EstabResets",
        /// Mini-sockets, in TIME_WAIT or FIN_WAIT2. Since 5.18 counted when they are made (`__inet_twsk_schedule`),
        /// before when their timer fires (`tw_timer_handler`); `TWKilled` are those with a timer of 4 s at most.
        #[serde(rename = "TW+TWKilled")]
        Tw = "TW+TWKilled",
        /// Mini-sockets whose addresses and ports `connect` took over (`__inet_check_established`).
        #[serde(rename = "TWRecycled")]
        TwRecycled = "TWRecycled",
        /// Mini-sockets that could not be made (`tcp_time_wait`).
        #[serde(rename = "TCPTimeWaitOverflow")]
        TwOverflow = "TCPTimeWaitOverflow",
        /// Connections that the kernel gave up, as no answer came in time (`tcp_write_err`).
        #[serde(rename = "TCPAbortOnTimeout")]
        AbortOnTimeout = "TCPAbortOnTimeout",
    }
}

/// What the kernel had counted in a network namespace, at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Which namespace, by inode number.
    pub netns: u32,
    /// What no other namespace ever has, where the kernel tells it (5.14 and newer): inode numbers are used again.
    pub cookie: Option<u64>,
    /// The moment was not before this, in ns of `CLOCK_BOOTTIME`,
    pub from: u64,
    /// and not after this.
    pub to: u64,
    /// The value of each counter; `None` where the kernel has none of this name.
    pub values: [Option<u64>; Counter::ALL.len()],
    /// Requests that were reset before they became a socket (`EmbryonicRsts`).
    pub embryonic_resets: u64,
    /// The value of each counter of what no event tells.
    pub unseen: [u64; Unseen::ALL.len()],
}

/// What an audit finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// Of one counter.
    Counter(Compared),
    /// Of one whose events cannot be seen, and are not lost.
    Unseen(Increase),
    /// Of all of them, at last.
    Verdict(Verdict),
}

/// A counter of the kernel, and what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// When it was read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// In which network namespace, by inode number.
    pub netns: u32,
    /// Which.
    pub counter: Counter,
    /// Events that were seen.
    pub seen: u64,
    /// By how much the kernel's counter has grown.
    pub expected: u64,
    /// So many of the events happened while the counter was read, or may be counted in another way.
    pub within: u64,
}

impl Compared {
    /// How far apart they are.
    pub fn difference(&self) -> u64 {
        self.seen.abs_diff(self.expected)
    }

    /// How much of that cannot be due to the moment at which the counter was read.
    pub fn certain_difference(&self) -> u64 {
        self.difference().saturating_sub(self.within)
    }
}

/// What an audit comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Network namespaces that were compared.
    pub namespaces: u64,
    /// Network namespaces that were gone before the end, or could not be entered.
    pub gone: u64,
    /// Network namespaces that cannot be compared: their number belonged to another one before.
    pub unclear: u64,
    /// Changes of state of full sockets that were seen in those that were compared.
    pub transitions: u64,
    /// Events that are known to be lost.
    pub lost: u64,
    /// Changes of state among those, of any network namespace.
    pub lost_transitions: u64,
    /// Differences beyond that: the sum over all counters.
    pub unexplained: u64,
}
