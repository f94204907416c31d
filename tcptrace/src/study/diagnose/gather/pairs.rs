//! Connections of the window, by what they have in common.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::count;
use super::host::Host;
use super::resets::Resets;
use crate::model::event::Idle;
use crate::model::row::{Connection, Held, Reason, Stay, Transition};
use crate::model::tcp::{Closer, End, Side, State, Task};
use crate::study::counts::SHORT_NS;
use crate::study::diagnose::evidence::{Ended, Pair, PairKey, Spread, Standing, Stays};
use crate::study::diagnose::finding::{EXAMPLES, Example};

/// How many pairs are kept.
const MOST: usize = 4096;
/// How many processes of a pair are counted apart.
const MOST_PROCESSES: usize = 256;
/// How many closes of a pair wait for another connection to be opened in their place.
const MOST_CLOSES: usize = 1024;
/// An open that follows a close within this time takes its place.
const REOPENED_NS: u64 = 1_000_000_000;
/// What was on its way when the peer's FIN came is answered within a round trip, and none takes so long.
const JUST_CLOSED_NS: u64 = 1_000_000_000;
/// Connections that are kept with their pair.
const RECENT: usize = 256;
/// How many TIME_WAITs that were begun anew are known at once.
const MOST_REARMED: usize = 1 << 16;
/// How many states most connections enter.
const STATES_OF_ONE: usize = 5;
/// Stands for the place of a state that no connection of a pair was in.
const NOWHERE: u8 = u8::MAX;
/// How many remote addresses are counted apart of connections that ended alike.
const MOST_REMOTES: usize = 16;

/// All pairs.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    all: Vec<Gathering>,
    places: HashMap<PairKey, usize, FixedState>,
    /// The pairs of connections that were spoken of last, by their number: most rows need no look-up.
    recent: Vec<usize>,
    unpaired: u64,
    opened: u64,
    ended: u64,
    /// TIME_WAITs that the kernel has begun anew, and that have not ended.
    rearmed: HashSet<u64, FixedState>,
    resets: Resets,
}

/// A pair, while it is being counted.
#[derive(Clone, Debug)]
struct Gathering {
    pair: Pair,
    /// Where each state is in the pair's stays; [`NOWHERE`] if it is not.
    places: [u8; State::ALL.len()],
    /// Processes that are none of the pair's tasks.
    others: HashSet<u32, FixedState>,
    /// When this side closed connections that were not opened anew.
    closes: VecDeque<u64>,
    /// In ESTABLISHED, from those at the beginning.
    level: i64,
    least: i64,
    most: i64,
    /// The same of CLOSE_WAIT, without the least.
    waiting: i64,
    most_waiting: i64,
}

impl Pairs {
    /// The kernel has given a mini-socket its whole time again.
    pub(super) fn rearmed(&mut self, conn: u64) {
        if self.rearmed.len() < MOST_REARMED {
            self.rearmed.insert(conn);
        }
    }

    fn of(&mut self, key: PairKey, conn: u64) -> Option<&mut Gathering> {
        let slot = conn as usize % RECENT;
        if let Some(place) = self.recent.get(slot).copied()
            && self.all.get(place).is_some_and(|known| known.pair.key == key)
        {
            return self.all.get_mut(place);
        }
        if self.all.len() >= MOST && !self.places.contains_key(&key) {
            self.make_room();
        }
        let place = *self.places.entry(key).or_insert_with(|| {
            self.all.push(Gathering::new(key));
            self.all.len() - 1
        });
        self.recent.resize(RECENT, usize::MAX);
        self.recent[slot] = place;
        self.all.get_mut(place)
    }

    /// Forgets half of the pairs. Those with the most connections stay, a quarter of all; then what ended otherwise than by a
    /// FIN, because a single one may tell something; then those with the most connections again. One that has many soon is
    /// among the first again.
    fn make_room(&mut self) {
        let connections = |gathering: &Gathering| std::cmp::Reverse(gathering.pair.connections());
        // They are large: each is moved once.
        self.all.sort_by_cached_key(connections);
        if let Some(others) = self.all.get_mut(MOST / 4..) {
            others.sort_by_cached_key(|gathering| {
                let is_odd = gathering.pair.ends.iter().any(|(end, ..)| *end != End::Fin);
                (!is_odd, connections(gathering))
            });
        }
        let forgotten = self.all.split_off(MOST / 2);
        self.unpaired += forgotten.iter().map(|gathering| gathering.pair.connections()).sum::<u64>();
        self.places = self.all.iter().enumerate().map(|(place, it)| (it.pair.key, place)).collect();
        self.recent.clear();
    }

