//! The findings of the last seconds: two gatherers take turns, so that one always has seen enough.

use crate::model::row::{Connection, Row};
use crate::model::stream::Item;
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::Id;
use crate::study::diagnose::{Diagnosis, Gatherer, Selection, diagnose};

/// The older gatherer is replaced when it has seen twice as much, in ns. Rules ask for 10 s at most.
const TURN_NS: u64 = 10_000_000_000;

/// What stays as it is would take a line for ever.
const STANDING: [Id; 3] = ["fixed-port-in-range", "stale-setting", "risky-setting"];

/// Evidence of the last 10 to 20 s.
#[derive(Debug)]
pub struct Findings {
    older: Gatherer,
    /// When it began, in ns of `CLOCK_BOOTTIME`; `None` before the first event.
    begun: Option<u64>,
    newer: Option<(Gatherer, u64)>,
}

impl Findings {
    /// From a trace, or from the live kernel.
    pub fn new(is_trace: bool) -> Self {
        Self { older: Gatherer::new(is_trace), begun: None, newer: None }
    }

    /// The open connections include those that are over while their descriptor is open.
    #[must_use]
    pub fn with_unreleased(mut self) -> Self {
        self.older.sees_unreleased();
        self
    }

    /// Takes in an item, before the rows that follow from it.
    pub fn item(&mut self, item: &Item) {
        self.older.item(item);
        self.newer.iter_mut().for_each(|(newer, _)| newer.item(item));
    }

    /// Takes in a row of the engine.
    pub fn row(&mut self, row: &Row) {
        self.older.row(row);
        self.newer.iter_mut().for_each(|(newer, _)| newer.row(row));
    }

    /// Lets time pass.
    pub fn turn(&mut self, now: u64) {
        let begun = *self.begun.get_or_insert(now);
        if now < begun.saturating_add(TURN_NS) {
            return;
        }
        match self.newer.take() {
            None => self.newer = Some((self.older.clone().renewed(), now)),
            Some((newer, since)) if now >= since.saturating_add(TURN_NS) => {
                // Both know the same of how things stand.
                let older = std::mem::replace(&mut self.older, newer);
                (self.newer, self.begun) = (Some((older.renewed(), now)), Some(since));
            }
            kept => self.newer = kept,
        }
    }

    /// What is known now, given the open connections.
    pub fn evidence(&self, open: impl IntoIterator<Item = Connection>) -> Evidence {
        self.older.finish(open, true)
    }

    /// What the rules say now, given the open connections.
    pub(super) fn diagnose(&self, open: impl IntoIterator<Item = Connection>) -> Diagnosis {
        let wanted = Selection { skip: STANDING.to_vec(), ..Selection::default() };
        diagnose(&self.evidence(open), &wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use super::super::samples::{S, closes, connects, facts, forgotten, refused, story, survey};
    use super::*;
    use crate::engine::follow::Follower;
    use crate::engine::lifecycle::Config;
    use crate::model::event::Event;
    use crate::model::stream::Origin;
    use crate::study::diagnose::RULES;

    /// Gatherers that take turns like those of [`Findings`]: each begins with a copy of the one before, and each decision is
    /// about a copy.
    struct Copies(Vec<(Gatherer, u64)>);

    impl Copies {
        fn turn(&mut self, now: u64) {
            let Some((newest, since)) = self.0.last() else { return };
            if now >= since + TURN_NS {
                self.0.push((newest.clone().renewed(), now));
            }
            let first = self.0.len().saturating_sub(2);
            self.0.drain(..first);
        }

        fn evidence(&self, open: impl IntoIterator<Item = Connection>) -> Evidence {
            self.0[0].0.clone().finish(open, true)
        }
    }

    /// Some of everything for 80 s, with a look at all sockets in between.
    fn items() -> Vec<Item> {
        let at = |second: u64| (120 + second) * S;
        let mut items = story();
        for second in 0..60 {
            let conn = 100 + 10 * second;
            items.extend((0..4).flat_map(|more| connects(at(second) + more, conn + more)));
            items.extend((0..3).flat_map(|more| closes(at(second) + S / 2 + more * 10, conn + more)));
            items.extend(
                (second % 20 < 12).then(|| forgotten(at(second) + S / 2 + 100, conn + 5)).into_iter().flatten(),
            );
            items.extend(refused(at(second) + 3 * S / 4, conn + 6));
            if second % 25 == 24 {
                items.extend([survey(at(second) + 9 * S / 10), facts(at(second) + 9 * S / 10)].concat());
            }
            items.push(Item::Event(Event::Passed { at: at(second) + 95 * S / 100 }));
        }
        items
    }

    /// Every rule alone, and all of them together, every 5 s.
    #[test]
    fn a_decision_leaves_no_trace_and_needs_no_copy() {
        let config = Config { at_close: true, scans: true, unreleased: true, ..Config::default() };
        let mut follower = Follower::new(config, [], Origin::default());
        let mut findings = Findings::new(false).with_unreleased();
        let mut copies = Copies(vec![(findings.older.clone(), 120 * S)]);
        let alone = RULES.iter().map(|rule| Selection { only: vec![rule.id], ..Selection::default() });
        let selections: Vec<Selection> = alone.chain([Selection::default()]).collect();
        let (mut due, mut found) = (0, HashSet::new());
        for item in &items() {
            findings.item(item);
            copies.0.iter_mut().for_each(|(gatherer, _)| gatherer.item(item));
            let Ok(()) = follower.take::<Infallible>(std::slice::from_ref(item), |row, _| {
                findings.row(row);
                copies.0.iter_mut().for_each(|(gatherer, _)| gatherer.row(row));
                Ok(())
            });
            let Item::Event(Event::Passed { at }) = *item else { continue };
            if at < due {
                continue;
            }
            due = at + 5 * S;
            findings.turn(at);
            copies.turn(at);
            let both = [findings.evidence(follower.open()), copies.evidence(follower.open())];
            for selection in &selections {
                let [ours, theirs] = both.each_ref().map(|evidence| diagnose(evidence, selection));
                assert_eq!(ours.findings, theirs.findings, "{at}");
                assert_eq!(format!("{:?}", ours.checked), format!("{:?}", theirs.checked), "{at}");
                found.extend(ours.findings.iter().map(|finding| finding.id));
            }
        }
        assert!(found.len() > 4, "it is about something: {found:?}");
    }
}
