//! Sockets by state and group, as they are now. A change of state costs a few additions: the groups of a socket are
//! found once, and again only when more is known of it.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use super::change::Change;
use super::group::{By, Group};
use super::processes::Processes;
use super::who::{Directory, Key, Keys, Local, Netns, Process, Remote, Whose, Within};
use crate::model::row::Identity;
use crate::model::stream::Origin;
use crate::model::tcp::{Side, State};

/// Most groups of each kind; the sockets of later ones are counted among the others.
const MOST: usize = 4096;

/// Seconds over which rates are measured.
pub const RATE_SECONDS: u32 = 10;

/// The place of the others among the groups of a kind.
const OTHERS: u32 = 0;

/// Sockets of every group of each kind.
#[derive(Debug, Default)]
pub struct Levels {
    directory: Directory,
    processes: Kind<Process>,
    remotes: Kind<Remote>,
    locals: Kind<Local>,
    places: Kind<Within>,
    namespaces: Kind<Netns>,
}

/// The groups of a socket, by index in [`By::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    at: [u32; By::ALL.len()],
    pid: Option<u32>,
    /// Its control group has no name yet.
    is_unplaced: bool,
}

/// The sockets of a group, and what happened to it in the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Level {
    /// Sockets, by index in [`State::ALL`].
    pub states: [u32; State::ALL.len()],
    pub opened: Recent,
    pub failed: Recent,
    processes: Processes,
}

/// What happened in the last [`RATE_SECONDS`], second by second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    /// The second of the latest count.
    second: i64,
    counts: [u32; RATE_SECONDS as usize],
}

/// A group, with an id that no other group of its kind ever has.
#[derive(Clone, Debug)]
pub struct Ranked {
    pub id: u64,
    pub group: Group,
    pub level: Level,
}

#[derive(Debug)]
struct Kind<K> {
    places: HashMap<K, u32, FixedState>,
    /// The first one has the sockets of groups beyond the limit.
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    ids: u64,
}

#[derive(Debug)]
struct Slot<K> {
    /// `None` for the others, and where the slot is vacant.
    key: Option<K>,
    id: u64,
    sockets: u32,
    level: Level,
}

impl Recent {
    pub fn add(&mut self, second: i64) {
        self.turn(second);
        let place = self.place(second);
        self.counts[place] = self.counts[place].saturating_add(1);
    }

    /// How many in the last seconds, this one included.
    pub fn total(&self, second: i64) -> u64 {
        let mut recent = *self;
        recent.turn(second);
        recent.counts.iter().copied().map(u64::from).sum()
    }

    fn place(&self, second: i64) -> usize {
        usize::try_from(second.rem_euclid(RATE_SECONDS.into())).unwrap_or(0)
    }

    fn turn(&mut self, second: i64) {
        if second - self.second >= RATE_SECONDS.into() {
            self.counts = [0; RATE_SECONDS as usize];
        } else {
            for passed in self.second + 1..=second {
                let place = self.place(passed);
                self.counts[place] = 0;
            }
        }
        self.second = self.second.max(second);
    }

    fn merge(&mut self, other: &Self) {
        let second = self.second.max(other.second);
        let mut other = *other;
        self.turn(second);
        other.turn(second);
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, its)| *mine = mine.saturating_add(its));
    }
}

impl Level {
    pub fn sockets(&self) -> u64 {
        self.states.iter().copied().map(u64::from).sum()
    }

    pub fn of(&self, state: State) -> u64 {
        self.states[state as usize].into()
    }

    fn is_quiet(&self, second: i64) -> bool {
        self.opened.total(second) == 0 && self.failed.total(second) == 0
    }

    /// Adds the sockets and rates of another group.
    pub fn merge(&mut self, other: &Self) {
        self.states.iter_mut().zip(other.states).for_each(|(mine, its)| *mine += its);
        self.opened.merge(&other.opened);
        self.failed.merge(&other.failed);
    }
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        let others = Slot { key: None, id: 0, sockets: 0, level: Level::default() };
        Self { places: HashMap::default(), slots: vec![others], free: Vec::new(), ids: 0 }
    }
}

impl<K: Copy + Eq + Hash> Kind<K> {
    fn enter(&mut self, key: K) -> u32 {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None if self.places.len() >= MOST => OTHERS,
            None => self.add(key),
        };
        self.slots[place as usize].sockets += 1;
        place
    }

    fn add(&mut self, key: K) -> u32 {
        self.ids += 1;
        let slot = Slot { key: Some(key), id: self.ids, sockets: 0, level: Level::default() };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { key: None, id: 0, sockets: 0, level: Level::default() });
            u32::try_from(self.slots.len() - 1).unwrap_or(OTHERS)
        });
        self.slots[place as usize] = slot;
        self.places.insert(key, place);
        place
    }

    fn leave(&mut self, place: u32) {
        let slot = &mut self.slots[place as usize];
        slot.sockets = slot.sockets.saturating_sub(1);
    }

    fn level(&mut self, place: u32) -> &mut Level {
        &mut self.slots[place as usize].level
    }

    /// Frees the places of groups without sockets and rates.
    fn sweep(&mut self, second: i64) {
        for (place, slot) in (0..).zip(&mut self.slots).skip(1) {
            if slot.sockets == 0
                && slot.level.is_quiet(second)
                && let Some(key) = slot.key.take()
            {
                self.places.remove(&key);
                self.free.push(place);
            }
        }
    }

    fn groups(&self, by: By, directory: &Directory) -> Vec<Ranked>
    where
        K: Key,
    {
        let named = |slot: &Slot<K>| {
            let key = slot.key?;
            let processes = &slot.level.processes;
            let mut group = Group::of(by, &key, directory);
            if by == By::Process && processes.count() > 0 {
                group.pid = processes.only();
                group.processes = Some(processes.count());
                group.processes_at_least = processes.has_more();
            }
            Some(Ranked { id: slot.id, group, level: slot.level.clone() })
        };
        self.slots.iter().filter_map(named).collect()
    }
}

