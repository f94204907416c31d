//! From trace files to rows: what `replay`, `report`, `timeline` and `export` share.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use nix::libc;

use super::progress::Progress;
use super::select::{FilterArgs, duration};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::kernel::{Namespaces, Sandbox, drop_privileges};
use crate::live::Source;
use crate::model::criteria::Criteria;
use crate::model::row::Row;
use crate::model::stream::{Item, Origin, Summary};
use crate::model::tcp::Tuple;
use crate::replay::{Audience, Inputs, Recordings, Span};

/// Traces to read, and which part of them.
#[derive(Args, Clone, Debug)]
pub(super) struct TraceArgs {
    /// Traces to read; several are merged by time. `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Skip everything before this time: 2026-01-31T03:00:00Z, local time as '2026-01-31 03:00' or 03:00, or time since
    /// the start of the trace (90s, 5m)
    #[arg(long, alias = "from", value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Skip everything after this time, in the formats of --since
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Keep the privileges that tcptrace otherwise gives up
    #[arg(long)]
    no_sandbox: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A moment of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Local(DateTime),
    /// The first time in the trace when a clock shows this.
    Clock(Time),
    After(Duration),
}

pub(super) fn when(text: &str) -> Result<When> {
    // Durations may contain colons, too; here a colon means a time of day.
    if let (Ok(after), false) = (duration(text), text.contains(':')) {
        return Ok(When::After(after));
    }
    let time = || text.parse().map(When::Clock);
    // The parser of a time of day accepts the others as well, so it comes last.
    let local = || text.parse().map(When::Local);
    let at = || text.parse().map(When::At);
    let expected =
        || format!("'{text}' is neither a time such as 2026-01-31T03:00:00Z or 03:00 nor a duration such as 90s or 5m");
    at().or_else(|_| local()).or_else(|_| time()).with_context(expected)
}

impl When {
    /// In ns of Unix time, for a trace that starts at `begins`.
    pub(super) fn unix_ns(self, begins: i64, zone: &TimeZone) -> Result<i64> {
        let timestamp = match self {
            Self::After(after) => return Ok(begins.saturating_add(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX))),
            Self::At(timestamp) => timestamp,
            Self::Local(local) => local.to_zoned(zone.clone())?.timestamp(),
            Self::Clock(time) => {
                let begins: Zoned = Timestamp::from_nanosecond(begins.into())?.to_zoned(zone.clone());
                let same_day = begins.date().to_datetime(time).to_zoned(zone.clone())?;
                let first = if same_day < begins { same_day.tomorrow()?.with().time(time).build()? } else { same_day };
                first.timestamp()
            }
        };
        i64::try_from(timestamp.as_nanosecond()).context("the time is out of range")
    }
}

impl TraceArgs {
    /// Whether nothing is left out, except what comes after `--until`.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.since.is_none() && self.filter == FilterArgs::default()
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether something is asked of rows.
    pub(super) fn is_filtered(&self) -> bool {
        self.filter != FilterArgs::default()
    }

    /// What is asked of rows.
    pub(super) fn filter(&self) -> &FilterArgs {
        &self.filter
    }

    /// Whether a trace comes from standard input, so that rows may be wanted before it ends.
    pub(super) fn is_stream(&self) -> bool {
        self.files.iter().any(|file| is_stdin(file))
    }

    /// Gives up what is not needed any more once a source of the live kernel is attached, and leaves to a helper what takes
    /// privileges. Call this before any thread starts.
    ///
    /// # Errors
    /// When there can be no helper.
    pub(super) fn confine(&self, source: &mut Source, sandbox: Sandbox, namespaces: &Namespaces) -> Result<()> {
        if self.no_sandbox {
            return Ok(());
        }
        source.confine(sandbox, namespaces).context("cannot give up privileges")
    }

