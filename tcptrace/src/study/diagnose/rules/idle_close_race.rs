//! A server that closes idle connections just as its clients send a request on them.

use std::collections::HashSet;

use super::quiet;
use crate::model::tcp::{Closer, End, Side};
use crate::study::diagnose::evidence::{Ended, Evidence, Pair, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// One can be a client that was killed.
const MANY: u64 = 3;
/// Such a part of the connections fails often enough for users to see.
const SHARE: f64 = 0.01;

pub(super) static RULE: Rule = Rule {
    id: "idle-close-race",
    title: "a server closes idle connections just as a request arrives on them",
    needs: &[Need::Events],
    figures: &[
        Figure {
            name: "raced",
            unit: "",
            doc: "Connections of a listener, or to one remote end, that the server closed after 1s or longer while a request \
                  was on its way.",
        },
        Figure { name: "share", unit: "", doc: "The same as a part of the connections of the window." },
        Figure {
            name: "quiet_ns",
            unit: "ns",
            doc: "How long no data had moved before the close, at the median; null when unknown.",
        },
        Figure { name: "quiet_p10_ns", unit: "ns", doc: "The first decile of that." },
        Figure { name: "quiet_p90_ns", unit: "ns", doc: "The ninth decile of that." },
        Figure {
            name: "closed_well",
            unit: "",
            doc: "Other connections of the same that the server closed, and that ended by FINs.",
        },
    ],
    page: Page {
        sees: "Occasional 502, \"socket hang up\" or \"connection reset by peer\" behind a load balancer, more often at low \
               load, and no error in the server's log.",
        fires: "3 or more connections that were in ESTABLISHED for 1s or longer (an idle timer, not an error that was \
                answered early) were closed by the server, and then got data: the kernel answers it with a reset. The times \
                without data before the close are alike (p90 at most 1.1 times p10), as far as they are known.",
        silent: "The client closes first, or the server closes while no request is on its way.",
        remedy: "Make the server's keep-alive timeout longer than the idle timeout of the client or balancer, or let the \
                 client close first. Retry idempotent requests.",
        sources: "RFC 9112 9.3 and 9.5; tcp_rcv_state_process, tcp_timewait_state_process (net/ipv4). No counter but OutRsts \
                  moves when the mini-socket is there already.",
    },
    check,
};

/// Connections of a pair that were closed while a request was on its way.
struct Race<'e> {
    pair: &'e Pair,
    raced: u64,
    ended: &'e Ended,
    quiet: &'e Spread,
}

impl<'e> Race<'e> {
    fn of(pair: &'e Pair) -> Option<Self> {
        let (end, closer) = match pair.key.side {
            Side::Server => (End::ResetDataAfterClose, Closer::Active),
            Side::Client => (End::ResetReceived, Closer::Passive),
            Side::Unknown => return None,
        };
        let (_, ended) = pair.ended_as(end).find(|(of, _)| *of == closer)?;
        // The client has just sent its request: only what it received tells how long nothing had moved.
        Some(match pair.key.side {
            Side::Server => Self { pair, raced: ended.long, ended, quiet: &ended.idle },
            _ => Self { pair, raced: ended.just_closed, ended, quiet: &ended.received_idle },
        })
    }

    fn is_server(&self) -> bool {
        self.pair.key.side == Side::Server
    }

    fn is_race(&self) -> bool {
        self.raced >= MANY && (self.quiet.total() == 0 || quiet::is_timer(self.quiet))
    }

    /// How long the server waits for a request, in ns: without times of silence, ages that are alike name it too.
    fn timer(&self) -> Option<u64> {
        quiet::timer(if self.quiet.total() == 0 { &self.ended.established } else { self.quiet })
    }

    /// As a part of the connections of the window.
    fn share(&self) -> f64 {
        let all = self.pair.ended().max(self.pair.opened).max(1);
        self.raced as f64 / all as f64
    }

    /// Others that the server closed, without a reset.
    fn closed_well(&self) -> u64 {
        let server = if self.is_server() { Closer::Active } else { Closer::Passive };
        self.pair.ended_as(End::Fin).filter(|(closer, _)| *closer == server).map(|(_, ended)| ended.count).sum()
    }

