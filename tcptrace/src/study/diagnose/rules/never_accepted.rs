//! A listener that nobody accepts from.

use super::close_wait::{examples, oldest_ns};
use super::listening::{self, Listeners};
use crate::model::tcp::State;
use crate::study::diagnose::evidence::{Evidence, Listener, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// An event loop stalls for garbage collection up to a second or two, not for so long.
const STALLED_NS: u64 = 5_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "never-accepted",
    title: "connections wait in an accept queue that nobody accepts from",
    needs: &[Need::Sockets],
    figures: &[
        Figure { name: "queued", unit: "", doc: "Connections that wait to be accepted." },
        Figure { name: "queue_limit", unit: "", doc: "How many may wait; null when nobody looked." },
        Figure { name: "waited_ns", unit: "ns", doc: "How long the oldest has waited at least." },
        Figure { name: "gone", unit: "", doc: "Of those that wait, the ones whose client has left: CLOSE_WAIT." },
        Figure {
            name: "accepted",
            unit: "",
            doc: "Connections that were accepted in the window, as far as accepts are seen; null where they are not (--accept).",
        },
        Figure {
            name: "accept_failed",
            unit: "",
            doc: "Calls of accept of the process that failed with EMFILE or ENFILE in the window; null where failed calls are \
                  not seen.",
        },
    ],
    page: Page {
        sees: "Clients connect and get no answer; sockets in CLOSE_WAIT that no process owns.",
        fires: "For 5s or longer an accept queue was not empty at any look, or a connection waits in it, and nothing was \
                accepted from it. An event loop stalls for a second or two at most (garbage collection).",
        silent: "A queue that is not empty at one look, and that is accepted from.",
        remedy: "Find out what holds the process: its threads, or its descriptors (accept fails with EMFILE). A larger \
                 backlog lets clients wait longer, nothing else.",
        sources: "inet_csk_accept, sk_acceptq_is_full (net/ipv4): one more than the limit fits.",
    },
    check,
};

/// A listener, and the connections that wait in its accept queue.
struct Queue<'e> {
    listener: &'e Listener,
    sockets: Vec<&'e Standing>,
}

impl Queue<'_> {
    /// How long the oldest has waited at least, in ns: its own age, or since when the queue was not empty.
    fn waited_ns(&self, evidence: &Evidence) -> u64 {
        oldest_ns(&self.sockets).max(self.not_empty_ns(evidence))
    }

    fn not_empty_ns(&self, evidence: &Evidence) -> u64 {
        self.listener.waiting_since.map_or(0, |since| evidence.about.to.saturating_sub(since))
    }

    /// How many wait: by the last look at the queue, or by the sockets in it.
    fn queued(&self) -> u64 {
        u64::from(self.listener.queue.queued).max(self.sockets.len() as u64)
    }

    fn gone(&self) -> u64 {
        self.sockets.iter().filter(|socket| socket.state == State::CloseWait).count() as u64
    }

    fn is_stalled(&self, evidence: &Evidence) -> bool {
        let oldest = oldest_ns(&self.sockets);
        if evidence.lacks(Need::Accepts).is_some() {
            return oldest >= STALLED_NS;
        }
        let idle_ns = self.listener.accepted_at.map_or(u64::MAX, |at| evidence.about.to.saturating_sub(at));
        // Accepts through io_uring may not be seen. Sockets are accepted in order: the oldest in the queue tells.
        let not_empty = self.not_empty_ns(evidence) >= STALLED_NS && (self.sockets.is_empty() || oldest >= STALLED_NS);
        idle_ns >= STALLED_NS && (not_empty || oldest >= STALLED_NS)
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let queues = queues(evidence);
    let stalled = queues.iter().filter(|queue| queue.is_stalled(evidence));
    let findings: Vec<Finding> = stalled.map(|queue| finding(evidence, queue)).collect();
    if let (true, Some(reason)) = (findings.is_empty(), evidence.lacks(Need::AcceptQueues)) {
        return Outcome::NotChecked(reason);
    }
    // A queue that was never empty can be one that is accepted from. The sockets in it tell, where they are known.
    let is_unclear = |queue: &Queue<'_>| queue.sockets.is_empty() && queue.not_empty_ns(evidence) >= STALLED_NS;
    if let (true, Some(reason)) = (findings.is_empty() && queues.iter().any(is_unclear), evidence.lacks(Need::Accepts))
    {
        return Outcome::NotChecked(format!("accepts are not seen: {reason}"));
    }
    let longest = queues.iter().max_by_key(|queue| queue.waited_ns(evidence));
    Outcome::of(findings, longest.map(|queue| figures(evidence, queue)).unwrap_or_default())
}

