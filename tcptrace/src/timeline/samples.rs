//! Connections that tests draw.

use crate::lifecycle::{Connection, Held, Identity, Owner, Stay, Stuck};
use crate::output::samples::{HOSTILE, connection, identity, task, tuple};
use crate::output::{Clock, Context};
use crate::tcp::{Closer, Comm, End, Side, State, TimeWaitEnd};
use crate::trace::Origin;

pub(super) const MS: u64 = 1_000_000;
pub(super) const S: u64 = 1_000 * MS;

/// 2025-01-02T03:04:05Z at boot.
pub(super) fn origin() -> Origin {
    let context = Context { clock: Clock { boot_to_unix_ns: 1_735_787_045_000_000_000 }, ..Context::default() };
    Origin { context, host: "web1".into(), ..Origin::default() }
}

fn exactly(stays: &[(State, u64)]) -> Vec<Stay> {
    stays.iter().map(|&(state, ns)| Stay { state, held: Held::Exactly(ns) }).collect()
}

/// What was seen from its beginning to its end.
pub(super) fn whole(conn: u64, opened: u64, stays: &[(State, u64)]) -> Connection {
    let mut whole = connection();
    whole.identity.conn = conn;
    whole.opened_ns = Some(opened);
    whole.closed_ns = opened + stays.iter().map(|(_, ns)| ns).sum::<u64>();
    whole.stays = exactly(stays);
    whole.time_wait_end = None;
    whole
}

/// A client on loopback that closes first.
pub(super) fn client() -> Connection {
    let stays = [
        (State::SynSent, MS),
        (State::Established, 2 * S),
        (State::FinWait1, MS),
        (State::FinWait2, 8 * S),
        (State::TimeWait, 10 * S),
    ];
    let mut client = whole(0xc, S, &stays);
    client.identity.tuple = tuple("127.0.0.1:43892", "127.0.0.1:7000");
    client.time_wait_end = Some(TimeWaitEnd::Reused);
    client
}

/// Its server, which takes its time.
pub(super) fn server() -> Connection {
    let stays =
        [(State::SynRecv, MS), (State::Established, 2 * S), (State::CloseWait, 8 * S), (State::LastAck, 20 * MS)];
    let mut server = whole(0x5, S, &stays);
    server.identity.tuple = client().identity.tuple.reversed();
    server.identity.side = Side::Server;
    server.identity.owner = server.identity.owner.map(|owner| Owner { task: task(80, Comm::from("nginx")), ..owner });
    server.closer = Closer::Passive;
    server
}

/// In CLOSE_WAIT when the recording began, and still when it ended.
pub(super) fn stuck() -> Connection {
    let held = Held::AtLeast(30 * S);
    Connection {
        identity: Identity { conn: 0xbad, side: Side::Unknown, ..identity() },
        opened_ns: None,
        closed_ns: 30 * S,
        closer: Closer::Passive,
        end: End::Unknown,
        stays: vec![Stay { state: State::CloseWait, held }],
        complete: false,
        time_wait_end: None,
        stuck: Some(Box::new(Stuck {
            state: State::CloseWait,
            age: held,
            holder: None,
            holders: None,
            accepted: None,
            listener: None,
            released: false,
            merely_open: false,
            stalled: None,
            multipath: None,
        })),
        ..connection()
    }
}

/// Of a process whose name is meant to do harm.
pub(super) fn hostile() -> Connection {
    let mut connection = connection();
    connection.identity.owner = connection.identity.owner.map(|owner| Owner { task: task(13, HOSTILE), ..owner });
    connection
}