impl Levels {
    /// Adds a socket to its groups, without a state.
    pub fn enter(&mut self, identity: &Identity, origin: &Origin) -> Spot {
        let Self { directory, processes, remotes, locals, places, namespaces } = self;
        let whose = directory.whose(identity, origin, |machine| {
            let local = Local { machine, netns: identity.netns, port: Some(identity.tuple.local_port) };
            let remote = Remote::new(machine, identity, Side::Client);
            (locals.places.contains_key(&local), remotes.places.contains_key(&remote))
        });
        directory.name_netns(whose.machine, identity.netns, origin);
        let keys = keys(identity, whose);
        let at = [
            processes.enter(keys.process),
            remotes.enter(keys.remote),
            locals.enter(keys.local),
            places.enter(keys.within),
            namespaces.enter(keys.netns),
        ];
        let pid = identity.owner.map(|owner| owner.task.pid);
        pid.into_iter().for_each(|pid| processes.level(at[0]).processes.change(pid, Change::In));
        Spot { at, pid, is_unplaced: whose.place.is_none() && identity.cgroup.is_some() }
    }

    /// Removes a socket that has left its state from its groups.
    pub fn leave(&mut self, spot: Spot) {
        let [process, remote, local, place, netns] = spot.at;
        spot.pid.into_iter().for_each(|pid| self.processes.level(process).processes.change(pid, Change::Out));
        self.processes.leave(process);
        self.remotes.leave(remote);
        self.locals.leave(local);
        self.places.leave(place);
        self.namespaces.leave(netns);
    }

    /// Moves a socket from one state to another; `None` before the first and after the last.
    pub fn step(&mut self, spot: Spot, old: Option<State>, new: Option<State>) {
        for level in self.levels(spot) {
            if let Some(old) = old {
                level.states[old as usize] = level.states[old as usize].saturating_sub(1);
            }
            if let Some(new) = new {
                level.states[new as usize] += 1;
            }
        }
    }

    /// A connection was opened. Its process counts it once that is known.
    pub fn open(&mut self, spot: Spot, second: i64) {
        let skipped = usize::from(spot.pid.is_none());
        self.levels(spot).skip(skipped).for_each(|level| level.opened.add(second));
    }

    /// Who owns a connection that was opened is known now.
    pub fn own(&mut self, spot: Spot, second: i64) {
        self.processes.level(spot.at[By::Process as usize]).opened.add(second);
    }

    pub fn fail(&mut self, spot: Spot, second: i64) {
        self.levels(spot).for_each(|level| level.failed.add(second));
    }

    fn levels(&mut self, spot: Spot) -> impl Iterator<Item = &mut Level> {
        let [process, remote, local, place, netns] = spot.at;
        let Self { processes, remotes, locals, places, namespaces, .. } = self;
        [
            processes.level(process),
            remotes.level(remote),
            locals.level(local),
            places.level(place),
            namespaces.level(netns),
        ]
        .into_iter()
    }

    /// Forgets groups that have had no sockets for some time.
    pub fn sweep(&mut self, second: i64) {
        self.processes.sweep(second);
        self.remotes.sweep(second);
        self.locals.sweep(second);
        self.places.sweep(second);
        self.namespaces.sweep(second);
    }

    /// All groups of a kind, in no order, and the sockets that belong to none of them.
    pub fn groups(&self, by: By) -> (Vec<Ranked>, &Level) {
        let Self { directory, processes, remotes, locals, places, namespaces } = self;
        match by {
            By::Process => (processes.groups(by, directory), &processes.slots[0].level),
            By::Remote => (remotes.groups(by, directory), &remotes.slots[0].level),
            By::Lport => (locals.groups(by, directory), &locals.slots[0].level),
            By::Container => (places.groups(by, directory), &places.slots[0].level),
            By::Netns => (namespaces.groups(by, directory), &namespaces.slots[0].level),
        }
    }

    /// The id of a socket's group of a kind.
    pub fn id(&self, spot: Spot, by: By) -> u64 {
        let place = spot.at[by as usize] as usize;
        match by {
            By::Process => self.processes.slots[place].id,
            By::Remote => self.remotes.slots[place].id,
            By::Lport => self.locals.slots[place].id,
            By::Container => self.places.slots[place].id,
            By::Netns => self.namespaces.slots[place].id,
        }
    }
}

impl Spot {
    /// Whether its groups may be found better now: the name of its control group was unknown.
    pub fn is_unplaced(self) -> bool {
        self.is_unplaced
    }
}

/// Listeners belong to their port, too.
fn keys(identity: &Identity, whose: Whose) -> Keys {
    let is_listener = identity.tuple.remote_port == 0;
    Keys::of(identity, if is_listener { Whose { side: Side::Server, ..whose } } else { whose })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_counts_are_forgotten() {
        let mut recent = Recent::default();
        for second in [100, 100, 101, 105] {
            recent.add(second);
        }
        assert_eq!([105, 109, 110, 111, 114, 115, 200].map(|now| recent.total(now)), [4, 4, 2, 1, 1, 0, 0]);
        recent.add(500);
        assert_eq!(recent.total(500), 1);
    }
}
