//! The rate of connections that is kept: each tool in turn under the same load, between two runs without a tool.

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::generator::{Order, TRANSITIONS};
use super::load::{self, Sample};
use super::polling::{STATES, Seen};
use super::running::{Cost, DidNotAttach};
use super::stats::Figures;
use super::subject::{self, Sink, Subject, What};
use super::table::{Findings, Table, interleaved, mib};

/// Rounds in which other tools run, too. They are slow, and their rates differ clearly.
const PEER_ROUNDS: u32 = 3;
/// tcptrace's commands on one core.
const TCPTRACES: [&str; 4] = ["record", "watch", "watch --format json", "connections"];
/// Duration of a load on two cores.
const SECONDS: f64 = 1.5;
/// A number of connections that no generator reaches in a second.
const MOST_A_SECOND: f64 = 100_000.0;

/// A subject with its samples, and the rates without a tool before and after each.
struct Series {
    subject: Subject,
    samples: Vec<(Sample, f64)>,
    /// Why the tool could not be measured.
    failed: Option<DidNotAttach>,
}

/// The parameters of a table.
struct Setting {
    name: &'static str,
    orders: Vec<Order>,
    subjects: Vec<(Subject, u32)>,
}

/// All series of one table, and the samples without a tool.
struct Measured {
    setting: Setting,
    series: Vec<Series>,
    nothing: Vec<Sample>,
}

/// Makes both tables.
pub(super) fn measure(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    let one = measure_setting(one_core(bench, skipped), bench, findings)?;
    skipped.extend(one.failed());
    findings.tables.push(one_core_table(&one, bench));
    let mut json = vec![one.json()];
    if available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        let two = measure_setting(two_cores(bench), bench, findings)?;
        findings.tables.push(two_cores_table(&two, bench));
        json.push(two.json());
    } else {
        skipped.push("the rate with two cores saturated: there is one CPU only".to_owned());
    }
    findings.json = json.into();
    Ok(())
}

fn tcptraces(bench: &Bench, commands: &[&str]) -> Vec<(Subject, u32)> {
    let subject = |&words: &&str| Subject {
        name: format!("tcptrace {words}"),
        what: What::Tool(subject::tcptrace(&bench.tcptrace, words, Sink::File)),
    };
    commands.iter().map(subject).map(|subject| (subject, bench.rounds)).collect()
}

fn one_core(bench: &Bench, skipped: &mut Vec<String>) -> Setting {
    let mut subjects = tcptraces(bench, &TCPTRACES);
    if !bench.quick {
        let peers = subject::peers(Sink::File, skipped);
        subjects.extend(peers.into_iter().map(|peer| (peer, PEER_ROUNDS.min(bench.rounds))));
    }
    let orders = vec![Order::connections(bench.connections)];
    Setting { name: "one core", orders, subjects }
}

fn two_cores(bench: &Bench) -> Setting {
    let seconds = if bench.quick { 0.2 } else { SECONDS };
    // Never reached: the time limit comes first.
    let connections = (seconds * MOST_A_SECOND) as u32;
    let orders = [0, 1].map(|cpu| Order { connections, cpu, seconds: Some(seconds), rate: None }).to_vec();
    let subjects = tcptraces(bench, &["record", "watch", "connections"]);
    Setting { name: "two cores", orders, subjects }
}

fn measure_setting(mut setting: Setting, bench: &Bench, findings: &mut Findings) -> Result<Measured> {
    let rounds: Vec<_> = setting.subjects.iter().map(|(_, rounds)| *rounds).collect();
    let subjects = std::mem::take(&mut setting.subjects);
    let mut series: Vec<_> = subjects.into_iter().map(|(subject, _)| Series::of(subject)).collect();
    let nothing =
        || load::measure(None, &setting.orders, &bench.folder).context("cannot measure the load without a tool");
    let mut nothings = Vec::new();
    for (round, first) in (0..bench.rounds).zip((0..series.len()).cycle()) {
        let mut before = nothing()?;
        for index in (first..series.len()).chain(0..first).filter(|&index| round < rounds[index]) {
            let Series { subject, samples, failed } = &mut series[index];
            if failed.is_some() {
                continue;
            }
            let sample = load::measure(Some(&subject.what), &setting.orders, &bench.folder);
            let sample = match sample.with_context(|| format!("cannot measure `{}`", subject.name)) {
                Ok(sample) => sample,
                Err(error) => {
                    // Nothing that it did before counts, either.
                    (*failed, *samples) = (Some(error.downcast()?), Vec::new());
                    continue;
                }
            };
            let after = nothing()?;
            let kept = sample.rate() / f64::midpoint(before.rate(), after.rate());
            bench.tell(format_args!(
                "{}, round {}/{}: {}: {:.1} % of the connections",
                setting.name,
                round + 1,
                rounds[index],
                subject.name,
                100.0 * kept
            ));
            if sample.missing() > 0 {
                findings.faults.push(format!(
                    "{}: {} transitions missing, not counted",
                    subject.name,
                    sample.missing()
                ));
            }
            samples.push((sample, kept));
            nothings.push(std::mem::replace(&mut before, after));
        }
        nothings.push(before);
    }
    Ok(Measured { setting, series, nothing: nothings })
}

