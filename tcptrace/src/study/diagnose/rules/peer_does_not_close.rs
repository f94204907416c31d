//! A peer that does not close its end: connections wait for its FIN in FIN_WAIT2.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::close_wait::examples;
use crate::model::event::Kept;
use crate::model::tcp::{Closer, End, Side, State};
use crate::study::diagnose::evidence::{Evidence, Pair, PairKey, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many at once are not single clients that vanish.
const AT_ONCE: usize = 100;
/// A FIN that is on its way comes within milliseconds.
const WAITS_NS: u64 = 1_000_000_000;
/// So many that timed out are a number to take a part of.
const TIMED_OUT: u64 = 20;
/// Single clients vanish always, but not so many.
const SHARE: f64 = 0.2;
/// From here on they shorten what others may use: `tcp_tw_reuse` does not take over a FIN_WAIT2.
const PORTS: f64 = 0.1;
/// How long the kernel waits.
const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";

pub(super) static RULE: Rule = Rule {
    id: "peer-does-not-close",
    title: "a peer does not close its end, so that connections wait in FIN_WAIT2",
    needs: &[Need::Sockets],
    figures: &[
        Figure { name: "waiting", unit: "", doc: "Orphans in FIN_WAIT2 for 1s or longer with one remote end." },
        Figure { name: "timed_out", unit: "", doc: "Connections whose FIN_WAIT2 timed out in the window." },
        Figure { name: "active_closes", unit: "", doc: "Ended connections that this side had closed first." },
        Figure { name: "timed_out_share", unit: "", doc: "The second as a part of the third." },
        Figure {
            name: "port_share",
            unit: "",
            doc: "The part of the local ports that those take which wait; null for servers, and without the setting.",
        },
        Figure { name: "fin_timeout_s", unit: "s", doc: "The value of tcp_fin_timeout." },
    ],
    page: Page {
        sees: "Many sockets in FIN_WAIT2.",
        fires: "100 or more orphans wait in FIN_WAIT2 for one remote end for 1s or longer, or 20 or more timed out in the \
                window and they are 20 % or more of the connections that this side closed first. Below that, clients simply \
                vanish.",
        silent: "FIN_WAIT2s of milliseconds; sockets that a process keeps open after shutdown().",
        remedy: "Look at the other host for CLOSE_WAIT. tcp_fin_timeout may go down to 30 where ports are short.",
        sources: "RFC 9293 3.6; tcp_time_wait(FIN_WAIT2), tcp_fin_time (net/ipv4).",
    },
    check,
};

/// Connections that wait for the FIN of one remote end.
struct Waiting<'e> {
    key: PairKey,
    /// The remote end, where it is not part of the key.
    remote: Option<Ipv6Addr>,
    sockets: Vec<&'e Standing>,
    pair: Option<&'e Pair>,
}

impl Waiting<'_> {
    /// Those that timed out are counted by pair: of servers, for all clients together.
    fn timed_out(&self) -> u64 {
        self.pair.filter(|_| self.remote.is_none()).map_or(0, |pair| pair.ended_by(End::FinWait2Timeout))
    }

    fn closes(&self) -> u64 {
        self.pair.filter(|_| self.remote.is_none()).map_or(0, |pair| pair.closed_by(Closer::Active))
    }

    fn share(&self) -> f64 {
        if self.closes() == 0 { 0.0 } else { self.timed_out() as f64 / self.closes() as f64 }
    }

    fn waits(&self) -> bool {
        self.sockets.len() >= AT_ONCE
    }

    fn times_out(&self) -> bool {
        self.timed_out() >= TIMED_OUT && self.share() >= SHARE
    }

    /// Of a client: the part of the local ports of its fullest source address.
    fn port_share(&self, evidence: &Evidence) -> Option<f64> {
        let range = evidence.setting(self.key.netns, "net.ipv4.ip_local_port_range")?;
        let mut ends = range.split_whitespace().map(str::parse::<u64>);
        let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
        if self.key.side != Side::Client || last < first {
            return None;
        }
        let mut by_source: BTreeMap<Ipv6Addr, u64> = BTreeMap::new();
        for socket in &self.sockets {
            *by_source.entry(socket.tuple.local_ip).or_default() += 1;
        }
        let most = by_source.into_values().max().unwrap_or(0);
        Some(most as f64 / (last - first + 1) as f64)
    }

    /// Who does not close, in words.
    fn peer(&self) -> String {
        match self.remote {
            Some(ip) => say::address(ip).to_string(),
            None => say::end(self.key.ip, self.key.port).to_string(),
        }
    }

    /// Whose connections they are, in words; `None` when nobody knows.
    fn process(&self) -> Option<String> {
        let task = self.sockets.iter().find_map(|socket| socket.task());
        let of_pair = self.pair.filter(|pair| !pair.tasks.is_empty()).map(Pair::process);
        of_pair.or_else(|| task.map(say::process))
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let mut all = waiting(evidence);
    let listeners: Vec<PairKey> = all.iter().filter(|it| it.remote.is_some() && it.waits()).map(|it| it.key).collect();
    // One client that is named is enough of a listener's.
    all.retain(|it| it.remote.is_some() || it.key.side == Side::Client || !listeners.contains(&it.key));
    all.sort_by_key(|it| std::cmp::Reverse((it.sockets.len() as u64).max(it.timed_out())));
    let findings = all.iter().filter(|it| it.waits() || it.times_out()).map(|it| finding(evidence, it)).collect();
    Outcome::of(findings, all.first().map(|it| figures(evidence, it)).unwrap_or_default())
}