/// The accept queues that are not empty.
fn queues(evidence: &Evidence) -> Vec<Queue<'_>> {
    let listeners = Listeners::new(evidence);
    let mut queues: Vec<_> =
        evidence.listeners.iter().map(|listener| Queue { listener, sockets: Vec::new() }).collect();
    let places: std::collections::HashMap<u64, usize> =
        queues.iter().enumerate().map(|(place, queue)| (queue.listener.queue.conn, place)).collect();
    for socket in evidence.sockets.iter().filter(|socket| socket.accepted == Some(false)) {
        let place = listeners.of(socket).and_then(|listener| places.get(&listener.queue.conn));
        if let Some(queue) = place.and_then(|place| queues.get_mut(*place)) {
            queue.sockets.push(socket);
        }
    }
    queues.retain(|queue| queue.queued() > 0);
    queues
}

/// How many may wait; `None` when nobody has looked at the queue.
fn limit(evidence: &Evidence, listener: &Listener) -> Option<u32> {
    evidence.lacks(Need::AcceptQueues).is_none().then_some(listener.queue.limit)
}

fn accept_failed(evidence: &Evidence, listener: &Listener) -> u64 {
    let task = listener.task.into_iter();
    task.flat_map(|task| listening::failed_accepts(evidence, task)).map(|failed| failed.count).sum()
}

fn figures(evidence: &Evidence, queue: &Queue<'_>) -> Figures {
    vec![
        ("queued", Value::Count(queue.queued())),
        ("queue_limit", limit(evidence, queue.listener).into()),
        ("waited_ns", Value::Ns(queue.waited_ns(evidence))),
        ("gone", Value::Count(queue.gone())),
        ("accepted", listening::known(evidence, Need::Accepts, queue.listener.accepted)),
        ("accept_failed", listening::known(evidence, Need::FailedCalls, accept_failed(evidence, queue.listener))),
    ]
}

fn finding(evidence: &Evidence, queue: &Queue<'_>) -> Finding {
    let listener = queue.listener;
    let end = listening::end(listener);
    let who = match listener.task {
        Some(task) => format!("{} does not accept on {end}", say::process(task)),
        None => format!("the listener of {end} does not accept"),
    };
    let wait = match queue.queued() {
        1 => "1 connection waits".to_owned(),
        queued => format!("{} connections wait", say::count(queued)),
    };
    let limit = limit(evidence, listener).map_or_else(String::new, |limit| format!(" (limit {})", say::count(limit)));
    let oldest = say::time(queue.waited_ns(evidence));
    let headline = match queue.gone() {
        0 => format!("{who}: {wait}{limit}, the oldest for ≥{oldest}"),
        gone => say::fitting([
            format!(
                "{who}: {wait}{limit}, the oldest for ≥{oldest}; {} of their clients have already left",
                say::count(gone)
            ),
            format!("{who}: {wait}{limit}, the oldest for ≥{oldest}; {} clients have left", say::count(gone)),
            format!("{who}: {wait}{limit}, the oldest for ≥{oldest}"),
        ]),
    };
    let mut finding = Finding::new(RULE.id, Severity::Critical, Confidence::Certain, headline);
    finding.subject = listening::subject(listener);
    finding.figures = figures(evidence, queue);
    describe(evidence, queue, &mut finding);
    finding.why =
        "The kernel opens connections for the listener; until the process calls accept(), nobody reads them.".into();
    finding.remedies.push(match listener.task {
        Some(task) => format!("Look at what holds the process: cat /proc/{}/task/*/wchan, its stacks", task.pid),
        None => "Look at what holds the process that listens".into(),
    });
    finding.mistakes.push("raise the backlog: clients wait longer, nothing else".into());
    finding.sure = "certain: the connections are in the accept queue".into();
    (finding.count, finding.seconds_left) = (queue.queued(), Some(0.0));
    finding.first_seen = listener.waiting_since;
    finding.examples = examples(&queue.sockets);
    finding
}

