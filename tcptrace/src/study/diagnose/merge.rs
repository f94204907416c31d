//! One root cause, not ten findings: what a finding explains is put under it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::SocketAddr;

use super::evidence::{Evidence, Pair, Standing};
use super::finding::{Finding, Id, Value};
use super::rules::{RULES, risky_setting};
use crate::model::tcp::{Side, State, TimeWaitEnd, Tuple, unmapped};

/// A finding of this rule can explain those of others.
struct Explains {
    cause: Id,
    /// The rules, and whether these two findings are about the same.
    effects: &'static [Id],
    when: fn(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool,
}

/// Causes first: none explains what stands above it, so that there is no circle.
const TABLE: &[Explains] = &[
    Explains {
        cause: "no-connection-pool",
        effects: &["ports-exhausted", "ports-running-out", "time-wait-refused", "conntrack-full"],
        when: takes_most,
    },
    Explains {
        cause: "pool-too-small",
        effects: &["ports-exhausted", "ports-running-out", "time-wait-refused", "conntrack-full"],
        when: takes_most,
    },
    Explains {
        cause: "bind-before-connect",
        effects: &["ports-exhausted", "ports-running-out", "bind-refused"],
        when: same_source,
    },
    Explains { cause: "ports-exhausted", effects: &["ports-running-out"], when: same_destination },
    Explains { cause: "close-wait-leak", effects: &["fd-limit", "closed-not-released"], when: fills_descriptors },
    Explains { cause: "fd-limit", effects: &["never-accepted", "accept-queue-full"], when: lacks_descriptors },
    Explains { cause: "never-accepted", effects: &["accept-queue-full", "connect-timeout"], when: same_listener },
    Explains { cause: "accept-queue-full", effects: &["connect-timeout", "dead-peer"], when: same_listener },
    Explains { cause: "conntrack-full", effects: &["connect-timeout", "fin-unanswered"], when: drops_packets },
    Explains { cause: "fin-timeout-trap", effects: &["peer-does-not-close"], when: same_netns },
    Explains { cause: "close-wait-leak", effects: &["peer-does-not-close"], when: other_end },
    Explains { cause: "close-wait-unread", effects: &["peer-does-not-close"], when: other_end },
    Explains { cause: "never-accepted", effects: &["peer-does-not-close"], when: other_end },
    Explains { cause: "idle-close-race", effects: &["reset-by-peer"], when: same_reset },
    Explains { cause: "stale-pool", effects: &["reset-by-peer"], when: same_reset },
    Explains { cause: "fixed-port-in-range", effects: &["bind-refused"], when: same_port },
    Explains { cause: "silent-peer", effects: &["dead-peer"], when: same_silence },
];

/// The rules whose findings may explain one of this rule.
pub fn may_explain(effect: Id) -> impl Iterator<Item = Id> {
    TABLE.iter().filter(move |rule| rule.effects.contains(&effect)).map(|rule| rule.cause)
}

/// Puts findings under what explains them, and in order: causes before what they explain, the most severe first.
pub(super) fn merge(findings: &mut [Finding], evidence: &Evidence) {
    let mut explained: Vec<(usize, usize)> = Vec::new();
    let mut is_explained = HashSet::new();
    for rule in TABLE {
        for (effect, found) in findings.iter().enumerate() {
            if !rule.effects.contains(&found.id) || is_explained.contains(&effect) {
                continue;
            }
            let causes = findings.iter().enumerate();
            let cause = causes.filter(|(_, it)| it.id == rule.cause).find(|(_, it)| (rule.when)(it, found, evidence));
            if let Some((cause, _)) = cause {
                is_explained.insert(effect);
                explained.push((cause, effect));
            }
        }
    }
    // Effects first, so that severity goes all the way up.
    for (cause, effect) in explained.iter().rev().copied() {
        let (id, headline) = (findings[effect].id, findings[effect].headline.clone());
        let (severity, seconds) = (findings[effect].severity, findings[effect].seconds_left);
        findings[effect].because_of = Some(findings[cause].id);
        let cause = &mut findings[cause];
        cause.severity = cause.severity.max(severity);
        cause.seconds_left = cause.seconds_left.into_iter().chain(seconds).reduce(f64::min);
        cause.explains.push((id, headline));
    }
    risky_setting::name_in(findings);
    findings.sort_by(|one, other| order(one).cmp(&order(other)).then(urgency(one).total_cmp(&urgency(other))));
}

/// Causes before effects; severity; then the urgency decides, and at last the order of rules.
fn order(finding: &Finding) -> (bool, Reverse<super::Severity>) {
    (finding.because_of.is_some(), Reverse(finding.severity))
}

/// Seconds to failure; then the share of all connections, then the order of the rules.
fn urgency(finding: &Finding) -> f64 {
    let place = RULES.iter().position(|rule| rule.id == finding.id).unwrap_or(RULES.len());
    match finding.seconds_left {
        Some(seconds) => seconds.min(1e9),
        None => 1e12 + place as f64,
    }
}

/// The connections that the cause is about are most of those that the effect is about: of one destination, of the
/// TIME_WAITs of a network namespace, or of all that were opened.
fn takes_most(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    /// From here on they are what makes it.
    const SHARE: f64 = 0.5;
    let (one, other) = (&cause.subject, &effect.subject);
    let is_everywhere = effect.id == "conntrack-full";
    if !is_everywhere && one.netns != other.netns || other.remote.is_some_and(|remote| one.remote != Some(remote)) {
        return false;
    }
    let is_about = |pair: &Pair| {
        let is_client_of = |remote| pair.key.side == Side::Client && pair.end() == remote;
        (is_everywhere || pair.key.netns == other.netns) && other.remote.is_none_or(is_client_of)
    };
    let is_cause = |pair: &Pair| {
        pair.key.side == Side::Client
            && (pair.key.netns, pair.key.cgroup) == (one.netns, one.cgroup)
            && one.remote == Some(pair.end())
            && one.task.is_none_or(|task| pair.key.comm == Some(task.comm))
    };
    let weight = |pair: &Pair| match effect.id {
        "time-wait-refused" => {
            pair.stay(State::TimeWait).map_or(0, |it| it.entered) + pair.time_waits_by(TimeWaitEnd::Refused)
        }
        _ => pair.opened,
    };
    let all: u64 = evidence.pairs.iter().filter(|pair| is_about(pair)).map(weight).sum();
    let own: u64 = evidence.pairs.iter().filter(|pair| is_about(pair) && is_cause(pair)).map(weight).sum();
    own > 0 && own as f64 >= SHARE * all as f64
}

/// The same source address and destination: the ports that are all taken are those that run out.
fn same_destination(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    same_source(cause, effect, evidence) && cause.subject.remote == effect.subject.remote
}

/// The same source address of a network namespace.
fn same_source(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let (one, other) = (&cause.subject, &effect.subject);
    let same_address = match (one.local, other.local) {
        (Some(one), Some(other)) => one.ip() == other.ip() || other.ip().is_unspecified(),
        _ => true,
    };
    one.netns == other.netns && same_address
}

fn same_process(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let pid = |finding: &Finding| finding.subject.task.map(|task| task.pid);
    pid(cause).is_some() && pid(cause) == pid(effect)
}

/// The process is the same, and its CLOSE_WAITs are a good part of its descriptors.
fn fills_descriptors(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    /// From here on they are what fills them.
    const SHARE: f64 = 0.3;
    let limits = cause.subject.task.and_then(|task| evidence.limits.iter().find(|it| it.pid == task.pid));
    let open = limits.and_then(|it| it.last.1.descriptors).unwrap_or(u64::MAX);
    same_process(cause, effect, evidence) && cause.count as f64 >= SHARE * open as f64
}

/// The process has no descriptor left, or `accept` has failed for one, and the listener is its own, or one of the same
/// program's: a server whose workers accept from one listener.
fn lacks_descriptors(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    let count = |name| match cause.figures.iter().find(|(of, _)| *of == name) {
        Some((_, Value::Count(count))) => Some(*count),
        _ => None,
    };
    let is_full = count("descriptor_limit").is_some() && count("descriptors") >= count("descriptor_limit");
    let same_program = match (cause.subject.task, effect.subject.task) {
        (Some(one), Some(other)) => one.comm == other.comm && cause.subject.netns == effect.subject.netns,
        _ => false,
    };
    let has_failed = count("accept_failed") > Some(0);
    (has_failed || is_full) && (same_process(cause, effect, evidence) || has_failed && same_program)
}

/// The effect is about the listener's port: as a listener, or as the remote end of a client of this machine.
fn same_listener(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    let Some(port) = cause.subject.lport else { return false };
    match (effect.subject.lport, effect.subject.remote) {
        (Some(other), _) => other == port && cause.subject.netns == effect.subject.netns,
        (None, Some(remote)) => remote.port() == port && is_local(cause, effect, remote, evidence),
        _ => false,
    }
}

/// Whether a remote end is an address that the listener has: one that it listens on, or the local one of a connection that
/// came in there. Loopback is the same host only within a network namespace.
fn is_local(cause: &Finding, effect: &Finding, remote: SocketAddr, evidence: &Evidence) -> bool {
    let same_netns = cause.subject.netns == effect.subject.netns;
    let listens_on = |ip| cause.subject.local.is_none_or(|it| it.ip().is_unspecified() || it.ip() == ip);
    if remote.ip().is_loopback() {
        return same_netns && listens_on(remote.ip());
    }
    let came_in = |socket: &Standing| {
        socket.netns == cause.subject.netns
            && socket.side == Side::Server
            && socket.tuple.local_port == remote.port()
            && unmapped(socket.tuple.local_ip) == remote.ip()
    };
    cause.subject.local.is_some_and(|it| it.ip() == remote.ip())
        || listens_on(remote.ip()) && evidence.sockets.iter().any(came_in)
}

/// Packets were dropped for want of an entry: those of every network namespace behind the table may be, but not those that
/// stay on the loopback of another one.
fn drops_packets(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    let has_dropped =
        cause.figures.iter().any(|(name, value)| *name == "dropped" && matches!(value, Value::Count(1..)));
    let stays = effect.subject.remote.is_some_and(|remote| remote.ip().is_loopback());
    has_dropped && (!stays || same_netns(cause, effect, evidence))
}

fn same_netns(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    cause.subject.netns.is_some() && cause.subject.netns == effect.subject.netns
}

/// Sockets in CLOSE_WAIT that the cause is about are the other ends of those that wait for a FIN.
fn other_end(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
    let subject = &effect.subject;
    let in_state = |state| evidence.sockets.iter().filter(move |socket| socket.state == state);
    let is_waiting = |socket: &&Standing| {
        let remote = socket.tuple.remote();
        let is_remote = subject.remote.is_none_or(|it| it == remote || it.port() == 0 && it.ip() == remote.ip());
        let is_port = subject.lport.is_none_or(|port| socket.tuple.local_port == port);
        socket.netns == subject.netns && is_remote && is_port
    };
    let waiting: HashSet<Tuple> = in_state(State::FinWait2).filter(is_waiting).map(|it| it.tuple.reversed()).collect();
    let is_of_cause = |socket: &Standing| match (socket.accepted, cause.subject.task) {
        (Some(false), _) => cause.subject.lport == Some(socket.tuple.local_port),
        (_, Some(task)) => socket.task().is_some_and(|it| it.pid == task.pid),
        _ => false,
    };
    in_state(State::CloseWait).any(|socket| is_of_cause(socket) && waiting.contains(&socket.tuple))
}

/// The same process and remote end; or the connections that were reset are the other ends of the cause's.
fn same_reset(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let ends: HashSet<_> = cause.examples.iter().map(|it| (it.local, it.remote)).collect();
    let both_seen = effect.examples.iter().any(|it| ends.contains(&(it.remote, it.local)));
    let is_client = cause.subject.remote.is_some() && cause.subject.remote == effect.subject.remote;
    both_seen || is_client && same_client(cause, effect)
}

/// The same port of a network namespace, which a client has had.
fn same_port(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let port = |finding: &Finding| finding.subject.lport.or_else(|| finding.subject.local.map(|it| it.port()));
    cause.is_urgent()
        && cause.subject.netns == effect.subject.netns
        && port(cause).is_some()
        && port(cause) == port(effect)
}

/// A write on a silent connection timed out, and so did those of the same process to the same address.
fn same_silence(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let (one, other) = (&cause.subject, &effect.subject);
    let same_process = match (one.task, other.task) {
        (Some(one), Some(other)) => one.comm == other.comm,
        _ => true,
    };
    let address = |it: Option<SocketAddr>| it.map(|it| it.ip());
    cause.is_urgent()
        && one.netns == other.netns
        && same_process
        && one.remote.is_some()
        && address(one.remote) == address(other.remote)
}

/// The same remote end, and the same process where both are known.
fn same_client(cause: &Finding, effect: &Finding) -> bool {
    let (one, other) = (&cause.subject, &effect.subject);
    let same_process = match (one.task, other.task) {
        (Some(one), Some(other)) => one.comm == other.comm,
        _ => true,
    };
    one.netns == other.netns && same_process && one.remote == other.remote
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::evidence::{Counted, Descriptors, PairKey, Stays};
    use super::super::finding::{Confidence, Severity, Subject};
    use super::super::rules::testing::{
        NETNS, S, api, api_listener, client_key, failed_call, nothing, pair, queued, seen, standing, tuple,
    };
    use super::super::{Diagnosis, Selection, diagnose};
    use super::*;
    use crate::model::event::{Call, Kept};
    use crate::model::facts::Limit;
    use crate::model::tcp::{Comm, Task};

    /// Of 10.0.0.9:6379, `api` opens so many connections and `worker` so many others; each leaves a TIME_WAIT.
    fn opens(api: u64, worker: u64) -> Evidence {
        let mut evidence = nothing();
        let other = PairKey { comm: Some(Comm::from("worker")), ..client_key() };
        for (key, opened) in [(client_key(), api), (other, worker)] {
            let mut pair = pair(key);
            pair.opened = opened;
            pair.stays.push((State::TimeWait, Stays { entered: opened, ..Stays::default() }));
            evidence.pairs.push(pair);
        }
        evidence
    }

    fn of_severity(id: Id, severity: Severity, subject: Subject) -> Finding {
        Finding { subject, ..Finding::new(id, severity, Confidence::Certain, format!("{id} it is")) }
    }

    fn cause(id: Id) -> Finding {
        let tuple = tuple((1, 0), (9, 6379));
        let subject =
            Subject { task: Some(api()), netns: Some(NETNS), remote: Some(tuple.remote()), ..Subject::default() };
        of_severity(id, Severity::Warning, subject)
    }

    fn of_source(id: Id, last: u8, remote: u16) -> Finding {
        let tuple = tuple((last, 0), (9, remote));
        let (local, remote) = (Some(tuple.local()), Some(tuple.remote()));
        of_severity(id, Severity::Critical, Subject { netns: Some(NETNS), local, remote, ..Subject::default() })
    }

    /// Which of two findings is put under the other one.
    fn merged(cause: Finding, effect: Finding, evidence: &Evidence) -> Option<Id> {
        let of = effect.id;
        let mut findings = vec![effect, cause];
        merge(&mut findings, evidence);
        let effect = findings.iter().find(|it| it.id == of)?;
        if let Some(id) = effect.because_of {
            let cause = findings.first()?;
            assert_eq!((cause.id, cause.severity, cause.explains.len()), (id, effect.severity, 1));
        }
        effect.because_of
    }

    #[rstest]
    fn who_opens_most_explains_that_ports_are_short(
        #[values("no-connection-pool", "pool-too-small")] id: Id,
        #[values("ports-exhausted", "ports-running-out")] effect: Id,
    ) {
        let of = |api, worker| merged(cause(id), of_source(effect, 1, 6379), &opens(api, worker));
        assert_eq!((of(50, 50), of(49, 51)), (Some(id), None));
        assert_eq!(merged(cause(id), of_source(effect, 1, 443), &opens(50, 0)), None, "another destination");
    }

    #[rstest]
    #[case::of_the_namespace("time-wait-refused", Some(NETNS), true)]
    #[case::of_another_namespace("time-wait-refused", Some(NETNS + 1), false)]
    #[case::of_the_host("conntrack-full", None, true)]
    fn who_opens_most_explains_that_tables_are_full(
        #[case] effect: Id,
        #[case] netns: Option<u32>,
        #[case] expected: bool,
        #[values("no-connection-pool", "pool-too-small")] id: Id,
    ) {
        let effect = || of_severity(effect, Severity::Critical, Subject { netns, ..Subject::default() });
        let of = |api, worker| merged(cause(id), effect(), &opens(api, worker));
        assert_eq!((of(50, 50), of(49, 51)), (Some(id).filter(|_| expected), None));
    }

    #[rstest]
    #[case::its_address(1, true)]
    #[case::another_address(2, false)]
    fn who_binds_explains_that_ports_of_the_address_are_short(
        #[case] last: u8,
        #[case] expected: bool,
        #[values("ports-exhausted", "ports-running-out", "bind-refused")] effect: Id,
    ) {
        let cause = of_source("bind-before-connect", 1, 0);
        let because_of = merged(cause, of_source(effect, last, 6379), &opens(50, 0));
        assert_eq!(because_of, Some("bind-before-connect").filter(|_| expected));
    }

    #[rstest]
    #[case::those_of_the_same(1, 6379, true)]
    #[case::those_of_another_source(2, 6379, false)]
    #[case::those_of_another_destination(1, 443, false)]
    fn ports_that_are_exhausted_have_run_out(#[case] last: u8, #[case] remote: u16, #[case] expected: bool) {
        let cause = of_source("ports-exhausted", 1, 6379);
        let because_of = merged(cause, of_source("ports-running-out", last, remote), &nothing());
        assert_eq!(because_of, Some("ports-exhausted").filter(|_| expected));
    }

    /// A cause never stands below what it explains, in the order of causes.
    #[test]
    fn the_table_has_no_circle() {
        fn reaches(from: Id, to: Id, seen: &mut HashSet<Id>) -> bool {
            TABLE
                .iter()
                .filter(|rule| rule.cause == from)
                .flat_map(|rule| rule.effects)
                .any(|effect| *effect == to || seen.insert(effect) && reaches(effect, to, seen))
        }
        for rule in TABLE {
            assert!(!reaches(rule.cause, rule.cause, &mut HashSet::new()), "{}", rule.cause);
        }
    }

    /// What the rules find, and what each is because of.
    fn found(evidence: &Evidence) -> Vec<(Id, Option<Id>)> {
        let Diagnosis { findings, .. } = diagnose(evidence, &Selection::default());
        findings.iter().map(|finding| (finding.id, finding.because_of)).collect()
    }

    /// `api[4711]` has so many of 1,024 descriptors open.
    fn limits(open: u64) -> Descriptors {
        let limit = Limit { pid: 4711, descriptors: Some(open), soft: Some(1_024), hard: None };
        Descriptors { pid: 4711, task: Some(api()), first: (0, limit), last: (0, limit) }
    }

    /// So many that `api[4711]` has had in CLOSE_WAIT for an hour.
    fn leaked(count: u64) -> Vec<Standing> {
        let socket = |conn| Standing { seen: Some(seen(conn, 0, 1_000)), ..standing(conn, State::CloseWait, 3_600) };
        (1..=count).map(socket).collect()
    }

    /// A listener of `api[4711]` that has had 129 connections in a queue for 128 since 8 seconds, and drops more.
    fn stuck() -> Evidence {
        let mut evidence = nothing();
        let listener = api_listener(129, 128);
        evidence.listeners.push(super::super::evidence::Listener { waiting_since: Some(1_002 * S), ..listener });
        let grown = [("TcpExt.ListenOverflows".into(), 50)];
        evidence.counters.insert(NETNS, Counted { grown: grown.into_iter().collect(), ..Counted::default() });
        evidence
    }

    /// A finding of a rule, as far as merging looks at it.
    fn finding(id: Id, subject: Subject) -> Finding {
        let headline = id.to_owned();
        Finding { subject, ..Finding::new(id, Severity::Warning, Confidence::Certain, headline) }
    }

    fn client(remote: &str) -> Subject {
        let remote = remote.parse().ok();
        Subject { netns: Some(NETNS), remote, side: Some(Side::Client), ..Subject::default() }
    }

    /// Whether the second is put under the first.
    fn explains(cause: &Finding, effect: &Finding, evidence: &Evidence) -> bool {
        let mut findings = vec![effect.clone(), cause.clone()];
        merge(&mut findings, evidence);
        findings.iter().any(|finding| finding.because_of == Some(cause.id))
    }

    #[rstest]
    #[case::a_good_part(300, Some("close-wait-leak"))]
    #[case::a_small_part(299, None)]
    fn a_leak_that_fills_the_descriptors(#[case] leak: u64, #[case] because_of: Option<Id>) {
        let mut evidence = nothing();
        evidence.sockets = leaked(leak);
        evidence.limits.push(limits(1_000));
        let found = found(&evidence);
        assert!(found.contains(&("fd-limit", because_of)), "{found:?}");
    }

    /// The severity of what fails goes up to the cause of it all.
    #[test]
    fn descriptors_that_nobody_closes_are_why_nothing_is_accepted() {
        let mut evidence = stuck();
        evidence.limits.push(limits(1_024));
        evidence.calls.push(failed_call(Call::Accept, 24, 88));
        evidence.sockets = leaked(571);
        let diagnosis = diagnose(&evidence, &Selection::default());
        let causes: Vec<_> = diagnosis.causes().map(|finding| (finding.id, finding.severity)).collect();
        assert_eq!(causes, [("close-wait-leak", Severity::Critical)]);
        let effects: Vec<_> = diagnosis.findings.iter().filter_map(|it| Some((it.id, it.because_of?))).collect();
        assert!(effects.contains(&("fd-limit", "close-wait-leak")), "{effects:?}");
        assert!(effects.contains(&("never-accepted", "fd-limit")), "{effects:?}");
        assert!(effects.contains(&("accept-queue-full", "fd-limit")), "{effects:?}");
    }

    /// A worker of nginx lacks descriptors, and its master has the listener.
    #[rstest]
    #[case::it_failed(88, Some("fd-limit"))]
    #[case::it_did_not(0, None)]
    fn workers_of_one_program_share_a_listener(#[case] failed: u64, #[case] because_of: Option<Id>) {
        let mut evidence = stuck();
        let master = Task { pid: 812, tid: 812, comm: api().comm };
        evidence.listeners[0].task = Some(master);
        evidence.limits.push(limits(1_000));
        evidence.sockets.push(standing(1, State::Established, 5));
        if failed > 0 {
            evidence.calls.push(failed_call(Call::Accept, 24, failed));
        }
        let found = found(&evidence);
        assert!(found.contains(&("never-accepted", because_of)), "{found:?}");
    }

    #[test]
    fn a_process_near_its_limit_may_be_slow_for_another_reason() {
        let mut evidence = stuck();
        evidence.limits.push(limits(1_000));
        let found = found(&evidence);
        assert!(found.contains(&("never-accepted", None)), "{found:?}");
    }

    #[test]
    fn a_queue_that_nobody_accepts_from_overflows() {
        let found = found(&stuck());
        assert_eq!(found, [("never-accepted", None), ("accept-queue-full", Some("never-accepted"))]);
    }

    /// The clients of this machine whose connects time out for it.
    #[rstest]
    #[case::loopback("127.0.0.1:80", true)]
    #[case::an_address_of_this_host("10.0.0.1:80", true)]
    #[case::another_host("10.0.0.9:80", false)]
    #[case::another_port("10.0.0.1:81", false)]
    fn connects_to_a_full_queue_time_out(#[case] remote: &str, #[case] expected: bool) {
        let mut evidence = nothing();
        evidence.sockets.push(queued(1, State::Established, 1));
        let listener = Subject { local: "0.0.0.0:80".parse().ok(), lport: Some(80), ..client(remote) };
        let listener = Subject { remote: None, side: None, ..listener };
        for (cause, effect) in [
            ("never-accepted", "connect-timeout"),
            ("accept-queue-full", "connect-timeout"),
            ("accept-queue-full", "dead-peer"),
        ] {
            let (cause, effect) = (finding(cause, listener.clone()), finding(effect, client(remote)));
            assert_eq!(explains(&cause, &effect, &evidence), expected, "{} {}", cause.id, effect.id);
        }
    }

    #[test]
    fn loopback_of_another_namespace_is_another_host() {
        let listener = Subject { netns: Some(NETNS + 1), lport: Some(80), ..Subject::default() };
        let (cause, effect) = (finding("never-accepted", listener), finding("connect-timeout", client("127.0.0.1:80")));
        assert!(!explains(&cause, &effect, &nothing()));
    }

    /// Both ends are on this host: 100 of a client in FIN_WAIT2, and what a server does with the other ends.
    fn both_ends(other: impl Fn(u64) -> Standing) -> Evidence {
        let mut evidence = nothing();
        let waiting = |conn| {
            let key = PairKey { ip: queued(1, State::CloseWait, 1).tuple.local_ip, port: 80, ..client_key() };
            let tuple = queued(conn, State::CloseWait, 1).tuple.reversed();
            Standing {
                pair: key,
                tuple,
                fd: None,
                owner: None,
                kept: Some(Kept::Orphan),
                ..standing(conn, State::FinWait2, 90)
            }
        };
        evidence.sockets = (1..=100).map(waiting).chain((1..=100).map(|conn| other(conn + 1_000))).collect();
        for (place, socket) in evidence.sockets.iter_mut().enumerate().skip(100) {
            socket.tuple = queued(place as u64 - 99, State::CloseWait, 1).tuple;
        }
        evidence
    }

    fn of_server(conn: u64, recv_queue: u32) -> Standing {
        let owner = standing(conn, State::CloseWait, 1).owner;
        let seen = Some(seen(conn, recv_queue, 1_000));
        Standing { owner, seen, accepted: Some(true), ..queued(conn, State::CloseWait, 90) }
    }

    #[test]
    fn the_other_end_of_a_leak_waits_for_a_fin() {
        let found = found(&both_ends(|conn| of_server(conn, 0)));
        assert!(found.contains(&("peer-does-not-close", Some("close-wait-leak"))), "{found:?}");
    }

    #[test]
    fn the_other_end_of_a_server_that_does_not_read_waits_for_a_fin() {
        let found = found(&both_ends(|conn| of_server(conn, 9)));
        assert!(found.contains(&("peer-does-not-close", Some("close-wait-unread"))), "{found:?}");
    }

    #[test]
    fn the_other_end_of_a_queue_that_nobody_accepts_from_waits_for_a_fin() {
        let mut evidence = both_ends(|conn| queued(conn, State::CloseWait, 90));
        evidence.listeners.push(api_listener(100, 128));
        let found = found(&evidence);
        assert!(found.contains(&("peer-does-not-close", Some("never-accepted"))), "{found:?}");
    }

    #[rstest]
    #[case::nothing_dropped(0, "10.0.0.9:80", NETNS, false)]
    #[case::dropped(1, "10.0.0.9:80", NETNS, true)]
    #[case::of_a_namespace_behind_it(1, "10.0.0.9:80", NETNS + 1, true)]
    #[case::its_loopback(1, "127.0.0.1:80", NETNS, true)]
    #[case::loopback_of_another(1, "127.0.0.1:80", NETNS + 1, false)]
    fn a_full_table_drops_what_would_be_answered(
        #[case] dropped: u64,
        #[case] remote: &str,
        #[case] netns: u32,
        #[case] expected: bool,
        #[values("connect-timeout", "fin-unanswered")] id: Id,
    ) {
        let mut cause = finding("conntrack-full", Subject { netns: Some(NETNS), ..Subject::default() });
        cause.figures.push(("dropped", Value::Count(dropped)));
        let effect = finding(id, Subject { netns: Some(netns), ..client(remote) });
        assert_eq!(explains(&cause, &effect, &nothing()), expected);
    }

    #[test]
    fn a_leak_of_other_connections_is_another_cause() {
        let mut evidence = both_ends(|conn| of_server(conn, 0));
        evidence.sockets.iter_mut().skip(100).for_each(|socket| socket.tuple.remote_port += 1_000);
        let found = found(&evidence);
        assert!(found.contains(&("peer-does-not-close", None)), "{found:?}");
    }

    #[rstest]
    #[case::race("idle-close-race")]
    #[case::pool("stale-pool")]
    fn resets_of_idle_connections(#[case] cause: Id) {
        let (same, other) = (client("10.0.0.9:6379"), client("10.0.0.8:6379"));
        let (cause, effect) = (finding(cause, same.clone()), finding("reset-by-peer", same.clone()));
        assert!(explains(&cause, &effect, &nothing()));
        assert!(!explains(&finding(cause.id, other), &effect, &nothing()));
        let worker = Task { pid: 9, tid: 9, comm: Comm::from("worker") };
        let (cause, effect) = (
            finding(cause.id, Subject { task: Some(worker), ..same.clone() }),
            finding("reset-by-peer", Subject { task: Some(api()), ..same }),
        );
        assert!(!explains(&cause, &effect, &nothing()));
    }

    /// A note says that a write has not failed yet, and that no client has had the port.
    #[rstest]
    #[case::a_write_timed_out("silent-peer", "dead-peer", "10.0.0.9:6379", "10.0.0.9:0", true)]
    #[case::another_peer("silent-peer", "dead-peer", "10.0.0.8:6379", "10.0.0.9:0", false)]
    #[case::a_client_has_the_port("fixed-port-in-range", "bind-refused", "0.0.0.0:50051", "10.0.0.1:50051", true)]
    #[case::another_port("fixed-port-in-range", "bind-refused", "0.0.0.0:50052", "10.0.0.1:50051", false)]
    fn what_a_warning_explains(
        #[case] cause: Id,
        #[case] effect: Id,
        #[case] of_cause: &str,
        #[case] of_effect: &str,
        #[case] expected: bool,
    ) {
        let subject = |it: &str| match cause {
            "silent-peer" => client(it),
            _ => Subject { netns: Some(NETNS), local: it.parse().ok(), ..Subject::default() },
        };
        let (mut cause, effect) = (finding(cause, subject(of_cause)), finding(effect, subject(of_effect)));
        assert_eq!(explains(&cause, &effect, &nothing()), expected);
        cause.severity = Severity::Note;
        assert!(!explains(&cause, &effect, &nothing()));
    }

    /// The server's end of a race is seen, and the client's end is what was reset.
    #[test]
    fn resets_of_the_other_end_of_a_race() {
        let (server, end) = (standing(1, State::Closed, 1), standing(1, State::Closed, 1));
        let server = Standing { tuple: server.tuple.reversed(), ..server };
        let mut cause = finding("idle-close-race", Subject { lport: Some(6379), ..Subject::default() });
        let mut effect = finding("reset-by-peer", client("10.0.0.9:6379"));
        assert!(!explains(&cause, &effect, &nothing()));
        (cause.examples, effect.examples) = (vec![server.example()], vec![end.example()]);
        assert!(explains(&cause, &effect, &nothing()));
    }
}
