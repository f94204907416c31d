//! Connections by who and where, with a limit to how many groups are kept.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use super::facts::Facts;
use super::histogram::Histogram;
use super::rows::{STUDIED, TRACKED};
use super::survival::{Seen, Survival};
use crate::model::row::Held;
use crate::model::tcp::{End, State};

/// How many groups are kept. When there are more, the smaller half goes to the others.
const MOST: usize = 4096;

/// How many processes of a group are told apart.
const PROCESSES: usize = 1024;

/// Something that connections are counted into.
pub(super) trait Merge: Default {
    /// Counts in what the other one has counted.
    fn merge(&mut self, other: &Self);

    /// How many it has counted.
    fn size(&self) -> u64;
}

/// Counts by key.
#[derive(Clone, Debug)]
pub(super) struct Groups<K, T> {
    places: HashMap<K, usize, FixedState>,
    groups: Vec<(K, Kept<T>)>,
    last: usize,
    others: T,
    folded: u64,
}

/// A group that is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept<T> {
    pub(super) tally: T,
    /// What it had before may have gone to the others.
    pub(super) is_partial: bool,
}

impl<K, T: Default> Default for Groups<K, T> {
    fn default() -> Self {
        Self { places: HashMap::default(), groups: Vec::new(), last: 0, others: T::default(), folded: 0 }
    }
}

impl<K: Copy + Eq + Hash + Ord, T: Merge> Groups<K, T> {
    /// The counts of a key.
    pub(super) fn of(&mut self, key: K) -> &mut T {
        // Connections that follow each other are often alike.
        if self.groups.get(self.last).is_none_or(|(last, _)| *last != key) {
            self.last = self.place(key);
        }
        &mut self.groups[self.last].1.tally
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    fn place(&mut self, key: K) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.groups.len() >= MOST {
            self.fold();
        }
        let place = self.groups.len();
        self.groups.push((key, Kept { tally: T::default(), is_partial: self.folded > 0 }));
        self.places.insert(key, place);
        place
    }

    fn fold(&mut self) {
        self.groups
            .sort_unstable_by(|one, other| other.1.tally.size().cmp(&one.1.tally.size()).then(one.0.cmp(&other.0)));
        let small = self.groups.split_off(MOST / 2);
        self.folded += small.len() as u64;
        small.iter().for_each(|(_, kept)| self.others.merge(&kept.tally));
        self.places = self.groups.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect();
        self.last = 0;
    }

    /// Those of which something counts most, at most so many; and all others as one: how many groups, at least if some
    /// were folded, and their counts.
    pub(super) fn top(&self, most: usize, size: impl Fn(&T) -> u64) -> Top<'_, K, T> {
        let mut rows: Vec<&(K, Kept<T>)> = self.groups.iter().filter(|(_, kept)| size(&kept.tally) > 0).collect();
        rows.sort_unstable_by(|one, other| size(&other.1.tally).cmp(&size(&one.1.tally)).then(one.0.cmp(&other.0)));
        let rest = rows.split_off(most.min(rows.len()));
        let mut tally = T::default();
        rest.iter().for_each(|(_, kept)| tally.merge(&kept.tally));
        let (mut groups, has_folded) = (rest.len() as u64, size(&self.others) > 0);
        if has_folded {
            tally.merge(&self.others);
            groups += self.folded;
        }
        Top { rows, others: (groups > 0).then_some(Others { groups, has_folded, tally }) }
    }
}

/// The largest groups, and what is left.
pub(super) struct Top<'g, K, T> {
    pub(super) rows: Vec<&'g (K, Kept<T>)>,
    pub(super) others: Option<Others<T>>,
}

/// Groups without a row of their own.
pub(super) struct Others<T> {
    pub(super) groups: u64,
    /// How many that are is not known: some may have come back, and be counted twice.
    pub(super) has_folded: bool,
    pub(super) tally: T,
}

/// What is counted of a group of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) connections: u64,
    pub(super) open: u64,
    pub(super) failed: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) ends: [u64; End::ALL.len()],
    pub(super) established: Times,
    pub(super) states: [Option<Box<InState>>; STUDIED.len()],
    pub(super) still: Option<Box<[Still; TRACKED.len()]>>,
    pub(super) processes: Processes,
}

/// How long a group was in something.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    pub(super) survival: Survival<5>,
    pub(super) at_least: u64,
    /// Of all together, as far as it was seen, in ns.
    pub(super) total_ns: u64,
    longest_part: u64,
}

/// Sockets of a group that were in a state.
#[derive(Clone, Debug, Default)]
pub(super) struct InState {
    pub(super) times: Times,
    pub(super) open: u64,
    pub(super) never_accepted: u64,
}

/// Sockets of a group that are still in a state in the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Still {
    pub(super) connections: u64,
    pub(super) never_accepted: u64,
    pub(super) oldest: Held,
}

