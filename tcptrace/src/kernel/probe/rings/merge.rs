//! The records of several ring buffers, in the order of their times: pure.
//!
//! For one socket, the order of records is the order of what happened to it, as long as it stays on one CPU: a ring
//! buffer keeps it. When a socket comes to another CPU, only the times tell. So the oldest record at the front of any
//! ring buffer comes first, and only up to a bound: what happens on one CPU while the ring buffer of another is being
//! read may be older than what that one gets next, and waits for the next time.

use std::hint;

/// A ring buffer.
pub(in super::super) trait Stream {
    /// Finds out what has come.
    fn refresh(&mut self);
    /// What is at its front, of what had come by then.
    fn front(&mut self) -> Front;
    /// Passes on the record at its front, which was there, and goes past it.
    fn pass(&mut self, each: &mut impl FnMut(&[u8]));
    /// How far it has been read, in bytes.
    fn read(&self) -> u64;
    /// Makes room: everything that was passed on may be overwritten.
    fn release(&mut self);
}

/// What is at the front of a ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Front {
    /// Nothing.
    Nothing,
    /// A record that a program is still writing.
    Busy,
    /// A record of this time, or just before one of this time: a program that was interrupted has the earlier place and
    /// the later time.
    At(u64),
}

/// Ring buffers that are read together.
pub(in super::super) struct Merge<S> {
    lanes: Vec<Lane<S>>,
}

struct Lane<S> {
    stream: S,
    /// Time of the record at its front.
    next: u64,
    is_busy: bool,
    /// Everything in it from before this time has been passed on.
    passed: u64,
}

/// What has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Taken {
    /// How many records.
    pub(in super::super) records: usize,
    /// Nothing from before this time is left; `None` if records are left that could have been taken.
    pub(in super::super) until: Option<u64>,
    /// Nothing at all is left.
    pub(in super::super) is_empty: bool,
}

/// How often to look again at a record that is being written. That takes tens of ns, unless the program is interrupted.
const LOOKS: u32 = 1_000;

/// For a ring buffer with no record at its front.
const NEVER: u64 = u64::MAX;

impl<S: Stream> Merge<S> {
    pub(in super::super) fn new(streams: impl IntoIterator<Item = S>) -> Self {
        let lane = |stream| Lane { stream, next: NEVER, is_busy: false, passed: 0 };
        Self { lanes: streams.into_iter().map(lane).collect() }
    }

    /// How far each has been read, in bytes.
    pub(in super::super) fn places(&self) -> impl Iterator<Item = u64> {
        self.lanes.iter().map(|lane| lane.stream.read())
    }

    /// Passes on up to `at_most` records, in the order of their times, and none that begins at or after the limit of its
    /// ring buffer. `now` is the time just before the call.
    pub(in super::super) fn take(
        &mut self,
        at_most: usize,
        now: u64,
        limits: &[u64],
        mut each: impl FnMut(&[u8]),
    ) -> Taken {
        // One alone needs no bound: what it gets next is younger than what it had.
        let is_alone = self.lanes.len() == 1;
        let mut bound = if is_alone { NEVER - 1 } else { now };
        for lane in &mut self.lanes {
            lane.stream.refresh();
            lane.look();
            bound = lane.bounded(bound);
        }
        let mut records = 0;
        let until = loop {
            let (first, second) = self.earliest();
            let Some(lane) = self.lanes.get_mut(first).filter(|lane| lane.next <= bound) else {
                break Some(bound.min(now));
            };
            let limit = limits.get(first).copied().unwrap_or(NEVER);
            while lane.next <= second.min(bound) && records < at_most && lane.stream.read() < limit {
                lane.passed = lane.passed.max(lane.next);
                lane.stream.pass(&mut each);
                records += 1;
                lane.look();
                if is_alone && lane.next == NEVER {
                    lane.stream.refresh();
                    lane.look();
                }
            }
            bound = lane.bounded(bound);
            if lane.next <= second.min(bound) {
                break None;
            }
        };
        for lane in &mut self.lanes {
            if let Some(until) = until.filter(|_| !lane.is_busy) {
                lane.passed = lane.passed.max(until);
            }
            lane.stream.release();
        }
        Taken { records, until, is_empty: self.lanes.iter().all(|lane| lane.next == NEVER && !lane.is_busy) }
    }

