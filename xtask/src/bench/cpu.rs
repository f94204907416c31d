//! CPU time in userspace for a million transitions, by destination of the output.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::generator::Order;
use super::load::{self, Sample};
use super::stats::Figures;
use super::subject::{self, Sink, Subject, What};
use super::table::{Findings, Table, interleaved};

const ROUNDS: u32 = 3;
/// More than elsewhere: a million transitions a round.
const CONNECTIONS: u32 = 100_000;

const SUBJECTS: [(&str, Sink); 5] = [
    ("record", Sink::File),
    ("watch", Sink::File),
    ("watch", Sink::Terminal { keep: false }),
    ("connections", Sink::File),
    ("connections", Sink::Terminal { keep: false }),
];

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let subjects = SUBJECTS.map(|(words, sink)| Subject {
        name: format!("tcptrace {words} to a {}", if sink == Sink::File { "file" } else { "terminal" }),
        what: What::Tool(subject::tcptrace(&bench.tcptrace, words, sink)),
    });
    let connections = if bench.quick { bench.connections } else { CONNECTIONS };
    let orders = [Order::connections(connections)];
    let mut series: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 1..=bench.times(ROUNDS) {
        for (subject, samples) in subjects.iter().zip(&mut series) {
            let sample = load::measure(Some(&subject.what), &orders, &bench.folder)
                .with_context(|| format!("cannot measure `{}`", subject.name))?;
            bench.tell(format_args!("CPU, round {round}/{}: {}", bench.times(ROUNDS), subject.name));
            if sample.missing() > 0 {
                findings.faults.push(format!(
                    "{}: {} transitions missing, not counted",
                    subject.name,
                    sample.missing()
                ));
            }
            samples.push(sample);
        }
    }
    let columns = ["", "user CPU s", "user + system CPU s", "bytes per transition", "lost"];
    let mut table = Table::new("CPU time of a million transitions", columns);
    for (subject, samples) in subjects.iter().zip(&series) {
        table.row([vec![subject.name.clone()], cells(samples)].concat());
    }
    table.caption(format!(
        "{} of {connections} connections; median (min–max). The time counts from when the probes are attached to the \
         end. The terminal is a pseudo-terminal with colours; its reader is not counted.",
        interleaved(bench.times(ROUNDS))
    ));
    findings.tables.push(table);
    let json = |(subject, samples): (&Subject, &Vec<Sample>)| -> Value {
        json!({ "name": subject.name, "rounds": samples.iter().map(Sample::json).collect::<Vec<_>>() })
    };
    findings.json = subjects.iter().zip(&series).map(json).collect();
    Ok(())
}

fn cells(samples: &[Sample]) -> Vec<String> {
    let costs = || samples.iter().filter_map(|sample| Some((sample.cost.as_ref()?, sample.transitions() as f64)));
    let user: Figures = costs().map(|(cost, transitions)| cost.user.as_secs_f64() * 1e6 / transitions).collect();
    let cpu: Figures = costs().map(|(cost, transitions)| cost.cpu.as_secs_f64() * 1e6 / transitions).collect();
    let bytes: Figures = costs().map(|(cost, transitions)| cost.written as f64 / transitions).collect();
    vec![
        user.spread(2),
        cpu.spread(2),
        format!("{:.1}", bytes.median().unwrap_or(0.0)),
        costs().map(|(cost, _)| cost.lost).sum::<u64>().to_string(),
    ]
}
