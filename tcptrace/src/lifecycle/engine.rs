//! The state machine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;
use hashlink::LinkedHashMap;

use super::conn::{Conn, progress};
use super::decide::{self, Alternatives, Ending, Role, Verdict};
use super::row::{Connection, Held, Loss, Reason, Row, Stay, Stuck, Transition};
use super::stuck::Waiting;
use super::survey::Inquiry;
use crate::event::{Cause, Change, Event, Id, KilledBy, Mini, MiniEvent, ResetReason};
use crate::tcp::{Closer, End, OwnerSource, Side, State, Task, TimeWaitEnd};

/// How long to wait for a reset that may follow the closing of a socket. They come in the same soft interrupt, but a
/// virtual CPU can stand still in the midst of it.
const RESET_FOLLOWS_NS: u64 = 200_000_000;

/// How long after its timer was due a mini-socket is given up. The kernel's timer wheel rounds up by at most an
/// eighth (`kernel/time/timer.c`).
const fn given_up_after(due_ns: u64) -> u64 {
    due_ns + due_ns / 8 + 5_000_000_000
}

/// For the sockets whose cookie is shared: the mini-socket of an earlier connection may live beside a new one.
pub(super) const MINI: u64 = 1 << 63;

/// How long a TIME_WAIT is taken to last, for giving up on it only, while none has been seen to begin.
const LENGTH_UNKNOWN_NS: u64 = 120_000_000_000;

/// Sockets that are forgotten are told of together, so often at most: there can be one with every event.
const FORGOTTEN_NS: u64 = 1_000_000_000;

/// What the engine is to do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many sockets are followed; beyond that the one that has been idle longest is forgotten.
    pub sockets: usize,
    /// Put connections out when their full socket is closed, instead of when their TIME_WAIT is over.
    pub at_close: bool,
    /// Put transitions out.
    pub transitions: bool,
    /// Put connections out.
    pub connections: bool,
    /// Report sockets that wait for somebody for so long, in ns, and again whenever that time has doubled.
    pub stuck_after: Option<u64>,
    /// Begin to follow sockets that are found and not followed.
    pub existing: bool,
    /// Whether there are scans when [`Engine::wants_scan`] asks for them.
    pub scans: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets: 1_000_000,
            at_close: false,
            transitions: true,
            connections: true,
            stuck_after: None,
            existing: true,
            scans: false,
        }
    }
}

/// What the engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transitions put out.
    pub transitions: u64,
    /// Connections that have ended.
    pub connections: u64,
    /// Sockets followed now.
    pub followed: usize,
    /// Sockets forgotten because there were too many.
    pub evicted: u64,
}

/// Rebuilds the life of every connection from events.
///
/// Feed it events in the order of the stream, and let time pass with [`Engine::advance`] while there are none. What
/// it concludes depends on nothing else.
#[derive(Debug)]
pub struct Engine {
    /// Boxed, because with every event one is taken out and put back as the one seen last.
    pub(super) conns: LinkedHashMap<u64, Box<Conn>, FixedState>,
    /// Children that are known by their address only, and when they came to be (before 6.15).
    embryos: HashMap<u64, u64, FixedState>,
    /// Ends that depend on a reset that may follow.
    awaiting: HashMap<u64, Awaiting, FixedState>,
    /// Events of mini-sockets that overtook the closing of the full socket on another CPU.
    early: HashMap<u64, Mini, FixedState>,
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    /// Sockets to look at again, if they stay.
    pub(super) waiting: Waiting,
    /// What is being asked of the kernel.
    pub(super) inquiry: Inquiry,
    pub(super) config: Config,
    stats: Stats,
    /// Before this, changes went unseen.
    pub(super) blind_until: Option<u64>,
    /// When a socket was last forgotten: what is met for the first time may have been followed before.
    forgot_at: Option<u64>,
    /// How many were forgotten that nothing was told of yet, and since when.
    forgotten: Option<(u64, u64)>,
    pub(super) gaps: u32,
    pub(super) now: u64,
    asleep_ns: u64,
    /// How long a TIME_WAIT is set to last here, once one was seen to begin.
    time_wait_ns: Option<u64>,
}

