//! Whether tcptrace saw everything: compares events with the kernel's own counters. Pure.
//!
//! An audit compares counters that the kernel increments exactly once per event (`net/ipv4`, 5.8 to 6.18). It leaves
//! out counters that also count what no event shows (`OutRsts`, `ListenDrops`, most of `TcpExt`). It leaves out
//! `CurrEstab` too: stable kernels count it in two ways, and their version does not say which. It reports the counters
//! of [`Unseen`](crate::model::counters::Unseen) without comparing them.

mod compare;
mod tally;

#[cfg(test)]
mod tests;

pub use self::compare::{Scope, compare};
pub use self::tally::Tally;
