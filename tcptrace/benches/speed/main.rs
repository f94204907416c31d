//! What one event costs in each of the places that all events go through: `cargo bench -p tcptrace`.
//!
//! Elements are events, or rows where rows are printed: the time that is told, divided by their number, is that of one.
//! It is time on the processor.

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
