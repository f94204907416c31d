#![expect(clippy::panic, reason = "a panic is how a test fails")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::counters::Sample;
use crate::model::event::{
    self, Birth, Call, Change, EndFacts, FailedCall, Flags, Found, Holder, Id, Idle, Inspected, Timer, Totals,
};
use crate::model::facts::{AcceptQueue, AcceptQueues, Limit, Limits, Settings};
use crate::model::stream::Origin;
use crate::model::tcp::{Closer, Comm, End, Side, State, Task, Tuple};
use crate::study::diagnose::evidence::{Evidence, Pair, Senders};

const NETNS: u32 = 7;
const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// What comes of these items, as a command would have it.
fn observe(items: &[Item]) -> Evidence {
    let config = Config { at_close: true, scans: true, unreleased: true, ..Config::default() };
    let mut follower = Follower::new(config, [], Origin::default());
    let mut gatherer = Gatherer::new(false);
    gatherer.sees_unreleased();
    for item in items {
        gatherer.item(item);
        let Ok(()) = follower.take::<Infallible>(std::slice::from_ref(item), |row, _| {
            gatherer.row(row);
            Ok(())
        });
    }
    let mut open = Vec::new();
    let Ok(()) = follower.take_open::<Infallible>(|row, _| {
        open.extend(if let Row::Connection(row) = row { Some(row.clone()) } else { None });
        Ok(())
    });
    gatherer.finish(open, true)
}

fn ip(last: u8) -> Ipv6Addr {
    Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
}

fn task() -> Task {
    Task { pid: 4711, tid: 4711, comm: Comm::from("api") }
}

/// A connection of `api[4711]` from 10.0.0.1 to 10.0.0.9:6379.
fn outgoing(conn: u64) -> Tuple {
    let local_port = 40_000 + u16::try_from(conn).expect("few");
    Tuple { local_ip: ip(1), remote_ip: ip(9), local_port, remote_port: 6379 }
}

/// A connection that came in at port 80.
fn incoming(conn: u64) -> Tuple {
    Tuple { local_port: 80, remote_port: 50_000 + u16::try_from(conn).expect("few"), ..outgoing(conn) }
}

fn started() -> Item {
    Item::Event(Event::Started { at: S })
}

fn passed(at: u64) -> Item {
    Item::Event(Event::Passed { at })
}

fn change(at: u64, conn: u64, tuple: Tuple, old: State, new: State) -> Change {
    Change {
        at,
        id: Id::Cookie(conn),
        address: None,
        tuple,
        netns: Some(NETNS),
        uid: None,
        cgroup: None,
        interface: 0,
        old,
        new,
        flags: Some(Flags { has_socket: true, ..Flags::default() }),
        idle: None,
        task: Some(task()),
        end: None,
    }
}

fn event(change: Change) -> Item {
    Item::Event(Event::Change(change))
}

/// Opened at a time, established 1 ms later, closed by this side first after `ms`, and into TIME_WAIT.
fn short(at: u64, conn: u64, ms: u64) -> Vec<Item> {
    let unbound = Tuple { local_port: 0, ..outgoing(conn) };
    let tuple = outgoing(conn);
    let to = |at, old, new| change(at, conn, tuple, old, new);
    let closed = at + MS + ms * MS;
    let totals = Totals { bytes_sent: 84, bytes_received: 7, ..Totals::default() };
    let mini = Birth::Made { substate: State::TimeWait, due_ns: 60 * S };
    let end = EndFacts { totals, mini, all_acked: true, ..EndFacts::default() };
    let idle = Some(Idle { acked_ms: None, received_ms: Some(5), sent_ms: Some(9) });
    vec![
        event(change(at, conn, unbound, State::Closed, State::SynSent)),
        event(to(at + MS, State::SynSent, State::Established)),
        event(Change { idle, ..to(closed, State::Established, State::FinWait1) }),
        event(to(closed + 1, State::FinWait1, State::FinWait2)),
        event(Change { end: Some(end), ..to(closed + 2, State::FinWait2, State::Closed) }),
    ]
}

fn only(evidence: &Evidence) -> &Pair {
    let [pair] = &*evidence.pairs else { panic!("{:?}", evidence.pairs) };
    pair
}

