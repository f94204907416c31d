//! `report`: what happened in traces.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jiff::tz::TimeZone;

use super::diagnose::traces::Hosts;
use super::interrupted::{self, HeldBack};
use super::progress::Progress;
use super::replay::summarise;
use super::select::ColourArgs;
use super::study::TraceArgs;
use super::{Outcome, stdout};
use crate::engine::lifecycle::Config;
use crate::kernel::Sandbox;
use crate::model::criteria::Criteria;
use crate::model::fired::Fired;
use crate::model::row::Row;
use crate::model::stream::{Item, Origin};
use crate::output::export::{Draft, folder};
use crate::output::{self, ReportFormat, TextOptions};
use crate::replay::{Audience, Span};
use crate::study::diagnose::Case;
use crate::study::report::{Analysis, By, FiredRow, Options, Report};

/// Arguments of `report`.
#[derive(Args, Debug)]
#[command(mut_arg("until", |time| time.alias("to")))]
pub(super) struct ReportArgs {
    #[command(flatten)]
    trace: TraceArgs,
    /// Print every table, not only the first screen (text only; other formats always include all)
    #[arg(long)]
    full: bool,
    /// Property that tables group by [default: process; JSON and CSV: all of them]
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Rows per table; one more row sums up the others
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Write an HTML page to this file instead of printing. The page is self-contained and has no scripts
    #[arg(long, value_name = "OUT.html", conflicts_with = "format")]
    html: Option<PathBuf>,
    /// Replace the HTML file if it exists
    #[arg(long, requires = "html")]
    force: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    #[command(flatten)]
    colours: ColourArgs,
}

impl ReportArgs {
    /// Whether it goes to standard output.
    pub(super) fn prints(&self) -> bool {
        self.html.is_none()
    }
}

pub(super) fn run(args: &ReportArgs) -> Result<Outcome> {
    // An error with the path of the page should not come after waiting for a trace.
    args.html.as_deref().map(|path| Draft::expect_place(path, args.force)).transpose()?;
    let opened = args.trace.open()?;
    let signals = if args.prints() { None } else { Some(interrupted::hold_back()?) };
    // Create the page first: an error with its path should not come after a long read.
    let page = args.html.as_deref().map(|path| Draft::begin_at(path, args.force)).transpose()?;
    let sandbox = args.html.as_deref().map_or_else(Sandbox::default, |path| Sandbox::default().naming_in(folder(path)));
    let traces = opened.confined(sandbox);
    signals.map(HeldBack::remove_drafts).transpose()?;
    let mut analysis = Analysis::new(Options { by: args.by, top: args.top });
    // What filters leave out would be missing in the evidence.
    let (summary, cases, fired) = if args.trace.is_filtered() {
        let config = Config { transitions: false, connections: true, ..Config::default() };
        let summary = traces.read(config, true, &mut |row, origin| {
            analyse(&mut analysis, row, origin);
            Ok(())
        })?;
        (summary, Vec::new(), Vec::new())
    } else {
        let config = Config { transitions: true, connections: true, unreleased: true, ..Config::default() };
        let mut diagnosed = Diagnosed::new(&mut analysis);
        let summary = traces.tell(config, true, Progress::new, &mut diagnosed)?;
        let fired = std::mem::take(&mut diagnosed.fired);
        (summary, diagnosed.into_cases(), fired)
    };
    let report = Report { cases, fired, ..analysis.finish(&summary) };
    if let Some((draft, file)) = page {
        let written = output::page(io::BufWriter::new(file), &TimeZone::system(), &report);
        written.with_context(|| format!("cannot write {draft}"))?;
        draft.publish(args.force)?;
        return Ok(summarise(&summary));
    }
    let (width, height) = stdout::terminal().unzip();
    let (colour, full) = (args.colours.colour(), args.full);
    let text = TextOptions { colour, zone: TimeZone::system(), width, height, full, ..TextOptions::default() };
    let out = io::BufWriter::new(io::stdout().lock());
    output::report(out, args.format, &text, &report).context("cannot write the report")?;
    Ok(summarise(&summary))
}

fn analyse(analysis: &mut Analysis, row: &Row, origin: &Origin) {
    match row {
        Row::Connection(connection) => analysis.add(connection, origin),
        Row::Counter(increase) => analysis.add_counter(increase, origin),
        _ => {}
    }
}

/// An analysis, with a diagnosis beside it.
struct Diagnosed<'a> {
    analysis: &'a mut Analysis,
    hosts: Hosts,
    /// Recordings that were to show a part only: so do their rows.
    partial: BTreeSet<usize>,
    /// Why the traces were written.
    fired: Vec<FiredRow>,
}

impl<'a> Diagnosed<'a> {
    fn new(analysis: &'a mut Analysis) -> Self {
        Self { analysis, hosts: Hosts::ending_late(), partial: BTreeSet::new(), fired: Vec::new() }
    }

    fn into_cases(self) -> Vec<Case> {
        let Self { hosts, partial, .. } = self;
        hosts.into_cases(|recording| !partial.contains(&recording))
    }
}

impl Audience<anyhow::Error> for Diagnosed<'_> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        // Only the diagnosis looks at connections that are over while their descriptor is open.
        if !matches!(row, Row::Connection(connection) if connection.is_unreleased()) {
            analyse(self.analysis, row, origin);
        }
        self.hosts.row(row, origin)
    }

    fn takes_items(&self) -> bool {
        true
    }

    fn item(&mut self, item: &Item, origin: &Origin) {
        if let Item::Head(head) = item
            && head.filter != Criteria::default()
        {
            self.partial.insert(origin.number);
        }
        if let Item::Fired(fired) = item {
            let unix_ns = origin.context.clock.unix_ns(fired.at);
            let row = FiredRow { unix_ns, host: origin.host.clone(), fired: Fired::clone(fired) };
            // The first block of a file and its last one say the same.
            let is_same = |other: &FiredRow| (&other.host, &other.fired) == (&row.host, &row.fired);
            if !self.fired.iter().any(is_same) {
                self.fired.push(row);
            }
        }
        self.hosts.item(item, origin);
    }

    fn begins(&mut self, span: Span) {
        self.hosts.begins(span);
    }

    fn ends(&mut self, origin: &Origin) {
        self.hosts.ends(origin);
    }
}
