//! Connections that a process ends with a reset, by `SO_LINGER` 0.

use super::group::{Group, by_process};
use super::words::{per_second, share};
use crate::model::tcp::{End, Side};
use crate::study::diagnose::evidence::{Ended, Evidence};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are a habit.
const MANY: u64 = 10;
/// And so large a part of all is more than an error path.
const SHARE: f64 = 0.05;

pub(super) static RULE: Rule = Rule {
    id: "linger-zero",
    title: "a process ends its connections with a reset (SO_LINGER 0)",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "reset_linger0", unit: "", doc: "Connections that the process ended by SO_LINGER 0." },
        Figure { name: "ended", unit: "", doc: "Connections of it that ended." },
        Figure { name: "reset_share", unit: "", doc: "The part of those that ended by SO_LINGER 0." },
        Figure { name: "with_data", unit: "", doc: "Of those, the ones that had carried data." },
        Figure {
            name: "undelivered",
            unit: "",
            doc: "Of those, the ones with data that the peer had not acknowledged.",
        },
    ],
    page: Page {
        sees: "No TIME_WAITs here, but \"connection reset by peer\" at the other end, and now and then lost data.",
        fires: "A process ended 10 or more connections by SO_LINGER 0, and 5 % or more of all that it ended. A warning if that \
                many had carried data, or if data was lost; else a note.",
        silent: "close() with a FIN.",
        remedy: "Remove SO_LINGER, and use a connection pool where ports are short.",
        sources: "RFC 9293 3.10.4 (abort); __tcp_close (net/ipv4/tcp.c): TCPAbortOnData, which TCP_LINGER2 -1 raises too.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let groups = by_process(evidence);
    let findings = groups.iter().filter_map(|group| finding(evidence, group)).collect();
    let most = groups.iter().max_by_key(|group| group.ended_by(End::ResetLinger0));
    Outcome::of(findings, most.map(figures).unwrap_or_default())
}

/// A sum over those that ended so.
fn sum(group: &Group<'_>, of: fn(&Ended) -> u64) -> u64 {
    group.ended_as(End::ResetLinger0).map(|(_, ended)| of(ended)).sum()
}

fn figures(group: &Group<'_>) -> Figures {
    let (reset, ended) = (group.ended_by(End::ResetLinger0), group.ended());
    vec![
        ("reset_linger0", Value::Count(reset)),
        ("ended", Value::Count(ended)),
        ("reset_share", Value::Share(share(reset, ended))),
        ("with_data", Value::Count(sum(group, |it| it.with_data))),
        ("undelivered", Value::Count(sum(group, |it| it.in_flight))),
    ]
}

fn finding(evidence: &Evidence, group: &Group<'_>) -> Option<Finding> {
    let (reset, ended) = (group.ended_by(End::ResetLinger0), group.ended());
    if reset < MANY || share(reset, ended) < SHARE {
        return None;
    }
    let (with_data, lost) = (sum(group, |it| it.with_data), sum(group, |it| it.in_flight));
    // Health checks of load balancers end so on purpose, and so do idle connections of haproxy's pools: nothing is lost.
    let is_habit = with_data >= MANY && share(with_data, ended) >= SHARE;
    let severity = if is_habit || lost > 0 { Severity::Warning } else { Severity::Note };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, group));
    finding.subject = group.subject();
    finding.figures = figures(group);
    finding.count = reset;
    (finding.first_seen, finding.last_seen) = group.seen(End::ResetLinger0);
    finding.examples = group.examples(End::ResetLinger0);
    describe(evidence, group, &mut finding);
    finding.why =
        "It avoids TIME_WAIT by breaking the connection: what is on its way, in both directions, is destroyed, and \
                   the peer logs \"connection reset\"."
            .into();
    if with_data == 0 {
        finding.remedies.push("Nothing needs to be done for health checks that send nothing".into());
    }
    finding.remedies.push("Remove SO_LINGER 0 from the program; use a connection pool where ports are short".into());
    finding.mistakes.push("keep it to save ports: data is lost at random".into());
    finding.sure = match sum(group, |it| it.in_flight) {
        0 => "certain: the socket's option and state at the reset".into(),
        lost => format!(
            "certain: the socket's option and state at the reset; that data was lost is certain for {}",
            say::counted(lost, "connection")
        ),
    };
    Some(finding)
}

fn headline(evidence: &Evidence, group: &Group<'_>) -> String {
    let (reset, ended) = (group.ended_by(End::ResetLinger0), group.ended());
    let part = say::percent(share(reset, ended));
    let rate = per_second(evidence, reset);
    let base = format!("{} ends {part} of its connections with a reset (SO_LINGER 0)", group.process());
    let subject = group.subject();
    let place = match (subject.remote, subject.lport) {
        (Some(remote), _) => format!(" to {remote}"),
        (None, Some(port)) => format!(" on port {port}"),
        _ => String::new(),
    };
    let lost = match sum(group, |it| it.in_flight) {
        0 => [String::new(), String::new()],
        lost => [
            format!("; {} of them with data not yet delivered", say::count(lost)),
            format!(", {} with data in flight", say::count(lost)),
        ],
    };
    say::fitting([
        format!("{base}: {rate}{place}{}", lost[0]),
        format!("{base}: {rate}{place}{}", lost[1]),
        format!("{base}: {rate}{}", lost[1]),
        base,
    ])
}

