//! Orphans near the limit of the host, beyond which the kernel resets them.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::counted::{grown_everywhere, in_window, was_short_of_memory};
use super::words::share;
use crate::model::event::Kept;
use crate::model::tcp::{End, Task};
use crate::study::diagnose::evidence::{Evidence, Standing};
use crate::study::diagnose::finding::{Confidence, EXAMPLES, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// An orphan that does not get through counts up to four times (`tcp_check_oom` with a shift of 2).
const NEAR: f64 = 0.25;
/// And twice, if it sends data (a shift of 1).
const HALF: f64 = 0.5;
/// The setting of the host.
const LIMIT: &str = "net.ipv4.tcp_max_orphans";
/// So many processes are named.
const NAMED: usize = 3;

pub(super) static RULE: Rule = Rule {
    id: "orphans-near-limit",
    title: "orphaned sockets are near tcp_max_orphans, beyond which the kernel resets them",
    needs: &[Need::Counters],
    figures: &[
        Figure { name: "orphans", unit: "", doc: "Orphans of all network namespaces, the most that were seen." },
        Figure { name: "orphan_limit", unit: "", doc: "tcp_max_orphans of the host; null when unknown." },
        Figure { name: "used_share", unit: "", doc: "The part of the limit that is used; null when it is unknown." },
        Figure { name: "killed", unit: "", doc: "Orphans that the kernel has reset in the window, as far as seen." },
        Figure { name: "aborted", unit: "", doc: "TCPAbortOnMemory: sockets aborted for orphans or for memory." },
    ],
    page: Page {
        sees: "\"too many orphaned sockets\" in the kernel's log, and resets of connections whose last data is on its way.",
        fires: "25 % of tcp_max_orphans are used: the kernel counts an orphan whose peer does not answer up to four times. Or \
                TCPAbortOnMemory has grown while memory was not short.",
        silent: "Hundreds of orphans: every closed connection is one until its peer answers.",
        remedy: "Find out why they stay (peer-does-not-close, fin-unanswered). Raise net.ipv4.tcp_max_orphans in the first \
                 network namespace: each takes up to 64 KiB, which is never swapped out.",
        sources: "tcp_too_many_orphans, tcp_check_oom, tcp_out_of_resources (net/ipv4/tcp.c, tcp_timer.c).",
    },
    check,
};

/// The orphans of the host.
struct Orphans {
    count: u64,
    limit: Option<u64>,
    killed: u64,
    aborted: u64,
}

fn check(evidence: &Evidence) -> Outcome {
    let orphans = Orphans::of(evidence);
    let counts = !was_short_of_memory(evidence) && orphans.aborted > 0;
    if orphans.limit.is_none() && !counts {
        return Outcome::NotChecked(
            "tcp_max_orphans shows in the first network namespace only, and that could not be entered".into(),
        );
    }
    let fires = counts || orphans.share() >= NEAR;
    let findings = fires.then(|| finding(evidence, &orphans)).into_iter().collect();
    Outcome::of(findings, orphans.figures())
}

impl Orphans {
    fn of(evidence: &Evidence) -> Self {
        Self {
            count: evidence.peak_of_host("sockstat.TCP.orphan"),
            limit: evidence.number(None, LIMIT).and_then(|limit| u64::try_from(limit).ok()),
            killed: evidence.pairs.iter().map(|pair| pair.ended_by(End::OrphanKilled)).sum(),
            aborted: grown_everywhere(evidence, "TcpExt.TCPAbortOnMemory"),
        }
    }

    fn share(&self) -> f64 {
        self.limit.map_or(0.0, |limit| share(self.count, limit))
    }

    /// Both count the same, as far as both see it.
    fn reset(&self) -> u64 {
        self.killed.max(self.aborted)
    }

    fn figures(&self) -> Figures {
        vec![
            ("orphans", Value::Count(self.count)),
            ("orphan_limit", self.limit.into()),
            ("used_share", self.limit.map_or(Value::Unknown, |_| Value::Share(self.share()))),
            ("killed", Value::Count(self.killed)),
            ("aborted", Value::Count(self.aborted)),
        ]
    }
}

fn finding(evidence: &Evidence, orphans: &Orphans) -> Finding {
    let is_bad = orphans.killed > 0 || orphans.share() >= HALF;
    let severity = if is_bad { Severity::Critical } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, orphans));
    finding.figures = orphans.figures();
    finding.count = if orphans.reset() > 0 { orphans.reset() } else { orphans.count };
    finding.seconds_left = (orphans.reset() > 0).then_some(0.0);
    let limit = orphans.limit.map_or("unknown".into(), |limit| limit.to_string());
    let percent = orphans.limit.map_or(String::new(), |_| format!(" ({})", say::percent(orphans.share())));
    let count = say::counted(orphans.count, "orphan");
    finding.line("sockstat, sysctl", format!("{count} in all network namespaces{percent}; {LIMIT}={limit}"));
    if orphans.reset() > 0 {
        let (aborted, killed) = (say::count(orphans.aborted), say::counted(orphans.killed, "orphan"));
        finding.line("/proc/net/netstat, seen", format!("TCPAbortOnMemory grew by {aborted}; {killed} seen reset"));
    }
    let standing = || evidence.sockets.iter().filter(|socket| socket.kept == Some(Kept::Orphan));
    if let Some(whose) = whose(standing()) {
        finding.line("sock_diag, seen", whose);
    }
    finding.examples = standing().take(EXAMPLES).map(Standing::example).collect();
    finding.why = "A socket that its process has closed, and whose peer has not answered yet, is an orphan. The kernel counts one whose data does not get through up to four times, and resets orphans beyond the limit."
        .into();
    finding.remedies.push("Find out why they stay: peers that do not close, or do not acknowledge".into());
    finding.remedies.push(format!(
        "Raise {LIMIT} in the first network namespace (each orphan takes up to 64 KiB, which is never swapped out)"
    ));
    finding.sure = if orphans.share() >= NEAR {
        "certain: the kernel's own count"
    } else {
        "certain that sockets were aborted; memory was not short, so orphans are the reason"
    }
    .into();
    finding
}

