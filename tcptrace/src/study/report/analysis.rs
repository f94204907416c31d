//! Counting connections one by one, in memory that does not grow with their number.

use super::counters::Counters;
use super::facts::Facts;
use super::groups::{Groups, Pair, Tally};
use super::histogram::{Bins, Histogram};
use super::rows::{Options, Overview, SHORT_NS, STUDIED, Slow};
use super::series::{Moment, Series};
use super::slowest::Slowest;
use super::survival::Survival;
use super::who::{Directory, Ends, Local, Machine, Netns, Process, Remote, Within};
use crate::model::counters::Increase;
use crate::model::life::Life;
use crate::model::row::{Connection, Held};
use crate::model::stream::Origin;
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

/// Takes in connections, and in the end makes a [`super::Report`] of them. A million of them takes some tens of MiB at
/// most: groups beyond a number go to the others, and durations are counted in buckets.
#[derive(Clone, Debug)]
pub struct Analysis {
    pub(super) options: Options,
    pub(super) directory: Directory,
    pub(super) overview: Overview,
    pub(super) closers: [u64; Closer::ALL.len()],
    pub(super) ends: [u64; End::ALL.len()],
    pub(super) time_wait_ends: [u64; TimeWaitEnd::ALL.len()],
    pub(super) open: [u64; State::ALL.len()],
    pub(super) states: [InState; STUDIED.len()],
    pub(super) processes: Groups<Process, Tally>,
    pub(super) remotes: Groups<Remote, Tally>,
    pub(super) locals: Groups<Local, Tally>,
    pub(super) places: Groups<Within, Tally>,
    pub(super) namespaces: Groups<Netns, Tally>,
    pub(super) pairs: Groups<Ends, Pair>,
    pub(super) series: Series,
    pub(super) slowest: [Slowest; Slow::ALL.len()],
    pub(super) counters: Counters,
}

/// All sockets that were in a state.
#[derive(Clone, Debug, Default)]
pub(super) struct InState {
    pub(super) survival: Survival<7>,
    /// The known parts of those that are not known exactly.
    pub(super) parts: Histogram<7>,
    pub(super) bins: Bins,
    pub(super) open: u64,
    pub(super) never_accepted: u64,
    pub(super) unplaced: u64,
}

