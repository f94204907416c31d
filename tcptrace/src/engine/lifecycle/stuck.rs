//! Sockets that wait for somebody, for their process to close them or for the peer; and server connections without a
//! known owner. Both are worth a scan for their holders, which is too expensive for every socket.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem::take;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::config::Config;
use super::conn::{Conn, Mark, is_unset};
use super::engine::{Engine, key};
use super::subflows::Subflows;
use crate::model::event::{Flow, Holder};
use crate::model::row::{Held, Report, Row, Stalled, Stuck};
use crate::model::tcp::{Side, State, Task};

/// How long to leave a socket alone at least: nearly all of them have moved on by then.
const SETTLE_NS: u64 = 1_000_000_000;

/// No socket is reported more often than this, however short the requested time is.
pub(super) const RESOLUTION_NS: u64 = 1_000_000;

/// How long a report waits for a scan, if an earlier scan has shown what it needs.
const PUNCTUAL_NS: u64 = 50_000_000;

/// How long a report waits for its first scan.
const PATIENCE_NS: u64 = 5_000_000_000;

/// How often to look at sockets that cause no events: this many times within the requested time, within these bounds.
const LOOKS: u64 = 4;
const LOOK_AT_LEAST_NS: u64 = 250_000_000;
const LOOK_AT_MOST_NS: u64 = 10_000_000_000;

/// Which sockets to look at again, and when.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Sockets that have begun to wait since the last sifting.
    recent: Vec<u64>,
    /// Server connections without an owner.
    unowned: Vec<u64>,
    sift_at: Option<u64>,
    /// When to report which socket, if it has not moved on; with the beginning of its stay.
    due: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// Sockets that are due and wait for a scan.
    pending: HashMap<u64, Pending, FixedState>,
    /// When the first of them stops waiting.
    patient_until: Option<u64>,
    scan_wanted: bool,
    /// When to look at sockets that cause no events.
    look_at: Option<u64>,
    /// Holders of waiting sockets, from the running scan and from the last one, and when that one began.
    found: Holders,
    holders: Holders,
    scanned_at: Option<u64>,
    /// Progress of the data of sockets for which that matters.
    flows: HashMap<u64, Watched, FixedState>,
    /// The subflows of MPTCP connections.
    pub(super) subflows: Subflows,
    /// Listening sockets by namespace and port.
    listeners: HashMap<(Option<u32>, u16), Vec<u64>, FixedState>,
}

/// The first holder with its descriptor, and the number of descriptors.
type Holders = HashMap<u64, ((Task, u32), u32), FixedState>;

#[derive(Clone, Copy, Debug)]
struct Pending {
    asked_at: u64,
    /// When it is reported in any case.
    until: u64,
    stay: u64,
}

/// Progress of a socket's data within a state, as looks have shown it.
#[derive(Clone, Copy, Debug)]
struct Watched {
    state: State,
    first: Flow,
    last: Flow,
    /// Since when it has made no progress.
    still_since: u64,
    /// Whether it has made progress since the first look.
    has_moved: bool,
    looks: u32,
    /// Earliest time of the next report.
    quiet_until: u64,
}

impl Watched {
    fn new(state: State, flow: Flow) -> Self {
        Self { state, first: flow, last: flow, still_since: flow.at, has_moved: false, looks: 1, quiet_until: 0 }
    }

    fn look_again(&mut self, flow: Flow) {
        // Incoming data says nothing about outgoing data, as long as both directions are open.
        let both = self.state != State::Established;
        if flow.acked != self.last.acked || both && flow.received != self.last.received {
            (self.has_moved, self.still_since) = (true, flow.at);
        }
        self.last = flow;
        self.looks += 1;
    }

    fn stalled(&self) -> Stalled {
        let Self { first, last, .. } = self;
        let moved = |first: u64, last: u64| last.saturating_sub(first);
        let bytes_since = moved(first.acked, last.acked) + moved(first.received, last.received);
        Stalled { unacked: last.unacked, bytes_since }
    }
}

impl Waiting {
    /// When to look again.
    pub(super) fn next_look(&self) -> Option<u64> {
        let due = self.due.peek().map(|Reverse((due, ..))| *due);
        [self.sift_at, due, self.patient_until, self.look_at].into_iter().flatten().min()
    }

    /// Notes a process that holds a socket for which that matters.
    pub(super) fn note_holder(&mut self, key: u64, conn: &Conn, holder: &Holder) {
        if waits(conn) || self.flows.contains_key(&key) || self.subflows.waits(key) {
            self.found.entry(key).or_insert(((holder.task, holder.fd), 0)).1 += 1;
        }
    }

