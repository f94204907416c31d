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
