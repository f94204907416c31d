//! Removal leaves no trace, and merging equals counting.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::counters::Unseen;
use crate::model::event::Totals;
use crate::model::names;
use crate::model::row::{Ending, Held, Status};
use crate::model::stream::Context;
use crate::model::tcp::Side;
use crate::study::report::testing::{connection, open, origin};

const S: u64 = 1_000_000_000;

/// One of three recordings on two machines, each with its own names.
fn machine(number: usize) -> Origin {
    let machine = number % 2;
    let mut names = names::Names::default();
    for id in 0..3_u64 {
        names.name_group(
            id,
            names::Group::at(format!("/system.slice/{}.service", (id + machine as u64) % 4).as_bytes()),
        );
    }
    names.name_namespace(1, format!("net-{machine}").as_bytes());
    names.name_interface(Some(1), 2, format!("eth{machine}").as_bytes());
    let host = format!("host-{machine}");
    Origin { number, host: host.into(), context: Context { names, ..Context::default() }, ..origin() }
}

fn held() -> impl Strategy<Value = Held> {
    let ns = 0..100 * S;
    prop_oneof![Just(Held::Unknown), ns.clone().prop_map(Held::AtLeast), ns.prop_map(Held::Exactly)]
}

/// The random part of a connection: its owner, its stays, and what is known of it.
type Drawn = (
    (u32, u16, u32, u64, u8, usize),
    (Vec<(usize, Held)>, usize, usize, bool),
    (Option<u64>, Option<(u64, u64, u32)>, u8, Held),
);

fn made((whose, life, known): Drawn) -> Connection {
    let (pid, port, netns, cgroup, ip, side) = whose;
    let (stays, end, closer, complete) = life;
    let (opened, bytes, status, age) = known;

    let stays: Vec<(State, Held)> = stays.into_iter().map(|(state, held)| (State::ALL[state], held)).collect();
    let stays: Vec<_> = stays.into_iter().filter(|(_, held)| *held != Held::Unknown).collect();
    let mut made = connection(&stays);
    let identity = &mut made.identity;
    identity.owner = identity.owner.filter(|_| pid > 0);
    identity.owner.iter_mut().for_each(|owner| owner.task.pid = pid);
    (identity.tuple.local_port, identity.tuple.remote_port) = (port, port);
    (identity.netns, identity.cgroup) = (Some(netns).filter(|netns| *netns > 0), Some(cgroup));
    identity.tuple.remote_ip = match ip {
        0 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        1 => Ipv6Addr::LOCALHOST,
        _ => Ipv4Addr::new(192, 0, 2, ip).to_ipv6_mapped(),
    };
    (identity.interface, identity.side) = (u32::from(ip == 0) * 2, Side::ALL[side]);
    (made.opened_ns, made.boot_ns, made.complete) = (opened, 200 * S, complete);
    made.closer = Closer::ALL[closer];
    made.totals = bytes.map(|(bytes_sent, bytes_received, retransmits)| Totals {
        bytes_sent,
        bytes_received,
        retransmits,
        ..Totals::default()
    });
    let ending = Ending { end: End::ALL[end], time_wait: TimeWaitEnd::ALL.get(end).copied() };
    made.status = Status::Ended(ending);
    match status {
        0 => open(made, State::ALL[closer % State::ALL.len()], age),
        1 => Connection { status: Status::Released { ending, age, accepted: Some(complete) }, ..made },
        _ => made,
    }
}

/// Any connection on any of three machines.
fn any_connection() -> impl Strategy<Value = (Connection, usize)> {
    let ends = (0..5_u32, 0..3_u16, 0..3_u32, 0..3_u64, 0..4_u8, 0..Side::ALL.len());
    let life = (vec((0..State::ALL.len(), held()), 0..5), 0..End::ALL.len(), 0..Closer::ALL.len(), any::<bool>());
    let rest = (proptest::option::of(0..9 * S), proptest::option::of(any::<(u64, u64, u32)>()), 0..4_u8, held());
    ((ends, life, rest).prop_map(made), 0..3_usize)
}

/// The same connection with a known side, so that no other one decides it.
fn known_end(mut one: (Connection, usize)) -> (Connection, usize) {
    if one.0.identity.side == Side::Unknown {
        one.0.identity.side = Side::Client;
    }
    one
}

