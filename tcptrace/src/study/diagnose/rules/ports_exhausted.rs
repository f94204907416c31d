//! connect() finds no local port.

use std::net::{IpAddr, Ipv6Addr};

use super::words::window;
use crate::model::tcp::End;
use crate::study::diagnose::evidence::{Evidence, KeyBudget, Pair};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::{budgets, say};

pub(super) static RULE: Rule = Rule {
    id: "ports-exhausted",
    title: "connect() fails because no local port is left",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "failed", unit: "", doc: "Connections that got no local port (EADDRNOTAVAIL)." },
        Figure { name: "usable", unit: "", doc: "Local ports that there are; null when the settings are unknown." },
        Figure { name: "taken", unit: "", doc: "Of those, the ones that the destination takes at the end." },
        Figure { name: "time_wait", unit: "", doc: "Of those, the ones in TIME_WAIT." },
        Figure { name: "demand", unit: "", doc: "Ports that are taken in the end, at the rate of the window." },
        Figure {
            name: "sustainable",
            unit: "1/s",
            doc: "The most connections a second that the ports allow for long.",
        },
    ],
    page: Page {
        sees: "\"Cannot assign requested address\": connects fail while nothing is wrong with the server.",
        fires: "At least one connect() failed with EADDRNOTAVAIL. One is enough: this error has one usual cause. No SYN was \
                sent, and no counter of the kernel counts it.",
        silent: "All ports are taken towards another destination: each has its own.",
        remedy: "A connection pool; more destination addresses or ports; a wider net.ipv4.ip_local_port_range. Last, \
                 net.ipv4.tcp_tw_reuse=1, where both ends use TCP timestamps and nobody binds before connect().",
        sources: "__inet_hash_connect (net/ipv4/inet_hashtables.c); RFC 6056; RFC 9293 3.6.1.",
    },
    check,
};

/// Failures of one pair.
struct Failures<'e> {
    pair: &'e Pair,
    failed: u64,
    /// The address that they came from, as far as an example tells.
    source: Option<IpAddr>,
    /// The ports were chosen by bind(), and each is in use with this peer.
    were_bound: bool,
    budget: Option<&'e KeyBudget>,
}

fn check(evidence: &Evidence) -> Outcome {
    let all: Vec<_> = evidence.pairs.iter().filter_map(|pair| Failures::of(evidence, pair)).collect();
    let findings = all.iter().map(|failures| finding(evidence, failures)).collect();
    Outcome::of(findings, figures(0, evidence.budgets.keys.first()))
}

impl<'e> Failures<'e> {
    fn of(evidence: &'e Evidence, pair: &'e Pair) -> Option<Self> {
        let failed = pair.ended_by(End::NoLocalPort);
        if failed == 0 {
            return None;
        }
        let examples = || pair.ended_as(End::NoLocalPort).flat_map(|(_, ended)| &ended.examples);
        let source = examples().next().map(|example| example.local.ip()).filter(|ip| !ip.is_unspecified());
        let mapped = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let own = source.map(mapped).and_then(|ip: Ipv6Addr| budgets::of_key(evidence, pair, ip));
        // The kernel takes the port away again where it had chosen it.
        let were_bound = examples().next().is_some() && examples().all(|example| example.local.port() != 0);
        let budget = if source.is_some() { own } else { budgets::of_pair(evidence, pair) };
        Some(Self { pair, failed, source, were_bound, budget })
    }

    /// Nothing is left now either.
    fn is_full(&self) -> bool {
        self.budget.is_some_and(|it| it.budget.free == 0)
    }
}

fn figures(failed: u64, budget: Option<&KeyBudget>) -> Figures {
    let budget = budget.map(|it| &it.budget);
    let demand = budget.and_then(|it| it.forecast).map(|it| it.demand.round() as u64);
    vec![
        ("failed", Value::Count(failed)),
        ("usable", budget.map(|it| it.usable).into()),
        ("taken", budget.map(|it| it.taken).into()),
        ("time_wait", budget.map(|it| it.time_wait).into()),
        ("demand", demand.into()),
        ("sustainable", budget.map_or(Value::Unknown, |it| Value::Rate(it.sustainable))),
    ]
}

