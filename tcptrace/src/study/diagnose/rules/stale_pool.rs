//! A client's pool that keeps connections that the server has closed.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::close_wait::{examples, oldest_ns, subject};
use super::quiet;
use crate::model::event::Idle;
use crate::model::tcp::{End, Side, State};
use crate::study::diagnose::evidence::{Evidence, Pair, PairKey, Spread, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So long ago the server has closed it: younger ones may be on their way out.
const OLD_NS: u64 = 1_000_000_000;
/// One or two can be about to be closed.
const MANY: u64 = 3;
/// So many more than at the beginning are no growth yet, in tenths.
const GROWN_TENTHS: u64 = 11;
/// The receive queue of a socket that nobody has looked at since the FIN came.
const FIN: u32 = 1;
/// What a server says last is short: PostgreSQL's "terminating connection due to idle-session timeout" has 119 bytes.
const MOST_WORDS: u32 = 1024;
/// It comes with the FIN, within so many ms, and so long after the last request that it is no answer.
const WITH_FIN_MS: u32 = 100;
const UNASKED_MS: u32 = 1_000;

pub(super) static RULE: Rule = Rule {
    id: "stale-pool",
    title: "a client's pool keeps connections that the server has closed",
    needs: &[Need::Sockets, Need::Owners, Need::Inspections, Need::Events],
    figures: &[
        Figure {
            name: "stale",
            unit: "",
            doc: "Connections of a process to one remote end that wait in CLOSE_WAIT for 1s or longer, and that nobody has \
                  looked at.",
        },
        Figure { name: "stale_before", unit: "", doc: "How many of them there were at the beginning at least." },
        Figure { name: "oldest_ns", unit: "ns", doc: "How long the oldest has been in CLOSE_WAIT at least." },
        Figure {
            name: "quiet_ns",
            unit: "ns",
            doc: "How long nothing was received before the server closed, at the median; null when unknown.",
        },
        Figure {
            name: "reset",
            unit: "",
            doc: "Connections that were reset in CLOSE_WAIT in the window: something was sent on them.",
        },
    ],
    page: Page {
        sees: "A bounded number of sockets in CLOSE_WAIT at a client; now and then a request fails at once: \"remote end \
               closed connection without response\", \"connection reset\".",
        fires: "At both looks, 3 or more connections of a process to one remote end have been in CLOSE_WAIT for 1s or longer, \
                nobody has looked at them since the FIN (Recv-Q 1), and there are at most 10 % more at the end. If their number \
                grows, they are a leak. Databases say why they close: up to 1 KiB more in Recv-Q does not matter if it came \
                with the FIN, 1s or longer after the last request.",
        silent: "The pool drops idle connections before the server does.",
        remedy: "Let the pool drop idle connections sooner than the server closes them, or test them when they are borrowed.",
        sources: "tcp_diag_get_info, tcp_get_info (net/ipv4): tcpi_last_data_recv - tcpi_last_ack_recv is the quiet time \
                  before the FIN.",
    },
    check,
};

/// Connections of a process to one remote end that the server has closed.
#[derive(Debug)]
struct Pool<'e> {
    sockets: Vec<&'e Standing>,
    /// How many there were at the beginning, at least.
    before: u64,
    pair: Option<&'e Pair>,
}

