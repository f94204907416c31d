//! What the kernel counts of TCP in each network namespace: by how much each counter grew since the last look, and
//! which growth no event shows. Pure.
//!
//! A SYN that a listener drops makes no socket, and so no event. The kernel counts it, and nothing else shows it.

mod bounded;
mod history;
mod unseen;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::history::History;
pub use self::unseen::{Increase, Unseen};

/// Numbers by name. Names are the kernel's, after the group that has them: `Tcp.ActiveOpens`, `TcpExt.ListenDrops`,
/// `sockstat.TCP.orphan`, `conntrack.drop`.
pub type Values = BTreeMap<Box<str>, u64>;

/// What a network namespace showed at one moment, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inode number of the namespace.
    pub netns: u32,
    /// The namespace's cookie, where the kernel has one (5.14 and newer). It stays unique; the kernel reuses inode
    /// numbers.
    pub cookie: Option<u64>,
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Counters, which only grow.
    pub counts: Values,
    /// Levels, which go up and down.
    pub levels: Values,
}

/// A sample of a network namespace's counters in a recording. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When the counters were read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The namespace's cookie; `None` when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// `counts` are totals, as a starting point. They cover what happened before the recording, or what other samples
    /// cover too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Start of the time that `counts` cover; `None`: since the namespace was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Up to this time, none of the counters of [`Unseen`] had grown; `None` like `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_until: Option<u64>,
    /// By how much each counter has grown, if it has.
    #[serde(deserialize_with = "bounded::values", skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: Values,
    /// New values of the levels that have changed; of all that are not 0, if `whole`.
    #[serde(deserialize_with = "bounded::values", skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: Values,
}

impl Sample {
    /// The growth that no event shows.
    pub fn increases(&self) -> impl Iterator<Item = Increase> {
        let counters = Unseen::ALL.into_iter().filter(|_| !self.whole);
        counters.filter_map(|counter| {
            let increase = *self.counts.get(counter.key())?;
            let over_ns = self.quiet_until.map(|since| self.at.saturating_sub(since));
            let Self { at, netns, .. } = *self;
            (increase > 0).then_some(Increase { at, netns, counter, increase, over_ns })
        })
    }
}
