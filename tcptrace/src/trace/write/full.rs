//! When to try again to write to a disk that was full.

/// The first pause before another attempt, and the longest.
const FIRST_NS: u64 = 1_000_000_000;
const LONGEST_NS: u64 = 60_000_000_000;
/// A disk that is full again within this time is tried half as often.
const SOON_NS: u64 = 60_000_000_000;

/// Attempts to write again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When to try next, if the disk is full.
    next: Option<u64>,
    pause: u64,
    resumed_at: Option<u64>,
}

impl Attempts {
    /// The disk is full.
    pub(super) fn begin(&mut self, now: u64) {
        let is_soon = self.resumed_at.is_some_and(|at| now.saturating_sub(at) < SOON_NS);
        self.pause = if is_soon { (2 * self.pause).min(LONGEST_NS) } else { FIRST_NS };
        self.next = Some(now + self.pause);
    }

    /// Whether to try now. If so, the next attempt is due after another pause.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let is_due = self.next.is_some_and(|next| now >= next);
        if is_due {
            self.next = Some(now + self.pause);
        }
        is_due
    }

    /// The disk has room again.
    pub(super) fn end(&mut self, now: u64) {
        (self.next, self.resumed_at) = (None, Some(now));
    }

    /// No attempt can help.
    pub(super) fn give_up(&mut self) {
        self.next = None;
    }

    /// When to try next, if the disk is full.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_disk_is_tried_every_second() {
        let mut attempts = Attempts::default();
        assert!(!attempts.is_due(SECOND));
        attempts.begin(10 * SECOND);
        let due: Vec<_> = (20..=28).filter(|half| attempts.is_due(half * SECOND / 2)).collect();
        assert_eq!(due, [22, 24, 26, 28]);
        attempts.end(15 * SECOND);
        assert!(!attempts.is_due(16 * SECOND) && attempts.next().is_none());
    }

    #[test]
    fn a_disk_that_is_soon_full_again_is_tried_less_often() {
        let mut attempts = Attempts::default();
        let mut now = 0;
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                attempts.begin(now);
                let pause = attempts.next().expect("another attempt") - now;
                now += pause;
                attempts.end(now);
                pause / SECOND
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        attempts.begin(now + SOON_NS);
        assert_eq!(attempts.next(), Some(now + SOON_NS + SECOND));
    }
}
