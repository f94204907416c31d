//! Summaries of rows. Pure: rows in, values out that [`output`](crate::output) draws.

pub mod counts;
pub mod diagnose;
pub mod ports;
pub mod report;
pub mod snapshot;
pub mod timeline;
pub mod top;
pub mod when;