fn describe(evidence: &Evidence, group: &Group<'_>, finding: &mut Finding) {
    let (reset, ended) = (group.ended_by(End::ResetLinger0), group.ended());
    let (with_data, lost) = (sum(group, |it| it.with_data), sum(group, |it| it.in_flight));
    finding.line(
        "seen",
        format!(
            "{} of {} connections that ended; {} had carried data, {} had data in flight",
            say::count(reset),
            say::count(ended),
            say::count(with_data),
            say::count(lost)
        ),
    );
    let netns = group.pairs.first().and_then(|pair| pair.key.netns);
    let aborted = evidence.grown(netns.unwrap_or(0), "TcpExt.TCPAbortOnData");
    if aborted > 0 {
        let text = format!("TCPAbortOnData grew by {} in this network namespace", say::count(aborted));
        finding.line("/proc/net/netstat", text);
    }
    if group.pairs.len() > 1 {
        let mut pairs: Vec<_> = group.pairs.iter().map(|pair| (pair.ended_by(End::ResetLinger0), pair)).collect();
        pairs.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let named = pairs.iter().filter(|(count, pair)| *count > 0 && pair.key.side == Side::Client).take(3);
        let named: Vec<String> = named.map(|(count, pair)| format!("{} {}", pair.end(), say::count(*count))).collect();
        finding.line("seen", format!("to {}", named.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{client_key, fired, nothing, pair_ended};
    use super::*;
    use crate::model::tcp::Closer;
    use crate::study::diagnose::evidence::{Pair, PairKey};

    /// So many resets of all that ended.
    fn resets(reset: u64, ended: u64) -> Evidence {
        let mut evidence = nothing();
        let mut pair = pair_ended(End::ResetLinger0, reset);
        (pair.ends[0].1, pair.ends[0].2.with_data) = (Closer::ResetLocal, reset);
        pair.ends.push((End::Fin, Closer::Passive, Ended { count: ended - reset, ..Ended::default() }));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::few(9, 9, 0)]
    #[case::enough(10, 200, 1)]
    #[case::a_small_part(10, 201, 0)]
    fn thresholds(#[case] reset: u64, #[case] ended: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &resets(reset, ended)).len(), expected);
    }

    #[test]
    fn health_checks_are_a_note() {
        let mut evidence = resets(10, 10);
        evidence.pairs[0].ends[0].2.with_data = 0;
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Note);
    }

    /// haproxy's checks and idle connections: 2 of 80 had carried data, and all of it had arrived.
    #[rstest]
    #[case::a_few_with_data(80, 2, 0, Severity::Note)]
    #[case::one_of_them_lost_data(80, 2, 1, Severity::Warning)]
    #[case::almost_many(80, 9, 0, Severity::Note)]
    #[case::many(80, 10, 0, Severity::Warning)]
    #[case::many_but_a_small_part(201, 10, 0, Severity::Note)]
    fn severity(#[case] reset: u64, #[case] with_data: u64, #[case] lost: u64, #[case] expected: Severity) {
        let mut evidence = resets(reset, reset);
        let ended = &mut evidence.pairs[0].ends[0].2;
        (ended.with_data, ended.in_flight) = (with_data, lost);
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    #[test]
    fn words() {
        let mut evidence = resets(4_800, 5_000);
        let expected = "api[4711] ends 96 % of its connections with a reset (SO_LINGER 0): 480/s to 10.0.0.9:6379";
        assert_eq!(fired(&RULE, &evidence)[0].headline, expected);
        evidence.pairs[0].ends[0].2.in_flight = 12;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] ends 96 % of its connections with a reset (SO_LINGER 0): 480/s, 12 with data in flight"
        );
        assert_eq!(
            finding.evidence[0].text,
            "4,800 of 5,000 connections that ended; 4,800 had carried data, 12 had data in flight"
        );
    }

    /// A process is one, whatever it connects to.
    #[test]
    fn all_remote_ends_of_a_process_count_together() {
        let mut evidence = resets(6, 6);
        let other = PairKey { port: 443, ..client_key() };
        let more = Pair { key: other, ..evidence.pairs[0].clone() };
        evidence.pairs.push(more);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.count, finding.subject.remote), (12, None));
        assert_eq!(finding.evidence[1].text, "to 10.0.0.9:6379 6, 10.0.0.9:443 6");
    }
}
