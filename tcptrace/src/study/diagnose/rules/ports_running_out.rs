//! A destination takes so many local ports that connect() is slow, or will fail.

use crate::model::tcp::State;
use crate::study::diagnose::evidence::{Evidence, KeyBudget, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::{budgets, say};
use crate::study::ports::Budget;

/// From there on connect() walks the half that is taken first: on 8,000 ports, its median rose from 31 to 4,305 µs.
const HALF: f64 = 0.5;
/// Then it is a matter of minutes.
const FULL: f64 = 0.9;
/// A rate of fewer samples is worse than ± 22 %.
const SAMPLES: u64 = 20;
/// What an on-call needs to act.
const SOON_S: f64 = 600.0;
/// How many destinations have a finding of their own.
const MOST: usize = 3;

pub(super) static RULE: Rule = Rule {
    id: "ports-running-out",
    title: "half of the local ports for a destination are taken, or all of them soon will be",
    needs: &[Need::Sockets, Need::Settings],
    figures: &[
        Figure { name: "usable", unit: "", doc: "Local ports of the range that are neither reserved nor bound." },
        Figure { name: "taken", unit: "", doc: "Of those, the ones that the destination takes." },
        Figure { name: "reusable", unit: "", doc: "Of those, the ones that connect() may take over (tcp_tw_reuse)." },
        Figure { name: "open", unit: "", doc: "Of those, the ones of connections that are not over." },
        Figure { name: "fin_wait2", unit: "", doc: "Of those, the ones of mini-sockets in FIN_WAIT2." },
        Figure { name: "time_wait", unit: "", doc: "Of those, the ones in TIME_WAIT." },
        Figure { name: "taken_share", unit: "", doc: "The part of the usable ports that connect() cannot have." },
        Figure {
            name: "rate",
            unit: "1/s",
            doc: "Connections a second that leave a TIME_WAIT here; null when unknown.",
        },
        Figure { name: "samples", unit: "", doc: "Of how many connections that rate was measured." },
        Figure { name: "holds_ns", unit: "ns", doc: "How long a closed connection takes its port." },
        Figure {
            name: "sustainable",
            unit: "1/s",
            doc: "The most connections a second that the ports allow for long.",
        },
        Figure { name: "demand", unit: "", doc: "Ports that the rate takes in the end; null when unknown." },
        Figure {
            name: "levels_off_share",
            unit: "",
            doc: "The part of the usable ports that is; null if all are taken.",
        },
        Figure { name: "left_ns", unit: "ns", doc: "In how long the last port is taken; null if it never is." },
    ],
    page: Page {
        sees: "Nothing yet, or connects that get slower.",
        fires: "Half or more of the usable ports for a destination are taken and cannot be reused: from there on, connect() \
                walks the taken half first (measured: 31µs became 4,305µs). Or the destination will need more ports than there \
                are, at the rate of the window (20 connections or more).",
        silent: "A rate at which fewer than half of the ports are ever taken.",
        remedy: "A connection pool; more destination addresses or ports; a wider net.ipv4.ip_local_port_range. Last, \
                 net.ipv4.tcp_tw_reuse=1, where both ends use TCP timestamps.",
        sources: "__inet_hash_connect (net/ipv4/inet_hashtables.c): ports of one parity first; RFC 6056.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let full: Vec<_> = evidence.budgets.keys.iter().filter(|it| fires(&it.budget)).collect();
    let mut findings: Vec<Finding> = full.iter().take(MOST).map(|key| finding(evidence, key)).collect();
    if let (Some(last), true) = (findings.last_mut(), full.len() > MOST) {
        last.line("sock_diag", format!("and {} more destinations", full.len() - MOST));
    }
    let fullest = evidence.budgets.keys.first();
    Outcome::of(findings, fullest.map(|it| figures(&it.budget)).unwrap_or_default())
}

/// Whether the rate of the window leads to more ports than there are.
fn exceeds(budget: &Budget) -> bool {
    budget.samples >= SAMPLES && budget.forecast.is_some_and(|it| it.levels_off_at.is_none())
}

fn fires(budget: &Budget) -> bool {
    budget.share >= HALF || exceeds(budget)
}

fn seconds_left(budget: &Budget) -> Option<f64> {
    budget.forecast.filter(|_| exceeds(budget)).and_then(|it| it.seconds_left)
}

fn figures(budget: &Budget) -> Figures {
    let forecast = budget.forecast;
    let share = |it: Option<f64>| it.map_or(Value::Unknown, Value::Share);
    let left = forecast.and_then(|it| it.seconds_left);
    vec![
        ("usable", Value::Count(budget.usable.into())),
        ("taken", Value::Count(budget.taken.into())),
        ("reusable", Value::Count(budget.reusable.into())),
        ("open", Value::Count(budget.open.into())),
        ("fin_wait2", Value::Count(budget.fin_wait2.into())),
        ("time_wait", Value::Count(budget.time_wait.into())),
        ("taken_share", Value::Share(budget.share)),
        ("rate", forecast.map_or(Value::Unknown, |it| Value::Rate(it.rate))),
        ("samples", Value::Count(budget.samples)),
        ("holds_ns", Value::Ns(budget.holds_ns)),
        ("sustainable", Value::Rate(budget.sustainable)),
        ("demand", forecast.map(|it| it.demand.round() as u64).into()),
        ("levels_off_share", share(forecast.and_then(|it| it.levels_off_at))),
        ("left_ns", left.map_or(Value::Unknown, |seconds| Value::Ns((seconds * 1e9) as u64))),
    ]
}

fn finding(evidence: &Evidence, key: &KeyBudget) -> Finding {
    let budget = &key.budget;
    let left = seconds_left(budget);
    let is_soon = left.is_some_and(|seconds| seconds < SOON_S);
    let severity = if budget.share >= FULL || is_soon { Severity::Critical } else { Severity::Warning };
    let confidence = if budget.share >= HALF { Confidence::Certain } else { Confidence::Likely };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(budget));
    finding.subject = subject(budget);
    finding.figures = figures(budget);
    finding.count = budget.taken.into();
    finding.seconds_left = left;
    budgets::describe(evidence, budget, &mut finding);
    finding.line("sock_diag", format!("taken by {}", budgets::holders(budget)));
    walk(evidence, budget, &mut finding);
    finding.why = if budget.half_walked {
        "connect() tries every other port first, and that half is full: each connect walks it before it finds a port. Who \
         closes first keeps the port for 61s."
            .into()
    } else {
        "Who closes first keeps the port for 61s. The ports are those of one source address and one destination: others have \
         their own."
            .into()
    };
    budgets::advise(key, &mut finding);
    finding.sure = match (budget.share >= HALF, budget.forecast) {
        (true, None) => "certain: counted".into(),
        (true, Some(_)) => "certain (counted); the forecast is likely: at the rate of the window".into(),
        _ => format!("likely: at the rate of the window, of {}", say::counted(budget.samples, "sample")),
    };
    finding
}

fn subject(budget: &Budget) -> Subject {
    let ends = budget.key.ends();
    let owners = &budget.owners;
    let only = owners.known.first().filter(|_| owners.known.len() == 1 && owners.unknown == 0);
    Subject {
        task: only.map(|(task, _)| *task),
        netns: budget.key.netns,
        local: Some(ends.local()),
        remote: Some(ends.remote()),
        side: Some(crate::model::tcp::Side::Client),
        ..Subject::default()
    }
}

fn headline(budget: &Budget) -> String {
    let ends = budget.key.ends();
    let kept = budget.taken - budget.reusable;
    let place = format!("{} → {}", ends.local().ip(), ends.remote());
    let (kept, usable, part) = (say::count(kept), say::count(budget.usable), say::percent(budget.share));
    let long = format!("{place}: {kept} of {usable} local ports taken ({part})");
    let short = format!("{place}: {kept} of {usable} taken ({part})");
    if budget.free == 0 {
        return say::fitting([
            format!("{place}: all {usable} local ports are taken"),
            format!("{place}: no port is left"),
        ]);
    }
    if let (Some(seconds), Some(forecast)) = (seconds_left(budget), budget.forecast) {
        let (left, rate) = (say::seconds(seconds), say::rate(forecast.rate));
        let rate = rate.trim_end_matches("/s").to_owned();
        return say::fitting([
            format!("{long}, the last one in {left} at {rate} connections/s"),
            format!("{short}, the last one in {left} at {rate} connections/s"),
            format!("{short}, the last one in {left}"),
        ]);
    }
    let level = budget.forecast.filter(|_| budget.samples >= SAMPLES).and_then(|it| it.levels_off_at);
    let level = level.map_or(String::new(), |share| format!(", levels off at {}", say::percent(share)));
    let half = say::count(budget.usable.div_ceil(2));
    let [walked, briefly] = match budget.half_walked {
        true => {
            [format!("; each connect() now walks {half} taken ports first"), format!("; connect() walks {half} first")]
        }
        false => [String::new(), String::new()],
    };
    say::fitting([
        format!("{long}{level}{walked}"),
        format!("{short}{level}{walked}"),
        format!("{short}{level}{briefly}"),
        format!("{short}{level}"),
    ])
}

/// The kernel enters SYN_SENT before it looks for a port, so that the walk is in its time.
fn walk(evidence: &Evidence, budget: &Budget, finding: &mut Finding) {
    let (mut connect, mut srtt) = (Spread::default(), Spread::default());
    for pair in budgets::pairs(evidence, budget) {
        pair.spread(State::SynSent).into_iter().for_each(|spread| connect.merge(spread));
        srtt.merge(&pair.srtt_us);
    }
    let (Some(median), Some(srtt)) = (connect.percentile(50), srtt.percentile(50)) else { return };
    let (median, srtt) = (say::time(median), say::time(srtt.saturating_mul(1_000)));
    let samples = say::count(connect.total());
    finding.line("seen", format!("SYN_SENT lasts {median} at the median of {samples}, a round trip {srtt}"));
}

#[cfg(test)]
pub(in crate::study::diagnose) mod tests {
    use rstest::rstest;

    use super::super::testing::{S, client_key, fired, pair, spread, standing, with_settings};
    use super::*;
    use crate::model::row::Held;
    use crate::study::diagnose::evidence::{Budgets, Stays};

    /// 100 ports; so many TIME_WAITs of all ages, and so many that began in the window of 10 s.
    pub(in crate::study::diagnose) fn taking(time_waits: u64, began: u64) -> Evidence {
        let mut evidence =
            with_settings(&[("net.ipv4.ip_local_port_range", "40000 40099"), ("net.ipv4.ip_local_reserved_ports", "")]);
        evidence.about.kernel = "6.18.44".into();
        for conn in 0..time_waits {
            let age = conn * 60 / time_waits.max(1);
            let mut socket = standing(conn, State::TimeWait, age);
            (socket.age, socket.left_ns) = (Held::Exactly(age * S), Some((61 - age) * S));
            evidence.bound_first.insert(conn, false);
            evidence.sockets.push(socket);
        }
        let mut pair = pair(client_key());
        pair.opened = began;
        pair.stays.push((State::TimeWait, Stays { entered: began, ..Stays::default() }));
        evidence.pairs.push(pair);
        evidence.budgets = Budgets::of(&evidence);
        evidence
    }

    #[rstest]
    #[case::a_third(33, 0, None)]
    #[case::just_below_half(49, 0, None)]
    #[case::half(50, 0, Some(Severity::Warning))]
    #[case::just_below_full(89, 0, Some(Severity::Warning))]
    #[case::full(90, 0, Some(Severity::Critical))]
    #[case::levels_off(40, 16, None)]
    #[case::too_few_samples(1, 19, None)]
    #[case::too_fast(1, 20, Some(Severity::Critical))]
    fn thresholds(#[case] time_waits: u64, #[case] began: u64, #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &taking(time_waits, began));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    #[test]
    fn words_of_one_that_runs_out() {
        // Two a second for 20 s.
        let mut evidence = taking(40, 20);
        for (place, socket) in (0..).zip(&mut evidence.sockets) {
            let age = place * S / 2;
            (socket.age, socket.left_ns) = (Held::Exactly(age), Some(61 * S - age));
        }
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        let expected =
            "10.0.0.1 → 10.0.0.9:6379: 40 of 100 local ports taken (40 %), the last one in 30.0s at 2.0 connections/s";
        assert_eq!(finding.headline, expected);
        assert_eq!((finding.confidence, finding.seconds_left), (Confidence::Likely, Some(30.0)));
        assert_eq!(finding.sure, "likely: at the rate of the window, of 20 samples");
    }

    #[test]
    fn words_of_one_that_levels_off() {
        // 1.6 a second need 98 of 100.
        let mut evidence = taking(61, 16);
        evidence.about.traced_ns = 10 * S;
        let srtt = spread([13; 10]);
        let lasted = spread([358_000; 10]);
        evidence.pairs[0].srtt_us = srtt;
        evidence.pairs[0].stays.push((State::SynSent, Stays { lasted, ..Stays::default() }));
        let finding = &fired(&RULE, &evidence)[0];
        let expected = "10.0.0.1 → 10.0.0.9:6379: 61 of 100 local ports taken (61 %); each connect() now walks 50 taken ports first";
        assert_eq!(finding.headline, expected);
        let walk = finding.evidence.last().map(|it| &*it.text);
        assert_eq!(walk, Some("SYN_SENT lasts 358µs at the median of 10, a round trip 13.0µs"));
    }

    #[test]
    fn words_of_one_that_has_none_left() {
        let finding = &fired(&RULE, &taking(100, 20))[0];
        assert_eq!(finding.headline, "10.0.0.1 → 10.0.0.9:6379: all 100 local ports are taken");
        assert_eq!((finding.severity, finding.seconds_left), (Severity::Critical, Some(0.0)));
    }

    #[test]
    fn the_level_is_told_from_enough_samples() {
        let mut evidence = taking(61, 20);
        evidence.about.traced_ns = 20 * S;
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        let expected = "10.0.0.1 → 10.0.0.9:6379: 61 of 100 taken (61 %), levels off at 61 %; connect() walks 50 first";
        assert_eq!(finding.headline, expected);
    }
}
