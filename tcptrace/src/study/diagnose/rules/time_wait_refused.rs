//! Connections that are closed without a TIME_WAIT, because there are as many as may be.

use super::words::{share, window};
use crate::model::tcp::{State, TimeWaitEnd};
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// The setting, of each network namespace.
const NAME: &str = "net.ipv4.tcp_max_tw_buckets";
/// From this share on, the limit is near.
const NEAR: f64 = 0.8;

pub(super) static RULE: Rule = Rule {
    id: "time-wait-refused",
    title: "tcp_max_tw_buckets is reached, and connections close without a TIME_WAIT",
    needs: &[],
    figures: &[
        Figure { name: "refused", unit: "", doc: "Connections that were closed without a TIME_WAIT in the window." },
        Figure { name: "time_waits", unit: "", doc: "Mini-sockets of the network namespace at the end." },
        Figure { name: "limit", unit: "", doc: "tcp_max_tw_buckets of the network namespace." },
        Figure { name: "used_share", unit: "", doc: "The part of the limit that is used; null when it is unknown." },
    ],
    page: Page {
        sees: "Closes lose their TIME_WAIT, and peers get a reset in answer to their FIN.",
        fires: "One connection or more was closed without a TIME_WAIT, or 80 % of tcp_max_tw_buckets are used.",
        silent: "Fewer TIME_WAITs than that.",
        remedy: "Raise net.ipv4.tcp_max_tw_buckets (256 B each), and remove what makes so many.",
        sources: "inet_twsk_alloc, tcp_time_wait (net/ipv4): TCPTimeWaitOverflow; RFC 1337.",
    },
    check,
};

/// The TIME_WAITs of a network namespace.
#[derive(Debug)]
struct Waits {
    netns: u32,
    refused: u64,
    time_waits: u64,
    limit: Option<u64>,
    /// How many more there are each second.
    growth: f64,
}

fn check(evidence: &Evidence) -> Outcome {
    let missing = |need| evidence.lacks(need);
    if let (Some(reason), Some(_)) = (missing(Need::Events), missing(Need::Counters)) {
        return Outcome::NotChecked(reason);
    }
    let mut places: Vec<u32> = evidence.about.namespaces.iter().chain(evidence.counters.keys()).copied().collect();
    places.extend(evidence.pairs.iter().filter_map(|pair| pair.key.netns));
    places.sort_unstable();
    places.dedup();
    let all: Vec<_> = places.into_iter().map(|netns| Waits::of(evidence, netns)).collect();
    let findings = all.iter().filter_map(|waits| finding(evidence, waits, &all)).collect();
    let fullest = all.iter().max_by(|one, other| one.used().total_cmp(&other.used()));
    Outcome::of(findings, fullest.map(Waits::figures).unwrap_or_default())
}

impl Waits {
    fn of(evidence: &Evidence, netns: u32) -> Self {
        let pairs = || evidence.pairs.iter().filter(|pair| pair.key.netns == Some(netns));
        let refused: u64 = pairs().map(|pair| pair.time_waits_by(TimeWaitEnd::Refused)).sum();
        let level = evidence.counters.get(&netns).and_then(|counted| counted.levels.get("sockstat.TCP.tw")).copied();
        let standing = evidence.sockets.iter().filter(|it| it.netns == Some(netns) && it.state == State::TimeWait);
        let stays = || pairs().filter_map(|pair| pair.stay(State::TimeWait));
        let (entered, left): (u64, u64) = stays().fold((0, 0), |sum, it| (sum.0 + it.entered, sum.1 + it.left));
        let limit = evidence.number(Some(netns), NAME).and_then(|limit| u64::try_from(limit).ok());
        Self {
            netns,
            // Both count the same.
            refused: refused.max(evidence.grown(netns, "TcpExt.TCPTimeWaitOverflow")),
            time_waits: level.unwrap_or_else(|| standing.count() as u64),
            limit,
            growth: evidence.about.per_second(entered.saturating_sub(left)),
        }
    }

    fn used(&self) -> f64 {
        self.limit.map_or(0.0, |limit| share(self.time_waits, limit))
    }

    /// Until the limit is reached.
    fn seconds_left(&self) -> Option<f64> {
        let room = self.limit?.saturating_sub(self.time_waits);
        (self.growth > 0.0).then(|| room as f64 / self.growth)
    }

    fn figures(&self) -> Figures {
        vec![
            ("refused", Value::Count(self.refused)),
            ("time_waits", Value::Count(self.time_waits)),
            ("limit", self.limit.into()),
            ("used_share", self.limit.map_or(Value::Unknown, |_| Value::Share(self.used()))),
        ]
    }
}

