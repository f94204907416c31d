//! TIME_WAITs on a listening port: they cost next to nothing.

use super::words::share;
use crate::model::tcp::{Closer, Side, State};
use crate::study::diagnose::evidence::{Evidence, Pair, Standings};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// 250 KiB of memory: below that nobody asks.
const MANY: u64 = 1_000;
/// From so many closes on, their share says something.
const CLOSES: u64 = 100;
/// So many of them by the server are its habit.
const ACTIVE: f64 = 0.9;
/// From there on they come near the limit of the network namespace.
const OF_LIMIT: f64 = 0.5;
/// What a mini-socket takes (`struct tcp_timewait_sock`, its slab), in bytes.
const MINI: u64 = 256;
pub(super) static RULE: Rule = Rule {
    id: "server-closes-first",
    title: "a server closes first, and its port has many TIME_WAITs",
    needs: &[Need::Events, Need::Sockets],
    figures: &[
        Figure { name: "time_waits", unit: "", doc: "TIME_WAITs of which the local port is the listener's." },
        Figure { name: "closes", unit: "", doc: "Connections of the listener that ended in the window." },
        Figure { name: "active_share", unit: "", doc: "The part of those that the server closed first." },
        Figure { name: "limit", unit: "", doc: "tcp_max_tw_buckets of the network namespace." },
    ],
    page: Page {
        sees: "Thousands of TIME_WAITs on the listening port, often taken for an attack.",
        fires: "1,000 or more TIME_WAITs have the listener's port (250 KiB; below that nobody asks), and the server closed \
                first 90 % or more of at least 100 connections.",
        silent: "The clients close first.",
        remedy: "Nothing, or, if connections are short, let clients keep them (keep-alive, HTTP/1.1).",
        sources: "RFC 9293 3.10.7.4, RFC 6191; tcp_timewait_state_process (net/ipv4/tcp_minisocks.c): a new SYN ends a \
                  TIME_WAIT.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let waits = evidence.standing(|it| it.state == State::TimeWait && it.pair.side == Side::Server);
    let ports: Vec<_> = evidence.servers().map(|pair| (pair, Port::of(evidence, pair, &waits))).collect();
    let findings = ports.iter().filter_map(|(pair, port)| finding(pair, port)).collect();
    let most = ports.iter().max_by_key(|(_, port)| port.time_waits);
    Outcome::of(findings, most.map(|(_, port)| port.figures()).unwrap_or_default())
}

/// A listening port.
struct Port {
    time_waits: u64,
    closes: u64,
    active: u64,
    limit: Option<u64>,
}

impl Port {
    fn of(evidence: &Evidence, pair: &Pair, waits: &Standings<'_>) -> Self {
        let undecided = pair.closed_by(Closer::NeverEstablished) + pair.closed_by(Closer::Unknown);
        let limit = evidence.number(pair.key.netns, "net.ipv4.tcp_max_tw_buckets");
        Self {
            time_waits: waits.get(&pair.key).map_or(0, Vec::len) as u64,
            closes: pair.ended() - undecided,
            active: pair.closed_by(Closer::Active),
            limit: limit.and_then(|limit| u64::try_from(limit).ok()),
        }
    }

    fn active_share(&self) -> f64 {
        share(self.active, self.closes)
    }

    fn figures(&self) -> Figures {
        vec![
            ("time_waits", Value::Count(self.time_waits)),
            ("closes", Value::Count(self.closes)),
            ("active_share", Value::Share(self.active_share())),
            ("limit", self.limit.into()),
        ]
    }
}

fn finding(pair: &Pair, port: &Port) -> Option<Finding> {
    if port.time_waits < MANY || port.closes < CLOSES || port.active_share() < ACTIVE {
        return None;
    }
    let of_limit = port.limit.map(|limit| share(port.time_waits, limit));
    let severity = if of_limit.is_some_and(|part| part >= OF_LIMIT) { Severity::Warning } else { Severity::Note };
    let (waits, memory) = (say::count(port.time_waits), say::bytes(port.time_waits * MINI));
    let base = format!("{} closes first on port {}: {waits} TIME_WAITs there", pair.process(), pair.key.port);
    let headline = say::fitting([
        format!("{base}, {memory}, no client port and no descriptor taken"),
        format!("{base}, {memory} and no client port"),
        base,
    ]);
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = pair.subject();
    finding.figures = port.figures();
    finding.count = port.time_waits;
    finding.line(
        "seen",
        format!(
            "{} of {} connections that ended were closed by the server first",
            say::count(port.active),
            say::count(port.closes)
        ),
    );
    if let (Some(limit), Some(part)) = (port.limit, of_limit) {
        let text = format!("tcp_max_tw_buckets={limit}: these are {} of it", say::percent(part));
        finding.line("sysctl", text);
    }
    finding.why =
        "Who closes first keeps the TIME_WAIT. On a listening port it costs memory only; a client may come back with \
                   the same port at once."
            .into();
    finding.remedies.push("Nothing needs to be done".into());
    finding.remedies.push("If connections are short, let clients keep them (keep-alive, HTTP/1.1)".into());
    finding.mistakes.push("set tcp_tw_reuse: it acts on connect() only and has no effect here".into());
    finding.mistakes.push("set SO_LINGER to 0: it closes by reset, and data is lost".into());
    finding.sure = "certain: counted".into();
    Some(finding)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, S, fired, long_name, pair, server_key, standing, with_settings};
    use super::*;
    use crate::model::tcp::End;
    use crate::study::diagnose::evidence::{Ended, Standing};

    fn closing(time_waits: u64, active: u64, passive: u64, limit: &str) -> Evidence {
        let mut evidence = with_settings(&[("net.ipv4.tcp_max_tw_buckets", limit)]);
        let mut pair = pair(server_key());
        let ended = |count| Ended { count, first: 1001 * S, last: 1009 * S, ..Ended::default() };
        pair.ends = vec![(End::Fin, Closer::Active, ended(active)), (End::Fin, Closer::Passive, ended(passive))];
        evidence.pairs.push(pair);
        let of = |conn| Standing {
            pair: server_key(),
            side: Side::Server,
            netns: Some(NETNS),
            ..standing(conn, State::TimeWait, 10)
        };
        evidence.sockets = (0..time_waits).map(of).collect();
        evidence
    }

    #[rstest]
    #[case::few(999, 100, 0, None)]
    #[case::many(1_000, 100, 0, Some(Severity::Note))]
    #[case::few_closes(1_000, 99, 0, None)]
    #[case::clients_close(1_000, 899, 101, None)]
    #[case::nine_tenths(1_000, 900, 100, Some(Severity::Note))]
    #[case::near_the_limit(4_096, 900, 100, Some(Severity::Warning))]
    #[case::not_near_the_limit(4_095, 900, 100, Some(Severity::Note))]
    fn thresholds(
        #[case] time_waits: u64,
        #[case] active: u64,
        #[case] passive: u64,
        #[case] expected: Option<Severity>,
    ) {
        let found = fired(&RULE, &closing(time_waits, active, passive, "8192"));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &closing(12_044, 5_000, 0, "131072"))[0];
        assert_eq!(
            finding.headline,
            "api[4711] closes first on port 80: 12,044 TIME_WAITs there, 2.9 MiB, no client port and no descriptor taken"
        );
        assert_eq!(finding.evidence[1].text, "tcp_max_tw_buckets=131072: these are 9.2 % of it");
    }

    #[test]
    fn a_long_name_fits() {
        let mut evidence = closing(12_044, 5_000, 0, "131072");
        evidence.pairs[0].tasks = vec![(long_name(), 5_000)];
        assert_eq!(
            fired(&RULE, &evidence)[0].headline,
            "fifteen-letters[4194304] closes first on port 80: 12,044 TIME_WAITs there, 2.9 MiB and no client port"
        );
    }
}
