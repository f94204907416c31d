//! Helpers for end-to-end tests.
//!
//! A test enters a [`Namespace`] of its own, makes connections there with [`sockets`], disturbs them with [`faults`],
//! and checks what the real binary reported: a [`Life`] has the rows of one connection from `tcptrace watch` and
//! `tcptrace connections`. One [`Tracer`] of each kind serves all tests of a process, which run at the same time. Tests
//! of owners make connections with an [`Actor`], which is a process of its own.
//!
//! [`test`] replaces the standard `#[test]`: [`attempt::skip`] can skip such a test from anywhere.
//!
//! A test waits for events, never for a guessed time. Where it sleeps, the sleep is the duration to be measured.
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