#[test]
fn connections_of_a_client_are_one_pair() {
    let lives = (0..3).flat_map(|conn| short((2 + conn) * S, conn, 4));
    let items: Vec<_> = [started()].into_iter().chain(lives).chain([passed(11 * S)]).collect();
    let evidence = observe(&items);
    assert_eq!((evidence.about.opened, evidence.about.ended, evidence.about.traced_ns), (3, 3, 10 * S));
    let pair = only(&evidence);
    assert_eq!(
        (pair.end().to_string(), pair.task(), pair.key.side),
        ("10.0.0.9:6379".into(), Some(task()), Side::Client)
    );
    assert_eq!((pair.opened, pair.established, pair.short, pair.long, pair.closed_here), (3, 3, 3, 0, 3));
    let [(end, closer, ended)] = &*pair.ends else { panic!("{:?}", pair.ends) };
    assert_eq!((*end, *closer, ended.count, ended.bytes_sent_all), (End::Fin, Closer::Active, 3, 252));
    // They stay for TIME_WAIT.
    assert_eq!(evidence.sockets.iter().filter(|socket| socket.state == State::TimeWait).count(), 3);
    assert_eq!(pair.stay(State::TimeWait).map(|stay| (stay.entered, stay.left)), Some((3, 0)));
    assert_eq!(pair.process(), "api[4711]");
}

/// However many destinations there are, before it and after it: those with the most connections stay, and of the others what
/// failed.
#[rstest]
#[case::some_fail(100)]
#[case::all_fail(1)]
fn a_pair_with_many_connections_is_kept(#[case] one_in: u64) {
    let changes = |conn: u64, tuple: Tuple, is_refused: bool| {
        let to = |old, new| event(change(2 * S + conn, conn, Tuple { local_port: 0, ..tuple }, old, new));
        let opened = to(State::Closed, State::SynSent);
        [Some(opened), is_refused.then(|| to(State::SynSent, State::Closed))].into_iter().flatten()
    };
    let elsewhere = |conn: u64| Tuple { remote_port: 10_000 + u16::try_from(conn).expect("few"), ..outgoing(conn) };
    let others = |conn: u64| changes(conn, elsewhere(conn), conn.is_multiple_of(one_in));
    let items: Vec<_> = [started()]
        .into_iter()
        .chain((0..6_000).flat_map(others))
        .chain((6_000..6_200).flat_map(|conn| changes(conn, outgoing(conn), false)))
        .chain((6_200..14_000).flat_map(others))
        .collect();
    let evidence = observe(&items);
    assert_eq!((evidence.pairs[0].key.port, evidence.pairs[0].opened), (6379, 200));
    let refused = evidence.pairs.iter().filter(|pair| pair.ended() > 0).count() as u64;
    assert!(refused >= 13_800_u64.div_ceil(one_in).min(1_024), "{refused}");
    let kept: u64 = evidence.pairs.iter().map(|pair| pair.opened).sum();
    assert_eq!(kept + evidence.unpaired, 14_000);
}

/// Two at once, then one in the place of each that was closed: within a second, or later.
#[test]
fn what_is_opened_anew_is_counted() {
    let lives = [(2_000, 1), (2_001, 2), (2_500, 3), (9_000, 4)];
    let mut items: Vec<_> = lives.into_iter().flat_map(|(at_ms, conn)| short(at_ms * MS, conn, 100)).collect();
    items.sort_by_key(|item| if let Item::Event(event) = item { event.at() } else { 0 });
    items.insert(0, started());
    let evidence = observe(&items);
    let pair = only(&evidence);
    assert_eq!((pair.closed_here, pair.reopened, pair.least_open, pair.most_open), (4, 1, 0, 2));
}

#[test]
fn a_port_that_is_bound_before_connect_is_noticed() {
    let connect = |conn, port, tuple: Tuple| {
        event(change(2 * S, conn, Tuple { local_port: port, ..tuple }, State::Closed, State::SynSent))
    };
    let other = Tuple { remote_port: 443, ..outgoing(2) };
    let items = [
        started(),
        connect(1, 40_001, outgoing(1)),
        connect(2, 40_002, other),
        connect(3, 0, outgoing(3)),
        // Not one that the kernel hands out.
        connect(4, 22, outgoing(4)),
    ];
    let evidence = observe(&items);
    let [binder] = &*evidence.binders else { panic!("{:?}", evidence.binders) };
    assert_eq!((binder.ip, binder.opened, binder.destinations, binder.lacks_no_port), (ip(1), 2, 2, None));
    assert_eq!(binder.tasks, [(task(), 2)]);
}

