//! Idle connections of which nobody asks whether their peer is still there.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::close_wait::subject;
use crate::model::event::Timer;
use crate::model::tcp::{Closer, End, Side, State, Task};
use crate::study::diagnose::evidence::{Evidence, Pair, Spread, Standing};
use crate::study::diagnose::finding::{Confidence, EXAMPLES, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// Firewalls and balancers forget idle flows after 4 to 6 minutes as a rule; this is longer.
const IDLE_NS: u64 = 600_000_000_000;
/// One or two are a long poll, or a terminal.
const MANY: usize = 3;

pub(super) static RULE: Rule = Rule {
    id: "silent-peer",
    title: "idle connections without keepalive: nobody notices when their peer is gone",
    needs: &[Need::Sockets, Need::Owners, Need::Inspections],
    figures: &[
        Figure {
            name: "idle",
            unit: "",
            doc: "Connections of a process with one remote end that are in ESTABLISHED, on which no data has moved for 10min or \
                  longer, and for which no keepalive timer runs; of those that were looked at, 8 at most of each remote end.",
        },
        Figure {
            name: "idle_p50_ns",
            unit: "ns",
            doc: "How long no data has moved on them, at the median; null for none.",
        },
        Figure { name: "idle_most_ns", unit: "ns", doc: "The longest; null for none." },
        Figure {
            name: "with_keepalive",
            unit: "",
            doc: "Connections of the same that are as idle, and have keepalive.",
        },
        Figure {
            name: "timed_out",
            unit: "",
            doc: "Connections of the same that a timeout ended in the window, after 10min or longer without data from the peer: \
                  something was sent on them.",
        },
    ],
    page: Page {
        sees: "Nothing, until a request on such a connection hangs for a quarter of an hour and fails with ETIMEDOUT.",
        fires: "3 or more connections of a process with one remote end have been idle for 10min or longer, and keepalive is off. \
                Firewalls and balancers forget idle flows after 4 to 6 minutes as a rule, and a host that was switched off \
                sends no FIN. A warning if what was sent on such a connection has timed out in the window.",
        silent: "The same connections with keepalive; peers on this host, whose end cannot be missed.",
        remedy: "Set SO_KEEPALIVE with a TCP_KEEPIDLE below the timeout of firewalls on the way, and TCP_USER_TIMEOUT.",
        sources: "RFC 9293 3.8.4; tcp_keepalive_timer (net/ipv4/tcp_timer.c): without SO_KEEPALIVE no timer runs on an idle \
                  connection.",
    },
    check,
};

/// Idle connections of a process with one remote end.
struct Idle<'e> {
    task: Task,
    remote: (Ipv6Addr, u16),
    unguarded: Vec<&'e Standing>,
    guarded: u64,
    pair: Option<&'e Pair>,
}

impl Idle<'_> {
    fn times(&self) -> Spread {
        let mut times = Spread::default();
        self.unguarded.iter().filter_map(|socket| idle_ns(socket)).for_each(|ns| times.add(ns));
        times
    }

    /// Connections of the same on which something was sent after as long, in vain.
    fn timed_out(&self) -> u64 {
        let ends = self.pair.into_iter().flat_map(|pair| &pair.ends);
        let timeouts = ends.filter(|(end, closer, _)| {
            *closer == Closer::Timeout && matches!(end, End::RetransmitTimeout | End::UserTimeout)
        });
        timeouts.map(|(_, _, ended)| ended.received_idle.at_or_above(IDLE_NS)).sum()
    }

    fn is_found(&self) -> bool {
        self.unguarded.len() >= MANY
    }

    fn remote(&self) -> String {
        match self.remote {
            (ip, 0) => say::address(ip).to_string(),
            (ip, port) => say::end(ip, port).to_string(),
        }
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let all = idle(evidence);
    let findings = all.iter().filter(|it| it.is_found()).map(|it| finding(evidence, it)).collect();
    Outcome::of(findings, all.first().map(figures).unwrap_or_default())
}

/// How long no data has moved on a connection that was looked at.
fn idle_ns(socket: &Standing) -> Option<u64> {
    socket.idle()?.quiet_ns()
}

