//! What one event costs in each of the places that all events go through: `cargo bench -p tcptrace`.
//!
//! Elements are events, or rows where rows are printed: the time that is told, divided by their number, is that of one.

#[path = "../../examples/synthesise/life.rs"]
mod life;

mod decoder;
mod engine;
mod printer;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, engine::bench, decoder::bench, printer::bench);
criterion_main!(benches);
