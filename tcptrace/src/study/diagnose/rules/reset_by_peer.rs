//! Connections that are reset by the other end, or by something on the way.

use super::quiet;
use super::words::{share, window};
use crate::model::tcp::End;
use crate::study::diagnose::evidence::{Ended, Evidence, Pair, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// Fewer are accidents.
const MANY: u64 = 10;
/// And so large a part of all is no error path.
const SHARE: f64 = 0.05;
/// From here on more connections fail than end well.
const MOST: f64 = 0.5;
/// A backend that is not there resets at once.
const AT_ONCE_NS: u64 = 10_000_000;
/// Timers that cut connections off are longer than requests take, as a rule.
const TIMER_NS: u64 = 1_000_000_000;
/// Without times of silence, ages that are alike name a timer from here on only.
const AGE_NS: u64 = 10_000_000_000;
/// So far may ages of one timer be apart, ninth decile to first.
const ALIKE: f64 = 1.05;

pub(super) static RULE: Rule = Rule {
    id: "reset-by-peer",
    title: "connections are reset by the other end, or by something on the way",
    needs: &[Need::Events],
    figures: &[
        Figure {
            name: "reset",
            unit: "",
            doc: "Connections of a process to one remote end that a reset ended, without those that a process on this machine \
                  reset at their other end.",
        },
        Figure { name: "ended", unit: "", doc: "Connections of the same that ended." },
        Figure { name: "reset_share", unit: "", doc: "The first as a part of the second." },
        Figure {
            name: "sent_here",
            unit: "",
            doc: "Resets that a process on this machine sent, which other rules are about.",
        },
        Figure {
            name: "sent_by_nobody",
            unit: "",
            doc: "Of the first, those whose other end is on this machine, and has sent none: something between them did.",
        },
        Figure {
            name: "in_close_wait",
            unit: "",
            doc: "Of the first, those that were in CLOSE_WAIT: the peer had closed.",
        },
        Figure {
            name: "age_p50_ns",
            unit: "ns",
            doc: "How long they had been in ESTABLISHED, at the median; null for none.",
        },
        Figure {
            name: "quiet_p50_ns",
            unit: "ns",
            doc: "How long nothing had been received before the reset, at the median; null when unknown.",
        },
        Figure { name: "with_data", unit: "", doc: "Of the first, those that had carried data." },
    ],
    page: Page {
        sees: "\"Connection reset by peer\" (ECONNRESET) in a client.",
        fires: "A reset ended 10 or more connections of a process to one remote end, and 5 % or more of all with it. Fewer are \
                accidents. Resets of a process on this machine do not count: linger-zero and unread-at-close are about those. \
                Critical from half on. The pattern names the likely sender: at once and without data, a proxy without a \
                backend; always after the same time without data, an idle timer of the server, a balancer or a firewall. If \
                both ends are here and neither has sent a reset, something between them did.",
        silent: "1 % of resets; resets whose sender is a process on this machine.",
        remedy: "Keepalive below the timer (SO_KEEPALIVE with TCP_KEEPIDLE), or a maximum idle time of the pool below it.",
        sources: "RFC 9293 3.5.3; tcp_reset (net/ipv4/tcp_input.c); nf_conntrack_proto_tcp.c (conntrack's invalid packets).",
    },
    check,
};

/// Resets that connections of a pair received.
struct Resets<'e> {
    pair: &'e Pair,
    reset: u64,
    sent_here: u64,
    nobody: u64,
    in_close_wait: u64,
    with_data: u64,
    ages: Spread,
    quiet: Spread,
}

/// What the resets have in common, and so who has likely sent them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    /// At once, before anything was sent.
    AtOnce,
    /// After the same time without data; in ns.
    Idle(u64),
    /// At the same age; in ns.
    Aged(u64),
    /// The peer had closed before.
    LateWrite,
    /// Nothing.
    None,
}

