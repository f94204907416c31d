//! Compares the events with the kernel's counters.

use std::collections::{BTreeMap, BTreeSet};

use super::Tally;
use crate::model::counters::{Increase, Unseen};
use crate::model::finding::{Compared, Counter, Finding, Reading, Verdict};

/// What to compare.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Network namespaces, by inode number; all, if it is empty.
    pub namespaces: Vec<u32>,
    /// Counters.
    pub counters: Vec<Counter>,
    /// [`Counter::Tw`] counts mini-sockets when they are made (since 5.18), not when their timer fires.
    pub counts_made: bool,
}

/// Compares namespaces in the order of their numbers; the verdict comes last.
pub fn compare(tally: &Tally, first: &[Reading], last: &[Reading], scope: &Scope, at: u64) -> Vec<Finding> {
    let is_wanted = |netns: &u32| scope.namespaces.is_empty() || scope.namespaces.contains(netns);
    let first: BTreeMap<u32, &Reading> = first.iter().map(|reading| (reading.netns, reading)).collect();
    let last: BTreeMap<u32, &Reading> = last.iter().map(|reading| (reading.netns, reading)).collect();
    let all: BTreeSet<u32> =
        first.keys().chain(last.keys()).chain(tally.counts().keys()).copied().filter(is_wanted).collect();
    let mut findings = Vec::new();
    let mut verdict =
        Verdict { at, lost: tally.lost(), lost_transitions: tally.lost_transitions(), ..Verdict::default() };
    let (mut missing, mut surplus) = (0, 0);
    for netns in all {
        let (begun, ended) = (first.get(&netns).copied(), last.get(&netns).copied());
        let Some(ended) = ended else {
            verdict.gone += 1;
            continue;
        };
        let compared: Vec<Compared> =
            scope.counters.iter().filter_map(|counter| one(tally, begun, ended, scope, *counter)).collect();
        let too_many: u64 = compared.iter().filter(|it| it.seen > it.expected).map(Compared::certain_difference).sum();
        let is_another = begun.is_some_and(|begun| begun.cookie != ended.cookie);
        // The events did happen, but perhaps in an earlier namespace with the same number.
        if is_another || begun.is_none() && too_many > 0 {
            verdict.unclear += 1;
            continue;
        }
        verdict.namespaces += 1;
        verdict.transitions += tally.counts().get(&netns).map_or(0, |counts| counts.transitions);
        surplus += too_many;
        missing += compared.iter().filter(|it| it.seen <= it.expected).map(Compared::certain_difference).sum::<u64>();
        findings.extend(compared.into_iter().filter(|it| it.seen + it.expected > 0).map(Finding::Counter));
        findings.extend(unseen(begun, ended).map(Finding::Unseen));
    }
    verdict.unexplained = missing.saturating_sub(verdict.lost) + surplus;
    findings.push(Finding::Verdict(verdict));
    findings
}

/// Growth of counters whose events cannot be seen.
fn unseen<'r>(begun: Option<&'r Reading>, ended: &'r Reading) -> impl Iterator<Item = Increase> + 'r {
    Unseen::ALL.into_iter().filter_map(move |counter| {
        let before = begun.map_or(0, |reading| reading.unseen[counter as usize]);
        let increase = ended.unseen[counter as usize].saturating_sub(before);
        let over_ns = begun.map(|reading| ended.to.saturating_sub(reading.from));
        (increase > 0).then_some(Increase { at: ended.to, netns: ended.netns, counter, increase, over_ns })
    })
}

fn one(tally: &Tally, begun: Option<&Reading>, ended: &Reading, scope: &Scope, counter: Counter) -> Option<Compared> {
    let before = begun.map_or(Some(0), |reading| reading.values[counter as usize])?;
    let expected = ended.values[counter as usize]?.saturating_sub(before);
    let counts = tally.counts().get(&ended.netns).copied().unwrap_or_default();
    let (seen, mut within) = match counter {
        Counter::Tw if !scope.counts_made => (counts.expired, counts.expired_doubtful),
        _ => (counts.seen[counter as usize], counts.doubtful[counter as usize]),
    };
    if counter == Counter::AttemptFails {
        let before = begun.map_or(0, |reading| reading.embryonic_resets);
        within += ended.embryonic_resets.saturating_sub(before);
    }
    Some(Compared { at: ended.to, netns: ended.netns, counter, seen, expected, within })
}
