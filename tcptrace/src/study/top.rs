//! The state of a live screen: sockets by state and group as they are, what happened in the last minutes, what the rules
//! of a diagnosis say of it, and how it all was some time ago. Pure: items, rows and time in, [`Frame`]s out.

mod findings;
mod frame;
mod make;
#[cfg(test)]
pub(crate) mod samples;
mod series;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;

use self::series::Series;
use self::sockets::{Socket, Sockets};
use crate::engine::filter::Verdict;
use crate::model::criteria::Criteria;
use crate::model::event::Event;
use crate::model::facts::AcceptQueue;
use crate::model::names::Names;
use crate::model::row::{Connection, Owner, Row, Status, Transition};
use crate::model::stream::{Clock, Item, Lost, Origin};
use crate::model::tcp::{OwnerSource, Side, State, Task};
use crate::study::counts::is_failure;
use crate::study::counts::levels::{Levels, Recent, Spot};
use crate::study::diagnose::Diagnosis;
use crate::study::ports::{self, PortSettings};

pub use self::findings::Findings;
pub use self::frame::{Ask, Detail, Frame, GroupRow, Queue, Rates, Rows, Sort, Waiter};
pub use self::series::Second;
pub use self::sockets::Key;

const SECOND: i64 = 1_000_000_000;

/// States in which a socket waits for its process or for its peer to close.
const WAITING: [State; 2] = [State::CloseWait, State::FinWait2];

/// Rows of each table that are kept of an earlier moment.
const KEPT_ROWS: usize = 25;

/// Most destinations whose rate of TIME_WAITs is measured.
const MOST_DESTINATIONS: usize = 4096;

/// Most listeners whose processes are kept.
const MOST_LISTENERS: usize = 1 << 16;

/// The state of a live screen.
#[derive(Debug)]
pub struct Top {
    is_trace: bool,
    host: String,
    /// The time, and when looking began, in ns of Unix time.
    now: i64,
    begun: Option<i64>,
    /// By number of the recording.
    clocks: Vec<Clock>,
    is_surveyed: bool,
    sockets: Sockets,
    /// Those of them that are shown and wait for somebody to close.
    waiting: HashSet<Key, FixedState>,
    levels: Levels,
    series: Series,
    /// Sockets by index in [`State::ALL`].
    states: [u32; State::ALL.len()],
    lost: Vec<Lost>,
    ask: Ask,
    /// The socket that the last row closed: the connection that ended with it comes next.
    closed: Option<(Key, Spot)>,
    /// The connection that is shown, as it ended.
    ended: Option<(Key, Connection)>,
    findings: BTreeMap<usize, Findings>,
    diagnosis: Arc<Diagnosis>,
    /// The settings of each network namespace on which its ports depend.
    settings: BTreeMap<Option<u32>, PortSettings>,
    /// TIME_WAITs of clients that began, by destination.
    leaving: HashMap<ports::Key, Recent, FixedState>,
    budgets: Rows<ports::Budget>,
    /// By network namespace and cookie of the listener.
    queues: HashMap<(u32, u64), AcceptQueue, FixedState>,
    /// Who listens, by cookie.
    listeners: HashMap<u64, Task, FixedState>,
    history: VecDeque<Arc<Frame>>,
    most: usize,
}

impl Top {
    /// A state that remembers as many seconds.
    pub fn new(is_trace: bool, seconds: usize, ask: Ask) -> Self {
        Self {
            is_trace,
            host: String::new(),
            now: 0,
            begun: None,
            clocks: Vec::new(),
            is_surveyed: false,
            sockets: Sockets::default(),
            waiting: HashSet::default(),
            levels: Levels::default(),
            series: Series::new(seconds),
            states: [0; State::ALL.len()],
            lost: Vec::new(),
            ask,
            closed: None,
            ended: None,
            findings: BTreeMap::new(),
            diagnosis: Arc::default(),
            settings: BTreeMap::new(),
            leaving: HashMap::default(),
            budgets: Rows::default(),
            queues: HashMap::default(),
            listeners: HashMap::default(),
            history: VecDeque::new(),
            most: seconds,
        }
    }

    /// Takes an item, before the rows that follow from it.
    pub fn item(&mut self, item: &Item, origin: &Origin) {
        let is_trace = self.is_trace;
        self.findings.entry(origin.number).or_insert_with(|| Findings::new(is_trace)).item(item);
        match item {
            Item::Head(head) => self.host.clone_from(&head.host),
            Item::Settings(settings) => {
                if let Some(ports) = PortSettings::of(settings) {
                    self.settings.insert(settings.netns, ports);
                }
            }
            Item::AcceptQueues(queues) => {
                for queue in &queues.queues {
                    self.queues.insert((queues.netns, queue.conn), *queue);
                }
                for conn in &queues.gone {
                    self.queues.remove(&(queues.netns, *conn));
                    self.listeners.remove(conn);
                }
            }
            Item::Event(event) => self.event(event, origin),
            _ => {}
        }
    }

