//! Items in, rows out: the one way from what a source tells to what is shown, live and from a trace.

use crate::audit::Finding;
use crate::event::{Cause, Event, Losses};
use crate::filter::{Criteria, Filter};
use crate::lifecycle::{Config, Engine, Row, Stats};
use crate::names::Group;
use crate::output::Context;
use crate::trace::{Item, Lost, Origin};

/// What the kernel has counted, nobody has seen, and no loss explains.
pub const UNACCOUNTED: &str = "unaccounted for by the audit";

/// Follows a source.
///
/// What it hands over depends on the items and their order alone, not on how many come at a time.
#[derive(Debug)]
pub struct Follower {
    engine: Engine,
    /// A row is shown that passes all of them.
    filters: Vec<Filter>,
    origin: Origin,
    losses: Losses,
    /// What audits did not find.
    unaccounted: u64,
    /// What damage of a trace has cost, and whether that may be more.
    damaged: (u64, bool),
    events: u64,
    rows: Vec<Row>,
    passed: Vec<Row>,
}

impl Follower {
    /// Hands over what matches all of these.
    pub fn new(config: Config, criteria: impl IntoIterator<Item = Criteria>, origin: Origin) -> Self {
        let filters = criteria.into_iter().map(Filter::new).filter(|filter| !filter.is_open());
        Self {
            engine: Engine::new(config),
            filters: filters.collect(),
            origin,
            losses: Losses::default(),
            unaccounted: 0,
            damaged: (0, false),
            events: 0,
            rows: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes items in, and hands over the rows that follow from them, each with where it comes from.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn take<E>(&mut self, items: &[Item], mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        for item in items {
            if let Item::Event(event) = item {
                self.count(event);
                self.engine.feed(event, &mut self.rows);
                continue;
            }
            // Clock and names hold for what comes after them.
            self.hand_over(&mut each)?;
            match item {
                Item::Clocks(clocks) => self.origin.context.clock = clocks.clock(),
                Item::Namespace { inode, name } => self.origin.context.names.name_namespace(*inode, name),
                Item::Group { id, path } => self.origin.context.names.name_group(*id, Group::at(path)),
                Item::Losses(losses) => self.losses = *losses,
                Item::Audit(finding) => {
                    if let Finding::Verdict(verdict) = finding {
                        self.unaccounted = self.unaccounted.saturating_add(verdict.unexplained);
                    }
                    each(&Row::Audit(*finding), &self.origin)?;
                }
                Item::Head(_) | Item::Event(_) => {}
            }
        }
        self.hand_over(&mut each)
    }

    fn count(&mut self, event: &Event) {
        match *event {
            Event::Passed { .. } => {}
            // Readers of a trace say so, not the trace.
            Event::Lost { cause: Cause::Damage, events, .. } => {
                self.damaged.0 = self.damaged.0.saturating_add(events);
                self.damaged.1 |= events == 0;
            }
            _ => self.events += 1,
        }
    }

    /// Hands over the connections that are open now.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn take_open<E>(&mut self, mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        self.engine.put_open(&mut self.rows);
        self.hand_over(&mut each)
    }

    /// Nothing more comes. Hands over what was held back, but for what filters hold back: that does not match.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn finish<E>(&mut self, mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        self.engine.finish(&mut self.rows);
        self.filters.iter_mut().for_each(Filter::finish);
        self.hand_over(&mut each)
    }

    fn hand_over<E>(&mut self, each: &mut impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        for filter in &mut self.filters {
            for row in self.rows.drain(..) {
                filter.push(row, &self.origin.context.names, &mut self.passed);
            }
            std::mem::swap(&mut self.rows, &mut self.passed);
        }
        let given = self.rows.iter().try_for_each(|row| each(row, &self.origin));
        self.rows.clear();
        given
    }

    /// The engine, to ask what it wants.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What rows leave open.
    pub fn context(&self) -> &Context {
        &self.origin.context
    }

    /// Events that were taken in.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What the engine has done.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Transitions and rows that were kept out by filters, in the kernel and here.
    pub fn filtered_out(&self) -> u64 {
        self.losses.filtered + self.filters.iter().map(Filter::filtered_out).sum::<u64>()
    }

    /// What is missing, by cause.
    pub fn lost(&self) -> Vec<Lost> {
        let dropped = self.filters.iter().map(Filter::dropped).sum();
        let (damaged, at_least) = self.damaged;
        let stats = self.stats();
        let theirs = self.losses.by_cause().map(|(cause, count)| (cause.words(), count, false));
        let ours = [
            (Cause::Damage.words(), damaged, at_least),
            (Cause::Evicted.words(), stats.evicted, false),
            (Cause::Unreported.words(), stats.unreported, false),
            (UNACCOUNTED, self.unaccounted, false),
            ("rows held back too long for the filter", dropped, false),
        ];
        let all = theirs.chain(ours).filter(|(_, events, at_least)| *events > 0 || *at_least);
        all.map(|(cause, events, at_least)| Lost { cause: cause.into(), events, at_least }).collect()
    }
}
