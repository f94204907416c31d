//! `cargo xtask bench-trace`: how long it takes to study a long trace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::report::{median, sorted};
use super::snapshot::measure;
use crate::{command, host, workspace};

/// Transitions of one connection of a synthetic trace.
const TRANSITIONS: u32 = 11;

/// Options of `cargo xtask bench-trace`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each subject is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Transitions in the trace, about
    #[arg(long, default_value_t = 10_000_000)]
    transitions: u32,
    /// Measure this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// Makes the trace, measures and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tcptrace = args.tcptrace.clone().map_or_else(super::release_build, Ok)?;
    let path = workspace::target().join("bench.tct");
    let trace = path.to_str().context("the path of the workspace is no UTF-8")?;
    let connections = args.transitions / TRANSITIONS;
    let example = ["run", "--release", "--locked", "--package", "tcptrace", "--example", "synthesise", "--"];
    command::run(command::cargo().args(example).args([trace, &connections.to_string()]))?;
    let bytes = path.metadata().context("cannot stat the trace")?.len();
    // The client of a connection in the middle, as `synthesise` numbers them.
    let one = format!("{:x}", connections / 2 * 2 + 1);
    let subjects: [&[&str]; 5] = [
        &["report", trace],
        &["report", "--format", "json", trace],
        &["replay", "--connections", "--format", "json", trace],
        &["timeline", trace],
        &["timeline", "--conn", &one, trace],
    ];
    let mut samples = vec![Vec::new(); subjects.len()];
    for round in 1..=args.rounds {
        for (words, samples) in subjects.iter().zip(&mut samples) {
            let sample = measure(Command::new(&tcptrace).args(*words))?;
            eprintln!("round {round}/{}: {words:?}: {:.3} s", args.rounds, sample.seconds);
            samples.push(sample);
        }
    }
    std::fs::remove_file(&path).context("cannot remove the trace")?;
    println!("| | seconds, median (min–max) | CPU s, median | peak RSS |\n| --- | ---: | ---: | ---: |");
    for (words, taken) in subjects.iter().zip(&samples) {
        let seconds = sorted(taken.iter().map(|sample| sample.seconds));
        let cpu = median(&sorted(taken.iter().map(|sample| sample.cpu)));
        let rss = taken.iter().map(|sample| sample.peak_rss).max().unwrap_or(0).div_ceil(1 << 20);
        let (least, most) = (seconds.first().copied().unwrap_or(0.0), seconds.last().copied().unwrap_or(0.0));
        let words: Vec<_> = words.iter().filter(|word| **word != trace).copied().collect();
        println!(
            "| tcptrace {} | {:.2} ({least:.2}–{most:.2}) | {cpu:.2} | {rss} MiB |",
            words.join(" "),
            median(&seconds)
        );
    }
    println!(
        "\nLinux {}; a synthetic trace of {} transitions and {:.1} bytes for each; {} interleaved rounds, output to \
         /dev/null.",
        host::kernel_release(),
        connections * TRANSITIONS,
        bytes as f64 / f64::from(connections * TRANSITIONS),
        args.rounds,
    );
    Ok(())
}
