//! The states that a socket has left. There are many sockets, so these take no memory of their own.

use crate::model::row::{Held, Stay};
use crate::model::tcp::State;

/// No connection goes through more states.
const MOST: usize = 6;

/// The stays in them, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    ns: [u64; MOST],
    states: [State; MOST],
    /// A bit for each stay that is a lower bound.
    parts: u8,
    len: u8,
}

impl Default for Past {
    fn default() -> Self {
        Self { ns: [0; MOST], states: [State::Closed; MOST], parts: 0, len: 0 }
    }
}

impl Past {
    /// Adds a stay, if it is known how long it was. The first one gives way if there are too many.
    pub(super) fn push(&mut self, Stay { state, held }: Stay) {
        let Some(ns) = held.known_ns() else { return };
        if usize::from(self.len) == MOST {
            self.ns.rotate_left(1);
            self.states.rotate_left(1);
            (self.parts, self.len) = (self.parts >> 1, self.len - 1);
        }
        let place = usize::from(self.len);
        (self.ns[place], self.states[place]) = (ns, state);
        self.parts = self.parts & !(1 << place) | u8::from(held.is_at_least()) << place;
        self.len += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Stay> {
        let all = self.ns.iter().zip(self.states).enumerate().take(self.len.into());
        all.map(|(place, (ns, state))| {
            let is_part = self.parts >> place & 1 == 1;
            Stay { state, held: if is_part { Held::AtLeast(*ns) } else { Held::Exactly(*ns) } }
        })
    }
}

impl FromIterator<Stay> for Past {
    fn from_iter<I: IntoIterator<Item = Stay>>(stays: I) -> Self {
        let mut past = Self::default();
        stays.into_iter().for_each(|stay| past.push(stay));
        past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let stay = |number: u64, state| {
            let held = if number.is_multiple_of(2) { Held::AtLeast(number) } else { Held::Exactly(number) };
            Stay { state, held }
        };
        let all: Vec<Stay> =
            (0..9).zip(State::ALL.iter().copied()).map(|(number, state)| stay(number, state)).collect();
        for count in 0..all.len() {
            let past: Past = all[..count].iter().copied().collect();
            assert_eq!(past.iter().collect::<Vec<_>>(), all[count.saturating_sub(MOST)..count]);
        }
        let unknown = Stay { state: State::CloseWait, held: Held::Unknown };
        assert_eq!([unknown].into_iter().collect::<Past>().iter().count(), 0);
    }
}
