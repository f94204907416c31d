//! Finds the two ends of a connection.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use crate::model::row::{Connection, Held, Identity, Stay};
use crate::model::stream::Origin;
use crate::model::tcp::{Side, State};
use crate::output::samples::tuple;
use crate::study::timeline::samples::{MS, S, client, origin, server, whole};
use crate::study::timeline::{Group, Peers, Selection, Sort};

fn paired(one: &Connection, of: &Origin, other: &Connection, from: &Origin) -> bool {
    let mut selection = Selection::new(Sort::Lifetime, 20);
    selection.offer(one, of);
    let mut peers = Peers::of(selection.into_items());
    peers.offer(other, from);
    peers.into_groups()[0].second.is_some()
}

#[rstest]
#[case::both_ends(|_: &mut Connection, _: &mut Origin| (), true)]
#[case::another_port(|it: &mut Connection, _: &mut Origin| it.identity.tuple.local_port += 1, false)]
#[case::two_clients(|it: &mut Connection, _: &mut Origin| it.identity.side = Side::Client, false)]
#[case::it_began_after(|it: &mut Connection, _: &mut Origin| (it.opened_ns, it.boot_ns) = (Some(22 * S), 23 * S), false)]
#[case::it_ended_before(|it: &mut Connection, _: &mut Origin| (it.opened_ns, it.boot_ns) = (Some(0), S - 1), false)]
#[case::its_beginning_is_unknown(|it: &mut Connection, _: &mut Origin| it.opened_ns = None, true)]
#[case::another_namespace(|it: &mut Connection, _: &mut Origin| it.identity.netns = Some(1), false)]
#[case::an_unknown_namespace(|it: &mut Connection, _: &mut Origin| it.identity.netns = None, true)]
#[case::another_host(|_: &mut Connection, origin: &mut Origin| origin.number = 1, false)]
#[case::itself(|it: &mut Connection, _: &mut Origin| it.identity.conn = client().identity.conn, false)]
fn two_ends_on_loopback(#[case] change: fn(&mut Connection, &mut Origin), #[case] expected: bool) {
    let (mut other, mut from) = (server(), origin());
    change(&mut other, &mut from);
    assert_eq!(paired(&client(), &origin(), &other, &from), expected);
    assert_eq!(paired(&other, &from, &client(), &origin()), expected);
}

/// Addresses other than loopback mean the same in other namespaces and on other hosts.
#[test]
fn two_ends_on_two_hosts() {
    let (mut one, mut other) = (client(), server());
    (one.identity.tuple, other.identity.netns) = (tuple("10.0.0.1:43892", "10.0.0.2:7000"), Some(1));
    other.identity.tuple = one.identity.tuple.reversed();
    let mut elsewhere = Origin { number: 1, ..origin() };
    // It booted later, so its clock shows less.
    let later = 100 * i64::try_from(S).expect("it fits");
    (other.opened_ns, other.boot_ns) = (Some(S), 2 * S);
    elsewhere.context.clock.boot_to_unix_ns += later;
    assert!(!paired(&one, &origin(), &other, &elsewhere), "the one ended before the other began");
    (one.opened_ns, one.boot_ns) = (one.opened_ns.map(|ns| ns + 100 * S), one.boot_ns + 100 * S);
    assert!(paired(&one, &origin(), &other, &elsewhere));
}

const US: u64 = 1_000;

/// A connection of this namespace, at these ends.
fn end(conn: u64, netns: u32, side: Side, opened: u64, stays: &[(State, u64)]) -> Connection {
    let whole = whole(conn, opened, stays);
    let towards = tuple("10.1.0.2:43892", "10.2.0.2:80");
    let tuple = if side == Side::Client { towards } else { towards.reversed() };
    Connection { identity: Identity { conn, netns: Some(netns), side, tuple, ..whole.identity }, ..whole }
}

fn connecting(conn: u64, netns: u32, opened: u64, round_trip: u64, lasted: u64) -> Connection {
    let stays = [(State::SynSent, round_trip), (State::Established, lasted), (State::FinWait1, MS)];
    end(conn, netns, Side::Client, opened, &stays)
}

