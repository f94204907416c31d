//! `export`: converts traces for other programs.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};

use super::interrupted::{self, HeldBack};
use super::outlet::Outlet;
use super::progress::Progress;
use super::replay::summarise;
use super::select::RowKind;
use super::study::TraceArgs;
use super::{Outcome, say};
use crate::engine::lifecycle::Config;
use crate::kernel::Sandbox;
use crate::model::row::Row;
#[cfg(feature = "parquet")]
use crate::model::row::{Connection, Transition};
use crate::model::stream::{Origin, Summary};
#[cfg(feature = "parquet")]
use crate::output::export::Dataset;
use crate::output::export::{Draft, Exported, Exporter, Folder, Perfetto, folder};
use crate::output::{Format, Printed, Printer, TextOptions};

/// Arguments of `export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Format to convert to
    #[arg(long, alias = "to", value_enum, value_name = "FORMAT")]
    format: Target,
    /// File to write, readable by its owner only [default: standard output]. For parquet, the directory of the data set
    /// to add files to
    #[arg(short, long, value_name = "OUT", required_if_eq("format", "parquet"))]
    output: Option<PathBuf>,
    /// Rows to write
    #[arg(long, value_enum, value_name = "ROWS", default_value_t = RowKind::Connections)]
    rows: RowKind,
    /// Leave out connections that were still open when a trace ended. By default, they come last, as rows with the
    /// event `open`
    #[arg(long)]
    ended: bool,
    /// Older spelling of the default.
    #[arg(long, hide = true)]
    open: bool,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Formats to export to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// One JSON object a line, as --format json prints
    Jsonl,
    /// Comma-separated values with a header, as --format csv prints
    Csv,
    /// Directory of Parquet files, partitioned by kind of rows, date and host
    Parquet,
    /// JSON for ui.perfetto.dev: each connection with its states on a time axis
    Perfetto,
}

impl ExportArgs {
    /// Whether it goes to standard output.
    pub(super) fn prints(&self) -> bool {
        self.output.is_none()
    }

    /// An error with the path of the output should not come after waiting for a trace.
    fn expect_place(&self) -> Result<()> {
        match &self.output {
            Some(_) if self.format == Target::Parquet && cfg!(not(feature = "parquet")) => Ok(()),
            Some(data_set) if self.format == Target::Parquet => Folder::make(data_set).map(drop),
            Some(file) => Draft::expect_place(file, self.force),
            None => Ok(()),
        }
    }

