//! `report`: what happened in traces.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jiff::tz::TimeZone;

use super::replay::summarise;
use super::select::OutputArgs;
use super::study::TraceArgs;
use super::{Outcome, interrupted, stdout};
use crate::engine::lifecycle::Config;
use crate::model::row::Row;
use crate::output::export::Draft;
use crate::output::{self, TextOptions};
use crate::study::report::{Analysis, By, Options};

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
    #[command(flatten)]
    output: OutputArgs,
}

impl ReportArgs {
    /// Whether it goes to standard output.
    pub(super) fn prints(&self) -> bool {
        self.html.is_none()
    }
}

pub(super) fn run(args: &ReportArgs) -> Result<Outcome> {
    if !args.prints() {
        interrupted::remove_drafts()?;
    }
    // Create the page first: an error with its path should not come after a long read.
    let page = args.html.as_deref().map(|path| Draft::begin_at(path, args.force)).transpose()?;
    let mut analysis = Analysis::new(Options { by: args.by, top: args.top });
    let config = Config { transitions: false, connections: true, ..Config::default() };
    let summary = args.trace.read(config, true, &mut |row, origin| {
        match row {
            Row::Connection(connection) => analysis.add(connection, origin),
            Row::Counter(increase) => analysis.add_counter(increase, origin),
            _ => {}
        }
        Ok(())
    })?;
    let report = analysis.finish(&summary);
    if let Some((draft, file)) = page {
        let written = output::page(io::BufWriter::new(file), &TimeZone::system(), &report);
        written.with_context(|| format!("cannot write {draft}"))?;
        draft.publish(args.force)?;
        return Ok(summarise(&summary));
    }
    let (width, height) = stdout::terminal().unzip();
    let (colour, full) = (args.output.colour(), args.full);
    let text = TextOptions { colour, zone: TimeZone::system(), width, height, full, ..TextOptions::default() };
    let out = io::BufWriter::new(io::stdout().lock());
    output::report(out, args.output.format, &text, &report).context("cannot write the report")?;
    Ok(summarise(&summary))
}
