//! `cargo xtask oracle`: makes random lives (connections) on the live kernel, and compares every row of tcptrace with
//! witnesses.
//!
//! The witnesses share no code with tcptrace: the actors' own logs, a packet socket, the kernel's notices of freed
//! sockets, its counters, and `ss`. A value that differs from them is a failure. Unknown values are counted, and so are
//! values that the witnesses cannot judge. A life that fails is shrunk until it is as short as possible; then it gets a
//! name, and every run makes it.

mod actor;
mod compare;
mod conversation;
mod destroyed;
mod known;
mod log;
mod packets;
pub(crate) mod play;
mod relay;
mod round;
mod row;
mod rules;
mod script;
mod snapshot;
mod truth;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::attack::random::Random;
use crate::{bench, host, workspace};
pub(crate) use actor::resume;
use compare::{Compared, Finding, Kind};
use round::{Ground, Outcome};
use script::Life;

/// Lives in one round.
const ROUND: usize = 4 * round::GROUP;

/// Shortest time in which all lives of a round begin.
const SHORTEST: Duration = Duration::from_secs(2);

/// Lives to show for each kind of finding.
const EXAMPLES: usize = 3;

/// The oracle fails above this share of unknown values, in percent: a tracer that reports nothing makes no errors
/// either.
const UNKNOWN: f64 = 0.5;

/// Options of `cargo xtask oracle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of lives
    #[arg(long, default_value_t = 10_000)]
    lives: usize,
    /// Repeat the lives of another run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Make this life as often as --lives says, instead of random ones
    #[arg(long, value_name = "TEXT")]
    script: Option<String>,
    /// Shrink this many kinds of failures
    #[arg(long, value_name = "N", default_value_t = 3)]
    shrink: usize,
    /// Do not wait for any TIME_WAIT to expire
    #[arg(long)]
    no_expiry: bool,
    /// Begin this many lives a second
    #[arg(long, value_name = "N", default_value_t = 165)]
    rate: u32,
    /// Use this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// How often a finding occurred, and the shortest lives that show it.
#[derive(Default)]
struct Shown {
    count: u64,
    examples: Vec<(Life, String)>,
}

/// The findings so far.
#[derive(Default)]
struct Found {
    lives: u64,
    rows: u64,
    values: u64,
    packets: usize,
    looked_at: u64,
    /// Rows that could not be compared, by reason.
    left_out: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<(Kind, String), Shown>,
    complaints: Vec<String>,
}

/// Makes the lives, compares them, and prints the findings.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("tracing the live kernel needs root: run `cargo xtask oracle` as root");
    }
    let built = || Ok(bench::build(false, &["--bin", "tcptrace"])?.join("tcptrace"));
    let tcptrace = args.tcptrace.clone().map_or_else(built, Ok::<_, anyhow::Error>)?;
    let tcptrace = tcptrace.canonicalize().with_context(|| format!("cannot find {}", tcptrace.display()))?;
    bench::mount_tracefs().context("cannot mount tracefs")?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let seed = args.seed.unwrap_or_else(|| u64::from(since_1970.subsec_nanos()));
    println!("Seed: {seed}");
    let mut random = Random::new(seed);
    let given: Option<Life> = args.script.as_deref().map(str::parse).transpose()?;
    let mut next = || given.clone().unwrap_or_else(|| Life::random(&mut random));
    let base = workspace::target().join("oracle");
    if base.exists() {
        fs::remove_dir_all(&base).with_context(|| format!("cannot remove {}", base.display()))?;
    }
    fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
    let [folder, evidence, shrunk] = ["round", "evidence", "evidence-shrunk"].map(|name| base.join(name));
    let begun = Instant::now();
    let mut found = Found::default();
    if args.script.is_none() {
        let lives = known::lives()?;
        let spread = spread(lives.len(), args.rate);
        let ground = Ground { tcptrace: &tcptrace, folder: &folder, evidence: &evidence, spread, expire: false };
        let outcome = round::run(&ground, &lives)?;
        print!("{}", known::tell(&outcome.compared));
        found.add(&lives, outcome);
    }
    let all = usize::try_from(found.lives)? + args.lives;
    for first in (0..args.lives).step_by(ROUND) {
        let lives: Vec<Life> = (first..args.lives.min(first + ROUND)).map(|_| next()).collect();
        let expire = first == 0 && !args.no_expiry;
        let spread = spread(lives.len(), args.rate);
        let ground = Ground { tcptrace: &tcptrace, folder: &folder, evidence: &evidence, spread, expire };
        found.add(&lives, round::run(&ground, &lives)?);
        found.say_progress(all, begun.elapsed());
    }
    found.print(begun.elapsed());
    let wrong: Vec<_> = found.kinds.iter().filter(|((kind, _), _)| *kind == Kind::Wrong).collect();
    let again = Ground { tcptrace: &tcptrace, folder: &folder, evidence: &shrunk, spread: SHORTEST, expire: false };
    for ((_, what), Shown { examples, .. }) in wrong.iter().take(args.shrink) {
        let Some((life, _)) = examples.first() else { continue };
        match shrink(&again, life, what, args.rate)? {
            Some((life, detail)) => println!("\nThe shortest life for `{what}`:\n  {life}\n  {detail}"),
            None => println!("\n`{what}` was not seen again in:\n  {life}"),
        }
    }
    println!("\nSeed {seed}, {:.0} s.", begun.elapsed().as_secs_f64());
    if !wrong.is_empty() || !found.complaints.is_empty() {
        let evidence = evidence.display();
        bail!("tcptrace and the witnesses disagree (--seed {seed}); all that they say is in {evidence}");
    }
    if found.unknown_percent() > UNKNOWN {
        bail!("more than {UNKNOWN} % of the values are unknown to tcptrace (--seed {seed})");
    }
    Ok(())
}