impl<'e> Resets<'e> {
    fn of(pair: &'e Pair) -> Self {
        let ended = || pair.ended_as(End::ResetReceived).map(|(_, ended)| ended);
        let sum = |of: fn(&Ended) -> u64| ended().map(of).sum::<u64>();
        let all = pair.ended_by(End::ResetReceived);
        let sent_here = pair.senders.process.min(all);
        let (mut ages, mut quiet) = (Spread::default(), Spread::default());
        ended().for_each(|it| {
            ages.merge(&it.established);
            quiet.merge(&it.received_idle);
        });
        Self {
            pair,
            reset: all - sent_here,
            sent_here,
            nobody: pair.senders.nobody.min(all - sent_here),
            in_close_wait: sum(|it| it.in_close_wait),
            with_data: sum(|it| it.with_data),
            ages,
            quiet,
        }
    }

    fn share(&self) -> f64 {
        share(self.reset, self.pair.ended())
    }

    fn is_found(&self) -> bool {
        self.reset >= MANY && self.share() >= SHARE
    }

    /// Most of them come from nobody who is on this machine, although both ends are.
    fn is_from_between(&self) -> bool {
        self.nobody * 2 > self.reset
    }

    fn pattern(&self) -> Pattern {
        let is_alike = |ages: &Spread| match (ages.percentile(10), ages.percentile(90)) {
            (Some(low), Some(high)) => high as f64 <= ALIKE * low as f64,
            _ => false,
        };
        let at_once = self.ages.percentile(90).is_some_and(|age| age < AT_ONCE_NS);
        let aged = self.ages.percentile(50).filter(|age| *age >= AGE_NS && is_alike(&self.ages));
        match quiet::timer(&self.quiet).filter(|ns| *ns >= TIMER_NS) {
            _ if self.in_close_wait * 2 > self.reset + self.sent_here => Pattern::LateWrite,
            Some(ns) => Pattern::Idle(ns),
            None if at_once && self.with_data == 0 => Pattern::AtOnce,
            None => aged.map_or(Pattern::None, Pattern::Aged),
        }
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let mut all: Vec<Resets<'_>> = evidence.clients().map(Resets::of).collect();
    all.sort_by_key(|it| std::cmp::Reverse((it.reset, it.pair.ended())));
    let findings = all.iter().filter(|it| it.is_found()).map(|it| finding(evidence, it)).collect();
    Outcome::of(findings, all.first().map(figures).unwrap_or_default())
}

fn figures(it: &Resets<'_>) -> Figures {
    let median = |spread: &Spread| spread.percentile(50).map_or(Value::Unknown, Value::Ns);
    vec![
        ("reset", Value::Count(it.reset)),
        ("ended", Value::Count(it.pair.ended())),
        ("reset_share", Value::Share(it.share())),
        ("sent_here", Value::Count(it.sent_here)),
        ("sent_by_nobody", Value::Count(it.nobody)),
        ("in_close_wait", Value::Count(it.in_close_wait)),
        ("age_p50_ns", median(&it.ages)),
        ("quiet_p50_ns", median(&it.quiet)),
        ("with_data", Value::Count(it.with_data)),
    ]
}

fn finding(evidence: &Evidence, it: &Resets<'_>) -> Finding {
    let pattern = it.pattern();
    let severity = match (pattern, it.share()) {
        // The peer had closed, and nothing more was to come from it.
        (Pattern::LateWrite, _) => Severity::Note,
        (_, share) if share >= MOST => Severity::Critical,
        _ => Severity::Warning,
    };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, it, pattern));
    finding.subject = it.pair.subject();
    finding.figures = figures(it);
    finding.count = it.reset;
    let ended = || it.pair.ended_as(End::ResetReceived).map(|(_, ended)| ended);
    (finding.first_seen, finding.last_seen) = (ended().map(|it| it.first).min(), ended().map(|it| it.last).max());
    finding.examples = ended().flat_map(|it| it.examples.iter().cloned()).take(5).collect();
    describe(evidence, it, &mut finding);
    advise(it, pattern, &mut finding);
    finding
}

fn seconds(ns: u64) -> String {
    say::seconds(ns as f64 / 1e9)
}