fn finding(evidence: &Evidence, waits: &Waits, all: &[Waits]) -> Option<Finding> {
    if waits.refused == 0 && waits.used() < NEAR {
        return None;
    }
    // Every namespace begins with the same limit: one that has less was given it.
    let was_lowered = all.iter().any(|other| other.limit > waits.limit);
    let is_harmless = waits.refused == 0 && was_lowered;
    let severity = if is_harmless { Severity::Note } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, waits, all.len()));
    finding.subject = Subject { netns: Some(waits.netns), ..Subject::default() };
    finding.figures = waits.figures();
    finding.count = if waits.refused > 0 { waits.refused } else { waits.time_waits };
    if waits.refused == 0 {
        finding.seconds_left = waits.seconds_left();
    }
    let (used, limit) = (say::count(waits.time_waits), waits.limit.map_or("unknown".into(), |it| it.to_string()));
    finding.line("sockstat", format!("{used} mini-sockets at the end; {NAME}={limit}"));
    let overflow = evidence.grown(waits.netns, "TcpExt.TCPTimeWaitOverflow");
    if overflow > 0 {
        finding.line("/proc/net/netstat", format!("TCPTimeWaitOverflow grew by {}", say::count(overflow)));
    }
    finding.why =
        "Without a TIME_WAIT, a late packet of the old connection can reach a new one, and a peer whose last ACK got \
                   lost is reset."
            .into();
    finding.remedies.push("Find what makes so many: a missing connection pool, or a server that closes first".into());
    finding.remedies.push("Raise net.ipv4.tcp_max_tw_buckets (256 B each: 262144 are 64 MiB)".into());
    finding.mistakes.push("lower it to get rid of TIME_WAITs".into());
    finding.sure = "certain: the kernel counts it; a shortage of memory would show as one".into();
    Some(finding)
}

fn headline(evidence: &Evidence, waits: &Waits, namespaces: usize) -> String {
    let place = if namespaces > 1 { format!("netns {}: ", waits.netns) } else { String::new() };
    let limit = waits.limit.map(|limit| say::count(limit).to_string());
    if waits.refused == 0 {
        let (used, limit) = (say::count(waits.time_waits), limit.unwrap_or_default());
        let soon = waits.seconds_left().map_or(String::new(), |it| format!(", the last one in {}", say::seconds(it)));
        let percent = say::percent(waits.used());
        return format!("{place}{used} of {limit} TIME_WAITs that tcp_max_tw_buckets allows ({percent}){soon}");
    }
    let time = if evidence.about.traced_ns > 0 { format!(" in {}", window(evidence)) } else { String::new() };
    let counted = format!("{place}{} closed without TIME_WAIT{time}", say::counted(waits.refused, "connection"));
    match limit {
        Some(limit) => say::fitting([
            format!("{counted}: all {limit} of tcp_max_tw_buckets are taken"),
            format!("{counted}: tcp_max_tw_buckets is {limit}"),
        ]),
        None => counted,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, S, client_key, fired, pair, with_settings};
    use super::*;
    use crate::study::diagnose::evidence::{Counted, Spread, Stays};

    fn waits(refused: u64, overflow: u64, used: u64, limit: &str) -> Evidence {
        let mut evidence = with_settings(&[(NAME, limit)]);
        let mut pair = pair(client_key());
        pair.time_waits.push((TimeWaitEnd::Refused, refused, Spread::default()));
        evidence.pairs.push(pair);
        let mut counted = Counted::default();
        counted.grown.insert("TcpExt.TCPTimeWaitOverflow".into(), overflow);
        counted.levels.insert("sockstat.TCP.tw".into(), used);
        evidence.counters.insert(NETNS, counted);
        evidence
    }

    #[rstest]
    #[case::nothing(0, 0, 10, "131072", None)]
    #[case::seen(1, 0, 10, "131072", Some(1))]
    #[case::counted(0, 1, 10, "131072", Some(1))]
    #[case::both_are_one(20, 20, 10, "10", Some(20))]
    #[case::not_near(0, 0, 799, "1000", None)]
    #[case::near(0, 0, 800, "1000", Some(800))]
    fn thresholds(
        #[case] refused: u64,
        #[case] overflow: u64,
        #[case] used: u64,
        #[case] limit: &str,
        #[case] expected: Option<u64>,
    ) {
        let found = fired(&RULE, &waits(refused, overflow, used, limit));
        assert_eq!(found.first().map(|it| it.count), expected);
        assert!(found.iter().all(|it| it.severity == Severity::Warning));
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &waits(2_310, 2_310, 8_192, "8192"))[0];
        let expected = "2,310 connections closed without TIME_WAIT in 10.0s: all 8,192 of tcp_max_tw_buckets are taken";
        assert_eq!(finding.headline, expected);
    }

    #[test]
    fn the_time_left_is_told() {
        let mut evidence = waits(0, 0, 800, "1000");
        evidence.pairs[0].stays.push((State::TimeWait, Stays { entered: 150, left: 50, ..Stays::default() }));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.seconds_left, Some(20.0));
        let expected = "800 of 1,000 TIME_WAITs that tcp_max_tw_buckets allows (80 %), the last one in 20.0s";
        assert_eq!(finding.headline, expected);
    }

    /// Its own limit is less than what another namespace of this host began with.
    #[test]
    fn a_lowered_limit_that_refuses_nothing_is_noted() {
        let mut evidence = waits(0, 0, 800, "1000");
        evidence.about.namespaces.push(NETNS + 1);
        let values = [(NAME.into(), "131072".into())].into();
        let settings = crate::model::facts::Settings { at: S, netns: Some(NETNS + 1), values };
        evidence.settings.insert(Some(NETNS + 1), settings);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.severity, Severity::Note);
        assert!(finding.headline.starts_with("netns 7: 800 of 1,000"), "{}", finding.headline);
    }

    #[test]
    fn without_events_and_counters_it_is_not_checked() {
        let mut evidence = waits(0, 0, 0, "1");
        evidence.missing.insert(Need::Counters, "needs root".into());
        assert!(matches!(check(&evidence), Outcome::Fired(_) | Outcome::Silent(_)));
        evidence.missing.insert(Need::Events, "needs time (--duration 10s)".into());
        assert_eq!(check(&evidence), Outcome::NotChecked("needs time (--duration 10s)".into()));
    }
}
