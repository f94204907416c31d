//! Sockets that wait for somebody: for their process to close them, or for the peer. And connections of servers that
//! nobody is known to own. Both are worth a look at who holds what, which costs too much to be had for every one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem::take;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::config::Config;
use super::conn::{Conn, Mark, is_unset};
use super::engine::Engine;
use super::row::{Row, Stuck};
use crate::event::Holder;
use crate::tcp::{Side, State, Task};

/// How long a socket is left alone at least: nearly all of them have moved on by then.
const SETTLE_NS: u64 = 1_000_000_000;

/// No socket is reported more often, however short the time that is asked for.
const RESOLUTION_NS: u64 = 1_000_000;

/// How long a report waits for the scan that says who holds the socket.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Which sockets to look at again, and when.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Sockets that have begun to wait since the last sifting.
    recent: Vec<u64>,
    /// Connections of servers without an owner.
    unowned: Vec<u64>,
    sift_at: Option<u64>,
    /// When to report which socket, if it has not moved on: by the beginning of its stay.
    due: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// Those that are due and wait for a scan.
    pending: HashMap<u64, Pending, FixedState>,
    oldest_pending: Option<u64>,
    scan_wanted: bool,
    /// Listening sockets by namespace and port.
    listeners: HashMap<(Option<u32>, u16), Vec<u64>, FixedState>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    asked_at: u64,
    stay: u64,
    first: Option<(Task, u32)>,
    holders: u32,
}

impl Waiting {
    /// When to look again.
    pub(super) fn next_look(&self) -> Option<u64> {
        let due = self.due.peek().map(|Reverse((due, ..))| *due);
        let patience = self.oldest_pending.map(|asked_at| asked_at + PATIENCE_NS);
        [self.sift_at, due, patience].into_iter().flatten().min()
    }

