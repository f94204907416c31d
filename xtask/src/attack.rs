//! `cargo xtask attack`: attacks a recorder, and the readers of its traces, as hostile users and bad days do.
//!
//! A load makes connections in network namespaces of its own, and counts them. The recorder, its trace and every reader
//! must agree, and recorded and lost events must add up to the load's count. The amount lost never fails a scenario,
//! because it depends on the machine; an unreported loss does.
//!
//! All mounts are made in a mount namespace that ends with this process. Every process that it starts ends with it,
//! too.

mod books;
mod cleanup;
mod damage;
mod disks;
mod escapes;
mod forge;
pub(crate) mod groups;
mod kills;
mod mounts;
mod names;
mod neighbours;
pub(crate) mod process;
pub(crate) mod random;
mod reader;
mod signals;
pub(crate) mod soak;
pub(crate) mod words;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::stress::load::Load;
use crate::{bench, host, workspace};
use random::Random;

/// Options of `cargo xtask attack`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these groups of scenarios; by default all
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Take four minutes instead of half an hour, and check counts only, never times that depend on the machine
    #[arg(long)]
    short: bool,
    /// Repeat the random choices of another run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long the soak takes, except in the short form
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Run only scenarios with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// Groups of scenarios.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Group {
    /// Names that are long, many, deep, or made to deceive a terminal
    Names,
    /// Traces that were damaged or forged
    Damage,
    /// Recorders that are killed
    Kills,
    /// Disks that are full, stand still, or disappear
    Disks,
    /// Signals, dumps of the flight recorder, commands, pipes
    Signals,
    /// Other tracers, and readers that stop reading
    Neighbours,
    /// A long recording
    Soak,
}

/// One scenario.
struct Scenario {
    group: Group,
    name: &'static str,
    run: fn(&Ground, &mut Verdict) -> Result<()>,
}

const fn scenario(group: Group, name: &'static str, run: fn(&Ground, &mut Verdict) -> Result<()>) -> Scenario {
    Scenario { group, name, run }
}

const SCENARIOS: [Scenario; 33] = [
    scenario(Group::Names, "5,500 control groups with long names", names::many_groups),
    scenario(Group::Names, "a control group deeper than PATH_MAX", names::deep_group),
    scenario(Group::Names, "names made to deceive", names::hostile),
    scenario(Group::Damage, "traces damaged at random", damage::damaged),
    scenario(Group::Damage, "traces changed behind their checksums", damage::changed_inside),
    scenario(Group::Damage, "traces forged", damage::forged),
    scenario(Group::Kills, "recorders killed", kills::killed),
    scenario(Group::Disks, "disk of 20 KiB", disks::full_20k),
    scenario(Group::Disks, "disk of 64 KiB", disks::full_64k),
    scenario(Group::Disks, "disk of 1 MiB", disks::full_1m),
    scenario(Group::Disks, "disk of 64 KiB, rotated", disks::full_rotated),
    scenario(Group::Disks, "disk that fills and empties", disks::emptied_one),
    scenario(Group::Disks, "disk that fills and empties, rotated", disks::emptied_rotated),
    scenario(Group::Disks, "frozen disk", disks::frozen),
    scenario(Group::Disks, "ulimit -f", disks::file_limit),
    scenario(Group::Disks, "trace deleted", disks::deleted),
    scenario(Group::Disks, "folder removed", disks::folder_removed),
    scenario(Group::Disks, "rotation, next name taken", disks::name_taken),
    scenario(Group::Signals, "INT, TERM, HUP, QUIT", signals::in_order),
    scenario(Group::Signals, "HUP under nohup", signals::nohup),
    scenario(Group::Signals, "many dumps with 256 descriptors", signals::many_dumps),
    scenario(Group::Signals, "dump, name taken", signals::dump_name_taken),
    scenario(Group::Signals, "dump, folder gone", signals::dump_folder_gone),
    scenario(Group::Signals, "command that ignores TERM", signals::stubborn_command),
    scenario(Group::Signals, "status of a command", signals::command_status),
    scenario(Group::Signals, "record -o - | replay -", signals::piped),
    scenario(Group::Signals, "watch --record | head -1", signals::reader_gone),
    scenario(Group::Neighbours, "many tracers at once", neighbours::many),
    scenario(Group::Neighbours, "stopped, small ring buffer", neighbours::stopped),
    scenario(Group::Neighbours, "frozen control group", neighbours::frozen),
    scenario(Group::Neighbours, "nice 19 beside spinners", neighbours::nice),
    scenario(Group::Neighbours, "slow reader of its output", neighbours::slow_output),
    scenario(Group::Soak, "soak", soak::soak),
];

/// Where a scenario takes place.
pub(crate) struct Ground {
    tcptrace: PathBuf,
    /// An empty folder of its own.
    folder: PathBuf,
    is_short: bool,
    seed: u64,
    minutes: u64,
}

impl Ground {
    /// Chooses the first in the short form, the second in the full form.
    fn either<T>(&self, short: T, full: T) -> T {
        if self.is_short { short } else { full }
    }

