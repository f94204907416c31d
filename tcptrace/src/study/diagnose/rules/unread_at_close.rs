//! Connections that a process closes without having read what came in.

use super::group::{Group, by_process};
use super::words::share;
use crate::model::tcp::{End, Side};
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are no single client that was in the way.
const MANY: u64 = 10;
/// And so large a part of all that clients notice.
const SHARE: f64 = 0.01;

pub(super) static RULE: Rule = Rule {
    id: "unread-at-close",
    title: "a process closes connections with data that it has not read",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "reset_unread_data", unit: "", doc: "Connections that the process closed with data unread." },
        Figure { name: "ended", unit: "", doc: "Connections of it that ended." },
        Figure { name: "reset_share", unit: "", doc: "The part of those that was closed so." },
        Figure { name: "bytes_unread", unit: "B", doc: "Bytes that were received and not read, of all of them." },
    ],
    page: Page {
        sees: "\"Connection reset by peer\" at the other end, sometimes in place of the end of an answer.",
        fires: "A process closed 10 or more connections with received data unread, and 1 % or more of all that it ended.",
        silent: "The process reads to the end of the stream, or drains the connection, before it closes.",
        remedy: "Read to the end before close(), or call shutdown(SHUT_WR) and drain (nginx: lingering_close).",
        sources: "RFC 2525 2.17, RFC 9112 9.6; __tcp_close (net/ipv4/tcp.c): TCPAbortOnClose.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let groups = by_process(evidence);
    let findings = groups.iter().filter_map(|group| finding(evidence, group)).collect();
    let most = groups.iter().max_by_key(|group| group.ended_by(End::ResetUnreadData));
    Outcome::of(findings, most.map(figures).unwrap_or_default())
}

fn unread(group: &Group<'_>) -> u64 {
    group.ended_as(End::ResetUnreadData).map(|(_, ended)| ended.bytes_unread).sum()
}

fn figures(group: &Group<'_>) -> Figures {
    let (reset, ended) = (group.ended_by(End::ResetUnreadData), group.ended());
    vec![
        ("reset_unread_data", Value::Count(reset)),
        ("ended", Value::Count(ended)),
        ("reset_share", Value::Share(share(reset, ended))),
        ("bytes_unread", Value::Bytes(unread(group))),
    ]
}

fn finding(evidence: &Evidence, group: &Group<'_>) -> Option<Finding> {
    let (reset, ended) = (group.ended_by(End::ResetUnreadData), group.ended());
    if reset < MANY || share(reset, ended) < SHARE {
        return None;
    }
    let is_server = group.pairs.iter().all(|pair| pair.key.side == Side::Server);
    let (peers, shorter) = if is_server {
        ("their clients got a reset instead of the answer's end", "their clients got a reset")
    } else {
        ("their servers got a reset instead of a FIN", "their servers got a reset")
    };
    // Where bytes bypass TCP (MPTCP), nobody knows how many.
    let with = match unread(group) {
        0 => "data".to_owned(),
        bytes => say::bytes(bytes),
    };
    let base = format!("{} closed {} with {with} unread", group.process(), say::counted(reset, "connection"));
    let headline = say::fitting([format!("{base}: {peers}"), format!("{base}: {shorter}"), base]);
    // A client gives up an answer that it does not want, as wrk does when its time is over: nobody else loses it.
    let is_client = group.pairs.iter().all(|pair| pair.key.side == Side::Client);
    let severity = if is_client { Severity::Note } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = group.subject();
    finding.figures = figures(group);
    finding.count = reset;
    (finding.first_seen, finding.last_seen) = group.seen(End::ResetUnreadData);
    finding.examples = group.examples(End::ResetUnreadData);
    finding.line("seen", format!("{} of {} connections that ended", say::count(reset), say::count(ended)));
    let netns = group.pairs.first().and_then(|pair| pair.key.netns);
    let aborted = evidence.grown(netns.unwrap_or(0), "TcpExt.TCPAbortOnClose");
    if aborted > 0 {
        let text = format!("TCPAbortOnClose grew by {} in this network namespace", say::count(aborted));
        finding.line("/proc/net/netstat", text);
    }
    finding.why =
        "close() with unread data sends a reset, which can destroy the answer that is still on its way.".into();
    finding.remedies.push("Read to the end before close(), or call shutdown(SHUT_WR) and drain".into());
    if is_server {
        finding.remedies.push("A server that refuses a large body drains it first (nginx: lingering_close)".into());
    }
    finding.sure = "certain: the receive queue at close()".into();
    Some(finding)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{client_key, fired, long_name, nothing, pair_ended, server_key};
    use super::*;
    use crate::model::tcp::Closer;
    use crate::study::diagnose::evidence::Ended;

    fn resets(reset: u64, ended: u64) -> Evidence {
        let mut evidence = nothing();
        let mut pair = pair_ended(End::ResetUnreadData, reset);
        pair.key = server_key();
        pair.ends[0].2.bytes_unread = 1_900_000;
        pair.ends.push((End::Fin, Closer::Passive, Ended { count: ended - reset, ..Ended::default() }));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::few(9, 9, 0)]
    #[case::enough(10, 1_000, 1)]
    #[case::a_small_part(10, 1_001, 0)]
    fn thresholds(#[case] reset: u64, #[case] ended: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &resets(reset, ended)).len(), expected);
    }

    #[test]
    fn answers_that_a_client_gives_up_are_a_note() {
        let mut evidence = resets(19, 21);
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Warning);
        evidence.pairs[0].key = client_key();
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Note);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &resets(214, 214))[0];
        let expected = "api[4711] closed 214 connections with 1.8 MiB unread: their clients got a reset instead of the answer's end";
        assert_eq!(finding.headline, expected);
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
        assert_eq!((finding.count, finding.subject.lport), (214, Some(80)));
    }

    #[test]
    fn a_long_name_fits() {
        let mut evidence = resets(214, 214);
        evidence.pairs[0].tasks = vec![(long_name(), 214)];
        assert_eq!(
            fired(&RULE, &evidence)[0].headline,
            "fifteen-letters[4194304] closed 214 connections with 1.8 MiB unread: their clients got a reset"
        );
    }
}
