//! A long recording: memory, descriptors, threads, BPF maps and CPU time stay as they are, and every transition is reported
//! or counted as lost. Meanwhile connections come in bursts, processes and network namespaces come and go, files are
//! rotated, the ring buffer is small, and memory is short.

mod limit;
pub(crate) mod load;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use self::limit::Limit;
use super::books::Books;
use super::process::{Ended, Open, Process};
use super::{Ground, Verdict, names, words};
use crate::bench::{bpf, proc};
use crate::hidden::{self, Hidden};
use crate::stress::load::{Load, Made};
use crate::workspace;

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long it takes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    minutes: u64,
    /// Connections a second, besides those of the bursts
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = clap::value_parser!(u32).range(10..))]
    rate: u32,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// Connections a second.
const RATE: u32 = 1000;
/// Memory beyond what the recorder has at first: the pages of its files do not fit in.
const SPARE: u64 = 16 << 20;

/// How much a heap may grow beyond a tenth: blocks that wait while the disk is slow, and tables that double.
const SPARE_HEAP: u64 = 4 << 20;

/// How long, and how hard.
struct Plan {
    seconds: u64,
    rate: u32,
    /// Connections of a burst, and seconds between bursts.
    burst: (u32, u64),
    time_waits: u32,
    /// Interval of measurements.
    every: Duration,
    /// What is compared begins after this time, when the number of TIME_WAITs no longer grows.
    settled: Duration,
    rotate: &'static str,
    /// Print each measurement.
    prints: bool,
}

impl Plan {
    fn long(minutes: u64, rate: u32, prints: bool) -> Self {
        Self {
            seconds: 60 * minutes,
            rate,
            burst: (10 * rate, 30),
            time_waits: 262_144,
            every: Duration::from_secs(10),
            settled: Duration::from_secs(75),
            rotate: "20s",
            prints,
        }
    }

    /// Takes less than a minute. There are fewer TIME_WAITs, so that their number does not grow for long.
    fn short() -> Self {
        Self {
            seconds: 40,
            rate: 500,
            burst: (5_000, 10),
            time_waits: 2_000,
            every: Duration::from_secs(2),
            settled: Duration::from_secs(14),
            rotate: "5s",
            prints: false,
        }
    }
}

/// What a process has, and has used.
#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    /// Resident memory in bytes, and the part that is heap and stacks.
    rss: u64,
    own: u64,
    open: Open,
    /// BPF maps, and entries of those that can grow.
    maps: [u64; 2],
    cpu: Duration,
}

impl Sample {
    fn of(process: &Process, at: Duration) -> Result<Self> {
        let open = process.open()?;
        let (cpu, memory) = (proc::cpu(process.pid())?, proc::memory(process.pid())?);
        let maps = bpf::maps_and_entries(process.pid())?;
        let cpu = cpu.user + cpu.system;
        Ok(Self { at, rss: memory.rss, own: memory.own, open, maps, cpu })
    }

    /// As cells of a table.
    fn cells(&self, before: Option<&Self>) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (begin, used) = before.map_or((Duration::ZERO, Duration::ZERO), |before| (before.at, before.cpu));
        let cpu = 100.0 * (self.cpu - used).as_secs_f64() / (self.at - begin).as_secs_f64();
        let Self { open: Open { descriptors, links, threads }, maps: [maps, entries], .. } = self;
        format!(
            "{:.1} | {:.1} | {descriptors} | {links} | {threads} | {maps} | {entries} | {cpu:.1}",
            mib(self.rss),
            mib(self.own)
        )
    }
}