    /// What is left while traces are read.
    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::default();
        match &self.output {
            Some(data_set) if self.format == Target::Parquet => sandbox.writing_below(data_set),
            Some(file) => sandbox.naming_in(folder(file)),
            None => sandbox,
        }
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<Outcome> {
    if (args.format, args.rows) == (Target::Perfetto, RowKind::Transitions) {
        let message = "--format perfetto draws connections with their transitions: leave out --rows transitions\n";
        clap::Error::raw(ErrorKind::ArgumentConflict, message).exit()
    }
    args.expect_place()?;
    let opened = args.trace.open()?;
    let signals = if args.prints() { None } else { Some(interrupted::hold_back()?) };
    let mut exporter = exporter(args)?;
    let traces = opened.confined(args.sandbox());
    signals.map(HeldBack::remove_drafts).transpose()?;
    let connections = args.rows == RowKind::Connections;
    let config = Config { transitions: !connections, connections, ..Config::default() };
    let open_too = connections && !args.ended;
    let progress = if args.output.is_some() { Progress::new } else { Progress::beside_output };
    let mut each = |row: &Row, origin: &Origin| exporter.row(row, origin);
    let summary = traces.tell(config, open_too, progress, &mut each)?;
    let exported = exporter.finish(&summary)?;
    report(args, exported);
    Ok(summarise(&summary))
}

fn exporter(args: &ExportArgs) -> Result<Box<dyn Exporter>> {
    let out = args.output.as_deref();
    Ok(match (args.format, args.rows) {
        (Target::Perfetto, _) => {
            let (draft, out) = open(out, args.force)?;
            Box::new(Published { exporter: Perfetto::new(out), draft, replace: args.force })
        }
        (Target::Jsonl, rows) => printed(Format::Json, rows, out, args.force)?,
        (Target::Csv, rows) => printed(Format::Csv, rows, out, args.force)?,
        (Target::Parquet, rows) => {
            let out = out.context("--format parquet needs --output")?;
            data_set(rows, out, args.force)?
        }
    })
}

#[cfg(feature = "parquet")]
fn data_set(rows: RowKind, out: &Path, replace: bool) -> Result<Box<dyn Exporter>> {
    Ok(match rows {
        RowKind::Connections => Box::new(Dataset::<Connection>::new(out, replace)?),
        RowKind::Transitions => Box::new(Dataset::<Transition>::new(out, replace)?),
    })
}

#[cfg(not(feature = "parquet"))]
fn data_set(_: RowKind, _: &Path, _: bool) -> Result<Box<dyn Exporter>> {
    left_out().exit()
}

/// What is said where Parquet was left out of the build.
#[cfg(any(test, not(feature = "parquet")))]
fn left_out() -> clap::Error {
    let message = "this tcptrace was built without its feature `parquet`, which --format parquet needs: \
                   `cargo build --release` builds it with all default features\n";
    clap::Error::raw(ErrorKind::InvalidValue, message)
}

/// Rows as `replay` prints them.
fn printed(format: Format, rows: RowKind, out: Option<&Path>, replace: bool) -> Result<Box<dyn Exporter>> {
    let (draft, out) = open(out, replace)?;
    let text = TextOptions::default();
    let mut printer = format.printer(out, text);
    printer.header(rows.kind())?;
    Ok(Box::new(Published { exporter: Lines { printer, rows: 0 }, draft, replace }))
}

fn open(out: Option<&Path>, replace: bool) -> Result<(Option<Draft>, Box<dyn Write>)> {
    let Some(path) = out else { return Ok((None, Box::new(Outlet::default()))) };
    let (draft, file) = Draft::begin_at(path, replace)?;
    Ok((Some(draft), Box::new(BufWriter::with_capacity(1 << 18, file))))
}

/// Exports to standard output, or to a file that gets its name at the end.
struct Published<E> {
    exporter: E,
    draft: Option<Draft>,
    replace: bool,
}

impl<E: Exporter> Exporter for Published<E> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.exporter.row(row, origin)
    }

    fn finish(&mut self, summary: &Summary) -> Result<Exported> {
        let exported = self.exporter.finish(summary)?;
        let Some(draft) = self.draft.take() else { return Ok(exported) };
        draft.publish(self.replace)?;
        Ok(Exported { files: 1, ..exported })
    }
}

/// Exports rows through a printer.
struct Lines {
    printer: Box<dyn Printer>,
    rows: u64,
}

impl Exporter for Lines {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        // CSV leaves out rows that it has no columns for. The closing line reports losses.
        self.rows += u64::from(self.printer.row(row, &origin.context)? == Printed::Yes);
        Ok(())
    }

    fn finish(&mut self, _: &Summary) -> Result<Exported> {
        self.printer.flush()?;
        Ok(Exported { rows: self.rows, ..Exported::default() })
    }
}

fn report(args: &ExportArgs, exported: Exported) {
    let plural = |number: u64, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    if args.output.is_some() {
        say(format_args!("{} in {}", plural(exported.rows, "row"), plural(exported.files, "file")));
    }
    if exported.too_large > 0 {
        say(format_args!("{} too large for Parquet, written as null", plural(exported.too_large, "number")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_parquet_names_the_feature() {
        let error = left_out();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("without its feature `parquet`"), "{error}");
    }
}
