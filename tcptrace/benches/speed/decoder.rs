//! From a trace in memory to events.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tcptrace::trace::{Encoder, Item, Reader};

use crate::cpu::CpuTime;
use crate::life::Connection;

const CONNECTIONS: u64 = 10_000;
const BLOCK: usize = 256 << 10;

pub(crate) fn bench(criterion: &mut Criterion<CpuTime>) {
    let (trace, events) = trace();
    let mut group = criterion.benchmark_group("trace");
    group.throughput(Throughput::Elements(events));
    group.bench_function("decode", |bencher| bencher.iter(|| assert_eq!(decode(&trace), events)));
}

/// A trace, and how many events are in it.
fn trace() -> (Vec<u8>, u64) {
    let mut encoder = Encoder::new([7; 16]).expect("memory for packing");
    let (mut trace, mut events) = (Vec::new(), 0);
    for number in 0..CONNECTIONS {
        for event in (Connection { number, at: number * 500_000 }).life() {
            encoder.push(&Item::Event(event)).expect("it can be packed");
            events += 1;
        }
        if encoder.len() >= BLOCK || number + 1 == CONNECTIONS {
            trace.extend_from_slice(&encoder.finish(0).expect("it can be packed"));
        }
    }
    (trace, events)
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
