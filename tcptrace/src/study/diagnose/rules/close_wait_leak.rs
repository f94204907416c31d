//! A process that does not close connections that its peers have closed.

use super::close_wait::{by_process, examples, language, oldest_ns, peers, queues, subject};
use super::{close_wait_unread, stale_pool};
use crate::model::event::Timer;
use crate::model::tcp::{Side, State, Task};
use crate::study::diagnose::evidence::{Descriptors, Evidence, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So old is no request in progress: the longest usual request timeouts (nginx, HAProxy, load balancers) are 60 s.
const OLD_NS: u64 = 60_000_000_000;
/// So many are not a handful of slow requests.
const MANY: u64 = 10;
/// Of those that began in the window, so few leave when they leak.
const LEAVING: f64 = 0.1;
/// So old, nobody comes back for it.
const VERY_OLD_NS: u64 = 600_000_000_000;
/// So many began in the window, and none of them left.
const NONE_OF: u64 = 20;
/// The window of a critical forecast: what an on-call needs to act.
const SOON_S: f64 = 600.0;

pub(super) static RULE: Rule = Rule {
    id: "close-wait-leak",
    title: "a process does not close connections that its peers have closed",
    needs: &[Need::Sockets, Need::Owners],
    figures: &[
        Figure { name: "close_wait", unit: "", doc: "Sockets of the process in CLOSE_WAIT that were accepted." },
        Figure { name: "old", unit: "", doc: "Of those, the ones that have been in it for a minute or longer." },
        Figure { name: "oldest_ns", unit: "ns", doc: "How long the oldest has been in it at least." },
        Figure {
            name: "growth",
            unit: "",
            doc: "How many more there are at the end of the window; null without tracing.",
        },
        Figure { name: "began", unit: "", doc: "How many entered CLOSE_WAIT in the window; null without tracing." },
        Figure { name: "left", unit: "", doc: "Of those that entered it in the window, how many left it." },
        Figure { name: "recv_queue_0", unit: "", doc: "Sockets whose end of stream was read." },
        Figure { name: "recv_queue_1", unit: "", doc: "Sockets that nobody has looked at since the peer closed." },
        Figure { name: "descriptors", unit: "", doc: "Open descriptors of the process." },
        Figure { name: "descriptor_limit", unit: "", doc: "Its soft limit." },
    ],
    page: Page {
        sees: "The number of sockets in CLOSE_WAIT grows; later \"too many open files\", and pools time out.",
        fires: "A process has 10 or more sockets that have been in CLOSE_WAIT for 60s or longer (the longest usual request \
                timeouts are over then), or 10 more at the end of the window than at its beginning while fewer than 10 % of \
                those that began in it have left. Sockets in an accept queue, sockets with unread data and the idle sockets \
                of a pool belong to other rules.",
        silent: "CLOSE_WAITs that come and go within seconds, however many; fewer than 10 old ones.",
        remedy: "Find the code path that does not call close(). Recv-Q tells where: 0 means that the process has read the \
                 end of the stream, 1 that it has not looked since the peer closed.",
        sources: "RFC 9293 3.6; tcp_fin, tcp_get_info (net/ipv4). No timer runs in CLOSE_WAIT unless SO_KEEPALIVE is set.",
    },
    check,
};

/// Sockets of one process in CLOSE_WAIT.
#[derive(Debug)]
struct Holder<'e> {
    task: Task,
    sockets: Vec<&'e Standing>,
    /// How many entered CLOSE_WAIT in the window, and how many of those left it; `None` when nothing was traced.
    traced: Option<Moves>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Moves {
    began: u64,
    left: u64,
    /// How many left it that were in it before.
    left_old: u64,
}

impl Moves {
    fn growth(&self) -> i64 {
        self.began.saturating_sub(self.left).cast_signed() - self.left_old.cast_signed()
    }

    /// Whether those that begin leave again.
    fn leaves(&self) -> bool {
        self.left as f64 >= LEAVING * self.began as f64
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let holders = holders(evidence);
    let findings: Vec<Finding> = holders.iter().filter_map(|holder| finding(evidence, holder)).collect();
    let largest = holders.iter().max_by_key(|holder| holder.sockets.len());
    Outcome::of(findings, largest.map(|holder| figures(evidence, holder)).unwrap_or_default())
}

/// The processes that this rule has findings about.
pub(super) fn leaking(evidence: &Evidence) -> Vec<u32> {
    if RULE.needs.iter().any(|need| evidence.lacks(*need).is_some()) {
        return Vec::new();
    }
    let leaks = |holder: &&Holder<'_>| finding(evidence, holder).is_some();
    holders(evidence).iter().filter(leaks).map(|holder| holder.task.pid).collect()
}

/// The processes that have sockets in CLOSE_WAIT that this rule is about: no other one explains them.
fn holders(evidence: &Evidence) -> Vec<Holder<'_>> {
    let (unread, stale) = (close_wait_unread::taken(evidence), stale_pool::taken(evidence));
    let is_of_this_rule = |socket: &&Standing| {
        socket.state == State::CloseWait
            && socket.accepted != Some(false)
            && !unread.contains(&socket.conn)
            && !stale.contains(&socket.conn)
    };
    let processes = by_process(evidence.sockets.iter().filter(is_of_this_rule)).into_iter();
    processes.map(|(task, sockets)| Holder { task, sockets, traced: traced(evidence, task) }).collect()
}

/// What entered and left CLOSE_WAIT in the window of the process; `None` where it shares its pairs with others, so that
/// nobody knows whose moved.
fn traced(evidence: &Evidence, task: Task) -> Option<Moves> {
    if evidence.about.traced_ns == 0 {
        return None;
    }
    let mut sum = Moves::default();
    for pair in evidence.pairs.iter().filter(|pair| pair.tasks.iter().any(|(it, _)| it.pid == task.pid)) {
        let Some(stay) = pair.stay(State::CloseWait) else { continue };
        if pair.processes > 1 {
            return None;
        }
        sum.began += stay.entered;
        sum.left += stay.left_new;
        sum.left_old += stay.left.saturating_sub(stay.left_new);
    }
    Some(sum)
}

fn old<'e>(holder: &'e Holder<'_>) -> impl Iterator<Item = &'e Standing> {
    holder.sockets.iter().copied().filter(|socket| socket.age_ns() >= OLD_NS)
}

fn figures(evidence: &Evidence, holder: &Holder<'_>) -> Figures {
    let queues = |wanted| holder.sockets.iter().filter(|socket| socket.recv_queue() == Some(wanted)).count() as u64;
    let descriptors = descriptors(evidence, holder.task).map(|it| it.last.1);
    let growth = holder.traced.map(|moves| u64::try_from(moves.growth()).unwrap_or(0));
    vec![
        ("close_wait", Value::Count(holder.sockets.len() as u64)),
        ("old", Value::Count(old(holder).count() as u64)),
        ("oldest_ns", Value::Ns(oldest_ns(&holder.sockets))),
        ("growth", growth.into()),
        ("began", holder.traced.map(|moves| moves.began).into()),
        ("left", holder.traced.map(|moves| moves.left).into()),
        ("recv_queue_0", Value::Count(queues(0))),
        ("recv_queue_1", Value::Count(queues(1))),
        ("descriptors", descriptors.and_then(|it| it.descriptors).into()),
        ("descriptor_limit", descriptors.and_then(|it| it.soft).into()),
    ]
}

fn descriptors(evidence: &Evidence, task: Task) -> Option<&Descriptors> {
    evidence.limits.iter().find(|it| it.pid == task.pid)
}

fn finding(evidence: &Evidence, holder: &Holder<'_>) -> Option<Finding> {
    let is_old = old(holder).count() as u64 >= MANY;
    let moves = holder.traced.unwrap_or_default();
    if !is_old && (moves.growth() < MANY.cast_signed() || moves.leaves()) {
        return None;
    }
    let oldest = oldest_ns(&holder.sockets);
    let grows = growth(evidence, moves);
    let held = format!(
        "{} holds {} that the peer has closed, the oldest for ≥{}",
        say::process(holder.task),
        say::counted(holder.sockets.len() as u64, "connection"),
        say::time(oldest),
    );
    let headline = match grows {
        Some(growth) => say::fitting([format!("{held}, {:.0} more each minute", growth * 60.0), held]),
        None => held,
    };
    let seconds_left = seconds_left(evidence, holder, grows);
    let severity = match seconds_left {
        Some(seconds) if seconds < SOON_S => Severity::Critical,
        _ => Severity::Warning,
    };
    let confidence = confidence(holder, moves);
    let mut finding = Finding::new(RULE.id, severity, confidence, headline);
    finding.subject = subject(holder.task, &holder.sockets);
    finding.figures = figures(evidence, holder);
    finding.seconds_left = seconds_left;
    finding.count = holder.sockets.len() as u64;
    describe(evidence, holder, &mut finding);
    advise(holder, &mut finding);
    finding.sure = match confidence {
        Confidence::Possible if may_be_a_pool(holder) => {
            "certain that the process has not closed them; it may be a leak or a pool's idle connections: tcptrace diagnose --duration 5m tells which"
        }
        Confidence::Possible => {
            "certain that the process has not closed them; that it never will is possible: \
             tcptrace diagnose --duration 5m decides"
        }
        _ => "certain that the process has not closed them; that it never will is likely",
    }
    .into();
    Some(finding)
}

/// How sure it is that they are never closed: the rival is a process that closes late, or a pool.
fn confidence(holder: &Holder<'_>, moves: Moves) -> Confidence {
    let is_very_old = oldest_ns(&holder.sockets) >= VERY_OLD_NS;
    let never_left = moves.began >= NONE_OF && moves.left == 0;
    match is_very_old || never_left {
        true if !may_be_a_pool(holder) => Confidence::Likely,
        _ => Confidence::Possible,
    }
}

/// Whether most of them may be idle connections of a client's pool: nobody knows whether they grow, or whether the process
/// has looked at them.
fn may_be_a_pool(holder: &Holder<'_>) -> bool {
    let may_be = |socket: &&&Standing| match socket.recv_queue() {
        Some(_) => holder.traced.is_none() && stale_pool::may_be_stale(socket),
        None => socket.side == Side::Client,
    };
    holder.sockets.iter().filter(may_be).count() * 2 > holder.sockets.len()
}

/// How many more there are each second; `None` when they leave again, or are not more.
fn growth(evidence: &Evidence, moves: Moves) -> Option<f64> {
    let more = u64::try_from(moves.growth()).ok().filter(|more| *more > 0 && !moves.leaves())?;
    Some(evidence.about.per_second(more))
}

/// Until the process has as many descriptors as it may have, at the rate at which its CLOSE_WAITs grow; 0 if it has.
fn seconds_left(evidence: &Evidence, holder: &Holder<'_>, growth: Option<f64>) -> Option<f64> {
    let limit = descriptors(evidence, holder.task)?.last.1;
    let room = limit.soft?.saturating_sub(limit.descriptors?);
    if room == 0 {
        return Some(0.0);
    }
    growth.map(|growth| room as f64 / growth)
}

fn describe(evidence: &Evidence, holder: &Holder<'_>, finding: &mut Finding) {
    let fds = holder.sockets.iter().filter_map(|socket| socket.fd);
    let (first, last) = (fds.clone().min(), fds.max());
    let queues = queues(holder.sockets.iter().copied());
    let fds = match (first, last) {
        (Some(first), Some(last)) if first != last => format!("fd {first} … {last}; "),
        (Some(only), _) => format!("fd {only}; "),
        _ => String::new(),
    };
    finding.line("sock_diag, /proc", format!("{fds}{queues}"));
    finding.line("sock_diag", peers(holder.sockets.iter().copied()));
    if let Some(moves) = holder.traced.filter(|moves| moves.began > 0) {
        let text = match moves.left {
            0 => format!("none of the {} that began in the window has ended", say::count(moves.began)),
            left => {
                format!("{} of the {} that began in the window have ended", say::count(left), say::count(moves.began))
            }
        };
        finding.line("seen", text);
    }
    if let Some(it) = descriptors(evidence, holder.task)
        && let (Some(open), Some(limit)) = (it.last.1.descriptors, it.last.1.soft)
    {
        let full = match finding.seconds_left {
            Some(seconds) if seconds > 0.0 => format!(", full in {}", say::seconds(seconds)),
            Some(_) => ", full".into(),
            None => String::new(),
        };
        finding.line("limits", format!("{} of {} descriptors open{full}", say::count(open), say::count(limit)));
    }
    let probed = holder.sockets.iter().filter(|socket| socket.seen.is_some_and(|seen| seen.timer == Timer::Keepalive));
    let probed = probed.count() as u64;
    if probed > 0 {
        let text =
            format!("keepalive is on for {}: each answered probe makes the age look shorter", say::count(probed));
        finding.line("sock_diag", text);
    }
    finding.examples = examples(&holder.sockets);
}

fn advise(holder: &Holder<'_>, finding: &mut Finding) {
    let read = holder.sockets.iter().filter(|socket| socket.recv_queue() == Some(0)).count();
    let unseen = holder.sockets.iter().filter(|socket| socket.recv_queue() == Some(1)).count();
    let by_queue = match (read, unseen) {
        (0, 0) => "",
        (read, unseen) if read >= unseen => " It has read the end of the stream, so a code path lacks close().",
        _ => " It has not looked at them since, so they sit in a pool, or a thread is blocked elsewhere.",
    };
    finding.why = format!("The peer has sent its FIN; only close() in this process ends the connection.{by_queue}");
    finding.remedies.push(language(holder.task).into());
    finding.remedies.push(match finding.seconds_left {
        Some(seconds) if seconds > 0.0 => {
            format!("Until then, restart the process before it runs out of descriptors in {}", say::seconds(seconds))
        }
        _ => "Until then, restart the process before it runs out of descriptors".into(),
    });
    finding.mistakes.push(
        "tune tcp_keepalive_*: with SO_KEEPALIVE the sockets vanish from ss and the descriptors stay open; without it, \
         nothing happens"
            .into(),
    );
    finding.mistakes.push("lower tcp_fin_timeout: it has nothing to do with CLOSE_WAIT".into());
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{api, fired, nothing, pair, seen, server_key, standing};
    use super::*;
    use crate::model::facts::Limit;
    use crate::study::diagnose::evidence::Stays;

    /// So many sockets that have been in CLOSE_WAIT for so many seconds.
    fn leaked(count: u64, seconds: u64) -> Evidence {
        let mut evidence = nothing();
        evidence.sockets = (1..=count).map(|conn| standing(conn, State::CloseWait, seconds)).collect();
        for socket in &mut evidence.sockets {
            socket.seen = Some(seen(socket.conn, 0, 1_000));
        }
        evidence
    }

    #[rstest]
    #[case::a_handful(9, 60, 0)]
    #[case::young(500, 59, 0)]
    #[case::leaked(10, 60, 1)]
    fn old_ones(#[case] count: u64, #[case] seconds: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &leaked(count, seconds)).len(), expected);
    }

    #[rstest]
    #[case::none_leaves(10, 0, 1)]
    #[case::too_few(9, 0, 0)]
    #[case::a_tenth_leaves(20, 2, 0)]
    #[case::fewer_leave(21, 2, 1)]
    fn growing_ones(#[case] began: u64, #[case] left: u64, #[case] expected: usize) {
        let mut evidence = leaked(began - left, 1);
        let stays = Stays { entered: began, left, left_new: left, ..Stays::default() };
        let mut pair = pair(server_key());
        pair.stays.push((State::CloseWait, stays));
        evidence.pairs.push(pair);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[test]
    fn it_is_critical_when_descriptors_run_out_soon() {
        let mut evidence = leaked(20, 1);
        let stays = Stays { entered: 20, ..Stays::default() };
        let mut pair = pair(server_key());
        pair.stays.push((State::CloseWait, stays));
        evidence.pairs.push(pair);
        let limit = Limit { pid: 4711, descriptors: Some(1_000), soft: Some(1_024), hard: None };
        evidence.limits.push(Descriptors { pid: 4711, task: Some(api()), first: (0, limit), last: (0, limit) });
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.severity, finding.seconds_left), (Severity::Critical, Some(12.0)));
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &leaked(348, 11_520))[0];
        assert_eq!(finding.headline, "api[4711] holds 348 connections that the peer has closed, the oldest for ≥3h12m");
        assert_eq!(finding.confidence, Confidence::Likely);
        assert_eq!(finding.evidence[0].text, "fd 1 … 348; Recv-Q 0: 348");
        assert_eq!(finding.evidence[1].text, "peers: 10.0.0.9:6379 348");
    }

    /// A handful of those that other rules have findings about do not make a leak of the rest.
    #[rstest]
    #[case::unread(5, 2, 0)]
    #[case::too_few_for_the_other_rule(4, 2, 1)]
    fn what_another_rule_is_about(#[case] count: usize, #[case] queue: u32, #[case] expected: usize) {
        let mut evidence = leaked(10, 100);
        evidence.sockets.iter_mut().take(count).for_each(|socket| socket.seen = Some(seen(socket.conn, queue, 1_000)));
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    /// The same connections are a pool's when they do not grow, and nobody knows whether they do after a single look.
    #[test]
    fn idle_ones_of_a_pool_are_not_its_own() {
        let mut evidence = leaked(20, 11_520);
        evidence.sockets.iter_mut().for_each(|socket| socket.seen = Some(seen(socket.conn, 1, 1_000)));
        assert_eq!(fired(&RULE, &evidence), []);
        evidence.about.traced_ns = 0;
        evidence.missing.insert(Need::Events, "needs time".into());
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.confidence, Confidence::Possible);
        assert!(finding.sure.contains("a pool's idle connections"), "{}", finding.sure);
    }

    /// A trace without closer looks does not tell a pool from a leak of a client; a server has no pool.
    #[rstest]
    #[case::client(Side::Client, Confidence::Possible)]
    #[case::server(Side::Server, Confidence::Likely)]
    fn without_queues_a_clients_may_be_a_pool(#[case] side: Side, #[case] expected: Confidence) {
        let mut evidence = leaked(20, 11_520);
        evidence.sockets.iter_mut().for_each(|socket| (socket.seen, socket.side) = (None, side));
        assert_eq!(fired(&RULE, &evidence)[0].confidence, expected);
    }

    #[test]
    fn nobody_knows_whose_moved_where_processes_share_a_port() {
        let mut evidence = leaked(20, 100);
        let mut pair = pair(server_key());
        pair.stays.push((State::CloseWait, Stays { entered: 50, ..Stays::default() }));
        pair.processes = 2;
        evidence.pairs.push(pair);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.figures[3], ("growth", Value::Unknown));
    }

    /// The two that began are printed as a rate, as slow as it is.
    #[test]
    fn words_of_a_slow_leak() {
        let mut evidence = leaked(348, 11_520);
        let mut pair = pair(server_key());
        pair.stays.push((State::CloseWait, Stays { entered: 2, ..Stays::default() }));
        evidence.pairs.push(pair);
        let limit = Limit { pid: 4711, descriptors: Some(1_310), soft: Some(4_096), hard: None };
        evidence.limits.push(Descriptors { pid: 4711, task: Some(api()), first: (0, limit), last: (0, limit) });
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] holds 348 connections that the peer has closed, the oldest for ≥3h12m, 12 more each minute"
        );
        assert_eq!(finding.evidence[2].text, "none of the 2 that began in the window has ended");
        assert_eq!(finding.evidence[3].text, "1,310 of 4,096 descriptors open, full in 3h52m");
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn queued_ones_are_not_its_own() {
        let mut evidence = leaked(20, 100);
        evidence.sockets.iter_mut().for_each(|socket| socket.accepted = Some(false));
        assert_eq!(fired(&RULE, &evidence), []);
    }
}
