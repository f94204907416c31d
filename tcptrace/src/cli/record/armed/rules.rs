//! The rules of a condition: an engine beside the recorder, and the evidence of the last seconds.

use std::collections::HashSet;
use std::convert::Infallible;
use std::slice;

use crate::cli::say;
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::live::Source;
use crate::model::criteria::Criteria;
use crate::model::row::Row;
use crate::model::sink::Wishes;
use crate::model::stream::{Context, Item, Origin};
use crate::study::diagnose::finding::{Finding, Id};
use crate::study::diagnose::{Case, Selection};
use crate::study::top::Findings;

/// How often to ask for a look at all sockets, in ns: some rules need what only a look shows.
const LOOK_NS: u64 = 30_000_000_000;
/// How long after the beginning a rule can be told to lack its evidence, in ns: by then, the first looks are over.
const BEGUN_NS: u64 = 15_000_000_000;

/// Follows connections, and has the rules decide.
pub(super) struct Rules {
    ids: Vec<Id>,
    criteria: Criteria,
    follower: Follower,
    findings: Findings,
    /// When it first decided, and when it last asked for a look, in ns of `CLOCK_BOOTTIME`.
    begun: Option<u64>,
    looked: u64,
    wants_look: bool,
    /// Rules that cannot be checked, and were named.
    told: HashSet<Id>,
}

impl Rules {
    pub(super) fn new(ids: Vec<Id>, criteria: Criteria, source: &Source) -> Self {
        let rows = Config { at_close: true, transitions: true, connections: true, ..Config::default() };
        let config = Config { existing: true, ..source.engine_config(rows) };
        let follower = Follower::new(config, [], Origin::default());
        let (begun, looked, wants_look, told) = (None, 0, false, HashSet::new());
        Self { ids, criteria, follower, findings: Findings::new(false), begun, looked, wants_look, told }
    }

    pub(super) fn context(&self) -> &Context {
        self.follower.context()
    }

    /// One by one: what an item leads to may decide what the next one means.
    pub(super) fn take(&mut self, items: &[Item]) {
        let Self { follower, findings, .. } = self;
        for item in items {
            findings.item(item);
            let Ok(()) = follower.take::<Infallible>(slice::from_ref(item), |row, _| {
                findings.row(row);
                Ok(())
            });
        }
    }

    /// What the rules find now, about connections that match the filters.
    pub(super) fn diagnose(&mut self, now: u64) -> Vec<Finding> {
        let begun = *self.begun.get_or_insert(now);
        self.findings.turn(now);
        let mut open = Vec::new();
        let Ok(()) = self.follower.take_open::<Infallible>(|row, _| {
            if let Row::Connection(connection) = row {
                open.push(connection.clone());
            }
            Ok(())
        });
        let selection = Selection { only: self.ids.clone(), skip: Vec::new() };
        let case = Case::new(&self.findings.evidence(open), &selection, self.follower.context().clone());
        if now >= begun.saturating_add(BEGUN_NS) {
            for checked in &case.diagnosis.checked {
                if let Some(reason) = &checked.reason
                    && self.told.insert(checked.id)
                {
                    say(format_args!("{} is not checked: {reason}", checked.id));
                }
            }
        }
        if now >= self.looked.saturating_add(LOOK_NS) {
            (self.wants_look, self.looked) = (self.looked != 0, now);
        }
        case.only_about(&self.criteria).diagnosis.findings
    }

    pub(super) fn misses_any(&mut self) -> bool {
        self.follower.misses_any()
    }

    pub(super) fn wishes(&mut self) -> Wishes {
        self.follower.wishes().and(Wishes { survey: std::mem::take(&mut self.wants_look), ..Wishes::default() })
    }
}
