//! What the kernel has counted and no connection shows.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::FixedState;

use super::rows::{By, CounterRow, Group};
use super::who::{Directory, Netns};
use crate::model::counters::{Increase, Unseen};
use crate::model::stream::Origin;

/// So many counters are told apart at most.
const MOST: usize = 1 << 16;

/// How far each counter has grown.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    sums: HashMap<(Unseen, Netns), Sum, FixedState>,
    /// Of those that are not told apart.
    others: HashMap<Unseen, Sum, FixedState>,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    increase: u64,
    first_unix_ns: i64,
    last_unix_ns: i64,
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self {
            increase: self.increase.saturating_add(other.increase),
            first_unix_ns: self.first_unix_ns.min(other.first_unix_ns),
            last_unix_ns: self.last_unix_ns.max(other.last_unix_ns),
        }
    }
}

impl Counters {
    /// Counts in what no connection shows.
    pub(super) fn add(&mut self, row: &Increase, origin: &Origin, directory: &mut Directory) {
        let machine = directory.machine(origin);
        let netns = Netns { machine, inode: Some(row.netns) };
        let at = origin.context.clock.unix_ns(row.at);
        let sum = Sum { increase: row.increase, first_unix_ns: at, last_unix_ns: at };
        let Self { sums, others } = self;
        let has_room = sums.len() < MOST;
        let known = match sums.entry((row.counter, netns)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if has_room => {
                directory.name_netns(machine, netns.inode, origin);
                entry.insert(Sum { increase: 0, ..sum })
            }
            Entry::Vacant(_) => others.entry(row.counter).or_insert(Sum { increase: 0, ..sum }),
        };
        *known = known.and(sum);
    }

    /// By counter; of each, so many namespaces as tables have rows.
    pub(super) fn rows(&self, top: usize, directory: &Directory) -> Vec<CounterRow> {
        Unseen::ALL.into_iter().flat_map(|counter| self.rows_of(counter, top, directory)).collect()
    }

    fn rows_of(&self, counter: Unseen, top: usize, directory: &Directory) -> Vec<CounterRow> {
        let Self { sums, others } = self;
        let sums = sums.iter().filter(|((of, _), _)| *of == counter);
        let mut sums: Vec<(Netns, Sum)> = sums.map(|((_, netns), sum)| (*netns, *sum)).collect();
        sums.sort_by_key(|(netns, sum)| (Reverse(sum.increase), *netns));
        let rest = sums.split_off(sums.len().min(top));
        let untold = others.get(&counter);
        let sum = rest.iter().map(|(_, sum)| *sum).chain(untold.copied()).reduce(Sum::and);
        let mut group = Group::others(By::Netns, Some(rest.len() as u64 + u64::from(untold.is_some())));
        group.is_partial = untold.is_some();
        let named = sums.iter().map(|(netns, sum)| row(counter, netns_group(*netns, directory), *sum));
        named.chain(sum.map(|sum| row(counter, group, sum))).collect()
    }
}

fn netns_group(netns: Netns, directory: &Directory) -> Group {
    Group::of(By::Netns, &netns, directory)
}

fn row(counter: Unseen, group: Group, sum: Sum) -> CounterRow {
    let Sum { increase, first_unix_ns, last_unix_ns } = sum;
    CounterRow { counter, group, increase, first_unix_ns, last_unix_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stream::Summary;
    use crate::study::report::{Analysis, Options, testing};

    #[test]
    fn sums_by_counter_and_namespace() {
        let mut analysis = Analysis::new(Options { top: 2, ..Options::default() });
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
            analysis.add_counter(&Increase { at, netns, counter, increase, over_ns: None }, &origin);
        }
        let rows = analysis.finish(&Summary::default()).counters;
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