impl Series {
    fn of(subject: Subject) -> Self {
        Self { subject, samples: Vec::new(), failed: None }
    }
}

impl Measured {
    /// The tools that did not attach, each with the reason.
    fn failed(&self) -> impl Iterator<Item = String> {
        let failed = |series: &Series| Some(format!("{}: {}", series.subject.name, series.failed.as_ref()?));
        self.series.iter().filter_map(failed)
    }

    fn json(&self) -> Value {
        let sample = |(sample, kept): &(Sample, f64)| {
            let mut json = sample.json();
            json["rate_kept"] = (*kept).into();
            json
        };
        let series = |series: &Series| json!({ "name": series.subject.name, "rounds": series.samples.iter().map(sample).collect::<Vec<_>>() });
        json!({
            "name": self.setting.name,
            "nothing": self.nothing.iter().map(Sample::json).collect::<Vec<_>>(),
            "subjects": self.series.iter().map(series).collect::<Vec<_>>(),
        })
    }

    fn nothing_rate(&self) -> String {
        self.nothing.iter().map(Sample::rate).collect::<Figures>().spread(0)
    }

    /// The rate, and the share that was kept.
    fn rates(&self, series: &Series) -> [String; 2] {
        let rate: Figures = series.samples.iter().map(|(sample, _)| sample.rate()).collect();
        let kept: Figures = series.samples.iter().map(|(_, kept)| 100.0 * kept).collect();
        [rate.spread(0), kept.spread_of(1, " %")]
    }
}

fn one_core_table(measured: &Measured, bench: &Bench) -> Table {
    let mut table = Table::new(
        "Rate kept, one core saturated",
        [
            "",
            "connections/s",
            "rate kept",
            "CPU s per 1 M transitions (user)",
            "bytes per transition",
            "peak RSS",
            "lines",
            "lost",
        ],
    );
    let none = ["–"; 5].map(str::to_owned);
    table.row([vec!["no tool".to_owned(), measured.nothing_rate(), "100 %".to_owned()], none.to_vec()].concat());
    for series in &measured.series {
        let name = [series.subject.name.clone()];
        if series.failed.is_some() {
            let row = [&name[..], &["–".to_owned(), "did not attach".to_owned()], &none].concat();
            table.row(row);
            continue;
        }
        table.row([&name[..], &measured.rates(series), &costs(&series.samples)].concat());
    }
    let with_peers = measured.series.len() > TCPTRACES.len();
    table.caption(format!(
        "{} of {} loopback connections ({TRANSITIONS} transitions each) by one thread on CPU 0{}; median (min–max). Each \
         run is compared with the runs without a tool before and after it. Output goes to files. CPU is the tool's \
         user + system time; bytes are what it wrote. RSS is the largest, lines the median, lost the sum of what the \
         tool reports.{}",
        interleaved(bench.rounds),
        bench.connections,
        if with_peers { format!(", {} for other tools", PEER_ROUNDS.min(bench.rounds)) } else { String::new() },
        polled(&measured.series),
    ));
    table
}

