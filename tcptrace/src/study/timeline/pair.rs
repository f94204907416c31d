//! Both ends of one connection, if both were recorded.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::Item;
use crate::model::life::Life;
use crate::model::row::Connection;
use crate::model::stream::Origin;
use crate::model::tcp::{Side, State, Tuple};

/// Connections that are drawn together.
#[derive(Clone, Debug)]
pub struct Group {
    /// A connection; the client's, if both ends are drawn.
    pub first: Item,
    /// The other end.
    pub second: Option<Item>,
}

impl Group {
    /// The ends in order.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        [&self.first].into_iter().chain(&self.second)
    }
}

/// Finds the peers of connections, among themselves and among all connections that are offered.
///
/// A server's socket begins when the last segment of the handshake arrives, right after the client left SYN_SENT (with
/// Fast Open, within SYN_SENT). Two ends belong together if no other end with these addresses began nearer to either of
/// them. Transparent proxies and successive connections share addresses. So all ends with the addresses of a connection
/// take part, including those that are not drawn. If two are equally near, neither is chosen.
#[derive(Debug, Default)]
pub struct Peers {
    places: Vec<Place>,
    /// The indices of the connections with this tuple.
    drawn: HashMap<Tuple, Vec<usize>, FixedState>,
    /// All ends with this tuple.
    ends: HashMap<Tuple, Vec<End>, FixedState>,
    seen: HashSet<Key, FixedState>,
}

#[derive(Debug)]
struct Place {
    item: Item,
    end: End,
    /// The nearest end so far.
    nearest: Option<(Nearness, Key, Item)>,
}

impl Peers {
    /// For these connections, each drawn once.
    pub fn of(items: Vec<Item>) -> Self {
        let mut peers = Self::default();
        for item in items {
            let end = End::of(&item);
            peers.drawn.entry(end.tuple).or_default().push(peers.places.len());
            peers.note(&end);
            peers.places.push(Place { item, end, nearest: None });
        }
        peers
    }

    fn note(&mut self, end: &End) -> bool {
        let is_new = self.seen.insert(end.key);
        if is_new {
            self.ends.entry(end.tuple).or_default().push(*end);
        }
        is_new
    }

    /// Whether an end may have been recorded that is missing here, judging by its address.
    pub fn are_wanted(&self, may_be_local: impl Fn(Ipv6Addr) -> bool) -> bool {
        self.drawn.keys().any(|tuple| tuple.remote_port != 0 && may_be_local(tuple.remote_ip))
    }

    /// The tuples of all ends that take part: of the connections, and of their peers.
    pub fn tuples(&self) -> HashSet<Tuple> {
        self.drawn.keys().flat_map(|tuple| [*tuple, tuple.reversed()]).collect()
    }

    /// Checks whether a connection is a peer.
    pub fn offer(&mut self, connection: &Connection, origin: &Origin) {
        let tuple = connection.identity.tuple;
        let facing = self.drawn.get(&tuple.reversed());
        if facing.is_none() && !self.drawn.contains_key(&tuple) {
            return;
        }
        let item = Item::new(connection, origin);
        let end = End::of(&item);
        if !self.note(&end) {
            return;
        }
        for &at in self.drawn.get(&tuple.reversed()).into_iter().flatten() {
            let place = &mut self.places[at];
            let Some(nearness) = place.end.nearness(&end) else { continue };
            if place.nearest.as_ref().is_none_or(|(best, ..)| nearness < *best) {
                place.nearest = Some((nearness, end.key, item.clone()));
            }
        }
    }

    /// The pairs, in the order of the connections.
    pub fn into_groups(self) -> Vec<Group> {
        let mates: Vec<_> = self.places.iter().map(|place| self.mate(&place.end)).collect();
        let at: HashMap<Key, usize, FixedState> = (0..).zip(&self.places).map(|(at, it)| (it.end.key, at)).collect();
        let mut rest: Vec<Option<Place>> = self.places.into_iter().map(Some).collect();
        let mut groups = Vec::with_capacity(rest.len());
        for (index, mate) in mates.into_iter().enumerate() {
            let Some(place) = rest[index].take() else { continue };
            let drawn = mate.and_then(|key| rest[*at.get(&key)?].take()).map(|place| place.item);
            let offered = place.nearest.filter(|(_, key, _)| mate == Some(*key)).map(|(.., item)| item);
            groups.push(group(place.item, drawn.or(offered)));
        }
        groups
    }

    /// The end that is nearest to this one, if this one is also nearest to it.
    fn mate(&self, end: &End) -> Option<Key> {
        let mate = self.nearest(end)?;
        self.nearest(mate).is_some_and(|nearest| nearest.key == end.key).then_some(mate.key)
    }

    /// The nearest end, if there is only one.
    fn nearest(&self, end: &End) -> Option<&End> {
        let mut best: Option<(Nearness, &End)> = None;
        let mut is_tied = false;
        for other in self.ends.get(&end.tuple.reversed()).into_iter().flatten() {
            let Some(nearness) = end.nearness(other) else { continue };
            if best.is_none_or(|(best, _)| nearness < best) {
                (best, is_tied) = (Some((nearness, other)), false);
            } else {
                is_tied |= best.is_some_and(|(best, _)| nearness == best);
            }
        }
        best.filter(|_| !is_tied).map(|(_, end)| end)
    }
}

