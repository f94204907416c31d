//! A remote end that refuses connections.

use std::net::Ipv6Addr;

use super::group::{Group, by_remote};
use super::words::{share, window};
use crate::model::tcp::End;
use crate::study::diagnose::evidence::{Evidence, Listener, PairKey};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// From so many on it is no single restart.
const MANY: u64 = 10;
/// So few are enough where most connections fail.
const FEW: u64 = 3;
/// From this share on, the service does not work.
const MOST: f64 = 0.5;

pub(super) static RULE: Rule = Rule {
    id: "connect-refused",
    title: "a remote end refuses connections",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "refused", unit: "", doc: "Connections to the remote end that were answered with a reset." },
        Figure { name: "opened", unit: "", doc: "Connections to it that were opened." },
        Figure { name: "refused_share", unit: "", doc: "The part of those that was refused." },
        Figure {
            name: "is_listening",
            unit: "",
            doc: "Whether a listener of this host serves that address; null when it is remote or unknown.",
        },
    ],
    page: Page {
        sees: "connect() fails with ECONNREFUSED.",
        fires: "10 or more connections to a remote end were refused, or 3 or more that are at least half of those opened: \
                fewer can be a restart.",
        silent: "A single connection refused while a server restarts.",
        remedy: "Start the server, or correct the address. Check which address it listens on: 127.0.0.1 does not serve \
                 others, and ::1 does not serve 127.0.0.1.",
        sources: "RFC 9293 3.10.7.1: a reset answers a SYN where nobody listens. tcp_reset (net/ipv4/tcp_input.c).",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let groups = by_remote(evidence);
    let findings = groups.iter().filter_map(|group| finding(evidence, group)).collect();
    let most = groups.iter().max_by_key(|group| group.ended_by(End::Refused));
    Outcome::of(findings, most.map(|group| figures(evidence, group)).unwrap_or_default())
}

/// Refused connections, and opened ones: those that were refused were opened, be it before the window.
fn counts(group: &Group<'_>) -> (u64, u64) {
    let refused = group.ended_by(End::Refused);
    (refused, group.sum(|pair| pair.opened).max(refused))
}

fn figures(evidence: &Evidence, group: &Group<'_>) -> Figures {
    let (refused, opened) = counts(group);
    let is_listening = match group.pairs.first().map(|pair| Here::of(evidence, &pair.key, group)) {
        Some(Here::Served) => Value::Is(true),
        Some(Here::Nobody | Here::Other(_)) => Value::Is(false),
        _ => Value::Unknown,
    };
    vec![
        ("refused", Value::Count(refused)),
        ("opened", Value::Count(opened)),
        ("refused_share", Value::Share(share(refused, opened))),
        ("is_listening", is_listening),
    ]
}

fn finding(evidence: &Evidence, group: &Group<'_>) -> Option<Finding> {
    let (refused, opened) = counts(group);
    let part = share(refused, opened);
    if refused < FEW || refused < MANY && part < MOST {
        return None;
    }
    let key = &group.pairs.first()?.key;
    let here = Here::of(evidence, key, group);
    let remote = say::end(key.ip, key.port);
    let counted = format!(
        "{remote} refuses: {} of {} connections of {}",
        say::count(refused),
        say::count(opened),
        group.process()
    );
    let timed = format!("{counted} in {}", window(evidence));
    let nobody = if matches!(here, Here::Nobody | Here::Other(_)) { "; nobody listens there on this host" } else { "" };
    let headline = say::fitting([format!("{timed}{nobody}"), format!("{counted}{nobody}"), timed, counted]);
    let severity = if part >= MOST { Severity::Critical } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = group.subject();
    finding.figures = figures(evidence, group);
    finding.count = refused;
    (finding.first_seen, finding.last_seen) = group.seen(End::Refused);
    finding.examples = group.examples(End::Refused);
    describe(evidence, key, part, &here, &mut finding);
    finding.sure = "certain: each SYN was answered with a reset, or with an ICMP message that refuses it".into();
    Some(finding)
}

fn describe(evidence: &Evidence, key: &PairKey, part: f64, here: &Here, finding: &mut Finding) {
    let failed = evidence.grown(key.netns.unwrap_or(0), "Tcp.AttemptFails");
    if failed > 0 {
        let text = format!("AttemptFails grew by {} in this network namespace", say::count(failed));
        finding.line("/proc/net/snmp", text);
    }
    match here {
        Here::Nobody => {
            finding.line("sock_diag", format!("no listener has port {} in any network namespace", key.port));
        }
        Here::Other(text) => finding.line("sock_diag", text.clone()),
        Here::Served => finding.line("sock_diag", "a listener serves this address now"),
        Here::Remote | Here::Unknown => {}
    }
    if part < 1.0 {
        finding.why =
            "Some connections got through: one of several servers behind the address is down, the server was away \
                       for a while, or it resets when its accept queue is full (tcp_abort_on_overflow)."
                .into();
        finding.remedies.push("Find the server that is down: compare when the refusals happened with its log".into());
    } else {
        finding.why = "Nothing listens at this address and port, or a firewall rejects the SYN.".into();
        finding.remedies.push("Start the server, or correct the address that the client uses".into());
    }
    if matches!(here, Here::Other(_)) {
        finding.remedies.push("Have the server listen on the address that the client uses".into());
    }
}

