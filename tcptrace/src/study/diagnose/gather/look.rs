//! What the last look at all sockets has shown.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::at_least;
use crate::model::event::{Bound, Event, Found, Inspected, Kept};
use crate::model::row::Held;
use crate::model::tcp::State;

/// Looks at all sockets, one after the other: the last one counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    known: HashMap<u64, Looked, FixedState>,
    fds: HashMap<u64, u32, FixedState>,
    /// The look that runs.
    number: u32,
    has_looked: bool,
    has_inspected: bool,
    has_scanned: bool,
}

/// What a look has shown of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    found: Option<Found>,
    seen: Option<Inspected>,
    /// What the look before has shown, until this one has ended: one that is cut short does not show everything.
    before: Option<Inspected>,
    number: u32,
}

impl Looked {
    /// How it was seen last.
    pub(super) fn seen(&self) -> Option<Inspected> {
        self.seen.or(self.before)
    }

    /// When it was found.
    pub(super) fn at(&self) -> u64 {
        self.found.map(|found| found.at).or(self.seen().map(|seen| seen.at)).unwrap_or(0)
    }

    /// What had it, if it is still in the state that it was found in.
    pub(super) fn kept(&self, state: State) -> Option<Kept> {
        self.found.filter(|found| found.state == state).map(|found| found.kept)
    }

    /// How long it has been in its state, by the last segment too, where one has brought it there.
    pub(super) fn age(&self, state: State, age: Held, now: u64) -> Held {
        let (Some(found), Some(seen)) = (self.found, self.seen()) else { return age };
        if found.state != state || !matches!(state, State::CloseWait | State::FinWait2 | State::Closing) {
            return age;
        }
        match seen.idle.and_then(|idle| idle.acked_ms) {
            Some(ms) => at_least(age, u64::from(ms) * 1_000_000 + now.saturating_sub(seen.at)),
            None => age,
        }
    }
}

impl Looks {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::SurveyBegun { .. } => self.number += 1,
            Event::Found(found) => self.at(found.id.number()).found = Some(*found),
            Event::Inspected(seen) => {
                self.has_inspected = true;
                self.at(seen.id.number()).seen = Some(*seen);
            }
            Event::SurveyEnded { .. } => {
                self.has_looked = true;
                self.known.retain(|_, looked| looked.number == self.number);
                self.known.values_mut().for_each(|looked| looked.before = None);
            }
            Event::Holder(holder) => {
                self.fds.insert(holder.found.id.number(), holder.fd);
            }
            Event::ScanEnded { .. } => self.has_scanned = true,
            Event::Destroyed { id, .. } if !self.fds.is_empty() => {
                self.fds.remove(&id.number());
            }
            _ => {}
        }
    }

    fn at(&mut self, conn: u64) -> &mut Looked {
        let number = self.number;
        let looked = self.known.entry(conn).or_insert(Looked { found: None, seen: None, before: None, number });
        if looked.number != number {
            *looked = Looked { found: None, seen: None, before: looked.seen(), number };
        }
        looked
    }

    pub(super) fn of(&self, conn: u64) -> Option<&Looked> {
        self.known.get(&conn)
    }

    pub(super) fn fd(&self, conn: u64) -> Option<u32> {
        self.fds.get(&conn).copied()
    }

    /// Sockets that were bound and have neither connected nor listened.
    pub(super) fn bound(&self) -> Vec<Bound> {
        let mut all: Vec<Bound> = self.known.values().filter_map(|it| it.seen()?.bound).collect();
        all.sort_unstable_by_key(|it| (it.netns, it.port, it.ip));
        all
    }

    pub(super) fn has_looked(&self) -> bool {
        self.has_looked
    }

    pub(super) fn has_inspected(&self) -> bool {
        self.has_inspected
    }

    pub(super) fn has_scanned(&self) -> bool {
        self.has_scanned
    }
}
