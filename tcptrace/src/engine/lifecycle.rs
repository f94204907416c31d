//! The lifecycle engine: events in, transitions and connections out. Pure: no clock, no I/O.

mod config;
mod conn;
mod deadlines;
mod decide;
mod engine;
mod missing;
mod stays;
mod store;
mod stuck;
mod subflows;
mod survey;
mod tell;

#[cfg(test)]
mod tests;

pub use config::{Config, Stats};
pub(crate) use decide::{Refusal, closer_in, time_wait_refused};
pub use engine::Engine;
pub(crate) use stuck::only_listener;
pub use survey::TIME_WAIT_NS;
