//! All figures, without the names of groups.

use super::STUDIED;
use super::change::{Change, Sum};
use super::counters::Counters;
use super::facts::Facts;
use super::groups::{Groups, Merge as _};
use super::histogram::{Bins, Histogram};
use super::pair::{self, Pair};
use super::processes::Processes;
use super::survival::Survival;
use super::tally::Tally;
use super::who::{Directory, Ends, Key, Keys, Local, Machine, Netns, Process, Remote, Translator, Whose, Within};
use crate::model::row::{Held, Identity};
use crate::model::stream::Origin;
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

/// Where a connection was counted, by what was known of it then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    whose: Whose,
    /// The epoch of each way of grouping.
    epochs: [u32; 6],
}

/// Totals of all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections; both ends count if both machines were recorded.
    pub connections: u64,
    /// Connections whose opening was seen.
    pub opened: u64,
    /// Connections that have ended, including their TIME_WAIT.
    pub ended: u64,
    /// Connections that are still open.
    pub open: u64,
    /// Open connections that neither side had begun to close.
    pub closer_undecided: u64,
    /// Connections that were not seen from their opening on, or that may lack lost events.
    pub incomplete: u64,
    /// Connections that ended without an orderly close.
    pub failed: u64,
    /// Connections that a reset closed, from either side.
    pub reset: u64,
    /// Connections with known byte totals.
    pub counted: u64,
    /// Payload sent by connections with known totals.
    pub bytes_sent: Sum,
    /// Payload received by connections with known totals.
    pub bytes_received: Sum,
    /// Segments retransmitted by connections with known totals.
    pub retransmits: Sum,
}

/// All stays in one state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stays {
    /// Their durations.
    pub survival: Survival<7>,
    /// The known parts of durations that are not known exactly.
    pub parts: Histogram<7>,
    pub bins: Bins,
    /// Sockets that are still in the state.
    pub open: u64,
    /// Sockets that no process had accepted.
    pub never_accepted: u64,
}

/// All figures. Numbers of one directory stand for machines, names and groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) figures: Figures,
    pub(super) closers: [u64; Closer::ALL.len()],
    pub(super) ends: [u64; End::ALL.len()],
    pub(super) time_wait_ends: [u64; TimeWaitEnd::ALL.len()],
    pub(super) open: [u64; State::ALL.len()],
    pub(super) states: [Stays; STUDIED.len()],
    pub(super) processes: Groups<Process, Tally>,
    pub(super) remotes: Groups<Remote, Tally>,
    pub(super) locals: Groups<Local, Tally>,
    pub(super) places: Groups<Within, Tally>,
    pub(super) namespaces: Groups<Netns, Tally>,
    pub(super) pairs: Groups<Ends, Pair>,
    pub(super) counters: Counters,
}

impl Sums {
    /// Adds a connection.
    pub(super) fn add(&mut self, facts: &Facts<'_>, whose: Whose) -> Counted {
        self.change(facts, whose, None);
        let Self { processes, remotes, locals, places, namespaces, pairs, .. } = self;
        let epochs =
            [processes.epoch(), remotes.epoch(), locals.epoch(), places.epoch(), namespaces.epoch(), pairs.epoch()];
        Counted { whose, epochs }
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, facts: &Facts<'_>, counted: &Counted) {
        self.change(facts, counted.whose, Some(counted.epochs));
    }

    fn change(&mut self, facts: &Facts<'_>, whose: Whose, counted_at: Option<[u32; 6]>) {
        let change = if counted_at.is_none() { Change::In } else { Change::Out };
        self.change_figures(facts, change);
        self.change_groups(facts, whose, counted_at);
    }

    fn change_figures(&mut self, facts: &Facts<'_>, change: Change) {
        self.figures.change(facts, change);
        self.change_properties(facts, change);
        self.states.iter_mut().zip(0..).for_each(|(stays, place)| stays.change(facts, place, change));
    }

    /// Adds a connection to all but its groups.
    pub(super) fn add_figures(&mut self, facts: &Facts<'_>) {
        self.change_figures(facts, Change::In);
    }