fn queue(at: u64, queued: u32) -> Item {
    let queue = AcceptQueue {
        conn: 99,
        ip: Ipv6Addr::UNSPECIFIED,
        port: 80,
        queued,
        limit: 4,
        requests: Some(0),
        autobound: None,
    };
    Item::AcceptQueues(Box::new(AcceptQueues { at, netns: NETNS, queues: vec![queue], gone: vec![] }))
}

/// It is known as long as the connection takes its port: for its TIME_WAIT too, and no longer.
#[test]
fn how_connections_came_by_their_port() {
    let bound = event(change(3 * S, 2, outgoing(2), State::Closed, State::SynSent));
    let items: Vec<_> = [started()].into_iter().chain(short(2 * S, 1, 4)).chain([bound]).collect();
    let evidence = observe(&items);
    let states: Vec<_> = evidence.sockets.iter().map(|it| (it.conn, it.state)).collect();
    assert!(states.contains(&(1, State::TimeWait)), "{states:?}");
    assert_eq!((evidence.bound_first.get(&1), evidence.bound_first.get(&2)), (Some(&false), Some(&true)));
    let refused = event(change(4 * S, 2, outgoing(2), State::SynSent, State::Closed));
    let items: Vec<_> = items.into_iter().chain([refused]).collect();
    assert_eq!(observe(&items).bound_first.get(&2), None);
}

#[test]
fn sockets_that_are_only_bound() {
    let Item::Event(Event::Inspected(seen)) = inspected(2 * S, 5, 0, 0) else { unreachable!() };
    let bound = Some(event::Bound { ip: ip(1), port: 40_005, netns: Some(NETNS) });
    let items = [
        started(),
        Item::Event(Event::SurveyBegun { at: 2 * S }),
        Item::Event(Event::Inspected(Inspected { bound, ..seen })),
        Item::Event(Event::SurveyEnded { at: 2 * S }),
    ];
    let evidence = observe(&items);
    let bound: Vec<_> = evidence.bound.iter().map(|it| (it.netns, it.ip, it.port)).collect();
    assert_eq!(bound, [(Some(NETNS), ip(1), 40_005)]);
}

/// A socket that has waited since before the window belongs to a pair, although nothing happened to it.
#[test]
fn a_connection_that_still_waits_has_a_pair() {
    let waiting = found(2 * S, 1, outgoing(1), State::SynSent, Kept::Held);
    let items = [
        started(),
        Item::Event(Event::SurveyBegun { at: 2 * S }),
        Item::Event(Event::Found(waiting)),
        Item::Event(Event::SurveyEnded { at: 2 * S }),
        passed(11 * S),
    ];
    let evidence = observe(&items);
    assert_eq!((evidence.sockets.len(), only(&evidence).opened), (1, 0));
    assert_eq!(only(&evidence).key, evidence.sockets[0].pair);
}

#[test]
fn the_course_of_an_accept_queue() {
    let established = change(5 * S, 1, incoming(1), State::SynRecv, State::Established);
    let accepted = Item::Event(Event::Accepted { at: 6 * S, id: Id::Cookie(1), task: task() });
    let born = change(5 * S, 1, incoming(1), State::Listen, State::SynRecv);
    let items = [started(), queue(S, 0), queue(2 * S, 5), queue(3 * S, 3), event(born), event(established), accepted];
    let evidence = observe(&items);
    let [listener] = &*evidence.listeners else { panic!("{:?}", evidence.listeners) };
    assert_eq!((listener.waiting_since, listener.most_queued, listener.is_old), (Some(2 * S), 5, true));
    assert_eq!((listener.accepted, listener.accepted_at), (1, Some(6 * S)));
    let items = [started(), queue(S, 5), queue(2 * S, 0), queue(3 * S, 1)];
    assert_eq!(observe(&items).listeners[0].waiting_since, Some(3 * S));
}

/// Queues are told of for each namespace on its own, and before or after the listener begins.
#[test]
fn a_listener_is_old_unless_it_was_seen_to_begin() {
    let queue = |netns, conn| {
        let queue = AcceptQueue { conn, ip: ip(1), port: 80, queued: 0, limit: 8, requests: None, autobound: None };
        Item::AcceptQueues(Box::new(AcceptQueues { at: 2 * S, netns, queues: vec![queue], gone: vec![] }))
    };
    let begins = event(change(3 * S, 98, Tuple { remote_port: 0, ..incoming(1) }, State::Closed, State::Listen));
    let items = [started(), queue(NETNS - 1, 97), queue(NETNS, 98), queue(NETNS + 1, 99), begins];
    let listeners: Vec<_> = observe(&items).listeners.iter().map(|it| (it.queue.conn, it.is_old)).collect();
    assert_eq!(listeners, [(97, true), (98, false), (99, true)]);
}