    /// Whether examples of both are the two ends of one connection.
    fn is_other_end_of(&self, server: &Self) -> bool {
        let ends: HashSet<_> = server.ended.examples.iter().map(|it| (it.local, it.remote)).collect();
        !self.is_server() && self.ended.examples.iter().any(|it| ends.contains(&(it.remote, it.local)))
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let mut all: Vec<Race<'_>> = evidence.pairs.iter().filter_map(Race::of).collect();
    all.sort_by_key(|race| std::cmp::Reverse(race.raced));
    let servers: Vec<&Race<'_>> = all.iter().filter(|race| race.is_server() && race.is_race()).collect();
    let is_first = |race: &&Race<'_>| !servers.iter().any(|server| race.is_other_end_of(server));
    let findings = all.iter().filter(|race| race.is_race()).filter(is_first).map(finding);
    Outcome::of(findings.collect(), all.first().map(figures).unwrap_or_default())
}

fn figures(race: &Race<'_>) -> Figures {
    let quiet = |hundredths| race.quiet.percentile(hundredths).map_or(Value::Unknown, Value::Ns);
    vec![
        ("raced", Value::Count(race.raced)),
        ("share", Value::Share(race.share())),
        ("quiet_ns", quiet(50)),
        ("quiet_p10_ns", quiet(10)),
        ("quiet_p90_ns", quiet(90)),
        ("closed_well", Value::Count(race.closed_well())),
    ]
}

fn finding(race: &Race<'_>) -> Finding {
    let severity = if race.share() >= SHARE { Severity::Critical } else { Severity::Warning };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Likely, headline(race));
    finding.subject = race.pair.subject();
    finding.figures = figures(race);
    describe(race, &mut finding);
    finding.why =
        "The server's idle timeout is shorter than the client's, so that its FIN and the next request can cross. \
                   The kernel answers that request with a reset."
            .into();
    let longer = match race.timer() {
        Some(ns) => format!(" ({} now)", say::seconds(ns as f64 / 1e9)),
        None => String::new(),
    };
    finding.remedies.push(format!(
        "Make the server's keep-alive timeout{longer} longer than the idle timeout of its clients or balancer (node: \
         keepAliveTimeout, and headersTimeout above it)"
    ));
    finding.remedies.push("Or let the client close idle connections sooner, and retry idempotent requests".into());
    finding.sure = format!(
        "certain that these {} requests were reset; that an idle timeout closed the connections is likely",
        say::count(race.raced)
    );
    finding.count = race.raced;
    (finding.first_seen, finding.last_seen) = (Some(race.ended.first), Some(race.ended.last));
    finding.examples = race.ended.examples.clone();
    finding
}

fn headline(race: &Race<'_>) -> String {
    let connections = say::counted(race.raced, "connection");
    if race.is_server() {
        let server = match race.pair.tasks.first() {
            Some(_) => race.pair.process(),
            None => format!("the server of port {}", race.pair.key.port),
        };
        let client = client(race).unwrap_or_else(|| "clients".to_owned());
        return say::fitting([
            format!(
                "{server} closed {connections} just as {client} sent a request on them: those requests were answered with \
                 a reset"
            ),
            format!("{server} closed {connections} just as {client} sent a request: a reset answered those requests"),
            format!("{server} closed {connections} just as {client} sent a request"),
        ]);
    }
    let (server, client) = (race.pair.end(), race.pair.process());
    say::fitting([
        format!(
            "{server} closed {connections} just as {client} sent a request on them: those requests were answered with a reset"
        ),
        format!("{server} closed {connections} just as {client} sent a request: a reset answered those requests"),
        format!("{server} closed {connections} just as {client} sent a request"),
    ])
}

/// The only client, where every connection is known.
fn client(race: &Race<'_>) -> Option<String> {
    let clients: HashSet<_> = race.ended.examples.iter().map(|it| it.remote.ip()).collect();
    let is_one = clients.len() == 1 && race.ended.examples.len() as u64 == race.ended.count;
    clients.into_iter().next().filter(|_| is_one).map(|ip| ip.to_string())
}

