//! Connections that tests count.

use std::net::Ipv4Addr;

use crate::lifecycle::{Connection, Held, Identity, Owner, Stay, Stuck};
use crate::output::{Clock, Context};
use crate::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, Tuple};
use crate::trace::Origin;

/// curl's, to 10.0.0.2:443, closed by curl in good order.
pub(super) fn connection(stays: &[(State, Held)]) -> Connection {
    let task = Task { pid: 42, tid: 42, comm: Comm::from("curl") };
    Connection {
        identity: Identity {
            conn: 1,
            tuple: Tuple {
                local_ip: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(),
                remote_ip: Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped(),
                local_port: 40_000,
                remote_port: 443,
            },
            netns: Some(4_026_532_000),
            uid: Some(0),
            cgroup: Some(7),
            side: Side::Client,
            owner: Some(Owner { task, source: OwnerSource::Connect }),
        },
        opened_ns: None,
        closed_ns: 1_000,
        closer: Closer::Active,
        end: End::Fin,
        closed_by: None,
        stays: stays.iter().map(|(state, held)| Stay { state: *state, held: *held }).collect(),
        time_wait_end: None,
        totals: None,
        complete: true,
        stuck: None,
    }
}

/// One that is still in a state.
pub(super) fn open(connection: Connection, state: State, age: Held) -> Connection {
    let stuck = Stuck { state, age, holder: None, holders: None, accepted: None, listener: None, released: false };
    Connection { end: End::Unknown, stuck: Some(Box::new(stuck)), ..connection }
}

/// A host whose boot was at the Unix epoch.
pub(super) fn origin() -> Origin {
    Origin {
        number: 0,
        host: "web-1".into(),
        kernel: "6.18.0".into(),
        boot_id: "boot".into(),
        context: Context { clock: Clock { boot_to_unix_ns: 0 }, ..Context::default() },
    }
}
