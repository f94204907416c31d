//! `cargo xtask bench`: compares tcptrace's cost with no tool and with other tools, and checks that tcptrace loses
//! nothing silently.
//!
//! Every round runs every subject once, beginning with another subject each time. A machine that slows down or speeds
//! up affects all of them alike.

mod analysis;
mod armed;
mod attached;
pub(crate) mod bpf;
mod bystanders;
mod completeness;
mod cpu;
pub(crate) mod generator;
pub(crate) mod holder;
mod hooks;
mod kernel;
mod latency;
mod load;
mod machine;
mod memory;
mod once;
mod pairs;
mod polling;
pub(crate) mod proc;
mod rate;
mod running;
mod screen;
mod snapshot;
mod start;
mod stats;
mod steady;
mod subject;
mod table;
mod terminal;
mod transition;
pub(crate) mod worker;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Map, Value, json};

use crate::{command, host, workspace};
use machine::Machine;
use table::{Findings, wrapped};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    /// How often each subject is measured for rates; `armed` measures four times at most
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections per measurement of a rate
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=generator::MAX_CONNECTIONS))]
    connections: u32,
    /// How often each subject is measured where pairs with and without it are compared
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Measure everything once and briefly, with a debug build and without other tools: shows that it works, not how
    /// well
    #[arg(long, conflicts_with_all = ["rounds", "connections", "pairs"])]
    quick: bool,
    /// Also write every measurement to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

impl Args {
    fn parts(&self) -> &[Part] {
        if self.only.is_empty() { Part::value_variants() } else { &self.only }
    }
}

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Whether every event was reported or counted as lost
    Completeness,
    /// The rate of connections that is kept with one and with two saturated cores
    Rate,
    /// What a transition costs, all in, with one saturated core
    Transition,
    /// The same with two saturated cores
    TransitionTwo,
    /// What each hook costs alone
    Hooks,
    /// What tracing costs programs that open and close nothing
    Bystanders,
    /// The cost of the programs in the kernel
    Kernel,
    /// CPU time in userspace
    Cpu,
    /// Memory with few and with many connections
    Memory,
    /// Time from an event to its row on the screen
    Latency,
    /// Time from the start to the first event
    Start,
    /// Time to take a snapshot of many sockets
    Snapshot,
    /// The live screen: its cost beyond `connections`, its redraws, and how soon it answers
    Screen,
    /// What a flight recorder costs that waits for a condition
    Armed,
    /// Time to study a long trace
    Analysis,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Completeness => "completeness",
            Self::Rate => "rate",
            Self::Transition => "transition",
            Self::TransitionTwo => "transition-two",
            Self::Hooks => "hooks",
            Self::Bystanders => "bystanders",
            Self::Kernel => "kernel",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::Start => "start",
            Self::Snapshot => "snapshot",
            Self::Screen => "screen",
            Self::Armed => "armed",
            Self::Analysis => "analysis",
        }
    }

    fn needs_root(self) -> bool {
        self != Self::Analysis
    }

    fn measure(self, bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
        match self {
            Self::Completeness => completeness::measure(bench, findings),
            Self::Rate => rate::measure(bench, findings, skipped),
            Self::Transition => transition::measure(bench, findings, skipped),
            Self::TransitionTwo => transition::measure_two(bench, findings, skipped),
            Self::Hooks => hooks::measure(bench, findings),
            Self::Bystanders => bystanders::measure(bench, findings, skipped),
            Self::Kernel => kernel::measure(bench, findings),
            Self::Cpu => cpu::measure(bench, findings),
            Self::Memory => memory::measure(bench, findings),
            Self::Latency => latency::measure(bench, findings),
            Self::Start => start::measure(bench, findings, skipped),
            Self::Snapshot => snapshot::measure(bench, findings, skipped),
            Self::Screen => screen::measure(bench, findings),
            Self::Armed => armed::measure(bench, findings),
            Self::Analysis => analysis::measure(bench, findings),
        }
    }
}

/// What every part needs.
struct Bench {
    tcptrace: PathBuf,
    /// The program that writes synthetic traces.
    synthesise: PathBuf,
    /// A folder for temporary files.
    folder: PathBuf,
    rounds: u32,
    connections: u32,
    pairs: u32,
    quick: bool,
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        // Named by process id: another run may be going on.
        let folder = workspace::target().join(format!("bench.{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut bench = Self {
            tcptrace: PathBuf::new(),
            synthesise: PathBuf::new(),
            folder,
            rounds: if args.quick { 1 } else { args.rounds },
            connections: if args.quick { 2_000 } else { args.connections },
            pairs: if args.quick { 2 } else { args.pairs },
            quick: args.quick,
        };
        bench.build(args.tcptrace.as_deref(), args.parts().contains(&Part::Analysis))?;
        Ok(bench)
    }

