//! Selects the connections to draw.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::{Item, Sort};
use crate::model::row::Connection;
use crate::model::stream::Origin;
use crate::model::tcp::State;

/// Most local addresses that are remembered; beyond that, any address may be local.
const ADDRESSES: usize = 4096;

/// Keeps the best connections by one order.
#[derive(Debug)]
pub struct Selection {
    sort: Sort,
    limit: usize,
    /// The worst one is on top.
    best: BinaryHeap<Reverse<Ranked>>,
    seen: u64,
    offered: u64,
    addresses: Addresses,
}

/// The local addresses of connections.
#[derive(Clone, Debug, Default)]
pub struct Addresses(HashSet<Ipv6Addr, FixedState>);

/// The greater, the earlier it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    by: i64,
    /// Of equals, the first one wins.
    number: Reverse<u64>,
}

#[derive(Debug)]
struct Ranked {
    rank: Rank,
    item: Item,
}

impl Selection {
    /// Keeps at most `limit` connections.
    pub fn new(sort: Sort, limit: usize) -> Self {
        Self { sort, limit, best: BinaryHeap::new(), seen: 0, offered: 0, addresses: Addresses::default() }
    }

    /// Considers a connection.
    pub fn offer(&mut self, connection: &Connection, origin: &Origin) {
        self.addresses.note(connection.identity.tuple.local_ip);
        self.seen += 1;
        let Some(by) = value(self.sort, connection, origin) else { return };
        self.offered += 1;
        let rank = Rank { by, number: Reverse(self.offered) };
        if self.best.len() >= self.limit {
            if self.best.peek().is_none_or(|Reverse(worst)| rank < worst.rank) {
                return;
            }
            self.best.pop();
        }
        self.best.push(Reverse(Ranked { rank, item: Item::new(connection, origin) }));
    }

    /// How many connections there were to choose from.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Whether every offered connection was kept.
    pub fn is_whole(&self) -> bool {
        self.best.len() as u64 == self.seen
    }

    /// The local addresses of all offered connections.
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// The kept connections, best first.
    pub fn into_items(self) -> Vec<Item> {
        self.best.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.item).collect()
    }
}

impl Addresses {
    fn note(&mut self, ip: Ipv6Addr) {
        if self.0.len() <= ADDRESSES {
            self.0.insert(ip);
        }
    }

    /// Whether the address may be local: it was seen, or there are too many addresses to remember.
    pub fn may_have(&self, ip: Ipv6Addr) -> bool {
        self.0.len() > ADDRESSES || self.0.contains(&ip)
    }
}

/// The value that ranks it: the greater, the better; `None` excludes it.
fn value(sort: Sort, connection: &Connection, origin: &Origin) -> Option<i64> {
    let ns = match sort {
        Sort::TimeWait => connection.held(State::TimeWait).known_ns()?,
        Sort::CloseWait => connection.held(State::CloseWait).known_ns()?,
        Sort::Lifetime => connection.lifetime().known_ns().unwrap_or(0),
        Sort::Opened => return Some(origin.context.clock.unix_ns(connection.begin_ns()).saturating_neg()),
    };
    Some(i64::try_from(ns).unwrap_or(i64::MAX))
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}
