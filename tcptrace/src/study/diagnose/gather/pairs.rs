//! Connections of the window, by what they have in common.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::host::Host;
use super::resets::Resets;
use super::{Begun, count, count_more};
use crate::model::event::Idle;
use crate::model::near::Near;
use crate::model::row::{Connection, Held, Reason, Stay, Transition};
use crate::model::tcp::{Closer, End, Side, State, Task, TimeWaitEnd};
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
/// How many TIME_WAITs that were begun anew are known at once.
const MOST_REARMED: usize = 1 << 16;
/// How many remote addresses are counted apart of connections that ended alike.
const MOST_REMOTES: usize = 16;

/// How many pairs are found without a look-up, as a power of two.
const RECENT_BITS: u32 = 9;

/// All pairs.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    all: Vec<Gathering>,
    places: HashMap<PairKey, usize, FixedState>,
    /// The pairs that were spoken of last, by a digest of their keys: most rows need no look-up.
    recent: Vec<u32>,
    sums: Sums,
    /// Those of the time before.
    before: Sums,
    /// How many pairs have been spoken of in this time.
    spoken_of: u32,
    rearmed: Rearmed,
    resets: Resets,
}

/// What is counted of all pairs together.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    unpaired: u64,
    opened: u64,
    ended: u64,
}

/// TIME_WAITs that the kernel has begun anew, and that have not ended.
#[derive(Clone, Debug, Default)]
struct Rearmed {
    now: HashSet<u64, Near>,
    before: HashSet<u64, Near>,
}

/// A pair, while it is being counted.
#[derive(Clone, Debug)]
struct Gathering {
    counted: Counted,
    /// The same of the time before.
    before: Option<Box<Before>>,
    /// Which of the pairs of this time it was, from 1; 0 if it was not spoken of.
    number: u32,
}

/// What is counted of a pair in a time.
#[derive(Clone, Debug)]
struct Counted {
    pair: Pair,
    processes: HashSet<u32, FixedState>,
    /// Where the stays of a state are, counted from 1.
    stays: [u8; State::ALL.len()],
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

/// What was counted in the time before, and what belongs to both times together, but not to this one alone.
#[derive(Clone, Debug)]
struct Before {
    counted: Counted,
    /// Closes of both times that were not opened anew; `None` if those of this time are the same.
    closes: Option<VecDeque<u64>>,
    /// Opened anew after a close of the time before.
    reopened: u64,
    /// Left a state that they had entered in the time before.
    left_new: [u64; State::ALL.len()],
    /// TIME_WAITs that were begun anew in the time before.
    rearmed: u64,
}

impl Before {
    fn of(counted: Counted) -> Self {
        Self { counted, closes: None, reopened: 0, left_new: [0; State::ALL.len()], rearmed: 0 }
    }
}

impl Rearmed {
    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.before.is_empty()
    }

    fn has(&self, conn: u64) -> bool {
        self.now.contains(&conn) || self.before.contains(&conn)
    }
}

impl Pairs {
    /// The kernel has given a mini-socket its whole time again.
    pub(super) fn rearmed(&mut self, conn: u64) {
        if self.rearmed.now.len() < MOST_REARMED {
            self.rearmed.now.insert(conn);
        }
    }

    /// Begins another time; what was counted so far is the time before.
    pub(super) fn renew(&mut self) {
        let mut all = std::mem::take(&mut self.all);
        all.retain(|gathering| gathering.number > 0);
        all.sort_by_key(|gathering| gathering.number);
        all.iter_mut().for_each(Gathering::renew);
        self.places = all.iter().enumerate().map(|(place, gathering)| (*gathering.key(), place)).collect();
        self.all = all;
        self.recent.clear();
        self.before = std::mem::take(&mut self.sums);
        self.spoken_of = 0;
        self.rearmed.before = std::mem::take(&mut self.rearmed.now);
        self.resets.renew();
    }

    fn of(&mut self, key: &PairKey) -> Option<&mut Gathering> {
        let slot = digest(key);
        let known = self.recent.get(slot).map(|place| *place as usize);
        let known = known.filter(|place| self.all.get(*place).is_some_and(|known| known.key() == key));
        let place = match known {
            Some(place) => place,
            None => self.find(key, slot)?,
        };
        let gathering = self.all.get_mut(place)?;
        if gathering.number == 0 {
            self.spoken_of += 1;
            gathering.number = self.spoken_of;
        }
        Some(gathering)
    }

