//! A process that closes, but long after its peers have.

use super::close_wait::language;
use super::close_wait_leak;
use super::group::{Group, by_process};
use crate::model::tcp::{Side, State};
use crate::study::diagnose::evidence::{Evidence, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are a number to take a median of.
const MANY: u64 = 20;
/// A close after the end of the stream takes microseconds to milliseconds; a second is a design.
const SLOW_NS: u64 = 1_000_000_000;
/// So long, they pile up.
const VERY_SLOW_NS: u64 = 5_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "close-wait-slow",
    title: "a process closes connections long after its peers have",
    needs: &[Need::Events],
    figures: &[
        Figure {
            name: "left",
            unit: "",
            doc: "Connections in CLOSE_WAIT that the process closed in the window, and whose time in it is known.",
        },
        Figure { name: "lasted_p50_ns", unit: "ns", doc: "How long those were in it, at the median; null for none." },
        Figure { name: "lasted_p99_ns", unit: "ns", doc: "The longest but one in a hundred." },
        Figure {
            name: "most",
            unit: "",
            doc: "The most that were in CLOSE_WAIT at once, of one remote end or listening port.",
        },
    ],
    page: Page {
        sees: "Many sockets in CLOSE_WAIT; their number is high, and does not grow.",
        fires: "A process closed 20 or more connections in CLOSE_WAIT in the window, and half of them had been in it for 1s or \
                longer: a close after the end of the stream takes microseconds to milliseconds. A warning from 5s on. Where \
                connections are not closed at all, close-wait-leak says so.",
        silent: "CLOSE_WAITs of milliseconds, however many.",
        remedy: "Stop the work for a client that has gone: nobody waits for the answer. For pools: close idle connections \
                 sooner than the server does.",
        sources: "RFC 9293 3.6; tcp_fin, tcp_close (net/ipv4).",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let with_times = |group| (lasted(&group), group);
    let mut all: Vec<(Spread, Group<'_>)> = by_process(evidence).into_iter().map(with_times).collect();
    all.retain(|(lasted, _)| lasted.total() > 0);
    all.sort_by_key(|(lasted, _)| std::cmp::Reverse(lasted.total()));
    let leaks = close_wait_leak::leaking(evidence);
    let is_leak = |group: &Group<'_>| group.task().is_some_and(|task| leaks.contains(&task.pid));
    let slow = all.iter().filter(|(lasted, group)| is_slow(lasted) && !is_leak(group));
    let findings = slow.map(|(lasted, group)| finding(group, lasted)).collect();
    Outcome::of(findings, all.first().map(|(lasted, group)| figures(group, lasted)).unwrap_or_default())
}

/// How long those had been in CLOSE_WAIT that the process closed.
fn lasted(group: &Group<'_>) -> Spread {
    let mut lasted = Spread::default();
    let stays = group.pairs.iter().filter_map(|pair| pair.stay(State::CloseWait));
    stays.for_each(|stay| lasted.merge(&stay.closed));
    lasted
}

fn is_slow(lasted: &Spread) -> bool {
    lasted.total() >= MANY && lasted.percentile(50).is_some_and(|median| median >= SLOW_NS)
}

fn most(group: &Group<'_>) -> u64 {
    group.pairs.iter().filter_map(|pair| pair.stay(State::CloseWait)).map(|stay| stay.most).max().unwrap_or(0)
}

fn figures(group: &Group<'_>, lasted: &Spread) -> Figures {
    let at = |hundredths| lasted.percentile(hundredths).map_or(Value::Unknown, Value::Ns);
    vec![
        ("left", Value::Count(lasted.total())),
        ("lasted_p50_ns", at(50)),
        ("lasted_p99_ns", at(99)),
        ("most", Value::Count(most(group))),
    ]
}

fn finding(group: &Group<'_>, lasted: &Spread) -> Finding {
    let seconds = |hundredths| say::seconds(lasted.percentile(hundredths).unwrap_or(0) as f64 / 1e9);
    let severity = match lasted.percentile(50) {
        Some(median) if median >= VERY_SLOW_NS => Severity::Warning,
        _ => Severity::Note,
    };
    let base = format!(
        "{} closes {} after the peer, at the median of {}",
        group.process(),
        seconds(50),
        say::counted(lasted.total(), "connection")
    );
    let at_once = format!("{} in CLOSE_WAIT at once", say::count(most(group)));
    let headline = say::fitting([
        format!("{base} (99 % within {}); {at_once}", seconds(99)),
        format!("{base} (p99 {}); {at_once}", seconds(99)),
        format!("{base}; {at_once}"),
        base,
    ]);
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = group.subject();
    finding.figures = figures(group, lasted);
    finding.count = lasted.total();
    let left = say::counted(lasted.total(), "connection");
    let (low, middle, high) = (seconds(10), seconds(50), seconds(90));
    finding.line("seen", format!("{left} left CLOSE_WAIT after {middle} at the median (p10 {low}, p90 {high})"));
    finding.line("seen", format!("{at_once} at most"));
    finding.examples = group.pairs.iter().flat_map(|pair| pair.examples()).take(5).collect();
    finding.why =
        "The peer has sent its FIN, and the process goes on with something else before it closes: a request whose \
                   client has left, or a pool that looks at its connections only when it lends them."
            .into();
    if group.pairs.iter().all(|pair| pair.key.side == Side::Client) {
        finding.remedies.push("Set the pool's idle timeout below the server's".into());
    } else {
        finding.remedies.push("Stop the work for a client that has gone: nobody waits for the answer".into());
        finding.remedies.push("For pools: set the idle timeout below the server's".into());
    }
    if let Some(task) = group.task() {
        finding.remedies.push(language(task).into());
    }
    finding.sure =
        "certain of the times; the cause is possible: a slow request that still runs, or a pool that looks at its \
                    connections only when it lends them"
            .into();
    finding
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, api, fired, nothing, pair, seen, server_key, spread, standing};
    use super::*;
    use crate::study::diagnose::evidence::{PairKey, Standing, Stays};

    /// So many that were in CLOSE_WAIT for so many ms each.
    fn evidence(key: PairKey, count: usize, ms: u64) -> Evidence {
        let mut evidence = nothing();
        let lasted = spread(std::iter::repeat_n(ms * S / 1_000, count));
        let count = count as u64;
        let (closed, most) = (lasted.clone(), 890);
        let stays = Stays { entered: count, left: count, left_new: count, lasted, most, closed };
        let mut pair = pair(key);
        pair.stays.push((State::CloseWait, stays));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::too_few(19, 2_100, 0)]
    #[case::enough(20, 1_000, 1)]
    #[case::more(21, 1_000, 1)]
    #[case::faster(400, 980, 0)]
    fn thresholds(#[case] count: usize, #[case] ms: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &evidence(server_key(), count, ms)).len(), expected);
    }

    #[rstest]
    #[case::slow(4_900, Severity::Note)]
    #[case::very_slow(5_000, Severity::Warning)]
    fn severity(#[case] ms: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &evidence(server_key(), 20, ms))[0].severity, expected);
    }

    /// A process that leaks closes some of them late, too: that is one finding.
    #[test]
    fn a_leak_is_another_finding() {
        let mut evidence = evidence(server_key(), 400, 2_100);
        let socket = |conn| Standing { seen: Some(seen(conn, 0, 1_000)), ..standing(conn, State::CloseWait, 3_600) };
        evidence.sockets = (1..=10).map(socket).collect();
        assert_eq!(fired(&RULE, &evidence), []);
        evidence.sockets.truncate(9);
        assert_eq!(fired(&RULE, &evidence).len(), 1);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(server_key(), 412, 2_100);
        evidence.pairs[0].stays[0].1.closed.add(9_800_000_000);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] closes 2.1s after the peer, at the median of 413 connections (p99 2.1s); 890 in CLOSE_WAIT at once"
        );
        assert_eq!((finding.subject.task, finding.subject.lport), (Some(api()), Some(80)));
        assert_eq!(finding.confidence, Confidence::Certain);
        assert!(
            finding.evidence[0].text.starts_with("413 connections left CLOSE_WAIT after 2.1s at the median (p10 2.1s")
        );
    }
}
