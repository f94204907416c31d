//! What a transition costs the program that makes it, all in: what a connection takes beside a tool, less what it takes
//! without, for each transition.

use std::cell::Cell;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::generator::TRANSITIONS;
use super::pairs::{Pace, Pairs, Series, interleave};
use super::running::Running;
use super::steady;
use super::subject::{self, Sink, Subject, Tool, What};
use super::table::{Findings, Table};
use super::worker::{self, Args, Deed};

/// Connections of a measurement on one core.
const CONNECTIONS: u32 = 4_000;
/// Duration of one on two cores.
const SECONDS: f64 = 0.4;
/// For this many pairs of tcptrace, other tools have one.
const PAIRS_A_PEER: u32 = 5;

/// Heading of what pairs add without what interrupts the load.
pub(super) const UNDISTURBED: &str = "undisturbed";

/// What the runs of tools told beside the pace of the load.
#[derive(Default)]
struct Notes {
    lost: Cell<u64>,
    /// Runs of tcptrace in which programs kept standing in.
    unsteady: Cell<u32>,
}

/// Measures on one core, and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    let mut subjects = vec![(record(bench), bench.pairs)];
    if !bench.quick {
        let peers = subject::peers(Sink::File, skipped).into_iter();
        let tools = peers.filter(|peer| matches!(peer.what, What::Tool(_)));
        subjects.extend(tools.map(|peer| (peer, bench.pairs.div_ceil(PAIRS_A_PEER))));
    }
    let orders = [Args::times(Deed::Connection, bench.times_of(CONNECTIONS))];
    let (series, notes) = measure_all(bench, &subjects, &orders, "a transition, one core")?;
    let mut table = table("A transition, all in, one core", &subjects, &series, skipped);
    table.caption(format!(
        "What a tool adds to a loopback connection with {TRANSITIONS} transitions, for each transition; median \
         (quartiles) of interleaved pairs. A pair is {} connections by one thread on CPU 0, and as many without a \
         tool right before and right after. Undisturbed is the tenth percentile of every eight \
         connections instead of the mean. Without a tool, a connection takes {} ns. {}",
        bench.times_of(CONNECTIONS),
        series.first().map_or_else(String::new, |series| series.first().without().quartiles(0)),
        notes.caption(),
    ));
    findings.tables.push(table);
    findings.json = json(&subjects, &series);
    Ok(())
}

/// Measures with two cores saturated, and makes the table.
pub(super) fn measure_two(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    if available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        skipped.push("a transition on two cores: there is one CPU only".to_owned());
        return Ok(());
    }
    let subjects = [(record(bench), bench.pairs)];
    let seconds = if bench.quick { 0.05 } else { SECONDS };
    let orders = [0, 1].map(|cpu| Args::seconds(Deed::Connection, seconds, cpu));
    let (series, notes) = measure_all(bench, &subjects, &orders, "a transition, two cores")?;
    let mut table = table("A transition, all in, two cores", &subjects, &series, skipped);
    table.caption(format!(
        "The same with one thread on CPU 0 and one on CPU 1 for {seconds} s, which tcptrace's own CPU time slows down, \
         too. Without a tool, a connection takes one of them {} ns. {}",
        series.first().map_or_else(String::new, |series| series.first().without().quartiles(0)),
        notes.caption(),
    ));
    findings.tables.push(table);
    findings.json = json(&subjects, &series);
    Ok(())
}

fn record(bench: &Bench) -> Subject {
    let tool = subject::tcptrace(&bench.tcptrace, "record", Sink::File);
    Subject { name: "tcptrace record".to_owned(), what: What::Tool(tool) }
}

