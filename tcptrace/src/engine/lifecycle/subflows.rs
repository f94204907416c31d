//! Subflows of MPTCP connections. Such a connection has a state of its own: its process may have left it in CLOSE_WAIT
//! while every subflow is established. No event shows that, only a scan.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::engine::{Engine, key};
use super::stuck::{RESOLUTION_NS, is_waiting};
use crate::model::event::{Multipath, Subflow};
use crate::model::row::{Held, Row};
use crate::model::tcp::State;

/// The subflows that the last scan has found, by socket.
#[derive(Debug, Default)]
pub(super) struct Subflows(HashMap<u64, Carrier, FixedState>);

#[derive(Clone, Copy, Debug)]
struct Carrier {
    of: Multipath,
    /// When that was first seen in its state, and last.
    since: u64,
    last: u64,
    /// Earliest time of the next report.
    quiet_until: u64,
}

impl Subflows {
    fn note(&mut self, key: u64, Subflow { at, of, .. }: Subflow) {
        let new = Carrier { of, since: at, last: at, quiet_until: 0 };
        let carrier = self.0.entry(key).or_insert(new);
        *carrier = if carrier.of == of { Carrier { last: at, ..*carrier } } else { new };
    }

    /// A scan that began then has ended.
    pub(super) fn scan_ends(&mut self, began: u64) {
        self.0.retain(|_, carrier| carrier.last >= began);
    }

    /// The MPTCP connection of a socket.
    pub(super) fn of(&self, key: u64) -> Option<Multipath> {
        self.0.get(&key).map(|carrier| carrier.of)
    }

    /// Whether the MPTCP connection of a socket waits for somebody.
    pub(super) fn waits(&self, key: u64) -> bool {
        self.of(key).and_then(|of| of.state).is_some_and(is_waiting)
    }

    /// Subflows whose MPTCP connection has waited for this long, the longest first.
    fn due(&self, now: u64, after: u64) -> Vec<(u64, u64)> {
        let is_due = |(key, carrier): &(&u64, &Carrier)| {
            self.waits(**key) && now.saturating_sub(carrier.since) >= after && carrier.quiet_until <= now
        };
        let mut due: Vec<_> = self.0.iter().filter(is_due).map(|(key, carrier)| (carrier.since, *key)).collect();
        due.sort_unstable();
        due
    }

    fn quiet(&mut self, key: u64, until: u64) {
        if let Some(carrier) = self.0.get_mut(&key) {
            carrier.quiet_until = until;
        }
    }
}

impl Engine {
    /// A socket was found to be a subflow.
    pub(super) fn on_subflow(&mut self, subflow: &Subflow) {
        let key = key(subflow.id);
        if self.teller.config.stuck_after.is_some() && self.conns.contains(key) {
            self.waiting.subflows.note(key, *subflow);
        }
    }

    /// Reports established subflows of MPTCP connections that wait for somebody. A subflow that waits itself is
    /// reported anyway.
    pub(super) fn report_multipaths(&mut self, out: &mut Vec<Row>) {
        let Some(after) = self.teller.config.stuck_after else { return };
        for (since, key) in self.waiting.subflows.due(self.now, after) {
            let Some(conn) = self.conns.get(key).filter(|conn| conn.state == State::Established) else { continue };
            let waited_ns = self.now.saturating_sub(since);
            self.teller.put_stuck(conn, self.now, Held::AtLeast(waited_ns), self.stuck(conn), out);
            self.waiting.subflows.quiet(key, self.now.saturating_add(waited_ns.max(RESOLUTION_NS)));
        }
    }
}
