//! Rows that tests render.

use std::net::{IpAddr, SocketAddr};

use crate::lifecycle::{Connection, Held, Identity, Owner, Reason, Stay, Totals, Transition};
use crate::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple};

use super::Clock;

/// 2025-01-02T03:04:05Z at boot.
pub(super) const CLOCK: Clock = Clock { boot_to_unix_ns: 1_735_787_045_000_000_000 };

pub(super) const LONG_LOCAL: &str = "[2001:db8:1234:5678:9abc:def0:1234:5678]:45678";
pub(super) const HOSTILE: Comm = Comm(*b"=\x1b[2J\n\"\\,\xff\xe2\x80\xae;x\0");

pub(super) fn tuple(local: &str, remote: &str) -> Tuple {
    let end = |text: &str| {
        let address: SocketAddr = text.parse().expect("an address and a port");
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        (ip, address.port())
    };
    let ((local_ip, local_port), (remote_ip, remote_port)) = (end(local), end(remote));
    Tuple { local_ip, remote_ip, local_port, remote_port }
}

pub(super) fn task(pid: u32, comm: Comm) -> Task {
    Task { pid, tid: pid + 1, comm }
}

/// curl, from 10.0.0.1:45678 to 10.0.0.2:443.
pub(super) fn identity() -> Identity {
    Identity {
        conn: 0xa1b2,
        tuple: tuple("10.0.0.1:45678", "10.0.0.2:443"),
        netns: Some(4_026_531_840),
        uid: Some(1000),
        cgroup: None,
        side: Side::Client,
        owner: Some(Owner { task: task(4242, Comm::from("curl")), source: OwnerSource::Connect }),
    }
}

/// A server's socket whose owner nobody saw, between long IPv6 addresses.
pub(super) fn strange_identity() -> Identity {
    Identity { conn: 7, tuple: tuple(LONG_LOCAL, "[::1]:80"), netns: None, uid: None, cgroup: None, side: Side::Unknown, owner: None }
}

/// At 1.234567890 s: curl's ESTABLISHED → FIN_WAIT1 after 12.3 ms.
pub(super) fn transition() -> Transition {
    Transition {
        boot_ns: 1_234_567_890,
        identity: identity(),
        old: State::Established,
        new: State::FinWait1,
        held: Held::Exactly(12_345_678),
        closer: Some(Closer::Active),
        reason: None,
        orphan: false,
        closed_by: None,
        stuck: None,
    }
}

/// One row of everything that is shown in its own way.
pub(super) fn transitions() -> Vec<Transition> {
    let base = transition();
    let closed = Transition { new: State::Closed, ..base };
    let connecting = Identity { tuple: tuple("127.0.0.1:0", "127.0.0.1:80"), ..identity() };
    let sshd = Owner { task: task(700, Comm::from("sshd")), source: OwnerSource::Listen };
    let listener =
        Identity { tuple: tuple("0.0.0.0:22", "0.0.0.0:0"), side: Side::Server, owner: Some(sshd), ..identity() };
    let hostile = Owner { task: task(13, HOSTILE), source: OwnerSource::Scan };
    vec![
        Transition {
            identity: connecting,
            old: State::Closed,
            new: State::SynSent,
            held: Held::Unknown,
            closer: None,
            ..base
        },
        Transition { identity: listener, old: State::Closed, new: State::Listen, closer: None, ..base },
        base,
        Transition { old: State::FinWait1, new: State::FinWait2, held: Held::Exactly(420_000), orphan: true, ..base },
        Transition {
            identity: strange_identity(),
            new: State::CloseWait,
            held: Held::AtLeast(61_850_000_000),
            closer: Some(Closer::Passive),
            ..base
        },
        Transition {
            old: State::TimeWait,
            held: Held::Exactly(60_012_000_000),
            reason: Some(Reason::TimeWait(TimeWaitEnd::Expired)),
            ..closed
        },
        Transition { old: State::FinWait2, reason: Some(Reason::TimeWait(TimeWaitEnd::Refused)), ..closed },
        Transition {
            held: Held::Exactly(123_000_000_000),
            closer: Some(Closer::ResetLocal),
            reason: Some(Reason::End(End::ResetUnreadData)),
            ..closed
        },
        Transition {
            identity: Identity { owner: Some(hostile), ..identity() },
            old: State::SynSent,
            closer: Some(Closer::NeverEstablished),
            reason: Some(Reason::End(End::Refused)),
            ..closed
        },
        Transition {
            old: State::LastAck,
            closer: Some(Closer::Passive),
            reason: Some(Reason::End(End::Fin)),
            ..closed
        },
    ]
}

/// curl's whole life, closed by curl, with a TIME_WAIT that ran out.
pub(super) fn connection() -> Connection {
    let stays = [
        (State::SynSent, 400_000),
        (State::Established, 1_200_000_000),
        (State::FinWait1, 100_000),
        (State::FinWait2, 2_000_000_000),
        (State::TimeWait, 61_300_000_000),
    ];
    Connection {
        identity: identity(),
        opened_ns: Some(1_000_000_000),
        closed_ns: 65_500_500_000,
        closer: Closer::Active,
        end: End::Fin,
        closed_by: Some(task(4242, Comm::from("curl"))),
        stays: stays.map(|(state, ns)| Stay { state, held: Held::Exactly(ns) }).into(),
        time_wait_end: Some(TimeWaitEnd::Expired),
        totals: Some(Totals {
            bytes_sent: 1_234,
            bytes_received: 3_600_000,
            bytes_unread: 17,
            retransmits: 3,
            srtt_us: Some(250),
        }),
        complete: true,
        stuck: None,
    }
}

/// One row of everything that is shown in its own way.
pub(super) fn connections() -> Vec<Connection> {
    let stays = |stays: &[(State, Held)]| stays.iter().map(|&(state, held)| Stay { state, held }).collect();
    let base = Connection { stays: stays(&[(State::Established, Held::Exactly(5_000_000))]), ..connection() };
    let hostile = Owner { task: task(13, HOSTILE), source: OwnerSource::Scan };
    vec![
        connection(),
        Connection {
            identity: strange_identity(),
            opened_ns: None,
            closer: Closer::Passive,
            closed_by: None,
            stays: stays(&[
                (State::Established, Held::AtLeast(12_000_000)),
                (State::CloseWait, Held::Exactly(3_600_000_000_000)),
                (State::LastAck, Held::Exactly(50_000)),
            ]),
            time_wait_end: None,
            totals: None,
            complete: false,
            ..base.clone()
        },
        Connection {
            stays: stays(&[(State::TimeWait, Held::Exactly(1_200_000_000))]),
            time_wait_end: Some(TimeWaitEnd::Reused),
            ..base.clone()
        },
        Connection { time_wait_end: Some(TimeWaitEnd::Refused), ..base.clone() },
        Connection {
            identity: Identity { owner: Some(hostile), ..identity() },
            closer: Closer::ResetLocal,
            end: End::ResetUnreadData,
            closed_by: Some(task(13, HOSTILE)),
            time_wait_end: None,
            ..base.clone()
        },
        Connection {
            identity: Identity { tuple: tuple("127.0.0.1:0", "127.0.0.1:80"), ..identity() },
            closer: Closer::NeverEstablished,
            end: End::NoLocalPort,
            stays: Vec::new(),
            time_wait_end: None,
            totals: Some(Totals::default()),
            ..base
        },
    ]
}