    fn random(&self) -> Random {
        Random::new(self.seed)
    }

    fn tcptrace(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.tcptrace);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// A command that records all events of new sockets in the load's network namespace.
    fn record(&self, load: &Load, file: &str, options: &[&str]) -> Command {
        let mut command = self.tcptrace(&["record", "--no-existing", "-o", file]);
        command.arg("--netns").arg(load.netns.to_string()).args(options);
        command
    }

    /// A load that makes this many connections a second, or as many as it can.
    fn load(&self, seconds: f64, rate: Option<f64>) -> Result<Load> {
        let rate = rate.map(|rate| format!("--rate={rate}"));
        Load::start(&[Some(format!("--seconds={seconds}")), rate].into_iter().flatten().collect::<Vec<_>>())
    }
}

/// The outcome of a scenario.
#[derive(Default)]
pub(crate) struct Verdict {
    measured: Vec<String>,
    complaints: Vec<String>,
    skipped: Option<String>,
}

impl Verdict {
    fn must(&mut self, is_so: bool, complaint: impl FnOnce() -> String) {
        /// The first few complaints show what is wrong.
        const MOST: usize = 12;
        if !is_so {
            match self.complaints.len() {
                MOST => self.complaints.push("…".to_owned()),
                count if count < MOST => self.complaints.push(complaint()),
                _ => {}
            }
        }
    }

    fn note(&mut self, measured: impl Into<String>) {
        self.measured.push(measured.into());
    }

    fn skip(&mut self, lack: impl Into<String>) {
        self.skipped = Some(lack.into());
    }

    fn words(&self) -> String {
        match &self.skipped {
            Some(lack) => format!("skipped: {lack}"),
            None if self.complaints.is_empty() => "kept".to_owned(),
            None => format!("BROKEN: {}", self.complaints.join("; ").replace(['\n', '|'], " / ")),
        }
    }
}

/// Prepares this process, and says where the tcptrace is: this one, or a release build.
fn prepare(tcptrace: Option<PathBuf>) -> Result<PathBuf> {
    if !host::is_root() {
        bail!("tracing the live kernel needs root: run this as root");
    }
    // Before there is another thread: mounts and signal settings are inherited by threads that start later.
    cleanup::heed_signals()?;
    cleanup::on_signals()?;
    mounts::keep_private()?;
    let built = || Ok(bench::build(false, &["--bin", "tcptrace"])?.join("tcptrace"));
    let tcptrace = tcptrace.map_or_else(built, Ok::<_, anyhow::Error>)?;
    let tcptrace = tcptrace.canonicalize().with_context(|| format!("cannot find {}", tcptrace.display()))?;
    bench::mount_tracefs().context("cannot mount tracefs")?;
    Ok(tcptrace)
}

/// Runs the scenarios, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tcptrace = prepare(args.tcptrace.clone())?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let seed = args.seed.unwrap_or_else(|| u64::from(since_1970.subsec_nanos()));
    println!("Seed: {seed}\n\n| | seconds | measured | |\n| --- | ---: | --- | --- |");
    let begun = Instant::now();
    let mut broken = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| args.want(scenario)) {
        let folder = workspace::target().join("attack").join(scenario.name.replace([' ', ',', '|'], "_"));
        let ground = Ground { tcptrace: tcptrace.clone(), folder, is_short: args.short, seed, minutes: args.minutes };
        let (took, verdict) = ground.run(scenario)?;
        let measured = if verdict.measured.is_empty() { "–".to_owned() } else { verdict.measured.join(", ") };
        println!(
            "| {} | {:.1} | {measured} | {} |",
            scenario.name.replace('|', "\\|"),
            took.as_secs_f64(),
            verdict.words()
        );
        if !verdict.complaints.is_empty() {
            broken.push(scenario.name);
        }
    }
    println!("\nSeed {seed}, {:.0} s.", begun.elapsed().as_secs_f64());
    if !broken.is_empty() {
        bail!("promises broken (--seed {seed}) in: {}", broken.join("; "));
    }
    Ok(())
}

impl Args {
    fn want(&self, scenario: &Scenario) -> bool {
        let wants_group = self.groups.is_empty() || self.groups.contains(&scenario.group);
        wants_group && scenario.name.contains(&self.only)
    }
}

impl Ground {
    /// Runs a scenario. Its folder stays if a promise was broken.
    fn run(&self, scenario: &Scenario) -> Result<(Duration, Verdict)> {
        let name = self.folder.display();
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {name}"))?;
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot create {name}"))?;
        let begun = Instant::now();
        let mut verdict = Verdict::default();
        let ran = (scenario.run)(self, &mut verdict);
        let took = begun.elapsed();
        if let Err(error) = ran {
            verdict.complaints.push(format!("the scenario could not continue: {error:#}"));
        }
        if verdict.complaints.is_empty() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {name}"))?;
        }
        Ok((took, verdict))
    }
}