/// By process and remote end, those with the most first. A peer on this host ends with a FIN or a reset, whatever happens to
/// its process.
fn idle(evidence: &Evidence) -> Vec<Idle<'_>> {
    let mut all: BTreeMap<(u32, Ipv6Addr, u16), Idle<'_>> = BTreeMap::new();
    for socket in evidence.sockets.iter().filter(|it| it.state == State::Established && !is_of_this_host(it)) {
        let (Some(task), Some(seen)) = (socket.task(), socket.seen) else { continue };
        if idle_ns(socket).is_none_or(|ns| ns < IDLE_NS) || seen.send_queue > 0 {
            continue;
        }
        let port = if socket.side == Side::Client { socket.tuple.remote_port } else { 0 };
        let remote = (socket.tuple.remote_ip, port);
        let pair = evidence.pairs.iter().find(|pair| pair.has(socket)).filter(|_| port != 0);
        let of = all.entry((task.pid, remote.0, port)).or_insert_with(|| Idle {
            task,
            remote,
            unguarded: Vec::new(),
            guarded: 0,
            pair,
        });
        match seen.timer {
            Timer::None => of.unguarded.push(socket),
            Timer::Keepalive => of.guarded += 1,
            Timer::Retransmit | Timer::TimeWait | Timer::Probe => {}
        }
    }
    let mut all: Vec<Idle<'_>> = all.into_values().collect();
    all.sort_by_key(|it| (std::cmp::Reverse((it.unguarded.len(), it.guarded)), it.task.pid, it.remote));
    all
}

fn is_of_this_host(socket: &Standing) -> bool {
    let tuple = &socket.tuple;
    tuple.local_ip == tuple.remote_ip || tuple.remote_ip.to_canonical().is_loopback()
}

fn figures(idle: &Idle<'_>) -> Figures {
    let times = idle.times();
    vec![
        ("idle", Value::Count(idle.unguarded.len() as u64)),
        ("idle_p50_ns", times.percentile(50).map_or(Value::Unknown, Value::Ns)),
        ("idle_most_ns", times.max().map_or(Value::Unknown, Value::Ns)),
        ("with_keepalive", Value::Count(idle.guarded)),
        ("timed_out", Value::Count(idle.timed_out())),
    ]
}