fn headline(evidence: &Evidence, it: &Resets<'_>, pattern: Pattern) -> String {
    let (process, remote) = (it.pair.process(), it.pair.end());
    let resets = if it.is_from_between() {
        format!("something between {process} and {remote} resets connections")
    } else {
        format!("{remote} resets connections of {process}")
    };
    let count = format!("{} of {}", say::count(it.reset), say::count(it.pair.ended()));
    let (full, short) = match pattern {
        Pattern::AtOnce => {
            (", each at once and without data: nothing serves them".to_owned(), ", each at once".to_owned())
        }
        Pattern::Idle(ns) => {
            let after = format!(", each after {} without data", seconds(ns));
            let spread = match spread_of(&it.quiet) {
                Some(apart) => format!(", each after {} (± {apart}) without data", seconds(ns)),
                None => after.clone(),
            };
            (format!("{spread}: an idle timer on the way"), format!("{after}: an idle timer"))
        }
        Pattern::Aged(ns) => (format!(", each at an age of {}: a timer on the way", seconds(ns)), String::new()),
        Pattern::LateWrite => (", after it had closed them: they were written to late".to_owned(), String::new()),
        Pattern::None => (String::new(), String::new()),
    };
    let shortest = match pattern {
        Pattern::Idle(ns) => format!(", each after {} idle", seconds(ns)),
        _ => String::new(),
    };
    let window = window(evidence);
    say::fitting([
        format!("{resets}: {count} in {window}{full}"),
        format!("{resets}: {count}{full}"),
        format!("{resets}: {count}{short}"),
        format!("{resets}: {count}{shortest}"),
        format!("{resets}: {count}"),
    ])
}

/// Half of what the first and the ninth decile are apart, in words; `None` where it is less than a tenth of a second.
fn spread_of(times: &Spread) -> Option<String> {
    let half = (times.percentile(90)? - times.percentile(10)?) / 2;
    (half >= 100_000_000).then(|| seconds(half))
}

fn describe(evidence: &Evidence, it: &Resets<'_>, finding: &mut Finding) {
    let at = |spread: &Spread, hundredths| spread.percentile(hundredths).map(|ns| say::time(ns).to_string());
    let deciles = |spread: &Spread| Some((at(spread, 10)?, at(spread, 50)?, at(spread, 90)?));
    let (reset, ended) = (say::count(it.reset), say::count(it.pair.ended()));
    let part = say::percent(it.share());
    finding.line(
        "seen",
        format!("{reset} of {ended} ended by a reset ({part}); {} had carried data", say::count(it.with_data)),
    );
    if let Some((low, median, high)) = deciles(&it.ages) {
        finding.line("seen", format!("at an age of {median} (p10 {low}, p90 {high})"));
    }
    if let Some((low, median, high)) = deciles(&it.quiet) {
        finding.line("seen", format!("nothing had come for {median} (p10 {low}, p90 {high})"));
    }
    if it.in_close_wait > 0 {
        finding.line("seen", format!("{} were in CLOSE_WAIT: the peer had closed", say::count(it.in_close_wait)));
    }
    if it.nobody > 0 {
        let both = say::count(it.nobody);
        finding.line("seen", format!("both ends of {both} are on this machine, and neither sent a reset"));
        between(evidence, it, finding);
    }
    if it.sent_here > 0 {
        let here = say::count(it.sent_here);
        finding.line("seen", format!("{here} more were reset by a process on this machine, and do not count"));
    }
}

/// What the kernel counts of packets that do not fit to a tracked connection, in the network namespaces that can be between.
fn between(evidence: &Evidence, it: &Resets<'_>, finding: &mut Finding) {
    const NAMES: [&str; 4] = ["invalid", "drop", "early_drop", "insert_failed"];
    let own = it.pair.key.netns;
    for (netns, counted) in &evidence.counters {
        let grown = |name: &str| counted.grown.get(format!("conntrack.{name}").as_str()).copied().unwrap_or(0);
        let named: Vec<String> = NAMES
            .iter()
            .filter(|name| grown(name) > 0)
            .map(|name| format!("{name} {}", say::count(grown(name))))
            .collect();
        if !named.is_empty() {
            let place = if Some(*netns) == own { "here".to_owned() } else { format!("in network namespace {netns}") };
            finding.line("/proc/net/stat/nf_conntrack", format!("connection tracking {place}: {}", named.join(", ")));
        }
    }
}

