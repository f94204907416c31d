//! `cargo xtask stress`: nothing is missed in silence, whatever happens around the tracer.
//!
//! Every scenario makes connections in a network namespace of its own, counts them, and compares: what was made with what
//! the kernel counted, and that with what tcptrace saw and what it says it lost. How much is lost fails no scenario, that
//! depends on the machine; a loss that nobody counted does.

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
    /// How long connections are made in each scenario
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only scenarios with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// What a scenario came to.
pub(crate) struct Outcome {
    /// Connections made, by the count of who made them.
    connections: u64,
    /// And how many in a second.
    rate: f64,
    /// What there was to be seen, as whoever made it knows.
    truth: u64,
    /// What was seen of it.
    seen: u64,
    /// What was lost, in the tracer's words.
    lost: String,
    /// What is wrong; nothing, if all is accounted for.
    complaints: Vec<String>,
}

/// Runs every scenario, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("tracing the live kernel is for root: run `cargo xtask stress` as root");
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
        let verdict = if outcome.complaints.is_empty() { "all told".into() } else { outcome.complaints.join("; ") };
        failed += usize::from(!outcome.complaints.is_empty());
        let Outcome { connections, rate, truth, seen, lost, .. } = outcome;
        println!("| {} | {connections} ({rate:.0}) | {truth} | {seen} | {lost} | {verdict} |", scenario.name);
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    if failed > 0 {
        bail!("{failed} scenarios missed something in silence");
    }
    Ok(())
}
