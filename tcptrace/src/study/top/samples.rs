//! A short story on a host, as a screen shows it: a client and its cache, a server that forgets to close, and a queue.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Ask, Top};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::event::{Birth, Cause, Change, EndFacts, Event, Flags, Found, Holder, Id, Kept, Totals};
use crate::model::facts::{AcceptQueue, AcceptQueues, Settings};
use crate::model::stream::{Clocks, Head, Item, Origin};
use crate::model::tcp::{Comm, State, Task, Tuple};

const NETNS: u32 = 4_026_531_840;
pub(crate) const S: u64 = 1_000_000_000;
/// 2026-11-26T03:00:00Z.
const UNIX_NS: i64 = 1_795_662_000_000_000_000;

pub(crate) const API: u32 = 4711;
pub(crate) const WEB: u32 = 80;

fn ip(last: u8) -> Ipv6Addr {
    Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
}

pub(crate) fn task(pid: u32) -> Task {
    // A name that would colour and clear the screen.
    let comm = if pid == API { "api" } else { "we\x1b[31m名b" };
    Task { pid, tid: pid, comm: Comm::from(comm) }
}

/// To the cache.
fn outgoing(conn: u64) -> Tuple {
    let local_port = 40_000 + u16::try_from(conn).expect("few");
    Tuple { local_ip: ip(1), remote_ip: ip(9), local_port, remote_port: 6379 }
}

/// At port 443.
fn incoming(conn: u64) -> Tuple {
    let remote_port = 50_000 + u16::try_from(conn).expect("few");
    Tuple { local_ip: ip(1), remote_ip: ip(7), local_port: 443, remote_port }
}

fn change(at: u64, conn: u64, tuple: Tuple, pid: u32, old: State, new: State) -> Change {
    Change {
        at,
        id: Id::Cookie(conn),
        address: None,
        tuple,
        netns: Some(NETNS),
        uid: Some(0),
        cgroup: None,
        interface: 0,
        old,
        new,
        flags: Some(Flags { has_socket: true, ..Flags::default() }),
        idle: None,
        task: Some(task(pid)),
        end: None,
    }
}

fn event(change: Change) -> Item {
    Item::Event(Event::Change(change))
}

pub(crate) fn connects(at: u64, conn: u64) -> Vec<Item> {
    let unbound = Tuple { local_port: 0, ..outgoing(conn) };
    vec![
        event(change(at, conn, unbound, API, State::Closed, State::SynSent)),
        event(change(at + S / 1000, conn, outgoing(conn), API, State::SynSent, State::Established)),
    ]
}

/// Into TIME_WAIT.
pub(crate) fn closes(at: u64, conn: u64) -> Vec<Item> {
    let to = |at, old, new| change(at, conn, outgoing(conn), API, old, new);
    let mini = Birth::Made { substate: State::TimeWait, due_ns: 60 * S };
    let end = EndFacts {
        totals: Totals { bytes_sent: 84, ..Totals::default() },
        mini,
        all_acked: true,
        ..EndFacts::default()
    };
    vec![
        event(to(at, State::Established, State::FinWait1)),
        event(to(at + 1, State::FinWait1, State::FinWait2)),
        event(Change { end: Some(end), ..to(at + 2, State::FinWait2, State::Closed) }),
    ]
}

pub(crate) fn refused(at: u64, conn: u64) -> Vec<Item> {
    const ECONNREFUSED: u16 = 111;
    let end = EndFacts { err: ECONNREFUSED, ..EndFacts::default() };
    let closed = change(at + S / 1000, conn, outgoing(conn), API, State::SynSent, State::Closed);
    vec![connects(at, conn).remove(0), event(Change { end: Some(end), ..closed })]
}

/// Accepted; then its client closes, and the server does not.
pub(crate) fn forgotten(at: u64, conn: u64) -> Vec<Item> {
    let to = |at, old, new| event(change(at, conn, incoming(conn), WEB, old, new));
    vec![
        to(at, State::Listen, State::SynRecv),
        to(at + 1, State::SynRecv, State::Established),
        Item::Event(Event::Accepted { at: at + 2, id: Id::Cookie(conn), task: task(WEB) }),
        to(at + S, State::Established, State::CloseWait),
    ]
}

