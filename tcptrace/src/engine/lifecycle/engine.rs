//! The state machine.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::config::{Config, Stats};
use super::conn::{Conn, MINI, Mark, progress};
use super::deadlines::{Deadline, Deadlines};
use super::decide::{self, Alternatives, Conclusion, Fate, ResetSent};
use super::missing::Missing;
use super::store::{self, Place, Store};
use super::stuck::Waiting;
use super::survey::Inquiry;
use super::tell::{Teller, reason};
use crate::model::event::{Cause, Change, Event, Id, KilledBy, Mini, MiniEvent, ResetReason};
use crate::model::row::{Ending, Held, Loss, Row};
use crate::model::tcp::{End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple};

/// How long to wait for a reset that may follow the closing of a socket. Both come in the same soft interrupt, but a
/// virtual CPU can stall in between.
const RESET_FOLLOWS_NS: u64 = 200_000_000;

/// How long an event of a mini-socket may precede the closing of its full socket. The kernel reports both within one
/// soft interrupt, but a virtual CPU can stall in between. After that, the closing is known to be lost.
const OVERTAKES_NS: u64 = 1_000_000_000;

/// How long before the drop its twin can have been made or closed, and how many sockets can have been seen or closed since. All
/// of it happens within microseconds, but a virtual CPU can stall in between.
const TWIN_WITHIN_NS: u64 = 200_000_000;
const TWIN_AMONG: usize = 256;
const TWIN_AMONG_CLOSED: usize = 64;

/// Assumed length of a TIME_WAIT, only for giving up on it, while none has been seen to begin.
const LENGTH_UNKNOWN_NS: u64 = 120_000_000_000;

/// Forgotten sockets are reported together, at most this often: each event can cause one.
const FORGOTTEN_NS: u64 = 1_000_000_000;

/// Rebuilds the life of every connection from events.
///
/// Feed it events in the order of the stream, and let time pass with [`Engine::advance`] while there are none. What
/// it concludes depends on nothing else.
#[derive(Debug)]
pub struct Engine {
    pub(super) conns: Store,
    pub(super) teller: Teller,
    /// Children known by their address only, and when they were made (before 6.15).
    embryos: HashMap<u64, u64, FixedState>,
    /// Ends that depend on a reset that may follow.
    awaiting: HashMap<u64, Awaiting, FixedState>,
    /// Connections of servers that were closed last, and when, if they were short.
    closed: VecDeque<(Tuple, Option<u32>, u64)>,
    /// Events of mini-sockets that overtook the closing of the full socket on another CPU.
    early: HashMap<u64, Early, FixedState>,
    pub(super) deadlines: Deadlines,
    /// Sockets to look at again, if they stay in their state.
    pub(super) waiting: Waiting,
    /// The current survey or scan.
    pub(super) inquiry: Inquiry,
    /// The sockets that it did not find.
    pub(super) missing: Missing,
    /// Number of forgotten sockets not reported yet, and since when.
    forgotten: Option<(u64, u64)>,
    pub(super) now: u64,
    /// The length of a TIME_WAIT here, once one was seen to begin.
    time_wait_ns: Option<u64>,
}

/// A connection that has ended; what ended it is not decided yet.
#[derive(Debug)]
struct Awaiting {
    conn: Box<Conn>,
    at: u64,
    /// How long it was in the state that it left.
    held: Held,
    alternatives: Alternatives,
    /// The reset that was sent, where the fate of the socket says more.
    reset: Option<ResetReason>,
    /// Number of gaps in the stream at that time.
    gaps: u32,
    twin: Twin,
}

/// Whether a socket never was a connection: two CPUs made a socket each for one request, when its acknowledgement and its first
/// data came at once, and the kernel drops the later one (`inet_ehash_nolisten` in `net/ipv4/inet_hashtables.c`). It sends no
/// reset for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// This one was more than a request.
    Impossible,
    /// The other one may be known later: before 6.15, when it is established.
    NotSeen,
    Seen,
}

impl Awaiting {
    fn is_settled_by_destruction(&self) -> bool {
        self.alternatives.is_settled_by_destruction() && self.twin != Twin::NotSeen
    }
}