    pub(super) fn transition(&mut self, row: &Transition, begun: u64, host: &Host) {
        let key = host.key(&row.identity);
        let opens = match key.side {
            Side::Server => row.new == State::Established && row.old != State::Established,
            _ => row.new == State::SynSent,
        };
        self.opened += u64::from(opens);
        if row.new == State::Listen || row.old == State::Listen && row.new == State::Closed {
            return;
        }
        // A FIN sets the timer, too: that is how a TIME_WAIT begins.
        let was_rearmed = (row.new == State::TimeWait || row.old == State::TimeWait)
            && !self.rearmed.is_empty()
            && self.rearmed.remove(&row.identity.conn);
        let Some(gathering) = self.of(key, row.identity.conn) else { return };
        gathering.pair.rearmed += u64::from(was_rearmed && row.old == State::TimeWait);
        if opens {
            gathering.opens(row.boot_ns);
        }
        gathering.moves(row, begun);
    }

    pub(super) fn ended(&mut self, row: &Connection, host: &Host) {
        self.ended += 1;
        let key = host.key(&row.identity);
        self.resets.ended(row, key);
        let Some(gathering) = self.of(key, row.identity.conn) else { return };
        gathering.own(row.identity.owner.map(|owner| owner.task));
        gathering.pair.add_end(row);
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn all_ended(&self) -> u64 {
        self.ended
    }

    /// The pairs, those with the most connections first; and how many connections belong to none.
    pub(super) fn finish(&self, sockets: &[Standing]) -> (Vec<Pair>, u64) {
        let Self { unpaired, rearmed, resets, .. } = self;
        let mut all: Vec<Gathering> = self.all.iter().map(Gathering::as_it_is).collect();
        let mut places = self.places.clone();
        let mut open: HashMap<PairKey, i64, FixedState> = HashMap::default();
        let mut waiting: HashMap<PairKey, i64, FixedState> = HashMap::default();
        for socket in sockets {
            match socket.state {
                State::Established => *open.entry(socket.pair).or_default() += 1,
                State::CloseWait => *waiting.entry(socket.pair).or_default() += 1,
                // It was opened before the window, and is still without an answer.
                State::SynSent if all.len() < 2 * MOST => {
                    places.entry(socket.pair).or_insert_with(|| {
                        all.push(Gathering::new(socket.pair));
                        all.len() - 1
                    });
                }
                _ => {}
            }
            let gathering = places.get(&socket.pair).and_then(|place| all.get_mut(*place));
            let Some(gathering) = gathering else { continue };
            gathering.pair.rearmed += u64::from(socket.state == State::TimeWait && rearmed.contains(&socket.conn));
            if let Some(task) = socket.task() {
                gathering.own_standing(task);
            }
        }
        for (key, senders) in resets.finish(sockets) {
            if let Some(gathering) = places.get(&key).and_then(|place| all.get_mut(*place)) {
                gathering.pair.senders = senders;
            }
        }
        let mut pairs: Vec<Pair> = all
            .into_iter()
            .map(|gathering| {
                let [open, waiting] = [&open, &waiting].map(|it| it.get(&gathering.pair.key).copied().unwrap_or(0));
                gathering.finish(open, waiting)
            })
            .collect();
        pairs.sort_by_cached_key(|pair| (std::cmp::Reverse(pair.connections()), pair.key.port, pair.key.ip));
        (pairs, *unpaired)
    }
}

impl Gathering {
    fn new(key: PairKey) -> Self {
        let pair = Pair::new(key);
        Self {
            pair,
            places: [NOWHERE; State::ALL.len()],
            others: HashSet::default(),
            closes: VecDeque::new(),
            level: 0,
            least: 0,
            most: 0,
            waiting: 0,
            most_waiting: 0,
        }
    }

