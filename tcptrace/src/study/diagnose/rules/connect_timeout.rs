//! A remote end that does not answer SYNs.

use super::group::{Group, by_remote};
use super::words::{share, window};
use crate::model::tcp::{Closer, End, State};
use crate::study::diagnose::evidence::{Evidence, Spread, Standing, Standings};
use crate::study::diagnose::finding::{Confidence, EXAMPLES, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many that gave up are no accident of one packet.
const GAVE_UP: u64 = 3;
/// Sockets that wait now.
const WAITING: u64 = 5;
/// From then on two or more SYNs went unanswered, with or without linear timeouts.
const WAITING_NS: u64 = 3_000_000_000;
/// A SYN is repeated after a second: who waited that long has lost one.
const LOST_NS: u64 = 1_000_000_000;
/// So many that waited so long are more than a burst of loss.
const SLOW: u64 = 20;
/// And so large a part of all that users notice.
const SLOW_SHARE: f64 = 0.01;

pub(super) static RULE: Rule = Rule {
    id: "connect-timeout",
    title: "a remote end does not answer SYNs",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "timed_out", unit: "", doc: "Connections whose SYNs nobody answered until connect() gave up." },
        Figure { name: "abandoned", unit: "", doc: "Those that were closed after 1s or longer in SYN_SENT." },
        Figure { name: "waiting", unit: "", doc: "Sockets that are in SYN_SENT for 3s or longer now." },
        Figure { name: "longest_ns", unit: "ns", doc: "How long the oldest socket has been in SYN_SENT." },
        Figure { name: "slow", unit: "", doc: "Established connections that were in SYN_SENT for 1s or longer." },
        Figure { name: "slow_share", unit: "", doc: "The part of the opened ones that these are." },
        Figure { name: "opened", unit: "", doc: "Connections to the remote end that were opened." },
        Figure { name: "established", unit: "", doc: "Connections to it that were established." },
    ],
    page: Page {
        sees: "connect() hangs and fails with ETIMEDOUT, or takes 1s, 2s, 3s.",
        fires: "Of the connections to a remote end, 3 or more timed out or were closed after 1s or longer in SYN_SENT; or 5 \
                or more are in SYN_SENT for 3s or longer; or 20 or more, and 1 % of those opened, were established only \
                after 1s or longer: the kernel repeats a SYN after 1s, so their first SYN was lost.",
        silent: "Handshakes of milliseconds.",
        remedy: "Set a connect timeout of 1 to 3s in the client and retry. Look for a firewall that drops SYNs, a full \
                 accept queue at the server, or a host that is gone.",
        sources: "tcp_retransmit_timer, tcp_write_timeout (net/ipv4/tcp_timer.c); tcp_syn_linear_timeouts since 6.5.",
    },
    check,
};

/// What became of connections to one remote end.
struct Tries<'e> {
    timed_out: u64,
    abandoned: u64,
    waiting: Vec<&'e Standing>,
    longest_ns: u64,
    slow: u64,
    opened: u64,
    established: u64,
}

impl<'e> Tries<'e> {
    fn of(group: &Group<'_>, connecting: &Standings<'e>) -> Self {
        let sockets: Vec<&Standing> =
            group.pairs.iter().filter_map(|pair| connecting.get(&pair.key)).flatten().copied().collect();
        let longest_ns = sockets.iter().map(|it| it.age_ns()).max().unwrap_or(0);
        let late = |spread: &Spread| spread.at_or_above(LOST_NS);
        let left = group.sum(|pair| pair.spread(State::SynSent).map_or(0, late));
        let failed = group.pairs.iter().flat_map(|pair| &pair.ends);
        let failed = failed.filter(|(_, closer, _)| *closer == Closer::NeverEstablished);
        let failed: u64 = failed.map(|(.., ended)| late(&ended.syn_sent)).sum();
        let abandoned = group.ended_as(End::ClosedWhileConnecting).map(|(_, ended)| late(&ended.syn_sent)).sum();
        Self {
            timed_out: group.ended_by(End::ConnectTimeout),
            abandoned,
            waiting: sockets.into_iter().filter(|it| it.age_ns() >= WAITING_NS).collect(),
            longest_ns,
            slow: left.saturating_sub(failed),
            opened: group.sum(|pair| pair.opened),
            established: group.sum(|pair| pair.established),
        }
    }

    /// How many got no answer.
    fn unanswered(&self) -> u64 {
        self.timed_out + self.abandoned + self.waiting.len() as u64
    }

    fn slow_share(&self) -> f64 {
        share(self.slow, self.opened)
    }

    fn fails(&self) -> bool {
        self.timed_out + self.abandoned >= GAVE_UP || self.waiting.len() as u64 >= WAITING
    }

    fn is_slow(&self) -> bool {
        self.slow >= SLOW && self.slow_share() >= SLOW_SHARE
    }

