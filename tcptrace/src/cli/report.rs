//! `report`: what happened, from traces.

use std::io;

use anyhow::{Context, Result};
use clap::Args;
use jiff::tz::TimeZone;

use super::Outcome;
use super::replay::summarise;
use super::select::OutputArgs;
use super::study::TraceArgs;
use crate::lifecycle::{Config, Row};
use crate::output::{self, TextOptions};
use crate::report::{Analysis, By, Options};

/// Arguments of `report`.
#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    trace: TraceArgs,
    /// What the tables group by [default: process; in JSON and CSV: each of them]
    #[arg(long, value_enum)]
    by: Option<By>,
    /// How many rows a table has; what is left is summed up in one more
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &ReportArgs) -> Result<Outcome> {
    let mut analysis = Analysis::new(Options { by: args.by, top: args.top });
    let config = Config { transitions: false, connections: true, ..Config::default() };
    let summary = args.trace.read(config, true, &mut |row, origin| {
        if let Row::Connection(connection) = row {
            analysis.add(connection, origin);
        }
        Ok(())
    })?;
    let report = analysis.finish(&summary);
    let text = TextOptions { colour: args.output.colour(), states: false, zone: TimeZone::system() };
    let out = io::BufWriter::new(io::stdout().lock());
    output::report(out, args.output.format, &text, &report).context("cannot write the report")?;
    Ok(summarise(&summary))
}
