//! Connections of servers without a known owner: pure.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::model::event::{Event, Id};
use crate::model::tcp::State;
use crate::model::transition::Transition;

/// After this time, the recorder requests a scan for the owner of such a connection.
const UNOWNED_NS: u64 = 1_000_000_000;

/// Connections that are still in an accept queue, or whose accept was missed.
#[derive(Default)]
pub(super) struct Unowned {
    since: HashMap<Id, u64, FixedState>,
    /// When to check them again, in ns of `CLOCK_BOOTTIME`.
    pub(super) sift_at: Option<u64>,
    scan_wanted: bool,
}

impl Unowned {
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Change(change) => self.note_change(change),
            Event::Accepted { id, .. } => {
                self.since.remove(id);
            }
            _ => {}
        }
    }

    pub(super) fn note_change(&mut self, change: &impl Transition) {
        match (change.leaves(), change.enters()) {
            (State::SynRecv, State::Established) => {
                self.since.insert(change.id(), change.at());
                self.sift_at.get_or_insert(change.at() + UNOWNED_NS);
            }
            (State::Established, _) => {
                self.since.remove(&change.id());
            }
            _ => {}
        }
    }

    /// Requests one scan for each connection that stays without an owner.
    pub(super) fn sift(&mut self, now: u64) {
        if self.sift_at.is_some_and(|at| at <= now) {
            let before = self.since.len();
            self.since.retain(|_, since| now < *since + UNOWNED_NS);
            self.scan_wanted |= self.since.len() < before;
            self.sift_at = (!self.since.is_empty()).then_some(now + UNOWNED_NS);
        }
    }

    /// Whether to scan. Resets the request.
    pub(super) fn wants_scan(&mut self) -> bool {
        std::mem::take(&mut self.scan_wanted)
    }
}