fn finding(evidence: &Evidence, failures: &Failures<'_>) -> Finding {
    let Failures { pair, failed, budget, .. } = failures;
    let times = || pair.ended_as(End::NoLocalPort).map(|(_, ended)| ended);
    let (first, last) = (times().map(|it| it.first).min(), times().map(|it| it.last).max());
    let is_over = evidence.about.is_trace && last.is_some_and(|at| !evidence.about.is_recent(at));
    let severity = if is_over { Severity::Warning } else { Severity::Critical };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, failures));
    finding.subject = pair.subject();
    finding.subject.local = failures.source.map(|ip| (ip, 0).into());
    finding.figures = figures(*failed, *budget);
    finding.count = *failed;
    (finding.first_seen, finding.last_seen) = (first, last);
    finding.seconds_left = (!is_over).then_some(0.0);
    finding.examples = times().flat_map(|it| it.examples.iter().cloned()).take(5).collect();
    if let Some(last) = last {
        let ago = say::time(evidence.about.to.saturating_sub(last));
        finding.line(
            "seen",
            format!("{} failed with EADDRNOTAVAIL, the last one {ago} before the end", say::count(*failed)),
        );
    }
    if failures.were_bound {
        of_bound(&mut finding);
        return finding;
    }
    match budget {
        Some(key) => {
            budgets::describe(evidence, &key.budget, &mut finding);
            finding.line("sock_diag", format!("taken by {}", budgets::holders(&key.budget)));
            budgets::advise(key, &mut finding);
        }
        None => {
            let netns = pair.key.netns;
            let is_known = evidence.setting(netns, "net.ipv4.ip_local_port_range").is_some();
            let text = if is_known { "no socket takes a port of this destination now" } else { "range not recorded" };
            finding.line("sysctl", text);
            finding.remedies.push("Keep connections open: a connection pool, or keep-alive".into());
        }
    }
    finding.why =
        "A local port stays taken for 61s after this side has closed. The limit is for one destination: connections \
                   to others still work."
            .into();
    finding.sure = "certain: the kernel found no port, and sent no SYN".into();
    finding
}

/// The program asks for a port, which a TIME_WAIT or a connection with the same peer has.
fn of_bound(finding: &mut Finding) {
    finding.why =
        "The program binds a port before connect(), and a connection or a TIME_WAIT with the same peer has that \
                   port. Other ports would work."
            .into();
    finding.remedies.push("Do not bind a port before connect(), or set IP_BIND_ADDRESS_NO_PORT and bind port 0".into());
    finding.sure = "certain: these sockets had a port when connect() failed".into();
}

fn headline(evidence: &Evidence, failures: &Failures<'_>) -> String {
    let Failures { pair, failed, budget, .. } = failures;
    let times = if *failed == 1 { "once".to_owned() } else { format!("{} times", say::count(*failed)) };
    let (process, remote) = (pair.process(), pair.end());
    let timed = format!("{process} failed {times} in {}", window(evidence));
    if failures.were_bound {
        return say::fitting([
            format!("{timed} to connect to {remote}: the port that it binds is in use with that peer"),
            format!("{process} failed {times} to connect to {remote}: the port that it binds is in use"),
        ]);
    }
    let of = failures.source.map_or(String::new(), |ip| format!(" of {ip}"));
    let usable = budget.filter(|_| failures.is_full()).map(|it| say::count(it.budget.usable).to_string());
    let (ports, short) = match usable {
        Some(usable) => {
            (format!("all {usable} local ports{of} are taken"), format!("all {usable} local ports are taken"))
        }
        None => (format!("no local port{of} was left"), "no local port was left".to_owned()),
    };
    say::fitting([
        format!("{timed} to open a connection to {remote}: {ports}"),
        format!("{timed} to connect to {remote}: {ports}"),
        format!("{timed} to connect to {remote}: {short}"),
        format!("{process} failed {times} to connect to {remote}: {short}"),
    ])
}