impl Times {
    /// A stay, and what was seen of it.
    fn add(&mut self, held: Held, seen: Option<Seen>) {
        self.total_ns = self.total_ns.saturating_add(held.known_ns().unwrap_or(0));
        seen.into_iter().for_each(|seen| self.survival.add(seen));
        if let Held::AtLeast(ns) = held {
            self.at_least += 1;
            self.longest_part = self.longest_part.max(ns);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.survival.total()
    }

    pub(super) fn longest(&self) -> Held {
        match self.survival.known().max() {
            Some(ns) if self.at_least == 0 || ns >= self.longest_part => Held::Exactly(ns),
            _ if self.at_least > 0 => Held::AtLeast(self.longest_part),
            _ => Held::Unknown,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.survival.merge(&other.survival);
        self.at_least += other.at_least;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_part = self.longest_part.max(other.longest_part);
    }
}

impl Tally {
    pub(super) fn add(&mut self, facts: &Facts<'_>) {
        self.connections += 1;
        self.open += u64::from(facts.open.is_some());
        self.failed += u64::from(facts.failed());
        if let Some(end) = facts.end {
            self.ends[end as usize] += 1;
        }
        if let Some(totals) = &facts.connection.totals {
            self.bytes_sent = self.bytes_sent.saturating_add(totals.bytes_sent);
            self.bytes_received = self.bytes_received.saturating_add(totals.bytes_received);
        }
        self.established.add(facts.established, facts.seen(State::Established));
        for (place, held) in facts.studied.iter().enumerate() {
            if *held != Held::Unknown {
                let state = self.states[place].get_or_insert_default();
                let is_open = facts.open == Some(STUDIED[place]);
                state.times.add(*held, facts.seen(STUDIED[place]));
                state.open += u64::from(is_open);
                state.never_accepted += u64::from(facts.never_accepted);
            }
        }
        if let Some(place) = facts.open.and_then(|open| TRACKED.iter().position(|state| *state == open)) {
            let still = &mut self.still.get_or_insert_default()[place];
            still.connections += 1;
            still.never_accepted += u64::from(facts.never_accepted);
            still.oldest = older(still.oldest, facts.age);
        }
    }

    pub(super) fn in_state(&self, place: usize) -> u64 {
        self.states[place].as_ref().map_or(0, |state| state.times.total())
    }

    /// How long all of them together were in a state, in ns; and how many, so that none counts for nothing.
    pub(super) fn weight_in_state(&self, place: usize) -> u64 {
        self.states[place].as_ref().map_or(0, |state| state.times.total_ns.saturating_add(state.times.total()))
    }

    pub(super) fn still(&self, place: usize) -> Still {
        self.still.as_ref().map_or(Still::default(), |still| still[place])
    }
}

/// The longer one, as far as that is known; one that is known in part may be longer than any.
fn older(one: Held, other: Held) -> Held {
    match (one.known_ns(), other.known_ns()) {
        (Some(one_ns), Some(other_ns)) if one_ns >= other_ns => one,
        (Some(_), None) => one,
        _ => other,
    }
}

impl Merge for Tally {
    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.open += other.open;
        self.failed += other.failed;
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
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
                mine.connections += its.connections;
                mine.never_accepted += its.never_accepted;
                mine.oldest = older(mine.oldest, its.oldest);
            }
        }
        self.processes.merge(&other.processes);
    }

    fn size(&self) -> u64 {
        self.connections
    }
}

/// Which processes, up to a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// In order.
    pids: Vec<u32>,
    pub(super) has_more: bool,
    last: Option<u32>,
}

impl Processes {
    pub(super) fn add(&mut self, pid: u32) {
        if self.last == Some(pid) {
            return;
        }
        self.last = Some(pid);
        if let Err(place) = self.pids.binary_search(&pid) {
            if self.pids.len() < PROCESSES {
                self.pids.insert(place, pid);
            } else {
                self.has_more = true;
            }
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.pids.len() as u64
    }

    /// The only one.
    pub(super) fn only(&self) -> Option<u32> {
        if let [pid] = self.pids[..] { Some(pid) } else { None }
    }

    fn merge(&mut self, other: &Self) {
        other.pids.iter().for_each(|pid| self.add(*pid));
        self.has_more |= other.has_more;
    }
}

/// Connections from one process to one end.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    pub(super) short: u64,
    pub(super) longer: u64,
    pub(super) active: u64,
    pub(super) established: Histogram<5>,
    bytes_sent: u64,
    bytes_received: u64,
    counted: u64,
    pub(super) processes: Processes,
}

impl Pair {
    pub(super) fn add_short(&mut self, facts: &Facts<'_>, ns: u64) {
        self.short += 1;
        self.active += u64::from(facts.is_active());
        self.established.add(ns);
        if let Some(totals) = &facts.connection.totals {
            self.counted += 1;
            self.bytes_sent = self.bytes_sent.saturating_add(totals.bytes_sent);
            self.bytes_received = self.bytes_received.saturating_add(totals.bytes_received);
        }
    }

    /// Mean payload sent and received by the short-lived ones of which that is known.
    pub(super) fn mean_bytes(&self) -> (Option<u64>, Option<u64>) {
        (self.bytes_sent.checked_div(self.counted), self.bytes_received.checked_div(self.counted))
    }
}

impl Merge for Pair {
    fn merge(&mut self, other: &Self) {
        self.short += other.short;
        self.longer += other.longer;
        self.active += other.active;
        self.established.merge(&other.established);
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        self.counted += other.counted;
        self.processes.merge(&other.processes);
    }

    fn size(&self) -> u64 {
        self.short + self.longer
    }
}
