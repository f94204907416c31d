//! The findings of the last seconds: of the time that is being counted, and of the one before, so that there always is
//! enough.

use crate::model::row::{Connection, Row};
use crate::model::stream::Item;
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::Id;
use crate::study::diagnose::{Diagnosis, Gatherer, Selection, diagnose};

/// How long each time is, in ns. Rules ask for 10 s at most.
const TURN_NS: u64 = 10_000_000_000;

/// What stays as it is would take a line for ever.
const STANDING: [Id; 3] = ["fixed-port-in-range", "stale-setting", "risky-setting"];

/// Evidence of the last 10 to 20 s.
#[derive(Debug)]
pub struct Findings {
    gatherer: Gatherer,
    /// When it began to count, in ns of `CLOCK_BOOTTIME`; `None` before the first event.
    begun: Option<u64>,
}

impl Findings {
    /// From a trace, or from the live kernel.
    pub fn new(is_trace: bool) -> Self {
        Self { gatherer: Gatherer::new(is_trace), begun: None }
    }

    /// Takes in an item, before the rows that follow from it.
    pub fn item(&mut self, item: &Item) {
        self.gatherer.item(item);
    }

    /// Takes in a row of the engine.
    pub fn row(&mut self, row: &Row) {
        self.gatherer.row(row);
    }

    /// Lets time pass.
    pub fn turn(&mut self, now: u64) {
        let begun = *self.begun.get_or_insert(now);
        if now >= begun.saturating_add(TURN_NS) {
            self.gatherer.renew();
            self.begun = Some(now);
        }
    }

    /// What is known now, given the open connections.
    pub fn evidence(&self, open: impl IntoIterator<Item = Connection>) -> Evidence {
        self.gatherer.evidence(open)
    }

    /// What the rules say now, given the open connections.
    pub(super) fn diagnose(&self, open: impl IntoIterator<Item = Connection>) -> Diagnosis {
        let wanted = Selection { skip: STANDING.to_vec(), ..Selection::default() };
        diagnose(&self.evidence(open), &wanted)
    }
}
