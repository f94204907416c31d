//! What a flight recorder costs that waits for a condition, beside one that does not and beside `diagnose`.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Bench;
use super::generator::{Generator, Order};
use super::proc;
use super::running::Running;
use super::stats::Figures;
use super::subject::{Sink, TRACE, Tool};
use super::table::{Findings, Table, interleaved};

/// Unless fewer are asked for.
const ROUNDS: u32 = 4;
/// Connections a second.
const RATE: f64 = 1_000.0;
/// Rules look at every socket twice a minute, and decide six times in this time.
const SECONDS: f64 = 31.0;

const RECORD: [&str; 5] = ["record", "--last", "5m", "--output", TRACE];
/// None of them comes true, so that nothing is written.
const SUBJECTS: [(&str, &[&str], &[&str]); 5] = [
    ("record --last 5m", &RECORD, &[]),
    ("--when with a counter", &RECORD, &["--when", "TcpExt.ListenOverflows > 50000"]),
    ("--when with a state", &RECORD, &["--when", "CLOSE_WAIT > 50000"]),
    ("--when with three rules", &RECORD, &["--when", "close-wait-leak or ports-running-out or fd-limit"]),
    ("diagnose", &["diagnose", "--duration", "1h", "--fail-on", "never"], &[]),
];

/// What a round has measured: the part of a core that each subject took, in percent.
struct Round {
    connections_per_second: f64,
    percent: Vec<f64>,
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let count = bench.times(ROUNDS.min(bench.rounds));
    let tools: Vec<Tool> = SUBJECTS.iter().map(|(_, first, more)| tool(bench, first, more)).collect();
    let rounds: Vec<Round> = (1..=count)
        .map(|round| {
            bench.tell(format_args!("armed, round {round}/{count}"));
            one_round(bench, &tools)
        })
        .collect::<Result<_>>()?;
    let of = |place: usize| rounds.iter().filter_map(move |round| round.percent.get(place).copied());
    let mut table = Table::new("An armed flight recorder", ["", "CPU, % of a core", "beyond `record --last 5m`"]);
    for (place, (name, ..)) in SUBJECTS.iter().enumerate() {
        let beyond: Figures = of(place).zip(of(0)).map(|(one, plain)| one - plain).collect();
        let beyond = if place == 0 { "–".to_owned() } else { beyond.spread(2) };
        table.row(vec![format!("`{name}`"), of(place).collect::<Figures>().spread(2), beyond]);
    }
    let rate: Figures = rounds.iter().map(|round| round.connections_per_second).collect();
    let seconds = if bench.quick { 1.0 } else { SECONDS };
    table.caption(format!(
        "All five beside the same {} connections a second, for {seconds} s from when they were ready; {}; median \
         (min–max). No condition came true: nothing was written meanwhile.",
        rate.spread(0),
        interleaved(count),
    ));
    findings.tables.push(table);
    let json = |round: &Round| {
        let names = SUBJECTS.iter().map(|(name, ..)| *name);
        let percent: serde_json::Map<_, _> =
            names.zip(&round.percent).map(|(name, percent)| (name.to_owned(), json!(percent))).collect();
        json!({ "connections_per_second": round.connections_per_second, "percent": percent })
    };
    findings.json = rounds.iter().map(json).collect();
    Ok(())
}

fn tool(bench: &Bench, first: &[&str], more: &[&str]) -> Tool {
    let arguments = first.iter().chain(more).map(|&word| word.to_owned()).collect();
    Tool { program: bench.tcptrace.clone(), arguments, is_tcptrace: true, sink: Sink::File }
}

fn one_round(bench: &Bench, tools: &[Tool]) -> Result<Round> {
    let mut all = Vec::new();
    for (number, tool) in tools.iter().enumerate() {
        let folder = bench.folder.join(format!("armed-{number}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        all.push(Running::attach(tool, &folder)?);
    }
    let seconds = if bench.quick { 1.0 } else { SECONDS };
    let order = Order { rate: Some(RATE), seconds: Some(seconds), ..Order::connections(1_000_000) };
    let mut generator = Generator::start(&order)?;
    let look = || all.iter().map(|running| proc::cpu(running.pid())).collect::<Result<Vec<_>>>();
    let (before, begun) = (look()?, Instant::now());
    generator.go()?;
    let load = generator.wait()?;
    let (after, lasted) = (look()?, begun.elapsed().as_secs_f64());
    generator.finish()?;
    let percent = before.into_iter().zip(after).map(|(before, after)| {
        let spent = after.less(before);
        (spent.user + spent.system).as_secs_f64() / lasted * 100.0
    });
    let round = Round { connections_per_second: load.rate(), percent: percent.collect() };
    all.into_iter().try_for_each(|running| running.finish().map(drop))?;
    Ok(round)
}
