//! Where in the stream losses belong: pure.
//!
//! The kernel drops a record when a ring buffer is full. Everything in the buffer at that moment is older, so the
//! reader comes to the gap only later. The position of the reader at the previous check of the counters gives the first
//! place where the record can be missing; its current position gives the last one. Each ring buffer has positions of its
//! own.

use std::collections::VecDeque;

use crate::model::event::Cause;

/// Longest record in the ring buffer, header included.
const LONGEST_RECORD: u64 = 256;

/// A marker in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Events are missing from here on: why, and how many.
    From(Cause, Missing),
    /// Events are missing up to here.
    To,
}

/// A number of missing events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) transitions: u64,
    pub(super) others: u64,
}

impl Missing {
    pub(super) fn sum(self) -> u64 {
        self.transitions.saturating_add(self.others)
    }
}

/// Losses that were noticed and not marked yet.
#[derive(Debug)]
pub(super) struct Gaps {
    /// By ring buffer.
    lanes: Vec<Lane>,
    /// How far each may be read before the next check of the counters.
    limits: Vec<u64>,
}

/// Those of one ring buffer. Places are counted in bytes that were read.
#[derive(Clone, Debug)]
struct Lane {
    /// Size of the ring buffer.
    ring: u64,
    /// Position of the reader at the last check of the counters.
    looked_at: u64,
    coming: VecDeque<Gap>,
    /// End of the last gap that has begun.
    ends: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    to: End,
    marker: Marker,
}

/// Where a gap ends at the latest.
#[derive(Clone, Copy, Debug)]
struct End {
    place: u64,
    /// When it was noted: nothing is missing behind what came later.
    noted: u64,
}

impl Gaps {
    /// For so many ring buffers of this size.
    pub(super) fn new(rings: usize, bytes: u64) -> Self {
        let lane = Lane { ring: bytes, looked_at: 0, coming: VecDeque::new(), ends: None };
        Self { lanes: vec![lane; rings], limits: vec![0; rings] }
    }

    /// How far to read each ring buffer before the next check of the counters: never past a place where records may be
    /// missing.
    pub(super) fn limits(&mut self) -> &[u64] {
        self.limits.iter_mut().zip(&self.lanes).for_each(|(limit, lane)| *limit = lane.limit());
        &self.limits
    }

    /// Notes records that were dropped by a ring buffer since the last check of the counters, the current position of its
    /// reader, and the current time.
    pub(super) fn note_dropped(&mut self, ring: usize, cause: Cause, missing: Missing, read: u64, now: u64) {
        if let Some(lane) = self.lanes.get_mut(ring) {
            let to = End { place: read + lane.ring, noted: now };
            lane.coming.push_back(Gap { from: lane.first_place(), to, marker: Marker::From(cause, missing) });
        }
    }

    /// Begins a gap for losses without a place in a ring buffer. It ends at the current ends of all buffers at the
    /// latest.
    pub(super) fn begin_here(&mut self, now: u64) {
        for lane in &mut self.lanes {
            lane.extend(End { place: lane.looked_at + lane.ring, noted: now });
        }
    }

    /// Notes that the counters were checked at these positions of the readers.
    pub(super) fn looked_at(&mut self, places: impl Iterator<Item = u64>) {
        self.lanes.iter_mut().zip(places).for_each(|(lane, read)| lane.looked_at = read);
    }

    /// Whether a gap has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.lanes.iter().any(|lane| lane.ends.is_some())
    }

    /// The markers that belong here. With a time, nothing from before it is left: all gaps begin here, and those end that
    /// were noted by then.
    pub(super) fn pass(&mut self, until: Option<u64>) -> Vec<Marker> {
        let mut markers = Vec::new();
        let mut has_ended = false;
        for lane in &mut self.lanes {
            has_ended |= lane.pass(until, &mut markers);
        }
        if has_ended && !self.is_open() {
            markers.push(Marker::To);
        }
        markers
    }
}

impl Lane {
    fn limit(&self) -> u64 {
        let end = self.ends.map(|end| end.place);
        let nearest = self.coming.front().map(|gap| gap.from).into_iter().chain(end).min();
        nearest.unwrap_or(u64::MAX).min(self.first_place())
    }

    /// The first place where records can be missing that the counters do not include yet.
    fn first_place(&self) -> u64 {
        self.looked_at + self.ring - LONGEST_RECORD
    }

    fn extend(&mut self, to: End) {
        let End { place, noted } = self.ends.unwrap_or(to);
        self.ends = Some(End { place: place.max(to.place), noted: noted.max(to.noted) });
    }