fn advise(it: &Resets<'_>, pattern: Pattern, finding: &mut Finding) {
    let sender = match (it.is_from_between(), pattern) {
        (true, _) => {
            finding.remedies.push(
                "Look for what rejects packets between both ends: nft or iptables rules with reject, a proxy, a load balancer"
                    .into(),
            );
            "a firewall, NAT or proxy between both ends: neither end sent the reset"
        }
        (_, Pattern::AtOnce) => {
            finding
                .remedies
                .push("Look whether a backend serves this address (a proxy without one resets at once)".into());
            finding.remedies.push("Look at the server for a full accept queue with tcp_abort_on_overflow=1".into());
            "a proxy or balancer without a backend, or a server with tcp_abort_on_overflow"
        }
        (_, Pattern::Idle(_) | Pattern::Aged(_)) => "an idle timer of the server, a balancer or a firewall",
        (_, Pattern::LateWrite) => {
            finding
                .remedies
                .push("Nothing needs to be done, unless requests fail: test connections before they are used".into());
            "the peer's kernel: its process had closed, and data came after that"
        }
        (_, Pattern::None) => {
            finding.remedies.push("Look at the log of the other end for restarts and crashes at these times".into());
            "several fit: a process that crashes, one that closes with data unread, a device on the way"
        }
    };
    if let Pattern::Idle(ns) | Pattern::Aged(ns) = pattern {
        let below = seconds(ns * 4 / 5);
        let idle = (ns / 1_250_000_000).max(1);
        finding.remedies.insert(
            0,
            format!("Send keepalive probes sooner: SO_KEEPALIVE with TCP_KEEPIDLE {idle} (seconds) on these sockets"),
        );
        finding.remedies.push(format!("Or set the pool's maximum idle time below {below}"));
    }
    finding.why = match pattern {
        Pattern::LateWrite => {
            "The peer had closed, and this side wrote to it later. Its kernel no longer knows the connection, and answers with a reset."
        }
        _ => "A reset ends the connection at once: what is on its way is lost, and calls fail with ECONNRESET.",
    }
    .into();
    finding.sure = format!("certain of the resets; who sent them is {}: {sender}", how_sure(it, pattern));
}

