//! `record`: from the kernel into a trace.

mod child;
mod memory;
mod names;
mod progress;
mod recorder;
mod unanswered;
mod unowned;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use clap::error::ErrorKind;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::time::Instant;

use self::child::Running;
use self::memory::Memory;
use super::audit::{Audited, refuse_filters};
use super::run::{Stop, handler, reached, runtime};
use super::select::{FilterArgs, ProbeArgs, bytes, duration, refuse_foreign_pids, warn_of_missing_groups};
use super::source::Source;
use super::{Outcome, say};
use crate::existing::Namespaces;
use crate::trace::{Plan, Store};

pub(super) use self::recorder::{Recorder, Target};

/// Arguments of `record`.
#[derive(Args, Debug)]
pub(super) struct RecordArgs {
    /// The trace to write, readable for its owner only; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Stop after this time (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Begin a new file after so many bytes or so much time (100M, 1h). The files are numbered: FILE.0001, or before the
    /// extension; each is complete in itself
    #[arg(long, value_name = "SIZE|TIME", value_parser = rotate)]
    rotate: Option<Rotate>,
    /// Keep so many files at most, and remove the oldest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    max_files: Option<u32>,
    /// Keep so much at most (500M, 2G): with --rotate the oldest files are removed, with --last the oldest part is
    /// forgotten, else recording ends
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_size: Option<u64>,
    /// Keep only what has happened in this time (5m), in memory, and write it on Ctrl-C, and on SIGUSR1 while recording goes
    /// on: FILE first, then numbered as with --rotate, from 2. 256M of memory at most, or --max-size
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "rotate")]
    last: Option<Duration>,
    /// In the end, compare what was seen with what the kernel has counted in every network namespace; the trace says it, too
    #[arg(long)]
    audit: bool,
    /// Leave out the kernel's counters, which are recorded once a second where they have changed
    #[arg(long)]
    no_facts: bool,
    #[command(flatten)]
    probe: ProbeArgs,
    /// Run this command, and record until it ends. Its exit status is passed on, but for 0 where events were lost; 126 or
    /// 127 if it cannot be run. Asked to end, it has 5 seconds for that
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// When to begin a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotate {
    Bytes(u64),
    Ns(u64),
}

fn rotate(text: &str) -> Result<Rotate> {
    match (bytes(text), duration(text)) {
        // A bare letter `M` counts bytes, `m` counts minutes.
        (Ok(bytes), _) => Ok(Rotate::Bytes(bytes)),
        (Err(_), Ok(time)) if !time.is_zero() => Ok(Rotate::Ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))),
        _ => anyhow::bail!("'{text}' is neither a size such as 100M nor a time such as 1h"),
    }
}

pub(super) fn run(args: &RecordArgs) -> Result<Outcome> {
    if let Err(error) = child::look_for(&args.command) {
        say(&error);
        return Ok(Outcome::Of(error.status));
    }
    let namespaces = Namespaces::find();
    let criteria = args.filter.criteria(&namespaces)?;
    if args.audit {
        refuse_filters(&criteria);
    }
    refuse_foreign_pids(&criteria)?;
    warn_of_missing_groups(&criteria, true);
    let options = args.probe.options(criteria.kernel());
    // Whatever is wrong with the file is said before anything is attached.
    let target = args.target()?;
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut dump = handler(SignalKind::user_defined1())?;
        let mut source = Source::attach(&options, !args.probe.no_existing, true, true, !args.no_facts)?;
        let recorder = Recorder::new(target, source.head()?, criteria.clone())?;
        let mut recorder = Audited::new(recorder, args.audit, &source, &criteria)?;
        source.begin(&namespaces, &mut recorder)?;
        recorder.settle_down(&mut source).await?;
        let mut child = match Running::start(&args.command, args.is_to_stdout()) {
            Ok(child) => child,
            Err(error) => {
                say(&error);
                return Ok(Outcome::Of(error.status));
            }
        };
        source.say_ready();
        recorder.sink.show_progress();
        let end = args.duration.map(|duration| Instant::now() + duration);
        let mut status = None;
        loop {
            match source.follow(&mut recorder, next(&mut stop, &mut dump, child.as_mut(), end)).await? {
                Some(Next::Dump) => {
                    source.take_in(&mut recorder)?;
                    recorder.sink.dump()?;
                }
                Some(Next::Ended(ended)) => {
                    status = Some(ended?);
                    break;
                }
                Some(Next::Stop) | None => break,
            }
        }
        let mut recorder = recorder.finish(&mut source).await?;
        recorder.audit_lines().iter().for_each(|line| say(format_args!("audit: {line}")));
        let is_written = write_all(&mut recorder, &mut stop).await;
        let outcome = if is_written { recorder.finish() } else { Outcome::Failed };
        // All that may be recorded is recorded, and the command goes on.
        if let (Some(child), None) = (&mut child, &status) {
            status = Some(child.ended(&mut stop, end).await?);
        }
        Ok(match status.map(child::exit_code) {
            None | Some(0) => outcome,
            Some(code) => Outcome::Of(code),
        })
    })
}

impl RecordArgs {
    fn target(&self) -> Result<Target> {
        const MOST_IN_MEMORY: u64 = 256 << 20;
        let plan = Plan {
            path: self.output.clone(),
            force: self.force,
            numbered: self.rotate.is_some(),
            most_files: self.max_files.and_then(|files| usize::try_from(files).ok()),
            most_bytes: self.max_size.filter(|_| self.rotate.is_some()),
        };
        if let Some(last) = self.last {
            self.refuse_stdout("--last");
            return Ok(Target::Memory(Memory::new(plan, last, self.max_size.unwrap_or(MOST_IN_MEMORY))?));
        }
        if self.rotate.is_some() {
            self.refuse_stdout("--rotate");
        }
        let store = if self.is_to_stdout() { Store::stdout()? } else { Store::create(&plan)? };
        let most_bytes = self.max_size.filter(|_| self.rotate.is_none());
        Ok(Target::Files { store, rotate: self.rotate, most_bytes })
    }

    fn is_to_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }

    fn refuse_stdout(&self, option: &str) {
        if self.is_to_stdout() {
            let message = format!("{option} writes files, and -o - is standard output\n");
            clap::Error::raw(ErrorKind::ArgumentConflict, message).exit()
        }
    }
}

/// Has everything written, and tries again as long as that cannot be and nobody asks to end. `false` if it was not.
async fn write_all(recorder: &mut Recorder, stop: &mut Stop) -> bool {
    const AGAIN: Duration = Duration::from_secs(1);
    let mut is_said = false;
    while let Err(error) = recorder.write_all() {
        if !std::mem::replace(&mut is_said, true) {
            say(format_args!("{error:#}; tried again every second until it can be written, or until a second signal"));
        }
        tokio::select! {
            () = stop.asked() => {
                say(format_args!("nothing was written: {error:#}"));
                return false;
            }
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    true
}

/// What makes the recording do something else.
enum Next {
    Stop,
    Dump,
    Ended(Result<ExitStatus>),
}

async fn next(stop: &mut Stop, dump: &mut Signal, child: Option<&mut Running>, end: Option<Instant>) -> Next {
    match child {
        Some(child) => tokio::select! {
            ended = child.ended(stop, end) => Next::Ended(ended),
            _ = dump.recv() => Next::Dump,
        },
        None => tokio::select! {
            () = stop.asked() => Next::Stop,
            () = reached(end) => Next::Stop,
            _ = dump.recv() => Next::Dump,
        },
    }
}
