//! Time from the start to the first event.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use super::Bench;
use super::generator::{Generator, Order};
use super::running::{DidNotAttach, Running};
use super::stats::Figures;
use super::subject::{self, Sink, Subject, Tool, What};
use super::table::{Findings, Table};
use super::terminal::boot_ns;

const ROUNDS: u32 = 10;
/// Connections a second during the measurement.
const RATE: f64 = 500.0;
/// Interval of polling.
const POLL: Duration = Duration::from_millis(1);
/// Longest wait for a row.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times since the start, in ms.
struct Start {
    /// Until it printed that it is ready, if it does.
    ready: Option<f64>,
    row: f64,
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    let sink = Sink::Terminal { keep: true };
    let mut tools =
        vec![("tcptrace watch".to_owned(), subject::tcptrace(&bench.tcptrace, "watch", sink), bench.times(ROUNDS))];
    if !bench.quick {
        // Missing tools were already reported with the rates.
        let peers = subject::peers(sink, &mut Vec::new()).into_iter().filter_map(prints_transitions);
        tools.extend(peers.map(|(name, tool)| (name, tool, ROUNDS / 2)));
    }
    let mut generator = Generator::start(&Order { rate: Some(RATE), ..Order::connections(1_000_000) })?;
    generator.go()?;
    let mut table = Table::new("From the start to the first event", ["", "ready, ms", "first row, ms"]);
    let mut json = Vec::new();
    for (name, tool, rounds) in &tools {
        bench.tell(format_args!("start: {name}"));
        let starts = (0..*rounds).map(|_| one_start(tool, bench)).collect::<Result<Vec<_>>>();
        let starts = match starts.with_context(|| format!("cannot measure the start of `{name}`")) {
            Ok(starts) => starts,
            Err(error) => {
                skipped.push(format!("the start of {name}: {}", error.downcast::<DidNotAttach>()?));
                table.row(vec![name.clone(), "–".to_owned(), "did not attach".to_owned()]);
                continue;
            }
        };
        let ready = starts.iter().filter_map(|start| start.ready).collect::<Figures>().spread(0);
        let row = starts.iter().map(|start| start.row).collect::<Figures>().spread(0);
        table.row(vec![name.clone(), ready, row]);
        let start = |start: &Start| -> Value { json!({ "ready_ms": start.ready, "first_row_ms": start.row }) };
        json.push(json!({ "name": name, "starts": starts.iter().map(start).collect::<Vec<_>>() }));
    }
    table.caption(format!(
        "From `exec` until the row can be read from the terminal, at {RATE} connections a second; median (min–max) of \
         {}{} starts.",
        bench.times(ROUNDS),
        if tools.len() > 1 { format!(" (other tools: {})", ROUNDS / 2) } else { String::new() },
    ));
    findings.tables.push(table);
    findings.json = json.into();
    Ok(())
}

fn prints_transitions(subject: Subject) -> Option<(String, Tool)> {
    match subject.what {
        What::Tool(tool) if !subject.name.starts_with("perf") => Some((subject.name, tool)),
        _ => None,
    }
}

fn one_start(tool: &Tool, bench: &Bench) -> Result<Start> {
    let begun = boot_ns()?;
    let since = |at: u64| at.saturating_sub(begun) as f64 / 1e6;
    let mut running = Running::start(tool, &bench.folder)?;
    running.wait_until_attached(POLL)?;
    let ready = tool.is_tcptrace.then(boot_ns).transpose()?.map(since);
    let waiting = Instant::now();
    while !running.has_shown(&is_row) {
        if waiting.elapsed() > PATIENCE {
            return Err(no_row(tool));
        }
        sleep(POLL * 20);
    }
    let taken = running.finish()?.taken;
    let row = taken.lines().find(|(_, line)| is_row(line)).ok_or_else(|| no_row(tool))?.0;
    Ok(Start { ready, row: since(row) })
}

/// Other tools may fail to trace; tcptrace may not.
fn no_row(tool: &Tool) -> anyhow::Error {
    const WHY: &str = "no row has come";
    if tool.is_tcptrace { anyhow!(WHY) } else { DidNotAttach(WHY.to_owned()).into() }
}

/// Whether a line is a row about a connection, of any tool: it has an address, or begins with a process id.
fn is_row(line: &str) -> bool {
    line.contains("127.") || line.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_no_rows() {
        for row in ["07:52:19.012 17665 life 127.0.0.1:7101", "ffff9c21 812 exe 127.0.0.1 40", "812 exe 40 80 1 2"] {
            assert!(is_row(row), "{row}");
        }
        for header in ["TIME             PID COMM", "SKADDR           PID", "Attaching 1 probe...", ""] {
            assert!(!is_row(header), "{header}");
        }
    }
}
