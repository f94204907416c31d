//! The control groups of the processes that events mention.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Most processes that are remembered before all names are announced again.
const MOST: usize = 16_384;
/// A group is not looked up again for this time, in ns: a process id is not reused that soon.
const FRESH_NS: u64 = 1_000_000_000;
/// The known group of a process that has ended stays valid for this time, in ns.
const HOLDS_NS: u64 = 10_000_000_000;

/// The announced groups of processes, in two generations.
#[derive(Debug, Default)]
pub(super) struct Processes {
    current: HashMap<u32, Known, FixedState>,
    previous: HashMap<u32, Known, FixedState>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    group: Option<u64>,
    /// Time of the lookup.
    at: u64,
}

impl Processes {
    /// Notes a process that an event mentions. Returns its group if that must be announced; the group may be unknown.
    pub(super) fn learn(&mut self, pid: u32, at: u64, look_up: impl FnOnce(u32) -> Option<u64>) -> Option<Option<u64>> {
        let announced = self.current.get(&pid).copied();
        let known = announced.or_else(|| self.previous.remove(&pid));
        let age = known.map(|known| at.saturating_sub(known.at));
        let now = match known {
            Some(known) if age.is_some_and(|age| age < FRESH_NS) => known,
            _ => Known { group: look_up(pid), at },
        };
        let now = match known {
            Some(known) if now.group.is_none() && age.is_some_and(|age| age < HOLDS_NS) => known,
            _ => now,
        };
        self.current.insert(pid, now);
        announced.is_none_or(|announced| announced.group != now.group).then_some(now.group)
    }

    pub(super) fn is_full(&self) -> bool {
        self.current.len() > MOST
    }

    pub(super) fn advance(&mut self) {
        self.previous = std::mem::take(&mut self.current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn never(_: u32) -> Option<u64> {
        unreachable!("it is not looked up")
    }

    #[test]
    fn a_process_is_looked_up_once_in_a_while() {
        let mut processes = Processes::default();
        assert_eq!(processes.learn(1, 0, |_| Some(5)), Some(Some(5)));
        assert_eq!(processes.learn(1, S - 1, never), None);
        assert_eq!(processes.learn(1, S, |_| Some(5)), None);
        assert_eq!(processes.learn(1, 3 * S, |_| Some(6)), Some(Some(6)), "it was moved");
        processes.advance();
        assert_eq!(processes.learn(1, 3 * S + 1, never), Some(Some(6)), "it is announced again");
    }

    /// The group applies to the sockets that a process closes as it ends, and not to a later process with the same id.
    #[test]
    fn the_group_of_a_process_outlives_it_for_a_while() {
        let mut processes = Processes::default();
        processes.learn(1, 0, |_| Some(5));
        assert_eq!(processes.learn(1, 9 * S, |_| None), None);
        assert_eq!(processes.learn(1, 10 * S, |_| None), Some(None));
        assert_eq!(processes.learn(2, 0, |_| None), Some(None), "a later process with its id is another one");
        assert_eq!(processes.learn(2, 0, never), None);
    }
}
