//! How long sockets stay in a state, although most stays were not seen completely.

use super::change::Change;
use super::histogram::{Histogram, lowest, middle, place};
use crate::model::row::Held;

/// No result if fewer than one in this many stays that presumably last are still observed: a few old sockets would
/// decide for all.
const WATCHED: f64 = 10.0;

/// No result below this number of observed stays either, unless it is half of those that presumably last.
const FEW: f64 = 10.0;

/// A quantile is exact if unknown beginnings move it by no more than one part in this many.
const TOLERANCE: u64 = 32;

/// What was observed of one stay in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its age when it was first observed, in ns: 0 if it was observed from its beginning on, `None` if unknown.
    pub from_ns: Option<u64>,
    /// Its age when it was last observed, in ns; if its beginning is unknown, a lower bound of that age.
    pub to_ns: u64,
    /// Whether the last observation was its end. Otherwise the stay went on, or was lost.
    pub ended: bool,
}

/// The distribution of stays, many of which were observed in part: a product-limit estimate (Kaplan and Meier, 1958) in
/// buckets.
///
/// Stays that have not ended are right-censored. They are at risk as long as they were observed, and presumably go on
/// as other stays of that length did. So a leak makes a median longer, never shorter. This assumes that observation
/// stops for reasons unrelated to the length of the stay, such as the end of a recording.
///
/// Stays that were first observed at a known age are left-truncated. They are at risk from that age on only: shorter
/// stays could not be observed.
///
/// The beginning of a stay is unknown if it predates the recording or an event was lost. Its age is then unknown all
/// the time, and the product-limit estimate has no place for it. Leaving such stays out would hide a leak that predates
/// the recording. So they bound the result:
///
/// - From below: they lasted only as long as observed. A stay whose end was seen ends at that length; one that goes on
///   is censored there. Every true length is at least that, and so is the quantile.
/// - From above: they never end.
///
/// If both bounds agree within 3 %, the quantile is [`Held::Exactly`]. Otherwise the lower bound is [`Held::AtLeast`].
///
/// A quantile beyond the observed range is [`Held::AtLeast`] too. The range ends where too few of the stays that
/// presumably last are observed: fewer than a tenth, or fewer than ten and less than half.
///
/// Memory is bounded: each doubling of length has `1 << BITS` buckets. A length is off by half a bucket at most, 0.4 %
/// with 7 bits and 1.6 % with 5. A lower bound is the lower end of its bucket, so that it stays one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survival<const BITS: u32> {
    /// Ends of stays with known age.
    ended: Histogram<BITS>,
    /// Last observations of the other stays with known age.
    censored: Histogram<BITS>,
    /// First observations of stays with known age that had begun earlier.
    entered: Histogram<BITS>,
    /// Ends of stays with unknown age.
    late_ended: Histogram<BITS>,
    /// Last observations of the other stays with unknown age.
    late_censored: Histogram<BITS>,
}

/// An assumption about stays of unknown age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// They lasted only as long as observed.
    Shortest,
    /// They never end.
    Longest,
}

/// Where a curve falls to a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fall {
    /// In a bucket.
    At(usize),
    /// Beyond the last bucket with a result, if there is one.
    Beyond(Option<usize>),
}

impl<const BITS: u32> Survival<BITS> {
    /// Adds a stay.
    pub fn add(&mut self, seen: Seen) {
        self.of(&seen).add(seen.to_ns);
        if let Some(from) = seen.from_ns.filter(|from| *from > 0) {
            self.entered.add(from.min(seen.to_ns));
        }
    }

    /// Adds or removes a stay.
    pub(super) fn change(&mut self, seen: Seen, change: Change) {
        match change {
            Change::In => self.add(seen),
            Change::Out => self.remove(seen),
        }
    }

    /// Removes a stay that was added: for instance, one that goes on, before it is added again.
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

    /// Adds other stays.
    pub fn merge(&mut self, other: &Self) {
        self.ended.merge(&other.ended);
        self.censored.merge(&other.censored);
        self.entered.merge(&other.entered);
        self.late_ended.merge(&other.late_ended);
        self.late_censored.merge(&other.late_censored);
    }

    /// The number of stays.
    pub fn total(&self) -> u64 {
        self.stays().iter().map(|stays| stays.total()).sum()
    }

    /// Stays with known age and end.
    pub fn known(&self) -> &Histogram<BITS> {
        &self.ended
    }

    /// The longest of the stays that were observed in part, as far as they were observed.
    pub fn longest_part(&self) -> Option<u64> {
        [&self.censored, &self.late_ended, &self.late_censored].iter().filter_map(|stays| stays.max()).max()
    }

    /// All stays, each once, by their last observation.
    fn stays(&self) -> [&Histogram<BITS>; 4] {
        [&self.ended, &self.censored, &self.late_ended, &self.late_censored]
    }

    /// The length that this percentage of all stays does not exceed.
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

    /// Where the share of longer stays falls to `share`.
    fn falls_to(&self, share: f64, late: Late) -> Fall {
        let late_ones = self.late_ended.total() + self.late_censored.total();
        // Stays at risk; stays that enter later; and stays that presumably last, but are no longer observed.
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
            // Products of many factors have rounding errors.
            if survive <= share + 1e-9 && ended > 0.0 {
                return Fall::At(place);
            }
            unwatched = unwatched * (1.0 - ended / at_risk) + censored + late_censored;
            at_risk -= ended + censored + late_censored;
            last = Some(place);
        }
        Fall::Beyond(last)
    }

    /// The range of buckets that can have stays.
    fn places(&self) -> std::ops::Range<usize> {
        let [one, other, third, fourth] = self.stays().map(Histogram::places);
        let all = [one, other, third, fourth, self.entered.places()];
        let all = all.iter().filter(|places| !places.is_empty());
        let first = all.clone().map(|places| places.start).min().unwrap_or(0);
        first..all.map(|places| places.end).max().unwrap_or(first)
    }

    /// The length for a bucket with ends of stays of known age.
    fn length(&self, at: usize) -> Option<u64> {
        let (min, max) = (self.ended.min()?, self.ended.max()?);
        (self.ended.at(at) > 0).then(|| middle::<BITS>(at).clamp(min, max))
    }

    /// A lower bound for the stays of a bucket and all longer ones.
    fn bound(&self, at: usize) -> u64 {
        let stays = self.stays();
        let shortest = stays.iter().filter(|stays| stays.at(at) > 0).filter_map(|stays| stays.min()).min();
        let shortest = shortest.filter(|min| place::<BITS>(*min) == at);
        shortest.unwrap_or_else(|| lowest::<BITS>(at))
    }
}

/// Whether the observed stays can represent all that presumably last.
fn is_enough(watched: f64, alive: f64) -> bool {
    watched * WATCHED >= alive && (watched >= FEW || watched * 2.0 >= alive)
}

/// 0 means nothing is known.
fn at_least(ns: u64) -> Held {
    if ns > 0 { Held::AtLeast(ns) } else { Held::Unknown }
}

#[cfg(test)]
mod tests;
