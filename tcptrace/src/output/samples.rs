//! Rows that tests render.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::LazyLock;

use crate::model::counters::{Increase, Unseen};
use crate::model::criteria::Undecided;
use crate::model::event::{Cause, Idle, Kept, Multipath, Totals};
use crate::model::finding::{Compared, Counter, Finding, Verdict};
use crate::model::labels::Labels;
use crate::model::names::{Group, Names};
use crate::model::row::{
    Connection, Ending, Entry, Held, Identity, Loss, Owner, Reason, Report, Stalled, Status, Stay, Stuck, Transition,
};
use crate::model::socket::{Holding, Timer};
use crate::model::stream::{Clock, Closing, Lost, Summary};
use crate::model::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, TimeWaitEnd, Tuple};
use crate::study::ports::{Budget, Forecast, Key, Owners, Ranked, Rest, Reuse};
use crate::study::snapshot::{By, Count, Shares};

use super::Context;

/// 2025-01-02T03:04:05Z at boot; with a name for curl's network namespace and control group.
pub(crate) static CONTEXT: LazyLock<Context> = LazyLock::new(|| {
    let mut names = Names::default();
    names.name_namespace(4_026_532_000, b"blue\x1b[2J");
    names.name_interface(Some(4_026_532_000), 2, b"eth0");
    let group = Group {
        path: (*b"/system.slice/docker-0123abcd.scope").into(),
        container: Some("0123abcd".into()),
        unit: Some((*b"docker-0123abcd.scope").into()),
        labels: Labels {
            pod: Some("web-5d9".into()),
            pod_namespace: Some("shop\u{1b}[2J".into()),
            container_name: Some("nginx".into()),
        },
    };
    names.name_group(77, group);
    Context { clock: Clock { boot_to_unix_ns: 1_735_787_045_000_000_000 }, names }
});

pub(crate) const LONG_LOCAL: &str = "[2001:db8:1234:5678:9abc:def0:1234:5678]:45678";
pub(crate) const HOSTILE: Comm = Comm(*b"=\x1b[2J\n\"\\,\xff\xe2\x80\xae;x\0");

pub(crate) fn tuple(local: &str, remote: &str) -> Tuple {
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

pub(crate) fn task(pid: u32, comm: Comm) -> Task {
    Task { pid, tid: pid + 1, comm }
}

/// curl, from 10.0.0.1:45678 to 10.0.0.2:443.
pub(crate) fn identity() -> Identity {
    Identity {
        conn: 0xa1b2,
        tuple: tuple("10.0.0.1:45678", "10.0.0.2:443"),
        netns: Some(4_026_532_000),
        uid: Some(1000),
        cgroup: Some(77),
        interface: 0,
        side: Side::Client,
        owner: Some(Owner { task: task(4242, Comm::from("curl")), source: OwnerSource::Connect }),
    }
}

/// A server's socket with an unknown owner, between long IPv6 addresses.
pub(crate) fn strange_identity() -> Identity {
    Identity {
        conn: 7,
        tuple: tuple(LONG_LOCAL, "[::1]:80"),
        netns: None,
        uid: None,
        cgroup: None,
        interface: 0,
        side: Side::Unknown,
        owner: None,
    }
}

/// At 1.234567890 s: curl's ESTABLISHED → FIN_WAIT1 after 12.3 ms.
pub(crate) fn transition() -> Transition {
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
pub(crate) fn transitions() -> Vec<Transition> {
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
            closed_by: Some(task(99, Comm::from("worker"))),
            ..closed
        },
        Transition { stuck: Some(Stuck::Waiting(held_open())), ..waiting(State::CloseWait) },
        Transition {
            stuck: Some(Stuck::Waiting(Report { holders: Some(3), ..held_open() })),
            ..waiting(State::CloseWait)
        },
        Transition { stuck: Some(Stuck::Waiting(never_accepted())), ..waiting(State::CloseWait) },
        Transition {
            stuck: Some(Stuck::Waiting(Report { multipath: Some(multipath()), ..held_open() })),
            ..waiting(State::CloseWait)
        },
        Transition {
            stuck: Some(Stuck::Waiting(lingering())),
            reason: Some(Reason::End(End::ResetReceived)),
            ..waiting(State::Closed)
        },
        Transition {
            stuck: Some(Stuck::Released { accepted: Some(true) }),
            reason: Some(Reason::End(End::ResetReceived)),
            ..waiting(State::Closed)
        },
        Transition { identity: link_local(2), ..base },
    ]
}

