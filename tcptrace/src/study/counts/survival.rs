//! How long sockets stay in a state, though most stays were not seen whole.

use super::change::Change;
use super::histogram::{Histogram, lowest, middle, place};
use crate::model::row::Held;

/// Where fewer of those that are taken to live on were still watched than one in so many, nothing is concluded: a few
/// old sockets would decide for all.
const WATCHED: f64 = 10.0;

/// Fewer than this conclude nothing either, unless they are half of those that are taken to live on.
const FEW: f64 = 10.0;

/// A quantile is exact if unknown beginnings can move it by no more than this part of it.
const TOLERANCE: u64 = 32;

/// What was seen of one stay in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How long it had lasted already when it was seen first, in ns: 0 from its beginning on; `None` where that is
    /// unknown.
    pub from_ns: Option<u64>,
    /// How long it had lasted when it was seen last, in ns; where its beginning is unknown, how long it is known to have
    /// lasted by then.
    pub to_ns: u64,
    /// Whether that was its end. Otherwise it went on, or was lost sight of.
    pub ended: bool,
}

/// How the lengths of stays are spread, of which many were seen in part: a product-limit estimate (Kaplan and Meier,
/// 1958) in buckets.
///
/// Stays that are not over are right-censored. They are among those at risk as long as they were watched, and their
/// further course is taken to be that of the others that lasted as long. So a leak makes a median longer, never
/// shorter. This supposes that watching stops for reasons that have nothing to do with the length of the stay, as the
/// end of a recording does.
///
/// Stays that were first seen at a known age are left-truncated. They are at risk from that age on only: shorter ones
/// had no chance to be seen.
///
/// Stays of which the beginning is unknown, since they are older than the recording or an event was lost, have an unknown
/// age all the time they are watched: the product-limit estimate has no place for them. They may not be left out either,
/// or a leak that is older than the recording would not show. So they bound the result:
///
/// - From below: they lasted as long as was seen, and not longer. One whose end was seen ends at that length; one that
///   goes on is censored there. Every true length is at least that, so the quantile is too.
/// - From above: they never end.
///
/// Where both bounds agree to within 3 %, the quantile is [`Held::Exactly`]. Otherwise the lower one is
/// [`Held::AtLeast`].
///
/// A quantile beyond what was seen is [`Held::AtLeast`] too. What was seen ends where too few of those that are taken
/// to live on were still watched: fewer than a tenth, or fewer than ten and not half of them.
///
/// Memory is bounded: each doubling of length has `1 << BITS` buckets, and a length is off by half a bucket at most, 0.4 %
/// with 7 bits and 1.6 % with 5. A lower bound is the lower end of its bucket, so that it stays one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survival<const BITS: u32> {
    /// Ends of stays of which the age is known.
    ended: Histogram<BITS>,
    /// When others of these were seen last.
    censored: Histogram<BITS>,
    /// When those were seen first that had begun before.
    entered: Histogram<BITS>,
    /// Ends of stays of unknown age.
    late_ended: Histogram<BITS>,
    /// When others of these were seen last.
    late_censored: Histogram<BITS>,
}

/// What becomes of stays of unknown age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// They lasted as long as was seen.
    Shortest,
    /// They never end.
    Longest,
}

/// Where a curve falls to a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fall {
    /// In a bucket.
    At(usize),
    /// Beyond the last bucket that says something, if there is one.
    Beyond(Option<usize>),
}

impl<const BITS: u32> Survival<BITS> {
    /// Counts a stay in.
    pub fn add(&mut self, seen: Seen) {
        self.of(&seen).add(seen.to_ns);
        if let Some(from) = seen.from_ns.filter(|from| *from > 0) {
            self.entered.add(from.min(seen.to_ns));
        }
    }

    /// Counts a stay in, or takes it out.
    pub(super) fn change(&mut self, seen: Seen, change: Change) {
        match change {
            Change::In => self.add(seen),
            Change::Out => self.remove(seen),
        }
    }

    /// Takes out a stay that was counted in: one that goes on, for instance, before it is counted anew.
    pub fn remove(&mut self, seen: Seen) {
        self.of(&seen).remove(seen.to_ns);
        if let Some(from) = seen.from_ns.filter(|from| *from > 0) {
            self.entered.remove(from.min(seen.to_ns));
        }
    }

    fn of(&mut self, seen: &Seen) -> &mut Histogram<BITS> {
        match (seen.from_ns, seen.ended) {
            (Some(_), true) => &mut self.ended,
            (Some(_), false) => &mut self.censored,
            (None, true) => &mut self.late_ended,
            (None, false) => &mut self.late_censored,
        }
    }

