//! Segments that the kernel drops because their timestamp went backwards.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::counted::{in_window, lacks_time, place};
use super::words::share;
use crate::model::release;
use crate::model::tcp::{Side, State};
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are no single connection that met its predecessor.
const MANY: u64 = 10;
/// On kernels that count reordered ACKs among them, which are harmless.
const MANY_OF_OLD: u64 = 100;
/// And such a part of all segments.
const SHARE: f64 = 0.0001;
/// The counters, without PAWSOldAck.
const COUNTERS: [&str; 4] = ["PAWSActive", "PAWSEstab", "PAWSTimewait", "TSEcrRejected"];

pub(super) static RULE: Rule = Rule {
    id: "paws-drops",
    title: "segments are dropped because their timestamp went backwards",
    needs: &[Need::Counters],
    figures: &[
        Figure { name: "active", unit: "", doc: "PAWSActive: answers to SYNs." },
        Figure { name: "established", unit: "", doc: "PAWSEstab: segments of connections." },
        Figure { name: "time_wait", unit: "", doc: "PAWSTimewait: segments that met a TIME_WAIT, such as a new SYN." },
        Figure { name: "echo", unit: "", doc: "TSEcrRejected: segments that echo a time that was never sent." },
        Figure { name: "old_acks", unit: "", doc: "PAWSOldAck: reordered ACKs, harmless; not counted in." },
        Figure { name: "segments", unit: "", doc: "InSegs: all segments that came in." },
        Figure { name: "dropped_share", unit: "", doc: "The part of those that was dropped." },
    ],
    page: Page {
        sees: "A client sends a SYN and gets no answer, or connects after 1s; `netstat -s` counts packets rejected because of \
               timestamps.",
        fires: "PAWSActive, PAWSEstab, PAWSTimewait and TSEcrRejected have grown by 10 or more together, and by 0.01 % of the \
                segments that came in. Before 6.14, PAWSEstab counts reordered ACKs, too: then 100 or more.",
        silent: "PAWSOldAck alone: an ACK that was overtaken.",
        remedy: "Give the NAT in front more source ports or addresses, and let the client's side close first.",
        sources: "RFC 7323 5, RFC 6191; tcp_timewait_state_process, tcp_validate_incoming (net/ipv4).",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    if let Some(reason) = lacks_time(evidence) {
        return Outcome::NotChecked(reason);
    }
    let places = || evidence.counters.keys().copied();
    let findings = places().filter_map(|netns| finding(evidence, netns)).collect();
    let most = places().max_by_key(|netns| dropped(evidence, *netns));
    Outcome::of(findings, most.map(|netns| figures(evidence, netns)).unwrap_or_default())
}

fn grown(evidence: &Evidence, netns: u32, name: &str) -> u64 {
    evidence.grown(netns, &format!("TcpExt.{name}"))
}

fn dropped(evidence: &Evidence, netns: u32) -> u64 {
    COUNTERS.iter().map(|name| grown(evidence, netns, name)).sum()
}

fn figures(evidence: &Evidence, netns: u32) -> Figures {
    let of = |name| Value::Count(grown(evidence, netns, name));
    let [active, established, time_wait, echo] = COUNTERS.map(of);
    let segments = evidence.grown(netns, "Tcp.InSegs");
    vec![
        ("active", active),
        ("established", established),
        ("time_wait", time_wait),
        ("echo", echo),
        ("old_acks", of("PAWSOldAck")),
        ("segments", Value::Count(segments)),
        ("dropped_share", Value::Share(share(dropped(evidence, netns), segments))),
    ]
}

fn finding(evidence: &Evidence, netns: u32) -> Option<Finding> {
    let (dropped, segments) = (dropped(evidence, netns), evidence.grown(netns, "Tcp.InSegs"));
    let is_separate = release::counts_old_acks_apart(&evidence.about.kernel);
    let many = if is_separate { MANY } else { MANY_OF_OLD };
    if dropped < many || share(dropped, segments) < SHARE {
        return None;
    }
    let there = COUNTERS.iter().map(|name| (name, grown(evidence, netns, name))).filter(|(_, count)| *count > 0);
    let each: Vec<String> = there.map(|(name, count)| format!("{name} {}", say::count(count))).collect();
    let headline = format!(
        "{}{} segments dropped{} because their timestamp went backwards",
        place(evidence, netns),
        say::count(dropped),
        in_window(evidence)
    );
    let headline = say::fitting([format!("{headline} ({})", each.join(", ")), headline]);
    let mut finding = Finding::new(RULE.id, Severity::Warning, Confidence::Certain, headline);
    finding.subject = Subject { netns: Some(netns), ..Subject::default() };
    finding.figures = figures(evidence, netns);
    finding.count = dropped;
    let all = say::count(segments);
    let percent = say::percent(share(dropped, segments));
    finding.line("/proc/net/netstat", format!("{} of {all} segments that came in ({percent})", each.join(", ")));
    let old = grown(evidence, netns, "PAWSOldAck");
    if old > 0 {
        finding.line("/proc/net/netstat", format!("PAWSOldAck {}: reordered ACKs, not counted in", say::count(old)));
    }
    let shared = shared_address(evidence, netns).filter(|_| grown(evidence, netns, "PAWSTimewait") > 0);
    if let Some((ip, count)) = shared {
        let text = format!("{} of listening ports are with {}", say::counted(count, "TIME_WAIT"), say::address(ip));
        finding.line("sock_diag", text);
    }
    advise(evidence, netns, shared.is_some(), &mut finding);
    Some(finding)
}

/// The remote address that most TIME_WAITs of servers are with.
fn shared_address(evidence: &Evidence, netns: u32) -> Option<(Ipv6Addr, u64)> {
    let mut counts: HashMap<Ipv6Addr, u64, FixedState> = HashMap::default();
    let waits = evidence.sockets.iter().filter(|it| it.state == State::TimeWait && it.side == Side::Server);
    for socket in waits.filter(|it| it.netns == Some(netns)) {
        *counts.entry(socket.tuple.remote_ip).or_default() += 1;
    }
    let all: u64 = counts.values().sum();
    let most = counts.into_iter().max_by_key(|(ip, count)| (*count, *ip));
    most.filter(|(_, count)| *count >= MANY && *count * 2 >= all)
}

fn advise(evidence: &Evidence, netns: u32, is_shared: bool, finding: &mut Finding) {
    let is_time_wait = grown(evidence, netns, "PAWSTimewait") > 0;
    finding.why = if is_time_wait {
        "Several machines behind one address have different timestamp clocks. A SYN with an older one that meets a TIME_WAIT \
         of the same ports is answered with an ACK, which the client resets; it tries again after 1s."
    } else {
        "A segment with an older timestamp than the last one is taken for a late duplicate: it is dropped, and sent again."
    }
    .into();
    finding.remedies.push("Let the NAT in front use more source ports or addresses, if there is one".into());
    if is_time_wait {
        finding.remedies.push("Let the client's side close first: then no TIME_WAIT is in the way here".into());
    } else {
        finding.remedies.push("Find what changes timestamps on the way: a proxy, a middlebox, a restored VM".into());
    }
    finding
        .mistakes
        .push("set tcp_timestamps=0: round trips, PAWS and tcp_tw_reuse are lost for all connections".into());
    finding.mistakes.push("look for tcp_tw_recycle: Linux does not have it since 4.12".into());
    finding.sure = if is_shared {
        "certain that the kernel dropped them; that several machines share an address is likely"
    } else {
        "certain that the kernel dropped them; that several machines share an address is possible"
    }
    .into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, fired, nothing, queued};
    use super::*;
    use crate::study::diagnose::evidence::Counted;

    fn evidence(kernel: &str, segments: u64, grown: &[(&str, u64)]) -> Evidence {
        let mut evidence = nothing();
        evidence.about.kernel = kernel.into();
        let grown = grown.iter().map(|(name, more)| (format!("TcpExt.{name}").into(), *more));
        let grown = grown.chain([("Tcp.InSegs".into(), segments)]).collect();
        evidence.counters.insert(NETNS, Counted { grown, ..Counted::default() });
        evidence
    }

    #[rstest]
    #[case::few("6.18.1", 1_000, &[("PAWSEstab", 9)], false)]
    #[case::many("6.18.1", 1_000, &[("PAWSEstab", 10)], true)]
    #[case::together("6.18.1", 1_000, &[("PAWSEstab", 3), ("PAWSActive", 3), ("PAWSTimewait", 3), ("TSEcrRejected", 2)], true)]
    #[case::reordered("6.18.1", 1_000, &[("PAWSOldAck", 1_000), ("PAWSEstab", 9)], false)]
    #[case::a_small_part("6.18.1", 100_001, &[("PAWSEstab", 10)], false)]
    #[case::a_larger_part("6.18.1", 100_000, &[("PAWSEstab", 10)], true)]
    #[case::few_of_old("6.12.9", 1_000, &[("PAWSEstab", 99)], false)]
    #[case::many_of_old("6.12.9", 1_000, &[("PAWSEstab", 100)], true)]
    #[case::more_of_old("6.12.9", 1_000, &[("PAWSEstab", 101)], true)]
    fn thresholds(#[case] kernel: &str, #[case] segments: u64, #[case] grown: &[(&str, u64)], #[case] fires: bool) {
        assert_eq!(!fired(&RULE, &evidence(kernel, segments, grown)).is_empty(), fires);
    }

    #[test]
    fn words() {
        let mut evidence = evidence("6.18.1", 40_000, &[("PAWSTimewait", 300), ("PAWSEstab", 12), ("PAWSOldAck", 4)]);
        evidence.sockets = (1..=10).map(|conn| queued(conn, State::TimeWait, 3)).collect();
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "312 segments dropped in 10.0s because their timestamp went backwards (PAWSEstab 12, PAWSTimewait 300)"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "PAWSEstab 12, PAWSTimewait 300 of 40,000 segments that came in (0.8 %)",
                "PAWSOldAck 4: reordered ACKs, not counted in",
                "10 TIME_WAITs of listening ports are with 10.0.0.2",
            ]
        );
        assert!(finding.sure.ends_with("likely"), "{}", finding.sure);
    }

    #[test]
    fn many_counters_fit() {
        let many = COUNTERS.map(|name| (name, 4_294_967_295));
        let mut evidence = evidence("6.18.1", 40_000, &many);
        evidence.counters.insert(4_026_532_000, Counted::default());
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "netns 7: 17,179,869,180 segments dropped in 10.0s because their timestamp went backwards"
        );
    }
}