    /// A copy, without what only the next rows need.
    fn as_it_is(&self) -> Self {
        Self { pair: self.pair.clone(), others: self.others.clone(), closes: VecDeque::new(), ..*self }
    }

    fn opens(&mut self, at: u64) {
        self.pair.opened += 1;
        while self.closes.front().is_some_and(|close| at.saturating_sub(*close) > REOPENED_NS) {
            self.closes.pop_front();
        }
        if self.closes.pop_front().is_some() {
            self.pair.reopened += 1;
        }
    }

    fn moves(&mut self, row: &Transition, begun: u64) {
        let Transition { boot_ns: at, old, new, held, .. } = *row;
        if new == State::Established {
            self.pair.established += 1;
            self.level += 1;
            self.most = self.most.max(self.level);
        }
        if old == State::Established && new != State::Established {
            self.level -= 1;
            self.least = self.least.min(self.level);
            if new == State::FinWait1 || row.closer == Some(Closer::ResetLocal) {
                self.pair.closed_here += 1;
                if self.closes.len() >= MOST_CLOSES {
                    self.closes.pop_front();
                }
                self.closes.push_back(at);
            }
        }
        self.waiting += i64::from(new == State::CloseWait) - i64::from(old == State::CloseWait);
        self.most_waiting = self.most_waiting.max(self.waiting);
        if !matches!(old, State::Closed | State::Listen) {
            let stay = self.stay_mut(old);
            stay.leave(held, at, begun);
            // A reset ends it, too, whatever the process does.
            if let (State::CloseWait, State::LastAck, Held::Exactly(ns)) = (old, new, held) {
                stay.closed.add(ns);
            }
        }
        if !matches!(new, State::Closed | State::Listen) {
            self.stay_mut(new).entered += 1;
        }
        if let Some(Reason::TimeWait(end)) = row.reason {
            let place = self.pair.time_waits.iter().position(|(of, ..)| *of == end).unwrap_or_else(|| {
                self.pair.time_waits.push((end, 0, Spread::default()));
                self.pair.time_waits.len() - 1
            });
            let (_, count, lasted) = &mut self.pair.time_waits[place];
            *count += 1;
            if let Held::Exactly(ns) = held {
                lasted.add(ns);
            }
        }
    }

    fn stay_mut(&mut self, state: State) -> &mut Stays {
        let place = &mut self.places[state as usize];
        if *place == NOWHERE {
            *place = self.pair.stays.len() as u8;
            // A pair may be of a single connection, which enters no more than these: there may be thousands of them.
            self.pair.stays.reserve_exact(if self.pair.stays.is_empty() { STATES_OF_ONE } else { 0 });
            self.pair.stays.push((state, Stays::default()));
        }
        &mut self.pair.stays[usize::from(*place)].1
    }

    /// An ended connection was this process's.
    fn own(&mut self, task: Option<Task>) {
        let Some(task) = task else {
            self.pair.unowned += 1;
            return;
        };
        if !count(&mut self.pair.tasks, task) {
            self.pair.unowned += 1;
            if self.processes() < MOST_PROCESSES {
                self.others.insert(task.pid);
            }
        }
    }

    /// How many different ones it has.
    fn processes(&self) -> usize {
        self.pair.tasks.len() + self.others.len()
    }

    fn own_standing(&mut self, task: Task) {
        self.own(Some(task));
    }

    /// So many are open now, and so many wait in CLOSE_WAIT.
    fn finish(self, open: i64, waiting: i64) -> Pair {
        let processes = self.processes();
        let Self { mut pair, level, least, most, .. } = self;
        // What is open now tells how many were open at the beginning.
        let shift = open - level;
        let at_once = |level: i64| u64::try_from(level + shift).unwrap_or(0);
        (pair.least_open, pair.most_open) = (at_once(least), at_once(most));
        if let Some((_, stays)) = pair.stays.iter_mut().find(|(state, _)| *state == State::CloseWait) {
            stays.most = u64::try_from(self.most_waiting + waiting - self.waiting).unwrap_or(0);
        }
        pair.processes = processes;
        pair.tasks.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid));
        pair
    }
}

