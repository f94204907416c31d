//! A socket as the kernel shows it on request (`sock_diag`), and who holds it.

pub use super::event::Timer;
use super::event::{Found, Multipath};
use super::tcp::Task;

/// A socket, with the facts that only this request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What it is. For a connection request and a mini-socket, the kernel shows neither user nor control group.
    pub found: Found,
    /// Inode number by which descriptors name it; 0 if it can have none.
    pub inode: u32,
    /// Bytes received and not read yet; for a listener, connections in the accept queue.
    pub recv_queue: u32,
    /// Bytes written and not acknowledged yet; for a listener, the size of its accept queue.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Timer,
    /// Time until it is due, in ns from `found.at`, to the ms.
    pub timer_left_ns: u64,
    /// How often the timer has fired in vain: retransmissions or probes.
    pub retransmits: u8,
    /// It is not a socket yet, but a SYN that the kernel answered.
    pub is_request: bool,
    /// Progress of its data, if requested, and if it is a full socket.
    pub progress: Option<Progress>,
    /// The MPTCP connection that it is a subflow of, without its state. The kernel shows its token beside the progress,
    /// up to 6.14 only with `CAP_NET_ADMIN`.
    pub multipath: Option<Multipath>,
}

/// Progress of a connection's data (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the peer has acknowledged, SYN and FIN among them.
    pub acked: u64,
    /// Bytes received, the peer's FIN among them.
    pub received: u64,
    /// Time since the last segment that acknowledged anything, in ms.
    pub quiet_ms: u32,
}

const _: () = assert!(size_of::<Socket>() <= 184, "there can be a million of them");

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The process with the lowest id, a preferred one if possible.
    pub task: Task,
    /// Its lowest descriptor.
    pub fd: u32,
    /// Number of descriptors of the socket, over all processes.
    pub count: u32,
}