fn found(at: u64, conn: u64, tuple: Tuple, state: State, kept: Kept) -> Found {
    let id = Id::Cookie(conn);
    Found { at, id, tuple, netns: Some(NETNS), uid: Some(0), cgroup: None, interface: 0, state, kept }
}

fn inspected(at: u64, conn: u64, recv_queue: u32, acked_ms: u32) -> Item {
    Item::Event(Event::Inspected(Inspected {
        at,
        id: Id::Cookie(conn),
        recv_queue,
        send_queue: 0,
        timer: Timer::None,
        timer_left_ns: 0,
        retransmits: 0,
        idle: Some(Idle { acked_ms: Some(acked_ms), ..Idle::default() }),
        timestamps: Some(true),
        bind_no_port: None,
        bound: None,
    }))
}

/// The peer's FIN was the last segment, hours before tracing began.
#[test]
fn what_was_there_before_is_as_old_as_its_last_segment() {
    let waiting = found(2 * S, 1, incoming(1), State::CloseWait, Kept::Held);
    let listener = found(2 * S, 99, Tuple { remote_port: 0, ..incoming(1) }, State::Listen, Kept::Held);
    let holder = |found| Item::Event(Event::Holder(Holder { found, task: task(), fd: 57 }));
    let items = [
        started(),
        Item::Event(Event::SurveyBegun { at: 2 * S }),
        Item::Event(Event::Found(listener)),
        Item::Event(Event::Found(waiting)),
        inspected(2 * S, 1, 1, 7_200_000),
        Item::Event(Event::Surveyed { at: 2 * S, netns: NETNS }),
        Item::Event(Event::SurveyEnded { at: 2 * S }),
        Item::Event(Event::ScanBegun { at: 3 * S }),
        holder(waiting),
        holder(listener),
        Item::Event(Event::ScanEnded { at: 3 * S }),
        passed(11 * S),
    ];
    let evidence = observe(&items);
    let [socket] = &*evidence.sockets else { panic!("{:?}", evidence.sockets) };
    assert_eq!(
        (socket.state, socket.side, socket.fd, socket.recv_queue()),
        (State::CloseWait, Side::Server, Some(57), Some(1))
    );
    assert_eq!((socket.age, socket.task()), (Held::AtLeast(7_209 * S), Some(task())));
    assert_eq!(evidence.listeners[0].task, Some(task()));
}

/// It was open when processes were looked at, and has been closed since.
#[test]
fn a_descriptor_that_is_closed_is_not_there_any_more() {
    let open = found(2 * S, 1, outgoing(1), State::Established, Kept::Held);
    let evidence = observe(&[
        started(),
        event(change(S, 1, outgoing(1), State::Closed, State::SynSent)),
        event(change(S, 1, outgoing(1), State::SynSent, State::Established)),
        Item::Event(Event::Holder(Holder { found: open, task: task(), fd: 57 })),
        event(change(3 * S, 1, outgoing(1), State::Established, State::FinWait1)),
        event(change(3 * S, 1, outgoing(1), State::FinWait1, State::FinWait2)),
        Item::Event(Event::SurveyBegun { at: 5 * S }),
        Item::Event(Event::Found(found(5 * S, 1, outgoing(1), State::FinWait2, Kept::Mini { due_ns: 58 * S }))),
        Item::Event(Event::SurveyEnded { at: 5 * S }),
        passed(6 * S),
    ]);
    let [socket] = &*evidence.sockets else { panic!("{:?}", evidence.sockets) };
    assert_eq!((socket.state, socket.fd), (State::FinWait2, None));
}

