//! `record`: from the kernel into a trace.

mod memory;
mod recorder;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind};
use tokio::time::Instant;

use self::memory::Memory;
use super::audit::{Audited, refuse_filters};
use super::run::{Stop, handler, reached, runtime};
use super::select::{FilterArgs, ProbeArgs, bytes, duration};
use super::source::Source;
use super::{Outcome, say};
use crate::existing::Namespaces;
use crate::trace::{Plan, Store};

pub(super) use self::recorder::{Recorder, Target};

/// Arguments of `record`.
#[derive(Args, Debug)]
pub(super) struct RecordArgs {
    /// The trace to write; it is made readable for its owner only
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
    /// Run this command, and record until it ends; its exit status is passed on
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
    const MOST_IN_MEMORY: u64 = 256 << 20;
    let namespaces = Namespaces::find();
    let criteria = args.filter.criteria(&namespaces)?;
    if args.audit {
        refuse_filters(&criteria);
    }
    let options = args.probe.options(criteria.kernel());
    let plan = Plan {
        path: args.output.clone(),
        force: args.force,
        numbered: args.rotate.is_some(),
        most_files: args.max_files.and_then(|files| usize::try_from(files).ok()),
        most_bytes: args.max_size.filter(|_| args.rotate.is_some()),
    };
    // Whatever is wrong with the file is said before anything is attached.
    let target = match args.last {
        Some(last) => Target::Memory(Memory::new(plan, last, args.max_size.unwrap_or(MOST_IN_MEMORY))?),
        None => Target::Files {
            store: Store::create(&plan)?,
            rotate: args.rotate,
            most_bytes: args.max_size.filter(|_| args.rotate.is_none()),
        },
    };
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut dump = handler(SignalKind::user_defined1())?;
        let mut source = Source::attach(&options, !args.probe.no_existing, true, !args.no_facts)?;
        let recorder = Recorder::new(target, source.head()?, criteria.clone())?;
        let mut recorder = Audited::new(recorder, args.audit, &source, &criteria)?;
        source.begin(&namespaces, &mut recorder)?;
        recorder.settle_down(&mut source).await?;
        let mut child = start(&args.command)?;
        say("ready");
        recorder.sink.show_progress();
        let end = args.duration.map(|duration| Instant::now() + duration);
        let mut status = None;
        loop {
            match source.follow(&mut recorder, next(&mut stop, &mut dump, &mut child, end)).await? {
                Some(Next::Dump) => {
                    source.take_in(&mut recorder)?;
                    recorder.sink.dump()?;
                }
                Some(Next::Ended(ended)) => {
                    status = Some(ended);
                    break;
                }
                Some(Next::Stop) | None => break,
            }
        }
        let recorder = recorder.finish(&mut source).await?;
        recorder.audit_lines().iter().for_each(|line| say(format_args!("audit: {line}")));
        let outcome = recorder.finish()?;
        if let (Some(child), None) = (&mut child, &status) {
            status = Some(child.wait().await);
        }
        let status = status.transpose().context("cannot wait for the command")?;
        Ok(status.map_or(outcome, |status| Outcome::Of(exit_code(status))))
    })
}

/// What makes the recording do something else.
enum Next {
    Stop,
    Dump,
    Ended(io::Result<ExitStatus>),
}

async fn next(stop: &mut Stop, dump: &mut Signal, child: &mut Option<Child>, end: Option<Instant>) -> Next {
    match child {
        Some(child) => loop {
            let pid = child.id();
            tokio::select! {
                ended = child.wait() => return Next::Ended(ended),
                () = stop.terminated() => forward(pid),
                () = reached(end) => { forward(pid); return Next::Ended(child.wait().await) }
                _ = dump.recv() => return Next::Dump,
            }
        },
        None => tokio::select! {
            () = stop.asked() => Next::Stop,
            () = reached(end) => Next::Stop,
            _ = dump.recv() => Next::Dump,
        },
    }
}

fn forward(pid: Option<u32>) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended just now.
        let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGTERM);
    }
}

fn start(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, args)) = command.split_first() else { return Ok(None) };
    let spawned = Command::new(program).args(args).spawn();
    spawned.map(Some).with_context(|| format!("cannot run '{}'", program.to_string_lossy()))
}

/// As shells pass it on.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