/// `cargo xtask soak`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tcptrace = super::prepare(args.tcptrace.clone())?;
    let folder = workspace::target().join("soak");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let ground = Ground { tcptrace, folder: folder.clone(), is_short: false, seed: 0, minutes: args.minutes };
    let mut verdict = Verdict::default();
    follow(&ground, &Plan::long(args.minutes, args.rate, true), &mut verdict)?;
    println!("\n{}\n{}", verdict.measured.join("\n"), verdict.words());
    if !verdict.complaints.is_empty() {
        bail!("promises broken; {} has the traces", folder.display());
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// The scenario of `cargo xtask attack`.
pub(super) fn soak(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let plan = ground.either(Plan::short(), Plan::long(ground.minutes, RATE, false));
    follow(ground, &plan, verdict)
}

/// The tracers, each with its measurements.
struct Tracers {
    recorder: Process,
    watch: Process,
    limit: Option<Limit>,
    samples: [Vec<Sample>; 2],
}

fn follow(ground: &Ground, plan: &Plan, verdict: &mut Verdict) -> Result<()> {
    let mut load = start(plan)?;
    let mut tracers = Tracers::start(ground, plan, &load)?;
    let mut hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    tracers.measure(plan, hidden.as_mut())?;
    let made = load.wait()?;
    let Tracers { recorder, watch, limit, samples } = tracers;
    let (ended, watched) = (recorder.end(Signal::SIGINT)?, watch.end(Signal::SIGINT)?);
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    for (whose, samples) in ["record", "watch"].iter().zip(&samples) {
        must_not_drift(whose, samples, plan, verdict)?;
    }
    match &limit {
        Some(limit) => verdict.note(format!("memory was short {} times", limit.reached()?)),
        None => verdict.note("memory was not limited: there is no such control group"),
    }
    must_be_told(ground, &ended, &watched, &made, hidden, verdict)
}

fn start(plan: &Plan) -> Result<Load> {
    let Plan { seconds, rate, burst: (burst, every), time_waits, .. } = plan;
    let arguments = [
        format!("--seconds={seconds}"),
        format!("--rate={rate}"),
        format!("--burst={burst}"),
        format!("--every={every}"),
        format!("--time-waits={time_waits}"),
    ];
    Load::start_as("soak-load", &arguments)
}

impl Tracers {
    fn start(ground: &Ground, plan: &Plan, load: &Load) -> Result<Self> {
        let options = ["--rotate", plan.rotate, "--ring-size", "256K"];
        let recorder = Process::ready(&mut ground.record(load, "t.tct", &options), &ground.folder.join("t.err"))?;
        let limit = Limit::for_process(recorder.pid())?;
        if let Some(limit) = &limit {
            limit.set(limit.now()? + SPARE)?;
        }
        // In every network namespace, those that come and go included.
        let mut watch = ground.tcptrace(&["watch", "--no-existing"]);
        watch.args(load.ports.iter().flat_map(|port| ["--port".to_owned(), port.to_string()])).stdout(Stdio::null());
        let watch = Process::ready(&mut watch, &ground.folder.join("w.err"))?;
        Ok(Self { recorder, watch, limit, samples: [Vec::new(), Vec::new()] })
    }

    /// Measures until the load is about to end.
    fn measure(&mut self, plan: &Plan, mut hidden: Option<&mut Hidden>) -> Result<()> {
        if plan.prints {
            let whose = |name: &str| {
                let what = ["RSS MiB", "heap MiB", "fds", "links", "threads", "BPF maps", "entries", "CPU %"];
                what.map(|what| format!("{name}: {what}")).join(" | ")
            };
            println!("| s | {} | {} | memory short |\n|{}", whose("record"), whose("watch"), " ---: |".repeat(18));
        }
        let begun = Instant::now();
        let mut next = plan.every;
        while next < Duration::from_secs(plan.seconds) {
            sleep(next.saturating_sub(begun.elapsed()));
            if let Some(hidden) = &mut hidden {
                hidden.look_for_threads()?;
            }
            let at = begun.elapsed();
            let mut cells = Vec::new();
            for (samples, process) in self.samples.iter_mut().zip([&self.recorder, &self.watch]) {
                let sample = Sample::of(process, at)?;
                cells.push(sample.cells(samples.last()));
                samples.push(sample);
            }
            if plan.prints {
                let reached = self.limit.as_ref().map(Limit::reached).transpose()?.unwrap_or(0);
                println!("| {} | {} | {reached} |", at.as_secs(), cells.join(" | "));
            }
            next = at + plan.every;
        }
        Ok(())
    }
}

/// Checks that recorded and lost events add up, in both tracers.
fn must_be_told(
    ground: &Ground,
    ended: &Ended,
    watched: &Ended,
    made: &Made,
    hidden: u64,
    verdict: &mut Verdict,
) -> Result<()> {
    let files = names::files(&ground.folder, "t.")?;
    let books = Books::open(ground, &files, Some(ended))?.with_hidden(hidden);
    books.must_agree(verdict);
    books.must_be_true(made.connections, verdict);
    let seen = words::closing(&watched.said).context("watch has no closing line")?;
    verdict.must(seen.events + seen.lost + hidden >= made.connections * 10, || {
        format!(
            "watch has seen {} transitions and lost {}, of {} connections",
            seen.events, seen.lost, made.connections
        )
    });
    verdict.note(format!(
        "{} connections, {} files, {}; {hidden} transitions hidden from every program",
        made.connections,
        files.len(),
        books.summary()
    ));
    Ok(())
}

/// What must not grow, how it is read, and by how much it may differ.
type Kind = (&'static str, fn(&Sample) -> u64, u64);

/// Compares the last third with the first third. Of what is open, the least counts in each: the sockets and files of a
/// question to the kernel are open for a moment, a file is closed while the next one is open, and a helper's threads come
/// and go.
fn must_not_drift(whose: &str, samples: &[Sample], plan: &Plan, verdict: &mut Verdict) -> Result<()> {
    let settled: Vec<_> = samples.iter().filter(|sample| sample.at > plan.settled).collect();
    let third = settled.len() / 3;
    anyhow::ensure!(third >= 2, "a soak of more minutes is needed");
    let (first, last) = (&settled[..third], &settled[settled.len() - third..]);
    let [before, after] = [first, last].map(|samples| samples.iter().map(|sample| sample.own).max().unwrap_or(0));
    verdict.must(after <= before + before / 10 + SPARE_HEAP, || {
        format!("{whose}: {} KiB of memory become {} KiB", before >> 10, after >> 10)
    });
    let kinds: [Kind; 5] = [
        ("descriptors", |sample| (sample.open.descriptors - sample.open.links) as u64, 0),
        // Once a program was interrupted by an event that it would have seen, its stand-in is attached for good. Two have
        // one, and they come together.
        ("links of BPF programs", |sample| sample.open.links as u64, 2),
        ("threads", |sample| sample.open.threads as u64, 0),
        ("BPF maps", |sample| sample.maps[0], 0),
        ("entries of BPF maps", |sample| sample.maps[1], 64),
    ];
    for (what, of, spare) in kinds {
        let [before, after] = [first, last].map(|samples| samples.iter().map(|sample| of(sample)).min().unwrap_or(0));
        verdict.must(after <= before + spare, || format!("{whose}: {before} {what} become {after}"));
    }
    let [cpu_before, cpu_after] = [first, last].map(|samples| {
        let (begin, end) = (samples[0], samples[samples.len() - 1]);
        (end.cpu - begin.cpu).as_secs_f64() / (end.at - begin.at).as_secs_f64()
    });
    // How much a burst takes depends on the machine, and a short soak has few of them.
    verdict.must(third < 10 || cpu_after <= 1.5 * cpu_before + 0.01, || {
        format!("{whose}: {:.1} % of a CPU become {:.1} %", 100.0 * cpu_before, 100.0 * cpu_after)
    });
    verdict.note(format!(
        "{whose}: {:.1} → {:.1} MiB of heap, {:.1} → {:.1} % of a CPU",
        before as f64 / f64::from(1 << 20),
        after as f64 / f64::from(1 << 20),
        100.0 * cpu_before,
        100.0 * cpu_after
    ));
    Ok(())
}
