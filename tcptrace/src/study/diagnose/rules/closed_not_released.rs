//! Descriptors of connections that are over: `ss` does not show them.

use std::collections::{BTreeMap, HashSet};

use super::close_wait::{examples, language, oldest_ns, peers, subject};
use super::words::share;
use crate::model::tcp::{Closer, End, Task};
use crate::study::diagnose::evidence::{Evidence, Over, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So long after its end nobody comes back for it: the longest usual request timeouts are over.
const OLD_NS: u64 = 60_000_000_000;
/// So many are not a handful of slow requests.
const MANY: usize = 10;
/// So many at once are a leak, however young they are: an end is noticed within milliseconds.
const AT_ONCE: usize = 100;
/// And such a part of the descriptors of a process is not one error path.
const SHARE: f64 = 0.2;
/// How many ways to end are named.
const NAMED: usize = 3;
/// From this part of its limit on, a process is near the end of its descriptors.
const FULL: f64 = 0.95;

pub(super) static RULE: Rule = Rule {
    id: "closed-not-released",
    title: "a process keeps descriptors of connections that are over",
    needs: &[Need::Events, Need::Owners],
    figures: &[
        Figure {
            name: "over",
            unit: "",
            doc: "Descriptors of the process whose connection has ended: their sockets are CLOSED, and have had a peer.",
        },
        Figure { name: "old", unit: "", doc: "Of those, the ones whose connection ended a minute ago or earlier." },
        Figure { name: "oldest_ns", unit: "ns", doc: "How long ago the first of them ended at least." },
        Figure { name: "reset", unit: "", doc: "Of those, the ones that a reset has ended." },
        Figure { name: "timed_out", unit: "", doc: "Of those, the ones that a timeout has ended." },
        Figure { name: "descriptors", unit: "", doc: "Open descriptors of the process; null when unknown." },
        Figure { name: "over_share", unit: "", doc: "The first as a part of those; null when unknown." },
        Figure { name: "descriptor_limit", unit: "", doc: "Its soft limit; null when unknown." },
    ],
    page: Page {
        sees: "The descriptors of a process grow, and ss shows no sockets for them.",
        fires: "A process has 10 or more descriptors of connections that ended 60s ago or earlier (the longest usual request \
                timeouts are over then). Or 100 or more of its descriptors, and 20 % or more, are of connections that are over, \
                whenever they ended.",
        silent: "Descriptors that are closed within a second of the end; sockets that were never connected.",
        remedy: "Close the descriptor on an error as well as at the end of the stream.",
        sources: "tcp_reset, tcp_write_err, tcp_done (net/ipv4): the kernel forgets the connection, and the socket stays until \
                  close(). In CLOSE_WAIT an answered keepalive probe does that: the peer knows nothing of it any more.",
    },
    check,
};

/// What a process keeps.
struct Kept<'e> {
    task: Task,
    over: Vec<&'e Over>,
    sockets: Vec<&'e Standing>,
    descriptors: Option<u64>,
    limit: Option<u64>,
}

impl<'e> Kept<'e> {
    fn of(evidence: &Evidence, task: Task, over: Vec<&'e Over>) -> Self {
        let limit = evidence.limits.iter().find(|it| it.pid == task.pid).map(|it| it.last.1);
        Self {
            task,
            sockets: over.iter().map(|it| &it.socket).collect(),
            over,
            descriptors: limit.and_then(|it| it.descriptors),
            limit: limit.and_then(|it| it.soft),
        }
    }
    fn old(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.age_ns() >= OLD_NS).count()
    }

    fn ended(&self, is_it: fn(End) -> bool) -> u64 {
        self.over.iter().filter(|over| is_it(over.end)).count() as u64
    }

    fn reset(&self) -> u64 {
        self.ended(End::is_reset)
    }

    fn timed_out(&self) -> u64 {
        self.ended(|end| matches!(end, End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout))
    }

    fn share(&self) -> Option<f64> {
        self.descriptors.map(|all| share(self.over.len() as u64, all.max(1)))
    }

    fn are_old(&self) -> bool {
        self.old() >= MANY
    }

    fn are_kept(&self) -> bool {
        self.are_old() || self.over.len() >= AT_ONCE && self.share().is_some_and(|share| share >= SHARE)
    }

    fn is_full(&self) -> bool {
        let both = self.descriptors.zip(self.limit);
        both.is_some_and(|(open, limit)| open as f64 >= FULL * limit as f64)
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let Some(over) = &evidence.over else {
        return Outcome::NotChecked("top does not look for them".into());
    };
    let kept = kept(evidence, over);
    let findings = kept.iter().filter(|it| it.are_kept()).map(finding).collect();
    Outcome::of(findings, kept.first().map(figures).unwrap_or_default())
}