fn found(at: u64, conn: u64) -> Found {
    let (state, kept) = (State::CloseWait, Kept::Held);
    let (id, tuple) = (Id::Cookie(conn), incoming(conn));
    Found { at, id, tuple, netns: Some(NETNS), uid: Some(0), cgroup: None, interface: 0, state, kept }
}

/// One that was there before, with its holder.
pub(crate) fn survey(at: u64) -> Vec<Item> {
    let old = found(at, 90);
    let events = [
        Event::SurveyBegun { at },
        Event::Found(old),
        Event::Surveyed { at, netns: NETNS },
        Event::SurveyEnded { at },
        Event::ScanBegun { at },
        Event::Holder(Holder { found: old, task: task(WEB), fd: 57 }),
        Event::ScanEnded { at },
    ];
    events.map(Item::Event).into()
}

/// A scan that finds an outgoing connection.
pub(crate) fn held(at: u64, conn: u64, fd: u32) -> Vec<Item> {
    let (state, tuple) = (State::Established, outgoing(conn));
    let found = Found { id: Id::Cookie(conn), tuple, state, ..found(at, conn) };
    let holder = Event::Holder(Holder { found, task: task(API), fd });
    [Event::ScanBegun { at }, holder, Event::ScanEnded { at }].map(Item::Event).into()
}

pub(crate) fn facts(at: u64) -> Vec<Item> {
    let queue = AcceptQueue {
        conn: 99,
        ip: Ipv6Addr::UNSPECIFIED,
        port: 443,
        queued: 129,
        limit: 128,
        requests: Some(3),
        autobound: None,
    };
    let values = [("net.ipv4.ip_local_port_range".into(), "40000 40019".into())].into();
    vec![
        Item::AcceptQueues(Box::new(AcceptQueues { at, netns: NETNS, queues: vec![queue], gone: vec![] })),
        Item::Settings(Box::new(Settings { at, netns: Some(NETNS), values })),
    ]
}

/// The whole story: it takes 20 s from 100 s after the boot.
pub(crate) fn story() -> Vec<Item> {
    let begun = 100 * S;
    let clocks = Clocks { boot_ns: begun, monotonic_ns: begun, unix_ns: UNIX_NS };
    let head = Head { host: "web-1".into(), ..Head::default() };
    let mut items = vec![Item::Clocks(clocks), Item::Head(Box::new(head)), Item::Event(Event::Started { at: begun })];
    items.extend(survey(begun));
    items.extend(facts(begun));
    items.extend((0..8).flat_map(|conn| connects(begun + conn * S, conn)));
    items.extend((0..3).flat_map(|conn| closes(begun + (9 + conn) * S, conn)));
    items.extend(forgotten(begun + 13 * S, 50));
    items.extend(refused(begun + 18 * S, 20));
    items.push(Item::Event(Event::Lost { at: begun + 19 * S, cause: Cause::RingFull, events: 12 }));
    items.push(Item::Event(Event::Passed { at: begun + 20 * S }));
    items
}

/// The state after these items.
pub(crate) fn play(items: &[Item], ask: Ask) -> Top {
    let config = Config { at_close: true, scans: true, ..Config::default() };
    let mut follower = Follower::new(config, [], Origin::default());
    let mut top = Top::new(true, 600, ask);
    for item in items {
        top.item(item, follower.origin());
        let Ok(()) = follower.take::<Infallible>(std::slice::from_ref(item), |row, origin| {
            top.row(row, origin);
            Ok(())
        });
        if let Item::Event(event) = item {
            top.time(follower.context().clock.unix_ns(event.at()), follower.origin());
            if matches!(event, Event::SurveyEnded { .. } | Event::ScanEnded { .. }) {
                top.look();
                let Ok(()) = follower.take_open::<Infallible>(|row, origin| {
                    top.confirm(row, origin);
                    Ok(())
                });
                top.confirmed(follower.origin());
            }
            top.remember();
        }
    }
    top.diagnose();
    top.count_ports();
    top
}
