//! Connections between one process and one remote end.

use super::SHORT_NS;
use super::change::{Change, Sum};
use super::facts::Facts;
use super::groups::Merge;
use super::histogram::Histogram;
use super::processes::Processes;
use crate::model::row::Held;

/// How often a process and a remote end connect, and for how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pair {
    /// Connections that left ESTABLISHED after less than [`SHORT_NS`].
    pub short: u64,
    /// All others.
    pub longer: u64,
    /// Short-lived connections that this side closed first.
    pub active: u64,
    /// Times in ESTABLISHED of the short-lived connections, in ns.
    pub established: Histogram<5>,
    bytes_sent: Sum,
    bytes_received: Sum,
    counted: u64,
    pub(super) processes: Processes,
}

/// Whether a connection was short-lived, and its time in ESTABLISHED then; `None` if unknown.
pub(super) fn short(established: Held) -> Option<Option<u64>> {
    match established {
        Held::Exactly(ns) if ns < SHORT_NS => Some(Some(ns)),
        Held::Exactly(_) => Some(None),
        Held::AtLeast(ns) if ns >= SHORT_NS => Some(None),
        Held::AtLeast(_) | Held::Unknown => None,
    }
}

impl Pair {
    /// Adds or removes a connection. `short` is the duration of a short-lived one.
    pub(super) fn change(&mut self, facts: &Facts<'_>, short: Option<u64>, change: Change) {
        if let Some(owner) = facts.connection.identity.owner {
            self.processes.change(owner.task.pid, change);
        }
        let Some(ns) = short else { return change.count(&mut self.longer) };
        change.count(&mut self.short);
        change.count_if(&mut self.active, facts.is_active());
        self.established.change(ns, change);
        if let Some(totals) = &facts.connection.totals {
            change.count(&mut self.counted);
            change.sum(&mut self.bytes_sent, totals.bytes_sent);
            change.sum(&mut self.bytes_received, totals.bytes_received);
        }
    }

    /// Mean payload sent and received by the short-lived connections with known totals.
    pub fn mean_bytes(&self) -> (Option<u64>, Option<u64>) {
        let mean = |sum: Sum| sum.get().checked_div(self.counted);
        (mean(self.bytes_sent), mean(self.bytes_received))
    }
}

impl Merge for Pair {
    fn merge(&mut self, other: &Self) {
        self.short += other.short;
        self.longer += other.longer;
        self.active += other.active;
        self.established.merge(&other.established);
        self.bytes_sent.merge(other.bytes_sent);
        self.bytes_received.merge(other.bytes_received);
        self.counted += other.counted;
        self.processes.merge(&other.processes);
    }

    fn size(&self) -> u64 {
        self.short + self.longer
    }
}
