//! tcptrace follows TCP connections to their true end, and says who closed first and how long each state lasted.
//!
//! Everything goes one way, live and from a trace:
//!
//! ```text
//! kernel --records--> kernel::probe --Event--+                       +--> output's printers (watch, connections)
//! kernel <-questions- live           --Event-+--Item--> engine --Row-+--> study (report, timeline, snapshot) --> output
//! file  --blocks----> replay --------------Item--^         |
//!                     trace::write <-------Item------------+ (record)
//! ```
//!
//! The kernel side only reports, the pure engine decides, every output only renders. A room uses only rooms above it:
//!
//! | room | is | knows nothing of |
//! | --- | --- | --- |
//! | [`model`] | words, events, rows, the stream: values | everything else |
//! | [`kernel`] | eBPF programs ([`kernel::probe`], which alone names aya), `sock_diag`, `/proc`, counters | lifecycles, formats |
//! | [`engine`] | events in, rows out | clocks, I/O, files |
//! | [`trace`] | the format, and the files that are written | lifecycles, printers |
//! | [`live`] | the kernel as a stream | formats, terminals |
//! | [`replay`] | files as a stream | formats, terminals |
//! | [`study`] | what rows come to together | where rows come from, how they are drawn |
//! | [`output`] | rows and studies in every format | where rows come from |
//! | [`cli`] | arguments, wiring, messages | - |
//!
//! `cargo xtask layers` holds the `use` lines of the sources against that table.
//!
//! # How a connection is followed beyond its last tracepoint
//!
//! `inet_sock_set_state` ends with CLOSED, when a mini-socket may have taken over. What becomes of it is told by:
//!
//! - **its timer**. `timer_start` shows that a mini-socket was made, in which substate and for how long; that it shows
//!   none is the proof that `tcp_max_tw_buckets` refused one. `timer_expire_entry` is its natural end.
//! - **the kernel's own call stack** at `timer_cancel`: whether it was killed or given more time, and by whom.
//! - **its FIN**, which turns the FIN_WAIT2 of an orphan into TIME_WAIT and is seen at `kfree_skb`, since 6.11. Before,
//!   the timer tells afterwards when it was set for the last time, and so the least that the TIME_WAIT lasted, once
//!   another one has shown how long they are set for.
//!
//! All of them carry the cookie of the full socket, which makes the two one connection. No duration is assumed anywhere.
//!
//! # Whose a connection is
//!
//! The task on the CPU is asked only where it must be the one that acts: in `connect`, `listen`, `close` and `shutdown`,
//! and at the exit of `accept`, where the new descriptor is looked up in its own table. In a soft interrupt it is whoever
//! happened to run. What is left is looked up by a walk through all descriptors, later and beside the stream.

pub mod cli;
pub mod engine;
pub mod kernel;
pub mod live;
pub mod model;
pub mod output;
pub mod replay;
pub mod study;
pub mod trace;
