//! Evidence for the tests of rules.

use std::net::Ipv4Addr;

use crate::model::event::{Call, Id, Idle, Inspected, Timer};
use crate::model::facts::{AcceptQueue, Settings};
use crate::model::row::{Held, Owner};
use crate::model::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, Tuple};
use crate::study::diagnose::evidence::{About, Ended, Evidence, Failed, Listener, Pair, PairKey, Spread, Standing};
use crate::study::diagnose::finding::Finding;
use crate::study::diagnose::rule::{Outcome, Rule};

/// The network namespace of everything here.
pub(in crate::study::diagnose) const NETNS: u32 = 7;
/// A second, in ns.
pub(in crate::study::diagnose) const S: u64 = 1_000_000_000;

/// Ten seconds of tracing, with nothing in them and nothing missing.
pub(in crate::study::diagnose) fn nothing() -> Evidence {
    let about = About { from: 1000 * S, to: 1010 * S, traced_ns: 10 * S, namespaces: vec![NETNS], ..About::default() };
    Evidence { about, ..Evidence::default() }
}

/// The same with settings.
pub(in crate::study::diagnose) fn with_settings(values: &[(&str, &str)]) -> Evidence {
    let values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mut evidence = nothing();
    evidence.settings.insert(Some(NETNS), Settings { at: 1000 * S, netns: Some(NETNS), values });
    evidence
}

/// What a rule finds, by itself.
pub(in crate::study::diagnose) fn fired(rule: &Rule, evidence: &Evidence) -> Vec<Finding> {
    let declared: Vec<_> = rule.figures.iter().map(|figure| figure.name).collect();
    match (rule.check)(evidence) {
        Outcome::Fired(findings) => {
            for finding in &findings {
                assert_eq!(finding.id, rule.id);
                assert!(finding.headline.chars().count() <= 110, "{}", finding.headline);
                let names: Vec<_> = finding.figures.iter().map(|(name, _)| *name).collect();
                assert_eq!(names, declared, "figures are those that the rule declares, in order");
            }
            findings
        }
        Outcome::Silent(figures) => {
            let names: Vec<_> = figures.iter().map(|(name, _)| *name).collect();
            assert!(names.is_empty() || names == declared, "{names:?}");
            Vec::new()
        }
        Outcome::NotChecked(_) => Vec::new(),
    }
}

/// `api[4711]`.
pub(in crate::study::diagnose) fn api() -> Task {
    Task { pid: 4711, tid: 4711, comm: Comm::from("api") }
}

/// A process whose name and number are as long as they can be.
pub(in crate::study::diagnose) fn long_name() -> Task {
    Task { pid: 4_194_304, tid: 4_194_304, comm: Comm::from("fifteen-letters") }
}

/// An address 10.0.0.x and a port of it, for both ends.
pub(in crate::study::diagnose) fn tuple(local: (u8, u16), remote: (u8, u16)) -> Tuple {
    let ip = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped();
    Tuple { local_ip: ip(local.0), remote_ip: ip(remote.0), local_port: local.1, remote_port: remote.1 }
}

/// `api[4711]` listens on 0.0.0.0:80, with so many connections in its accept queue, and room for so many and one more.
pub(in crate::study::diagnose) fn api_listener(queued: u32, limit: u32) -> Listener {
    let ip = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    Listener {
        netns: Some(NETNS),
        queue: AcceptQueue { conn: 80, ip, port: 80, queued, limit, requests: None, autobound: None },
        task: Some(api()),
        most_queued: queued,
        waiting_since: None,
        accepted: 0,
        accepted_at: None,
        is_old: true,
        most_requests: 0,
    }
}

/// A call of `api[4711]` that has failed so often.
pub(in crate::study::diagnose) fn failed_call(call: Call, errno: u16, count: u64) -> Failed {
    let (first, last) = (1001 * S, 1009 * S);
    Failed { call, errno, task: api(), netns: Some(NETNS), address: None, count, first, last }
}

