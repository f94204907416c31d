//! Time to take a snapshot of many sockets, next to `ss`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Bench;
use super::holder::{Holder, PAIRS, in_namespace};
use super::once::{self, Runs};
use super::stats::Figures;
use super::table::{Findings, Table, grouped, interleaved};
use crate::command;

const ROUNDS: u32 = 5;
const SOCKETS: u32 = 100_000;

const TCPTRACE: [&str; 3] = ["snapshot", "snapshot --list", "snapshot --list --format json"];
const SS: [&str; 2] = ["-tanp", "-tan"];

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    let sockets = if bench.quick { 2_000 } else { SOCKETS };
    let mut subjects: Vec<(PathBuf, &str)> = Vec::new();
    match command::find("ss") {
        Some(ss) => subjects.extend(SS.map(|words| (ss.clone(), words))),
        None => skipped.push("ss beside `tcptrace snapshot`: not installed".to_owned()),
    }
    subjects.extend(TCPTRACE.map(|words| (bench.tcptrace.clone(), words)));
    let series = in_namespace(|| {
        let _holders = Holder::start(sockets.div_ceil(2))?;
        run_all(bench, &subjects)
    })?;
    let title = format!("A look at {} sockets", grouped(sockets));
    let mut table = Table::new(&title, ["", "seconds, median (min–max)", "of `ss -tanp`", "peak RSS"]);
    let ss = series.iter().find(|runs| runs.name == "ss -tanp");
    for runs in &series {
        let share = |ss: &Runs| {
            let shares = runs.runs.iter().zip(&ss.runs).map(|(run, ss)| 100.0 * run.seconds / ss.seconds);
            shares.collect::<Figures>().median()
        };
        let share = ss.and_then(share).map_or_else(|| "–".to_owned(), |share| format!("{share:.0} %"));
        table.row(vec![runs.name.clone(), runs.seconds().spread(2), share, runs.peak_rss()]);
    }
    table.caption(format!(
        "{} processes own both ends of connections that are ESTABLISHED over loopback; {}, output to /dev/null.",
        sockets.div_ceil(2).div_ceil(PAIRS),
        interleaved(bench.times(ROUNDS)),
    ));
    findings.tables.push(table);
    findings.json = series.iter().map(Runs::json).collect();
    Ok(())
}

fn run_all(bench: &Bench, subjects: &[(PathBuf, &str)]) -> Result<Vec<Runs>> {
    let name = |program: &Path, words| {
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        format!("{program} {words}")
    };
    let mut series: Vec<_> = subjects.iter().map(|(program, words)| Runs::none(name(program, words))).collect();
    for round in 1..=bench.times(ROUNDS) {
        for ((program, words), runs) in subjects.iter().zip(&mut series) {
            let run = once::measure(Command::new(program).args(words.split_whitespace()))
                .with_context(|| format!("cannot measure `{}`", runs.name))?;
            bench.tell(format_args!("snapshot, round {round}/{}: {}", bench.times(ROUNDS), runs.name));
            runs.runs.push(run);
        }
    }
    Ok(series)
}
