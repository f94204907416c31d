//! Time from an event to its row on the screen.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::generator::Order;
use super::load::{self, Sample};
use super::stats::Figures;
use super::subject::{self, Sink, What};
use super::table::{Findings, Table};

/// The loads. Idle: the interval between events is longer than tcptrace stays awake after one.
const LOADS: [(&str, u32, Option<f64>); 3] = [
    ("8 connections/s: idle in between", 200, Some(8.0)),
    ("1,000 connections/s", 5_000, Some(1_000.0)),
    ("as many as one core makes", 30_000, None),
];

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let what = What::Tool(subject::tcptrace(&bench.tcptrace, "watch --format json", Sink::Terminal { keep: true }));
    let mut table =
        Table::new("From an event to the screen", ["", "connections/s", "rows", "p50 ms", "p99 ms", "max ms"]);
    let mut json = Vec::new();
    for (name, connections, rate) in LOADS {
        bench.tell(format_args!("latency: {name}"));
        let connections = if bench.quick { connections.min(40) } else { connections };
        let orders = [Order { rate, ..Order::connections(connections) }];
        let sample = load::measure(Some(&what), &orders, &bench.folder)?;
        if sample.missing() > 0 {
            findings.faults.push(format!("watch: {} transitions missing, not counted", sample.missing()));
        }
        let latencies = latencies(&sample)?;
        let ms = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"));
        table.row(vec![
            name.to_owned(),
            format!("{:.0}", sample.rate()),
            latencies.count().to_string(),
            ms(latencies.percentile(50.0)),
            ms(latencies.percentile(99.0)),
            ms(latencies.max()),
        ]);
        json.push(figures(name, &sample, &latencies));
    }
    table.caption(
        "From the kernel's time of a transition until its row of `tcptrace watch --format json` can be read from the \
         terminal, for every row. The terminal is a pseudo-terminal."
            .to_owned(),
    );
    findings.tables.push(table);
    findings.json = json.into();
    Ok(())
}

fn figures(name: &str, sample: &Sample, latencies: &Figures) -> Value {
    json!({
        "name": name,
        "connections_per_second": sample.rate(),
        "rows": latencies.count(),
        "p50_ms": latencies.percentile(50.0),
        "p99_ms": latencies.percentile(99.0),
        "max_ms": latencies.max(),
    })
}

/// The latency of every transition of the load's sockets, in ms.
fn latencies(sample: &Sample) -> Result<Figures> {
    let taken = &sample.cost.as_ref().context("nothing has run")?.taken;
    let netns = sample.netns.first().copied().context("there was no load")?;
    Ok(taken.lines().filter_map(|(at, row)| latency(at, row, netns)).collect())
}

/// The latency of one row in this namespace. Ends of TIME_WAITs are left out: they come when their namespace ends.
fn latency(at: u64, row: &str, netns: u32) -> Option<f64> {
    let is_wanted = number(row, "netns") == Some(netns.into()) && !row.contains("\"old\":\"TIME_WAIT\"");
    let happened = number(row, "boot_ns").filter(|_| is_wanted)?;
    // The clocks' readings are a fraction of a second apart.
    Some((i128::from(at) - i128::from(happened)) as f64 / 1e6)
}

/// The first number with this name in a line of JSON.
pub(super) fn number(row: &str, name: &str) -> Option<u64> {
    let (_, after) = row.split_once(&format!("\"{name}\":"))?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"event":"transition","boot_ns":5000000,"netns":4026531840,"old":"CLOSED","new":"SYN_SENT"}"#;

    #[test]
    fn rows_of_the_load_have_a_latency() {
        assert_eq!(latency(6_500_000, ROW, 4_026_531_840), Some(1.5));
        assert_eq!(latency(6_500_000, ROW, 1), None, "somebody else's");
        let end = ROW.replace("CLOSED", "TIME_WAIT");
        assert_eq!(latency(6_500_000, &end, 4_026_531_840), None, "the end of its namespace");
        assert_eq!(latency(6_500_000, "TIME  PID", 1), None);
    }

    #[test]
    fn numbers_are_found_by_name() {
        assert_eq!(number(ROW, "boot_ns"), Some(5_000_000));
        assert_eq!(number(ROW, "old"), None);
        assert_eq!(number(ROW, "uid"), None);
    }
}