    fn find(&mut self, key: &PairKey, slot: usize) -> Option<usize> {
        if self.all.len() >= MOST && !self.places.contains_key(key) {
            self.sums.unpaired += 1;
            return None;
        }
        let place = *self.places.entry(*key).or_insert_with(|| {
            self.all.push(Gathering::new(*key));
            self.all.len() - 1
        });
        self.recent.resize(1 << RECENT_BITS, u32::MAX);
        self.recent[slot] = u32::try_from(place).unwrap_or(u32::MAX);
        Some(place)
    }

    /// `begun`: when this time and the one before began.
    pub(super) fn transition(&mut self, row: &Transition, begun: Begun, host: &Host) {
        let key = host.key(&row.identity);
        let opens = match key.side {
            Side::Server => row.new == State::Established && row.old != State::Established,
            _ => row.new == State::SynSent,
        };
        self.sums.opened += u64::from(opens);
        if row.new == State::Listen || row.old == State::Listen && row.new == State::Closed {
            return;
        }
        // A FIN sets the timer, too: that is how a TIME_WAIT begins.
        let (mut rearmed, mut rearmed_before) = (false, false);
        if (row.new == State::TimeWait || row.old == State::TimeWait) && !self.rearmed.is_empty() {
            rearmed_before = self.rearmed.before.remove(&row.identity.conn);
            rearmed = self.rearmed.now.remove(&row.identity.conn);
        }
        let Some(gathering) = self.of(&key) else { return };
        if row.old == State::TimeWait {
            gathering.counted.pair.rearmed += u64::from(rearmed);
            if rearmed_before && !rearmed {
                gathering.before_mut().rearmed += 1;
            }
        }
        if opens {
            gathering.opens(row.boot_ns);
        }
        gathering.moves(row, begun);
    }

    pub(super) fn ended(&mut self, row: &Connection, host: &Host) {
        self.sums.ended += 1;
        let key = host.key(&row.identity);
        self.resets.ended(row, key);
        let Some(Gathering { counted, .. }) = self.of(&key) else { return };
        counted.own(row.identity.owner.map(|owner| owner.task));
        counted.pair.add_end(row);
    }

    pub(super) fn opened(&self) -> u64 {
        self.before.opened + self.sums.opened
    }

    pub(super) fn all_ended(&self) -> u64 {
        self.before.ended + self.sums.ended
    }

    /// The pairs, those with the most connections first; and how many rows belong to none.
    pub(super) fn finish(self, sockets: &[Standing]) -> (Vec<Pair>, u64) {
        let Self { all, mut places, sums, before, rearmed, resets, .. } = self;
        let unpaired = before.unpaired + sums.unpaired;
        let mut all: Vec<Counted> = all.into_iter().map(Gathering::together).collect();
        let mut open: HashMap<PairKey, i64, FixedState> = HashMap::default();
        let mut waiting: HashMap<PairKey, i64, FixedState> = HashMap::default();
        for socket in sockets {
            match socket.state {
                State::Established => *open.entry(socket.pair).or_default() += 1,
                State::CloseWait => *waiting.entry(socket.pair).or_default() += 1,
                // It was opened before the window, and is still without an answer.
                State::SynSent if all.len() < MOST => {
                    places.entry(socket.pair).or_insert_with(|| {
                        all.push(Counted::new(socket.pair));
                        all.len() - 1
                    });
                }
                _ => {}
            }
            let counted = places.get(&socket.pair).and_then(|place| all.get_mut(*place));
            let Some(counted) = counted else { continue };
            counted.pair.rearmed += u64::from(socket.state == State::TimeWait && rearmed.has(socket.conn));
            if let Some(task) = socket.task() {
                counted.own(Some(task));
            }
        }
        for (key, senders) in resets.finish(sockets) {
            if let Some(counted) = places.get(&key).and_then(|place| all.get_mut(*place)) {
                counted.pair.senders = senders;
            }
        }
        let mut pairs: Vec<Pair> = all
            .into_iter()
            .map(|counted| {
                let [open, waiting] = [&open, &waiting].map(|it| it.get(&counted.pair.key).copied().unwrap_or(0));
                counted.finish(open, waiting)
            })
            .collect();
        pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.opened.max(pair.ended())), pair.key.port, pair.key.ip));
        (pairs, unpaired)
    }
}

