//! Sample connections to draw in tests.

use crate::model::row::{Connection, Held, Identity, Owner, Status, Stay};
use crate::model::stream::{Clock, Context, Origin};
use crate::model::tcp::{Closer, Comm, End, Side, State, TimeWaitEnd};
use crate::output::samples::{HOSTILE, connection, ended, identity, task, tuple};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;

/// A host that booted at 2025-01-02T03:04:05Z.
pub(crate) fn origin() -> Origin {
    let context = Context { clock: Clock { boot_to_unix_ns: 1_735_787_045_000_000_000 }, ..Context::default() };
    Origin { context, host: "web1".into(), ..Origin::default() }
}

fn exactly(stays: &[(State, u64)]) -> Vec<Stay> {
    stays.iter().map(|&(state, ns)| Stay { state, held: Held::Exactly(ns) }).collect()
}

/// Observed from the beginning to the end.
pub(crate) fn whole(conn: u64, opened: u64, stays: &[(State, u64)]) -> Connection {
    let mut whole = connection();
    whole.identity.conn = conn;
    whole.opened_ns = Some(opened);
    whole.boot_ns = opened + stays.iter().map(|(_, ns)| ns).sum::<u64>();
    whole.stays = exactly(stays);
    whole.status = ended(End::Fin, None);
    whole
}

/// A client on loopback that closes first.
pub(crate) fn client() -> Connection {
    let stays = [
        (State::SynSent, MS),
        (State::Established, 2 * S),
        (State::FinWait1, MS),
        (State::FinWait2, 8 * S),
        (State::TimeWait, 10 * S),
    ];
    let mut client = whole(0xc, S, &stays);
    client.identity.tuple = tuple("127.0.0.1:43892", "127.0.0.1:7000");
    client.status = ended(End::Fin, Some(TimeWaitEnd::Reused));
    client
}

/// The server of that connection, which closes late.
pub(crate) fn server() -> Connection {
    let stays =
        [(State::SynRecv, MS), (State::Established, 2 * S), (State::CloseWait, 8 * S), (State::LastAck, 20 * MS)];
    let mut server = whole(0x5, S, &stays);
    server.identity.tuple = client().identity.tuple.reversed();
    server.identity.side = Side::Server;
    server.identity.owner = server.identity.owner.map(|owner| Owner { task: task(80, Comm::from("nginx")), ..owner });
    server.closer = Closer::Passive;
    server
}

/// In CLOSE_WAIT from before the recording until its end.
pub(crate) fn stuck() -> Connection {
    let held = Held::AtLeast(30 * S);
    Connection {
        identity: Identity { conn: 0xbad, side: Side::Unknown, ..identity() },
        opened_ns: None,
        boot_ns: 30 * S,
        status: Status::Open { state: State::CloseWait, age: held, accepted: None },
        closer: Closer::Passive,
        stays: vec![Stay { state: State::CloseWait, held }],
        complete: false,
        ..connection()
    }
}

/// A connection of a process with a malicious name.
pub(crate) fn hostile() -> Connection {
    let mut connection = connection();
    connection.identity.owner = connection.identity.owner.map(|owner| Owner { task: task(13, HOSTILE), ..owner });
    connection
}
