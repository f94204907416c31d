//! Whether every event was reported or counted as lost. Only this part can fail the benchmark.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Bench;
use super::generator::Order;
use super::latency::number;
use super::load::{self, Sample};
use super::subject::{self, Sink, TRACE, What};
use super::table::{Findings, Table};
use crate::command;
use crate::hidden::{self, Hidden};

/// Each command, and whether it prints connections instead of transitions.
const COMMANDS: [(&str, bool); 3] =
    [("watch --format json", false), ("record", false), ("connections --at-close --format json", true)];

/// Counts, and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let cpus = available_parallelism().map_or(1, |cpus| cpus.get().min(2));
    let orders: Vec<_> = (0..cpus).map(|cpu| Order { cpu, ..Order::connections(bench.connections) }).collect();
    let mut table = Table::new("No silent losses", ["", "happened", "reported", "lost, counted", "missing"]);
    let mut json = Vec::new();
    for (words, tells_connections) in COMMANDS {
        let name = format!("tcptrace {words}");
        bench.tell(format_args!("completeness: {name}"));
        let what = What::Tool(subject::tcptrace(&bench.tcptrace, words, Sink::File));
        let hidden = Hidden::count(&[hidden::TRANSITIONS], &[]);
        let sample = load::measure(Some(&what), &orders, &bench.folder).with_context(|| format!("`{name}` failed"))?;
        let hidden = hidden.map_or(0, |hidden| hidden.so_far());
        let rows = rows(bench, words, &sample)?;
        let lost = sample.cost.as_ref().map_or(0, |cost| cost.lost);
        // Each end of a connection is a socket.
        let happened = if tells_connections { 2 * u64::from(sample.connections()) } else { sample.transitions() };
        findings.faults.extend(fault(&name, happened, rows, lost, hidden));
        let missing = happened.saturating_sub(rows + lost);
        let mut cells = [happened, rows, lost, missing].map(|count| count.to_string());
        if missing > 0 {
            cells[3] += &format!(", of {hidden} that this kernel hid from every eBPF program");
        }
        table.row([vec![name.clone()], cells.to_vec()].concat());
        json.push(json!({ "name": name, "happened": happened, "told": rows, "lost": lost, "hidden": hidden }));
    }
    table.caption(format!(
        "{cpus} generators make {} connections each, as fast as they can. They count what happened: {} transitions for each \
         connection and two for each listener; for `connections`, two rows for each connection, one for each end. Rows \
         of the generators' network namespaces count, as the command or `replay` printed them.",
        bench.connections,
        super::generator::TRANSITIONS,
    ));
    findings.tables.push(table);
    findings.json = json.into();
    Ok(())
}

/// Counts the rows of the load's sockets. Ends of TIME_WAITs do not count: the kernel has no transition for them.
fn rows(bench: &Bench, words: &str, sample: &Sample) -> Result<u64> {
    let printed = bench.folder.join("stdout");
    if words == "record" {
        let output = File::create(&printed).context("cannot create a file")?;
        let mut replay = Command::new(&bench.tcptrace);
        replay.args(["replay", "--format", "json", TRACE]).current_dir(&bench.folder);
        let line = command::line(&replay);
        let replay = replay.stdout(output).stderr(Stdio::piped()).spawn();
        let replayed = replay.and_then(Child::wait_with_output).with_context(|| format!("cannot run `{line}`"))?;
        let said = String::from_utf8_lossy(&replayed.stderr);
        // 3: the trace reports lost events.
        ensure!(matches!(replayed.status.code(), Some(0 | 3)), "`{line}` failed: {}: {said}", replayed.status);
    }
    count(&printed, &sample.netns)
}

fn count(path: &Path, netns: &[u32]) -> Result<u64> {
    let failed = || format!("cannot read {}", path.display());
    let reader = BufReader::with_capacity(1 << 20, File::open(path).with_context(failed)?);
    let mut count = 0;
    for line in reader.lines() {
        count += u64::from(is_of_load(&line.with_context(failed)?, netns));
    }
    Ok(count)
}

fn is_of_load(row: &str, netns: &[u32]) -> bool {
    let is_theirs = number(row, "netns").is_some_and(|inode| netns.iter().any(|&ours| u64::from(ours) == inode));
    let is_kind = row.contains("\"event\":\"transition\"") || row.contains("\"event\":\"connection\"");
    is_theirs && is_kind && !row.contains("\"old\":\"TIME_WAIT\"")
}

/// The error in these counts, if any: an event is missing and not counted as lost, or there are too many.
fn fault(name: &str, happened: u64, told: u64, lost: u64, hidden: u64) -> Option<String> {
    // After a loss, rows report the state that the kernel was found in instead.
    let too_many = lost == 0 && told > happened;
    let wrong = told + lost + hidden < happened || too_many;
    wrong.then(|| format!("{name}: of {happened} events, {told} were reported and {lost} counted as lost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uncounted_losses_and_inventions_are_faults() {
        assert_eq!(fault("watch", 100, 100, 0, 0), None);
        assert_eq!(fault("watch", 100, 90, 10, 0), None);
        assert_eq!(fault("watch", 100, 95, 10, 0), None, "other programs lost events, too, or a row came later");
        assert_eq!(fault("watch", 100, 95, 0, 7), None, "the kernel hides some");
        let said = "watch: of 100 events, 98 were reported and 0 counted as lost";
        assert_eq!(fault("watch", 100, 98, 0, 1).as_deref(), Some(said));
        assert!(fault("watch", 100, 101, 0, 0).is_some());
    }

    #[test]
    fn rows_of_others_and_ends_of_time_waits_do_not_count() {
        let row = r#"{"event":"transition","netns":7,"old":"CLOSED","new":"SYN_SENT"}"#;
        assert!(is_of_load(row, &[6, 7]));
        assert!(!is_of_load(row, &[6]));
        assert!(!is_of_load(&row.replace("CLOSED", "TIME_WAIT"), &[7]));
        assert!(!is_of_load(&row.replace("transition", "stuck"), &[7]));
        assert!(is_of_load(&row.replace("transition", "connection"), &[7]));
    }
}