fn of<'c>(all: impl IntoIterator<Item = &'c (Connection, usize)>) -> Counts {
    let mut counts = Counts::default();
    for (connection, number) in all {
        counts.add(connection, &machine(*number));
    }
    counts
}

/// All figures, in an order that does not depend on their history.
#[derive(Debug, PartialEq)]
struct Told {
    figures: Figures,
    properties: Vec<u64>,
    states: Vec<Stays>,
    groups: BTreeMap<String, Tally>,
    pairs: BTreeMap<String, Pair>,
    counters: Vec<CounterRow>,
}

fn told(counts: &Counts) -> Told {
    let sums = &counts.sums;
    let all = By::ALL.into_iter().flat_map(|by| counts.groups(by, usize::MAX, |tally| tally.connections));
    Told {
        figures: sums.figures.clone(),
        properties: [&sums.closers[..], &sums.ends, &sums.time_wait_ends, &sums.open].concat(),
        states: sums.states.to_vec(),
        groups: all.map(|row| (format!("{:?}", row.group), row.counts)).collect(),
        pairs: counts.pairs(usize::MAX).into_iter().map(|row| (format!("{:?}", row.group), row.counts)).collect(),
        counters: counts.counters(usize::MAX),
    }
}

proptest! {
    #[test]
    fn what_is_taken_out_leaves_no_trace(all in vec((any_connection(), any::<bool>()), 0..40)) {
        let all: Vec<_> = all.into_iter().map(|(one, stays)| (known_end(one), stays)).collect();
        let mut counts = Counts::default();
        let receipts: Vec<_> = all.iter().map(|((one, number), _)| counts.add(one, &machine(*number))).collect();
        for (((one, _), stays), receipt) in all.iter().zip(&receipts) {
            if !stays {
                counts.remove(one, receipt);
            }
        }
        let rest = of(all.iter().filter(|(_, stays)| *stays).map(|(one, _)| one));
        prop_assert_eq!(told(&counts), told(&rest));
    }

    /// If other connections decide the side of one, removing them leaves no trace either.
    #[test]
    fn all_can_be_taken_out(all in vec(any_connection(), 0..40)) {
        let mut counts = Counts::default();
        let receipts: Vec<_> = all.iter().map(|(one, number)| counts.add(one, &machine(*number))).collect();
        all.iter().zip(&receipts).for_each(|((one, _), receipt)| counts.remove(one, receipt));
        prop_assert_eq!(told(&counts), told(&Counts::default()));
        prop_assert_eq!(counts.sums.kept(), 0);
    }

    #[test]
    fn what_is_merged_was_counted(one in vec(any_connection(), 0..30), other in vec(any_connection(), 0..30)) {
        let [one, other] = [one, other].map(|all| all.into_iter().map(known_end).collect::<Vec<_>>());
        let mut merged = of(&one);
        merged.merge(&of(&other));
        prop_assert_eq!(told(&merged), told(&of(one.iter().chain(&other))));
    }

    /// Receipts stay valid after a merge, and after groups were folded into the others.
    #[test]
    fn receipts_outlive_folds(all in vec((any_connection(), 0..3_u8), 1..60), most in 2..6_usize) {
        let mut counts = Counts::default();
        let mut kept = Vec::new();
        for (place, (one, step)) in all.iter().enumerate() {
            match step {
                0 => counts.sums.limit(most),
                1 => counts.merge(&of([one])),
                _ => kept.push((one, counts.add(&one.0, &machine(one.1)))),
            }
            if place % 5 == 4 && !kept.is_empty() {
                let (one, receipt) = kept.swap_remove(place % kept.len());
                counts.remove(&one.0, &receipt);
            }
        }
        kept.iter().for_each(|(one, receipt)| counts.remove(&one.0, receipt));
        let rest = of(all.iter().filter(|(_, step)| *step == 1).map(|(one, _)| one));
        prop_assert_eq!(counts.figures(), rest.figures());
        for by in By::ALL {
            let sum = |counts: &Counts, of: fn(&Tally) -> u64| -> u64 {
                counts.groups(by, usize::MAX, of).iter().map(|row| of(&row.counts)).sum()
            };
            for of in [|tally: &Tally| tally.connections, |tally: &Tally| tally.open, |tally: &Tally| tally.failed] {
                prop_assert_eq!(sum(&counts, of), sum(&rest, of));
            }
            let fins = |tally: &Tally| tally.ends[End::Fin as usize];
            prop_assert_eq!(sum(&counts, fins), sum(&rest, fins));
        }
    }

    /// The counts of the last seconds are the connections that ended in them, whether they came late or in time.
    #[test]
    fn a_window_has_the_last_seconds(all in vec((any_connection(), 0..30_i64), 1..40), seconds in 1..12_u32) {
        let mut window = Window::of(seconds);
        let mut at = 100;
        let mut ended = Vec::new();
        for (place, (one, step)) in all.into_iter().enumerate() {
            let (mut one, number) = known_end(one);
            // Most come in time, some late.
            at += if step < 4 { step } else { 0 };
            one.boot_ns = (at - if step == 29 { 2 } else { 0 }) as u64 * S + place as u64;
            window.add(&one, &machine(number));
            if place % 7 == 0 {
                window.counts();
            }
            ended.push((one, number));
        }
        let newest = ended.iter().filter_map(|(one, _)| one.closed_ns()).max().unwrap_or(0) / S;
        let is_in = |(one, _): &&(Connection, usize)| {
            one.closed_ns().is_some_and(|closed| closed / S + u64::from(seconds) > newest)
        };
        prop_assert_eq!(told(&window.counts()), told(&of(ended.iter().filter(is_in))));
        window.turn(((newest + u64::from(seconds)) * S) as i64);
        prop_assert_eq!(told(&window.counts()), told(&Counts::default()));
    }
}

