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

/// Most buckets.
const BUCKETS: u32 = 128;

/// Most groups of each kind in all buckets together, the current one excluded.
const GROUPS: usize = 8192;

/// Counts of the connections that ended in the last seconds, by the time of their end. A bucket is one second long, or
/// as long as 128 buckets need to cover the window. Memory is bounded: a finished bucket keeps its largest groups, and
/// all others as one.
///
/// Open connections belong to a moment and not to a bucket: count the current ones separately, and merge both.
#[derive(Clone, Debug)]
pub struct Window {
    /// In ns.
    width: i64,
    most: i64,
    directory: Directory,
    /// Buckets with connections, the oldest one first.
    buckets: VecDeque<Bucket>,
    /// Number of the newest possible bucket.
    now: i64,
    /// All finished buckets, if already merged.
    over: Option<Sums>,
    /// Number of the newest bucket when the directory was rebuilt.
    tidied: i64,
}

#[derive(Clone, Debug)]
struct Bucket {
    number: i64,
    sums: Sums,
    is_over: bool,
}

impl Window {
    /// A window of this many seconds, the current one included; 1 at least.
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

    /// Adds a connection that has ended. Open ones, and those that ended before the window, do not count.
    pub fn add(&mut self, connection: &Connection, origin: &Origin) {
        let Some(closed) = connection.closed_ns() else { return };
        let unix_ns = origin.context.clock.unix_ns(closed);
        // This may renumber the entries.
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

    /// Adds an increase that no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        if let Some((sums, directory)) = self.at(origin.context.clock.unix_ns(row.at)) {
            sums.counters.add(row, origin, directory);
        }
    }

    /// The counts for a time within the window. A new latest time begins a bucket.
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

    /// Sets the current Unix time in ns, and removes older buckets.
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
        // At most once for the length of the window: the names in use may be too many by themselves.
        if self.directory.is_crowded() && self.tidied <= oldest {
            self.tidy();
            self.tidied = now;
        }
    }

    /// Removes the names that no bucket uses.
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

    /// The counts of the whole window. Costs about as much as merging two buckets; once for each bucket, as much as
    /// merging all.
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

    /// The largest number of groups of any kind.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.sums.kept()).sum()
    }
}

impl Bucket {
    /// Reduces a finished bucket to its share of all groups.
    fn end(&mut self, buckets: i64) {
        if !self.is_over {
            self.is_over = true;
            self.sums.limit(usize::try_from(buckets).map_or(GROUPS, |buckets| GROUPS / buckets.max(2)));
        }
    }
}
