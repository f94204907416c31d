//! Every way in which a TCP connection begins and ends, made on the running kernel and reported by the real program.
//!
//! Needs root, `ip`, `nft` and `ss`. All tests run at the same time and most wait for a TIME_WAIT of a minute:
//! `cargo test -p tcptrace-tests --test live -- --test-threads 64`.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

mod audit;
mod basic;
mod capture;
mod closing;
mod confined;
mod detached;
mod diagnose;
mod families;
mod filters;
mod floods;
mod groups;
mod idle;
mod link_local;
mod mptcp;
mod names;
mod odd;
mod opening;
mod orphans;
mod owners;
mod ports;
mod record;
mod resets;
mod running;
mod snapshot;
mod sockmap;
mod stuck;
mod time_wait;
mod timeouts;
mod top;
mod unreported;
mod without;
mod witness;

/// Starts a process that plays a part: `TCPTRACE_TEST_ACTOR`, otherwise the actor that Cargo built beside the test.
fn actor(name: impl AsRef<std::ffi::OsStr>, role: &[&str]) -> tcptrace_tests::Actor {
    let program = std::env::var("TCPTRACE_TEST_ACTOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_actor").to_owned());
    tcptrace_tests::Actor::start(&program, name, role)
}
