//! Where in the stream losses belong: pure.
//!
//! The kernel drops a record when the ring buffer is full. Everything in the buffer at that moment is older, so the
//! reader comes to the gap only later. The position of the reader at the previous check of the counters gives the first
//! place where the record can be missing; its current position gives the last one.

use std::collections::VecDeque;

use crate::model::event::{Cause, Losses};

/// Longest record in the ring buffer, header included.
const LONGEST_RECORD: u64 = 256;

/// A marker in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Events are missing from here on: cause, number, and all losses so far.
    From(Cause, u64, Losses),
    /// Events are missing up to here.
    To,
}

/// Losses that were noticed and not marked yet. Places are counted in bytes that were read.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Size of the ring buffer.
    ring: u64,
    /// Position of the reader at the last check of the counters.
    looked_at: u64,
    coming: VecDeque<Gap>,
    /// End of the last gap that has begun.
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

    /// How far to read before the next check of the counters: never past a place where records may be missing.
    pub(super) fn limit(&self) -> u64 {
        let nearest = self.coming.front().map(|gap| gap.from).into_iter().chain(self.ends).min();
        nearest.unwrap_or(u64::MAX).min(self.first_place())
    }

    /// The first place where records can be missing that the counters do not include yet.
    fn first_place(&self) -> u64 {
        self.looked_at + self.ring - LONGEST_RECORD
    }

    /// Notes records that were dropped since the last check of the counters, all losses by then, and the current
    /// position of the reader.
    pub(super) fn note_dropped(&mut self, cause: Cause, events: u64, losses: Losses, read: u64) {
        let marker = Marker::From(cause, events, losses);
        self.coming.push_back(Gap { from: self.first_place(), to: read + self.ring, marker });
    }

    /// Begins a gap for losses without a place in the ring buffer. It ends at the current end of the buffer at the
    /// latest.
    pub(super) fn begin_here(&mut self) {
        self.ends = self.ends.max(Some(self.looked_at + self.ring));
    }

    /// Notes that the counters were checked at this position of the reader.
    pub(super) fn looked_at(&mut self, read: u64) {
        self.looked_at = read;
    }

    /// The markers that belong here; all of them if the buffer is empty.
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

    /// The markers of a reader that reads up to these places, and sees this many new drops each time.
    fn markers(steps: &[(u64, u64)]) -> Vec<(u64, Marker)> {
        let mut gaps = Gaps::new(RING);
        let mut marked = Vec::new();
        for &(read, dropped) in steps {
            assert!(read <= gaps.limit(), "{read} is beyond {gaps:?}");
            if dropped > 0 {
                gaps.note_dropped(Cause::RingFull, dropped, Losses::default(), read);
            }
            gaps.looked_at(read);
            marked.extend(gaps.pass(false).into_iter().map(|marker| (read, marker)));
        }
        marked.extend(gaps.pass(true).into_iter().map(|marker| (u64::MAX, marker)));
        assert_eq!(gaps.limit(), gaps.first_place(), "nothing is left");
        marked
    }

    fn from(events: u64) -> Marker {
        Marker::From(Cause::RingFull, events, Losses::default())
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
        let mut gaps = Gaps::new(RING);
        assert_eq!(gaps.limit(), RING - LONGEST_RECORD, "the buffer already contained all of that at the last check");
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
        assert_eq!(markers(&steps), [(9_744, from(1)), (10_744, from(2)), (12_000, Marker::To)]);
    }

    #[test]
    fn an_empty_buffer_hides_nothing() {
        assert_eq!(markers(&[(1_000, 0), (2_000, 7)]), [(u64::MAX, from(7)), (u64::MAX, Marker::To)]);
        let mut gaps = Gaps::new(RING);
        gaps.begin_here();
        assert_eq!(gaps.pass(false), []);
        assert_eq!(gaps.pass(true), [Marker::To]);
    }
}
