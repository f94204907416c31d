//! The longest connections.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::rows::{Slow, SlowRow};
use crate::model::row::{Connection, Held};
use crate::model::stream::{Context, Origin};

/// Keeps a limited number of the longest connections.
#[derive(Clone, Debug)]
pub(super) struct Slowest {
    most: usize,
    /// How many connections were offered.
    offered: u64,
    /// The shortest one is on top.
    kept: BinaryHeap<Reverse<Ranked>>,
}

#[derive(Clone, Debug)]
struct Ranked {
    ns: u64,
    /// Of equally long connections, the first ones are kept.
    number: Reverse<u64>,
    row: Box<SlowRow>,
}

impl Ranked {
    fn rank(&self) -> (u64, Reverse<u64>) {
        (self.ns, self.number)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Slowest {
    pub(super) fn new(most: usize) -> Self {
        Self { most, offered: 0, kept: BinaryHeap::new() }
    }

    pub(super) fn add(&mut self, slow: Slow, held: Held, connection: &Connection, origin: &Origin) {
        let Some(ns) = held.known_ns().filter(|_| self.most > 0) else { return };
        self.offered += 1;
        if self.kept.len() >= self.most {
            if self.kept.peek().is_some_and(|Reverse(shortest)| shortest.ns >= ns) {
                return;
            }
            self.kept.pop();
        }
        let row = SlowRow {
            slow,
            held,
            connection: connection.clone(),
            host: origin.host.clone(),
            context: names_of(connection, &origin.context),
        };
        self.kept.push(Reverse(Ranked { ns, number: Reverse(self.offered), row: Box::new(row) }));
    }

    /// The rows, longest first.
    pub(super) fn into_rows(self) -> impl Iterator<Item = SlowRow> {
        self.kept.into_sorted_vec().into_iter().map(|Reverse(ranked)| *ranked.row)
    }
}

/// The parts of the context that a row of this connection needs.
fn names_of(connection: &Connection, context: &Context) -> Context {
    let identity = &connection.identity;
    let names = context.names.only(identity.netns, identity.cgroup, identity.interface);
    Context { clock: context.clock, names }
}
