//! Closed connections whose peer does not acknowledge what was left to send, the FIN among it.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv6Addr;

use super::close_wait::examples;
use super::words::of_process;
use crate::model::event::Timer;
use crate::model::tcp::{End, Side, State, Task};
use crate::study::diagnose::evidence::{Evidence, Pair, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// Fewer are single hosts that went away.
const MANY: u64 = 5;
/// An ACK comes within a round trip, and none takes so long.
const OLD_NS: u64 = 10_000_000_000;
/// The first three come within 1.4 s.
const RETRANSMITS: u8 = 3;
/// The kernel doubles the time between retransmissions from here (`TCP_RTO_MIN`) ...
const FIRST_RTO_NS: u64 = 200_000_000;
/// ... up to here (`TCP_RTO_MAX`).
const LAST_RTO_NS: u64 = 120_000_000_000;
/// The kernel counts a long-idle orphan twice (`tcp_out_of_resources`).
const ORPHANS: f64 = 0.5;

pub(super) static RULE: Rule = Rule {
    id: "fin-unanswered",
    title: "a peer does not acknowledge the end of connections",
    needs: &[Need::Sockets],
    figures: &[
        Figure {
            name: "waiting",
            unit: "",
            doc: "Sockets in FIN_WAIT1, LAST_ACK or CLOSING for 10s or longer with one remote address, after 3 or more \
                  retransmissions or before a closed window.",
        },
        Figure { name: "closed_window", unit: "", doc: "Of those, the ones whose peer has closed its window." },
        Figure { name: "waited_ns", unit: "ns", doc: "How long the first of them has waited at least." },
        Figure { name: "retransmits", unit: "", doc: "The most retransmissions of one of them without an answer." },
        Figure { name: "unsent_bytes", unit: "bytes", doc: "Bytes in them that the peer has not acknowledged." },
        Figure {
            name: "given_up",
            unit: "",
            doc: "Connections with it that the kernel gave up in these states in the window.",
        },
        Figure {
            name: "orphan_share",
            unit: "",
            doc: "The orphans of this host as a part of tcp_max_orphans; null when unknown.",
        },
    ],
    page: Page {
        sees: "Sockets that stay in FIN_WAIT1, LAST_ACK or CLOSING; orphans.",
        fires: "5 or more sockets with one remote address have been in FIN_WAIT1, LAST_ACK or CLOSING for 10s or longer, each \
                with 3 or more retransmissions (200ms doubled: the third goes out after 1.4s) or with a peer whose window is \
                closed; or the kernel gave up 5 or more of them in these states in the window.",
        silent: "FIN_WAIT1s and LAST_ACKs of milliseconds.",
        remedy: "Find out whether the host is there, and whether a firewall drops FINs of flows that it has forgotten. For \
                 peers that do not read, set a write timeout in the server. They end by themselves: with tcp_orphan_retries 0 \
                 after 8 retransmissions, which is 107.6s.",
        sources: "tcp_write_timeout, tcp_orphan_retries, tcp_probe_timer (net/ipv4/tcp_timer.c); RFC 9293 3.8.3.",
    },
    check,
};

/// Connections with one remote address.
#[derive(Default)]
struct Unanswered<'e> {
    netns: Option<u32>,
    ip: Option<Ipv6Addr>,
    /// The peer acknowledges nothing.
    silent: Vec<&'e Standing>,
    /// The peer has no room, and says so.
    full: Vec<&'e Standing>,
    given_up: u64,
    pairs: Vec<&'e Pair>,
}

impl Unanswered<'_> {
    fn waiting(&self) -> u64 {
        (self.silent.len() + self.full.len()) as u64
    }

    fn is_found(&self) -> bool {
        self.waiting() >= MANY || self.given_up >= MANY
    }

    fn sockets(&self) -> impl Iterator<Item = &Standing> {
        self.silent.iter().chain(&self.full).copied()
    }

    fn waited_ns(&self) -> u64 {
        self.sockets().map(waited_ns).max().unwrap_or(0)
    }

    fn retransmits(&self) -> u64 {
        self.sockets().filter_map(|it| it.seen).map(|seen| u64::from(seen.retransmits)).max().unwrap_or(0)
    }

    fn unsent(&self) -> u64 {
        self.sockets().filter_map(|it| it.seen).map(|seen| u64::from(seen.send_queue)).sum()
    }

    /// Most of them wait before a closed window.
    fn has_closed_window(&self) -> bool {
        self.full.len() as u64 > self.given_up.max(self.silent.len() as u64)
    }

    /// Whose they were: an orphan keeps no process, but its pair may.
    fn tasks(&self) -> Vec<Task> {
        let standing = self.sockets().filter_map(Standing::task);
        let mut tasks: Vec<Task> =
            self.pairs.iter().flat_map(|pair| pair.tasks.iter().map(|(task, _)| *task)).collect();
        tasks.extend(standing);
        let mut seen = HashSet::new();
        tasks.retain(|task| seen.insert(task.pid));
        tasks
    }
}