/// Where a key is among those that were spoken of last. Keys that collide are looked up, so nothing depends on it.
fn digest(key: &PairKey) -> usize {
    let [ip, comm] = [u128::from(key.ip), key.comm.map_or(0, |comm| u128::from_le_bytes(comm.0))];
    let [ip_high, ip_low, comm_high, comm_low] = [ip >> 64, ip, comm >> 64, comm].map(|half| half as u64);
    let place = u64::from(key.port) << 40 ^ u64::from(key.netns.unwrap_or(0)) ^ key.cgroup.unwrap_or(0).rotate_left(9);
    let mixed = place ^ ip_low ^ ip_high.rotate_left(17) ^ comm_low.rotate_left(31) ^ comm_high.rotate_left(47);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RECENT_BITS)) as usize
}

impl Gathering {
    fn new(key: PairKey) -> Self {
        Self { counted: Counted::new(key), before: None, number: 0 }
    }

    fn key(&self) -> &PairKey {
        &self.counted.pair.key
    }

    fn renew(&mut self) {
        let key = *self.key();
        let counted = std::mem::replace(&mut self.counted, Counted::new(key));
        let closes = (!counted.closes.is_empty()).then(|| counted.closes.clone());
        self.before = Some(Box::new(Before { closes, ..Before::of(counted) }));
        self.number = 0;
    }

    /// The time before, where there was one.
    fn before_mut(&mut self) -> &mut Before {
        let key = self.counted.pair.key;
        self.before.get_or_insert_with(|| Box::new(Before::of(Counted::new(key))))
    }

    fn opens(&mut self, at: u64) {
        self.counted.pair.opened += 1;
        let is_reopened = take_close(&mut self.counted.closes, at);
        self.counted.pair.reopened += u64::from(is_reopened);
        if let Some(before) = &mut self.before
            && let Some(closes) = &mut before.closes
        {
            before.reopened += u64::from(take_close(closes, at) && !is_reopened);
            // Those of this time are the last ones of both.
            if closes.len() == self.counted.closes.len() {
                before.closes = None;
            }
        }
    }

    fn closes(&mut self, at: u64) {
        note_close(&mut self.counted.closes, at);
        if let Some(closes) = self.before.as_mut().and_then(|before| before.closes.as_mut()) {
            note_close(closes, at);
        }
    }

    fn moves(&mut self, row: &Transition, begun: Begun) {
        let Transition { boot_ns: at, old, new, held, .. } = *row;
        let counted = &mut self.counted;
        if new == State::Established {
            counted.pair.established += 1;
            counted.level += 1;
            counted.most = counted.most.max(counted.level);
        }
        let is_closed_here =
            old == State::Established && (new == State::FinWait1 || row.closer == Some(Closer::ResetLocal));
        if old == State::Established && new != State::Established {
            counted.level -= 1;
            counted.least = counted.least.min(counted.level);
            counted.pair.closed_here += u64::from(is_closed_here);
        }
        counted.waiting += i64::from(new == State::CloseWait) - i64::from(old == State::CloseWait);
        counted.most_waiting = counted.most_waiting.max(counted.waiting);
        if !matches!(old, State::Closed | State::Listen) {
            let entered = if let Held::Exactly(ns) = held { Some(at.saturating_sub(ns)) } else { None };
            let stay = counted.stay_mut(old);
            stay.leave(held, entered.is_some_and(|entered| entered >= begun.now));
            // A reset ends it, too, whatever the process does.
            if let (State::CloseWait, State::LastAck, Held::Exactly(ns)) = (old, new, held) {
                stay.closed.add(ns);
            }
            if entered.is_some_and(|entered| (begun.before..begun.now).contains(&entered)) {
                self.before_mut().left_new[old as usize] += 1;
            }
        }
        let counted = &mut self.counted;
        if !matches!(new, State::Closed | State::Listen) {
            counted.stay_mut(new).entered += 1;
        }
        if let Some(Reason::TimeWait(end)) = row.reason {
            let (_, count, lasted) = counted.pair.time_wait_mut(end);
            *count += 1;
            if let Held::Exactly(ns) = held {
                lasted.add(ns);
            }
        }
        if is_closed_here && new != State::Established {
            self.closes(at);
        }
    }