impl Pool<'_> {
    fn count(&self) -> u64 {
        self.sockets.len() as u64
    }

    fn is_stale(&self) -> bool {
        self.before >= MANY && self.count() >= MANY && self.count() * 10 <= self.before * GROWN_TENTHS
    }

    /// Connections that were reset in CLOSE_WAIT: the process has sent something on them.
    fn reset(&self) -> u64 {
        let ends = self.pair.into_iter().flat_map(|pair| pair.ended_as(End::ResetReceived));
        ends.map(|(_, ended)| ended.in_close_wait).sum()
    }

    /// How long nothing came in before the server's FIN, which was the last segment that came; where the server's last words
    /// came with it, how long nothing was asked.
    fn quiet(&self) -> Spread {
        let mut quiet = Spread::default();
        for socket in &self.sockets {
            let Some(idle) = socket.idle() else { continue };
            let last = if has_last_words(socket) { idle.sent_ms } else { idle.received_ms };
            if let (Some(last), Some(acked)) = (last, idle.acked_ms) {
                quiet.add(u64::from(last.saturating_sub(acked)) * 1_000_000);
            }
        }
        quiet
    }

    /// `api[4711]`, or `api (12 processes)`.
    fn process(&self) -> String {
        let tasks: Vec<_> = self.sockets.iter().filter_map(|socket| socket.task()).collect();
        let pids: HashSet<u32> = tasks.iter().map(|task| task.pid).collect();
        match tasks.first() {
            Some(task) if pids.len() == 1 => say::process(*task),
            Some(task) => format!("{} ({} processes)", say::comm(task.comm), pids.len()),
            None => "an unknown process".into(),
        }
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let pools = pools(evidence);
    let findings = pools.iter().filter(|pool| pool.is_stale()).map(finding).collect();
    Outcome::of(findings, pools.first().map(figures).unwrap_or_default())
}

/// The sockets that this rule has findings about; none without tracing, when nobody knows whether they grow.
pub(super) fn taken(evidence: &Evidence) -> HashSet<u64, FixedState> {
    if RULE.needs.iter().any(|need| evidence.lacks(*need).is_some()) {
        return HashSet::default();
    }
    let pools = pools(evidence);
    let stale = pools.iter().filter(|pool| pool.is_stale());
    stale.flat_map(|pool| pool.sockets.iter().map(|socket| socket.conn)).collect()
}

/// Whether it is a client's connection that the server has closed and nobody has looked at since.
pub(super) fn may_be_stale(socket: &Standing) -> bool {
    let is_waiting = socket.state == State::CloseWait && socket.side == Side::Client;
    is_waiting && (socket.recv_queue() == Some(FIN) || has_last_words(socket))
}

/// Whether the server has said why it closes a client's connection, as databases do, and nobody has read that.
pub(super) fn has_last_words(socket: &Standing) -> bool {
    let Some(Idle { acked_ms: Some(acked), received_ms: Some(received), sent_ms: Some(sent) }) = socket.idle() else {
        return false;
    };
    let is_short = (FIN + 1..=FIN + MOST_WORDS).contains(&socket.recv_queue().unwrap_or(0));
    let is_unasked = received.abs_diff(acked) <= WITH_FIN_MS && sent.saturating_sub(received) >= UNASKED_MS;
    socket.side == Side::Client && is_short && is_unasked
}

fn pools(evidence: &Evidence) -> Vec<Pool<'_>> {
    let mut by_pair: HashMap<PairKey, Vec<&Standing>, FixedState> = HashMap::default();
    let owned = evidence.sockets.iter().filter(|socket| socket.owner.is_some());
    for socket in owned.filter(|socket| may_be_stale(socket) && socket.age_ns() >= OLD_NS) {
        by_pair.entry(socket.pair).or_default().push(socket);
    }
    let pairs: HashMap<PairKey, &Pair, FixedState> = evidence.clients().map(|pair| (pair.key, pair)).collect();
    let pool = |(key, sockets): (PairKey, Vec<_>)| {
        let pair = pairs.get(&key).copied();
        Pool { before: before(evidence, &sockets, pair), sockets, pair }
    };
    let mut pools: Vec<_> = by_pair.into_iter().map(pool).collect();
    pools.sort_by_key(|pool| (std::cmp::Reverse(pool.count()), pool.sockets.first().map(|socket| socket.conn)));
    pools
}

/// How many there were at the beginning at least: those that are as old as the window, and all but those that came in it.
fn before(evidence: &Evidence, sockets: &[&Standing], pair: Option<&Pair>) -> u64 {
    let old = sockets.iter().filter(|socket| socket.age_ns() >= evidence.about.traced_ns).count() as u64;
    let moved = pair.and_then(|pair| pair.stay(State::CloseWait));
    let grown = moved.map_or(0, |stay| stay.entered.saturating_sub(stay.left));
    old.max((sockets.len() as u64).saturating_sub(grown))
}