/// Numbers of machines and containers are not valid in another directory.
#[test]
fn containers_are_the_same_by_their_names() {
    let mut one = connection(&[]);
    one.identity.cgroup = Some(0);
    let named = |counts: &Counts| {
        let rows = counts.groups(By::Container, 9, |tally| tally.connections);
        let unit = |unit: Option<Box<[u8]>>| unit.map(|unit| String::from_utf8_lossy(&unit).into_owned());
        rows.into_iter().map(|row| (row.group.host, unit(row.group.unit), row.counts.connections)).collect::<Vec<_>>()
    };
    let mut counts = of([&(one.clone(), 1)]);
    counts.merge(&of([&(one.clone(), 2), &(one.clone(), 0), &(one.clone(), 1), &(one, 0)]));
    assert_eq!(
        named(&counts),
        [
            (Some("host-0".into()), Some("0.service".to_owned()), 3),
            (Some("host-1".into()), Some("1.service".to_owned()), 2),
        ]
    );
}

/// A connection is removed where it was added, even if a name or a listener has become known meanwhile.
#[test]
fn what_was_not_known_yet_is_taken_out_where_it_was() {
    let mut one = connection(&[]);
    one.identity.side = Side::Unknown;
    one.identity.cgroup = Some(9);
    let mut late = machine(0);
    let mut counts = Counts::default();
    let receipt = counts.add(&one, &late);
    late.context.names.name_group(9, names::Group::at(b"/system.slice/late.service"));
    one.identity.side = Side::Server;
    let second = counts.add(&one, &late);
    one.identity.side = Side::Unknown;
    counts.remove(&one, &receipt);
    let rows = counts.groups(By::Container, 9, |tally| tally.connections);
    assert_eq!((rows.len(), rows[0].group.unit.as_deref()), (1, Some(&b"late.service"[..])));
    let ports = counts.groups(By::Lport, 9, |tally| tally.connections);
    assert_eq!((ports.len(), ports[0].group.local_port), (1, Some(40_000)));
    one.identity.side = Side::Server;
    counts.remove(&one, &second);
    assert_eq!(told(&counts), told(&Counts::default()));
}

