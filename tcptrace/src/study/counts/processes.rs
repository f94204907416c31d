//! Which processes a group of connections is of, up to a number.

use super::change::Change;

/// How many are told apart.
const MOST: usize = 1024;

/// Processes, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// In order, each with how many connections it has.
    pids: Vec<(u32, u32)>,
    /// How many connections those have that are not told apart.
    untold: u64,
    /// Where the last one is.
    last: usize,
}

impl PartialEq for Processes {
    fn eq(&self, other: &Self) -> bool {
        (&self.pids, self.untold) == (&other.pids, other.untold)
    }
}

impl Processes {
    /// Counts a connection in, or takes it out.
    pub(super) fn change(&mut self, pid: u32, change: Change) {
        match change {
            Change::In => self.add(pid, 1),
            Change::Out => self.remove(pid),
        }
    }

    fn add(&mut self, pid: u32, connections: u32) {
        if let Some((_, known)) = self.pids.get_mut(self.last).filter(|(last, _)| *last == pid) {
            *known = known.saturating_add(connections);
            return;
        }
        match self.pids.binary_search_by_key(&pid, |(pid, _)| *pid) {
            Ok(place) => {
                let (_, known) = &mut self.pids[place];
                *known = known.saturating_add(connections);
                self.last = place;
            }
            Err(place) if self.pids.len() < MOST => {
                self.pids.insert(place, (pid, connections));
                self.last = place;
            }
            Err(_) => self.untold += u64::from(connections),
        }
    }

    fn remove(&mut self, pid: u32) {
        let Ok(place) = self.pids.binary_search_by_key(&pid, |(pid, _)| *pid) else {
            self.untold = self.untold.saturating_sub(1);
            return;
        };
        let (_, known) = &mut self.pids[place];
        *known -= 1;
        if *known == 0 {
            self.pids.remove(place);
        }
    }

    /// How many there are, of those that are told apart.
    pub(super) fn count(&self) -> u64 {
        self.pids.len() as u64
    }

    /// Whether there may be more of them.
    pub(super) fn has_more(&self) -> bool {
        self.untold > 0
    }

    /// The only one.
    pub(super) fn only(&self) -> Option<u32> {
        if let [(pid, _)] = self.pids[..] { Some(pid) } else { None }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.pids.iter().for_each(|(pid, connections)| self.add(*pid, *connections));
        self.untold += other.untold;
    }
}
