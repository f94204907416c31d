//! A peer that has stopped answering, so that its connections die of a timeout.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv6Addr;

use super::words::of_process;
use crate::model::tcp::{Closer, End, Side, State, Task};
use crate::study::diagnose::evidence::{Ended, Evidence, Pair, Spread, Standing};
use crate::study::diagnose::finding::{Confidence, EXAMPLES, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// One or two can be a single host that was switched off in the middle of its work.
const MANY: u64 = 3;
/// So long before, a connection was idle: no usual `tcp_retries2` lets one live for so long.
const IDLE_NS: u64 = 1_800_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "dead-peer",
    title: "a peer has stopped answering, and its connections die of timeouts",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "died", unit: "", doc: "Open connections with one remote address that a timeout ended." },
        Figure { name: "retransmit", unit: "", doc: "Of those, by retransmissions without an answer (tcp_retries2)." },
        Figure { name: "keepalive", unit: "", doc: "Of those, by keepalive probes without an answer." },
        Figure { name: "user_timeout", unit: "", doc: "Of those, by TCP_USER_TIMEOUT." },
        Figure {
            name: "ended",
            unit: "",
            doc: "All connections with it that ended; of servers, all of the same ports.",
        },
        Figure { name: "alive", unit: "", doc: "Connections with it that are in ESTABLISHED at the end." },
        Figure {
            name: "quiet_p50_ns",
            unit: "ns",
            doc: "How long nothing had been received before the end, at the median; null when unknown.",
        },
    ],
    page: Page {
        sees: "\"Connection timed out\" (ETIMEDOUT) on connections that were open, often many at once and after a quarter of an \
               hour.",
        fires: "A timeout ended 3 or more open connections with one remote address in the window: retransmissions, keepalive \
                probes or TCP_USER_TIMEOUT. One or two can be a single host that was switched off. Critical if no connection \
                with it ended otherwise, and none is open.",
        silent: "A single connection that dies; connections that time out while they are opened (connect-timeout) or closed (fin-unanswered).",
        remedy: "Set TCP_USER_TIMEOUT (20 to 30s) in the client, and keepalive for connections that are idle.",
        sources: "RFC 5482, RFC 1122 4.2.3.5; tcp_write_timeout, tcp_keepalive_timer (net/ipv4/tcp_timer.c).",
    },
    check,
};

/// What died with one remote address.
#[derive(Default)]
struct Dead<'e> {
    netns: Option<u32>,
    ip: Option<Ipv6Addr>,
    retransmit: u64,
    keepalive: u64,
    user_timeout: u64,
    pairs: Vec<&'e Pair>,
    alive: u64,
}

impl Dead<'_> {
    fn died(&self) -> u64 {
        self.retransmit + self.keepalive + self.user_timeout
    }

    fn ended(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.ended()).sum()
    }

    fn is_found(&self) -> bool {
        self.died() >= MANY
    }

    /// Nothing of it is left, and nothing ended otherwise.
    fn is_all(&self) -> bool {
        self.alive == 0 && self.died() >= self.ended()
    }

    /// The pairs that some died of.
    fn struck(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().copied().filter(|pair| died(pair).next().is_some())
    }

    /// Those that died, of all its pairs: of a server's, those of other remote addresses too.
    fn ends(&self) -> impl Iterator<Item = &Ended> {
        self.pairs.iter().flat_map(|pair| died(pair)).map(|(_, ended)| ended)
    }

    fn quiet(&self) -> Spread {
        let mut quiet = Spread::default();
        self.ends().for_each(|ended| quiet.merge(&ended.received_idle));
        quiet
    }

    fn tasks(&self) -> Vec<Task> {
        let mut seen = HashSet::new();
        let tasks = self.struck().flat_map(|pair| pair.tasks.iter().map(|(task, _)| *task));
        tasks.filter(|task| seen.insert(task.pid)).collect()
    }

    /// What most of them died of.
    fn cause(&self) -> &'static str {
        let most = self.retransmit.max(self.keepalive).max(self.user_timeout);
        if most == self.retransmit {
            "retransmissions without an answer"
        } else if most == self.keepalive {
            "keepalive probes without an answer"
        } else {
            "TCP_USER_TIMEOUT"
        }
    }
}

/// Open connections of a pair that a timeout ended.
fn died(pair: &Pair) -> impl Iterator<Item = (End, &Ended)> {
    let ends = pair.ends.iter().filter(|(end, closer, _)| {
        *closer == Closer::Timeout && matches!(end, End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout)
    });
    ends.map(|(end, _, ended)| (*end, ended))
}

fn check(evidence: &Evidence) -> Outcome {
    let mut all = dead(evidence);
    all.sort_by_key(|it| (std::cmp::Reverse(it.died()), it.netns, it.ip));
    let findings = all.iter().filter(|it| it.is_found()).map(finding).collect();
    let nothing = Dead::default();
    Outcome::of(findings, figures(all.first().unwrap_or(&nothing)))
}

