//! One root cause, not ten findings: what a finding explains is put under it.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::evidence::Evidence;
use super::finding::{Finding, Id};
use super::rules::RULES;

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
        effects: &["ports-exhausted", "ports-running-out", "time-wait-refused"],
        when: same_client,
    },
    Explains {
        cause: "pool-too-small",
        effects: &["ports-exhausted", "ports-running-out", "time-wait-refused"],
        when: same_client,
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

/// The same process, as far as both name one, and the same remote end.
fn same_client(cause: &Finding, effect: &Finding, _: &Evidence) -> bool {
    let (one, other) = (&cause.subject, &effect.subject);
    let same_process = match (one.task, other.task) {
        (Some(one), Some(other)) => one.comm == other.comm,
        _ => true,
    };
    let same_remote = other.remote.is_none() || one.remote == other.remote;
    one.netns == other.netns && same_process && same_remote
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
    use super::*;

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
