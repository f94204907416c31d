//! `replay`: what `watch` and `connections` would have printed, from a trace.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use jiff::tz::TimeZone;

use super::outlet::Outlet;
use super::progress::Progress;
use super::select::{ConnectionRows, EngineArgs, OutputArgs};
use super::study::TraceArgs;
use super::view::{print, say_audit, undecided};
use super::{Outcome, say};
use crate::model::finding::Finding;
use crate::model::names::Names;
use crate::model::row::Row;
use crate::model::stream::Origin;
use crate::output::{Format, Kind, Printer, TextOptions, lost};
use crate::replay::Audience;

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Print what `connections` would have printed, instead of `watch`
    #[arg(long)]
    connections: bool,
    #[command(flatten)]
    rows: ConnectionRows,
    /// Print it when it happened: 1 as fast as it did, 10 ten times as fast; all at once otherwise
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

fn speed(text: &str) -> Result<f64> {
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| anyhow!("'{text}' is not a factor such as 1 or 0.5"))
}

pub(super) fn run(args: &ReplayArgs) -> Result<Outcome> {
    let kind = if args.connections { Kind::Connection } else { Kind::Transition };
    let text = TextOptions { colour: args.output.colour(), states: args.rows.states, zone: TimeZone::system() };
    let format = args.output.format;
    let mut screen = Screen {
        printer: format.printer(Outlet::default(), text),
        format,
        is_live: args.trace.is_stream(),
        failure: None,
        speed: args.speed,
        begun: None,
        findings: Vec::new(),
        names: Names::default(),
    };
    screen.printer.header(kind)?;
    let summary =
        args.trace.tell(args.engine.config(kind, args.rows.at_close), false, Progress::beside_output, &mut screen)?;
    screen.check()?;
    screen.printer.flush()?;
    say_audit(&screen.findings, &screen.names);
    Ok(summarise(&summary))
}

/// Says what there was in the traces.
pub(super) fn summarise(summary: &crate::model::stream::Summary) -> Outcome {
    for place in &summary.damage {
        say(place);
    }
    let undecided = undecided(summary.undecided, "row");
    let missing = lost(&summary.lost);
    say(format_args!("{} events read, {} transitions, {missing}{undecided}", summary.events, summary.transitions));
    if summary.lost.is_empty() && summary.damage.is_empty() { Outcome::Done } else { Outcome::Lost }
}

/// Rows on standard output, in their time.
struct Screen {
    printer: Box<dyn Printer>,
    format: Format,
    /// Somebody may wait for rows while no more is read.
    is_live: bool,
    /// Why what was to be printed meanwhile was not.
    failure: Option<io::Error>,
    speed: Option<f64>,
    /// When it began, here and there.
    begun: Option<(Instant, i64)>,
    /// What audits found, and names for it.
    findings: Vec<Finding>,
    names: Names,
}

impl Screen {
    fn check(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Audience<anyhow::Error> for Screen {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.check()?;
        if let Row::Audit(finding) = row {
            self.findings.push(*finding);
            self.names = origin.context.names.clone();
        }
        Ok(print(&mut *self.printer, self.format, row, origin)?)
    }

    fn progress(&mut self, _bytes: u64) {
        if self.is_live {
            self.failure = self.failure.take().or(self.printer.flush().err());
        }
    }

    fn time(&mut self, unix_ns: i64) -> Result<()> {
        let Some(speed) = self.speed else { return Ok(()) };
        let (here, there) = *self.begun.get_or_insert_with(|| (Instant::now(), unix_ns));
        let passed = Duration::from_nanos(u64::try_from(unix_ns.saturating_sub(there)).unwrap_or(0));
        let due = Duration::try_from_secs_f64(passed.as_secs_f64() / speed).unwrap_or(Duration::MAX);
        let early = due.saturating_sub(here.elapsed());
        if !early.is_zero() {
            self.printer.flush()?;
            std::thread::sleep(early);
        }
        Ok(())
    }
}
