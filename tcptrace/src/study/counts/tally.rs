//! The figures of a group of connections.

use super::change::{Change, Sum};
use super::facts::{Facts, Spent};
use super::groups::Merge;
use super::histogram::Histogram;
use super::processes::Processes;
use super::survival::Survival;
use super::{STUDIED, TRACKED};
use crate::model::row::Held;
use crate::model::tcp::{End, State};

/// The figures of a group of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub connections: u64,
    /// Connections that have not ended.
    pub open: u64,
    /// Connections that ended without an orderly close.
    pub failed: u64,
    /// Payload sent by connections with known totals.
    pub bytes_sent: Sum,
    /// Payload received by connections with known totals.
    pub bytes_received: Sum,
    /// Ends, by index in [`End::ALL`].
    pub ends: [u64; End::ALL.len()],
    /// Time in ESTABLISHED.
    pub established: Times,
    states: [Option<Box<InState>>; STUDIED.len()],
    still: Option<Box<[Option<Box<Still>>; TRACKED.len()]>>,
    /// Its processes, if they identify groups.
    pub(super) processes: Processes,
}

/// How long the connections of a group were in a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// The distribution.
    pub survival: Survival<5>,
    /// How many of the times are lower bounds.
    pub at_least: u64,
    /// Sum of all times, as far as observed, in ns.
    pub total_ns: Sum,
}

/// Sockets of a group that were in a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InState {
    pub times: Times,
    /// Sockets that are still in the state.
    pub open: u64,
    /// Sockets that no process had accepted.
    pub never_accepted: u64,
}

/// Sockets of a group that are still in a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Still {
    pub connections: u64,
    /// Sockets that no process has accepted.
    pub never_accepted: u64,
    /// Known times in the state so far.
    ages: Histogram<5>,
    /// Lower bounds of the other times.
    parts: Histogram<5>,
}

impl Times {
    /// Adds or removes a stay.
    fn change(&mut self, spent: Spent, change: Change) {
        change.sum(&mut self.total_ns, spent.held.known_ns().unwrap_or(0));
        spent.seen.into_iter().for_each(|seen| self.survival.change(seen, change));
        change.count_if(&mut self.at_least, spent.held.is_at_least());
    }

    pub fn total(&self) -> u64 {
        self.survival.total()
    }

    /// The longest stay.
    pub fn longest(&self) -> Held {
        longest(self.survival.known().max(), self.survival.longest_part())
    }

    fn merge(&mut self, other: &Self) {
        self.survival.merge(&other.survival);
        self.at_least += other.at_least;
        self.total_ns.merge(other.total_ns);
    }
}

impl Still {
    fn change(&mut self, facts: &Facts<'_>, change: Change) {
        change.count(&mut self.connections);
        change.count_if(&mut self.never_accepted, facts.never_accepted);
        match facts.age {
            Held::Exactly(ns) => self.ages.change(ns, change),
            Held::AtLeast(ns) => self.parts.change(ns, change),
            Held::Unknown => {}
        }
    }

    /// The time of the oldest socket in the state.
    pub fn oldest(&self) -> Held {
        longest(self.ages.max(), self.parts.max())
    }

    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.never_accepted += other.never_accepted;
        self.ages.merge(&other.ages);
        self.parts.merge(&other.parts);
    }
}

/// The longest time. If some times are lower bounds, the true time of one of them may be the longest.
fn longest(known: Option<u64>, part: Option<u64>) -> Held {
    match (known, part) {
        (Some(known), part) if part.is_none_or(|part| known >= part) => Held::Exactly(known),
        (_, Some(part)) => Held::AtLeast(part),
        (_, None) => Held::Unknown,
    }
}

impl Tally {
    pub(super) fn change(&mut self, facts: &Facts<'_>, change: Change) {
        change.count(&mut self.connections);
        change.count_if(&mut self.open, facts.open.is_some());
        change.count_if(&mut self.failed, facts.failed());
        if let Some(end) = facts.end {
            change.count(&mut self.ends[end as usize]);
        }
        if let Some(totals) = &facts.connection.totals {
            change.sum(&mut self.bytes_sent, totals.bytes_sent);
            change.sum(&mut self.bytes_received, totals.bytes_received);
        }
        self.established.change(facts.established, change);
        for (place, spent) in facts.studied.iter().enumerate() {
            if spent.held != Held::Unknown {
                let state = self.states[place].get_or_insert_default();
                state.times.change(*spent, change);
                change.count_if(&mut state.open, facts.open == Some(STUDIED[place]));
                change.count_if(&mut state.never_accepted, facts.never_accepted);
                if state.times.total() == 0 {
                    self.states[place] = None;
                }
            }
        }
        if let Some(place) = facts.open.and_then(tracked) {
            let still = self.still.get_or_insert_default();
            let counted = still[place].get_or_insert_default();
            counted.change(facts, change);
            if counted.connections == 0 {
                still[place] = None;
                self.still = self.still.take().filter(|still| still.iter().any(Option::is_some));
            }
        }
    }

    /// Figures of one of [`STUDIED`].
    pub fn state(&self, state: State) -> Option<&InState> {
        let place = STUDIED.iter().position(|studied| *studied == state)?;
        self.states[place].as_deref()
    }

    /// How many were in one of [`STUDIED`].
    pub fn in_state(&self, state: State) -> u64 {
        self.state(state).map_or(0, |state| state.times.total())
    }

    /// The sum of all times in a state, in ns, plus their number, so that none has weight zero.
    pub fn weight_in_state(&self, state: State) -> u64 {
        self.state(state).map_or(0, |state| state.times.total_ns.get().saturating_add(state.times.total()))
    }

    /// Sockets that are still in one of [`TRACKED`].
    pub fn still(&self, state: State) -> Option<&Still> {
        self.still.as_ref()?[tracked(state)?].as_deref()
    }
}

fn tracked(state: State) -> Option<usize> {
    TRACKED.iter().position(|tracked| *tracked == state)
}

impl Merge for Tally {
    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.open += other.open;
        self.failed += other.failed;
        self.bytes_sent.merge(other.bytes_sent);
        self.bytes_received.merge(other.bytes_received);
        self.ends.iter_mut().zip(other.ends).for_each(|(mine, its)| *mine += its);
        self.established.merge(&other.established);
        for (mine, its) in self.states.iter_mut().zip(&other.states) {
            if let Some(its) = its {
                let mine = mine.get_or_insert_default();
                mine.times.merge(&its.times);
                mine.open += its.open;
                mine.never_accepted += its.never_accepted;
            }
        }
        if let Some(its) = &other.still {
            for (mine, its) in self.still.get_or_insert_default().iter_mut().zip(its.iter()) {
                its.iter().for_each(|its| mine.get_or_insert_default().merge(its));
            }
        }
        self.processes.merge(&other.processes);
    }

    fn size(&self) -> u64 {
        self.connections
    }
}
