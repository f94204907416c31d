//! The countable facts of one connection.

use super::STUDIED;
use super::survival::Seen;
use crate::model::row::{Connection, Held};
use crate::model::tcp::{Closer, End, State, TimeWaitEnd};

/// Derived from a connection once, and counted in many places.
#[derive(Clone, Debug)]
pub(super) struct Facts<'c> {
    pub(super) connection: &'c Connection,
    /// How it ended; `None` if it is open.
    pub(super) end: Option<End>,
    /// Its current state; `None` if it has ended.
    pub(super) open: Option<State>,
    /// Time in its current state.
    pub(super) age: Held,
    /// Time in ESTABLISHED.
    pub(super) established: Spent,
    /// Time in each of [`STUDIED`].
    pub(super) studied: [Spent; STUDIED.len()],
    /// No process ever owned it, although it was in an accept queue.
    pub(super) never_accepted: bool,
}

/// Time in a state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) held: Held,
    /// What was observed of that time, if anything.
    pub(super) seen: Option<Seen>,
}

impl<'c> Facts<'c> {
    pub(super) fn of(connection: &'c Connection) -> Self {
        let open = connection.status.open();
        let mut facts = Self {
            connection,
            end: connection.end(),
            open: open.map(|(state, _)| state),
            age: open.map_or(Held::Unknown, |(_, age)| age),
            established: Spent::default(),
            studied: [Spent::default(); STUDIED.len()],
            never_accepted: match connection.end() {
                Some(end) => end == End::NeverAccepted,
                None => connection.status.accepted() == Some(false),
            },
        };
        facts.established = facts.spent(State::Established);
        facts.studied = STUDIED.map(|state| facts.spent(state));
        facts
    }

    fn spent(&self, state: State) -> Spent {
        let held = self.connection.held(state);
        Spent { held, seen: self.seen(state, held) }
    }

    fn seen(&self, state: State, held: Held) -> Option<Seen> {
        let to_ns = held.known_ns()?;
        if self.open == Some(state) {
            let begun = matches!(self.age, Held::Exactly(_));
            return Some(Seen {
                from_ns: begun.then_some(0),
                to_ns: self.age.known_ns().unwrap_or(to_ns),
                ended: false,
            });
        }
        if !held.is_at_least() {
            return Some(Seen { from_ns: Some(0), to_ns, ended: true });
        }
        // If it was seen from its opening on and then lost, only the end is missing.
        let ended = !self.lost_in(state);
        let begun = !ended && self.connection.opened_ns.is_some();
        Some(Seen { from_ns: begun.then_some(0), to_ns, ended })
    }

    /// Whether this is its last known state, and its end was not seen.
    fn lost_in(&self, state: State) -> bool {
        let is_last = self.connection.stays.last().is_some_and(|stay| stay.state == state);
        let is_unseen = match state {
            State::TimeWait => self.connection.time_wait_end() == Some(TimeWaitEnd::Unknown),
            _ => self.end == Some(End::Unknown),
        };
        is_last && is_unseen
    }

    /// Whether it ended without an orderly close.
    pub(super) fn failed(&self) -> bool {
        self.end.is_some_and(is_failure)
    }

    /// Whether neither side has begun to close it.
    pub(super) fn is_undecided(&self) -> bool {
        self.open.is_some() && self.connection.closer == Closer::Unknown
    }

    /// Whether this side closed first.
    pub(super) fn is_active(&self) -> bool {
        self.connection.closer == Closer::Active
    }
}

/// Whether such an end is not an orderly close.
pub fn is_failure(end: End) -> bool {
    !matches!(end, End::Fin | End::Disconnected | End::Unknown)
}