/// A connection that has ended one way or another.
#[derive(Debug)]
struct Awaiting {
    conn: Box<Conn>,
    at: u64,
    alternatives: Alternatives,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: Config) -> Self {
        let hasher = FixedState::default();
        Self {
            conns: LinkedHashMap::with_hasher(hasher.clone()),
            embryos: HashMap::with_hasher(hasher.clone()),
            awaiting: HashMap::with_hasher(hasher.clone()),
            early: HashMap::with_hasher(hasher),
            deadlines: BinaryHeap::new(),
            waiting: Waiting::default(),
            inquiry: Inquiry::default(),
            config,
            stats: Stats::default(),
            blind_until: None,
            forgot_at: None,
            forgotten: None,
            gaps: 0,
            now: 0,
            asleep_ns: 0,
            time_wait_ns: None,
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        Stats { followed: self.conns.len(), ..self.stats }
    }

    /// When something is to be concluded though nothing happens, in ns of `CLOCK_BOOTTIME`.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadline = self.deadlines.peek().map(|Reverse((awake, _))| awake.saturating_add(self.asleep_ns));
        let forgotten = self.forgotten.map(|(since, _)| since.saturating_add(FORGOTTEN_NS));
        deadline.into_iter().chain(self.waiting.next_look()).chain(forgotten).min()
    }

    /// Takes an event in, and puts out what follows from it.
    pub fn feed(&mut self, event: &Event, out: &mut Vec<Row>) {
        // First of all: no deadline has passed while the machine slept.
        if let Event::Suspended { at, ns } = event {
            self.asleep_ns = self.asleep_ns.saturating_add(*ns).min(*at);
        }
        self.advance(event.at(), out);
        match event {
            Event::Started { at } => self.blind_until = Some(*at),
            Event::Change(change) => self.on_change(change, out),
            Event::Destroyed { at, id, .. } => self.on_destroyed(*at, *id, out),
            Event::Accepted { id, task, .. } => self.on_accepted(*id, *task),
            Event::SurveyBegun { at } => self.inquiry.survey_begins(*at),
            Event::Found(found) => self.on_found(found),
            Event::Surveyed { netns, .. } => self.inquiry.surveyed(*netns),
            Event::SurveyEnded { .. } => self.on_survey_ended(out),
            Event::ScanBegun { at } => self.on_scan_begun(*at),
            Event::Holder(holder) => self.on_holder(holder),
            Event::ScanEnded { .. } => self.on_scan_ended(out),
            Event::ResetSent { at, id, reason } => self.on_reset_sent(*at, *id, *reason, out),
            Event::ResetReceived { .. } | Event::Suspended { .. } | Event::Passed { .. } => {}
            Event::Mini(mini) => self.on_mini(mini, out),
            Event::Lost { at, cause, events } => {
                self.blind_until = Some(*at);
                self.gaps += 1;
                out.extend(Loss::of(*at, *cause, *events).map(Row::Loss));
            }
        }
    }

    /// Lets time pass: every event from before `now` has been fed.
    pub fn advance(&mut self, now: u64, out: &mut Vec<Row>) {
        self.now = self.now.max(now);
        if self.forgotten.is_some_and(|(since, _)| self.now >= since.saturating_add(FORGOTTEN_NS)) {
            self.tell_forgotten(out);
        }
        while let Some(&Reverse((awake, key))) = self.deadlines.peek() {
            let due = awake.saturating_add(self.asleep_ns);
            if due > self.now {
                break;
            }
            self.deadlines.pop();
            self.on_deadline(key, awake, out);
        }
        self.look_at_waiting(out);
    }

    /// Nothing more comes: puts out what was held back.
    pub fn finish(&mut self, out: &mut Vec<Row>) {
        self.tell_forgotten(out);
    }

    fn tell_forgotten(&mut self, out: &mut Vec<Row>) {
        if let Some((boot_ns, count)) = self.forgotten.take() {
            out.push(Row::Loss(Loss { boot_ns, cause: Cause::Evicted, count: Some(count) }));
        }
    }

    fn on_deadline(&mut self, key: u64, awake: u64, out: &mut Vec<Row>) {
        if let Some(waiting) = self.awaiting.remove(&key) {
            self.end_awaited(waiting, None, out);
        } else if key & MINI != 0 && self.conns.get(&key).is_some_and(|conn| conn.gives_up_at == Some(awake)) {
            self.end_unseen_mini(key, out);
        }
    }

    /// A mini-socket that should have ended long ago, and nobody saw it.
    fn end_unseen_mini(&mut self, key: u64, out: &mut Vec<Row>) {
        let Some(mut conn) = self.conns.remove(&key) else { return };
        conn.whole = false;
        let Some(due) = conn.due_at else { return };
        let at = conn.maybe_ended_at.unwrap_or(due.saturating_add(self.asleep_ns)).min(self.now);
        // If nothing was lost, it was killed when its timer was due already, but had not fired yet.
        let held = match conn.since {
            Some(since) if self.gaps == conn.gaps => Held::AtLeast(at.saturating_sub(since)),
            _ => Held::Unknown,
        };
        let ending = match conn.state {
            State::TimeWait => time_wait(TimeWaitEnd::Unknown),
            _ => End::Unknown.into(),
        };
        self.end(conn, at, held, ending, out);
    }

    fn on_change(&mut self, change: &Change, out: &mut Vec<Row>) {
        if is_embryo(change) {
            return self.note_embryo(change);
        }
        let key = key(change.id);
        if begins(change) {
            self.end_lost(key, change.at, out);
        }
        let is_known = self.conns.contains_key(&key);
        let embryo = change.address.and_then(|address| self.embryos.remove(&address));
        let mut conn = match self.conns.remove(&key) {
            Some(conn) if progress(conn.state) > progress(change.old) => {
                self.end_unseen(conn, change.at, out);
                self.meet(change, embryo, out)
            }
            Some(conn) => conn,
            None if is_noise(change) => return,
            None => self.meet(change, embryo, out),
        };
        conn.complete_identity(change);
        self.note_task(&mut conn, change);
        if change.old == change.new {
            self.keep(key, conn, change.at);
            return;
        }
        if conn.state != change.old {
            conn.change_unseen(change.old, None);
        }
        if change.new == State::Closed {
            let change = if is_known { *change } else { decide::without_proof(change) };
            self.close(key, conn, &change, out);
        } else {
            self.step(&mut conn, change, out);
            self.attend(key, &conn);
            self.keep(key, conn, change.at);
        }
    }

    fn note_embryo(&mut self, change: &Change) {
        if self.embryos.len() >= self.config.sockets {
            self.embryos.clear();
        }
        if let Id::Address(address) = change.id {
            self.embryos.insert(address, change.at);
        }
    }

    /// A socket that was not followed so far.
    fn meet(&mut self, change: &Change, embryo: Option<u64>, out: &mut Vec<Row>) -> Box<Conn> {
        let mut conn = Box::new(Conn::new(change.id.number(), change, self.gaps));
        match (change.old, change.new) {
            (State::Closed, State::SynSent) => conn.begin(Side::Client, change.at),
            (State::Closed, State::Listen) => conn.begin(Side::Server, change.at),
            (State::Listen, State::SynRecv) => conn.begin(Side::Server, change.at),
            (State::SynRecv, _) if embryo.is_some() => {
                let born = embryo.unwrap_or(change.at);
                conn.state = State::Listen;
                conn.begin(Side::Server, born);
                self.put(&mut conn, born, State::SynRecv, Held::Unknown, None, out);
            }
            (old, _) => conn.closer = decide::closer_in(old),
        }
        conn
    }

    fn note_task(&mut self, conn: &mut Conn, change: &Change) {
        if change.new == State::Established {
            conn.shut_early = change.flags.is_some_and(|flags| flags.send_shutdown);
        }
        let Some(task) = change.task else { return };
        match decide::role(change, conn.shut_early) {
            Role::Connects => conn.own(task, OwnerSource::Connect),
            Role::Listens => conn.own(task, OwnerSource::Listen),
            Role::Closes => conn.closed_by(task),
            Role::Kills => conn.closed_by = Some(task),
            Role::Bystander => {}
        }
    }

    /// From one state to the next, short of the end.
    fn step(&mut self, conn: &mut Conn, change: &Change, out: &mut Vec<Row>) {
        match decide::closer_in(change.new) {
            Some(Closer::Simultaneous) => conn.closer = Some(Closer::Simultaneous),
            closer => conn.closer = conn.closer.or(closer),
        }
        // A life begins with a state that it leaves at once: nothing was held.
        let held = match change.old {
            State::Closed => Held::Unknown,
            State::Listen if change.new == State::SynRecv => Held::Unknown,
            _ => self.held(conn, change.at),
        };
        self.put(conn, change.at, change.new, held, None, out);
    }

    /// A full socket is closed.
    fn close(&mut self, key: u64, mut conn: Box<Conn>, change: &Change, out: &mut Vec<Row>) {
        conn.totals = change.end.map(|end| end.totals);
        if change.old == State::Listen {
            let held = self.held(&conn, change.at);
            self.forget_listener(key, &conn);
            self.put(&mut conn, change.at, State::Closed, held, None, out);
            return;
        }
        conn.lingers = change.flags.is_some_and(|flags| !flags.dead);
        let reset = conn.reset.filter(|(at, _)| change.at.saturating_sub(*at) < RESET_FOLLOWS_NS);
        let verdict = decide::closing(change, reset.map(|(_, reason)| reason));
        if !matches!(verdict, Verdict::Mini { .. }) {
            self.early.remove(&(key | MINI));
        }
        match verdict {
            Verdict::Mini { substate, due_ns } => self.become_mini(key, conn, change, substate, due_ns, out),
            Verdict::Ended(ending) => {
                let held = self.held(&conn, change.at);
                self.end(conn, change.at, held, ending, out);
            }
            Verdict::AwaitReset(alternatives) => self.await_reset(key, conn, change.at, alternatives),
        }
    }

    fn await_reset(&mut self, key: u64, conn: Box<Conn>, at: u64, alternatives: Alternatives) {
        self.awaiting.insert(key, Awaiting { conn, at, alternatives });
        self.deadlines.push(Reverse((at.saturating_sub(self.asleep_ns).saturating_add(RESET_FOLLOWS_NS), key)));
    }

    fn end_awaited(&mut self, waiting: Awaiting, reset: Option<ResetReason>, out: &mut Vec<Row>) {
        let Awaiting { conn, at, alternatives } = waiting;
        let held = self.held(&conn, at);
        self.end(conn, at, held, alternatives.resolve(reset), out);
    }

    /// A mini-socket takes over.
    fn become_mini(
        &mut self,
        key: u64,
        mut conn: Box<Conn>,
        change: &Change,
        substate: State,
        due_ns: u64,
        out: &mut Vec<Row>,
    ) {
        conn.orphan = change.flags.is_some_and(|flags| flags.dead);
        conn.is_mini = true;
        if substate == State::TimeWait {
            self.time_wait_ns = Some(due_ns);
            let held = self.held(&conn, change.at);
            self.put(&mut conn, change.at, State::TimeWait, held, None, out);
        }
        let key = key | MINI;
        self.expect_end(&mut conn, key, change.at, due_ns);
        self.attend(key, &conn);
        if self.config.at_close {
            self.conclude(&conn, change.at, End::Fin.into(), out);
        }
        if conn.lingers {
            let mut full = conn.clone();
            (full.state, full.since, full.is_mini) = (State::Closed, Some(change.at), false);
            self.linger(full, End::Fin.into());
        }
        self.keep(key, conn, change.at);
        if let Some(early) = self.early.remove(&key) {
            self.on_mini(&early, out);
        }
    }

    pub(super) fn expect_end(&mut self, conn: &mut Conn, key: u64, at: u64, due_ns: u64) {
        let awake = at.saturating_sub(self.asleep_ns);
        let give_up = awake.saturating_add(given_up_after(due_ns));
        conn.due_at = Some(awake.saturating_add(due_ns));
        conn.gives_up_at = Some(give_up);
        self.deadlines.push(Reverse((give_up, key)));
    }

    fn on_mini(&mut self, mini: &Mini, out: &mut Vec<Row>) {
        let key = key(mini.id) | MINI;
        let Some(mut conn) = self.conns.remove(&key) else { return self.on_unknown_mini(key, mini, out) };
        if mini.substate == State::TimeWait && conn.state == State::FinWait2 {
            self.turn_time_wait(&mut conn, mini, out);
        }
        match mini.what {
            MiniEvent::Fin | MiniEvent::Rearmed => {
                self.expect_end(&mut conn, key, mini.at, self.time_wait_ns.unwrap_or(LENGTH_UNKNOWN_NS));
                self.keep(key, conn, mini.at);
            }
            MiniEvent::Killed(KilledBy::Unknown) => {
                conn.maybe_ended_at = Some(mini.at);
                self.keep(key, conn, mini.at);
            }
            MiniEvent::Expired | MiniEvent::Killed(_) => self.end_mini(conn, mini, out),
        }
    }

    /// The FIN that an orphan in FIN_WAIT2 was waiting for has come.
    fn turn_time_wait(&mut self, conn: &mut Conn, mini: &Mini, out: &mut Vec<Row>) {
        if matches!(mini.what, MiniEvent::Fin | MiniEvent::Rearmed) {
            let held = self.held(conn, mini.at);
            self.put(conn, mini.at, State::TimeWait, held, None, out);
            return;
        }
        // It came unseen. Since its timer was set then, to the length of a TIME_WAIT, the timer tells when; later
        // FINs may have set it again, so that this is the latest time that it can have been.
        conn.whole = false;
        let due_at = i128::from(mini.at) + i128::from(mini.due_ns);
        let set_at = self.time_wait_ns.and_then(|length| u64::try_from(due_at - i128::from(length)).ok());
        let at = set_at.map(|at| at.clamp(conn.since.unwrap_or(0), mini.at));
        self.put(conn, at.unwrap_or(mini.at), State::TimeWait, Held::Unknown, None, out);
        conn.since = None;
        conn.at_least_since = at;
    }

    fn end_mini(&mut self, conn: Box<Conn>, mini: &Mini, out: &mut Vec<Row>) {
        let at = mini.at;
        let held = match conn.since {
            // A socket has but one TIME_WAIT: a gap in the stream takes nothing away from it.
            Some(since) => Held::Exactly(at.saturating_sub(since)),
            None => self.held(&conn, at),
        };
        let ending = match (conn.state, mini.what) {
            (State::TimeWait, MiniEvent::Killed(by)) => time_wait(decide::time_wait_killed(by)),
            (State::TimeWait, _) => time_wait(TimeWaitEnd::Expired),
            (_, MiniEvent::Killed(by)) => decide::fin_wait2_killed(by).into(),
            _ => End::FinWait2Timeout.into(),
        };
        self.end(conn, at, held, ending, out);
    }

    /// A mini-socket that was there before, or whose full socket is still being closed on another CPU, or was so
    /// unseen.
    fn on_unknown_mini(&mut self, key: u64, mini: &Mini, out: &mut Vec<Row>) {
        if self.conns.get(&(key & !MINI)).is_some_and(|conn| conn.over.is_none()) {
            if mini.what == MiniEvent::Expired {
                self.end_unseen_full(key, mini, out);
            } else {
                self.early.insert(key, *mini);
            }
            return;
        }
        let ends = !matches!(mini.what, MiniEvent::Fin | MiniEvent::Rearmed | MiniEvent::Killed(KilledBy::Unknown));
        if !ends {
            return;
        }
        let change = Change {
            at: mini.at,
            id: mini.id,
            address: None,
            tuple: mini.tuple,
            netns: mini.netns,
            uid: None,
            cgroup: None,
            old: mini.substate,
            new: State::Closed,
            flags: None,
            task: None,
            end: None,
        };
        let mut conn = Box::new(Conn::new(mini.id.number(), &change, self.gaps));
        conn.closer = decide::closer_in(mini.substate);
        self.end_mini(conn, mini, out);
    }

    /// A full socket whose closing was lost: its mini-socket has run its whole time.
    fn end_unseen_full(&mut self, key: u64, mini: &Mini, out: &mut Vec<Row>) {
        self.early.remove(&key);
        let Some(mut conn) = self.conns.remove(&(key & !MINI)) else { return };
        conn.whole = false;
        if conn.state != mini.substate {
            conn.change_unseen(mini.substate, None);
        }
        self.end_mini(conn, mini, out);
    }

    fn on_reset_sent(&mut self, at: u64, id: Id, reason: ResetReason, out: &mut Vec<Row>) {
        let key = key(id);
        for key in [key, key | MINI] {
            if let Some(waiting) = self.awaiting.remove(&key) {
                return self.end_awaited(waiting, Some(reason), out);
            }
        }
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.reset = Some((at, reason));
        }
    }

    fn on_accepted(&mut self, id: Id, task: Task) {
        let key = key(id);
        for key in [key, key | MINI] {
            let awaiting = self.awaiting.get_mut(&key).map(|waiting| &mut waiting.conn);
            if let Some(conn) = self.conns.get_mut(&key).or(awaiting) {
                conn.accepted = Some(true);
                conn.own(task, OwnerSource::Accept);
            }
        }
    }

    fn on_destroyed(&mut self, at: u64, id: Id, out: &mut Vec<Row>) {
        self.inquiry.note_end(key(id));
        self.end_lost(key(id), at, out);
    }

    /// A socket that is followed turns out to be gone: its end was lost.
    pub(super) fn end_lost(&mut self, key: u64, at: u64, out: &mut Vec<Row>) {
        if let Some(conn) = self.conns.remove(&key) {
            self.end_unseen(conn, at, out);
        }
    }

    fn end_unseen(&mut self, mut conn: Box<Conn>, at: u64, out: &mut Vec<Row>) {
        if conn.over.is_some() {
            return self.release(&conn, at, out);
        }
        conn.whole = false;
        conn.lingers = false;
        if conn.state == State::Listen {
            self.forget_listener(key_of(&conn), &conn);
            self.put(&mut conn, at, State::Closed, Held::Unknown, None, out);
        } else {
            self.end(conn, at, Held::Unknown, End::Unknown.into(), out);
        }
    }

    /// The connection is over.
    fn end(&mut self, mut conn: Box<Conn>, at: u64, held: Held, ending: Ending, out: &mut Vec<Row>) {
        let Ending { end, time_wait } = ending;
        conn.closer = conn.closer.or_else(|| Some(decide::closer_by(end, conn.state)));
        let reason = reason(Ending { end, time_wait });
        self.put(&mut conn, at, State::Closed, held, Some(reason), out);
        if !(self.config.at_close && conn.is_mini) {
            self.conclude(&conn, at, ending, out);
        }
        let key = key_of(&conn);
        self.inquiry.note_end(if conn.is_mini { key | MINI } else { key });
        if conn.lingers && !conn.is_mini {
            self.linger(conn, ending);
        }
    }

    /// Goes on following a socket whose connection is over, until its descriptor is closed. It is forgotten first.
    fn linger(&mut self, mut conn: Box<Conn>, ending: Ending) {
        let key = key_of(&conn);
        conn.over = Some(ending);
        self.attend(key, &conn);
        self.conns.insert(key, conn);
        self.conns.to_front(&key);
        self.make_room(self.now);
    }

    /// Puts out a transition, and brings the connection into its new state.
    fn put(&mut self, conn: &mut Conn, at: u64, new: State, held: Held, reason: Option<Reason>, out: &mut Vec<Row>) {
        let old = conn.state;
        conn.stays.record(old, held);
        conn.state = new;
        conn.since = Some(at);
        self.stats.transitions += 1;
        if !self.config.transitions {
            return;
        }
        out.push(Row::Transition(Transition {
            boot_ns: at,
            identity: conn.identity(),
            old,
            new,
            held,
            closer: conn.closer,
            reason,
            orphan: conn.orphan,
            closed_by: conn.closed_by,
            stuck: None,
        }));
    }

    /// Puts out that a socket stays as it is.
    pub(super) fn put_stuck(&self, conn: &Conn, at: u64, stuck: Stuck, out: &mut Vec<Row>) {
        if self.config.transitions {
            out.push(Row::Transition(Transition {
                boot_ns: at,
                identity: conn.identity(),
                old: conn.state,
                new: conn.state,
                held: stuck.age,
                closer: conn.closer,
                reason: conn.over.map(reason),
                orphan: conn.orphan,
                closed_by: conn.closed_by,
                stuck: Some(stuck),
            }));
        }
        if self.config.connections {
            let mut row = self.connection(conn, at, conn.over.unwrap_or(End::Unknown.into()));
            if let Some(ns) = stuck.age.known_ns().filter(|_| conn.over.is_none()) {
                row.stays.push(Stay { state: conn.state, held: Held::AtLeast(ns) });
            }
            row.stuck = Some(Box::new(stuck));
            out.push(Row::Connection(row));
        }
    }

    /// Puts out the connections that have not ended by now, each with what is known of it so far. They go on being
    /// followed.
    pub fn put_open(&self, out: &mut Vec<Row>) {
        let conns = self.conns.values().map(|conn| &**conn);
        for conn in conns.filter(|conn| conn.over.is_none() && conn.state != State::Listen) {
            let age = self.held(conn, self.now);
            let accepted = conn.accepted.filter(|_| conn.side != Side::Client);
            let mut row = self.connection(conn, self.now, End::Unknown.into());
            if let Some(ns) = age.known_ns() {
                row.stays.push(Stay { state: conn.state, held: Held::AtLeast(ns) });
            }
            row.stuck = Some(Box::new(Stuck {
                state: conn.state,
                age,
                holder: None,
                holders: None,
                accepted,
                listener: None,
                released: false,
            }));
            out.push(Row::Connection(row));
        }
    }

    /// Puts a connection out.
    fn conclude(&mut self, conn: &Conn, at: u64, ending: Ending, out: &mut Vec<Row>) {
        self.stats.connections += 1;
        if !self.config.connections {
            return;
        }
        out.push(Row::Connection(self.connection(conn, at, ending)));
    }

    fn connection(&self, conn: &Conn, at: u64, ending: Ending) -> Connection {
        Connection {
            identity: conn.identity(),
            opened_ns: conn.opened,
            closed_ns: at,
            closer: conn.closer.unwrap_or(Closer::Unknown),
            end: ending.end,
            closed_by: conn.closed_by,
            stays: conn.stays.to_vec(),
            time_wait_end: ending.time_wait,
            totals: conn.totals,
            complete: conn.whole && conn.gaps == self.gaps,
            stuck: None,
        }
    }

    /// Goes on following a socket, as the one seen last.
    pub(super) fn keep(&mut self, key: u64, conn: Box<Conn>, at: u64) {
        self.conns.insert(key, conn);
        self.make_room(at);
    }

    fn make_room(&mut self, at: u64) {
        if self.conns.len() > self.config.sockets
            && let Some((_, forgotten)) = self.conns.pop_front()
            && forgotten.over.is_none()
        {
            self.stats.evicted += 1;
            self.forgot_at = Some(at);
            self.forgotten.get_or_insert((at, 0)).1 += 1;
        }
    }

    /// How long a connection has been in its state, as far as that is certain.
    pub(super) fn held(&self, conn: &Conn, now: u64) -> Held {
        conn.held(now, self.gaps, self.blind_until, self.blind_until.max(self.forgot_at))
    }
}

