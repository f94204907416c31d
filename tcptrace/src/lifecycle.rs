//! The lifecycle engine: events in, transitions and connections out. Pure: no clock, no I/O.

mod conn;
mod decide;
mod engine;
pub mod row;
mod stuck;
mod survey;

#[cfg(test)]
mod tests;

pub(crate) use decide::{Refusal, closer_in, time_wait_refused};
pub use engine::{Config, Engine, Stats};
pub use row::{Connection, Held, Identity, Loss, Owner, Reason, Row, Stay, Stuck, Totals, Transition};
pub(crate) use stuck::only_listener;
pub use survey::TIME_WAIT_NS;