    fn figures(&self) -> Figures {
        vec![
            ("timed_out", Value::Count(self.timed_out)),
            ("abandoned", Value::Count(self.abandoned)),
            ("waiting", Value::Count(self.waiting.len() as u64)),
            ("longest_ns", Value::Ns(self.longest_ns)),
            ("slow", Value::Count(self.slow)),
            ("slow_share", Value::Share(self.slow_share())),
            ("opened", Value::Count(self.opened)),
            ("established", Value::Count(self.established)),
        ]
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let groups = by_remote(evidence);
    let connecting = evidence.standing(|it| it.state == State::SynSent);
    let all: Vec<_> = groups.iter().map(|group| (group, Tries::of(group, &connecting))).collect();
    let findings = all.iter().filter_map(|(group, tries)| finding(evidence, group, tries)).collect();
    let most = all.iter().max_by_key(|(_, tries)| tries.unanswered() + tries.slow);
    Outcome::of(findings, most.map(|(_, tries)| tries.figures()).unwrap_or_default())
}

fn finding(evidence: &Evidence, group: &Group<'_>, tries: &Tries<'_>) -> Option<Finding> {
    if !tries.fails() && !tries.is_slow() {
        return None;
    }
    let none_got_through = tries.fails() && tries.established == 0 && evidence.about.lost == 0;
    let severity = if none_got_through { Severity::Critical } else { Severity::Warning };
    let headline = headline(evidence, group, tries, none_got_through);
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = group.subject();
    finding.figures = tries.figures();
    finding.count = if tries.fails() { tries.unanswered() } else { tries.slow };
    (finding.first_seen, finding.last_seen) = group.seen(End::ConnectTimeout);
    finding.examples = tries.waiting.iter().map(|it| it.example()).take(EXAMPLES).collect();
    let ended = group.examples(End::ConnectTimeout);
    finding.examples.extend(ended.into_iter().take(EXAMPLES - finding.examples.len()));
    describe(evidence, group, tries, &mut finding);
    Some(finding)
}

fn headline(evidence: &Evidence, group: &Group<'_>, tries: &Tries<'_>, none_got_through: bool) -> String {
    let remote = group.pairs.first().map(|pair| pair.end().to_string()).unwrap_or_default();
    if !tries.fails() {
        let part = say::percent(tries.slow_share());
        return format!("{part} of connects to {remote} took ≥1.0s: their first SYN was not answered");
    }
    let connects = |number: u64| format!("{} of {}", say::counted(number, "connect"), group.process());
    let wait =
        if tries.longest_ns > 0 { format!(" wait up to {}", say::time(tries.longest_ns)) } else { String::new() };
    let what = match (tries.timed_out + tries.abandoned, tries.waiting.len() as u64) {
        (0, waiting) => format!("{}{wait}", connects(waiting)),
        (gave_up, 0) => format!("{} gave up", connects(gave_up)),
        (gave_up, waiting) => format!("{} gave up, {}{wait}", connects(gave_up), say::count(waiting)),
    };
    let through = if none_got_through {
        format!("none got through in {}", window(evidence))
    } else {
        format!("{} got through", say::count(tries.established))
    };
    say::fitting([
        format!("{remote} does not answer: {what}; {through}"),
        format!("{remote} does not answer: {what}"),
        format!("{remote} does not answer {}", say::counted(tries.unanswered(), "connect")),
    ])
}

fn describe(evidence: &Evidence, group: &Group<'_>, tries: &Tries<'_>, finding: &mut Finding) {
    finding.line(
        "seen",
        format!(
            "{} opened, {} established, {} timed out, {} closed by the client after ≥1.0s in SYN_SENT",
            say::count(tries.opened),
            say::count(tries.established),
            say::count(tries.timed_out),
            say::count(tries.abandoned)
        ),
    );
    if !tries.waiting.is_empty() {
        let longest = say::time(tries.longest_ns);
        let waiting = say::counted(tries.waiting.len() as u64, "socket");
        finding.line("sock_diag", format!("{waiting} in SYN_SENT for ≥3.00s, the oldest for {longest}"));
    }
    if tries.slow > 0 {
        let slow = say::count(tries.slow);
        let part = say::percent(tries.slow_share());
        finding.line("seen", format!("{slow} of the established ones ({part}) were in SYN_SENT for ≥1.0s"));
    }
    let netns = group.pairs.first().and_then(|pair| pair.key.netns);
    let repeated = evidence.grown(netns.unwrap_or(0), "TcpExt.TCPSynRetrans");
    if repeated > 0 {
        let text = format!("TCPSynRetrans grew by {} in this network namespace", say::count(repeated));
        finding.line("/proc/net/netstat", text);
    }
    finding.why =
        "The kernel repeats a SYN after 1s, and again and again: nobody answered, neither with a SYN+ACK nor with \
                   a reset."
            .into();
    finding.remedies.push("Set a connect timeout in the client (1 to 3s) and retry".into());
    finding
        .remedies
        .push("Look at the server for a full accept queue, and between for a firewall that drops SYNs".into());
    finding.mistakes.push("raise tcp_syn_retries: clients only wait longer".into());
    finding.sure =
        "certain that no answer came; the cause is one of: a firewall, a host that is gone, a full accept or SYN \
                    queue there, a race in connection tracking. tcptrace diagnose on the server decides"
            .into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, client_key, fired, nothing, pair, spread, standing};
    use super::*;
    use crate::study::diagnose::evidence::{Ended, Stays};

