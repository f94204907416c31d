//! The number of sockets in each state over time. The total duration is unknown before the end.

use std::ops::Range;

use super::rows::{Peak, Point, per_second};
use crate::model::tcp::State;
use crate::study::counts::TRACKED;

/// Number of buckets.
const SLOTS: usize = 4096;

/// Initial width of a bucket, in ns: doubled nine times it is 1 s.
const NARROWEST: i64 = 1_953_125;

/// Shortest time for a rate, in ns.
const SECOND: i64 = 1_000_000_000;

/// Times beyond this are damage; within it, no sum overflows.
const FARTHEST: i64 = 1 << 61;

fn sane(unix_ns: i64) -> i64 {
    unix_ns.clamp(-FARTHEST, FARTHEST)
}

/// An event of a connection at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Opened,
    Ended,
    Failed,
}

/// Counts sockets in buckets of equal width. The width doubles whenever the time exceeds them.
#[derive(Clone, Debug)]
pub(super) struct Series {
    width: i64,
    /// How often it was doubled.
    doublings: u32,
    /// Number of the first bucket, counted from the Unix epoch.
    base: i64,
    /// Buckets in use.
    used: Range<i64>,
    moments: [Vec<u64>; 3],
    states: [Presence; TRACKED.len()],
}

/// The time that sockets were in a state.
#[derive(Clone, Debug)]
struct Presence {
    /// The sum for each bucket, in ns, without the sockets that were present during all of it.
    part: Vec<u64>,
    /// The change, at each bucket, of the number of sockets that are present during all of it.
    more: Vec<i64>,
}

impl Default for Series {
    fn default() -> Self {
        let presence = Presence { part: vec![0; SLOTS], more: vec![0; SLOTS] };
        Self {
            width: NARROWEST,
            doublings: 0,
            base: 0,
            used: 0..0,
            moments: std::array::from_fn(|_| vec![0; SLOTS]),
            states: std::array::from_fn(|_| presence.clone()),
        }
    }
}

impl Series {
    /// Counts a moment, in ns of Unix time.
    pub(super) fn note(&mut self, moment: Moment, unix_ns: i64) {
        let unix_ns = sane(unix_ns);
        let (slot, _) = self.make_room(unix_ns, unix_ns);
        self.moments[moment as usize][slot] += 1;
    }

    /// Counts a socket that was in a state between two times.
    pub(super) fn add(&mut self, state: State, from: i64, to: i64) {
        let (from, to) = (sane(from), sane(to));
        let Some(tracked) = tracked(state).filter(|_| from < to) else { return };
        let (first, last) = self.make_room(from, to - 1);
        let (width, base) = (self.width, self.base);
        let start = |slot: usize| (base + slot as i64) * width;
        let presence = &mut self.states[tracked];
        if first == last {
            presence.part[first] += (to - from).unsigned_abs();
        } else {
            presence.part[first] += (start(first + 1) - from).unsigned_abs();
            presence.part[last] += (to - start(last)).unsigned_abs();
            presence.more[first + 1] += 1;
            presence.more[last] -= 1;
        }
    }

    /// The number of the bucket of a time. A division by a constant and a shift take less time than a division.
    fn bucket(&self, unix_ns: i64) -> i64 {
        unix_ns.div_euclid(NARROWEST) >> self.doublings
    }

    fn slot(&self, bucket: i64) -> usize {
        usize::try_from(bucket - self.base).unwrap_or(0)
    }

    /// Makes buckets for all times between the two. Returns the slots of the two.
    fn make_room(&mut self, from: i64, to: i64) -> (usize, usize) {
        loop {
            let (first, last) = (self.bucket(from), self.bucket(to));
            let needed = first..last + 1;
            if !self.used.is_empty() && self.used.start <= first && last < self.used.end {
                return (self.slot(first), self.slot(last));
            }
            if self.used.is_empty() {
                // The first connection has ended; many of the later ones began earlier.
                self.base = needed.end - (SLOTS as i64) / 2;
            }
            let all = if self.used.is_empty() {
                needed
            } else {
                self.used.start.min(needed.start)..self.used.end.max(needed.end)
            };
            if all.end - all.start > SLOTS as i64 {
                self.widen();
                continue;
            }
            if all.start < self.base {
                // Shift as far as possible, so that shifts are rare.
                self.shift(all.end - SLOTS as i64);
            } else if all.end > self.base + SLOTS as i64 {
                self.shift(all.start);
            }
            self.used = all;
            return (self.slot(first), self.slot(last));
        }
    }

    /// Moves the buckets to other slots. Slots that wrap around are empty.
    fn shift(&mut self, base: i64) {
        let by = base - self.base;
        let count = usize::try_from(by.unsigned_abs()).unwrap_or(SLOTS).min(SLOTS);
        self.base = base;
        self.moments.iter_mut().for_each(|slots| rotate(slots, by > 0, count));
        for presence in &mut self.states {
            rotate(&mut presence.part, by > 0, count);
            rotate(&mut presence.more, by > 0, count);
        }
    }

