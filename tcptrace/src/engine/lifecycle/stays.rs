//! How long a connection was in each of its states.

use crate::model::row::{Held, Stay};
use crate::model::tcp::State;

/// How long a connection was in each of its states. A life has at most six: states that exclude each other share a
/// slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stays {
    ns: [u64; 6],
    seen: u16,
    at_least: u16,
}

/// In the order in which a connection can go through them.
const ORDER: [State; 9] = [
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait1,
    State::CloseWait,
    State::FinWait2,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

impl Stays {
    pub(super) fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Reads a part of each line of memory.
    pub(super) fn touch_memory(&self) -> u64 {
        self.ns[0] ^ self.ns[5]
    }

    /// Notes a finished stay.
    pub(super) fn record(&mut self, state: State, held: Held) {
        let (Some(slot), Some(ns)) = (slot(state), held.known_ns()) else { return };
        let bit = 1 << state as u16;
        self.ns[slot] = ns;
        self.seen |= bit;
        self.at_least = if held.is_at_least() { self.at_least | bit } else { self.at_least & !bit };
    }

    pub(super) fn to_vec(self) -> Vec<Stay> {
        let mut stays = Vec::with_capacity(self.seen.count_ones() as usize);
        for state in ORDER.into_iter().filter(|state| self.seen & (1 << *state as u16) != 0) {
            let Some(slot) = slot(state) else { continue };
            let at_least = self.at_least & (1 << state as u16) != 0;
            let held = if at_least { Held::AtLeast(self.ns[slot]) } else { Held::Exactly(self.ns[slot]) };
            stays.push(Stay { state, held });
        }
        stays
    }
}

fn slot(state: State) -> Option<usize> {
    Some(match state {
        State::SynSent => 0,
        State::SynRecv => 1,
        State::Established => 2,
        State::FinWait1 | State::CloseWait => 3,
        State::FinWait2 | State::Closing | State::LastAck => 4,
        State::TimeWait => 5,
        State::Closed | State::Listen => return None,
    })
}