/// Both ports are of those that the kernel hands out: a client's on the same host is told by who listens.
#[rstest]
#[case::same_host(1, Side::Client)]
#[case::another_host(9, Side::Unknown)]
fn who_listens_tells_the_other_end_too(#[case] last: u8, #[case] expected: Side) {
    let tuple = Tuple { remote_ip: ip(last), remote_port: 40_000, ..outgoing(1) };
    let listener = Tuple { local_ip: ip(1), local_port: 40_000, remote_port: 0, ..incoming(1) };
    let items = [
        started(),
        Item::Event(Event::SurveyBegun { at: 2 * S }),
        Item::Event(Event::Found(found(2 * S, 1, tuple, State::Established, Kept::Held))),
        Item::Event(Event::Found(found(2 * S, 99, listener, State::Listen, Kept::Held))),
        Item::Event(Event::Surveyed { at: 2 * S, netns: NETNS }),
        Item::Event(Event::SurveyEnded { at: 2 * S }),
        passed(11 * S),
    ];
    let evidence = observe(&items);
    assert_eq!(evidence.sockets.iter().map(|socket| socket.side).collect::<Vec<_>>(), [expected]);
}

/// A look that does not find a socket any more says nothing of it.
#[test]
fn only_the_last_look_counts() {
    let waiting = |at| Item::Event(Event::Found(found(at, 1, incoming(1), State::CloseWait, Kept::Held)));
    let survey = |at: u64, middle: Vec<Item>| {
        let begun = Item::Event(Event::SurveyBegun { at });
        [vec![begun], middle, vec![Item::Event(Event::SurveyEnded { at })]].concat()
    };
    let items = [
        vec![started()],
        survey(2 * S, vec![waiting(2 * S), inspected(2 * S, 1, 5, 100)]),
        survey(5 * S, vec![waiting(5 * S)]),
    ]
    .concat();
    let evidence = observe(&items);
    assert_eq!(evidence.sockets.iter().map(Standing::recv_queue).collect::<Vec<_>>(), [None]);
}

/// It was interrupted before it could look closer.
#[test]
fn a_look_that_does_not_end_keeps_what_the_last_one_has_shown() {
    let waiting = |at| Item::Event(Event::Found(found(at, 1, incoming(1), State::CloseWait, Kept::Held)));
    let items = [
        started(),
        Item::Event(Event::SurveyBegun { at: 2 * S }),
        waiting(2 * S),
        inspected(2 * S, 1, 5, 3_000),
        Item::Event(Event::SurveyEnded { at: 2 * S }),
        Item::Event(Event::SurveyBegun { at: 5 * S }),
        waiting(5 * S),
        passed(6 * S),
    ];
    let evidence = observe(&items);
    assert_eq!(evidence.sockets.iter().map(Standing::recv_queue).collect::<Vec<_>>(), [Some(5)]);
    // The last segment came three seconds before the first look.
    assert_eq!(evidence.sockets[0].age, Held::AtLeast(7 * S));
}

#[test]
fn counters_settings_limits_and_calls() {
    let values = |all: &[(&str, u64)]| all.iter().map(|(name, value)| ((*name).into(), *value)).collect();
    let sample = |at, since, whole, counts: &[(&str, u64)], levels: &[(&str, u64)]| {
        let (counts, levels) = (values(counts), values(levels));
        Item::Counters(Box::new(Sample { at, netns: NETNS, whole, since, counts, levels, ..Sample::default() }))
    };
    let limit = |at, descriptors| {
        let limit = Limit { pid: 4711, descriptors: Some(descriptors), soft: Some(1024), hard: None };
        Item::Limits(Box::new(Limits { at, processes: vec![limit] }))
    };
    let call = |at, pid| {
        let task = Task { pid, ..task() };
        let (call, netns, address) = (Call::Bind, Some(NETNS), Some((ip(1), 8080)));
        Item::Event(Event::FailedCall(FailedCall { at, call, errno: 98, task, fd: 3, netns, address }))
    };
    let settings =
        Settings { at: S, netns: Some(NETNS), values: [("net.ipv4.tcp_fin_timeout".into(), "60".into())].into() };
    let host = Settings { at: S, netns: None, values: [("fs.nr_open".into(), "1048576".into())].into() };
    let items = [
        started(),
        Item::Settings(Box::new(settings)),
        Item::Settings(Box::new(host)),
        sample(S, None, true, &[("TcpExt.ListenOverflows", 500)], &[("sockstat.TCP.tw", 3)]),
        sample(2 * S, Some(S), false, &[("TcpExt.ListenOverflows", 15)], &[]),
        sample(4 * S, Some(2 * S), false, &[("TcpExt.ListenOverflows", 45)], &[("sockstat.TCP.tw", 9)]),
        limit(S, 100),
        limit(11 * S, 200),
        call(2 * S, 4711),
        call(3 * S, 4712),
    ];
    let evidence = observe(&items);
    assert_eq!(evidence.grown(NETNS, "TcpExt.ListenOverflows"), 60);
    let counted = &evidence.counters[&NETNS];
    assert_eq!((counted.levels.get("sockstat.TCP.tw"), counted.over_ns), (Some(&9), 3 * S));
    assert_eq!(evidence.number(Some(NETNS), "net.ipv4.tcp_fin_timeout"), Some(60));
    assert_eq!(evidence.number(Some(NETNS), "fs.nr_open"), Some(1_048_576));
    let [limits] = &*evidence.limits else { panic!("{:?}", evidence.limits) };
    assert_eq!((limits.growth(), limits.task.map(|it| it.pid)), (Some(10.0), Some(4711)));
    let [failed] = &*evidence.calls else { panic!("{:?}", evidence.calls) };
    assert_eq!((failed.count, failed.task.pid, failed.first, failed.last), (2, 4712, 2 * S, 3 * S));
}