    fn event(&mut self, event: &Event, origin: &Origin) {
        let owner = match event {
            Event::Accepted { id, task, .. } => Some((id.number(), *task, OwnerSource::Accept, None)),
            Event::Holder(holder) if holder.found.state == State::Listen => {
                if self.listeners.len() < MOST_LISTENERS {
                    self.listeners.insert(holder.found.id.number(), holder.task);
                }
                None
            }
            Event::Holder(holder) => Some((holder.found.id.number(), holder.task, OwnerSource::Scan, Some(holder.fd))),
            Event::SurveyEnded { .. } => {
                self.is_surveyed = true;
                None
            }
            _ => None,
        };
        let Some((conn, task, source, fd)) = owner else { return };
        let key = Key { origin: origin.number, conn };
        let Some(socket) = self.sockets.all.get_mut(&key) else { return };
        socket.fd = fd.or(socket.fd);
        if socket.identity.owner.is_none_or(|owner| owner.source == OwnerSource::Listen) {
            socket.identity.owner = Some(Owner { task, source });
            self.place(key, origin);
            let spot = self.sockets.all.get(&key).and_then(|socket| socket.spot);
            if let Some(spot) = spot.filter(|_| source == OwnerSource::Accept) {
                self.levels.own(spot, self.now.div_euclid(SECOND));
            }
        }
    }

    /// Takes a row.
    pub fn row(&mut self, row: &Row, origin: &Origin) {
        self.time(origin.context.clock.unix_ns(row.boot_ns()), origin);
        if let Some(findings) = self.findings.get_mut(&origin.number) {
            findings.row(row);
        }
        match row {
            Row::Transition(row) if row.stuck.is_none() => self.transition(row, origin),
            Row::Connection(row) if matches!(row.status, Status::Ended(_)) => self.ended(row, origin),
            Row::Loss(loss) => {
                let place = self.lost.iter().position(|known| known.cause == loss.cause).unwrap_or_else(|| {
                    self.lost.push(Lost { cause: loss.cause, events: 0, at_least: false });
                    self.lost.len() - 1
                });
                let lost = &mut self.lost[place];
                lost.events = lost.events.saturating_add(loss.count.unwrap_or(0));
                lost.at_least |= loss.count.is_none();
            }
            _ => {}
        }
    }

    fn transition(&mut self, row: &Transition, origin: &Origin) {
        // Listeners are counted by their queues.
        if row.new == State::Listen {
            let owner = row.identity.owner.filter(|_| self.listeners.len() < MOST_LISTENERS);
            self.listeners.extend(owner.map(|owner| (row.identity.conn, owner.task)));
            return;
        }
        if row.old == State::Listen && row.new == State::Closed {
            self.listeners.remove(&row.identity.conn);
            return;
        }
        let key = Key { origin: origin.number, conn: row.identity.conn };
        let second = self.now.div_euclid(SECOND);
        let (socket, is_new) = self.sockets.of(key, &row.identity, row.old);
        // A scan may have shown more than the row says.
        let known = socket.identity.owner.filter(|_| row.identity.owner.is_none());
        let has_changed = !is_new && socket.identity != row.identity;
        socket.identity = row.identity;
        socket.identity.owner = row.identity.owner.or(known);
        let before = (!is_new).then_some(socket.state);
        socket.enter(row);
        let spot = socket.spot;
        let spot = if is_new || has_changed || spot.is_some_and(Spot::is_unplaced) {
            self.step(key, spot, before, None);
            let spot = self.judge(key, origin);
            self.step(key, spot, None, Some(row.new));
            spot
        } else {
            self.step(key, spot, before, Some(row.new));
            spot
        };
        spot.into_iter().for_each(|spot| self.count(spot, row, second));
        if row.new == State::Closed {
            if self.ask.detail == Detail::Connection(key) {
                self.ended = self.sockets.all.get(&key).map(|socket| (key, socket.ended(row)));
            }
            self.remove(key);
        }
    }

    /// Counts what a transition begins.
    fn count(&mut self, spot: Spot, row: &Transition, second: i64) {
        let opens = match row.identity.side {
            Side::Server => row.new == State::Established,
            _ => row.new == State::SynSent,
        };
        if opens {
            self.series.now().opened += 1;
            self.levels.open(spot, second);
        }
        if row.new == State::TimeWait && row.identity.side == Side::Client {
            let interface = if row.identity.tuple.is_link_local() { row.identity.interface } else { 0 };
            let (netns, tuple) = (row.identity.netns, row.identity.tuple);
            let (source, destination, port) = (tuple.local_ip, tuple.remote_ip, tuple.remote_port);
            let key = ports::Key { netns, interface, source, destination, port };
            if self.leaving.len() < MOST_DESTINATIONS || self.leaving.contains_key(&key) {
                self.leaving.entry(key).or_default().add(second);
            }
        }
    }