    /// The ring buffer with the oldest record at its front, and the time of the oldest one of the others.
    fn earliest(&self) -> (usize, u64) {
        let (mut first, mut oldest, mut second) = (0, NEVER, NEVER);
        for (place, lane) in self.lanes.iter().enumerate() {
            if lane.next < oldest {
                (first, second, oldest) = (place, oldest, lane.next);
            } else {
                second = second.min(lane.next);
            }
        }
        (first, second)
    }
}

impl<S: Stream> Lane<S> {
    /// Looks at the record at the front.
    fn look(&mut self) {
        let mut front = self.stream.front();
        for _ in 0..LOOKS {
            if front != Front::Busy {
                break;
            }
            hint::spin_loop();
            front = self.stream.front();
        }
        self.is_busy = front == Front::Busy;
        self.next = if let Front::At(time) = front { time } else { NEVER };
    }

    /// What is still being written, and what follows it, may be as old as what was before it: nothing younger is passed
    /// on until then.
    fn bounded(&self, bound: u64) -> u64 {
        if self.is_busy { bound.min(self.passed) } else { bound }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ROOM: u64 = 8;

    /// A ring buffer of records, each of which is its time.
    #[derive(Default)]
    struct Fake {
        /// `None`: it is being written.
        written: Vec<Option<u64>>,
        seen: usize,
        read: usize,
        released: usize,
    }

    impl Stream for Fake {
        fn refresh(&mut self) {
            self.seen = self.written.len();
        }

        fn front(&mut self) -> Front {
            let at = |place: usize| self.written[..self.seen].get(place).copied();
            match (at(self.read), at(self.read + 1).flatten()) {
                (None, _) => Front::Nothing,
                (Some(None), _) => Front::Busy,
                (Some(Some(time)), following) => Front::At(following.map_or(time, |following| time.min(following))),
            }
        }

        fn pass(&mut self, each: &mut impl FnMut(&[u8])) {
            each(&self.written[self.read].expect("a record").to_ne_bytes());
            self.read += 1;
        }

        fn read(&self) -> u64 {
            self.read as u64 * ROOM
        }

        fn release(&mut self) {
            self.released = self.read;
        }
    }

    /// Ring buffers with these times; 0 is being written.
    fn merge(rings: &[Vec<u64>]) -> Merge<Fake> {
        let mut merge = Merge::new(rings.iter().map(|_| Fake::default()));
        for (ring, times) in rings.iter().enumerate() {
            write(&mut merge, ring, times);
        }
        merge
    }

    fn write(merge: &mut Merge<Fake>, ring: usize, times: &[u64]) {
        merge.lanes[ring].stream.written.extend(times.iter().map(|time| (*time > 0).then_some(*time)));
    }

    fn take(merge: &mut Merge<Fake>, at_most: usize, now: u64, limits: &[u64]) -> (Vec<u64>, Option<u64>) {
        let mut times = Vec::new();
        let taken = merge.take(at_most, now, limits, |record| {
            times.push(u64::from_ne_bytes(record.try_into().expect("a time")));
        });
        assert_eq!(taken.records, times.len());
        assert!(merge.lanes.iter().all(|lane| lane.stream.released == lane.stream.read));
        let is_left = |stream: &Fake| stream.read < stream.seen;
        assert_eq!(taken.is_empty, !merge.lanes.iter().any(|lane| is_left(&lane.stream)));
        (times, taken.until)
    }

    const ANY: [u64; 4] = [NEVER; 4];

    #[rstest]
    #[case::nothing(vec![vec![], vec![]], &[], 50)]
    #[case::by_time(vec![vec![1, 4, 5], vec![2, 3, 6]], &[1, 2, 3, 4, 5, 6], 50)]
    #[case::one_idle(vec![vec![], vec![2, 3], vec![1]], &[1, 2, 3], 50)]
    #[case::the_same_time(vec![vec![2, 2], vec![2]], &[2, 2, 2], 50)]
    #[case::what_came_later_waits(vec![vec![1, 49], vec![2, 51, 52], vec![50]], &[1, 2, 49, 50], 50)]
    #[case::alone_nothing_waits(vec![vec![1, 49, 51]], &[1, 49, 51], 50)]
    // The record with the time 9 was interrupted by those behind it, which are older than 8.
    #[case::an_interrupted_program(vec![vec![1, 9, 5, 6], vec![2, 8]], &[1, 2, 9, 5, 6, 8], 50)]
    #[case::what_is_being_written_holds_up_the_others(vec![vec![1, 0, 5], vec![1, 2, 3]], &[1, 1], 1)]
    #[case::at_once(vec![vec![0, 5], vec![1, 2, 3]], &[], 0)]
    #[case::what_is_being_written_and_alone(vec![vec![1, 2, 0, 5]], &[1, 2], 2)]
    fn records_come_by_time(#[case] rings: Vec<Vec<u64>>, #[case] expected: &[u64], #[case] until: u64) {
        let (times, done) = take(&mut merge(&rings), 100, 50, &ANY);
        assert_eq!((times.as_slice(), done), (expected, Some(until)));
    }

    #[test]
    fn what_waited_comes_the_next_time() {
        let mut merge = merge(&[vec![1, 60], vec![2, 55]]);
        assert_eq!(take(&mut merge, 100, 50, &ANY), (vec![1, 2], Some(50)));
        write(&mut merge, 0, &[61]);
        assert_eq!(take(&mut merge, 100, 70, &ANY), (vec![55, 60, 61], Some(70)));
        assert_eq!(take(&mut merge, 100, 80, &ANY), (vec![], Some(80)));
    }

    /// While a record was being written, nothing younger was passed on than what the last time had seen.
    #[test]
    fn a_record_that_took_long_comes_before_what_followed_it() {
        let mut merge = merge(&[vec![1], vec![2]]);
        assert_eq!(take(&mut merge, 100, 50, &ANY), (vec![1, 2], Some(50)));
        write(&mut merge, 0, &[0, 53]);
        write(&mut merge, 1, &[50, 54]);
        assert_eq!(take(&mut merge, 100, 60, &ANY), (vec![50], Some(50)));
        merge.lanes[0].stream.written[1] = Some(52);
        assert_eq!(take(&mut merge, 100, 70, &ANY), (vec![52, 53, 54], Some(70)));
    }

    #[test]
    fn no_more_than_asked_for() {
        let mut merge = merge(&[vec![1, 4, 5], vec![2, 3, 6]]);
        assert_eq!(take(&mut merge, 4, 50, &ANY), (vec![1, 2, 3, 4], None));
        assert_eq!(take(&mut merge, 2, 50, &ANY), (vec![5, 6], Some(50)));
        assert_eq!(take(&mut merge, 2, 50, &ANY), (vec![], Some(50)));
    }

    /// What follows it in another ring buffer is not passed on either.
    #[test]
    fn nothing_is_read_past_a_limit() {
        let mut merge = merge(&[vec![1, 4, 5], vec![2, 3, 6]]);
        let limits = [NEVER, ROOM];
        assert_eq!(take(&mut merge, 100, 50, &limits), (vec![1, 2], None));
        assert_eq!(take(&mut merge, 100, 50, &limits), (vec![], None));
        assert_eq!(take(&mut merge, 100, 50, &[NEVER, 3 * ROOM]), (vec![3, 4, 5, 6], Some(50)));
        assert_eq!(merge.places().collect::<Vec<_>>(), [3 * ROOM, 3 * ROOM]);
    }
}
