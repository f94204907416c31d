//! `cargo xtask bench`: what tcptrace costs, next to nothing at all and to other tools, all in one run.
//!
//! Every round runs every subject once, each under a fresh load, beginning with another subject each time, so that a
//! machine that slows down or speeds up does so for all of them.

pub(crate) mod generator;
mod measure;
mod report;
pub(crate) mod snapshot;
mod subject;
pub(crate) mod trace;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::{command, host, workspace};
use measure::Sample;
use subject::Subject;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each subject is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections in each measurement
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1..=generator::MAX_CONNECTIONS))]
    connections: u32,
    /// Also write every measurement to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// A subject with its samples, one a round.
struct Series {
    subject: Subject,
    samples: Vec<Sample>,
}

/// Measures and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("the benchmark traces the live kernel, which is for root: run `cargo xtask bench` as root");
    }
    let tcptrace = args.tcptrace.clone().map_or_else(release_build, Ok)?;
    mount_tracefs().context("cannot mount tracefs, which the other tools need")?;
    let subjects = subject::installed(&tcptrace);
    let series = measure_all(subjects, args)?;
    print!("{}", report::markdown(&series, args));
    if let Some(path) = &args.json {
        let json = report::json(&series, args);
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

pub(crate) fn release_build() -> Result<PathBuf> {
    command::run(command::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "tcptrace",
        "--bin",
        "tcptrace",
    ]))?;
    Ok(workspace::target().join("release/tcptrace"))
}

/// Mounts tracefs where it is missing, for this process and its children only. tcptrace does without.
pub(crate) fn mount_tracefs() -> Result<()> {
    let tracefs = Path::new("/sys/kernel/tracing");
    if tracefs.join("events").exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")?;
    mount(Some("tracefs"), tracefs, Some("tracefs"), MsFlags::empty(), none).context("cannot mount it")
}

fn measure_all(subjects: Vec<Subject>, args: &Args) -> Result<Vec<Series>> {
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut series: Vec<_> = subjects.into_iter().map(|subject| Series { subject, samples: Vec::new() }).collect();
    let count = series.len();
    for (round, first) in (1..=args.rounds).zip((0..count).cycle()) {
        for index in (first..count).chain(0..first) {
            let Series { subject, samples } = &mut series[index];
            let sample = measure::measure(subject, args.connections, &folder)
                .with_context(|| format!("cannot measure `{}`", subject.name))?;
            let rate = sample.load.rate();
            eprintln!("round {round}/{}: {}: {rate:.0} connections/s", args.rounds, subject.name);
            samples.push(sample);
        }
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(series)
}
