//! All figures, apart from the names of what they are of.

use super::STUDIED;
use super::change::{Change, Sum};
use super::counters::Counters;
use super::facts::Facts;
use super::groups::Groups;
use super::histogram::{Bins, Histogram};
use super::pair::{self, Pair};
use super::survival::Survival;
use super::tally::Tally;
use super::who::{Directory, Ends, Key, Keys, Local, Machine, Netns, Process, Remote, Translator, Whose, Within};
use crate::model::row::{Held, Identity};
use crate::model::stream::Origin;
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

/// Where a connection was counted in, by what was known of it then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    whose: Whose,
    /// Of each way of grouping.
    epochs: [u32; 6],
}

/// Connections, and what all of them come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many: each end on a machine that was recorded counts.
    pub connections: u64,
    /// Those whose opening was seen.
    pub opened: u64,
    /// Those that have ended, TIME_WAIT and all.
    pub ended: u64,
    /// Those that had not.
    pub open: u64,
    /// Those of them that neither side had begun to close.
    pub closer_undecided: u64,
    /// Those that were not seen from their opening on, or of which something may have been lost.
    pub incomplete: u64,
    /// Those that ended otherwise than by an orderly close.
    pub failed: u64,
    /// Those that were closed by a reset, from either side.
    pub reset: u64,
    /// Those whose bytes are known.
    pub counted: u64,
    /// Payload that those sent.
    pub bytes_sent: Sum,
    /// Payload that they received.
    pub bytes_received: Sum,
    /// Segments that they retransmitted.
    pub retransmits: Sum,
}

/// All sockets that were in a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stays {
    /// For how long.
    pub survival: Survival<7>,
    /// The known parts of those that are not known exactly.
    pub parts: Histogram<7>,
    /// Small histogram.
    pub bins: Bins,
    /// Those that still are.
    pub open: u64,
    /// Those that nobody had accepted.
    pub never_accepted: u64,
}

/// Everything that is counted. Whose it is, numbers say: those of one directory.
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
    /// Counts a connection in.
    pub(super) fn add(&mut self, facts: &Facts<'_>, whose: Whose) -> Counted {
        self.change(facts, whose, None);
        let Self { processes, remotes, locals, places, namespaces, pairs, .. } = self;
        let epochs =
            [processes.epoch(), remotes.epoch(), locals.epoch(), places.epoch(), namespaces.epoch(), pairs.epoch()];
        Counted { whose, epochs }
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, facts: &Facts<'_>, counted: &Counted) {
        self.change(facts, counted.whose, Some(counted.epochs));
    }

    fn change(&mut self, facts: &Facts<'_>, whose: Whose, counted_at: Option<[u32; 6]>) {
        let change = if counted_at.is_none() { Change::In } else { Change::Out };
        self.figures.change(facts, change);
        self.change_properties(facts, change);
        self.states.iter_mut().zip(0..).for_each(|(stays, place)| stays.change(facts, place, change));
        self.change_groups(facts, whose, counted_at);
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

    /// Whether others were accepted where this one came in, and whether others led where this one leads.
    pub(super) fn knows_ends(&self, machine: Machine, identity: &Identity) -> (bool, bool) {
        let local = Local { machine, netns: identity.netns, port: Some(identity.tuple.local_port) };
        (self.locals.has(&local), self.remotes.has(&Remote::new(machine, identity, Side::Client)))
    }

    /// Notes the name of the network namespace of the last connection. Most have none, and never get one: it is enough to
    /// look now and then.
    pub(super) fn name_netns(&self, directory: &mut Directory, origin: &Origin) {
        if let Some((netns, _)) = self.namespaces.last().filter(|(_, tally)| tally.connections.is_power_of_two()) {
            directory.name_netns(netns.machine, netns.inode, origin);
        }
    }

    /// Counts in what another one has counted; its numbers are those of another directory, if a translator is given.
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

    /// How many groups are kept, of the kind that has most.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let Self { processes, remotes, locals, places, namespaces, pairs, .. } = self;
        let one = [processes.iter().count(), remotes.iter().count(), locals.iter().count()];
        let other = [places.iter().count(), namespaces.iter().count(), pairs.iter().count()];
        one.into_iter().chain(other).max().unwrap_or(0)
    }

    /// From now on, no more than so many groups of each kind are kept.
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
    /// The stay of a connection in one of [`STUDIED`], by its place there.
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