/// Where nobody listens, there are no accept queues; that they were not recorded would be untrue.
#[test]
fn no_listener_is_no_lack_of_accept_queues() {
    let lacks = |facts, middle: Vec<Item>| {
        let head = Item::Head(Box::new(Head { facts, ..Head::default() }));
        let begun = Item::Event(Event::SurveyBegun { at: S });
        let ended = Item::Event(Event::SurveyEnded { at: S });
        observe(&[vec![head, started(), begun], middle, vec![ended]].concat()).lacks(Need::AcceptQueues).is_some()
    };
    let ends = Tuple { remote_port: 0, ..incoming(1) };
    let listener = || Item::Event(Event::Found(found(S, 99, ends, State::Listen, Kept::Held)));
    assert_eq!([lacks(true, vec![]), lacks(true, vec![listener()]), lacks(false, vec![])], [false, true, true]);
}

#[test]
fn what_is_missing_has_a_reason() {
    let evidence = observe(&[started(), passed(3 * S)]);
    assert_eq!(evidence.lacks(Need::Events), None);
    assert_eq!(evidence.lacks(Need::Time(10)).as_deref(), Some("needs time (--duration 10s)"));
    assert!(evidence.lacks(Need::Settings).is_some());
    let of_trace = Gatherer::new(true).finish([], true);
    assert_eq!(of_trace.lacks(Need::Limits).as_deref(), Some(NOT_RECORDED));
}

/// Established for 2 s, closed by the peer, and reset so many ms later.
#[rstest]
#[case::in_a_race(3, 1)]
#[case::later_than_any_round_trip(1_000, 0)]
fn a_reset_just_after_the_fin_is_told_apart(#[case] ms: u64, #[case] just_closed: u64) {
    let tuple = outgoing(1);
    let to = |at, old, new| change(at, 1, tuple, old, new);
    let closed = 4 * S + ms * MS;
    let idle = Some(Idle { acked_ms: None, received_ms: Some(1_990), sent_ms: Some(0) });
    let end = EndFacts { err: 32, ..EndFacts::default() };
    let evidence = observe(&[
        started(),
        event(change(2 * S - MS, 1, Tuple { local_port: 0, ..tuple }, State::Closed, State::SynSent)),
        event(to(2 * S, State::SynSent, State::Established)),
        event(Change { idle, task: None, ..to(4 * S, State::Established, State::CloseWait) }),
        event(Change { end: Some(end), task: None, ..to(closed, State::CloseWait, State::Closed) }),
    ]);
    let [(end, closer, ended)] = &*only(&evidence).ends else { panic!("{:?}", evidence.pairs) };
    assert_eq!((*end, *closer), (End::ResetReceived, Closer::Passive));
    assert_eq!((ended.in_close_wait, ended.long, ended.just_closed), (1, 1, just_closed));
    assert_eq!((ended.idle.max(), ended.received_idle.max()), (Some(0), Some(1_990 * MS)));
}