    /// Gives up what one look at the kernel does not need. Call this before any thread starts.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn limit(&self) -> Result<()> {
        if self.no_sandbox { Ok(()) } else { drop_privileges(None).context("cannot give up privileges") }
    }

    /// Opens the files, to read them once.
    ///
    /// # Errors
    /// When none of them can be opened.
    pub(super) fn open(&self) -> Result<Opened> {
        self.opened(Inputs::open(&self.files))
    }

    /// The same, to read them several times: standard input is copied to a temporary file first. The file has no name,
    /// and is gone once it is dropped.
    pub(super) fn open_to_reread(&self) -> Result<Opened> {
        let mut inputs = Inputs::default();
        for file in &self.files {
            if is_stdin(file) { inputs.add_copy(file, copy_of_stdin()?) } else { inputs.add(file) }
        }
        self.opened(inputs)
    }

    fn opened(&self, inputs: Inputs) -> Result<Opened> {
        inputs.expect_any()?;
        Ok(Opened(Traces { args: self.clone(), inputs }))
    }
}

fn copy_of_stdin() -> Result<File> {
    let folder = std::env::temp_dir();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&folder);
    let mut file = file.with_context(|| format!("cannot create a temporary file in '{}'", folder.display()))?;
    io::copy(&mut io::stdin().lock(), &mut file).context("cannot copy standard input to a temporary file")?;
    Ok(file)
}

/// Traces that are open. They can be read once the process has given up what it does not need for that.
pub(super) struct Opened(Traces);

impl Opened {
    /// From now on, the process is in the sandbox. Call this before any thread starts: only threads that start later are
    /// in it, too.
    pub(super) fn confined(self, sandbox: Sandbox) -> Traces {
        if !self.0.args.no_sandbox {
            sandbox.enter();
        }
        self.0
    }
}

/// Traces to read.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    args: TraceArgs,
    inputs: Inputs,
}

impl Traces {
    fn recordings(&self) -> Result<Recordings> {
        Ok(Recordings::of_inputs(&self.inputs)?)
    }

    /// The same traces and times, without what is asked of rows.
    pub(super) fn of_everybody(&self) -> Self {
        let args = TraceArgs { filter: FilterArgs::default(), ..self.args.clone() };
        Self { args, ..self.clone() }
    }

    /// The same traces without `--since` and filters.
    pub(super) fn unfiltered(&self) -> Self {
        let args = TraceArgs { since: None, ..self.args.clone() };
        Self { args, ..self.clone() }.of_everybody()
    }

    /// The network namespaces that the traces name.
    pub(super) fn namespaces(&self) -> Result<Namespaces> {
        Ok(Namespaces::recorded(self.recordings()?.namespaces()))
    }

    /// What is asked of rows, by the names that the traces know.
    pub(super) fn criteria(&self) -> Result<Criteria> {
        if self.args.is_filtered() { self.args.filter.criteria(&self.namespaces()?) } else { Ok(Criteria::default()) }
    }

    /// Passes each row that the live commands would have shown to `each`, ordered by time. With `open_too`, the
    /// connections that were still open when the trace ended follow ([`Status::Open`](crate::model::row::Status::Open)).
    pub(super) fn read(
        &self,
        config: Config,
        open_too: bool,
        each: &mut dyn FnMut(&Row, &Origin) -> Result<()>,
    ) -> Result<Summary> {
        self.tell(config, open_too, Progress::new, &mut |row: &Row, origin: &Origin| each(row, origin))
    }

    /// The same for the connections with these ids only, which is faster.
    pub(super) fn read_only(
        &self,
        ids: HashSet<u64>,
        config: Config,
        open_too: bool,
        each: &mut dyn FnMut(&Row, &Origin) -> Result<()>,
    ) -> Result<Summary> {
        let recordings = self.recordings()?.only(ids);
        let mut each = |row: &Row, origin: &Origin| each(row, origin);
        self.tell_of(recordings, config, open_too, Progress::new, &mut each)
    }