/// How long sockets have been stuck.
const AGE: Held = Held::Exactly(31_200_000_000);

fn waiting(state: State) -> Transition {
    Transition { old: state, new: state, held: AGE, closer: Some(Closer::Passive), ..transition() }
}

/// In CLOSE_WAIT, because nginx does not close it.
pub(crate) fn held_open() -> Report {
    Report {
        holder: Some((task(80, Comm::from("nginx")), 12)),
        holders: Some(1),
        accepted: Some(true),
        listener: None,
        stalled: Some(Stalled { unacked: 4_321, bytes_since: 0 }),
        multipath: None,
    }
}

/// The connection that `ss -M` shows as token:1a0e7afa.
fn multipath() -> Multipath {
    Multipath { token: NonZeroU32::new(0x1a0e_7afa), state: Some(State::CloseWait) }
}

/// In CLOSE_WAIT, because nginx does not accept it.
pub(crate) fn never_accepted() -> Report {
    let listener = Some(task(80, Comm::from("nginx")));
    Report { holder: None, holders: Some(0), accepted: Some(false), listener, ..held_open() }
}

/// Ended, but nginx has not closed its descriptor.
pub(crate) fn lingering() -> Report {
    Report { stalled: None, ..held_open() }
}

/// A whole connection of curl, closed by curl, whose TIME_WAIT expired.
pub(crate) fn connection() -> Connection {
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
        boot_ns: 65_500_500_000,
        status: ended(End::Fin, Some(TimeWaitEnd::Expired)),
        closer: Closer::Active,
        closed_by: Some(task(4242, Comm::from("curl"))),
        stays: stays.map(|(state, ns)| Stay { state, held: Held::Exactly(ns) }).into(),
        totals: Some(Totals {
            bytes_sent: 1_234,
            bytes_received: 3_600_000,
            bytes_unread: 17,
            retransmits: 3,
            srtt_us: Some(250),
            in_flight: false,
            retransmits_unanswered: 0,
            reset_received: Some(false),
        }),
        idle: Some(Idle { acked_ms: Some(80), received_ms: Some(1_004), sent_ms: Some(1_084) }),
        complete: true,
    }
}

pub(crate) fn ended(end: End, time_wait: Option<TimeWaitEnd>) -> Status {
    Status::Ended(Ending { end, time_wait })
}

/// The name of interface 2 is known.
fn link_local(interface: u32) -> Identity {
    Identity { tuple: tuple("[fe80::1]:45678", "[fe80::2]:443"), interface, ..identity() }
}

/// One row of everything that is shown in its own way.
pub(crate) fn connections() -> Vec<Connection> {
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
            status: ended(End::Fin, None),
            totals: None,
            idle: None,
            complete: false,
            ..base.clone()
        },
        Connection {
            stays: stays(&[(State::TimeWait, Held::Exactly(1_200_000_000))]),
            status: ended(End::Fin, Some(TimeWaitEnd::Reused)),
            ..base.clone()
        },
        Connection { status: ended(End::Fin, Some(TimeWaitEnd::Refused)), ..base.clone() },
        Connection {
            identity: Identity { owner: Some(hostile), ..identity() },
            closer: Closer::ResetLocal,
            status: ended(End::ResetUnreadData, None),
            closed_by: Some(task(13, HOSTILE)),
            ..base.clone()
        },
        Connection {
            identity: Identity { tuple: tuple("127.0.0.1:0", "127.0.0.1:80"), ..identity() },
            closer: Closer::NeverEstablished,
            status: ended(End::NoLocalPort, None),
            stays: Vec::new(),
            totals: Some(Totals::default()),
            idle: None,
            ..base.clone()
        },
        Connection {
            status: Status::Waiting { state: State::CloseWait, age: AGE, report: Box::new(held_open()) },
            closer: Closer::Passive,
            stays: stays(&[(State::CloseWait, Held::AtLeast(31_200_000_000))]),
            closed_by: None,
            totals: None,
            ..base.clone()
        },
        Connection {
            status: Status::Unreleased { ending: End::ResetReceived.into(), age: AGE, report: Box::new(lingering()) },
            closer: Closer::ResetRemote,
            closed_by: None,
            ..base.clone()
        },
        Connection { identity: link_local(2), ..base.clone() },
        Connection { identity: link_local(3), ..base },
    ]
}