fn group(item: Item, peer: Option<Item>) -> Group {
    match peer {
        Some(peer) if is_client(&peer) && !is_client(&item) => Group { first: peer, second: Some(item) },
        peer => Group { first: item, second: peer },
    }
}

fn is_client(item: &Item) -> bool {
    item.connection.identity.side == Side::Client
}

/// Identifies an end. On kernels without cookies, a later connection can have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    origin: usize,
    conn: u64,
    opened_ns: Option<u64>,
}

/// How far apart two ends began. Unknown distances come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Ns(u64),
    Unknown,
}

/// The facts that decide whether two connections are the ends of one. Times are in ns of Unix time.
#[derive(Clone, Copy, Debug)]
struct End {
    key: Key,
    tuple: Tuple,
    netns: Option<u32>,
    side: Side,
    /// The SYNs crossed: the peer is a client too.
    is_crossed: bool,
    /// When it began; `None` if that was not seen.
    began: Option<i64>,
    /// The latest time at which it can have begun.
    by: i64,
    /// When the peer is expected to begin, or to have left SYN_SENT.
    opening: Option<i64>,
    /// The peer has begun by then.
    until: i64,
}

impl End {
    fn of(item: &Item) -> Self {
        let Connection { identity, stays, opened_ns, .. } = &item.connection;
        let Life { spans, begin_seen, .. } = &item.life;
        let syn_sent = spans.first().filter(|span| span.state == Some(State::SynSent));
        let (began, by) = (begin_seen.then(|| item.begin()), item.begin());
        let left_syn_sent = syn_sent.map(|span| item.context.clock.unix_ns(span.to));
        // TIME_WAIT requires a FIN of the peer. A connection that is reset at once can end before its last segment has
        // arrived, which takes no longer than the round trip of the handshake.
        let time_wait = spans.iter().find(|span| span.state == Some(State::TimeWait));
        let round_trip = syn_sent.map_or(0, |span| span.to - span.from);
        let until = time_wait.map_or_else(|| item.life.end.saturating_add(round_trip), |span| span.from);
        Self {
            key: Key { origin: item.origin, conn: identity.conn, opened_ns: *opened_ns },
            tuple: identity.tuple,
            netns: identity.netns,
            side: identity.side,
            is_crossed: stays.iter().map(|stay| stay.state).take(2).eq([State::SynSent, State::SynRecv]),
            began,
            by,
            opening: left_syn_sent.or(began),
            until: item.context.clock.unix_ns(until),
        }
    }

    /// How near they began, if they can be the ends of one connection.
    fn nearness(&self, other: &Self) -> Option<Nearness> {
        let is_possible = self.faces(other) && self.is_where(other) && self.is_when(other);
        is_possible.then(|| match (self.opening, other.opening) {
            (None, None) => Nearness::Unknown,
            (one, other_one) => Nearness::Ns(one.unwrap_or(self.by).abs_diff(other_one.unwrap_or(other.by))),
        })
    }

    /// Whether addresses and sides fit.
    fn faces(&self, other: &Self) -> bool {
        let is_crossed = self.side == Side::Client && self.is_crossed && other.is_crossed;
        self.tuple == other.tuple.reversed()
            && self.tuple.local_port != 0
            && self.tuple.remote_port != 0
            && (self.side != other.side || self.side == Side::Unknown || is_crossed)
    }

    /// Whether they can reach each other. Traffic to a local address does not leave its namespace.
    fn is_where(&self, other: &Self) -> bool {
        let same_host = self.key.origin == other.key.origin;
        let same_netns = self.netns.is_none() || other.netns.is_none() || self.netns == other.netns;
        let (local, remote) = (self.tuple.local().ip(), self.tuple.remote().ip());
        let stays_inside = local.is_loopback() || remote.is_loopback() || local == remote;
        let is_itself = same_host && self.key.conn == other.key.conn;
        !is_itself && (!stays_inside || same_host && same_netns)
    }

    /// Whether both lived at the same time, and neither began before the client. Clocks of two hosts are not that
    /// exact.
    fn is_when(&self, other: &Self) -> bool {
        let begins = self.began.unwrap_or(i64::MIN).max(other.began.unwrap_or(i64::MIN));
        let overlap = begins <= self.until.min(other.until);
        let comes_after = |client: &Self, end: &Self| {
            let is_asked = client.side == Side::Client || end.side == Side::Server;
            let soonest = client.began.filter(|_| is_asked);
            let latest = if end.side == Side::Client { end.opening.unwrap_or(end.by) } else { end.by };
            soonest.is_none_or(|soonest| soonest <= latest)
        };
        let one_clock = self.key.origin == other.key.origin;
        overlap && (!one_clock || comes_after(self, other) && comes_after(other, self))
    }
}
