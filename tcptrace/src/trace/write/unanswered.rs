//! Sockets whose FIN is unanswered: pure. If such a socket disappears without a report, only surveys show that.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::model::event::{Event, Found, Id, Kept};
use crate::model::transition::Transition;
use crate::model::unanswered::{UNANSWERED_AT_END_NS, UNANSWERED_NS, is_time_to_ask, is_unanswered};

/// Sockets with an unanswered FIN, and since when.
#[derive(Default)]
pub(super) struct Unanswered {
    since: HashMap<Id, u64, FixedState>,
    /// When to check them, in ns of `CLOCK_BOOTTIME`.
    pub(super) look_at: Option<u64>,
    surveys_wanted: u32,
    /// Time of the last check.
    now: u64,
}

impl Unanswered {
    pub(super) fn note(&mut self, event: &Event) {
        match *event {
            Event::Change(ref change) => self.note_change(change),
            Event::Destroyed { id, .. } => drop(self.since.remove(&id)),
            Event::Found(Found { at, id, state, kept: Kept::Held | Kept::Orphan, .. }) if is_unanswered(state) => {
                self.attend(id, at);
            }
            // One survey proves nothing, and readers wait for a second one.
            Event::SurveyBegun { at } => {
                let was_wanted = self.surveys_wanted > 0;
                let is_first = !was_wanted && self.waits_for(UNANSWERED_AT_END_NS, at);
                self.surveys_wanted = self.surveys_wanted.saturating_sub(1) + u32::from(is_first);
            }
            _ => {}
        }
    }

    pub(super) fn note_change(&mut self, change: &impl Transition) {
        if is_unanswered(change.enters()) {
            self.attend(change.id(), change.at());
        } else if is_unanswered(change.leaves()) {
            self.since.remove(&change.id());
        }
    }

    fn attend(&mut self, id: Id, at: u64) {
        self.since.entry(id).or_insert(at);
        self.look_at.get_or_insert(at + UNANSWERED_NS);
    }

    /// Requests surveys once a socket has waited for long.
    pub(super) fn look(&mut self, now: u64) {
        self.now = now;
        if self.look_at.is_some_and(|at| at <= now) {
            let is_time = |since: &u64| is_time_to_ask(now.saturating_sub(*since));
            if self.since.values().any(is_time) {
                self.surveys_wanted = 2;
            }
            self.look_at = (!self.since.is_empty()).then_some(now + UNANSWERED_NS);
        }
    }

    pub(super) fn wants_survey(&self) -> bool {
        self.surveys_wanted > 0
    }

    /// Whether to request a last survey, before the recording ends.
    pub(super) fn wants_last_survey(&self) -> bool {
        self.wants_survey() || self.waits_for(UNANSWERED_AT_END_NS, self.now)
    }

    fn waits_for(&self, ns: u64, now: u64) -> bool {
        self.since.values().any(|since| now.saturating_sub(*since) >= ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tcp::State;

    const SECOND: u64 = 1_000_000_000;

    fn found(at: u64, state: State) -> Event {
        let tuple = crate::model::tcp::Tuple {
            local_ip: std::net::Ipv6Addr::LOCALHOST,
            remote_ip: std::net::Ipv6Addr::LOCALHOST,
            local_port: 1,
            remote_port: 2,
        };
        let (id, kept) = (Id::Cookie(1), Kept::Orphan);
        Event::Found(Found { at, id, tuple, netns: None, uid: None, cgroup: None, interface: 0, state, kept })
    }

    #[test]
    fn two_surveys_are_wanted_after_ten_seconds() {
        let mut unanswered = Unanswered::default();
        unanswered.note(&found(SECOND, State::LastAck));
        unanswered.look(10 * SECOND);
        assert!(!unanswered.wants_survey());
        unanswered.look(11 * SECOND);
        for _ in 0..2 {
            assert!(unanswered.wants_survey());
            unanswered.note(&Event::SurveyBegun { at: 12 * SECOND });
        }
        assert!(!unanswered.wants_survey());
    }

    #[test]
    fn a_survey_at_the_end_has_another_one_follow() {
        let mut unanswered = Unanswered::default();
        unanswered.note(&found(SECOND, State::FinWait1));
        unanswered.look(3 * SECOND);
        assert!(unanswered.wants_last_survey() && !unanswered.wants_survey());
        unanswered.note(&Event::SurveyBegun { at: 3 * SECOND });
        assert!(unanswered.wants_survey());
        unanswered.note(&Event::SurveyBegun { at: 4 * SECOND });
        assert!(!unanswered.wants_survey());
    }

    #[test]
    fn what_is_gone_is_not_asked_for() {
        let mut unanswered = Unanswered::default();
        unanswered.note(&found(SECOND, State::Closing));
        unanswered.note(&Event::Destroyed { at: SECOND, id: Id::Cookie(1), shut: None });
        unanswered.note(&found(SECOND, State::Established));
        unanswered.look(20 * SECOND);
        assert!(!unanswered.wants_last_survey());
    }
}
