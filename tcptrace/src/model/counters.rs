//! What the kernel counts of TCP in each network namespace: how much more since the last look, and which of it stands
//! for what no event tells. Pure.
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

/// Numbers by name. Names are the kernel's, behind the group that has them: `Tcp.ActiveOpens`, `TcpExt.ListenDrops`,
/// `sockstat.TCP.orphan`, `conntrack.drop`.
pub type Values = BTreeMap<Box<str>, u64>;

/// What a network namespace showed at one moment. What is 0 is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Which namespace, by inode number.
    pub netns: u32,
    /// What no other namespace ever has, where the kernel tells it (5.14 and newer): inode numbers are used again.
    pub cookie: Option<u64>,
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// What only grows.
    pub counts: Values,
    /// What goes up and down.
    pub levels: Values,
}

/// What a recording tells of the counters of a network namespace. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When the counters were read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// In which network namespace, by inode number.
    pub netns: u32,
    /// What no other namespace ever has; `None` when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Everything that was counted up to now, to begin with: it happened before, or other samples tell it too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Since when `counts` count; `None`: since the namespace was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Until when none of the counters of [`Unseen`] had grown since then; `None` like `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_until: Option<u64>,
    /// By how much each counter has grown, if it has.
    #[serde(deserialize_with = "bounded::values", skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: Values,
    /// What has changed of what goes up and down: its value now. All that is not 0, in a whole one.
    #[serde(deserialize_with = "bounded::values", skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: Values,
}

impl Sample {
    /// What it tells that no event does.
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