/// Of a full socket.
fn key_of(conn: &Conn) -> u64 {
    conn.number & !MINI
}

/// Why its last transition happened.
fn reason(ending: Ending) -> Reason {
    match ending.time_wait {
        Some(time_wait) => Reason::TimeWait(time_wait),
        None => Reason::End(ending.end),
    }
}

pub(super) fn key(id: Id) -> u64 {
    id.number() & !MINI
}

/// A child that does not know yet who it is: up to 6.14 it shows its listener's cookie, and no peer.
fn is_embryo(change: &Change) -> bool {
    let is_born = (change.old, change.new) == (State::Listen, State::SynRecv);
    is_born && change.flags.is_some() && matches!(change.id, Id::Address(_))
}

/// Whether a life begins with it.
fn begins(change: &Change) -> bool {
    matches!(
        (change.old, change.new),
        (State::Closed, State::SynSent | State::Listen) | (State::Listen, State::SynRecv)
    )
}

/// A change that changes nothing, of a socket without a connection.
fn is_noise(change: &Change) -> bool {
    matches!((change.old, change.new), (State::Closed, State::Closed) | (State::Listen, State::Listen))
}

/// A TIME_WAIT is only entered when both FINs are done.
fn time_wait(end: TimeWaitEnd) -> Ending {
    Ending { end: End::Fin, time_wait: Some(end) }
}
