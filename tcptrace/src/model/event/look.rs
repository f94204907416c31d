//! What the kernel shows of a socket when it is asked, and of a system call when it failed.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::Id;
use crate::model::named;
use crate::model::tcp::Task;

/// What the kernel shows of one socket when it is asked, beyond [`Found`](super::Found).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// When it was found, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// The socket.
    pub id: Id,
    /// Bytes received and not read yet, a FIN that was not read among them; for a listener, connections in its accept queue.
    pub recv_queue: u32,
    /// Bytes written and not acknowledged yet; for a listener, the limit of its accept queue.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Timer,
    /// In how many ns it is due.
    pub timer_left_ns: u64,
    /// Retransmissions or probes that went unanswered.
    pub retransmits: u8,
    /// When data last moved; `None` where the kernel was not asked for it.
    pub idle: Option<Idle>,
    /// Whether both ends use TCP timestamps; `None` where the kernel was not asked.
    pub timestamps: Option<bool>,
    /// Whether `IP_BIND_ADDRESS_NO_PORT` is set; `None` where the kernel does not show it.
    pub bind_no_port: Option<bool>,
    /// Where it is bound, if it does nothing else with its port: it does not listen, and is not connected (`bind()` alone).
    /// Nothing else tells of such a socket.
    pub bound: Option<Bound>,
}

/// The local end of a socket that has no other, and does not listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Its address; IPv4 as IPv4-mapped IPv6.
    pub ip: Ipv6Addr,
    /// Its port.
    pub port: u16,
    /// Inode number of its network namespace; `None` when unknown.
    pub netns: Option<u32>,
}

/// How long ago data last moved on a connection, in ms: as `struct tcp_info` has it at a look, or before a change of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// Since the last segment that acknowledged anything (`tcpi_last_ack_recv`); `None` where the hook does not show it.
    pub acked_ms: Option<u32>,
    /// Since data was last received (`tcpi_last_data_recv`); for a connection that never received any, since it was
    /// established.
    pub received_ms: Option<u32>,
    /// Since data was last sent (`tcpi_last_data_sent`). If it never sent any: at a look since it was established, and at
    /// a change of state `None`.
    pub sent_ms: Option<u32>,
}

impl Idle {
    /// Since data last moved in either direction, in ns.
    pub fn quiet_ns(self) -> Option<u64> {
        let ms = self.received_ms.into_iter().chain(self.sent_ms).min()?;
        Some(u64::from(ms) * 1_000_000)
    }
}

/// The timer of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timer {
    /// None runs.
    None,
    /// Sends again what was not acknowledged.
    Retransmit,
    /// Asks whether the peer is still there, or ends an orphan.
    Keepalive,
    /// Ends a mini-socket.
    TimeWait,
    /// Asks whether the peer has room again.
    Probe,
}

impl Timer {
    /// The word that `ss` has for it.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Retransmit => Some("on"),
            Self::Keepalive => Some("keepalive"),
            Self::TimeWait => Some("timewait"),
            Self::Probe => Some("persist"),
        }
    }
}
named! {
    /// A system call about sockets that can fail without a trace.
    Call {
        /// `bind`.
        Bind = "bind",
        /// `listen`.
        Listen = "listen",
        /// `accept` or `accept4`.
        Accept = "accept",
    }
}

/// A system call about a TCP socket that failed: `bind` and `listen` for want of a port, an address or a right, `accept` for
/// want of a descriptor. A thread that calls `accept` in a circle is told of once a millisecond at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedCall {
    /// When it returned, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Which call.
    pub call: Call,
    /// Its errno.
    pub errno: u16,
    /// Who called.
    pub task: Task,
    /// The descriptor that was given.
    pub fd: u32,
    /// Inode number of the socket's network namespace; `None` when unknown.
    pub netns: Option<u32>,
    /// The address and port that `bind` was given, and for other calls those of the socket; `None` for what is no address of
    /// IPv4 or IPv6.
    pub address: Option<(Ipv6Addr, u16)>,
}
