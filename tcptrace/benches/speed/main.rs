//! The cost of one event in each stage that all events pass: `cargo bench -p tcptrace`.
//!
//! Elements are events, or rows where rows are printed: divide the reported time by their number for the cost of one.
//! Times are processor time.

#[path = "../../examples/synthesise/life.rs"]
mod life;

mod cpu;
mod engine;
mod printer;
mod trace;

use criterion::{Criterion, criterion_group, criterion_main};

use cpu::CpuTime;

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = engine::bench, trace::bench, printer::bench
}
criterion_main!(benches);