    /// The ids of all connections with one of these tuples.
    pub(super) fn ids_of(&self, tuples: &HashSet<Tuple>) -> Result<HashSet<u64>> {
        self.recordings()?.ids_of(tuples).context("cannot read the traces")
    }

    /// The same, for an audience that also follows the time, or prints while it reads.
    pub(super) fn tell(
        &self,
        config: Config,
        open_too: bool,
        progress: fn(u64) -> Progress,
        audience: &mut impl Audience<anyhow::Error>,
    ) -> Result<Summary> {
        self.tell_of(self.recordings()?, config, open_too, progress, audience)
    }

    fn tell_of(
        &self,
        recordings: Recordings,
        config: Config,
        open_too: bool,
        progress: fn(u64) -> Progress,
        audience: &mut impl Audience<anyhow::Error>,
    ) -> Result<Summary> {
        let namespaces = Namespaces::recorded(recordings.namespaces());
        let TraceArgs { since, until, filter, .. } = &self.args;
        let criteria = filter.criteria(&namespaces)?;
        let (begins, zone) = (recordings.starts(), TimeZone::system());
        let whole = Span::default();
        let since = since.map(|since| since.unix_ns(begins, &zone)).transpose()?;
        let until = until.map(|until| until.unix_ns(begins, &zone)).transpose()?;
        let span = Span { from: since.unwrap_or(whole.from), to: until.unwrap_or(whole.to) };
        let progress = progress(recordings.bytes());
        let mut summary = recordings.tell(config, &criteria, span, open_too, &mut Watched { audience, progress })?;
        for (name, unix_ns) in summary.cut_off.drain(..) {
            let time = Timestamp::from_nanosecond(unix_ns.into())?.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f");
            summary.damage.push(format!("{name}: the recording ended abruptly after {time}").into());
        }
        Ok(summary)
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// An audience with a progress bar.
struct Watched<'a, A> {
    audience: &'a mut A,
    progress: Progress,
}

impl<A: Audience<anyhow::Error>> Audience<anyhow::Error> for Watched<'_, A> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.audience.row(row, origin)
    }

    fn time(&mut self, unix_ns: i64) -> Result<()> {
        self.audience.time(unix_ns)
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.advanced_to(bytes);
        self.audience.progress(bytes);
    }

    fn takes_items(&self) -> bool {
        self.audience.takes_items()
    }

    fn takes_all(&self) -> bool {
        self.audience.takes_all()
    }

    fn item(&mut self, item: &Item, origin: &Origin) {
        self.audience.item(item, origin);
    }

    fn begins(&mut self, span: Span) {
        self.audience.begins(span);
    }

    fn looked(&mut self, follower: &mut Follower) {
        self.audience.looked(follower);
    }

    fn ends(&mut self, origin: &Origin) {
        self.audience.ends(origin);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::after("90s", "2026-11-21T02:31:30Z")]
    #[case::at("2026-11-21T03:00:00Z", "2026-11-21T03:00:00Z")]
    #[case::at_with_an_offset("2026-11-21T03:00:00+01:00", "2026-11-21T02:00:00Z")]
    #[case::local("2026-11-21 05:00", "2026-11-21T03:00:00Z")]
    #[case::clock_of_the_same_day("05:00", "2026-11-21T03:00:00Z")]
    #[case::clock_of_the_next_day("03:00:01", "2026-11-22T01:00:01Z")]
    fn moments(#[case] text: &str, #[case] expected: Timestamp) {
        let begins: Timestamp = "2026-11-21T02:30:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let begins = i64::try_from(begins.as_nanosecond()).expect("it fits");
        let ns = when(text).expect("a time").unix_ns(begins, &zone).expect("it is in range");
        assert_eq!(Timestamp::from_nanosecond(ns.into()).expect("a time"), expected);
    }

    #[rstest]
    #[case("yesterday")]
    #[case("")]
    #[case("25:00")]
    #[case("-5s")]
    fn no_moments(#[case] text: &str) {
        assert!(when(text).is_err());
    }
}
