//! The counts of the last seconds.

use std::collections::VecDeque;

use super::Counts;
use super::facts::Facts;
use super::sums::Sums;
use super::who::{Directory, Translator};
use crate::model::counters::Increase;
use crate::model::row::Connection;
use crate::model::stream::Origin;

const SECOND: i64 = 1_000_000_000;

/// In how many buckets at most.
const BUCKETS: u32 = 128;

/// How many groups of each kind all buckets together keep, but for the last one.
const GROUPS: usize = 8192;

/// Counts of the connections that ended in the last seconds, by the time of their ends: in buckets of one second, or of
/// as many as it takes for no more than 128 of them. Memory is bounded: of a bucket that is over, the largest groups are
/// kept, and all others as one.
///
/// Connections that are open belong to a moment and not to a bucket: count those of this moment on their own, and merge
/// both.
#[derive(Clone, Debug)]
pub struct Window {
    /// In ns.
    width: i64,
    most: i64,
    directory: Directory,
    /// Those that hold something, the oldest one first.
    buckets: VecDeque<Bucket>,
    /// The number of the newest one that there may be.
    now: i64,
    /// All that are over, if they have been merged.
    over: Option<Sums>,
    /// The number of the newest bucket when the directory was made anew.
    tidied: i64,
}

#[derive(Clone, Debug)]
struct Bucket {
    number: i64,
    sums: Sums,
    is_over: bool,
}

impl Window {
    /// Of so many seconds, the current one included; at least that.
    pub fn of(seconds: u32) -> Self {
        let width = seconds.div_ceil(BUCKETS).max(1);
        Self {
            width: i64::from(width) * SECOND,
            most: seconds.div_ceil(width).max(1).into(),
            directory: Directory::default(),
            buckets: VecDeque::new(),
            now: i64::MIN,
            over: None,
            tidied: i64::MIN,
        }
    }

    /// Counts in a connection that has ended. Others, and one that ended before the last seconds, do not count.
    pub fn add(&mut self, connection: &Connection, origin: &Origin) {
        let Some(closed) = connection.closed_ns() else { return };
        let unix_ns = origin.context.clock.unix_ns(closed);
        // This may give other numbers to what is kept.
        self.turn(unix_ns);
        let identity = &connection.identity;
        let Self { directory, buckets, .. } = self;
        let whose = directory.whose(identity, origin, |machine| {
            let known = buckets.iter().map(|bucket| bucket.sums.knows_ends(machine, identity));
            known.fold((false, false), |all, these| (all.0 | these.0, all.1 | these.1))
        });
        if let Some((sums, directory)) = self.at(unix_ns) {
            sums.add(&Facts::of(connection), whose);
            sums.name_netns(directory, origin);
        }
    }

    /// Counts in what no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        if let Some((sums, directory)) = self.at(origin.context.clock.unix_ns(row.at)) {
            sums.counters.add(row, origin, directory);
        }
    }

    /// The counts of a time, if that is in the last seconds. A later time than any begins a bucket.
    fn at(&mut self, unix_ns: i64) -> Option<(&mut Sums, &mut Directory)> {
        self.turn(unix_ns);
        let number = unix_ns.div_euclid(self.width);
        if number <= self.now.saturating_sub(self.most) {
            return None;
        }
        let after = self.buckets.iter().rposition(|bucket| bucket.number <= number).map_or(0, |place| place + 1);
        let known = after.checked_sub(1).filter(|place| self.buckets[*place].number == number);
        let place = known.unwrap_or_else(|| {
            self.buckets.insert(after, Bucket { number, sums: Sums::default(), is_over: false });
            after
        });
        if number < self.now {
            // It comes late.
            self.over = None;
            self.buckets[place].end(self.most);
        }
        Some((&mut self.buckets[place].sums, &mut self.directory))
    }

    /// The clock shows this Unix time in ns: what is too old is forgotten.
    pub fn turn(&mut self, unix_ns: i64) {
        let now = unix_ns.div_euclid(self.width);
        if now <= self.now {
            return;
        }
        self.now = now;
        self.over = None;
        let oldest = now.saturating_sub(self.most);
        while self.buckets.front().is_some_and(|bucket| bucket.number <= oldest) {
            self.buckets.pop_front();
        }
        self.buckets.iter_mut().for_each(|bucket| bucket.end(self.most));
        // At most once in all the time that is kept: what is needed may be too much by itself.
        if self.directory.is_crowded() && self.tidied <= oldest {
            self.tidy();
            self.tidied = now;
        }
    }

    /// Forgets the names that no bucket needs any more.
    fn tidy(&mut self) {
        let old = std::mem::take(&mut self.directory);
        let mut names = Some(Translator::new(&old, &mut self.directory));
        for bucket in &mut self.buckets {
            let sums = std::mem::take(&mut bucket.sums);
            bucket.sums.merge(&sums, &mut names);
            bucket.is_over = false;
            bucket.end(self.most);
        }
    }

    /// All that was counted in the last seconds. Costs about as much as merging two buckets, and once in the time of a
    /// bucket as much as merging all.
    pub fn counts(&mut self) -> Counts {
        let Self { directory, buckets, over, .. } = self;
        let over = over.get_or_insert_with(|| {
            let mut sums = Sums::default();
            buckets.iter().filter(|bucket| bucket.is_over).for_each(|bucket| sums.merge(&bucket.sums, &mut None));
            sums
        });
        let mut counts = Counts::default();
        let mut names = Some(Translator::new(directory, &mut counts.directory));
        counts.sums.merge(over, &mut names);
        let current = buckets.iter().filter(|bucket| !bucket.is_over);
        current.for_each(|bucket| counts.sums.merge(&bucket.sums, &mut names));
        counts
    }

    /// How many groups are kept, of each kind most.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.sums.kept()).sum()
    }
}

impl Bucket {
    /// From now on it has its share of all groups.
    fn end(&mut self, buckets: i64) {
        if !self.is_over {
            self.is_over = true;
            self.sums.limit(usize::try_from(buckets).map_or(GROUPS, |buckets| GROUPS / buckets.max(2)));
        }
    }
}