fn waiting(evidence: &Evidence) -> Vec<Waiting<'_>> {
    let mut all: HashMap<(PairKey, Option<Ipv6Addr>), Vec<&Standing>, FixedState> = HashMap::default();
    for socket in evidence.sockets.iter().filter(|socket| is_waiting(evidence, socket)) {
        let remote = (socket.pair.side != Side::Client).then_some(socket.tuple.remote_ip);
        all.entry((socket.pair, remote)).or_default().push(socket);
    }
    let pairs: HashMap<PairKey, &Pair, FixedState> = evidence.pairs.iter().map(|pair| (pair.key, pair)).collect();
    for pair in evidence.pairs.iter().filter(|pair| pair.ended_by(End::FinWait2Timeout) > 0) {
        all.entry((pair.key, None)).or_default();
    }
    let mut all: Vec<_> = all
        .into_iter()
        .map(|((key, remote), sockets)| Waiting { key, remote, sockets, pair: pairs.get(&key).copied() })
        .collect();
    all.sort_by_key(|it| (it.key.port, it.key.ip, it.remote, it.key.comm.map(|comm| comm.0)));
    all
}

/// Whether nobody has a descriptor of it, and it has waited longer than a FIN takes.
fn is_waiting(evidence: &Evidence, socket: &Standing) -> bool {
    let is_orphan = socket.fd.is_none() && socket.kept != Some(Kept::Held);
    socket.state == State::FinWait2 && is_orphan && waits_ns(evidence, socket) >= WAITS_NS
}

/// How long it has waited: as seen, or by what is left of the kernel's timer.
fn waits_ns(evidence: &Evidence, socket: &Standing) -> u64 {
    let timeout = evidence.number(socket.netns, FIN_TIMEOUT).and_then(|seconds| u64::try_from(seconds).ok());
    let passed =
        timeout.zip(socket.left_ns).map(|(seconds, left)| seconds.saturating_mul(1_000_000_000).saturating_sub(left));
    socket.age_ns().max(passed.unwrap_or(0))
}

fn figures(evidence: &Evidence, waiting: &Waiting<'_>) -> Figures {
    let timeout = evidence.number(waiting.key.netns, FIN_TIMEOUT).and_then(|seconds| u64::try_from(seconds).ok());
    vec![
        ("waiting", Value::Count(waiting.sockets.len() as u64)),
        ("timed_out", Value::Count(waiting.timed_out())),
        ("active_closes", Value::Count(waiting.closes())),
        ("timed_out_share", Value::Share(waiting.share())),
        ("port_share", waiting.port_share(evidence).map_or(Value::Unknown, Value::Share)),
        ("fin_timeout_s", timeout.into()),
    ]
}

