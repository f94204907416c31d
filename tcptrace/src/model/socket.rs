//! A socket as the kernel shows it on request (`sock_diag`), and who holds it.

pub use super::event::Timer;
use super::event::{Bound, Found, Idle, Inspected, Multipath};
use super::tcp::State;
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
    /// Whether `IP_BIND_ADDRESS_NO_PORT` is set; `None` where the kernel does not show it (before 5.6), or it is no full socket.
    pub bind_no_port: Option<bool>,
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
    /// How long ago data last came, in ms.
    pub received_ms: u32,
    /// How long ago data was last sent, in ms.
    pub sent_ms: u32,
    /// Whether both ends use TCP timestamps.
    pub timestamps: bool,
}

const _: () =
    assert!(size_of::<Socket>() <= 192, "there can be a million of them: 8 bytes more for when data has moved");

impl Socket {
    /// Whether it is bound and nothing else, which is asked for apart.
    pub fn is_bound_only(&self) -> bool {
        self.found.state == State::Closed
    }

    /// What this shows beyond that it exists.
    pub fn inspected(&self) -> Inspected {
        let Found { at, id, tuple, netns, .. } = self.found;
        let idle = |it: Progress| Idle {
            acked_ms: Some(it.quiet_ms),
            received_ms: Some(it.received_ms),
            sent_ms: Some(it.sent_ms),
        };
        Inspected {
            at,
            id,
            recv_queue: self.recv_queue,
            send_queue: self.send_queue,
            timer: self.timer,
            timer_left_ns: self.timer_left_ns,
            retransmits: self.retransmits,
            idle: self.progress.map(idle),
            timestamps: self.progress.map(|it| it.timestamps),
            bind_no_port: self.bind_no_port,
            bound: self.is_bound_only().then_some(Bound { ip: tuple.local_ip, port: tuple.local_port, netns }),
        }
    }
}

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
