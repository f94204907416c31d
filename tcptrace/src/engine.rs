//! Events in, rows out. Pure: no clock, no I/O.
//!
//! [`lifecycle`] rebuilds connections, [`filter`] decides which of them are shown, [`audit`] compares what was seen
//! with the kernel's own counters, and [`follow`] combines them for one stream, live or from a trace.

pub mod audit;
pub mod filter;
pub mod follow;
pub mod lifecycle;