fn check(evidence: &Evidence) -> Outcome {
    // Without queues only those count that ended, and without transitions only those that wait.
    if let (Some(reason), Some(_)) = (evidence.lacks(Need::Inspections), evidence.lacks(Need::Events)) {
        return Outcome::NotChecked(reason);
    }
    let mut all = unanswered(evidence);
    all.sort_by_key(|it| (std::cmp::Reverse(it.waiting().max(it.given_up)), it.netns, it.ip));
    let findings = all.iter().filter(|it| it.is_found()).map(|it| finding(evidence, it)).collect();
    let compared = all.first().map(|it| figures(evidence, it));
    Outcome::of(findings, compared.unwrap_or_else(|| figures(evidence, &Unanswered::default())))
}

fn is_closing(state: State) -> bool {
    matches!(state, State::FinWait1 | State::LastAck | State::Closing)
}

/// By remote address.
fn unanswered(evidence: &Evidence) -> Vec<Unanswered<'_>> {
    let mut all: BTreeMap<(Option<u32>, Ipv6Addr), Unanswered<'_>> = BTreeMap::new();
    let mut places = HashSet::new();
    for socket in evidence.sockets.iter().filter(|it| is_closing(it.state) && waited_ns(it) >= OLD_NS) {
        let Some(seen) = socket.seen else { continue };
        let key = (socket.netns, socket.tuple.remote_ip);
        let of = all.entry(key).or_default();
        match seen.timer {
            Timer::Probe => of.full.push(socket),
            _ if seen.retransmits >= RETRANSMITS => of.silent.push(socket),
            _ => continue,
        }
        places.insert((key, socket.pair));
    }
    for pair in &evidence.pairs {
        for (ip, count) in given_up(pair) {
            let key = (pair.key.netns, ip);
            all.entry(key).or_default().given_up += count;
            places.insert((key, pair.key));
        }
    }
    all.retain(|_, it| it.waiting() > 0 || it.given_up > 0);
    for ((netns, ip), it) in &mut all {
        (it.netns, it.ip) = (*netns, Some(*ip));
        it.pairs = evidence.pairs.iter().filter(|pair| places.contains(&((*netns, *ip), pair.key))).collect();
    }
    all.into_values().collect()
}

/// Connections that the kernel gave up in these states, by remote address, where all that ended so were in them.
fn given_up(pair: &Pair) -> impl Iterator<Item = (Ipv6Addr, u64)> {
    let ends = pair.ends.iter().filter(|(end, _, ended)| {
        matches!(end, End::RetransmitTimeout | End::OrphanKilled | End::UserTimeout) && ended.in_closing == ended.count
    });
    ends.flat_map(|(_, _, ended)| ended.remotes.iter().copied())
}

/// How long it has waited at least: as seen, or by the retransmissions that went unanswered. Nothing was acknowledged
/// meanwhile.
fn waited_ns(socket: &Standing) -> u64 {
    let by_retransmits = || {
        let seen = socket.seen.filter(|seen| seen.timer == Timer::Retransmit)?;
        let acked_ms = seen.idle?.acked_ms?;
        Some(backoff_ns(seen.retransmits).min(u64::from(acked_ms) * 1_000_000))
    };
    socket.age_ns().max(by_retransmits().unwrap_or(0))
}

/// How long so many retransmissions take at least, unless a route or a setting makes the kernel faster than usual.
fn backoff_ns(retransmits: u8) -> u64 {
    (0..retransmits.min(32)).map(|turn| (FIRST_RTO_NS << turn).min(LAST_RTO_NS)).sum()
}

/// The orphans of the host as a part of what is allowed.
fn orphan_share(evidence: &Evidence) -> Option<f64> {
    let orphans = evidence.counters.values().filter_map(|of| of.levels.get("sockstat.TCP.orphan")).max()?;
    let limit = evidence.number(None, "net.ipv4.tcp_max_orphans").filter(|limit| *limit > 0)?;
    Some(*orphans as f64 / limit as f64)
}

fn figures(evidence: &Evidence, it: &Unanswered<'_>) -> Figures {
    vec![
        ("waiting", Value::Count(it.waiting())),
        ("closed_window", Value::Count(it.full.len() as u64)),
        ("waited_ns", Value::Ns(it.waited_ns())),
        ("retransmits", Value::Count(it.retransmits())),
        ("unsent_bytes", Value::Bytes(it.unsent())),
        ("given_up", Value::Count(it.given_up)),
        ("orphan_share", orphan_share(evidence).map_or(Value::Unknown, Value::Share)),
    ]
}