/// A connection of `api[4711]` to 10.0.0.9:6379 that ends so, seen from both ends.
fn both_ends(client: EndFacts, server: EndFacts) -> Vec<Item> {
    let (tuple, other) = (outgoing(1), outgoing(1).reversed());
    let (to, from) = (|at, old, new| change(at, 1, tuple, old, new), |at, old, new| change(at, 2, other, old, new));
    vec![
        started(),
        event(change(2 * S, 1, Tuple { local_port: 0, ..tuple }, State::Closed, State::SynSent)),
        event(to(2 * S + MS, State::SynSent, State::Established)),
        event(from(2 * S, State::Listen, State::SynRecv)),
        event(from(2 * S + MS, State::SynRecv, State::Established)),
        event(Change { end: Some(client), task: None, ..to(3 * S, State::Established, State::Closed) }),
        event(Change { end: Some(server), task: None, ..from(3 * S + MS, State::Established, State::Closed) }),
        passed(5 * S),
    ]
}

fn senders(items: &[Item]) -> Senders {
    let evidence = observe(items);
    let of_client = evidence.pairs.iter().find(|pair| pair.key.side == Side::Client).expect("a client's pair");
    assert_eq!(of_client.ended_by(End::ResetReceived), 1, "{of_client:?}");
    of_client.senders
}

/// Whoever sends a reset is its sender, if it is here; and if both have received one, it was neither.
#[test]
fn who_has_sent_a_reset() {
    let reset = EndFacts { err: 104, ..EndFacts::default() };
    let neither = senders(&both_ends(reset, reset));
    assert_eq!(neither, Senders { nobody: 1, ..Senders::default() });
    let items = both_ends(reset, EndFacts { err: 103, ..EndFacts::default() });
    assert_eq!(senders(&items), Senders { process: 1, ..Senders::default() });
    // The other end is not closed.
    let open: Vec<_> = items.iter().take(6).cloned().chain([passed(5 * S)]).collect();
    assert_eq!(senders(&open), Senders { nobody: 1, ..Senders::default() });
    // The other end is not here.
    let alone: Vec<_> = [&items[..3], &items[5..6]].concat();
    assert_eq!(senders(&alone), Senders::default());
}

/// The process has not closed it: nothing shows that it is over, but a look at the process.
#[test]
fn a_descriptor_of_what_is_over() {
    let reset = EndFacts { err: 104, ..EndFacts::default() };
    let mut items: Vec<_> = both_ends(reset, reset).into_iter().take(6).collect();
    items.push(passed(5 * S));
    let evidence = observe(&items);
    let Some([over]) = evidence.over.as_deref() else { panic!("{:?}", evidence.over) };
    assert_eq!(
        (over.end, over.socket.state, over.socket.age),
        (End::ResetReceived, State::Closed, Held::Exactly(2 * S))
    );
    assert_eq!((over.socket.task(), over.socket.side), (Some(task()), Side::Client));
    items.insert(6, Item::Event(Event::Destroyed { at: 4 * S, id: Id::Cookie(1), shut: Some(true) }));
    assert_eq!(observe(&items).over.map(|it| it.len()), Some(0));
}

/// A FIN that comes begins the TIME_WAIT, and one that comes again begins it anew.
#[test]
fn time_waits_that_begin_anew() {
    let mini = |at, what| {
        let (id, tuple, netns) = (Id::Cookie(1), outgoing(1), Some(NETNS));
        let (substate, due_ns) = (State::TimeWait, 60_000_000_000);
        Item::Event(Event::Mini(event::Mini { at, id, tuple, netns, substate, due_ns, what }))
    };
    let rearmed = |more: &[Item]| {
        let items: Vec<_> = [started()].into_iter().chain(short(2 * S, 1, 4)).chain(more.iter().cloned()).collect();
        only(&observe(&items)).rearmed
    };
    assert_eq!(rearmed(&[]), 0);
    let again = [mini(4 * S, MiniEvent::Rearmed), mini(5 * S, MiniEvent::Rearmed)];
    assert_eq!(rearmed(&again), 1, "it still waits");
    let ended = [again.to_vec(), vec![mini(65 * S, MiniEvent::Expired)]].concat();
    assert_eq!(rearmed(&ended), 1);
}

