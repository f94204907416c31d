//! Connections in the finest groups: those that all of their properties have in common. A connection is counted once
//! there, and not in each of its groups. The groups get the sums later.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::Counts;
use super::change::Change;
use super::facts::Facts;
use super::groups::{MOST, Merge as _};
use super::pair::{self, Pair};
use super::processes::Processes;
use super::tally::Tally;
use super::who::{Keys, Local, Machine, Netns, Process, Remote, Whose};
use crate::model::row::{Connection, Identity};
use crate::model::stream::Origin;
use crate::model::tcp::Side;

/// How many finest groups are kept before their sums are handed on.
const KEPT: usize = 1024;

/// Groups with fewer connections than this, on average, save nothing.
const WORTH_IT: u64 = 8;

/// How many groups are found without a look-up, as a power of two.
const RECENT_BITS: u32 = 9;

/// Counts connections that are never removed again. [`Finest::settle`] hands the sums on to [`Counts`]; before that, these
/// do not have all of them.
#[derive(Clone, Debug, Default)]
pub struct Finest {
    all: Vec<Group>,
    places: HashMap<Key, u32, FixedState>,
    /// The groups that were counted last, by a digest of their keys.
    recent: Vec<u32>,
    /// Connections since the sums were handed on.
    counted: u64,
    /// Ends that a group is about.
    locals: HashSet<Local, FixedState>,
    remotes: HashSet<Remote, FixedState>,
    /// Connections of each network namespace; those of the one that was counted last are beside.
    namespaces: HashMap<Netns, u64, FixedState>,
    last: Option<(Netns, u64)>,
    /// There are so many groups that connections are counted in each of them at once.
    is_given_up: bool,
}

/// What the connections of a finest group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    process: Process,
    remote: Remote,
    netns: Option<u32>,
    local_port: Option<u16>,
    side: Side,
}

#[derive(Clone, Debug)]
struct Group {
    key: Key,
    keys: Keys,
    tally: Tally,
    processes: Processes,
    pair: Pair,
}

impl Key {
    fn of(identity: &Identity, Whose { machine, place, side }: Whose) -> Self {
        let process = Process { machine, comm: identity.owner.map(|owner| owner.task.comm.0), place };
        let local_port = (side == Side::Server).then_some(identity.tuple.local_port);
        Self { process, remote: Remote::new(machine, identity, side), netns: identity.netns, local_port, side }
    }

    /// Where it is among the recent ones. Keys that collide are looked up, so nothing depends on it.
    fn digest(&self) -> usize {
        let [ip, comm] = [u128::from(self.remote.ip), self.process.comm.map_or(0, u128::from_le_bytes)];
        let [ip_high, ip_low, comm_high, comm_low] = [ip >> 64, ip, comm >> 64, comm].map(|half| half as u64);
        let ports = u64::from(self.remote.port) << 16 | u64::from(self.local_port.unwrap_or(0));
        let place = u64::from(self.process.place.unwrap_or(0)) << 48 ^ u64::from(self.netns.unwrap_or(0));
        let one = ip_low ^ ip_high.rotate_left(17) ^ comm_low.rotate_left(31) ^ comm_high.rotate_left(47);
        let mixed = one ^ place ^ ports << 24 ^ (self.side as u64) << 60;
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RECENT_BITS)) as usize
    }
}

impl Finest {
    /// Adds a connection, ended or open, as [`Counts::add`] does.
    pub fn add(&mut self, connection: &Connection, origin: &Origin, counts: &mut Counts) {
        if connection.ended_before() {
            return;
        }
        if self.is_given_up {
            counts.add(connection, origin);
            return;
        }
        let identity = &connection.identity;
        let whose = counts.directory.whose(identity, origin, |machine| {
            let (local, remote) = counts.sums.knows_ends(machine, identity);
            let (its_local, its_remote) = self.knows_ends(machine, identity);
            (local || its_local, remote || its_remote)
        });
        let facts = Facts::of(connection);
        counts.sums.add_figures(&facts);
        let key = Key::of(identity, whose);
        let Some(place) = self.place(key, identity, whose, counts) else {
            // The figures are counted already.
            counts.sums.add_to_groups(&facts, whose);
            counts.sums.name_netns(&mut counts.directory, origin);
            return;
        };
        self.counted += 1;
        let group = &mut self.all[place];
        group.tally.change(&facts, Change::In);
        if let Some(owner) = identity.owner {
            group.processes.change(owner.task.pid, Change::In);
        }
        if let (Some(_), Some(short)) = (group.keys.ends, pair::short(facts.established.held)) {
            group.pair.change(&facts, short, Change::In);
        }
        let netns = group.keys.netns;
        if self.count_netns(netns).is_power_of_two() {
            counts.directory.name_netns(netns.machine, netns.inode, origin);
        }
    }

    /// How many connections a network namespace has with this one.
    fn count_netns(&mut self, netns: Netns) -> u64 {
        let before = match self.last {
            Some((last, count)) if last == netns => count,
            last => {
                self.namespaces.extend(last);
                self.namespaces.get(&netns).copied().unwrap_or(0)
            }
        };
        self.last = Some((netns, before + 1));
        before + 1
    }

    fn knows_ends(&self, machine: Machine, identity: &Identity) -> (bool, bool) {
        let local = Local { machine, netns: identity.netns, port: Some(identity.tuple.local_port) };
        (self.locals.contains(&local), self.remotes.contains(&Remote::new(machine, identity, Side::Client)))
    }

    /// The place of a group; `None` once there are too many.
    fn place(&mut self, key: Key, identity: &Identity, whose: Whose, counts: &mut Counts) -> Option<usize> {
        let slot = key.digest();
        let recent = self.recent.get(slot).map(|place| *place as usize);
        if let Some(place) = recent.filter(|place| self.all.get(*place).is_some_and(|group| group.key == key)) {
            return Some(place);
        }
        let known = self.places.get(&key).copied();
        let place = match known {
            Some(place) => place,
            None => self.new_place(key, identity, whose, counts)?,
        };
        self.recent.resize(1 << RECENT_BITS, u32::MAX);
        self.recent[slot] = place;
        Some(place as usize)
    }

    fn new_place(&mut self, key: Key, identity: &Identity, whose: Whose, counts: &mut Counts) -> Option<u32> {
        let is_worth_it = self.counted >= KEPT as u64 * WORTH_IT;
        if self.all.len() >= KEPT {
            self.settle(counts);
            self.is_given_up = !is_worth_it;
        }
        // Where groups are folded, it matters when their sums come.
        self.is_given_up |= counts.sums.most_groups() + self.all.len() >= MOST;
        if self.is_given_up {
            self.settle(counts);
            return None;
        }
        let keys = Keys::of(identity, whose);
        self.locals.insert(keys.local);
        self.remotes.insert(keys.remote);
        let place = u32::try_from(self.all.len()).ok()?;
        let (tally, processes, pair) = (Tally::default(), Processes::default(), Pair::default());
        self.all.push(Group { key, keys, tally, processes, pair });
        self.places.insert(key, place);
        Some(place)
    }

    /// Hands the sums on.
    pub fn settle(&mut self, counts: &mut Counts) {
        for Group { keys, tally, processes, pair, .. } in self.all.drain(..) {
            let pair = keys.ends.filter(|_| pair.size() > 0).map(|ends| (ends, &pair));
            counts.sums.merge_group(&keys, &tally, &processes, pair);
        }
        self.places.clear();
        self.recent.clear();
        self.counted = 0;
    }
}
