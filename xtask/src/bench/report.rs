//! The table and the JSON of a benchmark.

use std::fmt::Write as _;
use std::thread::available_parallelism;
use std::time::Duration;

use serde_json::{Value, json};

use super::generator::TRANSITIONS;
use super::measure::{Cost, Sample};
use super::{Args, Series};
use crate::host;

/// A table in Markdown, with a line on how it came about. The first series is the baseline.
pub(super) fn markdown(series: &[Series], args: &Args) -> String {
    let mut table = String::from(
        "| | connections/s, median (min–max) | of nothing | CPU s per 1 M transitions (user) | bytes a transition | peak RSS | lines | lost |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for each in series {
        let baseline = series.first().map(|first| first.samples.as_slice()).unwrap_or_default();
        table.push_str(&row(each, baseline));
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        table,
        "\nLinux {}, {} CPUs; {} interleaved rounds of {} loopback connections ({} transitions each) by one thread on \
         CPU 0; output to files. CPU is the tool's user + system time; `of nothing` is the median over the rounds; \
         bytes are what it wrote; RSS, lines and lost (as the tool says) are the largest, the median and the sum.",
        host::kernel_release(),
        available_parallelism().map_or(0, usize::from),
        args.rounds,
        args.connections,
        TRANSITIONS,
    );
    table
}

fn row(series: &Series, baseline: &[Sample]) -> String {
    let rates = sorted(series.samples.iter().map(|sample| sample.load.rate()));
    let shares = sorted(series.samples.iter().zip(baseline).map(|(s, base)| 100.0 * s.load.rate() / base.load.rate()));
    let (min, max) = (rates.first().copied().unwrap_or(0.0), rates.last().copied().unwrap_or(0.0));
    let rate = format!("{:.0} ({min:.0}–{max:.0})", median(&rates));
    format!("| {} | {rate} | {:.1} % | {} |\n", series.subject.name, median(&shares), costs(&series.samples))
}

fn costs(samples: &[Sample]) -> String {
    let costs: Vec<&Cost> = samples.iter().filter_map(|sample| sample.cost.as_ref()).collect();
    if costs.is_empty() {
        return "– | – | – | – | –".to_owned();
    }
    let cpu: Duration = costs.iter().map(|cost| cost.cpu).sum();
    let user: Duration = costs.iter().map(|cost| cost.user).sum();
    let written: u64 = costs.iter().map(|cost| cost.written).sum();
    let transitions: f64 = samples.iter().map(|sample| f64::from(sample.load.connections * TRANSITIONS)).sum();
    let rss = costs.iter().map(|cost| cost.peak_rss).max().unwrap_or(0);
    let mut lines: Vec<_> = costs.iter().map(|cost| cost.lines).collect();
    lines.sort_unstable();
    let lines = lines.get(lines.len() / 2).copied().unwrap_or(0);
    let lost: u64 = costs.iter().map(|cost| cost.lost).sum();
    let a_million = |time: Duration| time.as_secs_f64() * 1e6 / transitions;
    let (cpu, user, bytes) = (a_million(cpu), a_million(user), written as f64 / transitions);
    format!("{cpu:.2} ({user:.2}) | {bytes:.1} | {} MiB | {lines} | {lost}", rss.div_ceil(1 << 20))
}

pub(super) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted `values`; of two middles, their mean.
pub(super) fn median(values: &[f64]) -> f64 {
    let half = values.len() / 2;
    match (values.get(half.wrapping_sub(1)), values.get(half)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => f64::midpoint(*below, *above),
        (_, Some(middle)) => *middle,
        _ => 0.0,
    }
}

/// Every measurement.
pub(super) fn json(series: &[Series], args: &Args) -> String {
    let subjects: Vec<_> = series
        .iter()
        .map(|each| json!({ "name": each.subject.name, "rounds": each.samples.iter().map(sample).collect::<Vec<_>>() }))
        .collect();
    let document = json!({
        "kernel": host::kernel_release(),
        "rounds": args.rounds,
        "connections": args.connections,
        "transitions_per_connection": TRANSITIONS,
        "subjects": subjects,
    });
    format!("{document:#}\n")
}

fn sample(sample: &Sample) -> Value {
    let cost = sample.cost.as_ref().map(|cost| {
        json!({
            "cpu_seconds": cost.cpu.as_secs_f64(),
            "user_seconds": cost.user.as_secs_f64(),
            "written_bytes": cost.written,
            "peak_rss_bytes": cost.peak_rss,
            "lines": cost.lines,
            "lost": cost.lost,
        })
    });
    json!({ "connections": sample.load.connections, "seconds": sample.load.seconds, "cost": cost })
}

#[cfg(test)]
mod tests {
    use super::super::generator::Load;
    use super::super::subject::Subject;
    use super::*;

    fn sample(seconds: f64, lost: Option<u64>) -> Sample {
        let cost = |lost| Cost {
            cpu: Duration::from_millis(40),
            user: Duration::from_millis(20),
            written: 800_000,
            peak_rss: 5 << 20,
            lines: 400_000,
            lost,
        };
        Sample { load: Load { connections: 40_000, seconds }, cost: lost.map(cost) }
    }

    #[test]
    fn a_row_compares_each_round_with_the_baseline_of_the_same_round() {
        let baseline = [sample(1.0, None), sample(2.0, None)];
        let subject = Subject { name: "tool", tool: None };
        let series = Series { subject, samples: vec![sample(2.0, Some(1)), sample(4.0, Some(2))] };
        let expected = "| tool | 15000 (10000–20000) | 50.0 % | 0.10 (0.05) | 2.0 | 5 MiB | 400000 | 3 |\n";
        assert_eq!(row(&series, &baseline), expected);
    }

    #[test]
    fn the_baseline_has_no_costs() {
        let samples = vec![sample(1.0, None)];
        let series = Series { subject: Subject { name: "nothing", tool: None }, samples };
        let expected = "| nothing | 40000 (40000–40000) | 100.0 % | – | – | – | – | – |\n";
        assert_eq!(row(&series, &[sample(1.0, None)]), expected);
    }

    #[test]
    fn medians() {
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