    /// Adds what begins here. Returns whether a gap has ended here.
    fn pass(&mut self, until: Option<u64>, markers: &mut Vec<Marker>) -> bool {
        let looked_at = self.looked_at;
        let is_here = |gap: &Gap| until.is_some() || gap.from <= looked_at;
        while self.coming.front().is_some_and(is_here)
            && let Some(gap) = self.coming.pop_front()
        {
            markers.push(gap.marker);
            self.extend(gap.to);
        }
        let is_over = |end: End| end.place <= looked_at || until.is_some_and(|until| end.noted <= until);
        self.ends.take_if(|end| is_over(*end)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u64 = 10_000;
    /// A ring buffer is empty again and again from then on.
    const LATER: u64 = 1_000_000;

    /// The markers of readers of two ring buffers that read up to these places, and see these numbers of new drops, at the
    /// time of the step. Until the end, no buffer is empty.
    fn markers_of_two(steps: &[([u64; 2], [u64; 2])]) -> Vec<([u64; 2], Marker)> {
        let mut gaps = Gaps::new(2, RING);
        let mut marked = Vec::new();
        for (now, (read, dropped)) in (1..).zip(steps) {
            let limits = gaps.limits().to_vec();
            assert!(read[0] <= limits[0] && read[1] <= limits[1], "{read:?} is beyond {gaps:?}");
            for ring in 0..2 {
                if dropped[ring] > 0 {
                    let missing = Missing { transitions: dropped[ring], others: 0 };
                    gaps.note_dropped(ring, Cause::RingFull, missing, read[ring], now);
                }
            }
            gaps.looked_at(read.iter().copied());
            marked.extend(gaps.pass(None).into_iter().map(|marker| (*read, marker)));
        }
        marked.extend(gaps.pass(Some(LATER)).into_iter().map(|marker| ([u64::MAX; 2], marker)));
        let places: Vec<u64> = gaps.lanes.iter().map(Lane::first_place).collect();
        assert_eq!(gaps.limits(), places, "nothing is left");
        marked
    }

    /// The same of one, beside one that nothing is written to.
    fn markers(steps: &[(u64, u64)]) -> Vec<(u64, Marker)> {
        let steps: Vec<_> = steps.iter().map(|&(read, dropped)| ([read, 0], [dropped, 0])).collect();
        markers_of_two(&steps).into_iter().map(|([read, _], marker)| (read, marker)).collect()
    }

    fn from(transitions: u64) -> Marker {
        Marker::From(Cause::RingFull, Missing { transitions, others: 0 })
    }

    /// The content of a full buffer is older than a record that did not fit.
    #[test]
    fn a_loss_belongs_behind_what_the_buffer_holds() {
        let full = 1_000 + RING - LONGEST_RECORD;
        let steps = [(1_000, 0), (2_000, 7), (9_000, 0), (full, 0), (11_000, 0), (12_000, 0), (13_000, 0)];
        assert_eq!(markers(&steps), [(full, from(7)), (12_000, Marker::To)]);
    }

    #[test]
    fn nothing_is_read_past_a_place_unseen() {
        let mut gaps = Gaps::new(1, RING);
        assert_eq!(
            gaps.limits(),
            [RING - LONGEST_RECORD],
            "the buffer already contained all of that at the last check"
        );
        gaps.looked_at([1_000].into_iter());
        gaps.note_dropped(0, Cause::RingFull, Missing { transitions: 1, others: 0 }, 2_000, 1);
        gaps.looked_at([2_000].into_iter());
        assert_eq!(gaps.limits(), [1_000 + RING - LONGEST_RECORD]);
        let place = gaps.limits()[0];
        gaps.looked_at([place].into_iter());
        assert_eq!(gaps.pass(None), [from(1)]);
        assert_eq!(gaps.limits(), [2_000 + RING], "where it is over at the latest");
    }

    #[test]
    fn losses_that_follow_each_other_end_together() {
        let steps = [(1_000, 1), (2_000, 2), (3_000, 0), (9_744, 0), (10_744, 0), (11_000, 0), (12_000, 0)];
        assert_eq!(markers(&steps), [(9_744, from(1)), (10_744, from(2)), (12_000, Marker::To)]);
    }

    /// Another buffer's place does not matter, and events are missing until the last gap is over.
    #[test]
    fn each_buffer_has_its_own_places() {
        let steps = [
            ([1_000, 500], [0, 0]),
            ([1_000, 1_500], [0, 3]),
            ([9_000, 2_000], [0, 0]),
            ([10_000, 3_000], [4, 0]),
            ([11_000, 10_244], [0, 0]),
            ([18_744, 10_300], [0, 0]),
            ([18_800, 11_500], [0, 0]),
            ([20_000, 12_000], [0, 0]),
        ];
        assert_eq!(
            markers_of_two(&steps),
            [([11_000, 10_244], from(3)), ([18_744, 10_300], from(4)), ([20_000, 12_000], Marker::To)]
        );
    }

    /// What is lost after the buffer was found empty, and before the counters were read, is missing behind this place.
    #[test]
    fn an_empty_buffer_hides_nothing_from_before() {
        assert_eq!(markers(&[(1_000, 0), (2_000, 7)]), [(u64::MAX, from(7)), (u64::MAX, Marker::To)]);
        let mut gaps = Gaps::new(2, RING);
        gaps.begin_here(5);
        assert_eq!(gaps.pass(None), []);
        assert_eq!(gaps.pass(Some(4)), []);
        assert!(gaps.is_open());
        assert_eq!(gaps.pass(Some(5)), [Marker::To]);
        assert!(!gaps.is_open());
        gaps.note_dropped(1, Cause::OutputSlow, Missing { transitions: 1, others: 2 }, 100, 7);
        let begins = Marker::From(Cause::OutputSlow, Missing { transitions: 1, others: 2 });
        assert_eq!(gaps.pass(Some(6)), [begins], "what is missing may have been older than what comes next");
        assert_eq!(gaps.pass(Some(7)), [Marker::To]);
    }
}
