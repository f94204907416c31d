//! `replay`: what `watch` and `connections` would have printed, from a trace.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;

use super::outlet::Outlet;
use super::progress::Progress;
use super::rows::Rows;
use super::select::{ConnectionRows, EngineArgs, OutputArgs, RowKind};
use super::study::TraceArgs;
use super::view::undecided;
use super::{Outcome, say};
use crate::kernel::Sandbox;
use crate::model::row::Row;
use crate::model::stream::{Closing, Origin, Summary};
use crate::output::{Kind, lost};
use crate::replay::Audience;

/// Arguments of `replay`.
#[derive(Args, Debug)]
#[command(mut_arg("until", |time| time.alias("to")))]
pub(super) struct ReplayArgs {
    /// Rows to print
    #[arg(long = "rows", value_enum, value_name = "ROWS", default_value_t = RowKind::Transitions)]
    kind: RowKind,
    /// Older spelling of `--rows connections`.
    #[arg(long, hide = true, conflicts_with = "kind")]
    connections: bool,
    #[command(flatten)]
    rows: ConnectionRows,
    /// Print rows at the speed of the trace (1) or a multiple of it (0.5, 10), instead of all at once
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

pub(super) fn speed(text: &str) -> Result<f64> {
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| anyhow!("'{text}' is not a factor such as 1 or 0.5"))
}

pub(super) fn run(args: &ReplayArgs) -> Result<Outcome> {
    let kind = if args.connections { Kind::Connection } else { args.kind.kind() };
    let traces = args.trace.open()?.confined(Sandbox::default());
    let mut screen = Screen {
        rows: Rows::new(Outlet::default(), &args.output, kind, args.rows.states)?,
        is_live: args.trace.is_stream(),
        failure: None,
        speed: args.speed,
        begun: None,
    };
    let summary =
        traces.tell(args.engine.config(kind, args.rows.at_close), false, Progress::beside_output, &mut screen)?;
    screen.check()?;
    let closing = Closing { exit: Outcome::of(&summary).code(), summary };
    screen.rows.finish(&closing)?;
    Ok(summarise(&closing.summary))
}

/// Prints the closing lines of a command that reads traces.
pub(super) fn summarise(summary: &Summary) -> Outcome {
    for place in &summary.damage {
        say(place);
    }
    let undecided = undecided(summary.undecided, "row");
    let missing = lost(&summary.lost);
    say(format_args!("{} events read, {} transitions, {missing}{undecided}", summary.events, summary.transitions));
    Outcome::of(summary)
}

/// Prints rows, at the speed that is asked for.
struct Screen {
    rows: Rows,
    /// The trace comes from standard input, which may pause: rows must not wait in a buffer.
    is_live: bool,
    /// The first error of a flush.
    failure: Option<io::Error>,
    speed: Option<f64>,
    /// When the first row was printed, and its time in the trace.
    begun: Option<(Instant, i64)>,
}

impl Screen {
    fn check(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Audience<anyhow::Error> for Screen {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.check()?;
        Ok(self.rows.row(row, origin)?)
    }

    fn progress(&mut self, _bytes: u64) {
        if self.is_live {
            self.failure = self.failure.take().or(self.rows.flush().err());
        }
    }

    fn time(&mut self, unix_ns: i64) -> Result<()> {
        let Some(speed) = self.speed else { return Ok(()) };
        let (here, there) = *self.begun.get_or_insert_with(|| (Instant::now(), unix_ns));
        let passed = Duration::from_nanos(u64::try_from(unix_ns.saturating_sub(there)).unwrap_or(0));
        let due = Duration::try_from_secs_f64(passed.as_secs_f64() / speed).unwrap_or(Duration::MAX);
        let early = due.saturating_sub(here.elapsed());
        if !early.is_zero() {
            self.rows.flush()?;
            std::thread::sleep(early);
        }
        Ok(())
    }
}