fn describe(race: &Race<'_>, finding: &mut Finding) {
    let well = match race.closed_well() {
        0 => "no other connection that it closed ended well".to_owned(),
        1 => "1 other connection that it closed ended well".to_owned(),
        well => format!("{} other connections that it closed ended well", say::count(well)),
    };
    let at = |times: &Spread, hundredths| Some(say::seconds(times.percentile(hundredths)? as f64 / 1e9));
    let deciles = |times: &Spread| Some((at(times, 10)?, at(times, 50)?, at(times, 90)?));
    let text = match (deciles(race.quiet), deciles(&race.ended.established)) {
        (Some((low, median, high)), _) => {
            format!("closed after {median} without a request (p10 {low}, p90 {high}); {well}")
        }
        (None, Some((low, median, high))) => format!("closed at an age of {median} (p10 {low}, p90 {high}); {well}"),
        (None, None) => well,
    };
    finding.line("seen", text);
    let of = say::count(race.pair.ended().max(race.pair.opened));
    finding.line("seen", format!("{} of {of} connections ({})", say::count(race.raced), say::percent(race.share())));
    let mut peers: Vec<String> = race.ended.examples.iter().map(|it| it.remote.ip().to_string()).collect();
    peers.sort_unstable();
    peers.dedup();
    if race.is_server() && !peers.is_empty() {
        finding.line("seen", format!("clients, of {} of them: {}", race.ended.examples.len(), peers.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, client_key, fired, nothing, pair, server_key, tuple};
    use super::*;
    use crate::model::row::Held;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::PairKey;
    use crate::study::diagnose::finding::Example;

    fn spread(times: &[u64]) -> Spread {
        let mut spread = Spread::default();
        times.iter().for_each(|time| spread.add(*time));
        spread
    }

    fn example(conn: u64, is_server: bool) -> Example {
        let port = 50_000 + u16::try_from(conn).unwrap_or(0);
        let tuple = tuple((9, 6379), (1, port));
        let tuple = if is_server { tuple } else { tuple.reversed() };
        let (local, remote) = (tuple.local(), tuple.remote());
        Example { conn, local, remote, state: State::Closed, age: Held::Unknown, pid: None, fd: None }
    }

    /// Connections that raced, of so many in the window, after 5s without a request.
    fn evidence(key: PairKey, raced: u64, opened: u64) -> Evidence {
        let is_server = key.side == Side::Server;
        let quiet = spread(&vec![5 * S; usize::try_from(raced).unwrap_or(0)]);
        let examples = (1..=raced.min(5)).map(|conn| example(conn, is_server)).collect();
        let ended = Ended { count: raced, examples, first: 1001 * S, last: 1009 * S, ..Ended::default() };
        let (end, ended) = match key.side {
            Side::Server => ((End::ResetDataAfterClose, Closer::Active), Ended { long: raced, idle: quiet, ..ended }),
            _ => {
                let idle = spread(&[0, 0, 0]);
                let received_idle = quiet;
                let (long, just_closed, in_close_wait) = (raced, raced, raced);
                let ended = Ended { long, just_closed, in_close_wait, idle, received_idle, ..ended };
                ((End::ResetReceived, Closer::Passive), ended)
            }
        };
        let mut evidence = nothing();
        evidence.pairs.push(Pair { opened, ends: vec![(end.0, end.1, ended)], ..pair(key) });
        evidence
    }

    fn ended(evidence: &mut Evidence) -> &mut Ended {
        &mut evidence.pairs[0].ends[0].2
    }

    #[rstest]
    #[case::two(2, 0)]
    #[case::three(3, 1)]
    #[case::four(4, 1)]
    fn both_ends_show_it(#[case] raced: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &evidence(server_key(), raced, 50)).len(), expected);
        assert_eq!(fired(&RULE, &evidence(client_key(), raced, 50)).len(), expected);
    }

    /// An early answer is no idle timer, and a late write of a client is a stale pool's.
    #[test]
    fn young_ones_and_stale_ones_are_not_its_own() {
        let mut young = evidence(server_key(), 50, 50);
        ended(&mut young).long = 2;
        assert_eq!(fired(&RULE, &young), []);
        let mut stale = evidence(client_key(), 50, 50);
        ended(&mut stale).just_closed = 2;
        assert_eq!(fired(&RULE, &stale), []);
    }

    #[rstest]
    #[case::alike(&[5 * S, 5 * S, 5_400_000_000], 1)]
    #[case::apart(&[5 * S, 5 * S, 6 * S], 0)]
    #[case::unknown(&[], 1)]
    fn a_timer_makes_them_alike(#[case] quiet: &[u64], #[case] expected: usize) {
        let mut evidence = evidence(server_key(), 3, 50);
        ended(&mut evidence).idle = spread(quiet);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::a_hundredth(500, Severity::Critical)]
    #[case::less(501, Severity::Warning)]
    fn severity(#[case] opened: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &evidence(server_key(), 5, opened))[0].severity, expected);
    }

    /// Both ends of the same connections are one finding: the server's.
    #[test]
    fn two_ends_are_one_finding() {
        let mut both = evidence(server_key(), 5, 50);
        both.pairs.extend(evidence(client_key(), 5, 50).pairs);
        let findings = fired(&RULE, &both);
        assert_eq!(findings.iter().map(|it| it.subject.side).collect::<Vec<_>>(), [Some(Side::Server)]);
    }

    #[test]
    fn words_of_a_server() {
        let mut evidence = evidence(server_key(), 31, 2_500);
        let well = Ended { count: 2_204, ..Ended::default() };
        evidence.pairs[0].ends.push((End::Fin, Closer::Active, well));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] closed 31 connections just as clients sent a request: a reset answered those requests"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "closed after 5.0s without a request (p10 5.0s, p90 5.0s); 2,204 other connections that it closed ended well",
                "31 of 2,500 connections (1.2 %)",
                "clients, of 5 of them: 10.0.0.1",
            ]
        );
        assert_eq!(finding.confidence, Confidence::Likely);
        assert!(finding.remedies[0].starts_with("Make the server's keep-alive timeout (5.0s now) longer than "));
    }

    #[test]
    fn words_of_a_client() {
        let finding = &fired(&RULE, &evidence(client_key(), 4, 50))[0];
        assert_eq!(
            finding.headline,
            "10.0.0.9:6379 closed 4 connections just as api[4711] sent a request: a reset answered those requests"
        );
        assert_eq!(finding.figures[2], ("quiet_ns", Value::Ns(5 * S)));
    }
}