    /// Notes a process that has a socket whose report waits for that.
    pub(super) fn note_holder(&mut self, key: u64, holder: &Holder) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.first.get_or_insert((holder.task, holder.fd));
            pending.holders += 1;
        }
    }

    /// A scan has begun, in answer to what was wanted so far.
    pub(super) fn scan_begins(&mut self) {
        self.scan_wanted = false;
        for pending in self.pending.values_mut() {
            (pending.first, pending.holders) = (None, 0);
        }
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
            self.sift_at.get_or_insert(now + period);
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
    /// Whether it would be good to know who holds which socket: whoever feeds the engine then looks, if it can and has
    /// not done so just before, and feeds what it found.
    pub fn wants_scan(&self) -> bool {
        self.waiting.scan_wanted
    }

    /// Looks at those whose time has come.
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
        if self.waiting.oldest_pending.is_some_and(|asked_at| asked_at + PATIENCE_NS <= self.now) {
            self.report_pending(self.now, false, out);
        }
    }

    /// Keeps those that have not moved on in the meantime.
    fn sift(&mut self) {
        self.waiting.sift_at = None;
        for key in take(&mut self.waiting.unowned) {
            match self.conns.get(key) {
                Some(conn) if conn.owner().is_some() || conn.over.is_some() => {}
                Some(conn) if conn.since().is_some_and(|since| self.now < since + SETTLE_NS) => {
                    self.waiting.unowned.push(key);
                    self.waiting.sift_at = Some(self.now + SETTLE_NS);
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
            }
        }
    }

    fn on_due(&mut self, key: u64, stay: u64, out: &mut Vec<Row>) {
        if !self.still_waits(key, stay) {
            return;
        }
        let pending = Pending { asked_at: self.now, stay, first: None, holders: 0 };
        let is_mini = self.conns.get(key).is_some_and(|conn| conn.is(Mark::Mini));
        if self.teller.config.scans && !is_mini {
            self.waiting.pending.insert(key, pending);
            self.waiting.oldest_pending.get_or_insert(self.now);
            self.waiting.scan_wanted = true;
        } else {
            self.report(key, pending, false, out);
        }
    }

    fn still_waits(&self, key: u64, since: u64) -> bool {
        self.conns.get(key).is_some_and(|conn| waits(conn) && stay(conn) == since)
    }

    /// Reports those that were pending by then.
    pub(super) fn report_pending(&mut self, asked_until: u64, scanned: bool, out: &mut Vec<Row>) {
        let (mut ready, rest): (Vec<_>, Vec<_>) =
            take(&mut self.waiting.pending).into_iter().partition(|(_, pending)| pending.asked_at <= asked_until);
        self.waiting.oldest_pending = rest.iter().map(|(_, pending)| pending.asked_at).min();
        self.waiting.pending.extend(rest);
        ready.sort_unstable_by_key(|(key, pending)| (pending.stay, *key));
        for (key, pending) in ready {
            self.report(key, pending, scanned, out);
        }
    }

    fn report(&mut self, key: u64, pending: Pending, scanned: bool, out: &mut Vec<Row>) {
        if !self.still_waits(key, pending.stay) {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.mark(Mark::Reported, true);
        let Some(conn) = self.conns.get(key) else { return };
        let age = self.teller.held(conn, self.now);
        let accepted = conn.accepted.filter(|_| conn.side != Side::Client);
        let stuck = Stuck {
            state: conn.state,
            age,
            holder: pending.first,
            holders: (scanned && !self.teller.config.partial_scans).then_some(pending.holders),
            accepted,
            listener: if accepted == Some(false) { self.listener_of(conn) } else { None },
            released: false,
        };
        self.teller.put_stuck(conn, self.now, stuck, out);
        let again = age.known_ns().unwrap_or(0).max(self.teller.config.stuck_after.unwrap_or(0)).max(RESOLUTION_NS);
        self.waiting.due.push(Reverse((self.now.saturating_add(again), key, pending.stay)));
    }

    /// The descriptor of a connection that is over was closed.
    pub(super) fn release(&self, conn: &Conn, at: u64, out: &mut Vec<Row>) {
        if conn.is(Mark::Reported) {
            let age = self.teller.held(conn, at);
            let released = Stuck {
                state: conn.state,
                age,
                holder: None,
                holders: None,
                accepted: conn.accepted.filter(|_| conn.side != Side::Client),
                listener: None,
                released: true,
            };
            self.teller.put_stuck(conn, at, released, out);
        }
    }

    fn listener_of(&self, conn: &Conn) -> Option<Task> {
        let keys = self.waiting.listeners.get(&(conn.netns(), conn.tuple.local_port))?;
        let listeners = keys.iter().filter_map(|key| self.conns.get(*key));
        let places = listeners.map(|it| (it.tuple.local_ip, it.owner().map(|owner| owner.task)));
        only_listener(conn.tuple.local_ip, &places.collect::<Vec<_>>())
    }
}

/// Who listens where a connection came in, if that is one process: of several, nobody knows which. These listen at its
/// port.
pub(crate) fn only_listener(ip: Ipv6Addr, listeners: &[(Ipv6Addr, Option<Task>)]) -> Option<Task> {
    // The kernel prefers those that are bound to the address (`compute_score` in `net/ipv4/inet_hashtables.c`).
    let is_bound = listeners.iter().any(|(at, _)| *at == ip);
    let mut tasks = listeners.iter().filter(|(at, _)| if is_bound { *at == ip } else { is_unset(*at) });
    let first = tasks.next()?.1?;
    tasks.all(|(_, task)| task.is_some_and(|task| task.pid == first.pid)).then_some(first)
}

/// Whether a socket waits for somebody, its process or the peer.
fn waits(conn: &Conn) -> bool {
    let state = conn.state;
    conn.over.is_some() || matches!(state, State::SynSent | State::CloseWait | State::FinWait2 | State::LastAck)
}

/// What tells a stay in a state from others of the same socket.
fn stay(conn: &Conn) -> u64 {
    conn.since().or(conn.at_least_since()).unwrap_or(conn.state as u64)
}
