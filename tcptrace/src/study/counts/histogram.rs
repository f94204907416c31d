//! The distribution of durations, in little memory: buckets widen with the value.

use std::ops::{Deref, DerefMut};
use std::slice;

use super::change::Change;

/// Counts values in buckets, `1 << BITS` for each doubling. Their number is exact. A quantile is off by half a bucket
/// at most: 0.4 % with 7 bits, 1.6 % with 5. Smallest and largest value are exact until a value is removed, and bounds
/// within the bucket after that.
///
/// Two histograms are equal if their buckets are.
#[derive(Clone, Debug, Default)]
pub struct Histogram<const BITS: u32> {
    /// Index of the first bucket of `counts`.
    first: usize,
    /// Neither the first nor the last one is zero.
    counts: Counts,
    total: u64,
    min: u64,
    max: u64,
}

impl<const BITS: u32> PartialEq for Histogram<BITS> {
    fn eq(&self, other: &Self) -> bool {
        (self.first, self.total, &*self.counts) == (other.first, other.total, &*other.counts)
    }
}

impl<const BITS: u32> Eq for Histogram<BITS> {}

/// The counts of buckets in a row. Of the many histograms that there are, most have one bucket: that takes no memory of its
/// own.
#[derive(Clone, Debug)]
enum Counts {
    /// None if it is zero.
    One(u32),
    Many(Vec<u32>),
}

impl Default for Counts {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Deref for Counts {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::One(0) => &[],
            Self::One(count) => slice::from_ref(count),
            Self::Many(counts) => counts,
        }
    }
}

impl DerefMut for Counts {
    fn deref_mut(&mut self) -> &mut [u32] {
        match self {
            Self::One(0) => &mut [],
            Self::One(count) => slice::from_mut(count),
            Self::Many(counts) => counts,
        }
    }
}

impl Counts {
    /// The counts in a vector, which can grow and shrink.
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::Many(counts) => counts,
            Self::One(_) => self.to_vec(),
        }
    }
}

