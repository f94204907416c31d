//! Both ends of one connection, where both were recorded.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::Item;
use crate::lifecycle::Connection;
use crate::tcp::{Side, Tuple};
use crate::trace::Origin;

/// What is drawn together.
#[derive(Clone, Debug)]
pub struct Group {
    /// A connection; of two ends, the client's.
    pub first: Item,
    /// Its other end.
    pub second: Option<Item>,
}

impl Group {
    /// Both ends, or the one.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        [&self.first].into_iter().chain(&self.second)
    }
}

/// Looks for the other ends of connections: first among themselves, then among all that it is offered.
#[derive(Debug)]
pub struct Peers {
    places: Vec<Place>,
    /// Where a connection with this tuple is wanted.
    wanted: HashMap<Tuple, Vec<usize>, FixedState>,
}

#[derive(Debug)]
struct Place {
    item: Item,
    peer: Option<(u64, Item)>,
}

impl Peers {
    /// Of these, each shown once.
    pub fn of(items: Vec<Item>) -> Self {
        let mut facing: HashMap<Tuple, Vec<usize>, FixedState> = HashMap::default();
        for (at, item) in items.iter().enumerate() {
            facing.entry(item.connection.identity.tuple.reversed()).or_default().push(at);
        }
        let mut rest: Vec<Option<Item>> = items.into_iter().map(Some).collect();
        let mut peers = Self { places: Vec::with_capacity(rest.len()), wanted: HashMap::default() };
        for index in 0..rest.len() {
            let Some(item) = rest[index].take() else { continue };
            let others = facing.get(&item.connection.identity.tuple).into_iter().flatten();
            let overlaps = others.filter_map(|&at| Some((overlap(&item, rest[at].as_ref()?)?, at)));
            let best = overlaps.max_by_key(|(overlap, at)| (*overlap, Reverse(*at)));
            let peer = best.and_then(|(overlap, at)| Some((overlap, rest[at].take()?)));
            peers.add(item, peer);
        }
        peers
    }

    fn add(&mut self, item: Item, peer: Option<(u64, Item)>) {
        if peer.is_none() {
            self.wanted.entry(item.connection.identity.tuple.reversed()).or_default().push(self.places.len());
        }
        self.places.push(Place { item, peer });
    }

    /// Whether an end is missing that may have been recorded, as far as can be told from its address.
    pub fn are_wanted(&self, may_be_local: impl Fn(Ipv6Addr) -> bool) -> bool {
        self.wanted.keys().any(|tuple| tuple.local_port != 0 && may_be_local(tuple.local_ip))
    }

    /// The tuples of the ends that are missing.
    pub fn missing(&self) -> HashSet<Tuple> {
        self.wanted.keys().copied().collect()
    }

    /// Looks at a connection.
    pub fn offer(&mut self, connection: &Connection, origin: &Origin) {
        let Some(wanted) = self.wanted.get(&connection.identity.tuple) else { return };
        let candidate = Item::new(connection, origin);
        for &at in wanted {
            let Place { item, peer } = &mut self.places[at];
            let Some(overlap) = overlap(item, &candidate) else { continue };
            if peer.as_ref().is_none_or(|(best, _)| overlap > *best) {
                *peer = Some((overlap, candidate.clone()));
            }
        }
    }

    /// What was found, in the order of the connections that it was made of.
    pub fn into_groups(self) -> Vec<Group> {
        let group = |Place { item, peer }| match peer {
            Some((_, peer)) if is_client(&peer) && !is_client(&item) => Group { first: peer, second: Some(item) },
            Some((_, peer)) => Group { first: item, second: Some(peer) },
            None => Group { first: item, second: None },
        };
        self.places.into_iter().map(group).collect()
    }
}

fn is_client(item: &Item) -> bool {
    item.connection.identity.side == Side::Client
}

/// How long two ends lived at the same time, in ns, if they can be those of one connection.
fn overlap(one: &Item, other: &Item) -> Option<u64> {
    let (identity, facing) = (&one.connection.identity, &other.connection.identity);
    let same_host = one.origin == other.origin;
    let same_netns = identity.netns.is_none() || facing.netns.is_none() || identity.netns == facing.netns;
    let is_loopback = |tuple: &Tuple| tuple.local().ip().is_loopback() || tuple.remote().ip().is_loopback();
    let possible = identity.tuple == facing.tuple.reversed()
        && identity.tuple.local_port != 0
        && identity.tuple.remote_port != 0
        && !(same_host && identity.conn == facing.conn)
        && !(identity.side == facing.side && identity.side != Side::Unknown)
        && (!is_loopback(&identity.tuple) || same_host && same_netns);
    let begin = begin(one).max(begin(other));
    let end = one.end().min(other.end());
    (possible && begin <= end).then(|| end.abs_diff(begin))
}

/// When it began, or as early as can be.
fn begin(item: &Item) -> i64 {
    if item.life.begin_seen { item.begin() } else { i64::MIN }
}
