//! From rows to text.

use std::io;

use criterion::{BenchmarkId, Criterion, Throughput};
use tcptrace::engine::lifecycle::{Config, Engine};
use tcptrace::model::row::Row;
use tcptrace::model::stream::Context;
use tcptrace::output::{Format, Printed, TextOptions};

use crate::cpu::CpuTime;
use crate::life::Connection;

const CONNECTIONS: u64 = 1_000;

pub(crate) fn bench(criterion: &mut Criterion<CpuTime>) {
    let rows = rows();
    let transitions: Vec<&Row> = rows.iter().filter(|row| matches!(row, Row::Transition(_))).collect();
    let connections: Vec<&Row> = rows.iter().filter(|row| matches!(row, Row::Connection(_))).collect();
    let mut group = criterion.benchmark_group("text");
    for (name, rows) in [("transitions", transitions), ("connections", connections)] {
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| print(&rows)));
    }
}

fn rows() -> Vec<Row> {
    let (mut engine, mut rows) = (Engine::new(Config::default()), Vec::new());
    for number in 0..CONNECTIONS {
        let connection = Connection { number, at: number * 500_000 };
        connection.life().iter().for_each(|event| engine.feed(event, &mut rows));
    }
    for number in 0..CONNECTIONS {
        engine.feed(&Connection { number, at: number * 500_000 }.expiry(), &mut rows);
    }
    rows
}

fn print(rows: &[&Row]) {
    let text = TextOptions { colour: true, ..TextOptions::default() };
    let mut printer = Format::Text.printer(io::sink(), text);
    let context = Context::default();
    for row in rows {
        assert_eq!(printer.row(row, &context).expect("a sink takes everything"), Printed::Yes);
    }
    printer.flush().expect("a sink takes everything");
}