    /// A scan has begun, in answer to the requests so far.
    pub(super) fn scan_begins(&mut self) {
        self.scan_wanted = false;
        self.found.clear();
    }

    /// A scan that began then is complete.
    pub(super) fn scan_ends(&mut self, began: u64) {
        self.holders = take(&mut self.found);
        self.scanned_at = Some(began);
        self.flows.retain(|_, watched| watched.last.at >= began);
        self.subflows.scan_ends(began);
    }

    /// Who holds a socket that has been in its state since then, if a scan has run since.
    fn holders_of(&self, key: u64, since: u64) -> (Option<(Task, u32)>, Option<u32>) {
        match (self.scanned_at.filter(|at| *at >= since), self.holders.get(&key)) {
            (None, _) => (None, None),
            (Some(_), None) => (None, Some(0)),
            (Some(_), Some((first, count))) => (Some(*first), Some(*count)),
        }
    }

    fn watched(&self, key: u64, state: State) -> Option<&Watched> {
        self.flows.get(&key).filter(|watched| watched.state == state)
    }

    /// Whether it takes another look to see whether its data flows.
    fn takes_another_look(&self, key: u64) -> bool {
        self.flows.get(&key).is_some_and(|watched| watched.looks == 1)
    }

    /// Whether scans have already shown who holds it, and whether its data flows.
    fn is_known(&self, conn: &Conn) -> bool {
        self.scanned_at.is_some_and(|at| at >= since(conn)) && !self.takes_another_look(conn.key())
    }

    /// Notes a socket that has just entered its state, if there may be something to say when it stays there.
    pub(super) fn attend(&mut self, conn: &Conn, config: &Config, now: u64) {
        if conn.state == State::Listen {
            self.listeners.entry((conn.netns(), conn.tuple.local_port)).or_default().push(conn.key());
        }
        let is_unowned = config.scans && conn.owner().is_none() && conn.state == State::Established;
        if is_unowned {
            self.unowned.push(conn.key());
        }
        let waits = config.stuck_after.is_some() && waits(conn);
        if waits {
            self.recent.push(conn.key());
        }
        if is_unowned || waits {
            let period = config.stuck_after.map_or(SETTLE_NS, |after| SETTLE_NS.min(after / 2));
            self.sift_at.get_or_insert(now.saturating_add(period));
        }
    }

    pub(super) fn forget_listener(&mut self, key: u64, conn: &Conn) {
        let place = (conn.netns(), conn.tuple.local_port);
        if let Some(keys) = self.listeners.get_mut(&place) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.listeners.remove(&place);
            }
        }
    }
}

impl Engine {
    /// Whether the engine needs to know who holds which socket. The caller then scans, if it can and has not just done
    /// so, and feeds the result.
    pub fn wants_scan(&self) -> bool {
        self.waiting.scan_wanted
    }

    /// Looks at the sockets that are due.
    pub(super) fn look_at_waiting(&mut self, out: &mut Vec<Row>) {
        if self.waiting.sift_at.is_some_and(|at| at <= self.now) {
            self.sift();
        }
        while let Some(&Reverse((due, key, stay))) = self.waiting.due.peek() {
            if due > self.now {
                break;
            }
            self.waiting.due.pop();
            self.on_due(key, stay, out);
        }
        if self.waiting.patient_until.is_some_and(|until| until <= self.now) {
            self.report_overdue(out);
        }
        self.look_around();
    }

    /// Finds connections whose peer accepts nothing more: they cause no events.
    fn look_around(&mut self) {
        let Some(after) = self.teller.config.stuck_after.filter(|_| self.teller.config.scans) else { return };
        let period = (after / LOOKS).clamp(LOOK_AT_LEAST_NS, LOOK_AT_MOST_NS);
        match self.waiting.look_at {
            Some(at) if at > self.now => return,
            Some(_) => self.waiting.scan_wanted = true,
            None => {}
        }
        self.waiting.look_at = Some(self.now.saturating_add(period));
    }

    /// The kernel has reported the progress of a connection's data.
    pub(super) fn on_flow(&mut self, flow: &Flow) {
        let key = key(flow.id);
        let Some(conn) = self.conns.get(key).filter(|conn| conn.over.is_none()) else { return };
        let matters = waits(conn) || conn.state == State::Established && flow.unacked > 0;
        if self.teller.config.stuck_after.is_none() || !matters {
            self.waiting.flows.remove(&key);
            return;
        }
        // The kernel's answer may be about the state before.
        if self.inquiry.scan_began().is_none_or(|began| began < since(conn)) {
            return;
        }
        match self.waiting.flows.get_mut(&key).filter(|watched| watched.state == conn.state) {
            Some(watched) => watched.look_again(*flow),
            None => drop(self.waiting.flows.insert(key, Watched::new(conn.state, *flow))),
        }
    }