/// Events of a mini-socket whose full socket is still to be closed: the first and the latest.
#[derive(Clone, Copy, Debug)]
struct Early {
    first: Mini,
    latest: Option<Mini>,
    /// When to give up the closing, in ns without the sleep of the machine.
    gives_up_at: u64,
}

impl Early {
    fn events(&self) -> impl Iterator<Item = Mini> {
        std::iter::once(self.first).chain(self.latest)
    }
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: Config) -> Self {
        Self {
            conns: Store::default(),
            teller: Teller::new(Config { sockets: config.sockets.min(store::MOST), ..config }),
            embryos: HashMap::default(),
            awaiting: HashMap::default(),
            closed: VecDeque::with_capacity(TWIN_AMONG_CLOSED),
            early: HashMap::default(),
            deadlines: Deadlines::default(),
            waiting: Waiting::default(),
            inquiry: Inquiry::default(),
            missing: Missing::default(),
            forgotten: None,
            now: 0,
            time_wait_ns: None,
        }
    }

    /// Its statistics so far.
    pub fn stats(&self) -> Stats {
        Stats { followed: self.conns.len(), ..self.teller.stats }
    }

    /// The network namespace, control group and interface of every followed connection: later rows can show them.
    pub fn places(&self) -> impl Iterator<Item = (Option<u32>, Option<u64>, u32)> {
        let awaiting = self.awaiting.values().map(|awaiting| &*awaiting.conn);
        self.conns.iter().chain(awaiting).map(|conn| (conn.netns(), conn.cgroup(), conn.interface()))
    }

    /// When the engine must conclude something even if nothing happens, in ns of `CLOCK_BOOTTIME`.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadline = self.deadlines.next().map(|deadline| self.deadlines.in_boot_time(deadline.awake));
        let forgotten = self.forgotten.map(|(since, _)| since.saturating_add(FORGOTTEN_NS));
        deadline.into_iter().chain(self.waiting.next_look()).chain(self.missing.next_look()).chain(forgotten).min()
    }

    /// These events come next. What is known of sockets that were seen long ago is far from the processor, and it fetches
    /// several in the time of one.
    pub fn prepare<'e>(&self, events: impl Iterator<Item = &'e Event>) {
        let keys = events.filter_map(|event| match event {
            Event::Mini(mini) => Some(key(mini.id) | MINI),
            // Others follow so soon on what came before that it is still near.
            Event::Change(change) if change.old == State::Established => Some(key(change.id)),
            _ => None,
        });
        std::hint::black_box(keys.fold(0, |all, key| all ^ self.conns.touch_memory(key)));
    }

    /// Takes an event, and emits what follows from it.
    pub fn feed(&mut self, event: &Event, out: &mut Vec<Row>) {
        // This comes first: no deadline passed while the machine slept.
        if let Event::Suspended { at, ns } = event {
            self.deadlines.sleep(*ns, *at);
        }
        self.advance(event.at(), out);
        match event {
            Event::Started { at } => self.teller.blind_until = Some(*at),
            Event::Change(change) => self.on_change(change, out),
            Event::Destroyed { at, id, shut, .. } => self.on_destroyed(*at, *id, *shut, out),
            Event::Accepted { id, task, .. } => self.on_accepted(*id, *task),
            Event::AcceptsWatched { at, watched } => self.teller.accepts_seen_since = watched.then_some(*at),
            Event::SurveyBegun { at } => self.on_survey_begun(*at),
            Event::Found(found) => self.on_found(found),
            Event::Surveyed { netns, .. } => self.inquiry.surveyed(*netns),
            Event::SurveyEnded { .. } => self.on_survey_ended(out),
            Event::ScanBegun { at } => self.on_scan_begun(*at),
            Event::Holder(holder) => self.on_holder(holder),
            Event::Flow(flow) => self.on_flow(flow),
            Event::Subflow(subflow) => self.on_subflow(subflow),
            Event::ScanEnded { .. } => self.on_scan_ended(out),
            Event::ResetSent { at, id, reason } => self.on_reset_sent(*at, *id, *reason, out),
            Event::Bypassing { id, .. } => self.on_bypassing(*id),
            Event::ResetReceived { id, .. } => self.on_reset_received(*id),
            Event::Suspended { .. } | Event::Passed { .. } | Event::Inspected(_) | Event::FailedCall(_) => {}
            Event::Mini(mini) => self.on_mini(mini, out),
            Event::Lost { at, cause, events } => {
                self.teller.blind_until = Some(*at);
                self.teller.gaps += 1;
                self.teller.lose_accepts(*cause);
                out.extend(Loss::of(*at, *cause, *events).map(Row::Loss));
            }
        }
    }

    /// Lets time pass: every event from before `now` has been fed.
    #[inline]
    pub fn advance(&mut self, now: u64, out: &mut Vec<Row>) {
        self.now = self.now.max(now);
        if self.forgotten.is_some_and(|(since, _)| self.now >= since.saturating_add(FORGOTTEN_NS)) {
            self.tell_forgotten(out);
        }
        while let Some(deadline) = self.deadlines.pop_until(self.now) {
            self.on_deadline(deadline, out);
        }
        self.look_at_waiting(out);
        self.look_for_missing();
    }

    /// The stream has ended: emits what was pending.
    pub fn finish(&mut self, out: &mut Vec<Row>) {
        self.tell_forgotten(out);
        let mut awaiting: Vec<_> = std::mem::take(&mut self.awaiting).into_iter().collect();
        awaiting.sort_unstable_by_key(|(key, waiting)| (waiting.at, *key));
        for (_, waiting) in awaiting {
            let reset = waiting.reset.map_or(ResetSent::Unknown, ResetSent::Yes);
            self.end_awaited(waiting, reset, Fate::Unknown, out);
        }
    }

    fn tell_forgotten(&mut self, out: &mut Vec<Row>) {
        if let Some((boot_ns, count)) = self.forgotten.take() {
            out.push(Row::Loss(Loss { boot_ns, cause: Cause::Evicted, count: Some(count) }));
        }
    }

    fn on_deadline(&mut self, Deadline { awake, key }: Deadline, out: &mut Vec<Row>) {
        if !self.awaiting.is_empty() && self.awaiting.contains_key(&key) {
            self.settle_awaiting(key, Fate::Kept, out);
        } else if self.early.get(&key).is_some_and(|early| early.gives_up_at == awake) {
            self.give_up_closing(key, self.deadlines.in_boot_time(awake), out);
        } else if key & MINI != 0
            && let Some(place) = self.conns.find(key)
            && self.conns[place].gives_up_at() == Some(awake)
        {
            let conn = self.conns.remove(place);
            self.end_unseen_mini(conn, out);
        }
    }

    /// A mini-socket that should have ended long ago, but whose end was not seen.
    fn end_unseen_mini(&mut self, mut conn: Conn, out: &mut Vec<Row>) {
        conn.mark(Mark::Whole, false);
        let Some(due) = conn.due_at() else { return };
        let at = conn.maybe_ended_at().unwrap_or(self.deadlines.in_boot_time(due)).min(self.now);
        // If nothing was lost, it was killed when its timer was due already, but had not fired yet.
        let held = match conn.since() {
            Some(since) if self.teller.gaps == conn.gaps => Held::AtLeast(at.saturating_sub(since)),
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
        // A socket that is used again has already sent its reset, if any.
        self.settle_awaiting(key, Fate::Kept, out);
        let embryo = change.address.and_then(|address| self.embryos.remove(&address));
        if embryo.is_some() && change.new != State::Closed && !self.awaiting.is_empty() {
            self.find_dropped(change);
        }
        let found = self.conns.find(key);
        let is_known = found.is_some() && !begins(change);
        let place = match found {
            Some(place) if begins(change) || progress(self.conns[place].state) > progress(change.old) => {
                let before = self.conns.remove(place);
                self.forget_early(key | MINI);
                self.end_unseen(before, change.at, out);
                self.meet(change, embryo, out)
            }
            Some(place) => place,
            None if is_noise(change) => return,
            None => self.meet(change, embryo, out),
        };
        let conn = &mut self.conns[place];
        conn.complete_identity(change);
        conn.note_task(change);
        if decide::is_restored(change) {
            conn.side = Side::Unknown;
        }
        if change.old != change.new {
            if conn.state != change.old {
                conn.change_unseen(change.old, None);
            }
            conn.note_idle(change);
            if change.new == State::Closed {
                let conn = self.conns.remove(place);
                let change = if is_known { *change } else { decide::without_proof(change) };
                return self.close(key, conn, &change, out);
            }
            self.teller.step(conn, change, out);
            self.waiting.attend(conn, &self.teller.config, self.now);
            self.missing.attend(conn, self.now);
        }
        self.conns.touch(place);
        self.make_room(change.at);
    }

    fn note_embryo(&mut self, change: &Change) {
        if self.embryos.len() >= self.teller.config.sockets {
            self.embryos.clear();
        }
        if let Id::Address(address) = change.id {
            self.embryos.insert(address, change.at);
        }
    }

    /// A socket that was not followed before.
    fn meet(&mut self, change: &Change, embryo: Option<u64>, out: &mut Vec<Row>) -> Place {
        let mut conn = Conn::new(change.id.number(), change, self.teller.gaps);
        match (change.old, change.new) {
            (State::Closed, State::SynSent) => conn.begin(Side::Client, change.at),
            (State::Closed, State::Listen) => conn.begin(Side::Server, change.at),
            (State::Listen, State::SynRecv) => conn.begin(Side::Server, change.at),
            (State::SynRecv, _) if embryo.is_some() => {
                let born = embryo.unwrap_or(change.at);
                conn.state = State::Listen;
                conn.begin(Side::Server, born);
                self.teller.put(&mut conn, born, State::SynRecv, Held::Unknown, None, out);
            }
            (old, _) => conn.closer = decide::closer_in(old),
        }
        self.conns.add(conn)
    }

    /// A full socket is closed.
    fn close(&mut self, key: u64, mut conn: Conn, change: &Change, out: &mut Vec<Row>) {
        conn.set_totals(change.end.map(|end| self.teller.totals(&conn, &end)).filter(|_| !conn.is(Mark::Bypassing)));
        if change.old == State::Listen {
            let held = self.teller.held(&conn, change.at);
            self.waiting.forget_listener(key, &conn);
            self.teller.put(&mut conn, change.at, State::Closed, held, None, out);
            return;
        }
        self.note_closed(&conn, change);
        conn.mark(Mark::Lingers, change.flags.is_some_and(|flags| !flags.dead));
        let reset = conn.reset().filter(|(at, _)| change.at.saturating_sub(*at) < RESET_FOLLOWS_NS);
        let conclusion = decide::closing(change, reset.map(|(_, reason)| reason), conn.is(Mark::ShutBoth));
        if !matches!(conclusion, Conclusion::Mini { .. }) {
            self.forget_early(key | MINI);
        }
        match conclusion {
            Conclusion::Mini { substate, due_ns } => self.become_mini(key, conn, change, substate, due_ns, out),
            Conclusion::Ended(ending) => {
                let held = self.teller.held(&conn, change.at);
                let held = if decide::may_go_on(change, &ending) { held.or_longer() } else { held };
                self.end(conn, change.at, held, ending, out);
            }
            Conclusion::AwaitReset(alternatives) => {
                let twin = self.twin(&conn, change);
                self.await_reset(key, conn, change.at, alternatives, twin, out);
            }
        }
    }

    fn twin(&self, conn: &Conn, change: &Change) -> Twin {
        let has_socket = change.flags.is_none_or(|flags| flags.has_socket);
        if conn.side != Side::Server || change.old != State::SynRecv || has_socket {
            return Twin::Impossible;
        }
        let is_recent = |at: u64| change.at.saturating_sub(at) < TWIN_WITHIN_NS;
        // There are no two connections with the same addresses.
        let is_twin = |other: &Conn| {
            other.side == Side::Server
                && other.over.is_none()
                && other.since().is_some_and(is_recent)
                && (other.tuple, other.netns()) == (conn.tuple, conn.netns())
        };
        let was_twin = |(tuple, netns, at): &(Tuple, Option<u32>, u64)| {
            (*tuple, *netns) == (conn.tuple, conn.netns()) && is_recent(*at)
        };
        let is_seen = self.conns.latest().take(TWIN_AMONG).any(is_twin) || self.closed.iter().any(was_twin);
        if is_seen { Twin::Seen } else { Twin::NotSeen }
    }

    /// A child whose addresses were not known before may be the twin of one that was dropped meanwhile.
    fn find_dropped(&mut self, change: &Change) {
        let is_it = |waiting: &&mut Awaiting| {
            waiting.twin == Twin::NotSeen && (waiting.conn.tuple, waiting.conn.netns()) == (change.tuple, change.netns)
        };
        if let Some(waiting) = self.awaiting.values_mut().find(is_it) {
            waiting.twin = Twin::Seen;
        }
    }

    fn note_closed(&mut self, conn: &Conn, change: &Change) {
        let is_short = |opened: u64| change.at.saturating_sub(opened) < TWIN_WITHIN_NS;
        if conn.side == Side::Server && change.old != State::SynRecv && conn.opened().is_some_and(is_short) {
            if self.closed.len() == TWIN_AMONG_CLOSED {
                self.closed.pop_front();
            }
            self.closed.push_back((conn.tuple, conn.netns(), change.at));
        }
    }

    fn await_reset(
        &mut self,
        key: u64,
        conn: Conn,
        at: u64,
        alternatives: Alternatives,
        twin: Twin,
        out: &mut Vec<Row>,
    ) {
        let held = self.teller.held(&conn, at);
        let gaps = self.teller.gaps;
        let waiting = Awaiting { conn: Box::new(conn), at, held, alternatives, reset: None, gaps, twin };
        if self.teller.config.resets {
            // An older answer of the kernel does not bring it back.
            self.inquiry.note_end(key);
            self.awaiting.insert(key, waiting);
            self.deadlines.push(at, RESET_FOLLOWS_NS, key);
        } else {
            self.end_awaited(waiting, ResetSent::Unknown, Fate::Unknown, out);
        }
    }

    /// No reset that belongs to this closing can follow any more.
    fn settle_awaiting(&mut self, key: u64, fate: Fate, out: &mut Vec<Row>) {
        if !self.awaiting.is_empty()
            && let Some(waiting) = self.awaiting.remove(&key)
        {
            let reset = waiting.reset.map_or_else(|| self.no_reset_since(&waiting), ResetSent::Yes);
            // The event that shows its fate may be lost.
            let is_whole = waiting.gaps == self.teller.gaps;
            let fate = if fate == Fate::Kept && !is_whole { Fate::Unknown } else { fate };
            self.end_awaited(waiting, reset, fate, out);
        }
    }

    fn no_reset_since(&self, waiting: &Awaiting) -> ResetSent {
        if waiting.gaps == self.teller.gaps { ResetSent::No } else { ResetSent::Unknown }
    }

    fn end_awaited(&mut self, waiting: Awaiting, reset: ResetSent, fate: Fate, out: &mut Vec<Row>) {
        let Awaiting { mut conn, at, held, alternatives, reset: reason, twin, .. } = waiting;
        if twin == Twin::Seen && !matches!(reset, ResetSent::Yes(_)) {
            self.inquiry.note_end(conn.key());
            return self.teller.put(&mut conn, at, State::Closed, held, None, out);
        }
        let ending = alternatives.with_fate(fate, reason).resolve(reset);
        if let ResetSent::Yes(_) = reset {
            let closer = decide::closer_by_reset(ending.end, conn.state);
            conn.closer.get_or_insert(closer);
        }
        self.end(*conn, at, held, ending, out);
    }

    /// A mini-socket takes over.
    fn become_mini(
        &mut self,
        key: u64,
        mut conn: Conn,
        change: &Change,
        substate: State,
        due_ns: u64,
        out: &mut Vec<Row>,
    ) {
        conn.mark(Mark::Orphan, change.flags.is_some_and(|flags| flags.dead));
        conn.mark(Mark::Mini, true);
        if substate == State::TimeWait {
            self.time_wait_ns = Some(due_ns);
            let held = self.teller.held(&conn, change.at);
            self.teller.put(&mut conn, change.at, State::TimeWait, held, None, out);
        }
        self.deadlines.expect_end(&mut conn, change.at, due_ns);
        self.waiting.attend(&conn, &self.teller.config, self.now);
        if self.teller.config.at_close {
            self.teller.conclude(&conn, change.at, End::Fin.into(), out);
        }
        if conn.is(Mark::Lingers) {
            let mut full = conn.clone();
            full.state = State::Closed;
            full.set_since(change.at);
            full.mark(Mark::Mini, false);
            self.linger(full, End::Fin.into());
        }
        // An older answer of the kernel does not bring the full socket back.
        self.inquiry.note_end(key);
        self.keep(conn, change.at);
        self.catch_up(key | MINI, out);
    }

    /// Applies events that came too early for a mini-socket, now that it is followed.
    fn catch_up(&mut self, key: u64, out: &mut Vec<Row>) {
        if let Some(early) = self.forget_early(key) {
            early.events().for_each(|mini| self.on_mini(&mini, out));
        }
    }

    fn on_mini(&mut self, mini: &Mini, out: &mut Vec<Row>) {
        let key = key(mini.id) | MINI;
        let Some(place) = self.conns.find(key) else { return self.on_unknown_mini(key, mini, out) };
        let conn = &mut self.conns[place];
        if mini.substate == State::TimeWait && conn.state == State::FinWait2 {
            self.teller.turn_time_wait(conn, mini, self.time_wait_ns, out);
        }
        match mini.what {
            MiniEvent::Fin | MiniEvent::Rearmed => {
                let due_ns = self.time_wait_ns.unwrap_or(LENGTH_UNKNOWN_NS);
                self.deadlines.expect_end(conn, mini.at, due_ns);
                self.conns.touch(place);
            }
            MiniEvent::Killed(KilledBy::Unknown) => {
                conn.set_maybe_ended_at(mini.at);
                self.conns.touch(place);
            }
            MiniEvent::Expired | MiniEvent::Killed(_) => {
                let conn = self.conns.remove(place);
                self.end_mini(conn, mini, out);
            }
        }
    }

    fn end_mini(&mut self, conn: Conn, mini: &Mini, out: &mut Vec<Row>) {
        let at = mini.at;
        let held = match conn.since() {
            // A socket has only one TIME_WAIT: a gap in the stream changes nothing about it.
            Some(since) => Held::Exactly(at.saturating_sub(since)),
            None => self.teller.held(&conn, at),
        };
        let ending = match (conn.state, mini.what) {
            (State::TimeWait, MiniEvent::Killed(by)) => time_wait(decide::time_wait_killed(by)),
            (State::TimeWait, _) => time_wait(TimeWaitEnd::Expired),
            (_, MiniEvent::Killed(by)) => decide::fin_wait2_killed(by).into(),
            _ => End::FinWait2Timeout.into(),
        };
        self.end(conn, at, held, ending, out);
    }

    /// A mini-socket that existed before, or whose full socket is being closed on another CPU, or was closed unseen.
    fn on_unknown_mini(&mut self, key: u64, mini: &Mini, out: &mut Vec<Row>) {
        if self.conns.get(key & !MINI).is_some_and(|conn| conn.over.is_none()) {
            // It has run its whole time, which is longer than any CPU stalls.
            let is_proof = mini.what == MiniEvent::Expired;
            self.wait_for_closing(key, mini);
            if is_proof {
                self.give_up_closing(key, mini.at, out);
            }
            return;
        }
        if !ends(mini) {
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
            interface: 0,
            old: mini.substate,
            new: State::Closed,
            flags: None,
            task: None,
            idle: None,
            end: None,
        };
        let mut conn = Conn::new(mini.id.number(), &change, self.teller.gaps);
        conn.closer = decide::closer_in(mini.substate);
        self.end_mini(conn, mini, out);
    }

    /// Whether the closing of a full socket is still to come, after an event of its mini-socket.
    pub(super) fn is_closing(&self, key: u64) -> bool {
        self.early.contains_key(&key)
    }

    /// There are none, most of the time.
    fn forget_early(&mut self, key: u64) -> Option<Early> {
        if self.early.is_empty() { None } else { self.early.remove(&key) }
    }

    fn wait_for_closing(&mut self, key: u64, mini: &Mini) {
        if let Some(early) = self.early.get_mut(&key) {
            early.latest = Some(*mini);
            return;
        }
        let gives_up_at = self.deadlines.push(mini.at, OVERTAKES_NS, key);
        self.early.insert(key, Early { first: *mini, latest: None, gives_up_at });
    }

    /// The closing of a full socket was lost, as its mini-socket proves: the connection continues with the mini-socket.
    fn give_up_closing(&mut self, key: u64, at: u64, out: &mut Vec<Row>) {
        let Some(early) = self.forget_early(key) else { return };
        let Some(mut conn) = self.conns.remove_key(key & !MINI) else {
            // A survey may have found the mini-socket meanwhile.
            if self.conns.contains(key) {
                early.events().for_each(|mini| self.on_mini(&mini, out));
            }
            return;
        };
        if conn.over.is_some() {
            self.conns.insert_first(conn);
            return;
        }
        // If the stream has a gap, the closing is one of the events counted as lost there.
        if conn.gaps == self.teller.gaps {
            self.teller.stats.unreported += 1;
            out.push(Row::Loss(Loss { boot_ns: at, cause: Cause::Unreported, count: Some(1) }));
        }
        conn.mark(Mark::Whole, false);
        let Early { first, .. } = early;
        if ends(&first) {
            if conn.state != first.substate {
                conn.change_unseen(first.substate, None);
            }
            return self.end_mini(conn, &first, out);
        }
        self.adopt_early(conn, &first, out);
        early.events().for_each(|mini| self.on_mini(&mini, out));
    }

    /// A full socket became a mini-socket unseen, before this event.
    fn adopt_early(&mut self, mut conn: Conn, mini: &Mini, out: &mut Vec<Row>) {
        self.inquiry.note_end(conn.key());
        if conn.state != mini.substate {
            conn.change_unseen(mini.substate, Some(mini.at));
        }
        conn.mark(Mark::Mini, true);
        conn.mark(Mark::Orphan, true);
        self.deadlines.expect_end(&mut conn, mini.at, u64::try_from(mini.due_ns).unwrap_or(0));
        self.waiting.attend(&conn, &self.teller.config, self.now);
        if self.teller.config.at_close {
            self.teller.conclude(&conn, mini.at, End::Fin.into(), out);
        }
        self.keep(conn, mini.at);
    }

    fn on_reset_sent(&mut self, at: u64, id: Id, reason: ResetReason, out: &mut Vec<Row>) {
        let key = key(id);
        for key in [key, key | MINI] {
            let Some(waiting) = self.awaiting.get_mut(&key) else { continue };
            if waiting.alternatives.await_fate() {
                waiting.reset = Some(reason);
            } else if let Some(waiting) = self.awaiting.remove(&key) {
                self.end_awaited(waiting, ResetSent::Yes(reason), Fate::Unknown, out);
            }
            return;
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.set_reset(at, reason);
        }
    }

    fn on_reset_received(&mut self, id: Id) {
        if let Some(conn) = self.conns.get_mut(key(id)) {
            conn.mark(Mark::ResetReceived, true);
        }
    }

    fn on_accepted(&mut self, id: Id, task: Task) {
        let key = key(id);
        for key in [key, key | MINI] {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.accepted = Some(true);
                conn.own(task, OwnerSource::Accept);
            } else if !self.awaiting.is_empty()
                && let Some(waiting) = self.awaiting.get_mut(&key)
            {
                waiting.conn.accepted = Some(true);
                waiting.conn.own(task, OwnerSource::Accept);
            }
        }
    }

    fn on_bypassing(&mut self, id: Id) {
        if let Some(conn) = self.conns.get_mut(key(id)) {
            conn.mark(Mark::Bypassing, true);
        }
    }

    fn on_destroyed(&mut self, at: u64, id: Id, shut: Option<bool>, out: &mut Vec<Row>) {
        if !self.awaiting.is_empty() && self.awaiting.get(&key(id)).is_some_and(Awaiting::is_settled_by_destruction) {
            self.settle_awaiting(key(id), Fate::Destroyed { shut }, out);
        }
        self.inquiry.note_end(key(id));
        // A full socket is destroyed after its closing: events that overtook the closing did not overtake this.
        self.give_up_closing(key(id) | MINI, at, out);
        self.end_lost(key(id), at, out);
    }

    /// A followed socket is gone: its end was lost.
    pub(super) fn end_lost(&mut self, key: u64, at: u64, out: &mut Vec<Row>) {
        if let Some(conn) = self.conns.remove_key(key) {
            self.end_unseen(conn, at, out);
        }
    }

    fn end_unseen(&mut self, mut conn: Conn, at: u64, out: &mut Vec<Row>) {
        if conn.over.is_some() {
            return self.release(&conn, at, out);
        }
        conn.mark(Mark::Whole, false);
        conn.mark(Mark::Lingers, false);
        if conn.state == State::Listen {
            self.waiting.forget_listener(conn.key(), &conn);
            self.teller.put(&mut conn, at, State::Closed, Held::Unknown, None, out);
        } else {
            self.end(conn, at, Held::Unknown, End::Unknown.into(), out);
        }
    }

    /// The connection is over.
    pub(super) fn end(&mut self, mut conn: Conn, at: u64, held: Held, ending: Ending, out: &mut Vec<Row>) {
        let closer = conn.closer.unwrap_or_else(|| decide::closer_by(ending.end, conn.state));
        conn.closer = Some(closer);
        self.teller.put(&mut conn, at, State::Closed, held, Some(reason(ending)), out);
        let is_mini = conn.is(Mark::Mini);
        if !(self.teller.config.at_close && is_mini) {
            self.teller.conclude(&conn, at, ending, out);
        }
        self.inquiry.note_end(conn.key());
        if conn.is(Mark::Lingers) && !is_mini {
            self.linger(conn, ending);
        }
    }

    /// Keeps following a socket whose connection is over, until its descriptor is closed. The engine forgets such
    /// sockets first.
    fn linger(&mut self, mut conn: Conn, ending: Ending) {
        conn.over = Some(ending);
        self.waiting.attend(&conn, &self.teller.config, self.now);
        self.conns.insert_first(conn);
        self.make_room(self.now);
    }

    /// The open connections, each with what is known of it so far. With [`Config::unreleased`] also connections that are over
    /// while their descriptor is open. The engine keeps following all of them.
    pub fn open(&self) -> impl Iterator<Item = Row> {
        let unreleased = self.teller.config.unreleased;
        let is_wanted = move |conn: &&Conn| match conn.over {
            None => conn.state != State::Listen,
            Some(_) => unreleased,
        };
        self.conns.iter().filter(is_wanted).map(|conn| match conn.over {
            None => self.teller.open(conn, self.now),
            Some(ending) => self.teller.unreleased(conn, self.now, ending, self.report_of(conn)),
        })
    }

    /// Keeps following a socket, as the one seen last.
    pub(super) fn keep(&mut self, conn: Conn, at: u64) {
        self.conns.insert(conn);
        self.make_room(at);
    }

    fn make_room(&mut self, at: u64) {
        if self.conns.len() > self.teller.config.sockets
            && let Some(forgotten) = self.conns.pop_first()
            && forgotten.over.is_none()
        {
            self.teller.stats.evicted += 1;
            self.teller.forgot_at = Some(at);
            self.forgotten.get_or_insert((at, 0)).1 += 1;
        }
    }
}

pub(super) fn key(id: Id) -> u64 {
    id.number() & !MINI
}

/// A child without an identity: up to 6.14 it shows its listener's cookie, and no peer.
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

/// Whether a mini-socket is certain to end with it.
fn ends(mini: &Mini) -> bool {
    !matches!(mini.what, MiniEvent::Fin | MiniEvent::Rearmed | MiniEvent::Killed(KilledBy::Unknown))
}

/// A TIME_WAIT is only entered when both FINs are done.
fn time_wait(end: TimeWaitEnd) -> Ending {
    Ending { end: End::Fin, time_wait: Some(end) }
}
