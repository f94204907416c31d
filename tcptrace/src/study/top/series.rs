//! What happened second by second.

use std::collections::VecDeque;

use crate::model::tcp::{Closer, End, State};
use crate::study::counts::is_failure;
use crate::study::counts::levels::RATE_SECONDS;

/// One second.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// In Unix time.
    pub number: i64,
    /// Sockets at its end, by index in [`State::ALL`].
    pub states: [u32; State::ALL.len()],
    pub opened: u32,
    /// Ended connections, by index in [`Closer::ALL`].
    pub closers: [u32; Closer::ALL.len()],
    /// Ended connections, by index in [`End::ALL`].
    pub ends: [u32; End::ALL.len()],
}

/// The last seconds, the current one included.
#[derive(Clone, Debug)]
pub(super) struct Series {
    seconds: VecDeque<Second>,
    most: usize,
}

impl Second {
    fn new(number: i64, states: [u32; State::ALL.len()]) -> Self {
        Self { number, states, opened: 0, closers: [0; Closer::ALL.len()], ends: [0; End::ALL.len()] }
    }

    pub fn ended(&self) -> u32 {
        self.ends.iter().sum()
    }

    pub fn failed(&self) -> u32 {
        End::ALL.iter().zip(self.ends).filter(|(end, _)| is_failure(**end)).map(|(_, count)| count).sum()
    }
}

impl Series {
    pub(super) fn new(most: usize) -> Self {
        Self { seconds: VecDeque::new(), most: most.max(1) }
    }

    /// The current second.
    pub(super) fn now(&mut self) -> &mut Second {
        if self.seconds.is_empty() {
            self.seconds.push_back(Second::new(0, [0; State::ALL.len()]));
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.seconds.back().map(|second| second.number)
    }

    /// Begins another second. Those between had the sockets of the last one, and nothing happened.
    pub(super) fn turn(&mut self, number: i64) {
        let begun = self.seconds.back().filter(|last| last.number > 0).copied();
        let Some(last) = begun else {
            // What came before the first time belongs to it.
            self.now().number = number;
            return;
        };
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        for between in (last.number + 1).max(number.saturating_sub(most))..=number {
            self.seconds.push_back(Second::new(between, last.states));
        }
        while self.seconds.len() > self.most {
            self.seconds.pop_front();
        }
    }

    /// The last seconds over which rates are measured: the whole ones, where there are any.
    pub(super) fn recent(&self) -> (impl Iterator<Item = &Second>, u32) {
        let whole = self.seconds.len().saturating_sub(1);
        let wanted = whole.min(RATE_SECONDS as usize);
        let length = u32::try_from(wanted).unwrap_or(RATE_SECONDS).max(1);
        let (skipped, taken) = if whole == 0 { (0, 1) } else { (whole - wanted, wanted) };
        (self.seconds.iter().skip(skipped).take(taken), length)
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Second> {
        self.seconds.iter()
    }

    pub(super) fn clear(&mut self) {
        self.seconds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_between_keep_their_sockets() {
        let mut series = Series::new(4);
        series.turn(100);
        series.now().states[0] = 7;
        series.now().opened = 3;
        series.turn(102);
        let seen: Vec<_> = series.all().map(|it| (it.number, it.states[0], it.opened)).collect();
        assert_eq!(seen, [(100, 7, 3), (101, 7, 0), (102, 7, 0)]);
        series.turn(1_000);
        assert_eq!(series.all().map(|it| it.number).collect::<Vec<_>>(), [997, 998, 999, 1_000]);
    }
}
