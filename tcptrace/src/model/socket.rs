//! A socket as the kernel shows it when it is asked (`sock_diag`), and who has it.

pub use super::event::Timer;
use super::event::{Found, Multipath};
use super::tcp::Task;

/// A socket, and what only an answer to this question shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What it is. Of a connection request and of a mini-socket, the kernel shows neither user nor control group.
    pub found: Found,
    /// Inode number by which descriptors name it; 0 if there can be none.
    pub inode: u32,
    /// Bytes received and not read yet; for a listener, connections that wait to be accepted.
    pub recv_queue: u32,
    /// Bytes written and not acknowledged yet; for a listener, how many connections may wait.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Timer,
    /// When it is due, in ns from `found.at`, to the ms.
    pub timer_left_ns: u64,
    /// How often the timer has fired in vain: retransmissions or probes.
    pub retransmits: u8,
    /// It is not a socket yet, but a SYN that was answered.
    pub is_request: bool,
    /// How far its data has come, if that was asked for and it is a full socket.
    pub progress: Option<Progress>,
    /// The MPTCP connection of which it is a subflow, without its state: the kernel shows its token beside the progress,
    /// up to 6.14 to those with `CAP_NET_ADMIN` only.
    pub multipath: Option<Multipath>,
}

/// How far the data of a connection has come (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the peer has acknowledged, SYN and FIN among them.
    pub acked: u64,
    /// Bytes received, the peer's FIN among them.
    pub received: u64,
    /// How long ago the last segment came that acknowledged anything, in ms.
    pub quiet_ms: u32,
}

const _: () = assert!(size_of::<Socket>() <= 184, "there can be a million of them");

/// Who has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The process with the lowest id, of those that are preferred if there are any.
    pub task: Task,
    /// Its lowest descriptor.
    pub fd: u32,
    /// Descriptors of the socket that all processes have together.
    pub count: u32,
}
