//! tcptrace follows TCP connections to their true end, and says who closed first and how long each state lasted.
//!
//! Events go one way: eBPF programs → ring buffer → [`event::Event`] → [`lifecycle::Engine`] → rows → [`output`].
//! The kernel side only reports, the pure engine decides, every output only renders. What was there before, what a loss
//! has hidden and who holds what comes from [`existing`], as events like all others; [`snapshot`] shows just that.
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

pub mod audit;
pub mod cli;
pub mod counters;
pub mod event;
pub mod existing;
pub mod export;
pub mod filter;
pub mod follow;
pub mod lifecycle;
pub mod names;
pub mod output;
pub mod probe;
pub mod report;
pub mod snapshot;
pub mod tcp;
pub mod timeline;
pub mod trace;