/// CPU time, bytes, memory, lines and losses.
fn costs(samples: &[(Sample, f64)]) -> [String; 5] {
    let costs: Vec<&Cost> = samples.iter().filter_map(|(sample, _)| sample.cost.as_ref()).collect();
    let transitions = samples.iter().map(|(sample, _)| sample.transitions()).sum::<u64>() as f64;
    let a_million = |time: Duration| time.as_secs_f64() * 1e6 / transitions;
    let written = costs.iter().map(|cost| cost.written).sum::<u64>() as f64;
    let lines: Figures = costs.iter().map(|cost| cost.lines as f64).collect();
    let peak = costs.iter().map(|cost| cost.peak_rss).max().unwrap_or(0);
    [
        format!(
            "{:.2} ({:.2})",
            a_million(costs.iter().map(|cost| cost.cpu).sum()),
            a_million(costs.iter().map(|cost| cost.user).sum())
        ),
        format!("{:.1}", written / transitions),
        // A tool that ends at once may be gone before its memory can be read.
        if peak > 0 { mib(peak as f64) } else { "–".to_owned() },
        format!("{:.0}", lines.median().unwrap_or(0.0)),
        costs.iter().map(|cost| cost.lost).sum::<u64>().to_string(),
    ]
}

/// The share of states that polling saw.
fn polled(series: &[Series]) -> String {
    let samples = series.iter().flat_map(|series| &series.samples);
    let all: Vec<_> = samples.filter_map(|(sample, _)| Some((sample.polled.as_ref()?, sample.connections()))).collect();
    let connections: f64 = all.iter().map(|(_, connections)| f64::from(*connections)).sum();
    if connections == 0.0 {
        return String::new();
    }
    let sum = |count: fn(&Seen) -> usize| all.iter().map(|(seen, _)| count(seen)).sum::<usize>() as f64;
    let (states, time_waits) = (sum(Seen::states), sum(Seen::time_waits));
    let others = connections * f64::from(STATES - 1);
    format!(
        " Polling `ss` saw {:.1} % of the TIME_WAITs, {:.3} % of the other states that sockets were in, and no owner \
         ({:.0} polls per round, {:.0} ms each).",
        100.0 * time_waits / connections,
        100.0 * (states - time_waits) / others,
        sum(|seen| seen.looks.len()) / all.len() as f64,
        1000.0 * all.iter().flat_map(|(seen, _)| &seen.looks).map(|look| look.seconds).sum::<f64>()
            / sum(|seen| seen.looks.len()),
    )
}

fn two_cores_table(measured: &Measured, bench: &Bench) -> Table {
    let mut table = Table::new("Rate kept, two cores saturated", ["", "connections/s", "rate kept", "lost"]);
    table.row(vec!["no tool".to_owned(), measured.nothing_rate(), "100 %".to_owned(), "–".to_owned()]);
    for series in &measured.series {
        let [.., lost] = costs(&series.samples);
        let [rate, kept] = measured.rates(series);
        table.row(vec![series.subject.name.clone(), rate, kept, lost]);
    }
    let seconds = measured.setting.orders.first().and_then(|order| order.seconds).unwrap_or(0.0);
    table.caption(format!(
        "{} of {seconds} s, with one generator on CPU 0 and one on CPU 1, each in a network namespace of its own. The \
         machine has {} CPUs, so the tool takes its CPU time from the generators.",
        interleaved(bench.rounds),
        available_parallelism().map_or(0, usize::from),
    ));
    table
}

#[cfg(test)]
mod tests {
    use super::super::generator::Load;
    use super::*;

    fn sample(seconds: f64, lost: u64) -> Sample {
        let cost = Cost {
            cpu: Duration::from_millis(40),
            user: Duration::from_millis(20),
            written: 800_004,
            peak_rss: 5 << 20,
            lines: 400_000,
            lost,
            ..Cost::default()
        };
        Sample { loads: vec![Load { connections: 40_000, seconds }], netns: Vec::new(), cost: Some(cost), polled: None }
    }

    #[test]
    fn costs_are_a_transition() {
        let samples = [(sample(2.0, 1), 0.5), (sample(4.0, 2), 0.5)];
        assert_eq!(costs(&samples), ["0.10 (0.05)", "2.0", "5.0 MiB", "400000", "3"]);
    }

    #[test]
    fn rates_are_absolute_and_relative() {
        let subject = Subject { name: "a tool".to_owned(), what: What::Polling("ss".into()) };
        let series = Series { samples: vec![(sample(2.0, 0), 0.875)], ..Series::of(subject) };
        let setting = Setting { name: "one core", orders: Vec::new(), subjects: Vec::new() };
        let measured = Measured { setting, series: vec![series], nothing: Vec::new() };
        assert_eq!(measured.rates(&measured.series[0]), ["20000 (20000–20000)", "87.5 % (87.5–87.5)"]);
    }
}
