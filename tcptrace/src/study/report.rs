//! What happened to the connections of a trace: how many, how they ended, where sockets piled up, who owned them, and
//! where they led. Pure: connections in, a [`Report`] out.
//!
//! [`Analysis`] receives one connection at a time, in memory that does not grow with their number, and finishes into a
//! [`Report`]. That is plain data, and all that outputs render.

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
    ChurnRow, Count, FailureRow, FiredRow, GroupRow, OpenRow, Options, Overview, Peak, Point, Property, Range, Report,
    Slow, SlowRow, StateRow,
};
pub use crate::study::counts::{Bin, By, CounterRow, Group, SHORT_NS, STUDIED, TRACKED, is_failure};
