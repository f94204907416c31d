//! Where in the stream the losses belong: pure.
//!
//! A record is dropped when the ring buffer is full, which is noticed long before the reader comes to the place where it is
//! missing: everything that the buffer holds by then is older. How far the reader had come when the counters were last
//! looked at tells the first place at which it can be, and how far it has come now the last one.

use std::collections::VecDeque;

use crate::model::event::{Cause, Losses};

/// No record takes more of the ring buffer, its header included.
const LONGEST_RECORD: u64 = 256;

/// What the stream is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// From here on events are missing: so many, and what has been lost altogether.
    From(Cause, u64, Losses),
    /// Up to here.
    To,
}

/// Losses that were noticed, and whose place is yet to come. Places are counted in bytes that were read.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Size of the ring buffer.
    ring: u64,
    /// How far the reader had come when the counters were last looked at.
    looked_at: u64,
    coming: VecDeque<Gap>,
    /// Where the last of those ends that have begun.
    ends: Option<u64>,
}

#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    marker: Marker,
}

impl Gaps {
    pub(super) fn new(ring: u64) -> Self {
        Self { ring, looked_at: 0, coming: VecDeque::new(), ends: None }
    }

    /// How far to read before the counters are looked at again: never past a place where something may be missing.
    pub(super) fn limit(&self) -> u64 {
        let nearest = self.coming.front().map(|gap| gap.from).into_iter().chain(self.ends).min();
        nearest.unwrap_or(u64::MAX).min(self.first_place())
    }

    /// The first place at which something can be missing that the counters have not told yet.
    fn first_place(&self) -> u64 {
        self.looked_at + self.ring - LONGEST_RECORD
    }

    /// So many were dropped since the counters were last looked at, by when so much was lost altogether. The reader has
    /// come so far meanwhile.
    pub(super) fn note_dropped(&mut self, cause: Cause, events: u64, losses: Losses, read: u64) {
        let marker = Marker::From(cause, events, losses);
        self.coming.push_back(Gap { from: self.first_place(), to: read + self.ring, marker });
    }

    /// Something is missing that has no place in the ring buffer, which ends at the latest where the buffer does now.
    pub(super) fn begin_here(&mut self) {
        self.ends = self.ends.max(Some(self.looked_at + self.ring));
    }

    /// The counters have been looked at, and the reader has come so far.
    pub(super) fn looked_at(&mut self, read: u64) {
        self.looked_at = read;
    }

    /// What belongs here: whatever is coming, if nothing is left to read.
    pub(super) fn pass(&mut self, is_empty: bool) -> Vec<Marker> {
        let mut markers = Vec::new();
        let is_here = |place: u64| is_empty || place <= self.looked_at;
        while let Some(Gap { to, marker, .. }) = self.coming.front().filter(|gap| is_here(gap.from)) {
            markers.push(*marker);
            self.ends = self.ends.max(Some(*to));
            self.coming.pop_front();
        }
        if self.ends.is_some_and(is_here) {
            self.ends = None;
            markers.push(Marker::To);
        }
        markers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u64 = 10_000;

    /// What a reader is told that reads up to these places, and each time sees so many more dropped.
    fn told(steps: &[(u64, u64)]) -> Vec<(u64, Marker)> {
        let mut gaps = Gaps::new(RING);
        let mut told = Vec::new();
        for &(read, dropped) in steps {
            assert!(read <= gaps.limit(), "{read} is beyond {gaps:?}");
            if dropped > 0 {
                gaps.note_dropped(Cause::RingFull, dropped, Losses::default(), read);
            }
            gaps.looked_at(read);
            told.extend(gaps.pass(false).into_iter().map(|marker| (read, marker)));
        }
        told.extend(gaps.pass(true).into_iter().map(|marker| (u64::MAX, marker)));
        assert_eq!(gaps.limit(), gaps.first_place(), "nothing is left");
        told
    }

    fn from(events: u64) -> Marker {
        Marker::From(Cause::RingFull, events, Losses::default())
    }

    /// What is in the buffer when it is full is older than what did not fit.
    #[test]
    fn a_loss_belongs_behind_what_the_buffer_holds() {
        let full = 1_000 + RING - LONGEST_RECORD;
        let steps = [(1_000, 0), (2_000, 7), (9_000, 0), (full, 0), (11_000, 0), (12_000, 0), (13_000, 0)];
        assert_eq!(told(&steps), [(full, from(7)), (12_000, Marker::To)]);
    }

    #[test]
    fn nothing_is_read_past_a_place_unseen() {
        let mut gaps = Gaps::new(RING);
        assert_eq!(gaps.limit(), RING - LONGEST_RECORD, "all of that was there when the counters were looked at");
        gaps.looked_at(1_000);
        gaps.note_dropped(Cause::RingFull, 1, Losses::default(), 2_000);
        gaps.looked_at(2_000);
        assert_eq!(gaps.limit(), 1_000 + RING - LONGEST_RECORD);
        gaps.looked_at(gaps.limit());
        assert_eq!(gaps.pass(false), [from(1)]);
        assert_eq!(gaps.limit(), 2_000 + RING, "where it is over at the latest");
    }

    #[test]
    fn losses_that_follow_each_other_end_together() {
        let steps = [(1_000, 1), (2_000, 2), (3_000, 0), (9_744, 0), (10_744, 0), (11_000, 0), (12_000, 0)];
        assert_eq!(told(&steps), [(9_744, from(1)), (10_744, from(2)), (12_000, Marker::To)]);
    }

    #[test]
    fn an_empty_buffer_hides_nothing() {
        assert_eq!(told(&[(1_000, 0), (2_000, 7)]), [(u64::MAX, from(7)), (u64::MAX, Marker::To)]);
        let mut gaps = Gaps::new(RING);
        gaps.begin_here();
        assert_eq!(gaps.pass(false), []);
        assert_eq!(gaps.pass(true), [Marker::To]);
    }
}
