//! Evidence from traces: each recording is a host of its own.

use std::collections::BTreeMap;

use anyhow::Result;

use super::DiagnoseArgs;
use super::live::rows;
use crate::cli::progress::Progress;
use crate::cli::replay::summarise;
use crate::kernel::Sandbox;
use crate::model::row::{Connection, Row};
use crate::model::stream::{Item, Origin, Summary};
use crate::replay::{Audience, Span};
use crate::study::diagnose::{Case, Gatherer, Selection};

pub(super) fn cases(args: &DiagnoseArgs) -> Result<(Vec<Case>, Summary)> {
    let trace = &args.trace;
    // Names of network namespaces are looked up before.
    let opened = if trace.is_filtered() { trace.open_to_reread()? } else { trace.open()? };
    let traces = opened.confined(Sandbox::default());
    let criteria = traces.criteria()?;
    let mut hosts = Hosts { wanted: args.wanted(), ..Hosts::default() };
    let summary = traces.of_everybody().tell(rows(), true, Progress::new, &mut hosts)?;
    summarise(&summary);
    Ok((hosts.into_cases(|_| true).into_iter().map(|case| case.only_about(&criteria)).collect(), summary))
}

/// Gathers the evidence of each recording, and diagnoses it when it is over.
#[derive(Default)]
pub(in crate::cli) struct Hosts {
    wanted: Selection,
    span: Span,
    /// See [`Gatherer::ends_late`].
    ends_late: bool,
    /// By the number of the recording.
    running: Vec<Option<Host>>,
    cases: BTreeMap<usize, Case>,
}

struct Host {
    gatherer: Gatherer,
    open: Vec<Connection>,
}

impl Host {
    // Once for a recording: its large frame is not for each row.
    #[cold]
    #[inline(never)]
    fn new(span: Span, ends_late: bool, origin: &Origin) -> Self {
        let mut gatherer = Gatherer::new(true);
        gatherer.sees_unreleased();
        if ends_late {
            gatherer.ends_late();
        }
        if span.from != Span::default().from {
            let since = span.from.saturating_sub(origin.context.clock.boot_to_unix_ns);
            gatherer.count_from(u64::try_from(since).unwrap_or(0));
        }
        Self { gatherer, open: Vec::new() }
    }
}

impl Hosts {
    /// For an engine that puts connections out when they have truly ended, after their TIME_WAIT.
    pub(in crate::cli) fn ending_late() -> Self {
        Self { ends_late: true, ..Self::default() }
    }

    /// The diagnoses of the recordings that are wanted, in their order.
    pub(in crate::cli) fn into_cases(self, wanted: impl Fn(usize) -> bool) -> Vec<Case> {
        self.cases.into_iter().filter(|(recording, _)| wanted(*recording)).map(|(_, case)| case).collect()
    }

    fn of(&mut self, origin: &Origin) -> &mut Host {
        let (span, ends_late) = (self.span, self.ends_late);
        if self.running.len() <= origin.number {
            self.running.resize_with(origin.number + 1, || None);
        }
        self.running[origin.number].get_or_insert_with(|| Host::new(span, ends_late, origin))
    }
}

impl Audience<anyhow::Error> for Hosts {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        let host = self.of(origin);
        match row {
            Row::Connection(it) if it.is_open() || it.is_unreleased() => host.open.push(it.clone()),
            _ => host.gatherer.row(row),
        }
        Ok(())
    }

    fn takes_items(&self) -> bool {
        true
    }

    fn takes_all(&self) -> bool {
        true
    }

    fn item(&mut self, item: &Item, origin: &Origin) {
        self.of(origin).gatherer.item(item);
    }

    fn begins(&mut self, span: Span) {
        self.span = span;
    }

    fn ends(&mut self, origin: &Origin) {
        if let Some(Host { gatherer, open }) = self.running.get_mut(origin.number).and_then(Option::take) {
            let evidence = gatherer.finish(open, true);
            self.cases.insert(origin.number, Case::new(&evidence, &self.wanted, origin.context.clone()));
        }
    }
}
