//! What the whole-program tests stand on.
//!
//! A test enters a [`Namespace`] of its own, makes connections there with [`sockets`], disturbs them with [`faults`], and
//! then asks what the real binary reported: a [`Life`] is one connection as `tcptrace watch` and `tcptrace connections`
//! told it. One [`Tracer`] of each kind serves all tests of a process, which run at the same time. Where it matters whose
//! a connection is, an [`Actor`] makes it: a process of its own.
//!
//! [`test`] takes the place of the standard `#[test]`: such a test can be skipped by [`attempt::skip`], from anywhere.
//!
//! A test waits for events, never for a guessed time. Where it sleeps, the sleep is the length that is to be measured.
#![expect(clippy::panic, reason = "a panic is how a test fails")]

pub mod ability;
pub mod actor;
pub mod attempt;
pub mod clock;
pub mod faults;
pub mod life;
pub mod namespace;
pub mod object;
pub mod process;
pub mod program;
pub mod sockets;
pub mod tracer;
pub mod witness;
pub mod zoo;

pub use actor::Actor;
pub use clock::TimeWaitClock;
pub use life::Life;
pub use namespace::Namespace;
pub use sockets::{End, pair};
pub use tcptrace_tests_macro::test;
pub use tracer::Tracer;
pub use witness::Witness;
