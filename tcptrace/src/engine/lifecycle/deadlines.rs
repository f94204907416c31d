//! When to look at which connection again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::conn::Conn;

/// How long after its timer was due the engine gives up a mini-socket. The kernel's timer wheel rounds up by at most an
/// eighth (`kernel/time/timer.c`).
const fn given_up_after(due_ns: u64) -> u64 {
    due_ns + due_ns / 8 + 5_000_000_000
}

/// When to look at a connection, in ns without the sleep of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    pub(super) awake: u64,
    pub(super) key: u64,
}

/// Deadlines in order.
///
/// Nearly all come in the order in which they are due, because each TIME_WAIT lasts as long as the one before. Those
/// wait in a queue; only the others have to be sorted.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: VecDeque<Deadline>,
    others: BinaryHeap<Reverse<Deadline>>,
    asleep_ns: u64,
}

impl Deadlines {
    /// The machine slept for this long, before a time in ns of `CLOCK_BOOTTIME`.
    pub(super) fn sleep(&mut self, ns: u64, at: u64) {
        self.asleep_ns = self.asleep_ns.saturating_add(ns).min(at);
    }

    /// In ns of `CLOCK_BOOTTIME`.
    pub(super) fn in_boot_time(&self, awake: u64) -> u64 {
        awake.saturating_add(self.asleep_ns)
    }

    /// Sets a deadline, this many ns after a time of `CLOCK_BOOTTIME`. Returns when it is due, in ns without the sleep
    /// of the machine.
    pub(super) fn push(&mut self, at: u64, after: u64, key: u64) -> u64 {
        let awake = at.saturating_sub(self.asleep_ns).saturating_add(after);
        let deadline = Deadline { awake, key };
        if self.queue.back().is_none_or(|last| *last <= deadline) {
            self.queue.push_back(deadline);
        } else {
            self.others.push(Reverse(deadline));
        }
        awake
    }

    /// Sets the deadline at which to give up a mini-socket whose timer is due in this many ns.
    pub(super) fn expect_end(&mut self, conn: &mut Conn, at: u64, due_ns: u64) {
        let awake = at.saturating_sub(self.asleep_ns);
        conn.set_due_at(awake.saturating_add(due_ns), awake.saturating_add(given_up_after(due_ns)));
        self.push(at, given_up_after(due_ns), conn.key());
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Deadline> {
        let other = self.others.peek().map(|Reverse(deadline)| *deadline);
        self.queue.front().copied().into_iter().chain(other).min()
    }

    /// Removes the next deadline and returns it, if it is due.
    pub(super) fn pop_until(&mut self, now: u64) -> Option<Deadline> {
        let next = self.next().filter(|next| self.in_boot_time(next.awake) <= now)?;
        if self.queue.front() == Some(&next) {
            self.queue.pop_front();
        } else {
            self.others.pop();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order in which they come, the earliest one is next.
        #[test]
        fn the_earliest_is_next(acts in proptest::collection::vec(proptest::option::weighted(0.6, (0_u64..20, 0_u64..3)), 0..200)) {
            let mut deadlines = Deadlines::default();
            let mut sorted = BinaryHeap::new();
            for act in acts {
                match act {
                    Some((due, key)) => {
                        deadlines.push(0, due, key);
                        sorted.push(Reverse(Deadline { awake: due, key }));
                    }
                    None => prop_assert_eq!(deadlines.pop_until(u64::MAX), sorted.pop().map(|Reverse(next)| next)),
                }
                prop_assert_eq!(deadlines.next(), sorted.peek().map(|Reverse(next)| *next));
            }
        }
    }
}