    /// What was counted in both times.
    fn together(self) -> Counted {
        let Self { counted, before, .. } = self;
        let Some(before) = before else { return counted };
        let Before { counted: mut all, reopened, left_new, rearmed, .. } = *before;
        for (state, left_new) in State::ALL.iter().zip(left_new).filter(|(_, left_new)| *left_new > 0) {
            all.stay_mut(*state).left_new += left_new;
        }
        all.pair.reopened += reopened;
        all.pair.rearmed += rearmed;
        all.add_later(counted);
        all
    }
}

/// Whether an open takes the place of a close.
fn take_close(closes: &mut VecDeque<u64>, at: u64) -> bool {
    while closes.front().is_some_and(|close| at.saturating_sub(*close) > REOPENED_NS) {
        closes.pop_front();
    }
    closes.pop_front().is_some()
}

fn note_close(closes: &mut VecDeque<u64>, at: u64) {
    if closes.len() >= MOST_CLOSES {
        closes.pop_front();
    }
    closes.push_back(at);
}

impl Counted {
    fn new(key: PairKey) -> Self {
        Self {
            pair: Pair::new(key),
            processes: HashSet::default(),
            stays: [0; State::ALL.len()],
            closes: VecDeque::new(),
            level: 0,
            least: 0,
            most: 0,
            waiting: 0,
            most_waiting: 0,
        }
    }

    fn stay_mut(&mut self, state: State) -> &mut Stays {
        let stays = &mut self.pair.stays;
        let place = &mut self.stays[state as usize];
        if *place == 0 {
            stays.push((state, Stays::default()));
            *place = u8::try_from(stays.len()).unwrap_or(u8::MAX);
        }
        &mut stays[usize::from(*place) - 1].1
    }

    /// An ended connection was this process's, or one that is open is.
    fn own(&mut self, task: Option<Task>) {
        let Some(task) = task else {
            self.pair.unowned += 1;
            return;
        };
        let is_known = self.pair.tasks.iter().any(|(known, _)| known.pid == task.pid);
        if !is_known && self.processes.len() < MOST_PROCESSES {
            self.processes.insert(task.pid);
        }
        self.pair.unowned += u64::from(!count(&mut self.pair.tasks, task));
    }

    /// Adds what was counted in the time that followed.
    fn add_later(&mut self, later: Self) {
        let Self { pair, processes, level, least, most, waiting, most_waiting, .. } = later;
        self.least = self.least.min(self.level + least);
        self.most = self.most.max(self.level + most);
        self.level += level;
        self.most_waiting = self.most_waiting.max(self.waiting + most_waiting);
        self.waiting += waiting;
        for pid in processes {
            if self.processes.len() < MOST_PROCESSES {
                self.processes.insert(pid);
            }
        }
        for (state, stays) in &pair.stays {
            self.stay_mut(*state).add_later(stays);
        }
        self.pair.add_later(pair);
    }

    /// So many are open now, and so many wait in CLOSE_WAIT.
    fn finish(self, open: i64, waiting: i64) -> Pair {
        let Self { mut pair, processes, level, least, most, .. } = self;
        // What is open now tells how many were open at the beginning.
        let shift = open - level;
        let at_once = |level: i64| u64::try_from(level + shift).unwrap_or(0);
        (pair.least_open, pair.most_open) = (at_once(least), at_once(most));
        if let Some((_, stays)) = pair.stays.iter_mut().find(|(state, _)| *state == State::CloseWait) {
            stays.most = u64::try_from(self.most_waiting + waiting - self.waiting).unwrap_or(0);
        }
        pair.processes = processes.len();
        pair.tasks.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid));
        pair
    }
}

