//! Increases of the kernel's counters that no connection shows.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::FixedState;

use super::change::{Change, Sum};
use super::group::{By, Group};
use super::who::{Directory, Key, Netns, Translator};
use crate::model::counters::{Increase, Unseen};
use crate::model::stream::Origin;

/// Most counters that are counted separately.
const MOST: usize = 1 << 16;

/// An increase of one of the kernel's counters in a network namespace that no connection shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    pub counter: Unseen,
    /// The namespace, or how many other namespaces the row stands for.
    pub group: Group,
    /// By how much the counter grew.
    pub increase: u64,
    /// Time of the first increase, in ns of Unix time.
    pub first_unix_ns: i64,
    /// Time of the last increase, in ns of Unix time.
    pub last_unix_ns: i64,
}

/// The growth of each counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    sums: HashMap<(Unseen, Netns), Growth, FixedState>,
    /// Growth of counters beyond the limit.
    others: HashMap<Unseen, Growth, FixedState>,
}

#[derive(Clone, Copy, Debug)]
struct Growth {
    rows: u64,
    increase: Sum,
    first_unix_ns: i64,
    last_unix_ns: i64,
}

impl Growth {
    /// No growth, at a time.
    fn at(unix_ns: i64) -> Self {
        Self { rows: 0, increase: Sum::default(), first_unix_ns: unix_ns, last_unix_ns: unix_ns }
    }

    fn change(&mut self, increase: u64, unix_ns: i64, change: Change) {
        change.count(&mut self.rows);
        change.sum(&mut self.increase, increase);
        if change == Change::In {
            self.first_unix_ns = self.first_unix_ns.min(unix_ns);
            self.last_unix_ns = self.last_unix_ns.max(unix_ns);
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.increase.merge(other.increase);
        self.first_unix_ns = self.first_unix_ns.min(other.first_unix_ns);
        self.last_unix_ns = self.last_unix_ns.max(other.last_unix_ns);
    }

    fn and(mut self, other: Self) -> Self {
        self.merge(other);
        self
    }
}

impl Counters {
    /// Adds an increase.
    pub(super) fn add(&mut self, row: &Increase, origin: &Origin, directory: &mut Directory) {
        let machine = directory.machine(origin);
        let netns = Netns { machine, inode: Some(row.netns) };
        let at = origin.context.clock.unix_ns(row.at);
        if !self.sums.contains_key(&(row.counter, netns)) {
            directory.name_netns(machine, netns.inode, origin);
        }
        self.of(row.counter, netns, at).change(row.increase, at, Change::In);
    }

    /// Removes an increase. The first and the last time stay as bounds for the rest.
    pub(super) fn remove(&mut self, row: &Increase, origin: &Origin, directory: &mut Directory) {
        let netns = Netns { machine: directory.machine(origin), inode: Some(row.netns) };
        let at = origin.context.clock.unix_ns(row.at);
        let Self { sums, others } = self;
        if let Entry::Occupied(mut known) = sums.entry((row.counter, netns)) {
            known.get_mut().change(row.increase, at, Change::Out);
            if known.get().rows == 0 {
                known.remove();
            }
        } else if let Entry::Occupied(mut known) = others.entry(row.counter) {
            known.get_mut().change(row.increase, at, Change::Out);
            if known.get().rows == 0 {
                known.remove();
            }
        }
    }

    fn of(&mut self, counter: Unseen, netns: Netns, unix_ns: i64) -> &mut Growth {
        let Self { sums, others } = self;
        let has_room = sums.len() < MOST;
        match sums.entry((counter, netns)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if has_room => entry.insert(Growth::at(unix_ns)),
            Entry::Vacant(_) => others.entry(counter).or_insert(Growth::at(unix_ns)),
        }
    }

    /// Adds other counters. With a translator, their numbers are those of another directory.
    pub(super) fn merge(&mut self, other: &Self, names: &mut Option<Translator<'_>>) {
        for ((counter, netns), its) in &other.sums {
            let netns = names.as_mut().map_or(*netns, |names| netns.translate(names));
            self.of(*counter, netns, its.first_unix_ns).merge(*its);
        }
        for (counter, its) in &other.others {
            self.others.entry(*counter).or_insert(Growth::at(its.first_unix_ns)).merge(*its);
        }
    }

    /// By counter, with at most `top` namespaces for each.
    pub(super) fn rows(&self, top: usize, directory: &Directory) -> Vec<CounterRow> {
        Unseen::ALL.into_iter().flat_map(|counter| self.rows_of(counter, top, directory)).collect()
    }

    fn rows_of(&self, counter: Unseen, top: usize, directory: &Directory) -> Vec<CounterRow> {
        let Self { sums, others } = self;
        let sums = sums.iter().filter(|((of, _), _)| *of == counter);
        let mut sums: Vec<(Netns, Growth)> = sums.map(|((_, netns), sum)| (*netns, *sum)).collect();
        sums.sort_by_key(|(netns, sum)| (Reverse(sum.increase.get()), *netns));
        let rest = sums.split_off(sums.len().min(top));
        let untold = others.get(&counter);
        let sum = rest.iter().map(|(_, sum)| *sum).chain(untold.copied()).reduce(Growth::and);
        let mut group = Group::others(By::Netns, Some(rest.len() as u64 + u64::from(untold.is_some())));
        group.is_partial = untold.is_some();
        let named = sums.iter().map(|(netns, sum)| row(counter, netns_group(*netns, directory), *sum));
        named.chain(sum.map(|sum| row(counter, group, sum))).collect()
    }
}

fn netns_group(netns: Netns, directory: &Directory) -> Group {
    Group::of(By::Netns, &netns, directory)
}

fn row(counter: Unseen, group: Group, sum: Growth) -> CounterRow {
    let Growth { increase, first_unix_ns, last_unix_ns, .. } = sum;
    CounterRow { counter, group, increase: increase.get(), first_unix_ns, last_unix_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::counts::Counts;
    use crate::study::report::testing;

    #[test]
    fn sums_by_counter_and_namespace() {
        let mut counts = Counts::default();
        let mut origin = testing::origin();
        origin.context.names.name_namespace(3, b"web");
        for (at, netns, counter, increase) in [
            (5, 1, Unseen::ListenDrops, 2),
            (7, 3, Unseen::SyncookiesSent, 1),
            (8, 3, Unseen::SyncookiesSent, u64::MAX),
            (9, 1, Unseen::ListenDrops, 3),
            (10, 2, Unseen::ListenDrops, 5),
            (11, 4, Unseen::ListenDrops, 4),
            (12, 5, Unseen::ListenDrops, 1),
        ] {
            counts.add_counter(&Increase { at, netns, counter, increase, over_ns: None }, &origin);
        }
        let rows = counts.counters(2);
        let told = |row: &CounterRow| {
            let group = &row.group;
            let name = group.netns_name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned());
            (row.counter, group.netns, name, group.others, row.increase, row.first_unix_ns, row.last_unix_ns)
        };
        let (cookies, drops) = (Unseen::SyncookiesSent, Unseen::ListenDrops);
        assert_eq!(
            rows.iter().map(told).collect::<Vec<_>>(),
            [
                (cookies, Some(3), Some("web".to_owned()), None, u64::MAX, 7, 8),
                (drops, Some(1), None, None, 5, 5, 9),
                (drops, Some(2), None, None, 5, 10, 10),
                (drops, None, None, Some(2), 5, 11, 12),
            ]
        );
    }
}
