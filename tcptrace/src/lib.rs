//! tcptrace follows TCP connections to their true end, and says who closed first and how long each state lasted.
//!
//! Data flows one way, live and from a trace:
//!
//! ```text
//! kernel --records--> kernel::probe --Event--+                       +--> output's printers (watch, connections)
//! kernel <-questions- live           --Event-+--Item--> engine --Row-+--> study (report, timeline, snapshot) --> output
//! file  --blocks----> replay --------------Item--^         |
//!                     trace::write <-------Item------------+ (record)
//! ```
//!
//! The kernel side reports, the pure engine decides, the outputs render. A room uses only rooms above it:
//!
//! | room | is | knows nothing of |
//! | --- | --- | --- |
//! | [`model`] | words, events, rows, the stream: values | everything else |
//! | [`kernel`] | eBPF programs ([`kernel::probe`], which alone names aya), `sock_diag`, `/proc`, counters, privileges | lifecycles, formats |
//! | [`engine`] | events in, rows out | clocks, I/O, files |
//! | [`trace`] | the format, and the files that are written | lifecycles, printers |
//! | [`live`] | the kernel as a stream, and the helper process that asks the kernel | formats, terminals |
//! | [`replay`] | files as a stream | formats, terminals |
//! | [`study`] | sums, reports and pictures of many rows | where rows come from, how they are drawn |
//! | [`output`] | rows and studies in every format | where rows come from |
//! | [`cli`] | arguments, wiring, messages | - |
//!
//! `cargo xtask layers` checks the `use` lines of the sources against this table.
//!
//! # How a connection is followed beyond its last tracepoint
//!
//! `inet_sock_set_state` last reports CLOSED, when a mini-socket may have taken over. Three sources show its fate:
//!
//! - **its timer**. `timer_start` shows that a mini-socket was made, its substate and its timeout. Without one,
//!   `tcp_max_tw_buckets` has refused the mini-socket. `timer_expire_entry` is its natural end.
//! - **the kernel's own call stack** at `timer_cancel`: whether it was killed or given more time, and by whom.
//! - **its FIN**, which turns the FIN_WAIT2 of an orphan into TIME_WAIT. `kfree_skb` shows it since 6.11. On older
//!   kernels, the expiry of the timer shows when it was last set, once another connection has shown how long a TIME_WAIT
//!   is set for. The time since then is a lower bound.
//!
//! Where programs can be attached to the kernel's functions, `__inet_twsk_schedule` shows that one was made or was given
//! more time, which each FIN does, and `inet_twsk_kill` shows its end with the call stack. They run for nothing else.
//!
//! Each of them carries the cookie of the full socket, which joins both sockets into one connection. tcptrace
//! assumes no duration.
//!
//! # Who owns a connection
//!
//! The task on the CPU counts as the owner only where it must be the one that acts: in `connect`, `listen`, `close` and
//! `shutdown`, and where it accepts: in `security_sock_graft`, where the kernel gives it the socket and programs can be
//! attached, else at the exit of `accept`, where its own descriptor table has the new descriptor. In a soft interrupt, that
//! task may be unrelated. A later walk through all descriptors finds the remaining owners, beside the stream.

pub mod cli;
pub mod engine;
pub mod kernel;
pub mod live;
pub mod model;
pub mod output;
pub mod replay;
pub mod study;
pub mod trace;