impl Stays {
    fn leave(&mut self, held: Held, at: u64, begun: u64) {
        self.left += 1;
        if let Held::Exactly(ns) = held {
            self.lasted.add(ns);
            self.left_new += u64::from(at.saturating_sub(ns) >= begun);
        }
    }
}

impl Pair {
    fn connections(&self) -> u64 {
        self.opened.max(self.ended())
    }

    fn add_end(&mut self, row: &Connection) {
        let (end, closer) = (row.end().unwrap_or(End::Unknown), row.closer);
        match row.held(State::Established) {
            Held::Exactly(ns) if ns < SHORT_NS => self.short += 1,
            held if held.known_ns().is_some_and(|ns| ns >= SHORT_NS) => self.long += 1,
            _ => {}
        }
        if let Some(srtt) = row.totals.and_then(|totals| totals.srtt_us) {
            self.srtt_us.add(srtt.into());
        }
        let place = self.ends.iter().position(|(e, c, _)| (*e, *c) == (end, closer)).unwrap_or_else(|| {
            self.ends.reserve_exact(1);
            self.ends.push((end, closer, Ended::default()));
            self.ends.len() - 1
        });
        self.ends[place].2.add(row);
    }
}

impl Ended {
    fn add(&mut self, row: &Connection) {
        self.count += 1;
        self.first = if self.count == 1 { row.boot_ns } else { self.first.min(row.boot_ns) };
        self.last = self.last.max(row.boot_ns);
        for (state, spread) in [(State::Established, &mut self.established), (State::SynSent, &mut self.syn_sent)] {
            if let Some(ns) = row.held(state).known_ns() {
                spread.add(ns);
            }
        }
        if let Some(totals) = row.totals {
            self.bytes_sent.add(totals.bytes_sent);
            self.bytes_sent_all = self.bytes_sent_all.saturating_add(totals.bytes_sent);
            self.bytes_received = self.bytes_received.saturating_add(totals.bytes_received);
            self.bytes_unread = self.bytes_unread.saturating_add(totals.bytes_unread.into());
            self.with_data += u64::from(totals.bytes_sent > 0 || totals.bytes_received > 0);
            self.in_flight += u64::from(totals.in_flight);
        }
        if let Some(ms) = row.idle.and_then(least_ms) {
            self.idle.add(u64::from(ms) * 1_000_000);
        }
        if let Some(ms) = row.idle.and_then(|idle| idle.received_ms) {
            self.received_idle.add(u64::from(ms) * 1_000_000);
        }
        let in_close_wait = row.stays.last().is_some_and(|stay| stay.state == State::CloseWait);
        self.in_close_wait += u64::from(in_close_wait);
        let is_closing = |stay: &Stay| matches!(stay.state, State::FinWait1 | State::Closing | State::LastAck);
        self.in_closing += u64::from(row.stays.last().is_some_and(is_closing));
        if matches!(
            row.end(),
            Some(End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout | End::OrphanKilled)
        ) {
            self.add_remote(row.identity.tuple.remote_ip);
        }
        if row.held(State::Established).known_ns().is_some_and(|ns| ns >= SHORT_NS) {
            self.long += 1;
            let is_fresh = matches!(row.held(State::CloseWait), Held::Exactly(ns) if ns < JUST_CLOSED_NS);
            self.just_closed += u64::from(in_close_wait && is_fresh);
        }
        if self.examples.len() < EXAMPLES {
            self.examples.reserve_exact(1);
            self.examples.push(Example {
                conn: row.identity.conn,
                local: row.identity.local(),
                remote: row.identity.remote(),
                state: State::Closed,
                age: Held::Unknown,
                pid: row.identity.owner.map(|owner| owner.task.pid),
                fd: None,
            });
        }
    }
}

impl Ended {
    fn add_remote(&mut self, ip: Ipv6Addr) {
        match self.remotes.iter().position(|(known, _)| *known == ip) {
            Some(place) => self.remotes[place].1 += 1,
            None if self.remotes.len() < MOST_REMOTES => self.remotes.push((ip, 1)),
            None => {}
        }
    }
}

/// Since when no data has moved in either direction.
fn least_ms(idle: Idle) -> Option<u32> {
    idle.received_ms.into_iter().chain(idle.sent_ms).min()
}