#[cfg(test)]
pub(in crate::study::diagnose) mod tests {
    use super::super::testing::{S, client_key, fired, nothing, pair_ended, standing, tuple, with_settings};
    use super::*;
    use crate::model::row::Held;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::Budgets;
    use crate::study::diagnose::finding::Example;

    /// So many failed, from a port, or from none yet; 100 ports, and so many of them are in TIME_WAIT.
    pub(in crate::study::diagnose) fn failing(failed: u64, port: u16, time_waits: u64) -> Evidence {
        let mut evidence = with_settings(&[("net.ipv4.ip_local_port_range", "40000 40099")]);
        let mut pair = pair_ended(End::NoLocalPort, failed);
        let tuple = tuple((1, port), (9, 6379));
        let example = Example {
            conn: 1,
            local: tuple.local(),
            remote: tuple.remote(),
            state: State::Closed,
            age: Held::Unknown,
            pid: Some(4711),
            fd: None,
        };
        pair.ends[0].2.examples = vec![example];
        evidence.pairs.push(pair);
        evidence.sockets = (0..time_waits).map(|conn| standing(conn, State::TimeWait, 10)).collect();
        evidence.budgets = Budgets::of(&evidence);
        evidence
    }

    #[test]
    fn one_is_enough() {
        assert_eq!(fired(&RULE, &nothing()), []);
        let mut evidence = failing(1, 0, 100);
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Critical);
        evidence.pairs.clear();
        assert_eq!(fired(&RULE, &evidence), [], "a full range alone is another rule's");
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &failing(214, 0, 100))[0];
        let expected = "api[4711] failed 214 times in 10.0s to connect to 10.0.0.9:6379: all 100 local ports of 10.0.0.1 are taken";
        assert_eq!(finding.headline, expected);
        let lines: Vec<_> = finding.evidence.iter().map(|it| &*it.text).collect();
        assert_eq!(
            lines,
            [
                "214 failed with EADDRNOTAVAIL, the last one 1.00s before the end",
                "range 40000–40099, 0 reserved, 0 blocked by bind(); ≤100 usable, 100 taken: 0 open, 100 TIME_WAIT",
                "taken by api[4711] 100",
            ]
        );
        assert_eq!(finding.subject.local.map(|it| it.to_string()).as_deref(), Some("10.0.0.1:0"));
    }

    /// Ports that are free again are not called taken.
    #[test]
    fn what_was_full_is_not_full_now() {
        let finding = &fired(&RULE, &failing(1, 0, 99))[0];
        let expected =
            "api[4711] failed once in 10.0s to open a connection to 10.0.0.9:6379: no local port of 10.0.0.1 was left";
        assert_eq!(finding.headline, expected);
        let mut evidence = failing(1, 0, 0);
        evidence.settings.clear();
        assert_eq!(fired(&RULE, &evidence)[0].evidence[1].text, "range not recorded");
    }

    #[test]
    fn a_port_of_its_own_choice_is_another_cause() {
        let finding = &fired(&RULE, &failing(3, 40_001, 1))[0];
        let expected = "api[4711] failed 3 times in 10.0s to connect to 10.0.0.9:6379: the port that it binds is in use with that peer";
        assert_eq!(finding.headline, expected);
    }

    #[test]
    fn in_a_trace_it_may_be_over() {
        let mut evidence = failing(1, 0, 100);
        evidence.about.is_trace = true;
        evidence.about.to = 1069 * S;
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Critical);
        evidence.about.to += 1;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.severity, finding.seconds_left), (Severity::Warning, None));
        assert_eq!(finding.subject.remote, Some(say::end(client_key().ip, 6379)));
    }
}