fn finding(evidence: &Evidence, waiting: &Waiting<'_>) -> Finding {
    let ports = waiting.port_share(evidence);
    let severity = if ports.is_some_and(|share| share >= PORTS) { Severity::Warning } else { Severity::Note };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, waiting));
    finding.subject = subject(waiting);
    finding.figures = figures(evidence, waiting);
    if !waiting.sockets.is_empty() {
        let oldest = waiting.sockets.iter().map(|socket| waits_ns(evidence, socket)).max().unwrap_or(0);
        let orphans = say::counted(waiting.sockets.len() as u64, "orphan");
        finding.line("sock_diag", format!("{orphans} in FIN_WAIT2, the oldest for ≥{}", say::time(oldest)));
    }
    if waiting.closes() > 0 {
        let (timed_out, closes) = (say::count(waiting.timed_out()), say::count(waiting.closes()));
        let share = say::percent(waiting.share());
        finding.line("seen", format!("{timed_out} of {closes} active closes timed out in FIN_WAIT2 ({share})"));
    }
    if let Some(share) = ports {
        finding.line("sock_diag, sysctl", format!("they take {} of the local ports", say::percent(share)));
    }
    finding.why =
        "This side has closed and its FIN was acknowledged, but the peer's FIN does not come: a leak there, or the \
                   host or the path is gone."
            .into();
    finding.remedies.push("Look at that host for CLOSE_WAIT: run tcptrace diagnose there".into());
    if ports.is_some_and(|share| share >= PORTS) {
        finding.remedies.push("Where ports are short: sysctl net.ipv4.tcp_fin_timeout=30".into());
    }
    finding.mistakes.push("set tcp_fin_timeout between 61 and 119: it then does not last as long as it says".into());
    finding.sure = "certain that no FIN came; why is possible: a leak there, a host that is gone, a firewall".into();
    finding.count = (waiting.sockets.len() as u64).max(waiting.timed_out());
    finding.examples = examples(&waiting.sockets);
    finding
}

fn subject(waiting: &Waiting<'_>) -> Subject {
    let PairKey { netns, side, cgroup, port, .. } = waiting.key;
    let task = waiting.pair.and_then(Pair::task);
    let remote = match (side, waiting.remote) {
        (Side::Client, _) => Some(say::end(waiting.key.ip, port)),
        (_, Some(ip)) => Some(say::end(ip, 0)),
        _ => None,
    };
    let lport = (side == Side::Server).then_some(port);
    Subject { task, cgroup, netns, local: None, remote, lport, side: Some(side).filter(|side| *side != Side::Unknown) }
}

