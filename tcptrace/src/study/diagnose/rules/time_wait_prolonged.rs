//! TIME_WAITs that last longer than they should, because the peer repeats its FIN.

use super::group::{Group, by_remote};
use super::words::share;
use crate::model::tcp::{Side, State, TimeWaitEnd};
use crate::study::diagnose::budgets;
use crate::study::diagnose::evidence::{Evidence, Pair, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are a number to take a part or a median of.
const MANY: u64 = 20;
/// A lost packet begins a single one anew; so many are a habit.
const SHARE: f64 = 0.05;
/// From here on it is what most users of these ports meet.
const LARGE: f64 = 0.3;
/// From so large a part of the ports on, they run out.
const SHORT: f64 = 0.5;
/// 60 s, the 4 s by which the kernel's timer wheel is late, and 2 s of reason.
const LONG_NS: u64 = 66_000_000_000;
/// How long they last by design, as they are seen.
const USUAL: &str = "61s";

pub(super) static RULE: Rule = Rule {
    id: "time-wait-prolonged",
    title: "TIME_WAITs last longer than 61s, because the peer repeats its FIN",
    needs: &[Need::Events],
    figures: &[
        Figure {
            name: "rearmed",
            unit: "",
            doc: "TIME_WAITs with one remote end, or of one listening port, that the kernel began anew.",
        },
        Figure { name: "time_waits", unit: "", doc: "TIME_WAITs of the same that began or ended in the window." },
        Figure { name: "rearmed_share", unit: "", doc: "The first as a part of the second." },
        Figure {
            name: "expired",
            unit: "",
            doc: "TIME_WAITs of the same that ran out in the window, and whose length is known.",
        },
        Figure { name: "lasted_p50_ns", unit: "ns", doc: "How long those lasted, at the median; null for none." },
    ],
    page: Page {
        sees: "TIME_WAITs of more than 64s, and LAST_ACK at the peer.",
        fires: "20 or more TIME_WAITs with one remote end were restarted and they are 5 % or more of all with it. Or half of \
                at least 20 that expired lasted longer than 66s: 60s, up to 4s for the kernel's timer wheel, and 2s to spare. \
                A warning from 30 % on, and where half of the local ports to it are taken.",
        silent: "Connections that come and go: no TIME_WAIT is restarted.",
        remedy: "Look for packet loss between both hosts, and for a stateful firewall that forgets a connection before its \
                 last ACK has passed.",
        sources: "tcp_timewait_state_process (net/ipv4/tcp_minisocks.c): a FIN that comes again sets the timer to its whole \
                  time. Where that changes its time by less than a step of the timer wheel, nobody can see it.",
    },
    check,
};

/// TIME_WAITs with one remote end, or of one listening port.
struct Waits<'e> {
    group: Group<'e>,
    rearmed: u64,
    all: u64,
    lasted: Spread,
}

impl<'e> Waits<'e> {
    fn of(group: Group<'e>) -> Self {
        let all = |pair: &Pair| {
            pair.stay(State::TimeWait).map_or(0, |stay| stay.entered + stay.left.saturating_sub(stay.left_new))
        };
        let mut lasted = Spread::default();
        for (end, _, spread) in group.pairs.iter().flat_map(|pair| &pair.time_waits) {
            if *end == TimeWaitEnd::Expired {
                lasted.merge(spread);
            }
        }
        let rearmed = group.sum(|pair| pair.rearmed);
        Self { rearmed, all: group.sum(all).max(rearmed), lasted, group }
    }

    fn share(&self) -> f64 {
        share(self.rearmed, self.all)
    }

    fn are_begun_anew(&self) -> bool {
        self.rearmed >= MANY && self.share() >= SHARE
    }

    /// How long most of them last, where that is longer than it should be.
    fn long_ns(&self) -> Option<u64> {
        self.lasted.percentile(50).filter(|median| self.lasted.total() >= MANY && *median > LONG_NS)
    }

    /// Whether half of the ports to its remote end are taken: each TIME_WAIT that lasts longer takes one for longer.
    fn ports_are_short(&self, evidence: &Evidence) -> bool {
        let budgets = self.group.pairs.iter().filter_map(|pair| budgets::of_pair(evidence, pair));
        budgets.into_iter().any(|key| key.budget.share >= SHORT)
    }

