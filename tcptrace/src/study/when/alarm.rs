//! When a condition is reported: once for each thing that makes it hold, and not too often.

use super::Condition;

/// A condition, and what was reported of it.
#[derive(Clone, Debug)]
pub struct Alarm {
    condition: Condition,
    pause_ns: u64,
    /// Which atoms have held ever since they were reported.
    reported: Vec<bool>,
    /// It has held ever since it was reported.
    is_reported: bool,
    /// It is silent until then, in ns of `CLOCK_BOOTTIME`.
    silent_until: u64,
}

impl Alarm {
    /// Is silent for `pause_ns` after each report.
    pub fn new(condition: Condition, pause_ns: u64) -> Self {
        let reported = vec![false; condition.atoms().len()];
        Self { condition, pause_ns, reported, is_reported: false, silent_until: 0 }
    }

    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Whether to report, given which atoms hold now. What goes on is not news: it is reported again once it has ended and
    /// come back, or when something else makes the condition hold.
    pub fn check(&mut self, now: u64, atoms: &[bool]) -> bool {
        self.reported.iter_mut().zip(atoms).for_each(|(reported, holds)| *reported &= *holds);
        let holds = self.condition.holds(atoms);
        self.is_reported &= holds;
        let is_new = !self.is_reported || atoms.iter().zip(&self.reported).any(|(holds, reported)| *holds && !reported);
        if !holds || !is_new || now < self.silent_until {
            return false;
        }
        self.reported = atoms.to_vec();
        self.is_reported = true;
        self.silent_until = now.saturating_add(self.pause_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each check is a second after the one before; letters are the atoms that hold.
    fn reports(when: &str, pause: u64, checks: &[&str]) -> Vec<bool> {
        let mut alarm = Alarm::new(when.parse().expect("a condition"), pause);
        let holds = |check: &str| ["a", "b"].map(|letter| check.contains(letter));
        (0..).zip(checks).map(|(now, check)| alarm.check(now, &holds(check))).collect()
    }

    const EITHER: &str = "close-wait-leak or fd-limit";

    #[test]
    fn what_goes_on_is_reported_once() {
        assert_eq!(reports(EITHER, 0, &["", "a", "a", "", "a"]), [false, true, false, false, true]);
    }

    #[test]
    fn another_cause_is_news() {
        assert_eq!(reports(EITHER, 0, &["a", "ab", "b", "ab"]), [true, true, false, true]);
    }

    /// What comes in the pause is reported after it, if it is still there.
    #[test]
    fn a_pause_puts_off() {
        assert_eq!(reports(EITHER, 3, &["a", "ab", "ab", "ab", "ab"]), [true, false, false, true, false]);
        assert_eq!(reports(EITHER, 3, &["a", "b", "", "", "a"]), [true, false, false, false, true]);
    }

    #[test]
    fn both_or_none() {
        let both = "close-wait-leak and not fd-limit";
        assert_eq!(reports(both, 0, &["", "b", "ab", "a", "a"]), [false, false, false, true, false]);
        assert_eq!(reports("not (close-wait-leak or fd-limit)", 0, &["a", "", ""]), [false, true, false]);
    }
}