    fn ended(&mut self, row: &Connection, origin: &Origin) {
        let key = Key { origin: origin.number, conn: row.identity.conn };
        let closed = self.closed.filter(|(closed, _)| *closed == key).map(|(_, spot)| spot);
        let spot = closed.or_else(|| self.sockets.all.get(&key)?.spot);
        if self.ended.as_ref().is_some_and(|(ended, _)| *ended == key) {
            self.ended = Some((key, row.clone()));
        }
        let (Some(spot), Some(end)) = (spot, row.end()) else { return };
        let second = self.series.now();
        second.closers[row.closer as usize] += 1;
        second.ends[end as usize] += 1;
        if is_failure(end) {
            self.levels.fail(spot, self.now.div_euclid(SECOND));
        }
    }

    /// The sockets that the engine follows are about to come, each as a row.
    pub fn look(&mut self) {
        self.sockets.look();
    }

    /// A socket that the engine follows.
    pub fn confirm(&mut self, row: &Row, origin: &Origin) {
        let Some(identity) = row.identity() else { return };
        let key = Key { origin: origin.number, conn: identity.conn };
        let Some((socket, before)) = self.sockets.confirm(key, row) else { return };
        let (now, spot) = (socket.state, socket.spot);
        self.step(key, spot, before, None);
        let spot = self.judge(key, origin);
        self.step(key, spot, None, Some(now));
    }

    /// All have come: there are no others.
    pub fn confirmed(&mut self, origin: &Origin) {
        for key in self.sockets.unconfirmed(origin.number) {
            if let Some(socket) = self.sockets.all.get(&key) {
                self.step(key, socket.spot, Some(socket.state), None);
            }
            self.remove(key);
        }
    }

    /// Finds the groups of a socket anew.
    fn place(&mut self, key: Key, origin: &Origin) {
        let Some(socket) = self.sockets.all.get(&key) else { return };
        let state = socket.state;
        self.step(key, socket.spot, Some(state), None);
        let spot = self.judge(key, origin);
        self.step(key, spot, None, Some(state));
    }

    /// Puts a socket that is in no state into its groups, if it is to be shown. Returns where.
    fn judge(&mut self, key: Key, origin: &Origin) -> Option<Spot> {
        let now = self.boot_ns(key.origin);
        let Self { sockets, levels, ask, .. } = self;
        let socket = sockets.all.get_mut(&key)?;
        socket.spot.take().into_iter().for_each(|spot| levels.leave(spot));
        if is_shown(socket, &ask.criteria, now, &origin.context.names) {
            socket.spot = Some(levels.enter(&socket.identity, origin));
        }
        socket.spot
    }

    /// Counts a socket that is shown in its next state.
    fn step(&mut self, key: Key, spot: Option<Spot>, old: Option<State>, new: Option<State>) {
        let is_state = |state: &State| *state != State::Closed;
        let (old, new) = (old.filter(is_state), new.filter(is_state));
        let Some(spot) = spot else { return };
        self.levels.step(spot, old, new);
        if let Some(old) = old {
            self.states[old as usize] = self.states[old as usize].saturating_sub(1);
        }
        if let Some(new) = new {
            self.states[new as usize] += 1;
        }
        self.series.now().states = self.states;
        let is_waiting = |state: Option<State>| state.is_some_and(|state| WAITING.contains(&state));
        match (is_waiting(old), is_waiting(new)) {
            (_, true) => self.waiting.insert(key),
            (true, false) => self.waiting.remove(&key),
            _ => false,
        };
    }

    fn remove(&mut self, key: Key) {
        let Some(socket) = self.sockets.all.remove(&key) else { return };
        self.closed = socket.spot.map(|spot| (key, spot));
        socket.spot.into_iter().for_each(|spot| self.levels.leave(spot));
    }

    /// Nothing from before this time, in ns of Unix time, is still to come.
    pub fn time(&mut self, unix_ns: i64, origin: &Origin) {
        if self.clocks.len() <= origin.number {
            self.clocks.resize(origin.number + 1, Clock::default());
        }
        self.clocks[origin.number] = origin.context.clock;
        self.pass(unix_ns);
    }