fn serving(conn: u64, netns: u32, opened: u64, lasted: u64) -> Connection {
    end(
        conn,
        netns,
        Side::Server,
        opened,
        &[(State::SynRecv, US), (State::Established, lasted), (State::CloseWait, MS)],
    )
}

/// It was opened before tracing.
fn older(connection: Connection) -> Connection {
    let stays = connection.stays.iter().skip(1).take(1);
    let stays = stays.map(|stay| Stay { held: Held::AtLeast(stay.held.known_ns().unwrap_or(0)), ..*stay }).collect();
    Connection { opened_ns: None, complete: false, stays, ..connection }
}

/// The ids of connections drawn together, if this many are drawn and the others are only recorded.
fn pairs(connections: &[Connection], limit: usize) -> BTreeSet<Vec<u64>> {
    let mut selection = Selection::new(Sort::Opened, limit);
    connections.iter().for_each(|connection| selection.offer(connection, &origin()));
    let mut peers = Peers::of(selection.into_items());
    connections.iter().for_each(|connection| peers.offer(connection, &origin()));
    let ids = |group: &Group| group.items().map(|item| item.connection.identity.conn).collect();
    peers.into_groups().iter().map(ids).collect()
}

fn groups(expected: &[&[u64]]) -> BTreeSet<Vec<u64>> {
    expected.iter().map(|ids| ids.to_vec()).collect()
}

/// A transparent proxy keeps both addresses: four sockets have two tuples. The client's and the server's end overlap
/// longest, but belong to different connections.
#[rstest]
#[case(4)]
#[case(1)]
fn a_transparent_proxy_has_two_connections(#[case] limit: usize) {
    let [client, server] = [connecting(1, 1, S, 100 * US, 9 * S), serving(4, 3, S + 400 * MS, 9 * S)];
    let [front, back] = [serving(2, 2, S + 110 * US, 300 * MS), connecting(3, 2, S + 399 * MS, 900 * US, 20 * MS)];
    let expected = if limit == 1 { groups(&[&[1, 2]]) } else { groups(&[&[1, 2], &[3, 4]]) };
    assert_eq!(pairs(&[client, server, front, back], limit), expected);
}

#[test]
fn lives_that_follow_each_other_are_not_mixed() {
    let lives = (0..3).flat_map(|nth| {
        let opened = S + nth * 10 * MS;
        let server = serving(2 * nth + 2, 2, opened + 120 * US, 8 * MS);
        [connecting(2 * nth + 1, 1, opened, 100 * US, if nth == 1 { US } else { 8 * MS }), server]
    });
    let lives: Vec<_> = lives.collect();
    assert_eq!(pairs(&lives, 6), groups(&[&[1, 2], &[3, 4], &[5, 6]]));
    assert_eq!(pairs(&lives, 1), groups(&[&[1, 2]]));
}

/// Namespaces can have the same addresses.
#[test]
fn what_an_own_address_sends_stays_in_the_namespace() {
    let own = |mut connection: Connection| {
        let (tuple, side) = (tuple("10.0.0.1:43892", "10.0.0.1:80"), connection.identity.side);
        connection.identity.tuple = if side == Side::Client { tuple } else { tuple.reversed() };
        connection
    };
    let lives = [connecting(1, 1, S, 100 * US, S), serving(2, 1, S + 900 * US, S), serving(3, 2, S + 110 * US, S)];
    assert_eq!(pairs(&lives.map(own), 3), groups(&[&[1, 2], &[3]]));
}

#[test]
fn a_client_comes_before_its_server() {
    let proxy = [serving(1, 1, S, 9 * S), connecting(2, 1, S + 10 * US, 100 * US, 9 * S)];
    assert_eq!(pairs(&proxy, 2), groups(&[&[1], &[2]]), "both ends of the proxy, and neither of their other ends");
}

#[test]
fn fast_open_begins_the_server_within_syn_sent() {
    let lives = [connecting(1, 1, S, 10 * MS, S), serving(2, 2, S + 5 * MS, S)];
    assert_eq!(pairs(&lives, 2), groups(&[&[1, 2]]));
}

