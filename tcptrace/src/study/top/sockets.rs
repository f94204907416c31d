//! The sockets that exist now, each as its latest rows describe it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::FixedState;

use crate::model::row::{Connection, Ending, Held, Identity, Reason, Row, Status, Stay, Transition};
use crate::model::socket::Timer;
use crate::model::tcp::{Closer, End, State};
use crate::model::{event::Kept, row};
use crate::study::counts::levels::Spot;

/// A socket: number of its recording, and its cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub origin: usize,
    pub conn: u64,
}

/// A socket that exists.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) identity: Identity,
    pub(super) state: State,
    /// When it entered its state, or the latest time at which it can have, in ns of `CLOCK_BOOTTIME`.
    pub(super) since: Option<u64>,
    /// Whether `since` is exact.
    pub(super) is_exact: bool,
    /// A descriptor of it, as far as a scan has shown one.
    pub(super) fd: Option<u32>,
    /// Its groups; `None` where a filter hides it.
    pub(super) spot: Option<Spot>,
    opened_ns: Option<u64>,
    stays: Vec<Stay>,
    closer: Closer,
    accepted: Option<bool>,
    /// The number of the last look that confirmed it.
    look: u32,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) all: HashMap<Key, Socket, FixedState>,
    /// Number of looks at what the engine follows.
    looks: u32,
}

impl Socket {
    fn new(identity: Identity, state: State) -> Self {
        Self {
            identity,
            state,
            since: None,
            is_exact: false,
            fd: None,
            spot: None,
            opened_ns: None,
            stays: Vec::new(),
            closer: Closer::Unknown,
            accepted: None,
            look: 0,
        }
    }

    /// Enters the state of a transition.
    pub(super) fn enter(&mut self, row: &Transition) {
        if matches!(row.old, State::Closed | State::Listen) {
            self.opened_ns = Some(row.boot_ns);
        } else if row.held != Held::Unknown {
            // There are many sockets, with few stays each.
            self.stays.reserve_exact(1);
            self.stays.push(Stay { state: row.old, held: row.held });
        }
        (self.state, self.since, self.is_exact) = (row.new, Some(row.boot_ns), true);
        // Its descriptor may have been closed since it was seen.
        self.fd = self.fd.filter(|_| row.new.is_unclosed());
        self.closer = row.closer.unwrap_or(self.closer);
    }

    /// How long it has been in its state.
    pub(super) fn age(&self, now: u64) -> Held {
        match self.since {
            Some(since) if self.is_exact => Held::Exactly(now.saturating_sub(since)),
            Some(since) => Held::AtLeast(now.saturating_sub(since)),
            None => Held::Unknown,
        }
    }

    /// The same as a row.
    pub(super) fn connection(&self, now: u64) -> Connection {
        let age = self.age(now);
        let mut stays = self.stays.clone();
        stays.extend(age.known_ns().map(|ns| Stay { state: self.state, held: Held::AtLeast(ns) }));
        Connection {
            identity: self.identity,
            opened_ns: self.opened_ns,
            boot_ns: now,
            status: Status::Open { state: self.state, age, accepted: self.accepted },
            closer: self.closer,
            closed_by: None,
            stays,
            totals: None,
            idle: None,
            complete: self.opened_ns.is_some(),
        }
    }

    /// The same after the transition that ended it.
    pub(super) fn ended(&self, row: &Transition) -> Connection {
        let ending = match row.reason {
            Some(Reason::End(end)) => end.into(),
            Some(Reason::TimeWait(end)) => Ending { end: End::Fin, time_wait: Some(end) },
            None => End::Unknown.into(),
        };
        let stays = self.stays.clone();
        Connection { status: Status::Ended(ending), stays, ..self.connection(row.boot_ns) }
    }

    /// The same as a listed socket, which filters judge.
    pub(super) fn entry(&self, now: u64) -> row::Entry {
        let is_mini = self.state == State::TimeWait;
        row::Entry {
            boot_ns: now,
            identity: self.identity,
            state: self.state,
            kept: if is_mini { Kept::Mini { due_ns: 0 } } else { Kept::Held },
            closer: Some(self.closer),
            age: self.age(now),
            holding: None,
            listener: None,
            time_wait_left_ns: None,
            recv_queue: 0,
            send_queue: 0,
            timer: Timer::None,
            timer_left_ns: 0,
            retransmits: 0,
            inode: 0,
            multipath: None,
            idle_ns: None,
            timestamps: None,
        }
    }
}

impl Sockets {
    /// The socket of a transition, before that: `true` if it is new.
    pub(super) fn of(&mut self, key: Key, identity: &Identity, state: State) -> (&mut Socket, bool) {
        match self.all.entry(key) {
            Entry::Occupied(known) => (known.into_mut(), false),
            Entry::Vacant(place) => (place.insert(Socket::new(*identity, state)), true),
        }
    }

    /// What the engine follows is about to be handed over.
    pub(super) fn look(&mut self) {
        self.looks += 1;
    }

    /// A socket as the engine knows it. Returns it with its state before, `None` if it is new.
    pub(super) fn confirm(&mut self, key: Key, row: &Row) -> Option<(&mut Socket, Option<State>)> {
        let Row::Connection(row) = row else { return None };
        let (state, age) = row.status.open()?;
        let looks = self.looks;
        let (socket, is_new) = self.of(key, &row.identity, state);
        let before = (!is_new).then_some(socket.state);
        if before != Some(state) || socket.since.is_none() {
            // It is in this state now, at the latest.
            socket.since = Some(row.boot_ns.saturating_sub(age.known_ns().unwrap_or(0)));
            socket.is_exact = matches!(age, Held::Exactly(_));
        }
        (socket.state, socket.identity, socket.look) = (state, row.identity, looks);
        (socket.opened_ns, socket.closer, socket.accepted) = (row.opened_ns, row.closer, row.status.accepted());
        if is_new {
            socket.stays = row.stays.iter().filter(|stay| stay.state != state).copied().collect();
        }
        Some((socket, before))
    }

    /// The sockets of a recording that the last look has not confirmed.
    pub(super) fn unconfirmed(&self, origin: usize) -> Vec<Key> {
        let is_gone = |key: &Key, socket: &Socket| key.origin == origin && socket.look < self.looks;
        self.all.iter().filter(|(key, socket)| is_gone(key, socket)).map(|(key, _)| *key).collect()
    }
}
