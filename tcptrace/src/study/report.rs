//! What happened to the connections of a trace: how many, how they ended, where sockets piled up, whose they were and
//! where they led. Pure: connections in, a [`Report`] out.
//!
//! [`Analysis`] takes in one connection after the other, in memory that does not grow with their number, and finishes
//! into a [`Report`], which is plain data. Every output renders that and nothing else.

mod analysis;
mod counters;
mod facts;
mod finish;
mod groups;
mod histogram;
mod rows;
mod series;
mod slowest;
pub mod survival;
mod who;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::analysis::Analysis;
pub use self::facts::is_failure;
pub use self::rows::{
    Bin, By, ChurnRow, Count, CounterRow, FailureRow, Group, GroupRow, OpenRow, Options, Overview, Peak, Point,
    Property, Range, Report, SHORT_NS, STUDIED, Slow, SlowRow, StateRow, TRACKED,
};