impl Analysis {
    /// Of nothing so far.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            directory: Directory::default(),
            overview: Overview::default(),
            closers: [0; Closer::ALL.len()],
            ends: [0; End::ALL.len()],
            time_wait_ends: [0; TimeWaitEnd::ALL.len()],
            open: [0; State::ALL.len()],
            states: Default::default(),
            processes: Groups::default(),
            remotes: Groups::default(),
            locals: Groups::default(),
            places: Groups::default(),
            namespaces: Groups::default(),
            pairs: Groups::default(),
            series: Series::default(),
            slowest: std::array::from_fn(|_| Slowest::new(options.top)),
            counters: Counters::default(),
        }
    }

    /// Counts in what no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        self.counters.add(row, origin, &mut self.directory);
    }

    /// Counts a connection in: one that has ended, or in the end one that has not.
    pub fn add(&mut self, connection: &Connection, origin: &Origin) {
        if connection.ended_before() {
            // It has ended before, and was counted then; only its descriptor is still open.
            return;
        }
        let facts = Facts::of(connection);
        self.count(&facts);
        self.study(&facts);
        self.place(&facts, origin);
        self.group(&facts, origin);
        for (slow, slowest) in Slow::ALL.into_iter().zip(&mut self.slowest) {
            let held = match slow {
                Slow::TimeWait => connection.held(State::TimeWait),
                Slow::CloseWait => connection.held(State::CloseWait),
                Slow::Lifetime => connection.lifetime(),
            };
            slowest.add(slow, held, connection, origin);
        }
    }

    fn count(&mut self, facts: &Facts<'_>) {
        let Facts { connection, .. } = facts;
        let overview = &mut self.overview;
        overview.connections += 1;
        overview.opened += u64::from(connection.opened_ns.is_some());
        overview.incomplete += u64::from(!connection.complete);
        overview.failed += u64::from(facts.failed());
        if let Some(totals) = &connection.totals {
            overview.counted += 1;
            overview.bytes_sent = overview.bytes_sent.saturating_add(totals.bytes_sent);
            overview.bytes_received = overview.bytes_received.saturating_add(totals.bytes_received);
            overview.retransmits = overview.retransmits.saturating_add(totals.retransmits.into());
        }
        if let Some(state) = facts.open {
            overview.open += 1;
            self.open[state as usize] += 1;
        }
        match connection.closer {
            Closer::Unknown if facts.open.is_some() => overview.closer_undecided += 1,
            closer => self.closers[closer as usize] += 1,
        }
        if let Some(end) = facts.end {
            overview.ended += 1;
            overview.reset += u64::from(end.is_reset());
            self.ends[end as usize] += 1;
            if let Some(time_wait_end) = connection.time_wait_end() {
                self.time_wait_ends[time_wait_end as usize] += 1;
            }
        }
    }

    fn study(&mut self, facts: &Facts<'_>) {
        for ((state, held), studied) in self.states.iter_mut().zip(facts.studied).zip(STUDIED) {
            let Some(seen) = facts.seen(studied) else { continue };
            state.survival.add(seen);
            if let Held::AtLeast(ns) = held {
                state.parts.add(ns);
            }
            state.bins.add(held.known_ns().unwrap_or(0), held.is_at_least());
            state.open += u64::from(facts.open == Some(studied));
            state.never_accepted += u64::from(facts.never_accepted);
        }
    }

    /// What it adds to the course of time.
    fn place(&mut self, facts: &Facts<'_>, origin: &Origin) {
        let Facts { connection, .. } = facts;
        let clock = origin.context.clock;
        let mut unplaced = facts.studied.map(|held| held != Held::Unknown);
        for (state, from_ns, to_ns) in Life::of(connection).known() {
            self.series.add(state, clock.unix_ns(from_ns), clock.unix_ns(to_ns));
            if let Some(place) = STUDIED.iter().position(|studied| *studied == state) {
                unplaced[place] = false;
            }
        }
        for (state, unplaced) in self.states.iter_mut().zip(unplaced) {
            state.unplaced += u64::from(unplaced);
        }
        if let Some(opened) = connection.opened_ns {
            self.series.note(Moment::Opened, clock.unix_ns(opened));
        }
        if facts.end.is_some() {
            self.series.note(Moment::Ended, clock.unix_ns(connection.boot_ns));
        }
        if facts.failed() {
            self.series.note(Moment::Failed, clock.unix_ns(connection.boot_ns));
        }
    }

    fn group(&mut self, facts: &Facts<'_>, origin: &Origin) {
        let identity = &facts.connection.identity;
        let machine = self.directory.machine(origin);
        let place = self.directory.place(machine, identity, origin);
        let side = self.side(facts, machine);
        let task = identity.owner.map(|owner| owner.task);
        let process = Process { machine, comm: task.map(|task| task.comm.0), place };
        let remote = Remote::new(machine, identity, side);
        self.directory.name_interface(machine, identity, origin);
        let local_port = (side == Side::Server).then_some(identity.tuple.local_port);
        let tally = self.processes.of(process);
        tally.add(facts);
        if let Some(task) = task {
            tally.processes.add(task.pid);
        }
        self.remotes.of(remote).add(facts);
        let netns = identity.netns.filter(|_| local_port.is_some());
        self.locals.of(Local { machine, netns, port: local_port }).add(facts);
        self.places.of(Within { machine, place }).add(facts);
        let tally = self.namespaces.of(Netns { machine, inode: identity.netns });
        tally.add(facts);
        // Most have no name, and never get one: it is enough to look now and then.
        if tally.connections.is_power_of_two() {
            self.directory.name_netns(machine, identity.netns, origin);
        }
        if side != Side::Unknown {
            self.pair(Ends { process, remote, local_port }, facts);
        }
    }

    /// Which end it is, as far as it or others tell: where connections were accepted, or where they led.
    fn side(&self, facts: &Facts<'_>, machine: Machine) -> Side {
        let identity = &facts.connection.identity;
        if identity.side != Side::Unknown {
            return identity.side;
        }
        let local = Local { machine, netns: identity.netns, port: Some(identity.tuple.local_port) };
        let remote = Remote::new(machine, identity, Side::Client);
        match (self.locals.has(&local), self.remotes.has(&remote)) {
            (true, false) => Side::Server,
            (false, true) => Side::Client,
            _ => Side::Unknown,
        }
    }

    fn pair(&mut self, ends: Ends, facts: &Facts<'_>) {
        let short = match facts.established {
            Held::Exactly(ns) if ns < SHORT_NS => Some(ns),
            Held::Exactly(_) => None,
            Held::AtLeast(ns) if ns >= SHORT_NS => None,
            Held::AtLeast(_) | Held::Unknown => return,
        };
        let pair = self.pairs.of(ends);
        match short {
            Some(ns) => pair.add_short(facts, ns),
            None => pair.longer += 1,
        }
        if let Some(owner) = facts.connection.identity.owner {
            pair.processes.add(owner.task.pid);
        }
    }
}