    /// Adds a connection to its groups only.
    pub(super) fn add_to_groups(&mut self, facts: &Facts<'_>, whose: Whose) {
        self.change_groups(facts, whose, None);
    }

    /// Adds what was counted of connections that have all their groups in common.
    pub(super) fn merge_group(&mut self, keys: &Keys, tally: &Tally, pids: &Processes, pair: Option<(Ends, &Pair)>) {
        self.processes.change(keys.process, None, |all, _| {
            all.merge(tally);
            all.processes.merge(pids);
        });
        self.remotes.change(keys.remote, None, |all, _| all.merge(tally));
        self.locals.change(keys.local, None, |all, _| all.merge(tally));
        self.places.change(keys.within, None, |all, _| all.merge(tally));
        self.namespaces.change(keys.netns, None, |all, _| all.merge(tally));
        if let Some((ends, its)) = pair {
            self.pairs.change(ends, None, |all, _| all.merge(its));
        }
    }

    /// How many groups there are of the kind with the most.
    pub(super) fn most_groups(&self) -> usize {
        let Self { processes, remotes, locals, places, namespaces, pairs, .. } = self;
        let one = [processes.len(), remotes.len(), locals.len()];
        let other = [places.len(), namespaces.len(), pairs.len()];
        one.into_iter().chain(other).max().unwrap_or(0)
    }

    fn change_properties(&mut self, facts: &Facts<'_>, change: Change) {
        let Facts { connection, .. } = facts;
        if let Some(state) = facts.open {
            change.count(&mut self.open[state as usize]);
        }
        if !facts.is_undecided() {
            change.count(&mut self.closers[connection.closer as usize]);
        }
        if let Some(end) = facts.end {
            change.count(&mut self.ends[end as usize]);
        }
        if let Some(end) = connection.time_wait_end() {
            change.count(&mut self.time_wait_ends[end as usize]);
        }
    }

    fn change_groups(&mut self, facts: &Facts<'_>, whose: Whose, counted_at: Option<[u32; 6]>) {
        let keys = Keys::of(&facts.connection.identity, whose);
        let at = |way: usize| counted_at.map(|epochs| epochs[way]);
        let pid = facts.connection.identity.owner.map(|owner| owner.task.pid);
        self.processes.change(keys.process, at(0), |tally, change| {
            tally.change(facts, change);
            pid.into_iter().for_each(|pid| tally.processes.change(pid, change));
        });
        let count = |tally: &mut Tally, change| tally.change(facts, change);
        self.remotes.change(keys.remote, at(1), count);
        self.locals.change(keys.local, at(2), count);
        self.places.change(keys.within, at(3), count);
        self.namespaces.change(keys.netns, at(4), count);
        if let (Some(ends), Some(short)) = (keys.ends, pair::short(facts.established.held)) {
            self.pairs.change(ends, at(5), |pair, change| pair.change(facts, short, change));
        }
    }

    /// Whether earlier connections were accepted on the local end of this one, and whether earlier ones led to its
    /// remote end.
    pub(super) fn knows_ends(&self, machine: Machine, identity: &Identity) -> (bool, bool) {
        let local = Local { machine, netns: identity.netns, port: Some(identity.tuple.local_port) };
        (self.locals.has(&local), self.remotes.has(&Remote::new(machine, identity, Side::Client)))
    }

    /// Notes the name of the network namespace of the last connection. Most namespaces never have a name, so a check
    /// now and then is enough.
    pub(super) fn name_netns(&self, directory: &mut Directory, origin: &Origin) {
        if let Some((netns, _)) = self.namespaces.last().filter(|(_, tally)| tally.connections.is_power_of_two()) {
            directory.name_netns(netns.machine, netns.inode, origin);
        }
    }