#[test]
fn crossed_syns_make_two_clients() {
    let crossed = |conn, reversed: bool| {
        let stays = [(State::SynSent, MS), (State::SynRecv, MS), (State::Established, S)];
        let mut end = end(conn, 1, Side::Client, S + conn * US, &stays);
        if reversed {
            end.identity.tuple = end.identity.tuple.reversed();
        }
        end
    };
    assert_eq!(pairs(&[crossed(1, false), crossed(2, true)], 2), groups(&[&[1, 2]]));
    let other = Connection { identity: crossed(2, true).identity, ..connecting(2, 1, S, MS, S) };
    assert_eq!(pairs(&[crossed(1, false), other], 2), groups(&[&[1], &[2]]));
}

#[test]
fn older_ends_are_paired_only_if_there_is_no_choice() {
    let lives = [older(connecting(1, 1, S, MS, 9 * S)), older(serving(2, 2, S, 9 * S)), older(serving(3, 3, S, 8 * S))];
    assert_eq!(pairs(&lives[..2], 2), groups(&[&[1, 2]]));
    assert_eq!(pairs(&lives, 3), groups(&[&[1], &[2], &[3]]));
}

/// A life is the same with a seen end and with one cut off.
#[test]
fn a_life_that_comes_twice_is_one() {
    let lives = [connecting(1, 1, S, 100 * US, S), serving(2, 2, S + 110 * US, S)];
    let mut selection = Selection::new(Sort::Opened, 1);
    lives.iter().for_each(|connection| selection.offer(connection, &origin()));
    let mut peers = Peers::of(selection.into_items());
    let cut = lives.clone().map(|it| Connection { boot_ns: it.boot_ns - 10 * MS, ..it });
    lives.iter().chain(&cut).for_each(|connection| peers.offer(connection, &origin()));
    assert_eq!(peers.into_groups()[0].items().count(), 2);
}

#[derive(Clone, Debug)]
struct Hop {
    /// Delays of a segment, and of the proxy before it connects.
    delay: u64,
    pause: u64,
    lasts: [u64; 2],
}

prop_compose! {
    fn any_hop()(delay in 1..2_000_000_u64, pause in 5_000_000..1_000_000_000_u64, lasts in [1..S, 1..S]) -> Hop {
        Hop { delay, pause, lasts: lasts.map(|ns| 3 * S + ns) }
    }
}

/// Consecutive lives, each through a chain of transparent proxies: clients and servers alternate.
fn chains(lives: &[Vec<Hop>]) -> Vec<Connection> {
    let mut ends = Vec::new();
    for (nth, hops) in (0..).zip(lives) {
        let mut at = (1 + 100 * nth) * S;
        for (netns, hop) in (0..).zip(hops) {
            let conn = ends.len() as u64 + 1;
            let arrives = at + 3 * hop.delay;
            ends.push(connecting(conn, netns, at, 2 * hop.delay, hop.lasts[0]));
            ends.push(serving(conn + 1, netns + 1, arrives, hop.lasts[1]));
            at = arrives + hop.pause;
        }
    }
    ends
}

proptest! {
    /// For any number drawn.
    #[test]
    fn the_ends_of_one_connection_are_together(
        lives in prop::collection::vec(prop::collection::vec(any_hop(), 1..4), 1..5),
        limit in 1_usize..30,
    ) {
        let ends = chains(&lives);
        let expected: BTreeSet<_> = (0..ends.len().min(limit)).map(|at| 2 * (at as u64 / 2)).collect();
        let expected: BTreeSet<_> = expected.into_iter().map(|before| vec![before + 1, before + 2]).collect();
        prop_assert_eq!(pairs(&ends, limit), expected);
    }

    /// An end that was not recorded leaves its peer single, and mixes up no others.
    #[test]
    fn an_end_that_is_missing_is_not_replaced(
        lives in prop::collection::vec(prop::collection::vec(any_hop(), 1..4), 1..5),
        missing in any::<prop::sample::Index>(),
    ) {
        let mut ends = chains(&lives);
        let gone = ends.remove(missing.index(ends.len())).identity.conn;
        let all = (0..).map(|nth| vec![2 * nth + 1, 2 * nth + 2]).take(ends.len().div_ceil(2));
        let expected: BTreeSet<Vec<u64>> =
            all.map(|ids| ids.into_iter().filter(|id| *id != gone).collect()).collect();
        prop_assert_eq!(pairs(&ends, 100), expected);
    }
}