/// A connection that came in at port 80 so many seconds ago at least, and that nobody has accepted.
pub(in crate::study::diagnose) fn queued(conn: u64, state: State, seconds: u64) -> Standing {
    let remote = 50_000 + u16::try_from(conn).unwrap_or(0);
    Standing {
        pair: server_key(),
        tuple: tuple((1, 80), (2, remote)),
        side: Side::Server,
        owner: None,
        fd: None,
        accepted: Some(false),
        ..standing(conn, state, seconds)
    }
}

/// What connections of `api[4711]` to 10.0.0.9:6379 are counted under.
pub(in crate::study::diagnose) fn client_key() -> PairKey {
    let tuple = tuple((1, 0), (9, 6379));
    let comm = Some(api().comm);
    PairKey { netns: Some(NETNS), side: Side::Client, cgroup: None, comm, ip: tuple.remote_ip, port: tuple.remote_port }
}

/// What connections that came in at port 80 are counted under.
pub(in crate::study::diagnose) fn server_key() -> PairKey {
    let ip = std::net::Ipv6Addr::UNSPECIFIED;
    PairKey { netns: Some(NETNS), side: Side::Server, cgroup: None, comm: None, ip, port: 80 }
}

/// A pair of `api[4711]` with nothing counted.
pub(in crate::study::diagnose) fn pair(key: PairKey) -> Pair {
    Pair { tasks: vec![(api(), 1)], processes: 1, ..Pair::new(key) }
}

/// A client's pair of which so many have ended so, this side having closed first.
pub(in crate::study::diagnose) fn pair_ended(end: End, count: u64) -> Pair {
    let ended = Ended { count, first: 1001 * S, last: 1009 * S, ..Ended::default() };
    Pair { opened: count, ends: vec![(end, Closer::Active, ended)], ..pair(client_key()) }
}

/// A socket of `api[4711]`, a client's, in a state since so many seconds at least.
pub(in crate::study::diagnose) fn standing(conn: u64, state: State, seconds: u64) -> Standing {
    Standing {
        conn,
        pair: client_key(),
        netns: Some(NETNS),
        tuple: tuple((1, 40_000 + u16::try_from(conn).unwrap_or(0)), (9, 6379)),
        side: Side::Client,
        state,
        owner: Some(Owner { task: api(), source: OwnerSource::Scan }),
        fd: Some(u32::try_from(conn).unwrap_or(0)),
        cgroup: None,
        accepted: None,
        closer: Closer::Passive,
        age: Held::AtLeast(seconds * S),
        kept: None,
        left_ns: None,
        seen: None,
    }
}

/// What a look showed of it.
pub(in crate::study::diagnose) fn seen(conn: u64, recv_queue: u32, acked_ms: u32) -> Inspected {
    Inspected {
        at: 1009 * S,
        id: Id::Cookie(conn),
        recv_queue,
        send_queue: 0,
        timer: Timer::None,
        timer_left_ns: 0,
        retransmits: 0,
        idle: Some(Idle { acked_ms: Some(acked_ms), received_ms: None, sent_ms: None }),
        timestamps: Some(true),
        bind_no_port: None,
        bound: None,
    }
}

/// A listener of `redis[12]` with nobody in its queue.
pub(in crate::study::diagnose) fn listener(netns: u32, ip: Ipv4Addr, port: u16) -> Listener {
    let queue = AcceptQueue {
        conn: 99,
        ip: ip.to_ipv6_mapped(),
        port,
        queued: 0,
        limit: 511,
        requests: Some(0),
        autobound: None,
    };
    Listener {
        netns: Some(netns),
        queue,
        task: Some(Task { pid: 12, tid: 12, comm: Comm::from("redis") }),
        most_queued: 0,
        waiting_since: None,
        accepted: 0,
        accepted_at: None,
        is_old: true,
        most_requests: 0,
    }
}

/// Durations or sizes, one of each.
pub(in crate::study::diagnose) fn spread(values: impl IntoIterator<Item = u64>) -> Spread {
    let mut spread = Spread::default();
    values.into_iter().for_each(|value| spread.add(value));
    spread
}

/// A third of all is near each value, and so on for as many as there are.
pub(in crate::study::diagnose) fn pooled<const N: usize>(values: [u64; N]) -> Spread {
    spread(values.into_iter().flat_map(|value| std::iter::repeat_n(value, 30)))
}