fn headline(evidence: &Evidence, orphans: &Orphans) -> String {
    let window = in_window(evidence);
    let allowed = orphans.limit.map_or(String::new(), |limit| format!(" of {} allowed", say::count(limit)));
    let count = say::counted(orphans.count, "orphaned socket");
    match orphans.reset() {
        0 => format!("{count}{allowed} ({})", say::percent(orphans.share())),
        reset => format!("{count}{allowed}: the kernel has reset {} of them{window}", say::count(reset)),
    }
}

/// Whose they were before they were closed: `of those seen: nginx[812] 31,000, api[4711] 12`.
fn whose<'e>(orphans: impl Iterator<Item = &'e Standing>) -> Option<String> {
    let mut counts: HashMap<Task, u64, FixedState> = HashMap::default();
    let mut unknown = 0_u64;
    for socket in orphans {
        match socket.task() {
            Some(task) => *counts.entry(task).or_default() += 1,
            None => unknown += 1,
        }
    }
    if counts.is_empty() && unknown == 0 {
        return None;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid));
    let rest: u64 = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
    let mut parts: Vec<_> = counts
        .iter()
        .take(NAMED)
        .map(|(task, count)| format!("{} {}", say::process(*task), say::count(*count)))
        .collect();
    for (what, count) in [("others", rest), ("no known process", unknown)] {
        if count > 0 {
            parts.push(format!("{what} {}", say::count(count)));
        }
    }
    Some(format!("of those seen: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, fired, nothing, pair_ended, standing};
    use super::*;
    use crate::model::facts::Settings;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::Counted;

    /// So many orphans of 65,536, and what was reset.
    fn evidence(orphans: u64, killed: u64, aborted: u64) -> Evidence {
        let mut evidence = nothing();
        let values = [(LIMIT.into(), "65536".into()), ("net.ipv4.tcp_mem".into(), "10 20 30".into())].into();
        evidence.settings.insert(None, Settings { values, ..Settings::default() });
        let peaks = [("sockstat.TCP.orphan".into(), orphans)].into();
        let grown = [("TcpExt.TCPAbortOnMemory".into(), aborted)].into();
        evidence.counters.insert(NETNS, Counted { grown, peaks, ..Counted::default() });
        evidence.counters.insert(NETNS + 1, Counted::default());
        if killed > 0 {
            evidence.pairs.push(pair_ended(End::OrphanKilled, killed));
        }
        evidence
    }

    #[rstest]
    #[case::few(131, 0, 0, None)]
    #[case::not_near(16_383, 0, 0, None)]
    #[case::near(16_384, 0, 0, Some(Severity::Warning))]
    #[case::nearer(16_385, 0, 0, Some(Severity::Warning))]
    #[case::not_half(32_767, 0, 0, Some(Severity::Warning))]
    #[case::half(32_768, 0, 0, Some(Severity::Critical))]
    #[case::aborted(131, 0, 1, Some(Severity::Warning))]
    #[case::killed(131, 1, 1, Some(Severity::Critical))]
    fn severity(#[case] orphans: u64, #[case] killed: u64, #[case] aborted: u64, #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &evidence(orphans, killed, aborted));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    /// That is another rule's.
    #[rstest]
    #[case::above_the_mark(21, 0)]
    #[case::for_a_moment(0, 1)]
    fn where_memory_is_short_it_is_not_the_orphans(#[case] pages: u64, #[case] pressures: u64) {
        let mut evidence = evidence(131, 0, 7);
        let counted = evidence.counters.get_mut(&NETNS).expect("it is there");
        counted.peaks.insert("sockstat.TCP.mem".into(), pages);
        counted.grown.insert("TcpExt.TCPMemoryPressures".into(), pressures);
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(40_112, 310, 308);
        let orphan = |conn| Standing { kept: Some(Kept::Orphan), ..standing(conn, State::FinWait1, 3) };
        evidence.sockets = (1..=6).map(orphan).collect();
        evidence.sockets[0].owner = None;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "40,112 orphaned sockets of 65,536 allowed: the kernel has reset 310 of them in 10.0s"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "40,112 orphans in all network namespaces (61 %); net.ipv4.tcp_max_orphans=65536",
                "TCPAbortOnMemory grew by 308; 310 orphans seen reset",
                "of those seen: api[4711] 5, no known process 1",
            ]
        );
        assert_eq!((finding.subject.netns, finding.examples.len()), (None, 5));
        let finding = &fired(&RULE, &tests::evidence(20_000, 0, 0))[0];
        assert_eq!(finding.headline, "20,000 orphaned sockets of 65,536 allowed (31 %)");
    }

    #[test]
    fn without_its_limit_it_is_not_checked() {
        let mut evidence = evidence(131, 0, 0);
        evidence.settings.clear();
        assert!(matches!(check(&evidence), Outcome::NotChecked(_)));
    }
}