fn how_sure(it: &Resets<'_>, pattern: Pattern) -> &'static str {
    match pattern {
        _ if it.is_from_between() => "certain as far as both ends are here",
        Pattern::None => "unknown",
        _ => "likely",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, S, client_key, fired, nothing, pair, server_key, spread};
    use super::*;
    use crate::model::tcp::Closer;
    use crate::study::diagnose::evidence::{Counted, PairKey, Senders};

    /// So many resets of all that ended, each at an age of so many ms, and after as long without data.
    fn resets(key: PairKey, reset: u64, all: u64, ms: u64) -> Evidence {
        let mut evidence = nothing();
        let times = || spread((0..reset).map(|_| ms * S / 1_000));
        let (established, received_idle) = (times(), times());
        let ended = Ended { count: reset, with_data: reset, established, received_idle, ..Ended::default() };
        let well = Ended { count: all - reset, ..Ended::default() };
        let ends = vec![(End::ResetReceived, Closer::ResetRemote, ended), (End::Fin, Closer::Active, well)];
        evidence.pairs.push(Pair { ends, ..pair(key) });
        evidence
    }

    fn client(reset: u64, all: u64, ms: u64) -> Evidence {
        resets(client_key(), reset, all, ms)
    }

    #[rstest]
    #[case::too_few(9, 9, None)]
    #[case::enough(10, 200, Some(Severity::Warning))]
    #[case::a_smaller_part(10, 201, None)]
    #[case::nearly_half(99, 199, Some(Severity::Warning))]
    #[case::half(100, 200, Some(Severity::Critical))]
    fn thresholds(#[case] reset: u64, #[case] all: u64, #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &client(reset, all, 100));
        assert_eq!(found.first().map(|finding| finding.severity), expected);
    }

    /// Clients that reset are everyday life of a server.
    #[test]
    fn a_server_is_not_asked() {
        assert_eq!(fired(&RULE, &resets(server_key(), 100, 100, 100)), []);
    }

    /// Another rule is about the process that sent them.
    #[rstest]
    #[case::enough_are_left(10, 1)]
    #[case::too_few_are_left(11, 0)]
    fn those_that_a_process_here_sent_do_not_count(#[case] here: u64, #[case] expected: usize) {
        let mut evidence = client(20, 100, 100);
        evidence.pairs[0].senders = Senders { process: here, ..Senders::default() };
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::quiet(9_000, true, Pattern::Idle(9 * S))]
    #[case::too_short_for_a_timer(900, true, Pattern::None)]
    #[case::old(11_000, false, Pattern::Aged(11 * S))]
    #[case::too_young_for_a_timer(9_000, false, Pattern::None)]
    #[case::at_once(5, false, Pattern::AtOnce)]
    #[case::soon(10, false, Pattern::None)]
    fn patterns(#[case] ms: u64, #[case] is_quiet_known: bool, #[case] expected: Pattern) {
        let mut evidence = client(20, 100, ms);
        let ended = &mut evidence.pairs[0].ends[0].2;
        if !is_quiet_known {
            (ended.received_idle, ended.with_data) = (Spread::default(), 0);
        }
        let near = |one: u64, other: u64| one.abs_diff(other) * 50 <= other;
        match (Resets::of(&evidence.pairs[0]).pattern(), expected) {
            (Pattern::Idle(one), Pattern::Idle(other)) | (Pattern::Aged(one), Pattern::Aged(other)) => {
                assert!(near(one, other), "{one}");
            }
            (pattern, expected) => assert_eq!(pattern, expected),
        }
    }

    #[test]
    fn words_of_an_idle_timer() {
        let mut evidence = client(61, 240, 300_000);
        let quiet = &mut evidence.pairs[0].ends[0].2.received_idle;
        (0..30).for_each(|_| quiet.add(302 * S));
        let finding = &fired(&RULE, &evidence)[0];
        assert!(
            finding.headline.starts_with("10.0.0.9:6379 resets connections of api[4711]: 61 of 240"),
            "{}",
            finding.headline
        );
        assert!(finding.headline.ends_with(", each after 5m00s without data: an idle timer"), "{}", finding.headline);
        assert!(finding.remedies[0].contains("SO_KEEPALIVE with TCP_KEEPIDLE 24"), "{:?}", finding.remedies);
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
    }

    #[test]
    fn words_of_what_is_between() {
        let mut evidence = client(12, 12, 2_000);
        evidence.pairs[0].senders = Senders { nobody: 12, ..Senders::default() };
        let grown = [("conntrack.invalid".into(), 12), ("conntrack.found".into(), 7)].into();
        evidence.counters.insert(NETNS, Counted { grown, ..Counted::default() });
        let finding = &fired(&RULE, &evidence)[0];
        assert!(
            finding
                .headline
                .starts_with("something between api[4711] and 10.0.0.9:6379 resets connections: 12 of 12, each after "),
            "{}",
            finding.headline
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert!(lines.contains(&"both ends of 12 are on this machine, and neither sent a reset"), "{lines:?}");
        assert!(lines.contains(&"connection tracking here: invalid 12"), "{lines:?}");
    }

    #[test]
    fn a_late_write_does_no_harm() {
        let mut evidence = client(20, 20, 100);
        evidence.pairs[0].ends[0].2.in_close_wait = 11;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.severity, Severity::Note);
        assert_eq!(
            finding.headline,
            "10.0.0.9:6379 resets connections of api[4711]: 20 of 20, after it had closed them: they were written to late"
        );
    }
}