fn finding(evidence: &Evidence, it: &Unanswered<'_>) -> Finding {
    let orphans = orphan_share(evidence);
    let severity = if orphans.is_some_and(|share| share >= ORPHANS) { Severity::Critical } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(it));
    let tasks = it.tasks();
    let sides: HashSet<Side> =
        it.pairs.iter().map(|pair| pair.key.side).chain(it.sockets().map(|it| it.side)).collect();
    finding.subject = Subject {
        task: tasks.first().copied().filter(|_| tasks.len() == 1),
        netns: it.netns,
        remote: it.ip.map(|ip| say::end(ip, 0)),
        side: sides.iter().next().copied().filter(|side| sides.len() == 1 && *side != Side::Unknown),
        ..Subject::default()
    };
    finding.figures = figures(evidence, it);
    finding.count = it.waiting().max(it.given_up);
    describe(it, orphans, &mut finding);
    advise(it, &mut finding);
    finding
}

fn headline(it: &Unanswered<'_>) -> String {
    let peer = it.ip.map_or_else(String::new, |ip| say::address(ip).to_string());
    let of = of_process(&it.tasks());
    let waited = say::time(it.waited_ns());
    if it.has_closed_window() {
        let count = say::counted(it.full.len() as u64, "closed connection");
        let held = say::bytes(it.unsent());
        return say::fitting([
            format!("{peer} has closed its window: {count}{of} hold {held} that it does not read"),
            format!("{peer} has closed its window: {count} hold {held} that it does not read"),
        ]);
    }
    if it.waiting() >= MANY {
        let count = say::counted(it.waiting(), "closed connection");
        let retransmits = say::counted(it.retransmits(), "retransmit");
        let waits =
            |of: &str| format!("{peer} does not acknowledge: {count}{of} have waited up to {waited} for its ACK");
        return say::fitting([format!("{} ({retransmits})", waits(&of)), waits(&of), waits("")]);
    }
    let count = say::counted(it.given_up, "closed connection");
    say::fitting([
        format!("{peer} does not acknowledge: the kernel gave up {count}{of} that waited for its ACK"),
        format!("{peer} does not acknowledge: the kernel gave up {count} that waited for its ACK"),
    ])
}

fn describe(it: &Unanswered<'_>, orphans: Option<f64>, finding: &mut Finding) {
    let states = [State::FinWait1, State::LastAck, State::Closing].map(|state| {
        let count = it.sockets().filter(|socket| socket.state == state).count() as u64;
        (count > 0).then(|| format!("{} in {state}", say::count(count)))
    });
    let states: Vec<String> = states.into_iter().flatten().collect();
    if !states.is_empty() {
        let timer = match (it.silent.len(), it.full.len()) {
            (_, 0) => "nothing is acknowledged".to_owned(),
            (0, _) => "the peer answers that it has no room".to_owned(),
            (silent, full) => format!("{silent} not acknowledged, {full} before a closed window"),
        };
        let unsent = say::bytes(it.unsent());
        finding.line("sock_diag", format!("{}; {timer}; {unsent} to send, the FIN among it", states.join(", ")));
    }
    if it.given_up > 0 {
        let given_up = say::counted(it.given_up, "connection");
        finding.line("seen", format!("the kernel gave up {given_up} in FIN_WAIT1, LAST_ACK or CLOSING"));
    }
    if let Some(share) = orphans {
        finding.line("/proc/net/sockstat, sysctl", format!("orphans: {} of tcp_max_orphans", say::percent(share)));
    }
    let sockets: Vec<&Standing> = it.sockets().collect();
    finding.examples = examples(&sockets);
    if sockets.is_empty() {
        finding.examples = it.pairs.iter().flat_map(|pair| pair.examples()).take(5).collect();
    }
}