/// The oldest open connection of a group is not the one that has ended.
#[test]
fn the_oldest_one_goes() {
    let waits = |s: u64| {
        let stays = [(State::CloseWait, Held::AtLeast(s * S))];
        open(connection(&stays), State::CloseWait, Held::Exactly(s * S))
    };
    let mut counts = Counts::default();
    let old = counts.add(&waits(86_400), &origin());
    counts.add(&waits(30), &origin());
    counts.remove(&waits(86_400), &old);
    let rows = counts.groups(By::Process, 9, |tally| tally.connections);
    let still = rows[0].counts.still(State::CloseWait).expect("one is left");
    let oldest = still.oldest().known_ns().expect("its age is known");
    assert_eq!(still.connections, 1);
    assert!((30 * S..31 * S).contains(&oldest), "{oldest}");
}

#[test]
fn counters_are_taken_out_and_merged() {
    let row = |netns, increase| Increase { at: 5, netns, counter: Unseen::ListenDrops, increase, over_ns: None };
    let mut counts = Counts::default();
    counts.add_counter(&row(1, u64::MAX), &machine(1));
    counts.add_counter(&row(1, 3), &machine(1));
    counts.remove_counter(&row(1, u64::MAX), &machine(1));
    let mut other = Counts::default();
    other.add_counter(&row(1, 4), &machine(0));
    other.add_counter(&row(1, 5), &machine(1));
    counts.merge(&other);
    let told = |rows: Vec<CounterRow>| {
        rows.into_iter().map(|row| (row.group.host, row.group.netns_name, row.increase)).collect::<Vec<_>>()
    };
    let name = |name: &str| Some(name.as_bytes().into());
    assert_eq!(
        told(counts.counters(9)),
        [(Some("host-1".into()), name("net-1"), 8), (Some("host-0".into()), name("net-0"), 4)]
    );
    counts.remove_counter(&row(1, 3), &machine(1));
    counts.remove_counter(&row(1, 5), &machine(1));
    assert_eq!(counts.counters(9).len(), 1);
}

/// A minute of connections from every address: memory is bounded, and no connection is missing from the sums.
#[test]
fn a_window_is_bounded() {
    let mut window = Window::of(60);
    for number in 0..60_000_u32 {
        let mut one = connection(&[(State::TimeWait, Held::Exactly(S))]);
        one.boot_ns = u64::from(number) * S / 1_000;
        let remote = if number % 4 == 0 { 1 } else { 0x0a00_0000 + number };
        one.identity.tuple.remote_ip = Ipv4Addr::from_bits(remote).to_ipv6_mapped();
        window.add(&one, &origin());
    }
    assert!(window.kept() <= 8192 + 4096, "{}", window.kept());
    let counts = window.counts();
    let rows = counts.groups(By::Remote, 3, |tally| tally.connections);
    assert_eq!(rows.iter().map(|row| row.counts.connections).sum::<u64>(), 60_000);
    assert_eq!((rows[0].counts.connections, rows[0].group.is_partial), (15_000, false));
    assert!(rows.last().is_some_and(|others| others.group.is_partial));
    assert_eq!(counts.figures().connections, 60_000);
}

/// Earlier connections in another second decide the side.
#[test]
fn a_window_knows_ends_from_all_its_seconds() {
    let mut window = Window::of(10);
    let mut one = connection(&[]);
    (one.identity.side, one.boot_ns) = (Side::Server, S);
    window.add(&one, &origin());
    (one.identity.side, one.boot_ns) = (Side::Unknown, 3 * S);
    window.add(&one, &origin());
    let ports = window.counts().groups(By::Lport, 9, |tally| tally.connections);
    assert_eq!((ports.len(), ports[0].counts.connections), (1, 2));
}

/// Over weeks, more containers come and go than can be kept.
#[test]
fn a_window_forgets_names() {
    let mut window = Window::of(2);
    let mut origin = machine(0);
    for number in 0..70_000_u64 {
        origin.context.names = names::Names::default();
        origin.context.names.name_group(number, names::Group::at(format!("/{number}.service").as_bytes()));
        let mut one = connection(&[]);
        (one.identity.cgroup, one.boot_ns) = (Some(number), number * S / 100);
        window.add(&one, &origin);
    }
    let rows = window.counts().groups(By::Container, usize::MAX, |tally| tally.connections);
    assert!(rows.iter().all(|row| row.group.unit.is_some()), "{:?}", rows[0]);
    assert_eq!(rows.len(), 200);
}
