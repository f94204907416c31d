//! Sample connections for tests.

use std::net::Ipv4Addr;

use super::{Analysis, FiredRow, Options, Report};
use crate::model::counters::{Increase, Unseen};
use crate::model::event::{Cause, Totals};
use crate::model::fired::Fired;
use crate::model::names::Group;
use crate::model::row::{Connection, Ending, Held, Identity, Owner, Status, Stay};
use crate::model::stream::{Clock, Context, Lost, Origin, Summary};
use crate::model::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// A connection of curl to 10.0.0.2:443, closed by curl in good order.
pub(crate) fn connection(stays: &[(State, Held)]) -> Connection {
    Connection {
        identity: identity("curl", 42, 40_000, [10, 0, 0, 2], 443),
        opened_ns: None,
        boot_ns: 1_000,
        status: Status::Ended(End::Fin.into()),
        closer: Closer::Active,
        closed_by: None,
        stays: stays.iter().map(|(state, held)| Stay { state: *state, held: *held }).collect(),
        totals: None,
        idle: None,
        complete: true,
    }
}

fn identity(comm: &str, pid: u32, local_port: u16, remote: [u8; 4], remote_port: u16) -> Identity {
    let task = Task { pid, tid: pid, comm: Comm::from(comm) };
    Identity {
        conn: 1,
        tuple: Tuple {
            local_ip: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(),
            remote_ip: Ipv4Addr::from(remote).to_ipv6_mapped(),
            local_port,
            remote_port,
        },
        netns: Some(4_026_532_000),
        uid: Some(0),
        cgroup: Some(7),
        interface: 0,
        side: Side::Client,
        owner: Some(Owner { task, source: OwnerSource::Connect }),
    }
}

/// Turns it into a connection that is still in a state.
pub(crate) fn open(connection: Connection, state: State, age: Held) -> Connection {
    Connection { status: Status::Open { state, age, accepted: None }, ..connection }
}

/// A host that booted at the Unix epoch.
pub(crate) fn origin() -> Origin {
    Origin {
        number: 0,
        host: "web-1".into(),
        kernel: "6.18.0".into(),
        boot_id: "boot".into(),
        context: Context { clock: Clock { boot_to_unix_ns: 0 }, ..Context::default() },
    }
}

/// Opened at a time, with these stays in sequence.
fn life(identity: Identity, opened: u64, stays: &[(State, u64)]) -> Connection {
    Connection {
        identity,
        opened_ns: Some(opened),
        boot_ns: opened + stays.iter().map(|(_, ns)| ns).sum::<u64>(),
        totals: Some(Totals {
            bytes_sent: 210,
            bytes_received: 1_300,
            retransmits: 0,
            srtt_us: Some(80),
            bytes_unread: 0,
            ..Totals::default()
        }),
        ..connection(&stays.iter().map(|(state, ns)| (*state, Held::Exactly(*ns))).collect::<Vec<_>>())
    }
}

/// One connection for each part of an incident, begun in this second of five minutes.
fn in_second(second: u64, out: &mut Vec<Connection>) {
    let at = second * S;
    // A client without a connection pool, with a growing number of connections.
    for number in 0..10 + second / 6 {
        let opened = at + number * 7 * MS;
        let lasted = MS + number % 7 * 300_000;
        let (time_wait, end) = if number.is_multiple_of(9) {
            (1_100 * MS, TimeWaitEnd::Reused)
        } else {
            (60 * S + number * MS, TimeWaitEnd::Expired)
        };
        let stays = [
            (State::SynSent, 90_000),
            (State::Established, lasted),
            (State::FinWait1, 40_000),
            (State::FinWait2, 60_000),
            (State::TimeWait, time_wait),
        ];
        let identity = Identity {
            conn: 0x1000 + at + number,
            ..identity("python3", 4242, 33_000 + number as u16, [10, 0, 0, 5], 6379)
        };
        out.push(Connection {
            status: Status::Ended(Ending { end: End::Fin, time_wait: Some(end) }),
            ..life(identity, opened, &stays)
        });
    }
    // A server whose clients close first.
    for number in 0..3_u64 {
        let client = [10, 1, 0, (second % 4) as u8];
        let mut identity = Identity {
            side: Side::Server,
            cgroup: Some(8),
            ..identity("nginx", 80 + number as u32, 80, client, 50_000)
        };
        identity.conn = 0x2000 + at + number;
        let stays = [
            (State::SynRecv, 70_000),
            (State::Established, 400 * MS + number * 900 * MS),
            (State::CloseWait, 2 * MS + second * 50_000),
            (State::LastAck, 50_000),
        ];
        out.push(Connection { closer: Closer::Passive, ..life(identity, at + number * MS, &stays) });
    }
    // A service that leaks connections that its peers have closed, from second 100 on.
    if second >= 100 && second.is_multiple_of(2) {
        let mut identity =
            Identity { side: Side::Server, cgroup: Some(9), ..identity("java", 991, 8080, [10, 2, 0, 7], 41_000) };
        identity.conn = 0x3000 + at;
        let stays = [(State::SynRecv, 60_000), (State::Established, 30 * MS)];
        let mut leak = life(identity, at, &stays);
        leak.boot_ns = 300 * S;
        let age = 300 * S - at - 30 * MS - 60_000;
        leak.stays.push(Stay { state: State::CloseWait, held: Held::AtLeast(age) });
        let mut leak =
            open(Connection { closer: Closer::Passive, totals: None, ..leak }, State::CloseWait, Held::Exactly(age));
        if second.is_multiple_of(10) {
            leak.identity.owner = None;
            let age = Held::Exactly(age);
            leak.status = Status::Open { state: State::CloseWait, age, accepted: Some(false) };
        }
        out.push(leak);
    }
    // Refused, reset and unanswered connections.
    if second.is_multiple_of(5) {
        let stays = [(State::SynSent, 300_000)];
        let refused = life(identity("curl", 5_000 + second as u32, 34_000, [10, 0, 0, 9], 8443), at, &stays);
        out.push(Connection {
            closer: Closer::NeverEstablished,
            status: Status::Ended(End::Refused.into()),
            totals: None,
            ..refused
        });
    }
    if second.is_multiple_of(7) {
        let stays = [(State::SynSent, 100_000), (State::Established, 3 * S)];
        let reset = life(identity("python3", 4242, 35_000, [10, 0, 0, 5], 6379), at, &stays);
        out.push(Connection { closer: Closer::ResetRemote, status: Status::Ended(End::ResetReceived.into()), ..reset });
    }
    if second % 50 == 3 {
        let stays = [(State::Established, 2 * S), (State::FinWait1, 50_000), (State::FinWait2, 40 * S)];
        let gone = life(Identity { owner: None, ..identity("", 0, 36_000, [192, 0, 2, 9], 443) }, at, &stays);
        out.push(Connection { status: Status::Ended(End::FinWait2Timeout.into()), ..gone });
    }
}

