//! `cargo xtask stress`: disturbs the tracer, and checks that it loses nothing silently.
//!
//! Every scenario makes connections in a network namespace of its own, and counts them. It compares that count with the
//! kernel's counters, and those with the events that tcptrace saw and lost. The amount lost never fails a scenario,
//! because it depends on the machine; an uncounted loss does.

pub(crate) mod load;
mod scenario;
mod tracer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{bench, host, workspace};
use scenario::Scenario;

/// Options of `cargo xtask stress`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each scenario makes connections
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Run only scenarios with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// The outcome of a scenario.
pub(crate) struct Outcome {
    /// Connections, by the load's count.
    connections: u64,
    /// Connections a second.
    rate: f64,
    /// Events that happened, by the load's count.
    truth: u64,
    /// Events that tcptrace saw.
    seen: u64,
    /// Losses in the tracer's words.
    lost: String,
    /// Errors; empty if every event is accounted for.
    complaints: Vec<String>,
}

/// Runs every scenario, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("tracing the live kernel needs root: run `cargo xtask stress` as root");
    }
    let tcptrace = args
        .tcptrace
        .clone()
        .map_or_else(|| Ok(bench::build(false, &["--bin", "tcptrace"])?.join("tcptrace")), Ok::<_, anyhow::Error>)?;
    bench::mount_tracefs().context("cannot mount tracefs, which the basic mode and bpftrace need")?;
    let folder = workspace::target().join("stress");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    println!("| | connections (a second) | truth | seen | lost | |\n| --- | ---: | ---: | ---: | --- | --- |");
    let mut failed = 0;
    for scenario in Scenario::all(Duration::from_secs(args.seconds)) {
        if !scenario.name.contains(&args.only) {
            continue;
        }
        if let Some(lack) = scenario.lacks() {
            println!("| {} | – | – | – | – | skipped: {lack} |", scenario.name);
            continue;
        }
        let outcome =
            scenario.run(&tcptrace, &folder).with_context(|| format!("cannot run the scenario `{}`", scenario.name))?;
        let verdict =
            if outcome.complaints.is_empty() { "all accounted for".into() } else { outcome.complaints.join("; ") };
        failed += usize::from(!outcome.complaints.is_empty());
        let Outcome { connections, rate, truth, seen, lost, .. } = outcome;
        println!("| {} | {connections} ({rate:.0}) | {truth} | {seen} | {lost} | {verdict} |", scenario.name);
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    if failed > 0 {
        bail!("{failed} scenarios lost events silently");
    }
    Ok(())
}