    fn widen(&mut self) {
        let odd = usize::from(self.base.rem_euclid(2) == 1);
        let merge = |slots: &mut Vec<u64>| {
            let mut merged = vec![0_u64; SLOTS];
            slots.iter().enumerate().for_each(|(place, value)| merged[(place + odd) / 2] += value);
            *slots = merged;
        };
        self.moments.iter_mut().for_each(merge);
        for presence in &mut self.states {
            presence.part = presence.settled(self.width);
            presence.more.fill(0);
            merge(&mut presence.part);
        }
        self.width *= 2;
        self.doublings += 1;
        self.base = self.base.div_euclid(2);
        if !self.used.is_empty() {
            self.used = self.used.start.div_euclid(2)..(self.used.end - 1).div_euclid(2) + 1;
        }
    }

    /// The course between two times, in about `most` points at most.
    pub(super) fn points(&self, from: i64, to: i64, most: i64) -> Vec<Point> {
        let mut width = self.width;
        while sane(to).saturating_sub(sane(from)) / width > most.max(1) {
            width *= 2;
        }
        self.folded(from, to, width)
    }

    /// The highest rate over a second, or over a bucket if that is longer, and its time.
    pub(super) fn busiest(&self, moment: Moment, from: i64, to: i64) -> Option<Peak> {
        let width = self.width.max(SECOND);
        let (from, to) = self.counted(from, to, width);
        let points = self.folded(from, to, width);
        let peak = |point: &Point| {
            let count = match moment {
                Moment::Opened => point.opened,
                Moment::Ended => point.ended,
                Moment::Failed => point.failed,
            };
            Peak { value: per_second(count, point.width_ns), unix_ns: point.from_unix_ns, width_ns: point.width_ns }
        };
        highest(points.iter().map(peak))
    }

    /// The highest number of sockets in a state, as the mean of a bucket, and its time.
    pub(super) fn most_present(&self, state: State, from: i64, to: i64) -> Option<Peak> {
        let tracked = tracked(state)?;
        let (from, to) = self.counted(from, to, self.width);
        let points = self.folded(from, to, self.width);
        let peak = |point: &Point| Peak {
            value: point.sockets[tracked],
            unix_ns: point.from_unix_ns,
            width_ns: point.width_ns,
        };
        highest(points.iter().map(peak)).filter(|peak| peak.value > 0.0)
    }

    /// The part of a time in which buckets are in use, and enough around it for whole points: a trace may span centuries
    /// in which nothing happens.
    fn counted(&self, from: i64, to: i64, width: i64) -> (i64, i64) {
        let around = width.saturating_mul(2);
        let at = |bucket: i64| bucket.saturating_mul(self.width);
        (from.max(at(self.used.start).saturating_sub(around)), to.min(at(self.used.end).saturating_add(around)))
    }

    /// Points of this width: a bucket doubled some times. If the first or last one would be cut to less than half the
    /// width, its neighbour absorbs it.
    fn folded(&self, from: i64, to: i64, width: i64) -> Vec<Point> {
        let (from, to) = (sane(from), sane(to));
        if from >= to {
            return Vec::new();
        }
        let settled: [Vec<u64>; TRACKED.len()] = std::array::from_fn(|state| self.states[state].settled(self.width));
        let bounds = bounds(from, to, width);
        bounds.windows(2).map(|bounds| self.point(bounds[0], bounds[1], &settled)).collect()
    }

    fn point(&self, from: i64, to: i64, settled: &[Vec<u64>]) -> Point {
        let slot = |number: i64| usize::try_from(number - self.base).unwrap_or(0).min(SLOTS);
        let all = from.div_euclid(self.width)..(to - 1).div_euclid(self.width) + 1;
        // Sockets may have existed before the first moment, when nothing was counted. So the mean of a bucket that is
        // cut is unknown.
        let inner = (from - 1).div_euclid(self.width) + 1..to.div_euclid(self.width);
        let whole = if inner.is_empty() { all.clone() } else { inner };
        let time = (whole.end - whole.start) * self.width;
        let (all, whole) = (slot(all.start)..slot(all.end), slot(whole.start)..slot(whole.end));
        let mean = |state: usize| settled[state][whole.clone()].iter().sum::<u64>() as f64 / time as f64;
        let sum = |moment: Moment| self.moments[moment as usize][all.clone()].iter().sum();
        Point {
            from_unix_ns: from,
            width_ns: (to - from).unsigned_abs(),
            opened: sum(Moment::Opened),
            ended: sum(Moment::Ended),
            failed: sum(Moment::Failed),
            sockets: std::array::from_fn(mean),
        }
    }
}

impl Presence {
    /// The total time in each bucket.
    fn settled(&self, width: i64) -> Vec<u64> {
        let mut whole = 0_i64;
        let settle = |(part, more): (&u64, &i64)| {
            whole += more;
            part + whole.unsigned_abs() * width.unsigned_abs()
        };
        self.part.iter().zip(&self.more).map(settle).collect()
    }
}