    /// The same, without a word of the clock.
    pub fn pass(&mut self, unix_ns: i64) {
        if unix_ns <= self.now {
            return;
        }
        self.now = unix_ns;
        self.begun.get_or_insert(unix_ns);
        let second = unix_ns.div_euclid(SECOND);
        if self.series.number().is_some_and(|last| second <= last) {
            return;
        }
        self.series.turn(second);
        self.series.now().states = self.states;
        self.levels.sweep(second);
        self.leaving.retain(|_, recent| recent.total(second) > 0);
        let clocks = &self.clocks;
        for (number, findings) in &mut self.findings {
            let clock = clocks.get(*number).copied().unwrap_or_default();
            findings.turn(u64::try_from(unix_ns.saturating_sub(clock.boot_to_unix_ns)).unwrap_or(0));
        }
    }

    /// The current second, in Unix time.
    pub fn second(&self) -> i64 {
        self.now.div_euclid(SECOND)
    }

    fn boot_ns(&self, origin: usize) -> u64 {
        let clock = self.clocks.get(origin).copied().unwrap_or_default();
        u64::try_from(self.now.saturating_sub(clock.boot_to_unix_ns)).unwrap_or(0)
    }

    /// What frames are to have from now on.
    pub fn ask(&mut self, ask: Ask, names: &Names) {
        let criteria = std::mem::replace(&mut self.ask, ask).criteria;
        if !matches!(self.ask.detail, Detail::Connection(key) if self.ended.as_ref().is_some_and(|it| it.0 == key)) {
            self.ended = None;
        }
        if criteria != self.ask.criteria {
            self.filter(names);
        }
    }

    /// Counts the sockets anew that are to be shown.
    fn filter(&mut self, names: &Names) {
        self.levels = Levels::default();
        self.waiting.clear();
        self.series.clear();
        self.series.turn(self.now.div_euclid(SECOND));
        (self.states, self.closed) = ([0; State::ALL.len()], None);
        self.leaving.clear();
        let keys: Vec<Key> = self.sockets.all.keys().copied().collect();
        let mut origin = Origin::default();
        origin.context.names = names.clone();
        for key in keys {
            origin.number = key.origin;
            let Some(socket) = self.sockets.all.get_mut(&key) else { continue };
            socket.spot = None;
            let state = socket.state;
            let spot = self.judge(key, &origin);
            self.step(key, spot, None, Some(state));
        }
    }

    /// Has the rules decide. This looks at every socket, so the caller decides how often.
    pub fn diagnose(&mut self) {
        let mut all = Diagnosis::default();
        for (number, findings) in &self.findings {
            let now = self.boot_ns(*number);
            let sockets = self.sockets.all.iter().filter(|(key, _)| key.origin == *number);
            let found = findings.diagnose(sockets.map(|(_, socket)| socket.connection(now)));
            all = Diagnosis { findings: [all.findings, found.findings].concat(), ..found };
        }
        all.findings.sort_by_key(|it| (it.because_of.is_some(), std::cmp::Reverse(it.severity)));
        self.diagnosis = Arc::new(all);
    }

    /// Remembers how things are now.
    pub fn remember(&mut self) {
        if self.most == 0 {
            return;
        }
        let ask = Ask { rows: self.ask.rows.min(KEPT_ROWS), detail: Detail::None, ..self.ask.clone() };
        // The seconds are remembered once, not with every moment.
        let frame = Frame { seconds: Arc::default(), ..self.make(&ask) };
        self.history.push_back(Arc::new(frame));
        while self.history.len() > self.most {
            self.history.pop_front();
        }
    }

    /// How things were at a time, in ns of Unix time, or at the nearest one that is remembered.
    pub fn back(&self, unix_ns: i64) -> Option<Arc<Frame>> {
        let after = self.history.partition_point(|frame| frame.unix_ns < unix_ns);
        let frame = self.history.get(after).or(self.history.back())?;
        let until = frame.unix_ns.div_euclid(SECOND);
        let seconds = self.series.all().filter(|second| second.number <= until).copied().collect();
        Some(Arc::new(Frame { seconds, ..Frame::clone(frame) }))
    }

    /// The time of the oldest moment that is remembered, in ns of Unix time.
    pub fn oldest(&self) -> Option<i64> {
        self.history.front().map(|frame| frame.unix_ns)
    }

    /// Everything for a screen, as it was asked for.
    pub fn frame(&self) -> Frame {
        self.make(&self.ask)
    }
}

fn is_shown(socket: &Socket, criteria: &[Criteria], now: u64, names: &Names) -> bool {
    let verdict = |criteria: &Criteria| criteria.judge_socket(&socket.entry(now), names);
    criteria
        .iter()
        .all(|criteria| criteria.is_empty() || matches!(verdict(criteria), Verdict::Shown | Verdict::Undecided))
}
