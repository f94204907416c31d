//! Time to study a long trace. This needs no privileges.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Bench;
use super::once::{self, Runs};
use super::table::{Findings, Table, grouped, interleaved};
use crate::command;

const ROUNDS: u32 = 3;
/// Transitions of one connection of a synthetic trace: 10 changes of state, and the end of the TIME_WAIT.
const TRANSITIONS: u32 = 11;
/// About ten million transitions.
const CONNECTIONS: u32 = 10_000_000 / TRANSITIONS;

/// Makes a trace, reads it in several ways, and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let path = bench.folder.join("synthetic.tct");
    let trace = path.to_str().context("the path of the workspace is no UTF-8")?;
    let connections = if bench.quick { 10_000 } else { CONNECTIONS };
    command::run(Command::new(&bench.synthesise).args([trace, &connections.to_string()]))?;
    let bytes = path.metadata().context("cannot stat the trace")?.len();
    // The client of a connection in the middle, by the numbering of `synthesise`.
    let one = format!("timeline --conn {:x}", connections / 2 * 2 + 1);
    let subjects =
        ["report", "report --format json", "replay --rows connections --format json", "timeline", one.as_str()];
    let mut series = subjects.map(|words| Runs::none(format!("tcptrace {words}")));
    for round in 1..=bench.times(ROUNDS) {
        for (words, runs) in subjects.iter().zip(&mut series) {
            let run = once::measure(Command::new(&bench.tcptrace).args(words.split_whitespace()).arg(trace))?;
            bench.tell(format_args!("analysis, round {round}/{}: {words}: {:.2} s", bench.times(ROUNDS), run.seconds));
            runs.runs.push(run);
        }
    }
    std::fs::remove_file(&path).context("cannot remove the trace")?;
    let transitions = connections * TRANSITIONS;
    let title = format!("Studying a trace of {} transitions", grouped(transitions));
    let mut table = Table::new(&title, ["", "seconds, median (min–max)", "CPU s, median", "peak RSS"]);
    for runs in &series {
        table.row(vec![runs.name.clone(), runs.seconds().spread(2), format!("{:.2}", runs.cpu()), runs.peak_rss()]);
    }
    table.caption(format!(
        "A synthetic trace of {transitions} transitions, {:.1} bytes each; {}, output to /dev/null.",
        bytes as f64 / f64::from(transitions),
        interleaved(bench.times(ROUNDS)),
    ));
    findings.tables.push(table);
    let runs: Vec<_> = series.iter().map(Runs::json).collect();
    findings.json = json!({ "transitions": transitions, "trace_bytes": bytes, "subjects": runs });
    Ok(())
}