    /// Keeps those that have not moved on in the meantime.
    fn sift(&mut self) {
        self.waiting.sift_at = None;
        for key in take(&mut self.waiting.unowned) {
            match self.conns.get(key) {
                Some(conn) if conn.owner().is_some() || conn.over.is_some() => {}
                Some(conn) if conn.since().is_some_and(|since| self.now < since.saturating_add(SETTLE_NS)) => {
                    self.waiting.unowned.push(key);
                    self.waiting.sift_at = Some(self.now.saturating_add(SETTLE_NS));
                }
                Some(_) => self.waiting.scan_wanted = true,
                None => {}
            }
        }
        let Some(after) = self.teller.config.stuck_after else { return };
        for key in take(&mut self.waiting.recent) {
            if let Some(conn) = self.conns.get(key).filter(|conn| waits(conn)) {
                let age = self.teller.held(conn, self.now).known_ns().unwrap_or(0);
                let due = (self.now - age.min(self.now)).saturating_add(after);
                self.waiting.due.push(Reverse((due, key, stay(conn))));
                // It takes two looks to see whether its data flows.
                self.waiting.scan_wanted |= self.teller.config.scans && !conn.is(Mark::Mini);
            }
        }
    }

    fn on_due(&mut self, key: u64, stay: u64, out: &mut Vec<Row>) {
        let Some(conn) = self.conns.get(key).filter(|conn| waits_since(conn, stay)) else { return };
        if !self.teller.config.scans || conn.is(Mark::Mini) {
            return self.report(key, stay, out);
        }
        let patience = if self.waiting.is_known(conn) { PUNCTUAL_NS } else { PATIENCE_NS };
        let until = self.now.saturating_add(patience);
        self.waiting.pending.insert(key, Pending { asked_at: self.now, until, stay });
        self.waiting.patient_until = Some(self.waiting.patient_until.map_or(until, |first| first.min(until)));
        self.waiting.scan_wanted = true;
    }

    /// Reports the sockets that were already pending when the finished scan began.
    pub(super) fn report_answered(&mut self, scanned_at: u64, out: &mut Vec<Row>) {
        self.report_pending(
            |engine, key, pending| pending.asked_at <= scanned_at && !engine.waiting.takes_another_look(key),
            out,
        );
        self.waiting.scan_wanted |= !self.waiting.pending.is_empty();
    }

    /// Reports those that have waited too long for a scan, with what is known.
    fn report_overdue(&mut self, out: &mut Vec<Row>) {
        let now = self.now;
        self.report_pending(|_, _, pending| pending.until <= now, out);
    }

    fn report_pending(&mut self, is_ready: impl Fn(&Self, u64, &Pending) -> bool, out: &mut Vec<Row>) {
        let (mut ready, rest): (Vec<_>, Vec<_>) =
            take(&mut self.waiting.pending).into_iter().partition(|(key, pending)| is_ready(self, *key, pending));
        self.waiting.patient_until = rest.iter().map(|(_, pending)| pending.until).min();
        self.waiting.pending.extend(rest);
        ready.sort_unstable_by_key(|(key, pending)| (pending.stay, *key));
        for (key, pending) in ready {
            self.report(key, pending.stay, out);
        }
    }