fn headline(evidence: &Evidence, waiting: &Waiting<'_>) -> String {
    let of = waiting.process().map_or_else(String::new, |process| format!(" of {process}"));
    let (timed_out, closes) = (say::count(waiting.timed_out()), say::count(waiting.closes()));
    if waiting.waits() {
        let count = say::counted(waiting.sockets.len() as u64, "connection");
        let wait = format!("{} does not close: {count}{of} wait for its FIN", waiting.peer());
        if !waiting.times_out() {
            return say::fitting([wait, format!("{} does not close: {count} wait for its FIN", waiting.peer())]);
        }
        let share = say::percent(waiting.share());
        let seconds = evidence.number(waiting.key.netns, FIN_TIMEOUT);
        let seconds = seconds.map_or_else(String::new, |seconds| format!(" ({seconds}s)"));
        return say::fitting([
            format!("{wait}, {share} of them until tcp_fin_timeout{seconds}"),
            format!("{wait}, {share} until it times out"),
            wait,
        ]);
    }
    if waiting.key.side == Side::Server {
        let port = waiting.key.port;
        return say::fitting([
            format!(
                "clients of port {port} do not close: {timed_out} of {closes} closed connections{of} timed out in FIN_WAIT2"
            ),
            format!("clients of port {port} do not close: {timed_out} of {closes} connections timed out in FIN_WAIT2"),
        ]);
    }
    say::fitting([
        format!(
            "{} does not close: {timed_out} of {closes} closed connections{of} timed out in FIN_WAIT2",
            waiting.peer()
        ),
        format!("{} does not close: {timed_out} of {closes} connections timed out in FIN_WAIT2", waiting.peer()),
    ])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{
        NETNS, S, client_key, fired, nothing, pair, pair_ended, queued, server_key, standing, with_settings,
    };
    use super::*;
    use crate::model::row::Held;
    use crate::study::diagnose::evidence::Ended;

    /// So many orphans of `api[4711]` that wait for the FIN of 10.0.0.9:6379.
    fn waiting(count: u64) -> Evidence {
        let mut evidence = with_settings(&[(FIN_TIMEOUT, "60"), ("net.ipv4.ip_local_port_range", "32768 60999")]);
        evidence.sockets = (1..=count).map(orphan).collect();
        evidence
    }

    fn orphan(conn: u64) -> Standing {
        let kept = Some(Kept::Mini { due_ns: 50 * S });
        Standing { fd: None, kept, left_ns: Some(50 * S), ..standing(conn, State::FinWait2, 5) }
    }

    /// A pair of which so many timed out, and so many ended well.
    fn timed_out(timed_out: u64, well: u64) -> Evidence {
        let mut evidence = nothing();
        let mut pair = pair_ended(End::FinWait2Timeout, timed_out);
        pair.ends.push((End::Fin, Closer::Active, Ended { count: well, ..Ended::default() }));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case(99, 0)]
    #[case(100, 1)]
    #[case(101, 1)]
    fn at_once(#[case] count: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &waiting(count)).len(), expected);
    }

    #[rstest]
    #[case::too_few(19, 0, 0)]
    #[case::enough(20, 80, 1)]
    #[case::a_smaller_part(20, 81, 0)]
    fn timeouts(#[case] gone: u64, #[case] well: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &timed_out(gone, well)).len(), expected);
    }

    #[test]
    fn those_of_milliseconds_and_those_that_a_process_has_are_healthy() {
        let mut young = waiting(500);
        young.sockets.iter_mut().for_each(|it| (it.age, it.left_ns) = (Held::AtLeast(0), Some(60 * S)));
        assert_eq!(fired(&RULE, &young), []);
        let mut held = waiting(500);
        held.sockets.iter_mut().for_each(|it| (it.fd, it.kept, it.left_ns) = (Some(5), Some(Kept::Held), None));
        assert_eq!(fired(&RULE, &held), []);
    }

    /// What is left of the timer tells how long it has run, when nobody saw it begin.
    #[rstest]
    #[case::just_begun(59_001, 0)]
    #[case::a_second_ago(59_000, 1)]
    fn the_timer_tells_the_age(#[case] left_ms: u64, #[case] expected: usize) {
        let mut evidence = waiting(100);
        evidence.sockets.iter_mut().for_each(|it| (it.age, it.left_ns) = (Held::Unknown, Some(left_ms * S / 1_000)));
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::a_tenth(2_824, Severity::Warning)]
    #[case::less(2_823, Severity::Note)]
    fn severity_is_by_the_ports_that_they_take(#[case] count: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &waiting(count))[0].severity, expected);
    }

    #[test]
    fn clients_of_a_server_are_told_apart() {
        let mut evidence = waiting(0);
        let mini = |conn| Standing { left_ns: Some(50 * S), accepted: None, ..queued(conn, State::FinWait2, 5) };
        evidence.sockets = (1..=150).map(mini).collect();
        evidence.pairs.push(pair(server_key()));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.headline, "10.0.0.2 does not close: 150 connections of api[4711] wait for its FIN");
        assert_eq!(finding.subject.lport, Some(80));
        for (place, socket) in evidence.sockets.iter_mut().enumerate().take(75) {
            socket.tuple.remote_ip = super::super::testing::tuple((1, 1), (3, 1)).remote_ip;
            socket.conn = place as u64;
        }
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words() {
        let mut evidence = waiting(320);
        evidence.pairs = timed_out(91, 9).pairs;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9:6379 does not close: 320 connections of api[4711] wait for its FIN, 91 % until it times out"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "320 orphans in FIN_WAIT2, the oldest for ≥10.0s",
                "91 of 100 active closes timed out in FIN_WAIT2 (91 %)",
                "they take 1.1 % of the local ports",
            ]
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Note, Confidence::Certain));
        assert_eq!((finding.subject.netns, client_key().side), (Some(NETNS), Side::Client));
    }

    #[test]
    fn words_of_timeouts_alone() {
        let finding = &fired(&RULE, &timed_out(91, 9))[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9:6379 does not close: 91 of 100 closed connections of api[4711] timed out in FIN_WAIT2"
        );
    }
}
