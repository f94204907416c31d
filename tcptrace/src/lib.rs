//! tcptrace follows TCP connections to their true end, and says who closed first and how long each state lasted.
//!
//! Events go one way: eBPF programs → ring buffer → [`event::Event`] → [`lifecycle::Engine`] → rows → [`output`].
//! The kernel side only reports, the pure engine decides, every output only renders.

pub mod cli;
pub mod event;
pub mod filter;
pub mod lifecycle;
pub mod output;
pub mod probe;
pub mod tcp;