    fn report(&mut self, key: u64, stay: u64, out: &mut Vec<Row>) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| waits_since(conn, stay)) else { return };
        let after = self.teller.config.stuck_after.unwrap_or(0);
        // It is not stuck while data flows one way, which two looks in quick succession would not show.
        if let Some(watched) = self.waiting.watched(key, conn.state)
            && let still_for = if watched.has_moved { after } else { after / LOOKS }
            && let still_until = watched.still_since.saturating_add(still_for)
            && still_until > self.now
        {
            self.waiting.due.push(Reverse((still_until, key, stay)));
            return;
        }
        conn.mark(Mark::Reported, true);
        let Some(conn) = self.conns.get(key) else { return };
        let age = self.teller.held(conn, self.now);
        self.teller.put_stuck(conn, self.now, age, self.stuck(conn), out);
        let again = age.known_ns().unwrap_or(0).max(after).max(RESOLUTION_NS);
        // A damaged trace can have any time: at the end of all times, there is no later one.
        if let Some(due) = self.now.checked_add(again) {
            self.waiting.due.push(Reverse((due, key, stay)));
        }
    }

    /// Reports established connections whose peer acknowledges nothing.
    pub(super) fn report_unacked(&mut self, out: &mut Vec<Row>) {
        let Some(after) = self.teller.config.stuck_after else { return };
        let is_due = |watched: &Watched| {
            let still_ns = self.now.saturating_sub(watched.still_since);
            watched.state == State::Established && still_ns >= after && watched.quiet_until <= self.now
        };
        let due = self.waiting.flows.iter().filter(|(_, watched)| is_due(watched));
        let mut keys: Vec<_> = due.map(|(key, watched)| (watched.still_since, *key)).collect();
        keys.sort_unstable();
        for (still_since, key) in keys {
            let Some(conn) = self.conns.get(key).filter(|conn| conn.state == State::Established) else { continue };
            let still_ns = self.now.saturating_sub(still_since);
            self.teller.put_stuck(conn, self.now, Held::AtLeast(still_ns), self.stuck(conn), out);
            if let Some(watched) = self.waiting.flows.get_mut(&key) {
                watched.quiet_until = self.now.saturating_add(still_ns.max(RESOLUTION_NS));
            }
        }
    }

    pub(super) fn stuck(&self, conn: &Conn) -> Stuck {
        Stuck::Waiting(self.report_of(conn))
    }

    /// Who holds a socket that waits, and the progress of its data.
    pub(super) fn report_of(&self, conn: &Conn) -> Report {
        let key = conn.key();
        let (holder, holders) =
            if conn.is(Mark::Mini) { (None, None) } else { self.waiting.holders_of(key, since(conn)) };
        // Nobody has closed it, and nobody holds it.
        let is_queued = holders == Some(0)
            && !self.teller.config.partial_scans
            && conn.accepted == Some(false)
            && conn.side != Side::Client;
        let accepted = self.teller.accepted(conn).or(is_queued.then_some(false));
        Report {
            holder,
            holders: holders.filter(|_| !self.teller.config.partial_scans),
            accepted,
            listener: if accepted == Some(false) { self.listener_of(conn) } else { None },
            stalled: self.waiting.watched(key, conn.state).map(Watched::stalled),
            multipath: self.waiting.subflows.of(key),
        }
    }

    /// The descriptor of a connection that is over was closed.
    pub(super) fn release(&self, conn: &Conn, at: u64, out: &mut Vec<Row>) {
        if conn.is(Mark::Reported) {
            let age = self.teller.held(conn, at);
            let accepted = self.teller.accepted(conn);
            self.teller.put_stuck(conn, at, age, Stuck::Released { accepted }, out);
        }
    }

    fn listener_of(&self, conn: &Conn) -> Option<Task> {
        let keys = self.waiting.listeners.get(&(conn.netns(), conn.tuple.local_port))?;
        let listeners = keys.iter().filter_map(|key| self.conns.get(*key));
        let places = listeners.map(|it| (it.tuple.local_ip, it.owner().map(|owner| owner.task)));
        only_listener(conn.tuple.local_ip, &places.collect::<Vec<_>>())
    }
}

/// Who listens for a connection, if only one process does: of several, the right one is unknown. `listeners` are those
/// at its port.
pub(crate) fn only_listener(ip: Ipv6Addr, listeners: &[(Ipv6Addr, Option<Task>)]) -> Option<Task> {
    // The kernel prefers listeners that are bound to the address (`compute_score` in `net/ipv4/inet_hashtables.c`).
    let is_bound = listeners.iter().any(|(at, _)| *at == ip);
    let mut tasks = listeners.iter().filter(|(at, _)| if is_bound { *at == ip } else { is_unset(*at) });
    let first = tasks.next()?.1?;
    tasks.all(|(_, task)| task.is_some_and(|task| task.pid == first.pid)).then_some(first)
}

/// Whether a socket waits for somebody, its process or the peer.
fn waits(conn: &Conn) -> bool {
    conn.over.is_some() || is_waiting(conn.state)
}

/// Whether it is a state in which something waits for its process or the peer.
pub(super) fn is_waiting(state: State) -> bool {
    match state {
        State::SynSent | State::SynRecv | State::CloseWait => true,
        State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => true,
        State::Closed | State::Listen | State::Established | State::TimeWait => false,
    }
}

fn waits_since(conn: &Conn, beginning: u64) -> bool {
    waits(conn) && stay(conn) == beginning
}

/// When it entered its state, or the latest time at which it can have.
fn since(conn: &Conn) -> u64 {
    conn.since().or(conn.at_least_since()).unwrap_or(0)
}

/// Identifies a stay in a state among the stays of the same socket.
pub(super) fn stay(conn: &Conn) -> u64 {
    conn.since().or(conn.at_least_since()).unwrap_or(conn.state as u64)
}