fn rotate<T>(slots: &mut [T], later: bool, count: usize) {
    if later { slots.rotate_left(count) } else { slots.rotate_right(count) }
}

/// The bounds of the points.
fn bounds(from: i64, to: i64, width: i64) -> Vec<i64> {
    let inner = (from.div_euclid(width) + 1..=(to - 1).div_euclid(width)).map(|number| number * width);
    let far = |bound: &i64| (bound - from) * 2 >= width && (to - bound) * 2 >= width;
    std::iter::once(from).chain(inner.filter(far)).chain(std::iter::once(to)).collect()
}

fn highest(peaks: impl Iterator<Item = Peak>) -> Option<Peak> {
    // The first one, if several are equal.
    peaks.reduce(|highest, peak| if peak.value > highest.value { peak } else { highest })
}

fn tracked(state: State) -> Option<usize> {
    TRACKED.iter().position(|tracked| *tracked == state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_735_786_800_000_000_000;

    fn seconds(count: i64) -> i64 {
        count * SECOND
    }

    /// It would take a point for each bucket of the time, of which only the series bounds the number.
    #[test]
    fn centuries_without_anything_take_no_points() {
        let mut series = Series::default();
        series.note(Moment::Opened, START);
        series.add(State::CloseWait, START, START + seconds(3));
        let (from, to) = (i64::MIN / 4, i64::MAX / 4);
        let busiest = series.busiest(Moment::Opened, from, to).expect("a peak");
        let most = series.most_present(State::CloseWait, from, to).expect("a peak");
        assert_eq!((busiest.value, most.value), (1.0, 1.0));
    }

    #[test]
    fn a_socket_counts_for_the_time_that_it_was_there() {
        let mut series = Series::default();
        series.add(State::CloseWait, START + seconds(1), START + seconds(3));
        series.add(State::CloseWait, START + seconds(2), START + seconds(3));
        let points = series.points(START, START + seconds(4), 4);
        let sockets: Vec<f64> = points.iter().map(|point| point.sockets[1]).collect();
        assert_eq!(sockets, [0.0, 1.0, 2.0, 0.0]);
        let peak = series.most_present(State::CloseWait, START, START + seconds(4)).expect("a peak");
        assert_eq!((peak.value, peak.unix_ns), (2.0, START + seconds(2)));
        assert_eq!(series.most_present(State::TimeWait, START, START + seconds(4)), None);
    }

    /// Sockets that predate the recording do not count in its first moments.
    #[test]
    fn the_time_before_is_left_out() {
        let mut series = Series::default();
        series.add(State::TimeWait, START - seconds(60), START + seconds(30));
        let from = START + 1;
        for point in series.points(from, START + seconds(60), 60) {
            assert!(point.sockets[0] <= 1.0, "{point:?}");
        }
        let peak = series.most_present(State::TimeWait, from, START + seconds(60)).expect("a peak");
        assert_eq!(peak.value, 1.0);
    }

    #[test]
    fn a_rate_is_of_a_second_at_least() {
        let mut series = Series::default();
        (0..10).for_each(|number| series.note(Moment::Opened, START + number));
        let peak = series.busiest(Moment::Opened, START, START + seconds(10)).expect("a peak");
        assert_eq!((peak.value, peak.width_ns), (10.0, 1_000_000_000));
        assert_eq!(series.busiest(Moment::Opened, START, START), None);
    }

    #[test]
    fn absurd_times_are_taken() {
        let mut series = Series::default();
        series.note(Moment::Ended, i64::MIN);
        series.note(Moment::Ended, i64::MAX);
        series.add(State::TimeWait, i64::MIN, i64::MAX);
        let points = series.points(i64::MIN, i64::MAX, 10);
        assert!(!points.is_empty() && points.len() <= 12, "{}", points.len());
    }

    proptest! {
        /// However buckets are moved and widened, the total time stays the same.
        #[test]
        fn time_is_kept(stays in proptest::collection::vec((0_i64..200_000, 0_i64..90_000), 1..60)) {
            let mut series = Series::default();
            let mut expected = 0;
            for (from_ms, length_ms) in &stays {
                let from = START + from_ms * 1_000_003;
                let to = from + length_ms * 999_983;
                series.add(State::TimeWait, from, to);
                series.note(Moment::Ended, to);
                expected += to - from;
            }
            let kept: u64 = series.states[0].settled(series.width).iter().sum();
            prop_assert_eq!(kept, expected.unsigned_abs());
            let points = series.points(START - SECOND, START + 400 * SECOND, 100);
            prop_assert!(points.len() <= 101);
            prop_assert_eq!(points.iter().map(|point| point.ended).sum::<u64>(), stays.len() as u64);
            let time: f64 = points.iter().map(|point| point.sockets[0] * point.width_ns as f64).sum();
            prop_assert!((time - expected as f64).abs() <= expected as f64 * 0.001 + 1.0, "{} for {}", time, expected);
        }
    }
}