/// curl's connection, established.
fn socket() -> Entry {
    Entry {
        boot_ns: 1_234_567_890,
        identity: identity(),
        state: State::Established,
        kept: Kept::Held,
        closer: None,
        age: Held::Unknown,
        holding: Some(Holding { task: task(80, Comm::from("nginx")), fd: 12, count: 1 }),
        listener: None,
        time_wait_left_ns: None,
        recv_queue: 17,
        send_queue: 1_048_576,
        timer: Timer::None,
        timer_left_ns: 0,
        retransmits: 0,
        inode: 4711,
        multipath: None,
        idle_ns: None,
        timestamps: None,
    }
}

/// One row of everything that is shown in its own way.
pub(crate) fn sockets() -> Vec<Entry> {
    let nobody = Identity { owner: None, ..identity() };
    let base = Entry { identity: nobody, holding: None, inode: 0, ..socket() };
    let hostile = Owner { task: task(13, HOSTILE), source: OwnerSource::Scan };
    vec![
        socket(),
        Entry {
            identity: Identity { tuple: tuple("[::]:22", "[::]:0"), owner: Some(hostile), ..identity() },
            state: State::Listen,
            holding: socket().holding.map(|holding| Holding { count: 4, ..holding }),
            ..socket()
        },
        Entry {
            state: State::SynSent,
            timer: Timer::Retransmit,
            timer_left_ns: 3_210_000_000,
            retransmits: 2,
            ..socket()
        },
        Entry { identity: strange_identity(), kept: Kept::Orphan, state: State::FinWait1, ..base },
        Entry {
            kept: Kept::Mini { due_ns: 1 },
            state: State::FinWait2,
            timer: Timer::TimeWait,
            timer_left_ns: 1_000_000,
            ..base
        },
        Entry {
            kept: Kept::Mini { due_ns: 1 },
            state: State::TimeWait,
            timer: Timer::TimeWait,
            timer_left_ns: 45_678_000_000,
            time_wait_left_ns: Some(45_678_000_000),
            age: Held::AtLeast(14_322_000_000),
            ..base
        },
        Entry { kept: Kept::Queued, state: State::CloseWait, age: AGE, listener: never_accepted().listener, ..base },
        Entry { kept: Kept::Queued, state: State::SynRecv, ..base },
        Entry { multipath: Some(multipath()), ..socket() },
        Entry { identity: link_local(2), ..socket() },
        Entry { state: State::Listen, recv_queue: 5, send_queue: 4, ..socket() },
        Entry { idle_ns: Some(3_723_004_000_000), ..socket() },
    ]
}

/// The ports of a destination of which nobody has counted connections, of others at a rate, and of the others.
pub(crate) fn ports() -> Vec<Ranked> {
    let key = |source: &str, destination: &str| {
        let Tuple { local_ip, remote_ip, remote_port, .. } = tuple(source, destination);
        let (netns, interface) = (Some(4_026_532_000), 0);
        Key { netns, interface, source: local_ip, destination: remote_ip, port: remote_port }
    };
    let base = Budget {
        key: key("10.0.0.1:0", "10.0.0.9:6379"),
        range: 28_232,
        reserved: 1,
        blocked: 2,
        usable: 28_229,
        usable_at_most: true,
        taken: 16_903,
        open: 3,
        fin_wait2: 1,
        time_wait: 16_899,
        reusable: 0,
        reuse: Reuse::LoopbackOnly,
        free: 11_326,
        share: 0.598_781_4,
        half_walked: true,
        holds_ns: 61_000_000_000,
        is_measured: false,
        sustainable: 462.721_311_5,
        forecast: None,
        samples: 0,
        owners: Owners { known: vec![(task(4242, Comm::from("api")), 3)], unknown: 16_900 },
    };
    let at = |rate, demand, levels_off_at, seconds_left| Some(Forecast { rate, demand, levels_off_at, seconds_left });
    let several = Owners { known: vec![(task(13, HOSTILE), 2), (task(80, Comm::from("nginx")), 1)], unknown: 0 };
    let rest = Rest { groups: 3, taken: 7, open: 4, fin_wait2: 1, time_wait: 2 };
    let one = |budget| Ranked::One(Box::new(budget));
    vec![
        one(base.clone()),
        one(Budget { free: 0, share: 1.0, forecast: at(500.0, 30_504.0, None, Some(0.0)), ..base.clone() }),
        one(Budget { forecast: at(521.5, 31_815.5, None, Some(41.04)), is_measured: true, ..base.clone() }),
        one(Budget {
            key: key("[::1]:0", "[::1]:443"),
            usable_at_most: false,
            reusable: 16_800,
            reuse: Reuse::On,
            free: 28_126,
            share: 0.003_648_7,
            half_walked: false,
            holds_ns: 1_000_000_000,
            sustainable: 28_225.0,
            forecast: at(200.0, 204.0, Some(0.007_226_6), None),
            owners: several,
            ..base
        }),
        Ranked::Rest(rest),
        Ranked::Rest(Rest { groups: 1, ..rest }),
    ]
}