/// By remote address.
fn dead(evidence: &Evidence) -> Vec<Dead<'_>> {
    let mut all: BTreeMap<(Option<u32>, Ipv6Addr), Dead<'_>> = BTreeMap::new();
    for pair in &evidence.pairs {
        for (end, ended) in died(pair) {
            for (ip, count) in &ended.remotes {
                let dead = all.entry((pair.key.netns, *ip)).or_default();
                match end {
                    End::KeepaliveTimeout => dead.keepalive += count,
                    End::UserTimeout => dead.user_timeout += count,
                    _ => dead.retransmit += count,
                }
            }
        }
    }
    for ((netns, ip), dead) in &mut all {
        (dead.netns, dead.ip) = (*netns, Some(*ip));
        let is_of_it = |pair: &&Pair| {
            let is_client = pair.key.side == Side::Client && pair.key.ip == *ip;
            pair.key.netns == *netns
                && (is_client || died(pair).any(|(_, ended)| ended.remotes.iter().any(|it| it.0 == *ip)))
        };
        dead.pairs = evidence.pairs.iter().filter(is_of_it).collect();
        let of_it = dead.pairs.iter().map(|pair| pair.key).collect::<Vec<_>>();
        let is_alive = |socket: &&Standing| {
            socket.state == State::Established && socket.tuple.remote_ip == *ip && of_it.contains(&socket.pair)
        };
        dead.alive = evidence.sockets.iter().filter(is_alive).count() as u64;
    }
    all.into_values().collect()
}

fn figures(dead: &Dead<'_>) -> Figures {
    vec![
        ("died", Value::Count(dead.died())),
        ("retransmit", Value::Count(dead.retransmit)),
        ("keepalive", Value::Count(dead.keepalive)),
        ("user_timeout", Value::Count(dead.user_timeout)),
        ("ended", Value::Count(dead.ended())),
        ("alive", Value::Count(dead.alive)),
        ("quiet_p50_ns", dead.quiet().percentile(50).map_or(Value::Unknown, Value::Ns)),
    ]
}

fn finding(dead: &Dead<'_>) -> Finding {
    let severity = if dead.is_all() { Severity::Critical } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(dead));
    let tasks = dead.tasks();
    let first = dead.struck().next().map(|pair| pair.key);
    let is_one = dead.struck().count() == 1;
    let remote = match first {
        Some(key) if is_one && key.side == Side::Client => Some(say::end(key.ip, key.port)),
        _ => dead.ip.map(|ip| say::end(ip, 0)),
    };
    finding.subject = Subject {
        task: tasks.first().copied().filter(|_| tasks.len() == 1),
        cgroup: first.filter(|_| is_one).and_then(|key| key.cgroup),
        netns: dead.netns,
        remote,
        lport: first.filter(|key| is_one && key.side == Side::Server).map(|key| key.port),
        side: first.map(|key| key.side).filter(|side| dead.struck().all(|pair| pair.key.side == *side)),
        ..Subject::default()
    };
    finding.figures = figures(dead);
    finding.count = dead.died();
    (finding.first_seen, finding.last_seen) =
        (dead.ends().map(|it| it.first).min(), dead.ends().map(|it| it.last).max());
    let is_of_it = |it: &crate::study::diagnose::finding::Example| Some(it.remote.ip()) == dead.ip.map(say::address);
    finding.examples =
        dead.ends().flat_map(|it| &it.examples).filter(|it| is_of_it(it)).take(EXAMPLES).cloned().collect();
    describe(dead, &mut finding);
    advise(dead, &mut finding);
    finding
}

fn headline(dead: &Dead<'_>) -> String {
    let peer = dead.ip.map_or_else(String::new, |ip| say::address(ip).to_string());
    let count = say::counted(dead.died(), "connection");
    let (of, cause) = (of_process(&dead.tasks()), dead.cause());
    let base = format!("{peer} stopped answering: {count}{of} died of {cause}");
    match dead.quiet().percentile(50).map(say::time) {
        Some(quiet) => say::fitting([
            format!("{base}, {quiet} after the last data from it"),
            base,
            format!("{peer} stopped answering: {count} died of {cause}"),
        ]),
        None => say::fitting([base, format!("{peer} stopped answering: {count} died of {cause}")]),
    }
}

fn describe(dead: &Dead<'_>, finding: &mut Finding) {
    let kinds = [
        (dead.retransmit, "of retransmissions"),
        (dead.keepalive, "of keepalive probes"),
        (dead.user_timeout, "of TCP_USER_TIMEOUT"),
    ];
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, what)| format!("{} {what}", say::count(*count))).collect();
    finding.line("seen", format!("died: {}", kinds.join(", ")));
    let (ended, alive) = (say::counted(dead.ended(), "connection"), say::count(dead.alive));
    finding.line("seen, sock_diag", format!("{ended} ended in all, {alive} with it are open"));
    let quiet = dead.quiet();
    if let (Some(low), Some(high)) = (quiet.percentile(10), quiet.percentile(90)) {
        let (low, high) = (say::time(low), say::time(high));
        finding.line("seen", format!("nothing had come from it for {low} (p10) to {high} (p90)"));
    }
}