    /// Builds the programs that were not given.
    fn build(&mut self, given: Option<&Path>, traces: bool) -> Result<()> {
        let (program, example) = (["--bin", "tcptrace"], ["--example", "synthesise"]);
        let built = match (given, traces) {
            (None, false) => build(self.quick, &program)?,
            // Both in one command: Cargo builds a package alone with other features of its dependencies.
            (None, true) => build(self.quick, &[program, example].concat())?,
            (Some(_), true) => build(self.quick, &example)?,
            (Some(_), false) => PathBuf::new(),
        };
        self.tcptrace = match given {
            Some(given) => given.canonicalize().with_context(|| format!("cannot find {}", given.display()))?,
            None => built.join("tcptrace"),
        };
        self.synthesise = built.join("examples/synthesise");
        Ok(())
    }

    /// How often to measure something that a full run measures this often.
    fn times(&self, rounds: u32) -> u32 {
        if self.quick { 1 } else { rounds }
    }

    /// The size of a load that a full run makes this large.
    fn times_of(&self, count: u32) -> u32 {
        if self.quick { count / 10 } else { count }
    }

    /// Prints progress.
    fn tell(&self, what: fmt::Arguments<'_>) {
        eprintln!("{what}");
    }
}

/// Builds parts of tcptrace, in the tests' profile or in release mode, and returns their folder.
pub(crate) fn build(debug: bool, targets: &[&str]) -> Result<PathBuf> {
    let packages: &[&str] = match debug {
        // The tests' profile, so that Cargo need not build it again.
        true => &["--workspace", "--exclude", workspace::EBPF_PACKAGE],
        false => &["--release", "--package", "tcptrace"],
    };
    command::run(command::cargo().args(["build", "--locked"]).args(packages).args(targets))?;
    Ok(workspace::target().join(if debug { "debug" } else { "release" }))
}

/// The results.
#[derive(Default)]
struct Report {
    tables: Vec<table::Table>,
    json: Map<String, Value>,
    skipped: Vec<String>,
    faults: Vec<String>,
}

/// Measures and prints the tables.
///
/// # Errors
///
/// When something cannot be measured, or when tcptrace missed an event and did not count it. Never because of a figure.
pub(crate) fn run(args: &Args) -> Result<()> {
    // Before the build, which loads the machine too.
    let machine = Machine::look();
    let bench = Bench::new(args)?;
    let report = measure(&bench, args);
    fs::remove_dir_all(&bench.folder).with_context(|| format!("cannot remove {}", bench.folder.display()))?;
    print!("{}", markdown(&report, &machine, &bench));
    if let Some(path) = &args.json {
        let json = json!({
            "machine": machine.json(),
            "quick": bench.quick,
            "parts": report.json,
            "skipped": report.skipped,
            "faults": report.faults,
        });
        fs::write(path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !report.faults.is_empty() {
        bail!("{}", report.faults.join("; "));
    }
    Ok(())
}

fn measure(bench: &Bench, args: &Args) -> Report {
    let mut report = Report::default();
    let is_root = host::is_root();
    let (parts, others): (Vec<Part>, Vec<Part>) = args.parts().iter().partition(|part| is_root || !part.needs_root());
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|part| part.name()).collect();
        report.skipped.push(format!("parts that need root ({})", names.join(", ")));
    }
    if bench.quick {
        report.skipped.push("other tools, in a quick run".to_owned());
    }
    if parts.iter().any(|part| part.needs_root())
        && let Err(error) = mount_tracefs()
    {
        report.skipped.push(format!("other tools may fail: tracefs cannot be mounted: {error:#}"));
    }
    let mut skipped = Vec::new();
    for part in parts {
        let mut findings = Findings::default();
        if let Err(error) = part.measure(bench, &mut findings, &mut skipped) {
            findings.faults.push(format!("{} cannot be measured: {error:#}", part.name()));
        }
        report.tables.extend(findings.tables);
        report.json.insert(part.name().to_owned(), findings.json);
        report.faults.extend(findings.faults);
    }
    // Several parts name the same missing tools.
    for reason in skipped {
        if !report.skipped.contains(&reason) {
            report.skipped.push(reason);
        }
    }
    report
}

fn markdown(report: &Report, machine: &Machine, bench: &Bench) -> String {
    let mut texts = vec![wrapped(&machine.caption(), 120) + "\n"];
    if bench.quick {
        texts.push(
            "A quick run of a debug build: it shows that everything works, but its figures mean nothing.\n".to_owned(),
        );
    }
    texts.extend(report.tables.iter().map(table::Table::markdown));
    if !report.skipped.is_empty() {
        texts.push(wrapped(&format!("Not measured: {}.", report.skipped.join("; ")), 120) + "\n");
    }
    texts.join("\n")
}

/// Mounts tracefs if it is missing, for this process and its children only. tcptrace itself does not need it.
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