/// The time in which this many lives begin.
fn spread(lives: usize, rate: u32) -> Duration {
    let lives = u32::try_from(lives).unwrap_or(u32::MAX);
    Duration::from_secs_f64(f64::from(lives) / f64::from(rate.max(1))).max(SHORTEST)
}

impl Found {
    fn add(&mut self, lives: &[Life], outcome: Outcome) {
        let Outcome { compared, complaints, unseen, packets, looked_at, left_out } = outcome;
        self.complaints.extend(complaints);
        self.packets += packets;
        self.looked_at += looked_at;
        for (why, count) in left_out {
            *self.left_out.entry(why).or_default() += count;
        }
        if unseen > 0 {
            self.complaints.push(format!("the witness of packets missed {unseen}"));
        }
        self.lives += lives.len() as u64;
        for (life, Compared { findings, values, rows }) in lives.iter().zip(compared) {
            self.values += values;
            self.rows += rows;
            for Finding { kind, what, detail } in findings {
                let Shown { count, examples } = self.kinds.entry((kind, what)).or_default();
                *count += 1;
                examples.push((life.clone(), detail));
                // A shorter life is easier to understand.
                examples.sort_by_key(|(life, _)| life.steps.len());
                examples.truncate(EXAMPLES);
            }
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.kinds.iter().filter(|((of, _), _)| *of == kind).map(|(_, shown)| shown.count).sum()
    }

    fn unknown_percent(&self) -> f64 {
        self.count(Kind::Unknown) as f64 * 100.0 / self.values.max(1) as f64
    }

    /// Printed only if there are several rounds.
    fn say_progress(&self, all: usize, took: Duration) {
        if all > ROUND {
            let [wrong, unknown] = [Kind::Wrong, Kind::Unknown].map(|kind| self.count(kind));
            let seconds = took.as_secs();
            println!(
                "{} of {all} lives after {seconds} s: {} values, {wrong} wrong, {unknown} unknown",
                self.lives, self.values
            );
        }
    }

    fn print(&self, took: Duration) {
        let (unknown, of_values) = (self.count(Kind::Unknown), self.unknown_percent());
        println!(
            "{} lives in {:.0} s ({:.0} a minute): {} rows and {} sockets in snapshots compared, {} values, {} packets; {} \
             wrong, {unknown} unknown ({of_values:.2} %), {} abstentions.",
            self.lives,
            took.as_secs_f64(),
            self.lives as f64 * 60.0 / took.as_secs_f64().max(1.0),
            self.rows,
            self.looked_at,
            self.values,
            self.packets,
            self.count(Kind::Wrong),
            self.count(Kind::Abstained),
        );
        for ((kind, what), Shown { count, examples }) in &self.kinds {
            println!("- {kind:?}: {what}: {count}");
            examples.iter().for_each(|(life, detail)| println!("    {life}\n      {detail}"));
        }
        for (why, count) in &self.left_out {
            println!("- Row left out: {why}: {count}");
        }
        for complaint in &self.complaints {
            println!("- {complaint}");
        }
    }
}

/// The shortest life that fails in this way, with details.
fn shrink(ground: &Ground, life: &Life, what: &str, rate: u32) -> Result<Option<(Life, String)>> {
    /// Each candidate is tried this often, because a race does not show every time.
    const TIMES: usize = 4;
    let mut shortest = None;
    let mut candidates = vec![life.clone()];
    while !candidates.is_empty() {
        let lives: Vec<Life> = candidates.iter().flat_map(|life| vec![life.clone(); TIMES]).collect();
        let ground = Ground { spread: spread(lives.len(), rate), ..*ground };
        let Outcome { compared, .. } = round::run(&ground, &lives)?;
        let fails = |compared: &Compared| {
            let is_it = |finding: &&Finding| finding.kind == Kind::Wrong && finding.what == what;
            compared.findings.iter().find(is_it).map(|finding| finding.detail.clone())
        };
        let first = lives.into_iter().zip(&compared).find_map(|(life, compared)| Some((life, fails(compared)?)));
        let Some((life, detail)) = first else { break };
        candidates = life.simpler();
        shortest = Some((life, detail));
    }
    Ok(shortest)
}
