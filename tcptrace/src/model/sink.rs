//! What consumes a stream, and what it asks of the source.

use std::time::Duration;

use anyhow::Result;

use super::event::Event;
use super::stream::Item;
use super::transition::Transition;

/// Consumes a stream of items.
pub trait Sink {
    /// Takes the next items.
    ///
    /// # Errors
    /// When it can take no more, which ends the stream.
    fn take(&mut self, items: &[Item]) -> Result<()>;

    /// Whether it takes changes of state one by one, with [`Sink::take_change`]: then nobody makes events of them.
    fn wants_changes(&self) -> bool {
        false
    }

    /// Takes a change of state, the next item.
    ///
    /// # Errors
    /// As for [`Sink::take`].
    fn take_change(&mut self, change: &impl Transition) -> Result<()> {
        self.take(&[Item::Event(Event::Change(change.change()))])
    }

    /// Everything before `now`, in ns of `CLOCK_BOOTTIME`, has been taken, and nothing more is ready for the moment.
    ///
    /// # Errors
    /// As for [`Sink::take`].
    fn settle(&mut self, now: u64) -> Result<()>;

    /// What it asks for. Each question is handed over once.
    fn wishes(&mut self) -> Wishes;

    /// Whether it misses sockets, now that nothing more comes. It may look at every socket for that, so it is asked at the
    /// end only.
    fn misses_any(&mut self) -> bool;
}

/// What a sink asks of its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// By when, in ns of `CLOCK_BOOTTIME`, it wants to know that nothing else has happened
    /// ([`Event::Passed`]).
    pub deadline: Option<u64>,
    /// By when it wants to settle at the latest, in ns of `CLOCK_BOOTTIME`.
    pub settle_by: Option<u64>,
    /// It asks for a survey of all sockets, and for all counters of the kernel.
    pub survey: bool,
    /// It asks which sockets still exist, until a survey answers.
    pub missing: bool,
    /// It asks who holds which socket.
    pub scan: bool,
    /// It takes no more.
    pub stop: bool,
    /// How long it has waited for its output to be taken, in total.
    pub blocked: Duration,
}

impl Wishes {
    /// What two sinks of one stream ask for; the stream ends when either takes no more.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let earliest = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            deadline: earliest(self.deadline, other.deadline),
            settle_by: earliest(self.settle_by, other.settle_by),
            survey: self.survey || other.survey,
            missing: self.missing || other.missing,
            scan: self.scan || other.scan,
            stop: self.stop || other.stop,
            blocked: self.blocked + other.blocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sinks() {
        let one = Wishes { deadline: Some(5), survey: true, blocked: Duration::from_secs(1), ..Wishes::default() };
        let other = Wishes { deadline: Some(3), settle_by: Some(9), missing: true, scan: true, ..Wishes::default() };
        let both = Wishes {
            deadline: Some(3),
            settle_by: Some(9),
            survey: true,
            missing: true,
            scan: true,
            stop: false,
            blocked: Duration::from_secs(1),
        };
        assert_eq!(one.and(other), both);
        assert_eq!(other.and(one), both);
        assert!(one.and(Wishes { stop: true, ..other }).stop);
    }
}
