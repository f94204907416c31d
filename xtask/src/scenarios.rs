//! `cargo xtask scenarios`: what `tcptrace diagnose` says of real programs, ill and well.
//!
//! Each scenario runs programs of Debian's packages by hand, with configurations and data of its own, in a network
//! namespace of its own: as they are when they have the disease, and as its twin, which has not. Nothing leaves the
//! machine, no service of the system starts, and what was started ends with the scenario.

mod armed;
mod ground;
mod healthy;
mod network;
mod pools;
mod ports;
mod postgres;
mod processes;
mod programs;
mod said;
mod servers;
mod silent;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::outcome::{self, Outcome, Outcomes};
use crate::setup::{self, SCENARIO_TOOLS, services};
use crate::{bench, host, workspace};
use armed::{Armed, Severity};
use ground::Net;
use said::{Beside, Said, Want};

/// Options of `cargo xtask scenarios`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only scenarios with one of these in their name
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Run those that wait for ten minutes, too
    #[arg(long)]
    slow: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Install the Debian packages that are missing; their services are not started
    #[arg(long)]
    install: bool,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
    /// Leave a flight recorder armed with every rule that finds something as severe, through all scenarios: it must write a
    /// file for each disease, and none for a twin
    #[arg(long, value_name = "SEVERITY", value_enum)]
    armed: Option<Severity>,
}

impl Args {
    fn wants(&self, scenario: &Scenario) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| scenario.name.contains(text.as_str()))
    }
}

/// One state of some programs, and what is expected of `diagnose`.
struct Part {
    name: &'static str,
    run: fn(&Net) -> Result<Said>,
    wants: &'static [Want],
}

/// A disease and its twin, or something healthy.
struct Scenario {
    name: &'static str,
    parts: &'static [Part],
}

const SCENARIOS: &[&[Scenario]] =
    &[ports::ALL, pools::ALL, postgres::ALL, servers::ALL, processes::ALL, network::ALL, healthy::ALL];

/// Runs the scenarios, and prints what was said.
pub(crate) fn run(args: &Args) -> Result<()> {
    let slow = [silent::ALL];
    let groups = || SCENARIOS.iter().chain(slow.iter().filter(|_| args.slow || args.list));
    let all = || groups().flat_map(|group| group.iter());
    if args.list {
        for scenario in all() {
            let parts: Vec<_> = scenario.parts.iter().map(|part| part.name).collect();
            println!("{}: {}", scenario.name, parts.join(", "));
        }
        return Ok(());
    }
    if !host::is_root() {
        bail!("tracing the live kernel needs root: run `cargo xtask scenarios` as root");
    }
    if args.install {
        services::withhold(|| setup::require(&SCENARIO_TOOLS))?;
    }
    let missing = setup::missing(&SCENARIO_TOOLS);
    if !missing.is_empty() {
        bail!("these packages are missing, and --install installs them: {}", missing.join(" "));
    }
    ground::on_signals()?;
    let built = || Ok(bench::build(false, &["--bin", "tcptrace"])?.join("tcptrace"));
    let tcptrace = args.tcptrace.clone().map_or_else(built, Ok::<_, anyhow::Error>)?;
    let tcptrace = tcptrace.canonicalize().with_context(|| format!("cannot find {}", tcptrace.display()))?;
    bench::mount_tracefs().context("cannot mount tracefs")?;
    let begun = Instant::now();
    let mut outcomes = Outcomes::new();
    let folder = workspace::target().join("scenarios").join("armed");
    let armed = args.armed.map(|severity| Armed::start(&tcptrace, &folder, severity)).transpose()?;
    let mut stage = Stage { tcptrace, armed, beside: Beside::default(), numbers: Vec::new() };
    for scenario in all().filter(|scenario| args.wants(scenario)) {
        let wanted: Vec<_> = scenario.parts.iter().flat_map(|part| part.wants).map(|want| want.id).collect();
        for part in scenario.parts {
            outcomes.insert(format!("{}, {}", scenario.name, part.name), stage.play(scenario, part, &wanted));
        }
    }
    print!("\n{}", outcome::told(&outcomes));
    println!("{}", stage.beside);
    if let Some(armed) = stage.armed.take() {
        println!("{}", armed.finish()?);
    }
    let failed = outcomes.values().filter(|outcome| outcome.is_failure()).count();
    println!("{} of {} ok, {:.0} s.", outcomes.len() - failed, outcomes.len(), begun.elapsed().as_secs_f64());
    if failed > 0 {
        bail!("{failed} of {} were diagnosed otherwise than expected", outcomes.len());
    }
    Ok(())
}

/// Where the parts are played.
struct Stage {
    tcptrace: PathBuf,
    armed: Option<Armed>,
    beside: Beside,
    /// The network namespaces of all parts.
    numbers: Vec<File>,
}

impl Stage {
    /// Runs a part, prints what was expected and what was said, and judges it.
    fn play(&mut self, scenario: &Scenario, part: &Part, wanted: &[&'static str]) -> Outcome {
        println!("\n{}, {}", scenario.name, part.name);
        println!("  expected  {}", said::expected(part.wants));
        let complaints = match self.enter(scenario, part, wanted) {
            Err(error) => vec![format!("it could not be run: {error:#}")],
            Ok(complaints) => complaints,
        };
        if complaints.is_empty() {
            println!("  ok");
            return Outcome::Pass;
        }
        println!("  FAILED: {}", complaints.join("; "));
        Outcome::Fail(complaints.join("\n"))
    }

    fn enter(&mut self, scenario: &Scenario, part: &Part, wanted: &[&'static str]) -> Result<Vec<String>> {
        let targets = workspace::target().join("scenarios");
        let folder = targets.join(scenario.name).join(part.name.replace([' ', ','], "-"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        if let Some(armed) = &mut self.armed {
            armed.forget();
        }
        let net = Net::new(&self.tcptrace, &folder)?;
        self.numbers.push(net.number()?);
        let said = (part.run)(&net)?;
        for line in said.lines() {
            println!("  said      {line}");
        }
        self.beside.count(&said, part.wants);
        let mut complaints = said.complaints(part.wants, wanted);
        if let Some(armed) = &mut self.armed {
            let (lines, wrong) = armed.judge(part.wants, |subject| net.is_here(subject))?;
            lines.iter().for_each(|line| println!("  armed     {line}"));
            complaints.extend(wrong);
        }
        Ok(complaints)
    }
}