    /// Adds other sums. With a translator, their numbers are those of another directory.
    pub(super) fn merge(&mut self, other: &Self, names: &mut Option<Translator<'_>>) {
        self.figures.merge(&other.figures);
        add_up(&mut self.closers, &other.closers);
        add_up(&mut self.ends, &other.ends);
        add_up(&mut self.time_wait_ends, &other.time_wait_ends);
        add_up(&mut self.open, &other.open);
        self.states.iter_mut().zip(&other.states).for_each(|(mine, its)| mine.merge(its));
        self.processes.merge(&other.processes, |key| translate(key, names));
        self.remotes.merge(&other.remotes, |key| translate(key, names));
        self.locals.merge(&other.locals, |key| translate(key, names));
        self.places.merge(&other.places, |key| translate(key, names));
        self.namespaces.merge(&other.namespaces, |key| translate(key, names));
        self.pairs.merge(&other.pairs, |key| translate(key, names));
        self.counters.merge(&other.counters, names);
    }

    /// The largest number of groups of any kind.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let Self { processes, remotes, locals, places, namespaces, pairs, .. } = self;
        let one = [processes.iter().count(), remotes.iter().count(), locals.iter().count()];
        let other = [places.iter().count(), namespaces.iter().count(), pairs.iter().count()];
        one.into_iter().chain(other).max().unwrap_or(0)
    }

    /// Sets the limit of groups of each kind.
    pub(super) fn limit(&mut self, most: usize) {
        self.processes.limit(most);
        self.remotes.limit(most);
        self.locals.limit(most);
        self.places.limit(most);
        self.namespaces.limit(most);
        self.pairs.limit(most);
    }
}

fn translate<K: Key>(key: K, names: &mut Option<Translator<'_>>) -> K {
    match names {
        Some(names) => key.translate(names),
        None => key,
    }
}

fn add_up(mine: &mut [u64], its: &[u64]) {
    mine.iter_mut().zip(its).for_each(|(mine, its)| *mine += its);
}

impl Figures {
    fn change(&mut self, facts: &Facts<'_>, change: Change) {
        let Facts { connection, .. } = facts;
        change.count(&mut self.connections);
        change.count_if(&mut self.opened, connection.opened_ns.is_some());
        change.count_if(&mut self.ended, facts.end.is_some());
        change.count_if(&mut self.open, facts.open.is_some());
        change.count_if(&mut self.closer_undecided, facts.is_undecided());
        change.count_if(&mut self.incomplete, !connection.complete);
        change.count_if(&mut self.failed, facts.failed());
        change.count_if(&mut self.reset, facts.end.is_some_and(End::is_reset));
        if let Some(totals) = &connection.totals {
            change.count(&mut self.counted);
            change.sum(&mut self.bytes_sent, totals.bytes_sent);
            change.sum(&mut self.bytes_received, totals.bytes_received);
            change.sum(&mut self.retransmits, totals.retransmits.into());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.opened += other.opened;
        self.ended += other.ended;
        self.open += other.open;
        self.closer_undecided += other.closer_undecided;
        self.incomplete += other.incomplete;
        self.failed += other.failed;
        self.reset += other.reset;
        self.counted += other.counted;
        self.bytes_sent.merge(other.bytes_sent);
        self.bytes_received.merge(other.bytes_received);
        self.retransmits.merge(other.retransmits);
    }
}

impl Stays {
    /// Adds or removes the stay of a connection in one of [`STUDIED`], given as an index.
    fn change(&mut self, facts: &Facts<'_>, place: usize, change: Change) {
        let spent = facts.studied[place];
        let Some(seen) = spent.seen else { return };
        self.survival.change(seen, change);
        if let Held::AtLeast(ns) = spent.held {
            self.parts.change(ns, change);
        }
        self.bins.change(spent.held.known_ns().unwrap_or(0), spent.held.is_at_least(), change);
        change.count_if(&mut self.open, facts.open == Some(STUDIED[place]));
        change.count_if(&mut self.never_accepted, facts.never_accepted);
    }

    fn merge(&mut self, other: &Self) {
        self.survival.merge(&other.survival);
        self.parts.merge(&other.parts);
        self.bins.merge(&other.bins);
        self.open += other.open;
        self.never_accepted += other.never_accepted;
    }
}