fn measure_all(
    bench: &Bench,
    subjects: &[(Subject, u32)],
    orders: &[Args],
    name: &str,
) -> Result<(Vec<Series>, Notes)> {
    let notes = Notes::default();
    let mut count = 0;
    let series = interleave(subjects, |subject| {
        let Some(Subject { name: tool, what: What::Tool(what) }) = subject else {
            return Ok(vec![worker::measure(orders).context("cannot measure the load without a tool")?]);
        };
        count += 1;
        bench.tell(format_args!("{name}, pair {count}: {tool}"));
        beside(bench, what, orders, &notes).with_context(|| format!("cannot measure `{tool}`"))
    })?;
    Ok((series, notes))
}

/// The pace of the load beside a tool.
fn beside(bench: &Bench, tool: &Tool, orders: &[Args], notes: &Notes) -> Result<Vec<Pace>> {
    let running = Running::attach(tool, &bench.folder)?;
    if tool.is_tcptrace && !steady::reach(running.pid())? {
        notes.unsteady.set(notes.unsteady.get() + 1);
    }
    let pace = worker::measure(orders)?;
    let cost = running.finish()?;
    if tool.is_tcptrace {
        notes.lost.set(notes.lost.get() + cost.lost);
    } else {
        cost.require_rows(orders.iter().map(Args::least).sum())?;
    }
    Ok(vec![pace])
}

impl Notes {
    fn caption(&self) -> String {
        let mut text = format!("tcptrace lost {} events.", self.lost.get());
        if self.unsteady.get() > 0 {
            text += &format!(
                " In {} of its runs it was not in its steady state: events were interrupted, and more programs were \
                 attached.",
                self.unsteady.get()
            );
        }
        text
    }
}

fn table(title: &str, subjects: &[(Subject, u32)], series: &[Series], skipped: &mut Vec<String>) -> Table {
    let mut table = Table::new(title, ["", "pairs", "ns a transition", UNDISTURBED, "% of a connection"]);
    for ((subject, _), series) in subjects.iter().zip(series) {
        if let Some(reason) = &series.failed {
            skipped.push(format!("{}: {reason}", subject.name));
            table.row(not_attached(&subject.name));
        } else {
            table.row([vec![subject.name.clone()], cells(&series.first())].concat());
        }
    }
    table
}

fn not_attached(name: &str) -> Vec<String> {
    [name, "0", "did not attach", "–", "–"].map(str::to_owned).to_vec()
}

/// The number of pairs of connections, and what they added.
pub(super) fn cells(pairs: &Pairs) -> Vec<String> {
    vec![
        pairs.count().to_string(),
        pairs.added(TRANSITIONS).quartiles(0),
        pairs.added_undisturbed(TRANSITIONS).quartiles(0),
        pairs.share().quartiles(1),
    ]
}

fn json(subjects: &[(Subject, u32)], series: &[Series]) -> Value {
    let one = |((subject, _), series): (&(Subject, u32), &Series)| {
        json!({
            "name": subject.name,
            "transitions_a_connection": TRANSITIONS,
            "pairs": series.first().json(),
            "failed": series.failed,
        })
    };
    subjects.iter().zip(series).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_did_not_attach_has_no_number() {
        let tool = |name: &str| Subject { name: name.to_owned(), what: What::Polling("ss".into()) };
        let subjects = [(tool("one"), 1), (tool("other"), 1)];
        let pace = |mean| Pace { mean, undisturbed: Some(mean / 2.0) };
        let measured = interleave(&subjects[..1], |subject| Ok(vec![pace(subject.map_or(40_000.0, |_| 46_000.0))]));
        let mut series = measured.expect("it can be measured");
        series.push(Series { failed: Some("did not attach: it has ended".to_owned()), ..Series::default() });
        let mut skipped = Vec::new();
        let text = table("A transition", &subjects, &series, &mut skipped).markdown();
        assert!(text.contains("| one | 1 | 600 (600–600) | 300 (300–300) | 15.0 (15.0–15.0) |"), "{text}");
        assert!(text.contains("| other | 0 | did not attach | – | – |"), "{text}");
        assert_eq!(skipped, ["other: did not attach: it has ended"]);
    }
}