fn advise(it: &Unanswered<'_>, finding: &mut Finding) {
    if it.has_closed_window() {
        finding.why =
            "The peer lives: it answers each probe with a window of 0. Its process does not read, so the rest and \
                       the FIN cannot leave."
                .into();
        finding
            .remedies
            .push("Set a write timeout in the server (nginx: send_timeout), or TCP_USER_TIMEOUT on its sockets".into());
        finding.remedies.push("Look at what the peer's process waits for".into());
        finding.sure = "certain that the peer keeps its window closed".into();
        return;
    }
    finding.why =
        "The kernel repeats the FIN, and no ACK comes: the host or the path is gone, or a firewall drops what \
                   belongs to a flow that it has forgotten."
            .into();
    finding.remedies.push("Look whether the host is there: its other connections, and its ARP or route".into());
    finding
        .remedies
        .push("Look for a firewall on the way whose timeout for closing connections is shorter than these take".into());
    finding.remedies.push(
        "Otherwise nothing: they end by themselves (tcp_orphan_retries 0 means 8 retransmissions, about 108s)".into(),
    );
    finding.sure = "certain that no ACK comes; why is possible: a host that is gone, the path, a firewall".into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, client_key, fired, nothing, pair, seen, standing, with_settings};
    use super::*;
    use crate::model::event::{Idle, Inspected};
    use crate::model::tcp::Closer;
    use crate::study::diagnose::evidence::{Counted, Ended};

    /// So many in FIN_WAIT1 for so many seconds, with so many retransmissions.
    fn waiting(count: u64, seconds: u64, retransmits: u8) -> Evidence {
        let mut evidence = nothing();
        let socket = |conn| {
            let seen = Inspected { timer: Timer::Retransmit, retransmits, send_queue: 1, ..seen(conn, 0, 900) };
            Standing { seen: Some(seen), fd: None, ..standing(conn, State::FinWait1, seconds) }
        };
        evidence.sockets = (1..=count).map(socket).collect();
        evidence
    }

    fn given_up(end: End, count: u64) -> Evidence {
        let mut evidence = nothing();
        let ip = client_key().ip;
        let ended = Ended { count, in_closing: count, remotes: vec![(ip, count)], ..Ended::default() };
        evidence.pairs.push(Pair { ends: vec![(end, Closer::Active, ended)], ..pair(client_key()) });
        evidence
    }

    #[rstest]
    #[case::too_few(4, 10, 3, 0)]
    #[case::enough(5, 10, 3, 1)]
    #[case::young(5, 9, 3, 0)]
    #[case::fewer_retransmits(5, 10, 2, 0)]
    #[case::more(6, 11, 4, 1)]
    fn those_that_wait(#[case] count: u64, #[case] seconds: u64, #[case] retransmits: u8, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &waiting(count, seconds, retransmits)).len(), expected);
    }

    #[rstest]
    #[case::too_few(4, 0)]
    #[case::enough(5, 1)]
    fn those_that_ended_so(#[case] count: u64, #[case] expected: usize) {
        for end in [End::RetransmitTimeout, End::OrphanKilled] {
            assert_eq!(fired(&RULE, &given_up(end, count)).len(), expected);
        }
        let mut evidence = given_up(End::RetransmitTimeout, count);
        evidence.pairs[0].ends[0].2.in_closing = 0;
        assert_eq!(fired(&RULE, &evidence), [], "they were open");
    }

    /// Six retransmissions take 12.6 s, if nothing was acknowledged for as long.
    #[rstest]
    #[case::long_enough(6, 13_000, 1)]
    #[case::something_was_acknowledged(6, 9_999, 0)]
    #[case::too_few(5, 13_000, 0)]
    fn retransmissions_tell_the_age(#[case] retransmits: u8, #[case] acked_ms: u32, #[case] expected: usize) {
        let mut evidence = waiting(5, 1, retransmits);
        for seen in evidence.sockets.iter_mut().filter_map(|it| it.seen.as_mut()) {
            seen.idle = Some(Idle { acked_ms: Some(acked_ms), ..Idle::default() });
        }
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::below(499, Severity::Warning)]
    #[case::half(500, Severity::Critical)]
    fn severity_is_by_the_orphans_of_the_host(#[case] orphans: u64, #[case] expected: Severity) {
        let mut evidence = waiting(5, 10, 3);
        evidence.settings = with_settings(&[("net.ipv4.tcp_max_orphans", "1000")]).settings;
        let host = evidence.settings.remove(&Some(NETNS)).expect("settings");
        evidence.settings.insert(None, host);
        let levels = [("sockstat.TCP.orphan".into(), orphans)].into();
        evidence.counters.insert(NETNS, Counted { levels, ..Counted::default() });
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &waiting(41, 58, 7))[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9 does not acknowledge: 41 closed connections of api[4711] have waited up to 58.0s for its ACK"
        );
        assert_eq!(
            finding.evidence[0].text,
            "41 in FIN_WAIT1; nothing is acknowledged; 41 B to send, the FIN among it"
        );
        assert_eq!(finding.subject.remote.map(|it| it.to_string()).as_deref(), Some("10.0.0.9:0"));
    }

    #[test]
    fn words_of_a_closed_window() {
        let mut evidence = waiting(41, 58, 0);
        for seen in evidence.sockets.iter_mut().filter_map(|it| it.seen.as_mut()) {
            (seen.timer, seen.send_queue) = (Timer::Probe, 133_000);
        }
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9 has closed its window: 41 closed connections of api[4711] hold 5.2 MiB that it does not read"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
    }

    #[test]
    fn words_of_those_that_were_given_up() {
        assert_eq!(
            fired(&RULE, &given_up(End::RetransmitTimeout, 12))[0].headline,
            "10.0.0.9 does not acknowledge: the kernel gave up 12 closed connections of api[4711] that waited for its ACK"
        );
    }
}