/// By process, the one with the most first. In an accept queue, no process has a descriptor.
fn kept<'e>(evidence: &Evidence, over: &'e [Over]) -> Vec<Kept<'e>> {
    let mut by_process: BTreeMap<u32, (Task, Vec<&Over>)> = BTreeMap::new();
    for over in over.iter().filter(|it| it.socket.accepted != Some(false)) {
        if let Some(task) = over.socket.task() {
            by_process.entry(task.pid).or_insert_with(|| (task, Vec::new())).1.push(over);
        }
    }
    let mut all: Vec<Kept<'e>> = by_process.into_values().map(|(task, over)| Kept::of(evidence, task, over)).collect();
    all.sort_by_key(|it| std::cmp::Reverse(it.over.len()));
    all
}

fn figures(kept: &Kept<'_>) -> Figures {
    vec![
        ("over", Value::Count(kept.over.len() as u64)),
        ("old", Value::Count(kept.old() as u64)),
        ("oldest_ns", Value::Ns(oldest_ns(&kept.sockets))),
        ("reset", Value::Count(kept.reset())),
        ("timed_out", Value::Count(kept.timed_out())),
        ("descriptors", kept.descriptors.into()),
        ("over_share", kept.share().map_or(Value::Unknown, Value::Share)),
        ("descriptor_limit", kept.limit.into()),
    ]
}

fn finding(kept: &Kept<'_>) -> Finding {
    let severity = if kept.is_full() { Severity::Critical } else { Severity::Warning };
    let confidence = if kept.are_old() { Confidence::Certain } else { Confidence::Possible };
    let oldest = say::time(oldest_ns(&kept.sockets));
    let base = format!(
        "{} keeps {} of connections that are over",
        say::process(kept.task),
        say::counted(kept.over.len() as u64, "descriptor")
    );
    let headline = say::fitting([
        format!("{base}, for ≥{oldest}; ss does not show them"),
        format!("{base}; ss does not show them"),
        base,
    ]);
    let mut finding = Finding::new(RULE.id, severity, confidence, headline);
    finding.subject = subject(kept.task, &kept.sockets);
    finding.figures = figures(kept);
    finding.count = kept.over.len() as u64;
    describe(kept, &mut finding);
    finding.why =
        "The kernel has forgotten the connection: it ended by a reset or a timeout. The descriptor stays until the \
                   process calls close()."
            .into();
    finding
        .remedies
        .push("Close the descriptor on an error of recv() or send() too, not at the end of the stream alone".into());
    finding.remedies.push(language(kept.task).into());
    finding.mistakes.push("count sockets in ss to see the leak: compare the descriptors of the process instead".into());
    finding.sure = match confidence {
        Confidence::Certain => "certain: the connections have ended, and the descriptors are open",
        _ => {
            "certain that the connections have ended and the descriptors are open; that nobody will close them is possible: \
             tcptrace diagnose --duration 2m decides"
        }
    }
    .into();
    finding
}

