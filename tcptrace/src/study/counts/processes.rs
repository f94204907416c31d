//! The processes of a group of connections, up to a limit.

use super::change::Change;

/// Most processes that are counted separately.
const MOST: usize = 1024;

/// Processes, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// Sorted by id, with the number of connections of each.
    pids: Vec<(u32, u32)>,
    /// Connections of processes beyond the limit.
    beyond: u64,
    /// Index of the last changed process.
    last: usize,
}

impl PartialEq for Processes {
    fn eq(&self, other: &Self) -> bool {
        (&self.pids, self.beyond) == (&other.pids, other.beyond)
    }
}

impl Processes {
    /// Adds or removes a connection.
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
            Err(_) => self.beyond += u64::from(connections),
        }
    }

    fn remove(&mut self, pid: u32) {
        let Ok(place) = self.pids.binary_search_by_key(&pid, |(pid, _)| *pid) else {
            self.beyond = self.beyond.saturating_sub(1);
            return;
        };
        let (_, known) = &mut self.pids[place];
        *known -= 1;
        if *known == 0 {
            self.pids.remove(place);
        }
    }

    /// The number of processes, up to the limit.
    pub(super) fn count(&self) -> u64 {
        self.pids.len() as u64
    }

    /// Whether there may be more processes.
    pub(super) fn has_more(&self) -> bool {
        self.beyond > 0
    }

    /// The id of the process, if there is only one.
    pub(super) fn only(&self) -> Option<u32> {
        if let [(pid, _)] = self.pids[..] { Some(pid) } else { None }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.pids.iter().for_each(|(pid, connections)| self.add(*pid, *connections));
        self.beyond += other.beyond;
    }
}