fn figures(pool: &Pool<'_>) -> Figures {
    vec![
        ("stale", Value::Count(pool.count())),
        ("stale_before", Value::Count(pool.before)),
        ("oldest_ns", Value::Ns(oldest_ns(&pool.sockets))),
        ("quiet_ns", pool.quiet().percentile(50).map_or(Value::Unknown, Value::Ns)),
        ("reset", Value::Count(pool.reset())),
    ]
}

fn finding(pool: &Pool<'_>) -> Finding {
    let quiet = pool.quiet();
    let after = quiet::timer(&quiet).map(|ns| say::seconds(ns as f64 / 1e9));
    let remote = pool.sockets.first().map(|socket| say::end(socket.pair.ip, socket.pair.port));
    let remote = remote.map_or_else(|| "the server".to_owned(), |remote| remote.to_string());
    let kept = format!(
        "{} keeps {} in its pool that {remote} has closed",
        pool.process(),
        say::counted(pool.count(), "connection")
    );
    let headline = match &after {
        Some(after) => say::fitting([format!("{kept} after {after} without a request"), kept]),
        None => kept,
    };
    let severity = if pool.reset() > 0 { Severity::Warning } else { Severity::Note };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Likely, headline);
    if let Some(task) = pool.sockets.first().and_then(|socket| socket.task()) {
        finding.subject = subject(task, &pool.sockets);
        let is_one = pool.sockets.iter().all(|socket| socket.task().is_some_and(|it| it.pid == task.pid));
        finding.subject.task = Some(task).filter(|_| is_one);
    }
    finding.figures = figures(pool);
    let oldest = say::time(oldest_ns(&pool.sockets));
    let words = pool.sockets.iter().filter(|socket| has_last_words(socket));
    let queue = match words.filter_map(|socket| socket.recv_queue()).max() {
        None => "Recv-Q 1 on each".to_owned(),
        Some(most) => format!("Recv-Q up to {most}, the server's last words and its FIN"),
    };
    finding.line("sock_diag", format!("{queue}: nobody has looked since the FIN, the oldest came ≥{oldest} ago"));
    if let (Some(low), Some(high)) = (quiet.percentile(10), quiet.percentile(90)) {
        let (low, high) = (say::time(low), say::time(high));
        finding
            .line("sock_diag", format!("nothing was asked or answered for {low} (p10) to {high} (p90) before the FIN"));
    }
    if pool.reset() > 0 {
        let reset = say::counted(pool.reset(), "connection");
        finding.line("seen", format!("{reset} reset in CLOSE_WAIT: the process sent something on a stale one"));
    }
    finding.why = "The server's idle timeout is shorter than the pool's. A request on such a connection fails.".into();
    let below = after.map_or_else(|| "the server's idle timeout".to_owned(), |after| format!("the server's {after}"));
    finding.remedies.push(format!(
        "Set the pool's maximum idle time below {below} (HikariCP: idleTimeout, maxLifetime; Go: IdleConnTimeout)"
    ));
    finding.remedies.push("Test connections when they are borrowed, or retry on a fresh one".into());
    finding.remedies.push("Or raise the idle timeout of the server".into());
    finding.sure =
        "certain that the server has closed them and that nobody has looked; that the next request on one fails \
                    is likely: many clients test first"
            .into();
    finding.count = pool.count();
    finding.examples = examples(&pool.sockets);
    finding
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{client_key, fired, nothing, pair, seen, standing};
    use super::*;
    use crate::model::tcp::Closer;
    use crate::study::diagnose::evidence::{Ended, Stays};

    /// So many connections that the server closed so many seconds ago, after 1s without a request.
    fn evidence(count: u64, seconds: u64) -> Evidence {
        let mut evidence = nothing();
        evidence.sockets = (1..=count).map(|conn| standing(conn, State::CloseWait, seconds)).collect();
        for socket in &mut evidence.sockets {
            let idle = Idle { acked_ms: Some(2_356), received_ms: Some(3_360), sent_ms: Some(3_361) };
            socket.seen = Some(crate::model::event::Inspected { idle: Some(idle), ..seen(socket.conn, 1, 0) });
        }
        evidence
    }

    #[rstest]
    #[case::two(2, 60, 0)]
    #[case::three(3, 60, 1)]
    #[case::four(4, 1, 1)]
    #[case::just_closed(4, 0, 0)]
    fn thresholds(#[case] count: u64, #[case] seconds: u64, #[case] expected: usize) {
        let evidence = evidence(count, seconds);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
        assert_eq!(taken(&evidence).len() as u64, if expected > 0 { count } else { 0 });
    }

    /// Twenty-two of them, of which so many came in the window.
    #[rstest]
    #[case::none(0, 1)]
    #[case::a_tenth(2, 1)]
    #[case::more(3, 0)]
    fn growing_ones_are_a_leak(#[case] entered: u64, #[case] expected: usize) {
        let mut evidence = evidence(22, 5);
        let mut pair = pair(client_key());
        pair.stays.push((State::CloseWait, Stays { entered, ..Stays::default() }));
        evidence.pairs.push(pair);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::the_end_was_read(0)]
    #[case::bytes_are_unread(2)]
    fn only_those_that_nobody_looked_at(#[case] queue: u32) {
        let mut evidence = evidence(20, 60);
        evidence.sockets.iter_mut().for_each(|socket| socket.seen = Some(seen(socket.conn, queue, 1_000)));
        assert_eq!(fired(&RULE, &evidence), []);
    }

    /// The last words of a database come with its FIN, long after the last request.
    #[rstest]
    #[case::last_words(120, 2_356, 32_356, 1)]
    #[case::the_most(1_025, 2_356, 32_356, 1)]
    #[case::too_much(1_026, 2_356, 32_356, 0)]
    #[case::a_while_before_the_fin(120, 2_457, 32_356, 0)]
    #[case::an_answer(120, 2_356, 3_355, 0)]
    #[case::unasked(120, 2_356, 3_356, 1)]
    fn last_words(#[case] queue: u32, #[case] received: u32, #[case] sent: u32, #[case] expected: usize) {
        let mut evidence = evidence(5, 60);
        let idle = Idle { acked_ms: Some(2_356), received_ms: Some(received), sent_ms: Some(sent) };
        for socket in &mut evidence.sockets {
            socket.seen = Some(crate::model::event::Inspected { idle: Some(idle), ..seen(socket.conn, queue, 0) });
        }
        let found = fired(&RULE, &evidence);
        assert_eq!(found.len(), expected);
        let is_stuck = !fired(&super::super::close_wait_unread::RULE, &evidence).is_empty();
        assert_eq!(is_stuck, expected == 0, "it has not stopped reading");
        if let (Some(finding), 32_356) = (found.first(), sent) {
            assert!(finding.headline.ends_with(" has closed after 30.0s without a request"), "{}", finding.headline);
            let queue = format!("Recv-Q up to {queue}, the server's last words and its FIN: ");
            assert!(finding.evidence[0].text.starts_with(&queue), "{}", finding.evidence[0].text);
        }
    }

    #[test]
    fn nothing_is_taken_after_a_single_look() {
        let mut evidence = evidence(20, 60);
        evidence.missing.insert(Need::Events, "needs time".into());
        assert!(taken(&evidence).is_empty());
    }

    #[test]
    fn a_reset_one_makes_it_a_warning() {
        let mut evidence = evidence(5, 60);
        let ended = Ended { count: 2, in_close_wait: 1, ..Ended::default() };
        evidence.pairs.push(Pair { ends: vec![(End::ResetReceived, Closer::Passive, ended)], ..pair(client_key()) });
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Warning);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &evidence(5, 60))[0];
        assert_eq!(
            finding.headline,
            "api[4711] keeps 5 connections in its pool that 10.0.0.9:6379 has closed after 1.0s without a request"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Note, Confidence::Likely));
        assert_eq!(finding.figures[3].1, Value::Ns(1_004_000_000));
        assert_eq!(
            finding.evidence[1].text,
            "nothing was asked or answered for 1.00s (p10) to 1.00s (p90) before the FIN"
        );
        assert!(finding.remedies[0].starts_with("Set the pool's maximum idle time below the server's 1.0s ("));
    }
}