/// Three clients have closed, and two of their servers' ends wait at once.
#[test]
fn the_most_in_close_wait_at_once() {
    let to = |at, conn, old, new| event(change(at, conn, incoming(conn), old, new));
    let mut items = vec![started()];
    for conn in 1..=3 {
        items.push(to(2 * S, conn, State::Listen, State::SynRecv));
        items.push(to(2 * S, conn, State::SynRecv, State::Established));
    }
    items.extend([
        to(3 * S, 1, State::Established, State::CloseWait),
        to(4 * S, 2, State::Established, State::CloseWait),
        to(5 * S, 1, State::CloseWait, State::LastAck),
        to(6 * S, 2, State::CloseWait, State::LastAck),
        to(7 * S, 3, State::Established, State::CloseWait),
        passed(9 * S),
    ]);
    let evidence = observe(&items);
    let stay = only(&evidence).stay(State::CloseWait).expect("a stay");
    assert_eq!((stay.entered, stay.left, stay.most), (3, 2, 2));
    assert_eq!((stay.closed.total(), stay.closed.max()), (2, Some(2 * S)));
    let reset = change(9 * S, 3, incoming(3), State::CloseWait, State::Closed);
    let reset = Change { end: Some(EndFacts { err: 32, ..EndFacts::default() }), task: None, ..reset };
    items.push(event(reset));
    let evidence = observe(&items);
    let stay = only(&evidence).stay(State::CloseWait).expect("a stay");
    assert_eq!((stay.left, stay.closed.total()), (3, 2), "its process has not closed it");
}

/// What nobody acknowledges while it is being closed is told from what dies open.
#[test]
fn where_connections_died() {
    let timeout = EndFacts { err: 110, in_flight: true, retransmits: 8, ..EndFacts::default() };
    let items = |middle: Vec<Item>, last: State| {
        let close = Change { end: Some(timeout), task: None, ..change(9 * S, 1, outgoing(1), last, State::Closed) };
        let unbound = Tuple { local_port: 0, ..outgoing(1) };
        let open = [
            started(),
            event(change(2 * S, 1, unbound, State::Closed, State::SynSent)),
            event(change(2 * S + MS, 1, outgoing(1), State::SynSent, State::Established)),
        ];
        [open.to_vec(), middle, vec![event(close)]].concat()
    };
    let closing = vec![event(change(3 * S, 1, outgoing(1), State::Established, State::FinWait1))];
    for (items, expected) in [(items(vec![], State::Established), 0), (items(closing, State::FinWait1), 1)] {
        let evidence = observe(&items);
        let [(end, _, ended)] = &*only(&evidence).ends else { panic!("{:?}", evidence.pairs) };
        assert_eq!((*end, ended.in_closing), (End::RetransmitTimeout, expected));
        assert_eq!(ended.remotes, [(ip(9), 1)]);
    }
}

/// A client's port, and one that a listener has left.
#[test]
fn ports_that_others_have_had() {
    let evidence = observe(&[vec![started()], short(2 * S, 1, 4)].concat());
    assert!(evidence.client_ports[&Some(NETNS)].has(40_001));
    let at = |at, gone: Vec<u64>, queues| Item::AcceptQueues(Box::new(AcceptQueues { at, netns: NETNS, queues, gone }));
    let queue = AcceptQueue { conn: 99, ip: ip(1), port: 50_051, queued: 0, limit: 8, requests: None, autobound: None };
    let left = [started(), at(2 * S, vec![], vec![queue]), at(3 * S, vec![99], vec![])];
    let late = at(4 * S, vec![], vec![queue]);
    let again = at(4 * S, vec![], vec![AcceptQueue { conn: 100, ..queue }]);
    for (next, listeners) in [(None, 0), (Some(late), 0), (Some(again), 1)] {
        let evidence = observe(&[&left[..], next.as_slice()].concat());
        assert!(evidence.left_ports.contains(&(Some(NETNS), 50_051)));
        assert_eq!(evidence.listeners.len(), listeners, "a look that began before does not bring it back");
    }
}

proptest! {
    /// Whatever comes in whatever order, nothing panics, and what is counted adds up.
    #[test]
    fn nothing_makes_it_panic(steps in prop::collection::vec((0_u64..5, 0..State::ALL.len(), 0..State::ALL.len(), any::<bool>()), 0..60)) {
        let mut items = vec![started()];
        for (place, (conn, old, new, is_incoming)) in (2..).zip(steps) {
            let tuple = if is_incoming { incoming(conn) } else { outgoing(conn) };
            let change = change(place * S, conn, tuple, State::ALL[old], State::ALL[new]);
            let end = (State::ALL[new] == State::Closed).then(EndFacts::default);
            items.push(event(Change { end, ..change }));
        }
        let evidence = observe(&items);
        let ended: u64 = evidence.pairs.iter().map(Pair::ended).sum();
        prop_assert_eq!(ended, evidence.about.ended);
        prop_assert!(evidence.pairs.iter().all(|pair| pair.least_open <= pair.most_open));
    }
}