impl Stays {
    /// `is_new`: it had entered the state in the window.
    fn leave(&mut self, held: Held, is_new: bool) {
        self.left += 1;
        self.left_new += u64::from(is_new);
        if let Held::Exactly(ns) = held {
            self.lasted.add(ns);
        }
    }

    fn add_later(&mut self, later: &Self) {
        self.entered += later.entered;
        self.left += later.left;
        self.left_new += later.left_new;
        self.lasted.merge(&later.lasted);
        self.closed.merge(&later.closed);
    }
}

impl Pair {
    fn time_wait_mut(&mut self, end: TimeWaitEnd) -> &mut (TimeWaitEnd, u64, Spread) {
        let place = self.time_waits.iter().position(|(of, ..)| *of == end).unwrap_or_else(|| {
            self.time_waits.push((end, 0, Spread::default()));
            self.time_waits.len() - 1
        });
        &mut self.time_waits[place]
    }

    fn end_mut(&mut self, end: End, closer: Closer) -> &mut Ended {
        let place = self.ends.iter().position(|(e, c, _)| (*e, *c) == (end, closer)).unwrap_or_else(|| {
            self.ends.push((end, closer, Ended::default()));
            self.ends.len() - 1
        });
        &mut self.ends[place].2
    }

    /// Adds what was counted in the time that followed, without the stays.
    fn add_later(&mut self, later: Self) {
        for (task, count) in later.tasks {
            self.unowned += if count_more(&mut self.tasks, task, count) { 0 } else { count };
        }
        self.unowned += later.unowned;
        self.opened += later.opened;
        self.established += later.established;
        for (end, closer, ended) in later.ends {
            self.end_mut(end, closer).add_later(ended);
        }
        for (end, count, lasted) in later.time_waits {
            let (_, all, spread) = self.time_wait_mut(end);
            *all += count;
            spread.merge(&lasted);
        }
        self.short += later.short;
        self.long += later.long;
        self.closed_here += later.closed_here;
        self.reopened += later.reopened;
        self.srtt_us.merge(&later.srtt_us);
        self.rearmed += later.rearmed;
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
        self.end_mut(end, closer).add(row);
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
            self.add_remote(row.identity.tuple.remote_ip, 1);
        }
        if row.held(State::Established).known_ns().is_some_and(|ns| ns >= SHORT_NS) {
            self.long += 1;
            let is_fresh = matches!(row.held(State::CloseWait), Held::Exactly(ns) if ns < JUST_CLOSED_NS);
            self.just_closed += u64::from(in_close_wait && is_fresh);
        }
        if self.examples.len() < EXAMPLES {
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
    fn add_later(&mut self, later: Self) {
        self.first = if self.count == 0 { later.first } else { self.first.min(later.first) };
        self.last = self.last.max(later.last);
        self.count += later.count;
        self.established.merge(&later.established);
        self.syn_sent.merge(&later.syn_sent);
        self.bytes_sent.merge(&later.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(later.bytes_received);
        self.bytes_sent_all = self.bytes_sent_all.saturating_add(later.bytes_sent_all);
        self.bytes_unread = self.bytes_unread.saturating_add(later.bytes_unread);
        self.with_data += later.with_data;
        self.in_flight += later.in_flight;
        self.idle.merge(&later.idle);
        self.in_close_wait += later.in_close_wait;
        self.examples.extend(later.examples);
        self.examples.truncate(EXAMPLES);
        self.long += later.long;
        self.just_closed += later.just_closed;
        self.received_idle.merge(&later.received_idle);
        self.in_closing += later.in_closing;
        for (ip, count) in later.remotes {
            self.add_remote(ip, count);
        }
    }

    fn add_remote(&mut self, ip: Ipv6Addr, count: u64) {
        match self.remotes.iter().position(|(known, _)| *known == ip) {
            Some(place) => self.remotes[place].1 += count,
            None if self.remotes.len() < MOST_REMOTES => self.remotes.push((ip, count)),
            None => {}
        }
    }
}

/// Since when no data has moved in either direction.
fn least_ms(idle: Idle) -> Option<u32> {
    idle.received_ms.into_iter().chain(idle.sent_ms).min()
}
