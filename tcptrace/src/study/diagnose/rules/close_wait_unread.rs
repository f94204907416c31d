//! A process that has stopped reading: connections that the peer has closed still hold bytes that it has not read.

use std::collections::HashSet;

use foldhash::fast::FixedState;

use super::close_wait::{by_process, examples, oldest_ns, peers, subject};
use super::stale_pool;
use crate::model::tcp::{Side, State, Task};
use crate::study::diagnose::evidence::{Evidence, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// A reader that is alive takes milliseconds.
const OLD_NS: u64 = 10_000_000_000;
/// Fewer can be requests that the process is still working on.
const MANY: usize = 5;
/// What a FIN that was not read counts in the receive queue.
const FIN: u32 = 1;

pub(super) static RULE: Rule = Rule {
    id: "close-wait-unread",
    title: "a process has stopped reading connections that its peers have closed",
    needs: &[Need::Sockets, Need::Owners, Need::Inspections],
    figures: &[
        Figure {
            name: "unread",
            unit: "",
            doc: "Sockets of the process in CLOSE_WAIT for 10s or longer that hold unread bytes.",
        },
        Figure { name: "unread_bytes", unit: "bytes", doc: "Bytes in them that it has not read." },
        Figure { name: "oldest_ns", unit: "ns", doc: "How long the oldest has been in CLOSE_WAIT at least." },
    ],
    page: Page {
        sees: "Sockets in CLOSE_WAIT, and receive buffers that stay full.",
        fires: "5 or more sockets of a process have been in CLOSE_WAIT for 10s or longer and hold bytes that the process has \
                not read (Recv-Q above 1: an unread FIN counts 1). A reader that is alive takes milliseconds.",
        silent: "Recv-Q 0 or 1; sockets in an accept queue; a client that has not read why its server closes \
                 (stale-pool).",
        remedy: "Look at what the threads of the process wait for. A paused stream must be resumed or destroyed.",
        sources: "tcp_diag_get_info (net/ipv4): Recv-Q is rcv_nxt - copied_seq, the FIN among them.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let processes = by_process(unread(evidence).filter(|socket| is_old(socket)));
    let findings = processes.iter().filter(|(_, sockets)| sockets.len() >= MANY);
    let findings = findings.map(|(task, sockets)| finding(*task, sockets)).collect();
    Outcome::of(findings, figures(processes.first().map_or(&[], |(_, sockets)| sockets)))
}

/// The sockets that this rule has findings about.
pub(super) fn taken(evidence: &Evidence) -> HashSet<u64, FixedState> {
    let processes = by_process(unread(evidence));
    let stuck = processes.iter().filter(|(_, sockets)| sockets.iter().filter(|socket| is_old(socket)).count() >= MANY);
    stuck.flat_map(|(_, sockets)| sockets.iter().map(|socket| socket.conn)).collect()
}

/// Connections that the peer has closed, with bytes that their process has not read.
fn unread(evidence: &Evidence) -> impl Iterator<Item = &Standing> {
    evidence.sockets.iter().filter(|socket| {
        let is_unread = socket.state == State::CloseWait && socket.recv_queue() > Some(FIN);
        is_unread && socket.accepted != Some(false) && !stale_pool::has_last_words(socket)
    })
}

fn is_old(socket: &Standing) -> bool {
    socket.age_ns() >= OLD_NS
}

/// Unread bytes of a socket.
fn bytes(socket: &Standing) -> u64 {
    socket.recv_queue().unwrap_or(0).saturating_sub(FIN).into()
}

fn figures(sockets: &[&Standing]) -> Figures {
    vec![
        ("unread", Value::Count(sockets.len() as u64)),
        ("unread_bytes", Value::Bytes(sockets.iter().map(|socket| bytes(socket)).sum())),
        ("oldest_ns", Value::Ns(oldest_ns(sockets))),
    ]
}

fn finding(task: Task, sockets: &[&Standing]) -> Finding {
    let process = say::process(task);
    let connections = say::counted(sockets.len() as u64, "connection");
    let unread = say::bytes(sockets.iter().map(|socket| bytes(socket)).sum());
    let oldest = say::time(oldest_ns(sockets));
    let of = if sockets.iter().all(|socket| socket.side == Side::Server) { "of requests" } else { "that" };
    let headline = say::fitting([
        format!(
            "{process} has stopped reading: {connections} closed by the peer still hold {unread} {of} it has not read, the \
             oldest for ≥{oldest}"
        ),
        format!(
            "{process} has stopped reading: {connections} closed by the peer hold {unread} unread, the oldest for ≥{oldest}"
        ),
        format!("{process} has stopped reading: {connections} closed by the peer hold {unread} unread"),
    ]);
    let mut finding = Finding::new(RULE.id, Severity::Warning, Confidence::Certain, headline);
    finding.subject = subject(task, sockets);
    finding.figures = figures(sockets);
    let most = sockets.iter().map(|socket| bytes(socket)).max().unwrap_or(0);
    finding.line("sock_diag", format!("unread {unread}, up to {} on one connection", say::bytes(most)));
    finding.line("sock_diag", peers(sockets.iter().copied()));
    finding.why = "The peer has sent its data and its FIN, and the process reads neither: a thread is blocked, or the \
                   stream is paused."
        .into();
    finding.remedies.push(format!("Look at what its threads wait for: cat /proc/{}/task/*/wchan", task.pid));
    finding.remedies.push("Look at their stacks (jstack, py-spy, gdb); resume or destroy a paused stream".into());
    finding.sure = "certain that the bytes are unread; that the process is blocked is likely".into();
    finding.count = sockets.len() as u64;
    finding.examples = examples(sockets);
    finding
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{fired, nothing, seen, standing};
    use super::*;

    /// So many sockets that have been in CLOSE_WAIT for so many seconds, with so much in the receive queue.
    fn evidence(count: u64, seconds: u64, recv_queue: u32) -> Evidence {
        let mut evidence = nothing();
        evidence.sockets = (1..=count).map(|conn| standing(conn, State::CloseWait, seconds)).collect();
        evidence.sockets.iter_mut().for_each(|socket| socket.seen = Some(seen(socket.conn, recv_queue, 1_000)));
        evidence
    }

    #[rstest]
    #[case::a_few(4, 10, 2, 0)]
    #[case::young(50, 9, 2, 0)]
    #[case::the_end_was_read(50, 10, 0, 0)]
    #[case::only_the_fin(50, 10, 1, 0)]
    #[case::stuck(5, 10, 2, 1)]
    #[case::more(6, 11, 3, 1)]
    fn thresholds(#[case] count: u64, #[case] seconds: u64, #[case] queue: u32, #[case] expected: usize) {
        let evidence = evidence(count, seconds, queue);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
        assert_eq!(taken(&evidence).is_empty(), expected == 0);
    }

    #[test]
    fn queued_ones_are_not_its_own() {
        let mut evidence = evidence(20, 100, 500);
        evidence.sockets.iter_mut().for_each(|socket| socket.accepted = Some(false));
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &evidence(64, 240, 34_407))[0];
        assert_eq!(
            finding.headline,
            "api[4711] has stopped reading: 64 connections closed by the peer hold 2.0 MiB unread, the oldest for ≥4m00s"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
        assert_eq!(finding.figures[1].1, Value::Bytes(64 * 34_406));
        assert_eq!(finding.evidence[0].text, "unread 2.0 MiB, up to 33.5 KiB on one connection");
        assert_eq!(finding.evidence[1].text, "peers: 10.0.0.9:6379 64");
        assert_eq!(finding.remedies[0], "Look at what its threads wait for: cat /proc/4711/task/*/wchan");
    }
}