/// One row of everything that is shown in its own way.
pub(crate) fn counts() -> Vec<Count> {
    let base = Count {
        by: By::State,
        state: Some(State::CloseWait),
        total: Some(10),
        shares: Some(Shares { held: 1, queued: 2, orphan: 3, mini: 4 }),
        owner: None,
        accepted: None,
        listener: None,
        several_owners: false,
        groups: None,
        ends: None,
        netns: None,
    };
    let owner = Count { by: By::Owner, shares: Some(Shares::default()), ..base };
    let remote = Count { by: By::Remote, netns: Some(4_026_532_000), ..base };
    vec![
        base,
        Count { state: Some(State::Closed), total: None, shares: None, ..base },
        Count { owner: Some(task(13, HOSTILE)), ..owner },
        Count { listener: Some(task(80, Comm::from("nginx"))), accepted: Some(false), ..owner },
        Count { shares: Some(Shares { held: 1, orphan: 2, ..Shares::default() }), ..owner },
        Count { state: None, total: Some(7), groups: Some(3), ..owner },
        Count { ends: Some(tuple("10.0.0.1:80", "10.0.0.2:0")), several_owners: true, ..remote },
        Count { ends: Some(tuple("[::1]:0", "[::1]:443")), owner: Some(task(4242, Comm::from("curl"))), ..remote },
        Count { groups: Some(1), netns: None, ..remote },
    ]
}

/// One for each cause, and one with an unknown number.
pub(crate) fn losses() -> Vec<Loss> {
    let loss = |(cause, count)| Loss { boot_ns: 1_234_567_890, cause, count };
    let unknown = std::iter::once((Cause::Damage, None));
    Cause::ALL.into_iter().zip((1..).map(|power| Some(10_u64.pow(power)))).chain(unknown).map(loss).collect()
}

/// A counter that agrees, in a namespace with a name; one that does not, in another; and the verdict.
pub(crate) fn findings() -> Vec<Finding> {
    let one = Compared {
        at: 1_234_567_890,
        netns: 4_026_532_000,
        counter: Counter::ActiveOpens,
        seen: 1_000_000,
        expected: 1_000_000,
        within: 0,
    };
    let other = Compared { netns: 1, counter: Counter::TwOverflow, seen: 7, within: 3, ..one };
    let verdict = Verdict {
        at: one.at,
        namespaces: 2,
        gone: 1,
        unclear: 0,
        transitions: 500,
        lost: 12,
        lost_transitions: 10,
        unexplained: 999_978,
    };
    let unseen = Increase { increase: 19_982, ..increases()[0] };
    vec![Finding::Counter(one), Finding::Counter(other), Finding::Unseen(unseen), Finding::Verdict(verdict)]
}

/// Every counter, in a namespace with a name; and one in a new namespace without a name.
pub(crate) fn increases() -> Vec<Increase> {
    let one = |counter| Increase {
        at: 1_234_567_890,
        netns: 4_026_532_000,
        counter,
        increase: 10_u64.pow(counter as u32 + 1),
        over_ns: Some(1_000_000_000),
    };
    let other = Increase { netns: 1, increase: 1, over_ns: None, ..one(Unseen::ListenOverflows) };
    Unseen::ALL.map(one).into_iter().chain([other]).collect()
}

/// Of a run that lost nothing, and of a trace with damage.
pub(crate) fn closings() -> [Closing; 2] {
    let summary = Summary { events: 12, transitions: 10, followed: 2, filtered: 1, ..Summary::default() };
    let lost = |cause, events, at_least| Lost { cause, events, at_least };
    let damaged = Summary {
        lost: vec![lost(Cause::RingFull, 17, false), lost(Cause::Damage, 0, true)],
        undecided: Undecided { shown: 3, left_out: 4 },
        damage: vec!["t.tct: block 7 at byte 40960: checksum does not match".into()],
        ..summary.clone()
    };
    [Closing { summary, exit: 0 }, Closing { summary: damaged, exit: 3 }]
}
