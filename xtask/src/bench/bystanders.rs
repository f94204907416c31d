//! What tracing costs those who open and close nothing: a system call, and messages over connections that stay.

mod servers;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::holder::in_namespace;
use super::pairs::{Pace, Series, interleave};
use super::running::Running;
use super::subject::{self, Sink};
use super::table::{Findings, Table};
use super::transition::UNDISTURBED;
use super::worker::{self, Args, Deed, MESSAGE};
use servers::{Server, nginx, redis};

/// Calls of a measurement.
const CALLS: u32 = 1_000_000;
/// Round trips of a measurement.
const ROUND_TRIPS: u32 = 20_000;
/// Connections to a server, which stay.
const CONNECTIONS: u32 = 8;

/// What happens beside the tracer.
enum Load {
    Worker(Args),
    Server(Server),
}

/// A load with its name, or why there is none.
struct Bystander {
    name: String,
    load: Result<Load, &'static str>,
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings, skipped: &mut Vec<String>) -> Result<()> {
    // Servers and clients have a network namespace of their own; so has each worker.
    let (bystanders, series) = in_namespace(|| {
        let bystanders = bystanders(bench)?;
        let series = measure_all(bench, &bystanders)?;
        Ok((bystanders, series))
    })?;
    let columns = ["", "pairs", "ns without", "ns added", UNDISTURBED, "% added"];
    let mut table = Table::new("Bystanders", columns);
    let mut loads = series.loads.iter();
    let mut json = Vec::new();
    for Bystander { name, load } in &bystanders {
        if let Err(reason) = load {
            table
                .row([&[name.as_str(), "0", *reason], &["–"; 3][..]].concat().into_iter().map(str::to_owned).collect());
            skipped.push(format!("{name}: {reason} (`cargo xtask setup --bench` installs it on Debian)"));
            continue;
        }
        let pairs = loads.next().cloned().unwrap_or_default();
        let figures = [pairs.without(), pairs.added(1), pairs.added_undisturbed(1)].map(|figures| figures.quartiles(0));
        let count = [name.clone(), pairs.count().to_string()];
        table.row([&count[..], &figures, &[pairs.share().quartiles(1)]].concat());
        json.push(json!({ "name": name, "pairs": pairs.json() }));
    }
    table.caption(format!(
        "What `tcptrace record` adds to each operation; median (quartiles) of interleaved pairs: one measurement beside \
         it, and one without right before and right after. Undisturbed is the tenth percentile of short batches. Calls \
         and round trips are made by one thread on CPU 0; a round trip is {MESSAGE} bytes over loopback, and as many \
         back. Servers run on CPU 0 and their clients on CPU 1, with {CONNECTIONS} connections \
         that stay; a request takes the measured time divided by the number of requests."
    ));
    findings.tables.push(table);
    findings.json = Value::from(json);
    Ok(())
}

fn bystanders(bench: &Bench) -> Result<Vec<Bystander>> {
    let worker = |name: &str, deed, count| Bystander {
        name: name.to_owned(),
        load: Ok(Load::Worker(Args::times(deed, bench.times_of(count)))),
    };
    let mut all = vec![
        worker("getppid, a call", Deed::Getppid, CALLS),
        worker("ping-pong over one connection, a round trip", Deed::PingPong, ROUND_TRIPS),
    ];
    for (name, server) in
        [("redis-benchmark GET, a request", redis(bench)?), ("wrk and nginx, a request", nginx(bench)?)]
    {
        all.push(Bystander { name: name.to_owned(), load: server.map(Load::Server) });
    }
    Ok(all)
}

fn measure_all(bench: &Bench, bystanders: &[Bystander]) -> Result<Series> {
    let tool = subject::tcptrace(&bench.tcptrace, "record", Sink::File);
    let paces = || -> Result<Vec<Pace>> {
        let loads = bystanders.iter().filter_map(|bystander| Some((&bystander.name, bystander.load.as_ref().ok()?)));
        let pace = |(name, load): (&String, &Load)| {
            let pace = match load {
                Load::Worker(args) => worker::measure(&[*args]),
                Load::Server(server) => server.measure(),
            };
            pace.with_context(|| format!("cannot measure `{name}`"))
        };
        loads.map(pace).collect()
    };
    let mut count = 0;
    let mut series = interleave(&[(tool, bench.pairs)], |tool| {
        let Some(tool) = tool else { return paces() };
        count += 1;
        bench.tell(format_args!("bystanders, pair {count}/{}", bench.pairs));
        let running = Running::attach(tool, &bench.folder)?;
        let paces = paces()?;
        running.finish()?;
        Ok(paces)
    })?;
    series.pop().context("nothing was measured")
}