fn advise(dead: &Dead<'_>, finding: &mut Finding) {
    let was_idle = dead.quiet().percentile(50).is_some_and(|quiet| quiet >= IDLE_NS);
    finding.why = match was_idle {
        true => {
            "The connections were idle, and what was sent on them got no answer: the host is gone, or a firewall on the way \
             has forgotten them."
        }
        false => "What was sent got no answer: the host or the path is gone. By default TCP goes on for about 15 minutes.",
    }
    .into();
    if was_idle {
        finding
            .remedies
            .push("Set SO_KEEPALIVE with a TCP_KEEPIDLE below the timeout of firewalls on the way (often 300s)".into());
    }
    finding.remedies.push("Set TCP_USER_TIMEOUT (20 to 30s) on the client's sockets, so that it notices sooner".into());
    if !was_idle {
        finding.remedies.push("Set SO_KEEPALIVE for connections that only wait for data".into());
    }
    finding
        .mistakes
        .push("lower net.ipv4.tcp_retries2: every connection of the host dies sooner, over slow paths too".into());
    finding.sure = "certain that it did not answer; why is possible: a host that is gone, the path, a firewall".into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, api, client_key, fired, nothing, pair, server_key, spread, standing, tuple};
    use super::*;
    use crate::study::diagnose::evidence::PairKey;

    /// So many with 10.0.0.9 that died so, after so many seconds without data.
    fn died_so(key: PairKey, end: End, count: u64, seconds: u64) -> Evidence {
        let mut evidence = nothing();
        let received_idle = spread((0..count).map(|_| seconds * S));
        let remotes = vec![(client_key().ip, count)];
        let ended = Ended { count, received_idle, remotes, ..Ended::default() };
        evidence.pairs.push(Pair { ends: vec![(end, Closer::Timeout, ended)], ..pair(key) });
        evidence
    }

    #[rstest]
    #[case::two(2, 0)]
    #[case::three(3, 1)]
    #[case::four(4, 1)]
    fn thresholds(
        #[case] count: u64,
        #[case] expected: usize,
        #[values(End::RetransmitTimeout, End::KeepaliveTimeout, End::UserTimeout)] end: End,
    ) {
        assert_eq!(fired(&RULE, &died_so(client_key(), end, count, 924)).len(), expected);
    }

    /// Those that were being closed are another rule's.
    #[test]
    fn one_that_was_being_closed_did_not_die() {
        let mut evidence = died_so(client_key(), End::RetransmitTimeout, 12, 924);
        evidence.pairs[0].ends[0].1 = Closer::Active;
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[rstest]
    #[case::all(0, false, Severity::Critical)]
    #[case::one_ended_well(1, false, Severity::Warning)]
    #[case::one_is_open(0, true, Severity::Warning)]
    fn severity(#[case] well: u64, #[case] is_open: bool, #[case] expected: Severity) {
        let mut evidence = died_so(client_key(), End::RetransmitTimeout, 12, 924);
        evidence.pairs[0].ends.push((End::Fin, Closer::Active, Ended { count: well, ..Ended::default() }));
        if is_open {
            evidence.sockets.push(standing(1, State::Established, 5));
        }
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    /// Of a server's clients, those of one address count together.
    #[rstest]
    #[case::of_one(3, 1)]
    #[case::of_several(2, 0)]
    fn clients_of_a_server(#[case] of_one: u64, #[case] expected: usize) {
        let mut evidence = died_so(server_key(), End::KeepaliveTimeout, of_one, 60);
        let other = tuple((1, 0), (8, 0)).remote_ip;
        evidence.pairs[0].ends[0].2.remotes.push((other, 2));
        let found = fired(&RULE, &evidence);
        assert_eq!(found.len(), expected);
        if let Some(finding) = found.first() {
            assert_eq!((finding.subject.lport, finding.figures[0].1), (Some(80), Value::Count(3)));
        }
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &died_so(client_key(), End::UserTimeout, 12, 30))[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9 stopped answering: 12 connections of api[4711] died of TCP_USER_TIMEOUT"
        );
        assert_eq!(finding.subject.task, Some(api()));
        assert_eq!(finding.subject.remote.map(|it| it.to_string()).as_deref(), Some("10.0.0.9:6379"));
        assert_eq!(finding.evidence[0].text, "died: 12 of TCP_USER_TIMEOUT");
    }

    #[test]
    fn words_of_idle_ones() {
        let finding = &fired(&RULE, &died_so(client_key(), End::RetransmitTimeout, 12, 9_000))[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9 stopped answering: 12 connections of api[4711] died of retransmissions without an answer"
        );
        assert!(finding.why.starts_with("The connections were idle"), "{}", finding.why);
        assert!(finding.remedies[0].starts_with("Set SO_KEEPALIVE with a TCP_KEEPIDLE"), "{:?}", finding.remedies);
    }
}