/// Whether this host serves the remote end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Here {
    /// The address is not one of this host, as far as its sockets tell.
    Remote,
    /// It is, but nobody knows the listeners.
    Unknown,
    /// Nobody listens on the port.
    Nobody,
    /// Somebody does, but not for this address: in words.
    Other(String),
    /// Somebody does.
    Served,
}

impl Here {
    fn of(evidence: &Evidence, key: &PairKey, group: &Group<'_>) -> Self {
        if !is_of_this_host(evidence, key, group) {
            return Self::Remote;
        }
        if evidence.lacks(Need::AcceptQueues).is_some() {
            return Self::Unknown;
        }
        let with_port = || evidence.listeners.iter().filter(|it| it.queue.port == key.port);
        let is_near = |it: &&Listener| it.netns == key.netns;
        if with_port().filter(is_near).any(|it| serves(it.queue.ip, key.ip)) {
            return Self::Served;
        }
        if let Some(near) = with_port().find(is_near) {
            let (address, who) = (say::end(near.queue.ip, key.port), who(near));
            return Self::Other(format!("{who} listens on {address}, which does not serve this address"));
        }
        match with_port().next() {
            Some(far) => Self::Other(format!("{} listens on port {} in another network namespace", who(far), key.port)),
            None => Self::Nobody,
        }
    }
}

fn who(listener: &Listener) -> String {
    listener.task.map_or_else(|| "a process".to_owned(), say::process)
}

/// Whether a socket of the namespace has the address as its own.
fn is_of_this_host(evidence: &Evidence, key: &PairKey, group: &Group<'_>) -> bool {
    let own = say::address(key.ip);
    let refused = group.ended_as(End::Refused).flat_map(|(_, ended)| &ended.examples);
    own.is_loopback()
        || refused.map(|example| example.local.ip()).any(|ip| ip == own)
        || evidence.sockets.iter().any(|it| it.netns == key.netns && it.tuple.local_ip == key.ip)
        || evidence.listeners.iter().any(|it| it.netns == key.netns && it.queue.ip == key.ip)
}

/// Whether a listener's address takes connections to another one. `::` takes IPv4 too, unless it is `IPV6_V6ONLY`.
fn serves(listener: Ipv6Addr, address: Ipv6Addr) -> bool {
    let is_any_ipv4 = listener.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified());
    listener == address || listener.is_unspecified() || is_any_ipv4 && address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rstest::rstest;

    use super::super::testing::{NETNS, fired, listener, nothing, pair_ended};
    use super::*;
    use crate::study::diagnose::evidence::Pair;

    fn refused(refused: u64, opened: u64) -> Evidence {
        let mut evidence = nothing();
        evidence.pairs.push(Pair { opened, ..pair_ended(End::Refused, refused) });
        evidence
    }

    #[rstest]
    #[case::a_restart(2, 2, None)]
    #[case::few_of_all(3, 3, Some(Severity::Critical))]
    #[case::half(3, 6, Some(Severity::Critical))]
    #[case::fewer_than_half(3, 7, None)]
    #[case::not_yet_many(9, 1_000, None)]
    #[case::many(10, 1_000, Some(Severity::Warning))]
    #[case::opened_before_the_window(3, 0, Some(Severity::Critical))]
    fn thresholds(#[case] number: u64, #[case] opened: u64, #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &refused(number, opened));
        assert_eq!(found.iter().map(|it| it.severity).next(), expected);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &refused(480, 480))[0];
        assert_eq!(finding.headline, "10.0.0.9:6379 refuses: 480 of 480 connections of api[4711] in 10.0s");
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(
            (finding.first_seen, finding.last_seen, finding.count),
            (Some(1001 * 1_000_000_000), Some(1009 * 1_000_000_000), 480)
        );
    }

    /// Whoever connects to this host can be told who listens there.
    #[rstest]
    #[case::nobody(None, "; nobody listens there on this host", "no listener has port 6379 in any network namespace")]
    #[case::another_address(
        Some((NETNS, [127, 0, 0, 2])),
        "; nobody listens there on this host",
        "redis[12] listens on 127.0.0.2:6379, which does not serve this address"
    )]
    #[case::another_namespace(
        Some((8, [0, 0, 0, 0])),
        "; nobody listens there on this host",
        "redis[12] listens on port 6379 in another network namespace"
    )]
    #[case::somebody(Some((NETNS, [0, 0, 0, 0])), "", "a listener serves this address now")]
    fn who_listens_here(#[case] listens: Option<(u32, [u8; 4])>, #[case] ending: &str, #[case] line: &str) {
        let mut evidence = refused(480, 480);
        evidence.pairs[0].key.ip = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        evidence.listeners = listens.map(|(netns, ip)| listener(netns, ip.into(), 6379)).into_iter().collect();
        let finding = &fired(&RULE, &evidence)[0];
        let expected = format!("127.0.0.1:6379 refuses: 480 of 480 connections of api[4711] in 10.0s{ending}");
        assert_eq!(finding.headline, expected);
        assert_eq!(finding.evidence[0].text, line);
    }

    #[test]
    fn without_listeners_nothing_is_said_of_them() {
        let mut evidence = refused(480, 480);
        evidence.pairs[0].key.ip = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        evidence.missing.insert(Need::AcceptQueues, "needs root".into());
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.evidence.len(), finding.figures[3].1), (0, Value::Unknown));
    }
}
