//! What a report needs to know of one connection.

use super::rows::STUDIED;
use super::survival::Seen;
use crate::model::row::{Connection, Held};
use crate::model::tcp::{Closer, End, State, TimeWaitEnd};

/// Drawn from a connection once, and counted in many places.
#[derive(Clone, Debug)]
pub(super) struct Facts<'c> {
    pub(super) connection: &'c Connection,
    /// How it ended; `None` when it has not.
    pub(super) end: Option<End>,
    /// The state that it is still in; `None` when it has ended.
    pub(super) open: Option<State>,
    /// For how long it has been in that.
    pub(super) age: Held,
    /// Time in ESTABLISHED.
    pub(super) established: Held,
    /// Time in each of [`STUDIED`].
    pub(super) studied: [Held; STUDIED.len()],
    /// No process has ever had it, though a listener's queue has.
    pub(super) never_accepted: bool,
}

impl<'c> Facts<'c> {
    pub(super) fn of(connection: &'c Connection) -> Self {
        let open = connection.status.open();
        Self {
            connection,
            end: connection.end(),
            open: open.map(|(state, _)| state),
            age: open.map_or(Held::Unknown, |(_, age)| age),
            established: connection.held(State::Established),
            studied: STUDIED.map(|state| connection.held(state)),
            never_accepted: match connection.end() {
                Some(end) => end == End::NeverAccepted,
                None => connection.status.accepted() == Some(false),
            },
        }
    }

    /// What was seen of its stay in a state, if anything.
    pub(super) fn seen(&self, state: State) -> Option<Seen> {
        let held = self.connection.held(state);
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
        // Of one that was seen from its opening on and then lost sight of, only the end is missing.
        let ended = !self.lost_in(state);
        let begun = !ended && self.connection.opened_ns.is_some();
        Some(Seen { from_ns: begun.then_some(0), to_ns, ended })
    }

    /// Whether it was in this state when it was seen last, and its end was not seen.
    fn lost_in(&self, state: State) -> bool {
        let is_last = self.connection.stays.last().is_some_and(|stay| stay.state == state);
        let is_unseen = match state {
            State::TimeWait => self.connection.time_wait_end() == Some(TimeWaitEnd::Unknown),
            _ => self.end == Some(End::Unknown),
        };
        is_last && is_unseen
    }

    /// Whether it ended otherwise than by an orderly close.
    pub(super) fn failed(&self) -> bool {
        self.end.is_some_and(is_failure)
    }

    /// Whether this side closed first.
    pub(super) fn is_active(&self) -> bool {
        self.connection.closer == Closer::Active
    }
}

/// Whether a connection that ended so was not closed in order.
pub fn is_failure(end: End) -> bool {
    !matches!(end, End::Fin | End::Disconnected | End::Unknown)
}