impl<const BITS: u32> Histogram<BITS> {
    /// Adds or removes a value.
    pub(super) fn change(&mut self, value: u64, change: Change) {
        match change {
            Change::In => self.add(value),
            Change::Out => self.remove(value),
        }
    }

    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        self.min = if self.total == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.total += 1;
        let slot = self.slot(place::<BITS>(value));
        *slot = slot.saturating_add(1);
    }

    /// Removes a value that was added.
    pub fn remove(&mut self, value: u64) {
        let slot = place::<BITS>(value).checked_sub(self.first).and_then(|at| self.counts.get_mut(at));
        if let Some(slot) = slot.filter(|slot| **slot > 0) {
            *slot -= 1;
            self.total -= 1;
            if *slot == 0 {
                self.trim();
            }
        }
    }

    /// Removes empty buckets at both ends.
    fn trim(&mut self) {
        let is_some = |count: &u32| *count > 0;
        let (Some(first), Some(last)) = (self.counts.iter().position(is_some), self.counts.iter().rposition(is_some))
        else {
            *self = Self::default();
            return;
        };
        let mut counts = std::mem::take(&mut self.counts).into_vec();
        if last + 1 < counts.len() {
            counts.truncate(last + 1);
            self.max = self.max.min(highest::<BITS>(self.first + last));
        }
        if first > 0 {
            counts.drain(..first);
            self.first += first;
            self.min = self.min.max(lowest::<BITS>(self.first));
        }
        self.counts = Counts::Many(counts);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        if other.total == 0 {
            return;
        }
        self.min = if self.total == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.total += other.total;
        for (place, count) in (other.first..).zip(other.counts.iter()) {
            if *count > 0 {
                let slot = self.slot(place);
                *slot = slot.saturating_add(*count);
            }
        }
    }

    fn slot(&mut self, place: usize) -> &mut u32 {
        if self.counts.is_empty() {
            self.first = place;
        }
        if place != self.first {
            self.widen(place);
        }
        match &mut self.counts {
            Counts::One(count) => count,
            Counts::Many(counts) => &mut counts[place - self.first],
        }
    }

    /// Makes room for another bucket.
    fn widen(&mut self, place: usize) {
        let mut counts = std::mem::take(&mut self.counts).into_vec();
        if place < self.first {
            counts.splice(0..0, std::iter::repeat_n(0, self.first - place));
            self.first = place;
        }
        if place - self.first >= counts.len() {
            counts.resize(place - self.first + 1, 0);
        }
        self.counts = Counts::Many(counts);
    }

    /// The number of values in a bucket.
    pub(super) fn at(&self, place: usize) -> u32 {
        place.checked_sub(self.first).and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }

    /// The range of buckets that can have values.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.counts.len()
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value.
    pub fn min(&self) -> Option<u64> {
        (self.total > 0).then_some(self.min)
    }

    /// The largest value.
    pub fn max(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max)
    }

    /// How many are at or above a value, or in its bucket.
    pub fn at_or_above(&self, value: u64) -> u64 {
        let from = place::<BITS>(value).saturating_sub(self.first);
        self.counts.get(from..).unwrap_or_default().iter().copied().map(u64::from).sum()
    }

    /// The mean, as exact as the quantiles.
    pub fn mean(&self) -> Option<u64> {
        let all = (self.first..).zip(self.counts.iter());
        let sum: u128 = all.map(|(place, count)| u128::from(middle::<BITS>(place)) * u128::from(*count)).sum();
        let mean = sum.checked_div(self.total.into())?;
        Some(u64::try_from(mean).unwrap_or(u64::MAX).clamp(self.min, self.max))
    }

    /// The smallest value that is not exceeded by this percentage of all values.
    pub fn percentile(&self, hundredths: u64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = (u128::from(self.total) * u128::from(hundredths)).div_ceil(100).max(1);
        let mut seen = 0_u128;
        for (place, count) in (self.first..).zip(self.counts.iter()) {
            seen += u128::from(*count);
            if seen >= rank {
                return Some(middle::<BITS>(place).clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }
}

/// The bucket of a value. Values below `1 << BITS` have one each.
pub(super) fn place<const BITS: u32>(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The middle value of a bucket.
pub(super) fn middle<const BITS: u32>(place: usize) -> u64 {
    lowest::<BITS>(place) + (1 << shift::<BITS>(place)) / 2
}

/// The smallest value of a bucket.
pub(super) fn lowest<const BITS: u32>(place: usize) -> u64 {
    let shift = shift::<BITS>(place);
    ((place - (shift << BITS)) as u64) << shift
}

/// The largest value of a bucket.
fn highest<const BITS: u32>(place: usize) -> u64 {
    lowest::<BITS>(place) + ((1 << shift::<BITS>(place)) - 1)
}

fn shift<const BITS: u32>(place: usize) -> usize {
    (place >> BITS).saturating_sub(1)
}

/// Bounds of the printed histogram: 1, 2, 5, 10, … from 1 µs to about 11 days, in ns.
const BOUNDS: [u64; 37] = {
    let mut bounds = [0; 37];
    let (mut place, mut decade) = (0, 1_000);
    while place < bounds.len() {
        bounds[place] = decade * [1, 2, 5][place % 3];
        if place % 3 == 2 {
            decade *= 10;
        }
        place += 1;
    }
    bounds
};

/// The number of durations in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Lower bound, inclusive, in ns.
    pub from_ns: u64,
    /// Upper bound, exclusive; `None` if there is none.
    pub to_ns: Option<u64>,
    /// Durations that are known exactly.
    pub exact: u64,
    /// Durations whose lower bound is in the range.
    pub at_least: u64,
}

impl Bin {
    /// Whether the range has no durations.
    pub fn is_empty(&self) -> bool {
        self.exact == 0 && self.at_least == 0
    }
}

/// Counts durations between round bounds. Exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bins {
    exact: [u64; BOUNDS.len() + 1],
    at_least: [u64; BOUNDS.len() + 1],
}

impl Default for Bins {
    fn default() -> Self {
        Self { exact: [0; BOUNDS.len() + 1], at_least: [0; BOUNDS.len() + 1] }
    }
}

impl Bins {
    /// Adds a duration.
    pub fn add(&mut self, ns: u64, is_at_least: bool) {
        self.change(ns, is_at_least, Change::In);
    }

    /// Adds or removes a duration.
    pub(super) fn change(&mut self, ns: u64, is_at_least: bool, change: Change) {
        let counts = if is_at_least { &mut self.at_least } else { &mut self.exact };
        change.count(&mut counts[BOUNDS.partition_point(|bound| *bound <= ns)]);
    }

    /// Adds other bins.
    pub fn merge(&mut self, other: &Self) {
        self.exact.iter_mut().zip(other.exact).for_each(|(mine, its)| *mine += its);
        self.at_least.iter_mut().zip(other.at_least).for_each(|(mine, its)| *mine += its);
    }

    /// From the first bin with durations to the last one.
    pub fn rows(&self) -> Vec<Bin> {
        let has_any = |place: &usize| self.exact[*place] + self.at_least[*place] > 0;
        let mut all = 0..self.exact.len();
        let (Some(first), last) = (all.find(has_any), all.rfind(has_any)) else { return Vec::new() };
        let row = |place: usize| Bin {
            from_ns: place.checked_sub(1).map_or(0, |before| BOUNDS[before]),
            to_ns: BOUNDS.get(place).copied(),
            exact: self.exact[place],
            at_least: self.at_least[place],
        };
        (first..=last.unwrap_or(first)).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<const BITS: u32>(values: &[u64]) -> Histogram<BITS> {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value));
        histogram
    }

    #[test]
    fn nothing_has_no_quantiles() {
        let none = of::<7>(&[]);
        assert_eq!((none.total(), none.min(), none.max(), none.percentile(50)), (0, None, None, None));
    }

    #[test]
    fn one_value_is_every_quantile() {
        let one = of::<3>(&[61_234_567_890]);
        for hundredths in [0, 1, 50, 99, 100] {
            assert_eq!(one.percentile(hundredths), Some(61_234_567_890));
        }
    }

    #[test]
    fn those_at_or_above_a_value() {
        let values = of::<5>(&[1, 999_000_000, 1_000_000_000, 3_000_000_000]);
        let counts = [0, 2, 900_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000].map(|it| values.at_or_above(it));
        // 999 ms and 1 s have one bucket.
        assert_eq!(counts, [4, 3, 3, 3, 1, 0]);
        assert_eq!(of::<5>(&[]).at_or_above(0), 0);
    }

    #[test]
    fn the_mean_is_near() {
        assert_eq!((of::<5>(&[]).mean(), of::<5>(&[7]).mean(), of::<5>(&[1, 3]).mean()), (None, Some(7), Some(2)));
        let mean = of::<5>(&[1_000, 2_000, 1_000_000]).mean().expect("not empty");
        assert!(mean.abs_diff(334_333) < 334_333 / 60, "{mean}");
    }

    #[test]
    fn bins_have_round_bounds() {
        let mut bins = Bins::default();
        for ns in [999_999, 1_000_000, 1_999_999, 60_000_000_000] {
            bins.add(ns, false);
        }
        bins.add(1_500_000, true);
        let rows = bins.rows();
        assert_eq!(rows[0], Bin { from_ns: 500_000, to_ns: Some(1_000_000), exact: 1, at_least: 0 });
        assert_eq!(rows[1], Bin { from_ns: 1_000_000, to_ns: Some(2_000_000), exact: 2, at_least: 1 });
        assert_eq!(rows[2], Bin { from_ns: 2_000_000, to_ns: Some(5_000_000), exact: 0, at_least: 0 });
        assert_eq!(
            rows.last(),
            Some(&Bin { from_ns: 50_000_000_000, to_ns: Some(100_000_000_000), exact: 1, at_least: 0 })
        );
        assert_eq!(rows.len(), 16);
    }

    #[test]
    fn bins_have_room_for_everything() {
        let mut bins = Bins::default();
        bins.add(0, false);
        bins.add(u64::MAX, false);
        let rows = bins.rows();
        assert_eq!(rows[0], Bin { from_ns: 0, to_ns: Some(1_000), exact: 1, at_least: 0 });
        assert_eq!(rows.last(), Some(&Bin { from_ns: BOUNDS[36], to_ns: None, exact: 1, at_least: 0 }));
        assert!(Bins::default().rows().is_empty());
    }

    #[test]
    fn the_largest_one_is_not_that_which_was_taken_out() {
        let mut histogram = of::<5>(&[7, 1_000, 1_000_000]);
        histogram.remove(1_000_000);
        let max = histogram.max().expect("not empty");
        assert!((1_000..1_032).contains(&max), "{max}");
        histogram.remove(7);
        let min = histogram.min().expect("not empty");
        assert!((969..=1_000).contains(&min), "{min}");
        histogram.remove(1_000);
        assert_eq!((histogram.total(), histogram.min(), histogram.max()), (0, None, None));
        histogram.add(3);
        assert_eq!((histogram.min(), histogram.max()), (Some(3), Some(3)));
    }

    proptest! {
        /// Removed values leave no trace, except in the last digits of the smallest and the largest value.
        #[test]
        fn removing_is_not_adding(one: Vec<u64>, other: Vec<u64>) {
            let rest = of::<5>(&one);
            let mut removed = of::<5>(&[&one[..], &other[..]].concat());
            other.iter().for_each(|value| removed.remove(*value));
            prop_assert_eq!(&removed, &rest);
            for (found, expected) in [(removed.min(), rest.min()), (removed.max(), rest.max())] {
                prop_assert_eq!(found.map(place::<5>), expected.map(place::<5>));
            }
            prop_assert!(removed.min() <= rest.min() && removed.max() >= rest.max());
        }

        #[test]
        fn quantiles_are_near(mut values in proptest::collection::vec(any::<u64>().prop_map(|v| v >> (v % 60)), 1..50), hundredths in 1_u64..=100) {
            let histogram = of::<3>(&values);
            values.sort_unstable();
            let exact = values[(values.len() as u64 * hundredths).div_ceil(100) as usize - 1];
            let found = histogram.percentile(hundredths).expect("not empty");
            prop_assert!(found.abs_diff(exact) <= exact / 16 + 1, "{found} for {exact}");
        }

        #[test]
        fn merging_is_adding(one: Vec<u64>, other: Vec<u64>) {
            let mut merged = of::<7>(&one);
            merged.merge(&of(&other));
            let both = of::<7>(&[one, other].concat());
            prop_assert_eq!((merged.total(), merged.min(), merged.max()), (both.total(), both.min(), both.max()));
            for hundredths in 0..=100 {
                prop_assert_eq!(merged.percentile(hundredths), both.percentile(hundredths));
            }
        }
    }
}