    /// So many ended so, each after so many seconds in SYN_SENT.
    fn ended(end: End, count: u64, seconds: f64) -> Evidence {
        let mut evidence = nothing();
        let lasted = spread((0..count).map(|_| (seconds * 1e9) as u64));
        let ended = Ended { count, first: 1001 * S, last: 1009 * S, syn_sent: lasted.clone(), ..Ended::default() };
        let mut pair = pair(client_key());
        pair.opened = count;
        pair.stays.push((State::SynSent, Stays { left: count, lasted, ..Stays::default() }));
        pair.ends.push((end, Closer::NeverEstablished, ended));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::two_timed_out(End::ConnectTimeout, 2, 7.1, 0)]
    #[case::three_timed_out(End::ConnectTimeout, 3, 7.1, 1)]
    #[case::closed_soon(End::ClosedWhileConnecting, 30, 0.9, 0)]
    #[case::two_closed_late(End::ClosedWhileConnecting, 2, 1.0, 0)]
    #[case::closed_late(End::ClosedWhileConnecting, 3, 1.0, 1)]
    #[case::refused_late_is_an_answer(End::Refused, 100, 1.5, 0)]
    fn those_that_gave_up(#[case] end: End, #[case] count: u64, #[case] seconds: f64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &ended(end, count, seconds)).len(), expected);
    }

    #[rstest]
    #[case::few(4, 3, 0)]
    #[case::young(50, 2, 0)]
    #[case::waiting(5, 3, 1)]
    fn those_that_wait(#[case] count: u64, #[case] seconds: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &waiting(count, seconds)).len(), expected);
    }

    fn waiting(count: u64, seconds: u64) -> Evidence {
        let mut evidence = nothing();
        evidence.sockets = (1..=count).map(|conn| standing(conn, State::SynSent, seconds)).collect();
        let mut pair = pair(client_key());
        pair.opened = count;
        evidence.pairs.push(pair);
        evidence
    }

    /// So many of those that were established had lost a SYN.
    fn slow(slow: u64, opened: u64, seconds: f64) -> Evidence {
        let mut evidence = nothing();
        let mut pair = pair(client_key());
        let lasted = spread((0..slow).map(|_| (seconds * 1e9) as u64).chain((slow..opened).map(|_| 100_000)));
        (pair.opened, pair.established) = (opened, opened);
        pair.stays.push((State::SynSent, Stays { left: opened, lasted, ..Stays::default() }));
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::few(19, 100, 1.0, 0)]
    #[case::enough(20, 2_000, 1.0, 1)]
    #[case::a_small_part(20, 2_001, 1.0, 0)]
    #[case::quick(2_000, 2_000, 0.5, 0)]
    fn those_that_were_slow(#[case] number: u64, #[case] opened: u64, #[case] seconds: f64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &slow(number, opened, seconds)).len(), expected);
    }

    #[rstest]
    #[case::waiting(
        waiting(12, 31),
        Severity::Critical,
        "10.0.0.9:6379 does not answer: 12 connects of api[4711] wait up to 31.0s; none got through in 10.0s"
    )]
    #[case::timed_out(
        ended(End::ConnectTimeout, 4, 7.1),
        Severity::Critical,
        "10.0.0.9:6379 does not answer: 4 connects of api[4711] gave up; none got through in 10.0s"
    )]
    #[case::slow(
        slow(62, 2_000, 1.03),
        Severity::Warning,
        "3.1 % of connects to 10.0.0.9:6379 took ≥1.0s: their first SYN was not answered"
    )]
    fn words(#[case] evidence: Evidence, #[case] severity: Severity, #[case] headline: &str) {
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((&*finding.headline, finding.severity), (headline, severity));
    }

    #[test]
    fn with_losses_or_successes_it_is_no_outage() {
        let mut evidence = waiting(5, 31);
        evidence.about.lost = 1;
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Warning);
        let mut evidence = waiting(5, 31);
        evidence.pairs[0].established = 1;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.severity, Severity::Warning);
        let headline = "10.0.0.9:6379 does not answer: 5 connects of api[4711] wait up to 31.0s; 1 got through";
        assert_eq!(finding.headline, headline);
    }
}