fn describe(evidence: &Evidence, queue: &Queue<'_>, finding: &mut Finding) {
    let listener = queue.listener;
    let accepted = match (listener.accepted_at, evidence.lacks(Need::Accepts)) {
        (None, Some(reason)) => format!("whether others were accepted is unknown: {reason}"),
        (Some(at), _) => {
            let ago = say::time(evidence.about.to.saturating_sub(at));
            format!("{} accepted in the window, the last one {ago} ago", say::count(listener.accepted))
        }
        (None, None) => "none was accepted in the window".into(),
    };
    finding.line("seen", accepted);
    if queue.gone() > 0 {
        let of = say::count(queue.sockets.len() as u64);
        finding.line("sock_diag", format!("the clients of {} of {of} that wait have left", say::count(queue.gone())));
    }
    if let Some(task) = listener.task {
        let failed: Vec<_> = listening::failed_accepts(evidence, task).collect();
        for failed in failed {
            let times = say::counted(failed.count, "time");
            finding.line("seen", format!("accept failed with {} {times}", listening::errno(failed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{api_listener, failed_call, fired, nothing, queued, seen};
    use super::*;
    use crate::model::event::Call;

    /// `api[4711]` listens on port 80, with so many connections in its queue for so many ms.
    fn evidence(waiting: u32, ms: u64) -> Evidence {
        let mut evidence = nothing();
        let since = evidence.about.to - ms * 1_000_000;
        let waiting_since = (waiting > 0).then_some(since);
        evidence.listeners.push(Listener { waiting_since, ..api_listener(waiting, 128) });
        evidence
    }

    #[rstest]
    #[case::a_stall(3, 4_999, 0)]
    #[case::stuck(1, 5_000, 1)]
    #[case::longer(1, 5_001, 1)]
    #[case::empty(0, 9_000, 0)]
    fn a_queue_that_is_never_empty(#[case] waiting: u32, #[case] ms: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &evidence(waiting, ms)).len(), expected);
    }

    #[rstest]
    #[case::just_now(4_999, 0)]
    #[case::long_ago(5_000, 1)]
    fn one_that_is_accepted_from_is_only_slow(#[case] ms_ago: u64, #[case] expected: usize) {
        let mut evidence = evidence(20, 10_000);
        let at = evidence.about.to - ms_ago * 1_000_000;
        (evidence.listeners[0].accepted, evidence.listeners[0].accepted_at) = (7, Some(at));
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::young(4, 0)]
    #[case::old(5, 1)]
    fn a_connection_that_waits(#[case] seconds: u64, #[case] expected: usize) {
        let mut evidence = evidence(0, 0);
        evidence.sockets.push(queued(1, State::CloseWait, seconds));
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    /// What accepts without being seen empties the queue all the same: nobody in it is old.
    #[test]
    fn a_queue_of_young_ones_is_accepted_from() {
        let mut evidence = evidence(2, 10_000);
        evidence.sockets = vec![queued(1, State::Established, 1), queued(2, State::Established, 0)];
        assert_eq!(fired(&RULE, &evidence), []);
    }

    /// Where accepts are not seen, only connections that wait show that nothing is accepted.
    #[test]
    fn without_accepts_the_connections_in_the_queue_tell() {
        let mut evidence = evidence(2, 10_000);
        let reason = "left out by --accept never";
        evidence.missing.insert(Need::Accepts, reason.into());
        assert_eq!((RULE.check)(&evidence), Outcome::NotChecked(format!("accepts are not seen: {reason}")));
        evidence.sockets = vec![queued(1, State::Established, 1), queued(2, State::Established, 0)];
        assert_eq!(fired(&RULE, &evidence), []);
        evidence.sockets[0] = queued(1, State::Established, 5);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(&*finding.evidence[0].text, "whether others were accepted is unknown: left out by --accept never");
        assert_eq!(finding.figures[4], ("accepted", Value::Unknown));
    }

    #[test]
    fn nothing_is_said_without_the_queues() {
        let mut evidence = evidence(0, 0);
        evidence.missing.insert(Need::AcceptQueues, "not recorded".into());
        assert_eq!((RULE.check)(&evidence), Outcome::NotChecked("not recorded".into()));
        evidence.sockets.push(queued(1, State::Established, 9));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] does not accept on 0.0.0.0:80: 1 connection waits, the oldest for ≥9.00s"
        );
        assert_eq!(finding.figures[1].1, Value::Unknown);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(129, 8_000);
        evidence.sockets = (1..=61).map(|conn| queued(conn, State::CloseWait, 48)).collect();
        evidence.sockets.iter_mut().for_each(|socket| socket.seen = Some(seen(socket.conn, 5, 48_000)));
        let call = failed_call(Call::Accept, 24, 88);
        evidence.calls.push(call);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] does not accept on 0.0.0.0:80: 129 connections wait (limit 128), the oldest for ≥48.0s"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Certain));
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "none was accepted in the window",
                "the clients of 61 of 61 that wait have left",
                "accept failed with EMFILE 88 times",
            ]
        );
    }
}
