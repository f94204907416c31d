//! One root cause, not ten findings: what a finding explains is put under it.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::evidence::{Evidence, Pair};
use super::finding::{Finding, Id};
use super::rules::RULES;
use crate::model::tcp::{Side, State, TimeWaitEnd};

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
    Explains { cause: "close-wait-leak", effects: &["fd-limit"], when: fills_descriptors },
    Explains { cause: "fd-limit", effects: &["never-accepted", "accept-queue-full"], when: same_process },
    Explains { cause: "never-accepted", effects: &["accept-queue-full", "connect-timeout"], when: same_listener },
    Explains { cause: "accept-queue-full", effects: &["connect-timeout"], when: same_listener },
    Explains { cause: "fin-timeout-trap", effects: &["peer-does-not-close"], when: same_netns },
    Explains { cause: "close-wait-leak", effects: &["peer-does-not-close"], when: other_end },
];

/// Puts findings under what explains them, and in order: causes before what they explain, the most severe first.
pub(super) fn merge(findings: &mut Vec<Finding>, evidence: &Evidence) {
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

/// The effect is about the listener's port: as a listener, or as the remote end of a client of this machine.
fn same_listener(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let Some(port) = cause.subject.lport else { return false };
    match (effect.subject.lport, effect.subject.remote) {
        (Some(other), _) => other == port && cause.subject.netns == effect.subject.netns,
        (None, Some(remote)) => {
            let is_there =
                |ip: std::net::IpAddr| cause.subject.local.is_none_or(|it| it.ip().is_unspecified() || it.ip() == ip);
            remote.port() == port && (remote.ip().is_loopback() || is_there(remote.ip()))
        }
        _ => false,
    }
}

fn same_netns(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    cause.subject.netns.is_some() && cause.subject.netns == effect.subject.netns
}

/// The leaked sockets are the other ends of those that wait for a FIN.
fn other_end(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let ends: HashSet<_> = cause.examples.iter().map(|it| (it.local, it.remote)).collect();
    effect.examples.iter().any(|it| ends.contains(&(it.remote, it.local)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::evidence::{PairKey, Stays};
    use super::super::finding::{Confidence, Severity, Subject};
    use super::super::rules::testing::{NETNS, api, client_key, nothing, pair, tuple};
    use super::*;
    use crate::model::tcp::Comm;

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

    fn found(id: Id, severity: Severity, subject: Subject) -> Finding {
        Finding { subject, ..Finding::new(id, severity, Confidence::Certain, format!("{id} it is")) }
    }

    fn cause(id: Id) -> Finding {
        let tuple = tuple((1, 0), (9, 6379));
        let subject =
            Subject { task: Some(api()), netns: Some(NETNS), remote: Some(tuple.remote()), ..Subject::default() };
        found(id, Severity::Warning, subject)
    }

    fn of_source(id: Id, last: u8, remote: u16) -> Finding {
        let tuple = tuple((last, 0), (9, remote));
        let (local, remote) = (Some(tuple.local()), Some(tuple.remote()));
        found(id, Severity::Critical, Subject { netns: Some(NETNS), local, remote, ..Subject::default() })
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
        let effect = || found(effect, Severity::Critical, Subject { netns, ..Subject::default() });
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
}