fn describe(kept: &Kept<'_>, finding: &mut Finding) {
    let fds: HashSet<u32> = kept.sockets.iter().filter_map(|socket| socket.fd).collect();
    finding.line("seen", format!("ended by {}", ends(kept)));
    if let (Some(first), Some(last)) = (fds.iter().min(), fds.iter().max()) {
        finding.line("/proc", if first == last { format!("fd {first}") } else { format!("fd {first} … {last}") });
    }
    finding.line("seen", peers(kept.sockets.iter().copied()));
    if let (Some(open), Some(limit)) = (kept.descriptors, kept.limit) {
        let part = say::percent(kept.share().unwrap_or(0.0));
        let (open, limit) = (say::count(open), say::count(limit));
        finding.line(
            "limits",
            format!("{open} of {limit} descriptors open; {part} of those are of connections that are over"),
        );
    }
    finding.examples = examples(&kept.sockets);
}

/// `reset_received 77, reset_received in CLOSE_WAIT 41, keepalive_timeout 2`.
fn ends(kept: &Kept<'_>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for over in &kept.over {
        let word = match (over.end, over.socket.closer) {
            (End::Unknown, _) => "what came before this look",
            // The keepalive probe, or what the process sent, was answered so.
            (End::ResetReceived, Closer::Passive) => "reset_received in CLOSE_WAIT",
            (end, _) => end.as_str(),
        };
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), *word));
    let named: Vec<String> =
        counts.iter().take(NAMED).map(|(word, count)| format!("{word} {}", say::count(*count))).collect();
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{api, fired, nothing, standing};
    use super::*;
    use crate::model::facts::Limit;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::Descriptors;

    /// So many descriptors of `api[4711]` whose connections were reset so many seconds ago, of so many that it has.
    fn kept(count: u64, seconds: u64, descriptors: u64) -> Evidence {
        let mut evidence = nothing();
        let over = |conn| Over { socket: standing(conn, State::Closed, seconds), end: End::ResetReceived };
        evidence.over = Some((1..=count).map(over).collect());
        let limit = Limit { pid: 4711, descriptors: Some(descriptors), soft: Some(1_024), hard: None };
        evidence.limits.push(Descriptors { pid: 4711, task: Some(api()), first: (0, limit), last: (0, limit) });
        evidence
    }

    #[rstest]
    #[case::a_handful(9, 300, 20, None)]
    #[case::young(99, 59, 100, None)]
    #[case::old(10, 60, 900, Some(Confidence::Certain))]
    #[case::many_at_once(100, 1, 500, Some(Confidence::Possible))]
    #[case::a_small_part(100, 1, 501, None)]
    #[case::more(101, 1, 500, Some(Confidence::Possible))]
    fn thresholds(
        #[case] count: u64,
        #[case] seconds: u64,
        #[case] descriptors: u64,
        #[case] expected: Option<Confidence>,
    ) {
        let found = fired(&RULE, &kept(count, seconds, descriptors));
        assert_eq!(found.first().map(|finding| finding.confidence), expected);
    }

    #[rstest]
    #[case::room(972, Severity::Warning)]
    #[case::full(973, Severity::Critical)]
    fn severity(#[case] descriptors: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &kept(120, 300, descriptors))[0].severity, expected);
    }

    /// No process has a descriptor of what nobody has accepted.
    #[test]
    fn an_accept_queue_is_no_process() {
        let mut evidence = kept(120, 300, 200);
        evidence.over.iter_mut().flatten().for_each(|it| it.socket.accepted = Some(false));
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words() {
        let mut evidence = kept(120, 300, 200);
        let over = evidence.over.as_mut().expect("some");
        over[119].end = End::KeepaliveTimeout;
        over.iter_mut().take(2).for_each(|it| it.end = End::Unknown);
        over.iter_mut().skip(2).for_each(|it| it.socket.closer = Closer::ResetRemote);
        over.iter_mut().skip(100).for_each(|it| it.socket.closer = Closer::Passive);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] keeps 120 descriptors of connections that are over, for ≥5m00s; ss does not show them"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "ended by reset_received 98, reset_received in CLOSE_WAIT 19, what came before this look 2",
                "fd 1 … 120",
                "peers: 10.0.0.9:6379 120",
                "200 of 1,024 descriptors open; 60 % of those are of connections that are over",
            ]
        );
        assert_eq!((finding.subject.task, finding.confidence), (Some(api()), Confidence::Certain));
    }
}
