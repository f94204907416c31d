//! Connections by owner and end, with a limit on the number of groups.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use super::change::Change;

/// Most groups, unless fewer are requested. When there are more, the smaller half is folded into the others.
pub(super) const MOST: usize = 4096;

/// A figure that connections are added to.
pub(super) trait Merge: Default {
    /// Adds another figure.
    fn merge(&mut self, other: &Self);

    /// How many connections it has.
    fn size(&self) -> u64;
}

/// Counts by key.
#[derive(Clone, Debug)]
pub(super) struct Groups<K, T> {
    places: HashMap<K, usize, FixedState>,
    groups: Vec<(K, KeptGroup<T>)>,
    most: usize,
    last: usize,
    others: T,
    /// How many groups were folded into the others; groups that returned and were folded again count repeatedly.
    folded: u64,
    /// How often groups were folded into the others.
    epoch: u32,
}

/// A group with its own counts.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptGroup<T> {
    pub(super) tally: T,
    /// Its earlier counts may have been folded into the others.
    pub(super) is_partial: bool,
    /// It exists since this epoch: earlier counts are among the others.
    since: u32,
}

impl<K, T: Default> Default for Groups<K, T> {
    fn default() -> Self {
        Self {
            places: HashMap::default(),
            groups: Vec::new(),
            most: MOST,
            last: 0,
            others: T::default(),
            folded: 0,
            epoch: 0,
        }
    }
}

impl<K: Copy + Eq + Hash + Ord, T: Merge> Groups<K, T> {
    /// The epoch for a receipt.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Changes the counts of a key: adds, or removes what was added at an epoch.
    pub(super) fn change(&mut self, key: K, counted_at: Option<u32>, apply: impl FnOnce(&mut T, Change)) {
        match counted_at {
            None => apply(self.of(key), Change::In),
            Some(epoch) => self.take(&key, epoch, |tally| apply(tally, Change::Out)),
        }
    }

    /// The counts of a key.
    fn of(&mut self, key: K) -> &mut T {
        // Consecutive connections are often alike.
        if self.groups.get(self.last).is_none_or(|(last, _)| *last != key) {
            self.last = self.place(key);
        }
        &mut self.groups[self.last].1.tally
    }

    /// Removes from the group, or from the others if the group was folded since. Removes an empty group.
    fn take(&mut self, key: &K, epoch: u32, take: impl FnOnce(&mut T)) {
        let place = self.places.get(key).copied();
        let Some(place) = place.filter(|place| self.groups[*place].1.since <= epoch) else {
            take(&mut self.others);
            if self.others.size() == 0 {
                self.forget_others();
            }
            return;
        };
        let tally = &mut self.groups[place].1.tally;
        take(tally);
        if tally.size() == 0 {
            self.places.remove(key);
            self.groups.swap_remove(place);
            if let Some((moved, _)) = self.groups.get(place) {
                self.places.insert(*moved, place);
            }
        }
    }

    fn forget_others(&mut self) {
        self.others = T::default();
        self.folded = 0;
        self.groups.iter_mut().for_each(|(_, kept)| kept.is_partial = false);
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// How many groups have their own counts.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The most recently changed group.
    pub(super) fn last(&self) -> Option<(&K, &T)> {
        self.groups.get(self.last).map(|(key, kept)| (key, &kept.tally))
    }

    fn place(&mut self, key: K) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.groups.len() >= self.most {
            self.fold(self.most / 2);
        }
        self.push(key)
    }

    fn push(&mut self, key: K) -> usize {
        let place = self.groups.len();
        let kept = KeptGroup { tally: T::default(), is_partial: self.folded > 0, since: self.epoch };
        self.groups.push((key, kept));
        self.places.insert(key, place);
        place
    }

    /// Folds all but `kept` groups into the others.
    fn fold(&mut self, kept: usize) {
        self.groups
            .sort_unstable_by(|one, other| other.1.tally.size().cmp(&one.1.tally.size()).then(one.0.cmp(&other.0)));
        let small = self.groups.split_off(kept.min(self.groups.len()));
        self.folded += small.len() as u64;
        self.epoch += 1;
        small.iter().for_each(|(_, kept)| self.others.merge(&kept.tally));
        self.places = self.groups.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect();
        self.last = 0;
    }

    /// Sets the limit of groups.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
        if self.groups.len() > most {
            self.fold(most);
        }
        self.groups.shrink_to_fit();
    }

    /// Adds other groups, after translating their keys.
    pub(super) fn merge(&mut self, other: &Self, mut translate: impl FnMut(K) -> K) {
        let mut is_whole = vec![other.folded == 0; self.groups.len()];
        for (key, its) in &other.groups {
            let key = translate(*key);
            // The totals of both decide which groups are kept.
            let known = self.places.get(&key).copied();
            let place = known.unwrap_or_else(|| self.push(key));
            self.groups[place].1.tally.merge(&its.tally);
            is_whole.resize(self.groups.len(), true);
            is_whole[place] = !its.is_partial;
        }
        self.groups.iter_mut().zip(is_whole).for_each(|((_, kept), is_whole)| kept.is_partial |= !is_whole);
        if other.folded > 0 {
            self.others.merge(&other.others);
            self.folded += other.folded;
        }
        if self.groups.len() > self.most {
            self.fold(self.most);
        }
    }

    /// The keys and their counts.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.groups.iter().map(|(key, kept)| (key, &kept.tally))
    }

    /// The largest groups by `size`, at most `most`, and all others as one: their number, a lower bound if groups were
    /// folded, and their counts.
    pub(super) fn top(&self, most: usize, size: impl Fn(&T) -> u64) -> Top<'_, K, T> {
        let mut rows: Vec<&(K, KeptGroup<T>)> = self.groups.iter().filter(|(_, kept)| size(&kept.tally) > 0).collect();
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

/// The largest groups, and the rest.
pub(super) struct Top<'g, K, T> {
    pub(super) rows: Vec<&'g (K, KeptGroup<T>)>,
    pub(super) others: Option<Others<T>>,
}

/// Groups without a row of their own.
pub(super) struct Others<T> {
    pub(super) groups: u64,
    /// Their number is a lower bound: folded groups may have returned, and be counted twice.
    pub(super) has_folded: bool,
    pub(super) tally: T,
}