    fn is_prolonged(&self) -> bool {
        self.are_begun_anew() || self.long_ns().is_some()
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let servers = evidence.servers().map(|pair| Group { pairs: vec![pair] });
    let mut all: Vec<Waits<'_>> = by_remote(evidence).into_iter().chain(servers).map(Waits::of).collect();
    all.retain(|it| it.all > 0 || it.lasted.total() > 0);
    all.sort_by_key(|it| std::cmp::Reverse((it.rearmed, it.all)));
    let findings = all.iter().filter(|it| it.is_prolonged()).map(|it| finding(evidence, it)).collect();
    Outcome::of(findings, all.first().map(figures).unwrap_or_default())
}

fn figures(waits: &Waits<'_>) -> Figures {
    vec![
        ("rearmed", Value::Count(waits.rearmed)),
        ("time_waits", Value::Count(waits.all)),
        ("rearmed_share", Value::Share(waits.share())),
        ("expired", Value::Count(waits.lasted.total())),
        ("lasted_p50_ns", waits.lasted.percentile(50).map_or(Value::Unknown, Value::Ns)),
    ]
}

fn finding(evidence: &Evidence, waits: &Waits<'_>) -> Finding {
    let is_large = waits.are_begun_anew() && waits.share() >= LARGE;
    let severity = if is_large || waits.ports_are_short(evidence) { Severity::Warning } else { Severity::Note };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Likely, headline(waits));
    finding.subject = waits.group.subject();
    finding.figures = figures(waits);
    finding.count = waits.rearmed;
    let (rearmed, all) = (say::count(waits.rearmed), say::counted(waits.all, "TIME_WAIT"));
    finding.line("seen", format!("{rearmed} of {all} were started again ({})", say::percent(waits.share())));
    match waits.lasted.percentile(50) {
        Some(median) => {
            let longest = say::time(waits.lasted.max().unwrap_or(median));
            let (expired, median) = (say::count(waits.lasted.total()), say::time(median));
            finding
                .line("seen", format!("{expired} ran out after {median} at the median, the longest after {longest}"));
        }
        None => finding.line("seen", "none that ran out in the window was seen from its beginning"),
    }
    finding.why =
        "The peer repeats its FIN because our last ACK does not reach it. Each FIN that comes again starts the \
                   60s anew, and the local port stays taken for as long."
            .into();
    finding
        .remedies
        .push("Look for packet loss on the way to this peer (retransmissions of its other connections)".into());
    finding.remedies.push(
        "Look for a firewall or NAT on the way that forgets a connection before its last ACK has passed; at the peer, such \
         connections wait in LAST_ACK"
            .into(),
    );
    finding.sure =
        "certain that the kernel restarted them; that the last ACK is lost on the way is likely: the alternative is a \
                    peer whose TCP repeats its FIN although the ACK came"
            .into();
    finding
}

fn headline(waits: &Waits<'_>) -> String {
    let pair = waits.group.pairs.first().map(|pair| (pair.key.side, pair.key.ip, pair.key.port));
    let with = match pair {
        Some((Side::Server, _, port)) => format!("of port {port}"),
        Some((_, ip, port)) => format!("with {}", say::end(ip, port)),
        None => String::new(),
    };
    let who = if matches!(pair, Some((Side::Server, ..))) { "clients repeat their FIN" } else { "it repeats its FIN" };
    let (rearmed, all) = (say::count(waits.rearmed), say::count(waits.all));
    let counts = format!("{rearmed} of {all} were started again");
    match waits.long_ns().map(say::time) {
        Some(median) if waits.rearmed > 0 => say::fitting([
            format!("TIME_WAITs {with} last {median} instead of {USUAL}: {who}, {counts}"),
            format!("TIME_WAITs {with} last {median} instead of {USUAL}: {counts}"),
        ]),
        Some(median) => format!("TIME_WAITs {with} last {median} instead of {USUAL}"),
        None => say::fitting([
            format!("TIME_WAITs {with} last longer than {USUAL}: {who}, {counts}"),
            format!("TIME_WAITs {with} last longer than {USUAL}: {counts}"),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{S, client_key, fired, nothing, pair, server_key, spread};
    use super::*;
    use crate::study::diagnose::evidence::{PairKey, Stays};

    /// So many TIME_WAITs of which so many were started again.
    fn rearmed(key: PairKey, rearmed: u64, all: u64) -> Evidence {
        let mut evidence = nothing();
        let stays = Stays { entered: all, ..Stays::default() };
        evidence.pairs.push(Pair { rearmed, stays: vec![(State::TimeWait, stays)], ..pair(key) });
        evidence
    }

    fn lasted(count: usize, seconds: u64) -> Evidence {
        let mut evidence = rearmed(client_key(), 0, count as u64);
        let lasted = spread(std::iter::repeat_n(seconds * S, count));
        evidence.pairs[0].time_waits.push((TimeWaitEnd::Expired, count as u64, lasted));
        evidence
    }

    #[rstest]
    #[case::too_few(19, 19, 0)]
    #[case::enough(20, 400, 1)]
    #[case::a_smaller_part(20, 401, 0)]
    #[case::more(21, 400, 1)]
    fn begun_anew(#[case] count: u64, #[case] all: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &rearmed(client_key(), count, all)).len(), expected);
    }

    #[rstest]
    #[case::too_few(19, 118, 0)]
    #[case::enough(20, 118, 1)]
    #[case::as_the_wheel_turns(400, 64, 0)]
    #[case::longer(400, 70, 1)]
    fn lengths(#[case] count: usize, #[case] seconds: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &lasted(count, seconds)).len(), expected);
    }

    #[rstest]
    #[case::less(29, Severity::Note)]
    #[case::a_large_part(30, Severity::Warning)]
    fn severity(#[case] count: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &rearmed(client_key(), count, 100))[0].severity, expected);
    }

    #[test]
    fn words() {
        let mut evidence = lasted(40, 118);
        evidence.pairs[0].rearmed = 312;
        evidence.pairs[0].stays[0].1.entered = 900;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "TIME_WAITs with 10.0.0.9:6379 last 1m58s instead of 61s: it repeats its FIN, 312 of 900 were started again"
        );
        assert_eq!(finding.evidence[0].text, "312 of 900 TIME_WAITs were started again (35 %)");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Likely));
    }

    #[test]
    fn words_of_a_server() {
        let finding = &fired(&RULE, &rearmed(server_key(), 25, 25))[0];
        assert_eq!(
            finding.headline,
            "TIME_WAITs of port 80 last longer than 61s: clients repeat their FIN, 25 of 25 were started again"
        );
        assert_eq!((finding.subject.lport, finding.subject.remote), (Some(80), None));
    }
}