    /// Counts in what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        self.ended.merge(&other.ended);
        self.censored.merge(&other.censored);
        self.entered.merge(&other.entered);
        self.late_ended.merge(&other.late_ended);
        self.late_censored.merge(&other.late_censored);
    }

    /// How many stays it has counted.
    pub fn total(&self) -> u64 {
        self.stays().iter().map(|stays| stays.total()).sum()
    }

    /// Those that were seen to their end, and of which the age is known.
    pub fn known(&self) -> &Histogram<BITS> {
        &self.ended
    }

    /// The longest of those that were seen in part, as far as they were seen.
    pub fn longest_part(&self) -> Option<u64> {
        [&self.censored, &self.late_ended, &self.late_censored].iter().filter_map(|stays| stays.max()).max()
    }

    /// All stays, each once, by when they were seen last.
    fn stays(&self) -> [&Histogram<BITS>; 4] {
        [&self.ended, &self.censored, &self.late_ended, &self.late_censored]
    }

    /// The length that so many hundredths of all stays do not exceed.
    pub fn quantile(&self, hundredths: u64) -> Held {
        let share = 1.0 - hundredths as f64 / 100.0;
        let shortest = match self.falls_to(share, Late::Shortest) {
            Fall::At(shortest) => shortest,
            Fall::Beyond(last) => return last.map_or(Held::Unknown, |last| at_least(self.bound(last))),
        };
        let Some(length) = self.length(shortest) else { return at_least(self.bound(shortest)) };
        match self.falls_to(share, Late::Longest) {
            Fall::At(longest)
                if middle::<BITS>(longest) <= middle::<BITS>(shortest).saturating_add(length / TOLERANCE) =>
            {
                Held::Exactly(length)
            }
            _ => at_least(self.bound(shortest)),
        }
    }

    /// Where the share of stays that last longer falls to this.
    fn falls_to(&self, share: f64, late: Late) -> Fall {
        let late_ones = self.late_ended.total() + self.late_censored.total();
        // Those at risk; those that are not yet; and those that are taken to live on, and are not watched any more.
        let mut at_risk = (self.total() - self.entered.total()) as f64;
        let mut waiting = self.entered.total() as f64;
        let mut unwatched = 0.0;
        let mut survive = 1.0;
        let mut last = None;
        for place in self.places() {
            let entered = f64::from(self.entered.at(place));
            at_risk += entered;
            waiting -= entered;
            let censored = f64::from(self.censored.at(place));
            let [late_ended, late_censored] = match late {
                Late::Shortest => [&self.late_ended, &self.late_censored].map(|stays| f64::from(stays.at(place))),
                Late::Longest => [0.0; 2],
            };
            let ended = f64::from(self.ended.at(place)) + late_ended;
            if ended + censored + late_censored == 0.0 {
                continue;
            }
            let watched = if late == Late::Longest { at_risk - late_ones as f64 } else { at_risk };
            if !is_enough(watched, watched + waiting + unwatched) {
                return Fall::Beyond(last);
            }
            survive *= 1.0 - ended / at_risk;
            // Products of many factors are off in their last digits.
            if survive <= share + 1e-9 && ended > 0.0 {
                return Fall::At(place);
            }
            unwatched = unwatched * (1.0 - ended / at_risk) + censored + late_censored;
            at_risk -= ended + censored + late_censored;
            last = Some(place);
        }
        Fall::Beyond(last)
    }

    /// The buckets that may hold something.
    fn places(&self) -> std::ops::Range<usize> {
        let [one, other, third, fourth] = self.stays().map(Histogram::places);
        let all = [one, other, third, fourth, self.entered.places()];
        let all = all.iter().filter(|places| !places.is_empty());
        let first = all.clone().map(|places| places.start).min().unwrap_or(0);
        first..all.map(|places| places.end).max().unwrap_or(first)
    }

    /// The length in a bucket where stays of known age end.
    fn length(&self, at: usize) -> Option<u64> {
        let (min, max) = (self.ended.min()?, self.ended.max()?);
        (self.ended.at(at) > 0).then(|| middle::<BITS>(at).clamp(min, max))
    }

    /// What all stays of a bucket, and all longer ones, have reached.
    fn bound(&self, at: usize) -> u64 {
        let stays = self.stays();
        let shortest = stays.iter().filter(|stays| stays.at(at) > 0).filter_map(|stays| stays.min()).min();
        let shortest = shortest.filter(|min| place::<BITS>(*min) == at);
        shortest.unwrap_or_else(|| lowest::<BITS>(at))
    }
}

/// Whether those that are watched can stand for all that are taken to live on.
fn is_enough(watched: f64, alive: f64) -> bool {
    watched * WATCHED >= alive && (watched >= FEW || watched * 2.0 >= alive)
}

/// 0 says nothing.
fn at_least(ns: u64) -> Held {
    if ns > 0 { Held::AtLeast(ns) } else { Held::Unknown }
}

#[cfg(test)]
mod tests;