fn finding(evidence: &Evidence, idle: &Idle<'_>) -> Finding {
    let times = idle.times();
    let timed_out = idle.timed_out();
    let severity = if timed_out > 0 { Severity::Warning } else { Severity::Note };
    let confidence = if timed_out > 0 { Confidence::Likely } else { Confidence::Certain };
    let most = say::time(times.max().unwrap_or(0));
    let count = say::counted(idle.unguarded.len() as u64, "connection");
    let process = say::process(idle.task);
    let remote = idle.remote();
    let kept = format!("{process} keeps ≥{count} to {remote} that are idle, one for {most}, without keepalive");
    let headline = match timed_out {
        0 => say::fitting([
            format!("{kept}: nobody would notice that it is gone"),
            kept,
            format!("{process} keeps ≥{count} to {remote} that are idle, without keepalive"),
        ]),
        _ => say::fitting([
            format!("{kept}; a write on {} timed out", say::count(timed_out)),
            format!(
                "{process} keeps ≥{count} to {remote} idle without keepalive; a write on {} timed out",
                say::count(timed_out)
            ),
            kept,
        ]),
    };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline);
    finding.subject = subject(idle.task, &idle.unguarded);
    finding.figures = figures(idle);
    finding.count = idle.unguarded.len() as u64;
    let median = say::time(times.percentile(50).unwrap_or(0));
    finding.line("sock_diag", format!("no data has moved for {median} at the median, {most} at most; no timer runs"));
    if idle.guarded > 0 {
        finding.line("sock_diag", format!("{} as idle to it have keepalive", say::counted(idle.guarded, "connection")));
    }
    if timed_out > 0 {
        let text = format!("{} timed out after a write on a silent one", say::counted(timed_out, "connection"));
        finding.line("seen", text);
    }
    if let Some(seconds) =
        evidence.setting(idle.unguarded.first().and_then(|it| it.netns), "net.ipv4.tcp_keepalive_time")
    {
        finding.line("sysctl", format!("tcp_keepalive_time={seconds}, which only sockets with SO_KEEPALIVE follow"));
    }
    finding.why = "On an idle connection without keepalive nothing is sent. When the host goes, or a firewall on the way forgets \
                   the flow, only the next write shows it, after up to 15 minutes of retransmissions."
        .into();
    finding.remedies.push(
        "Set SO_KEEPALIVE with TCP_KEEPIDLE 120 or less on these sockets (a firewall's limit is often 300s)".into(),
    );
    finding.remedies.push(
        "Set TCP_USER_TIMEOUT (20 to 30s), so that a write fails soon; or close connections that are idle".into(),
    );
    finding
        .mistakes
        .push("lower net.ipv4.tcp_keepalive_time alone: sockets without SO_KEEPALIVE do not follow it".into());
    finding.sure = match timed_out {
        0 => "certain that they are idle and that no timer probes the peer; whether it is still there is unknown",
        _ => "certain that they are idle without keepalive, and that a write timed out; that the others are dead too is likely",
    }
    .into();
    let mut longest = idle.unguarded.clone();
    longest.sort_by_key(|socket| std::cmp::Reverse(idle_ns(socket)));
    finding.examples = longest.iter().take(EXAMPLES).map(|socket| socket.example()).collect();
    finding
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, api, client_key, fired, nothing, pair, queued, seen, spread, standing};
    use super::*;
    use crate::model::event::{Idle as Moved, Inspected};
    use crate::study::diagnose::evidence::Ended;

    /// So many connections of `api[4711]` to 10.0.0.9:6379 on which nothing has moved for so many seconds.
    fn idle(count: u64, seconds: u32, timer: Timer) -> Evidence {
        let mut evidence = nothing();
        evidence.sockets =
            (1..=count).map(|conn| quiet(&standing(conn, State::Established, 10), seconds, timer)).collect();
        evidence
    }

    fn quiet(socket: &Standing, seconds: u32, timer: Timer) -> Standing {
        let ms = Some(seconds * 1_000);
        let moved = Some(Moved { acked_ms: ms, received_ms: ms, sent_ms: ms });
        Standing { seen: Some(Inspected { timer, idle: moved, ..seen(socket.conn, 0, 0) }), ..socket.clone() }
    }

    #[rstest]
    #[case::two(2, 600, 0)]
    #[case::three(3, 600, 1)]
    #[case::four(4, 601, 1)]
    #[case::less_idle(8, 599, 0)]
    fn thresholds(#[case] count: u64, #[case] seconds: u32, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &idle(count, seconds, Timer::None)).len(), expected);
        assert_eq!(fired(&RULE, &idle(count, seconds, Timer::Keepalive)), [], "the twin");
    }

    #[test]
    fn a_peer_on_this_host_does_not_go_silently() {
        let mut evidence = idle(8, 900, Timer::None);
        for socket in &mut evidence.sockets {
            socket.tuple.remote_ip = socket.tuple.local_ip;
        }
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[rstest]
    #[case::not_idle_before(580, Severity::Note)]
    #[case::idle_before(600, Severity::Warning)]
    fn a_write_that_timed_out(#[case] seconds: u64, #[case] expected: Severity) {
        let mut evidence = idle(3, 900, Timer::None);
        let ended = Ended { count: 1, received_idle: spread([seconds * S]), ..Ended::default() };
        evidence.pairs.push(Pair { ends: vec![(End::UserTimeout, Closer::Timeout, ended)], ..pair(client_key()) });
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    /// Of a server, those of one client count together.
    #[test]
    fn connections_of_one_client() {
        let mut evidence = nothing();
        let served = |conn| {
            let owner = standing(conn, State::Established, 1).owner;
            quiet(&Standing { owner, accepted: Some(true), ..queued(conn, State::Established, 10) }, 900, Timer::None)
        };
        evidence.sockets = (1..=3).map(served).collect();
        let finding = &fired(&RULE, &evidence)[0];
        assert!(
            finding.headline.starts_with("api[4711] keeps ≥3 connections to 10.0.0.2 that are idle"),
            "{finding:?}"
        );
        assert_eq!(finding.subject.lport, Some(80));
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &idle(5, 7_200, Timer::None))[0];
        assert_eq!(
            finding.headline,
            "api[4711] keeps ≥5 connections to 10.0.0.9:6379 that are idle, one for 2h00m, without keepalive"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Note, Confidence::Certain));
        assert_eq!(finding.subject.task, Some(api()));
    }
}
