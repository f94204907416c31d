//! What happened to the connections of a trace: how many, how they ended, where sockets piled up, whose they were and
//! where they led. Pure: connections in, a [`Report`] out.
//!
//! [`Analysis`] takes in one connection after the other, in memory that does not grow with their number, and finishes
//! into a [`Report`], which is plain data. Every output renders that and nothing else.

mod analysis;
mod finish;
mod rows;
mod series;
mod slowest;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::analysis::Analysis;
pub use self::rows::{
    ChurnRow, Count, FailureRow, GroupRow, OpenRow, Options, Overview, Peak, Point, Property, Range, Report, Slow,
    SlowRow, StateRow,
};
pub use crate::study::counts::{Bin, By, CounterRow, Group, SHORT_NS, STUDIED, TRACKED, is_failure};