/// Why it was written down, with a name that is no name.
pub(crate) fn fired() -> FiredRow {
    let finding = serde_json::json!({ "id": "close-wait-leak", "headline": "java[7] holds 40 \u{1b}[2J" });
    let fired = Fired {
        at: 200 * S,
        when: "close-wait-leak or CLOSE_WAIT > 500".into(),
        rule: Some("close-wait-leak".into()),
        headline: "java[7] holds 40 \u{1b}[2J".into(),
        finding,
        figures: [("CLOSE_WAIT".into(), 512.0)].into(),
    };
    FiredRow { unix_ns: 1_735_787_000_000_000_000, host: "web-1".into(), fired }
}

/// Five minutes of a machine in trouble.
pub(crate) fn incident(options: Options) -> Report {
    const END: u64 = 300 * S;
    let mut connections = Vec::new();
    (0..300).for_each(|second| in_second(second, &mut connections));
    for connection in &mut connections {
        if connection.boot_ns > END {
            cut(connection, END);
        }
    }
    // Open connections come last.
    connections.sort_by_key(|connection| (connection.is_open(), connection.boot_ns));
    let mut origin = origin();
    origin.context.clock.boot_to_unix_ns = 1_735_786_800_000_000_000;
    for (id, path) in [
        (7, "/system.slice/web.service"),
        (8, "/system.slice/nginx.service"),
        (9, "/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"),
    ] {
        origin.context.names.name_group(id, Group::at(path.as_bytes()));
    }
    let mut analysis = Analysis::new(options);
    connections.iter().for_each(|connection| analysis.add(connection, &origin));
    origin.context.names.name_namespace(4_026_532_001, b"web\x1b[2J");
    for (second, netns, counter, increase) in [
        (40, 4_026_532_001, Unseen::SyncookiesSent, 12_345),
        (41, 4_026_532_001, Unseen::SyncookiesSent, 7_637),
        (200, 4_026_532_000, Unseen::ListenOverflows, 15),
        (200, 4_026_532_000, Unseen::ListenDrops, 15),
    ] {
        analysis.add_counter(&Increase { at: second * S, netns, counter, increase, over_ns: Some(S) }, &origin);
    }
    analysis.finish(&Summary {
        hosts: vec!["web-1".into()],
        from_unix_ns: origin.context.clock.unix_ns(0),
        to_unix_ns: origin.context.clock.unix_ns(END),
        events: 123_456,
        transitions: 98_765,
        followed: 0,
        filtered: 0,
        lost: vec![
            Lost { cause: Cause::RingFull, events: 17, at_least: false },
            Lost { cause: Cause::Recursion, events: 0, at_least: false },
        ],
        undecided: crate::model::criteria::Undecided::default(),
        damage: vec!["t.tct: block 7 at byte 40960: checksum does not match".into()],
        cut_off: Vec::new(),
    })
}

/// Cuts a connection that has not ended by this time.
fn cut(connection: &mut Connection, end: u64) {
    let mut at = connection.opened_ns.unwrap_or(0);
    let stays = std::mem::take(&mut connection.stays);
    for stay in stays {
        let ns = stay.held.known_ns().unwrap_or(0);
        if at + ns > end {
            connection.stays.push(Stay { held: Held::AtLeast(end - at), ..stay });
            *connection = open(connection.clone(), stay.state, Held::Exactly(end - at));
            break;
        }
        connection.stays.push(stay);
        at += ns;
    }
    connection.boot_ns = end;
}
