//! From events to a trace in memory, and back.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tcptrace::model::event::Event;
use tcptrace::model::stream::Item;
use tcptrace::trace::{Encoder, Reader};

use crate::cpu::CpuTime;
use crate::life::Connection;

const CONNECTIONS: u64 = 10_000;
/// As `record` makes them.
const BLOCK: usize = 64 << 10;

pub(crate) fn bench(criterion: &mut Criterion<CpuTime>) {
    let connections = (0..CONNECTIONS).map(|number| Connection { number, at: number * 500_000 });
    let events: Vec<Event> = connections.flat_map(Connection::life).collect();
    let trace = encode(&events);
    let mut group = criterion.benchmark_group("trace");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(encode(&events))));
    group.bench_function("decode", |bencher| bencher.iter(|| assert_eq!(decode(&trace), events.len() as u64)));
}

fn encode(events: &[Event]) -> Vec<u8> {
    let mut encoder = Encoder::new([7; 16]).expect("memory for packing");
    let mut trace = Vec::new();
    for event in events {
        encoder.push(&Item::Event(*event)).expect("it can be packed");
        if encoder.len() >= BLOCK {
            trace.extend_from_slice(&encoder.finish(0).expect("it can be packed"));
        }
    }
    trace.extend_from_slice(&encoder.finish(0).expect("it can be packed"));
    trace
}

fn decode(trace: &[u8]) -> u64 {
    let mut reader = Reader::new(trace).expect("memory for unpacking");
    let (mut items, mut events) = (Vec::new(), 0);
    while reader.next(|_| true, &mut items).expect("bytes can be read").is_some() {
        events += black_box(&items).len() as u64;
        items.clear();
    }
    events
}
