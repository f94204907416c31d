//! The ABI between the eBPF programs and the userspace program: ring-buffer records, TCP states and counters.
//!
//! A record is a [`Head`], followed for some kinds by a tail of fixed size. Nothing here knows what an event means;
//! that is decided by the lifecycle engine. Multi-byte values are in the machine's byte order (producer and consumer
//! are the same machine), ports included; addresses are in network order, as 16 bytes, IPv4 as `::ffff:a.b.c.d`.
#![no_std]
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of the ring buffer that the programs are loaded with. Kernels before 5.10 take no other size in its place.
pub const RING_PATTERN: u32 = 1 << 20;

/// Ring buffers that a CPU can write to: its own, and the one that takes what does not fit there.
pub const RINGS_OF_CPU: u32 = 2;

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`).
pub mod state {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_TIME_WAIT`: never a state of the tracepoint, only of mini-sockets.
    pub const TIME_WAIT: u8 = 6;
    /// `TCP_CLOSE`.
    pub const CLOSED: u8 = 7;
    /// `TCP_CLOSE_WAIT`.
    pub const CLOSE_WAIT: u8 = 8;
    /// `TCP_LAST_ACK`.
    pub const LAST_ACK: u8 = 9;
    /// `TCP_LISTEN`.
    pub const LISTEN: u8 = 10;
    /// `TCP_CLOSING`.
    pub const CLOSING: u8 = 11;
}

/// What a record is, in [`Head::kind`].
pub mod kind {
    /// A transition that needs nothing but the [`Head`](super::Head).
    pub const STATE: u8 = 1;
    /// A transition out of or into `SYN_RECV`, with [`ChildTail`](super::ChildTail).
    pub const STATE_CHILD: u8 = 2;
    /// A transition made by a system call, with [`TaskTail`](super::TaskTail).
    pub const STATE_TASK: u8 = 3;
    /// A transition by which a process opens a socket, with [`OpenTail`](super::OpenTail).
    pub const STATE_OPEN: u8 = 11;
    /// A transition to `CLOSED` from any other state than `SYN_RECV`, with [`ClosedTail`](super::ClosedTail).
    pub const STATE_END: u8 = 4;
    /// `tcp_destroy_sock`; nothing but the [`Head`](super::Head).
    pub const DESTROY: u8 = 5;
    /// `tcp_send_reset`; `extra` is the kernel's reason number, 0 where it gives none.
    pub const RESET_SENT: u8 = 6;
    /// `tcp_receive_reset`.
    pub const RESET_RECEIVED: u8 = 7;
    /// A mini-socket's timer was cancelled before it was due, with [`CancelTail`](super::CancelTail).
    pub const MINI_CANCELLED: u8 = 8;
    /// A mini-socket's timer fired.
    pub const MINI_EXPIRED: u8 = 9;
    /// A mini-socket took in a FIN.
    pub const MINI_FIN: u8 = 10;
    /// A process accepted a connection, with [`TaskTail`](super::TaskTail).
    pub const ACCEPTED: u8 = 12;
    /// A process holds a descriptor of the socket, with [`HolderTail`](super::HolderTail); `old` is its state.
    pub const HELD: u8 = 13;
    /// A process closes a connection in `SYN_RECV`, with [`ClosedChildTail`](super::ClosedChildTail).
    pub const STATE_CHILD_CLOSED: u8 = 14;
    /// A transition from `SYN_RECV` to `CLOSED`, with [`EndedChildTail`](super::EndedChildTail).
    pub const STATE_CHILD_END: u8 = 21;
    /// A transition that leaves `ESTABLISHED` by a packet, with [`IdleTail`](super::IdleTail).
    pub const STATE_IDLE: u8 = 15;
    /// A transition that leaves `ESTABLISHED` by a system call, with [`IdleTaskTail`](super::IdleTaskTail).
    pub const STATE_IDLE_TASK: u8 = 16;
    /// A system call failed, with [`TaskTail`](super::TaskTail): `local_addr` and `local_port` are what it was about, `extra`
    /// is its descriptor, `old` which call it was (see [`call`](super::call)), and `new` its errno. With
    /// [`flag::BARE`](super::flag::BARE) it was given no address that can be read.
    pub const FAILED_CALL: u8 = 17;
    /// A mini-socket gets more time.
    pub const MINI_EXTENDED: u8 = 20;
}

/// System calls, in [`Head::old`] of [`kind::FAILED_CALL`].
pub mod call {
    /// `bind`.
    pub const BIND: u8 = 1;
    /// `listen`.
    pub const LISTEN: u8 = 2;
    /// `accept` or `accept4`.
    pub const ACCEPT: u8 = 3;
}

/// Bits of [`Head::flags`].
pub mod flag {
    /// `id` is the socket's address in the kernel, because its cookie is not known (yet).
    pub const ID_IS_ADDRESS: u8 = 1 << 0;
    /// `SOCK_DEAD`: no process holds the socket any more.
    pub const DEAD: u8 = 1 << 1;
    /// `SOCK_DONE`: the peer's FIN has been received.
    pub const DONE: u8 = 1 << 2;
    /// `sk_socket` is set: the socket has been accepted or was created by a process, and is not orphaned.
    pub const HAS_SOCKET: u8 = 1 << 3;
    /// `RCV_SHUTDOWN`.
    pub const RCV_SHUTDOWN: u8 = 1 << 4;
    /// `SEND_SHUTDOWN`.
    pub const SEND_SHUTDOWN: u8 = 1 << 5;
    /// The record has no facts of the socket: it comes from the classic tracepoint, which shows none.
    pub const BARE: u8 = 1 << 6;
    /// A transition out of `SYN_SENT`: the socket has not sent a single segment (`tcpi_segs_out`), not even a SYN.
    pub const SILENT: u8 = 1 << 7;
}

/// Bits of [`EndTail::flags`].
pub mod end_flag {
    /// `SOCK_KEEPOPEN` (`SO_KEEPALIVE`).
    pub const KEEPALIVE: u8 = 1 << 0;
    /// `SOCK_LINGER` with a linger time of 0.
    pub const LINGER0: u8 = 1 << 1;
    /// `TCP_LINGER2` is negative: no orphaned FIN_WAIT2 wanted.
    pub const LINGER2_NEGATIVE: u8 = 1 << 2;
    /// Everything written was acknowledged (`snd_una == write_seq`).
    pub const ALL_ACKED: u8 = 1 << 3;
    /// A user timeout (`TCP_USER_TIMEOUT`) is set.
    pub const USER_TIMEOUT: u8 = 1 << 4;
    /// Data is in flight (`snd_nxt != snd_una`).
    pub const IN_FLIGHT: u8 = 1 << 5;
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// The socket's cookie, or its address with [`flag::ID_IS_ADDRESS`].
    pub id: u64,
    /// Local address.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// Local port; 0 where the kernel has not chosen one yet.
    pub local_port: u16,
    /// Remote port; 0 where it is not known yet.
    pub remote_port: u16,
    /// Inode number of the network namespace; 0 when unknown.
    pub netns: u32,
    /// Transitions: the socket's user id. Mini-sockets: ticks until the timer is due, as `i32`. Resets: the reason.
    pub extra: u32,
    /// See [`kind`].
    pub kind: u8,
    /// Transitions: the old state. Mini-sockets: the substate.
    pub old: u8,
    /// Transitions: the new state; otherwise 0.
    pub new: u8,
    /// See [`flag`].
    pub flags: u8,
}

/// The task on the CPU. The reader decides whether it relates to the socket.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskTail {
    /// Process id (`tgid`) in the initial pid namespace; 0 for a thread of the kernel's own.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Name of the process, which is that of its first thread, padded with NUL; any bytes. All NUL when unknown.
    pub comm: [u8; 16],
}

/// Who opened a socket, and in which control group.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenTail {
    /// Who was on the CPU.
    pub task: TaskTail,
    /// Id of the socket's control group (v2); 0 when unknown.
    pub cgroup: u64,
    /// Index of the only interface that the socket uses; 0 if it may use any.
    pub interface: u32,
    /// The byte of `struct sock_common` that has `skc_reuse` and `skc_reuseport`; 0 where the kernel has none.
    pub reuse: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Ties a child socket's address to its cookie.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChildTail {
    /// The socket's address in the kernel.
    pub address: u64,
    /// Id of the socket's control group (v2), which is its listener's; 0 when unknown.
    pub cgroup: u64,
    /// Index of the only interface that the socket uses; 0 if it may use any.
    pub interface: u32,
    /// Zero.
    pub padding: u32,
}

/// A child that a process closes before its handshake is done, as Fast Open allows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClosedChildTail {
    /// Which child.
    pub child: ChildTail,
    /// Who was on the CPU.
    pub task: TaskTail,
}

/// A process that holds a descriptor of a socket.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HolderTail {
    /// The process and one of its threads.
    pub task: TaskTail,
    /// Id of the socket's control group (v2); 0 when unknown.
    pub cgroup: u64,
    /// The descriptor.
    pub fd: u32,
    /// Zero.
    pub padding: u32,
}

/// What the socket had counted when it was closed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndTail {
    /// Who was on the CPU.
    pub task: TaskTail,
    /// Payload bytes sent, retransmissions included (`tcpi_bytes_sent`).
    pub bytes_sent: u64,
    /// Payload bytes received (`tcpi_bytes_received`).
    pub bytes_received: u64,
    /// Segments retransmitted (`tcpi_total_retrans`).
    pub retransmits: u32,
    /// Smoothed round-trip time in µs, times 8, as the kernel keeps it.
    pub srtt_us_8: u32,
    /// Bytes received and never read by the process.
    pub unread: u32,
    /// Ticks until the mini-socket's timer is due, when one was made.
    pub mini_ticks: u32,
    /// `sk_err`: an errno, or 0.
    pub err: u16,
    /// See [`end_flag`].
    pub flags: u8,
    /// Substate of the mini-socket that took over: `FIN_WAIT2`, `TIME_WAIT`, or 0 when none was made.
    pub mini: u8,
    /// `icsk_retransmits`: retransmissions of what is in flight.
    pub in_flight_retransmits: u8,
    /// `icsk_probes_out`: keepalive or zero-window probes not answered.
    pub probes_out: u8,
    /// As in [`OpenTail`].
    pub reuse: u8,
    /// Zero.
    pub padding: u8,
}

/// Ticks that are not known.
pub const UNKNOWN_TICKS: u32 = u32::MAX;

/// How long nothing has moved, in ticks, or [`UNKNOWN_TICKS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdleTail {
    /// Since data was received, or since the connection was established if there was none.
    pub received: u32,
    /// Since data was sent; unknown if there was none.
    pub sent: u32,
    /// Since a segment acknowledged anything.
    pub acked: u32,
    /// Zero.
    pub padding: u32,
}

/// Who ends a connection, and how long nothing had moved.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdleTaskTail {
    /// Who was on the CPU.
    pub task: TaskTail,
    /// How long nothing had moved.
    pub idle: IdleTail,
}

/// What the socket knew when it was closed, and how long nothing had moved.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClosedTail {
    /// What it knew.
    pub end: EndTail,
    /// How long nothing had moved; unknown if it was never established.
    pub idle: IdleTail,
}

/// What a child knew that is closed in `SYN_RECV`. Nothing had moved on it, so it has its address in place of idle times.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndedChildTail {
    /// What it knew.
    pub end: EndTail,
    /// The socket's address in the kernel.
    pub address: u64,
    /// Means nothing.
    pub unused: u64,
}

/// Frames of [`CancelTail::stack`].
pub const STACK_FRAMES: usize = 16;

/// The call stack that cancelled a mini-socket's timer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CancelTail {
    /// Return addresses of the kernel's stack, innermost first, 0 after the last.
    pub stack: [u64; STACK_FRAMES],
}

const _: () = {
    assert!(size_of::<Head>() == 64, "a transition stays within one cache line");
    assert!(size_of::<EndTail>() == 64, "an end is two cache lines, but for its idle times");
    assert!(size_of::<EndedChildTail>() == size_of::<ClosedTail>(), "one record for both");
};

/// Indexes into the array of counters that every CPU has.
pub mod counter {
    /// Transitions that did not fit into the ring buffer.
    pub const LOST_TRANSITIONS: usize = 0;
    /// Other records that did not fit into the ring buffer.
    pub const LOST_OTHERS: usize = 1;
    /// Transitions kept out by a filter in the kernel.
    pub const FILTERED: usize = 2;
    /// Added to the index by programs that stand in for others while those are interrupted: an interrupted program may
    /// be just about to count.
    pub const STAND_IN: usize = 3;
    /// How often a program has stood in for another.
    pub const STOOD_IN: usize = 6;
    /// How many counters there are.
    pub const COUNT: usize = 7;
}

/// Largest number of ports in one filter that the kernel side checks.
pub const FILTER_PORTS: usize = 8;

/// What the programs filter by; all zero lets everything through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// Either port is one of these (0: unused).
    pub ports: [u16; FILTER_PORTS],
    /// The local port is one of these (0: unused).
    pub local_ports: [u16; FILTER_PORTS],
    /// The remote port is one of these (0: unused).
    pub remote_ports: [u16; FILTER_PORTS],
    /// The network namespace is this one (0: any).
    pub netns: u32,
    /// 4 or 6: only this family as the address shows it (IPv4-mapped counts as 4); 0: both.
    pub family: u32,
}

impl Filter {
    /// Whether it lets a socket through: what the programs decide, for sockets that userspace finds by itself. A port
    /// that is not known (0) passes.
    pub fn wants(&self, netns: u32, is_ipv4: bool, local_port: u16, remote_port: u16) -> bool {
        let any_port = |list: &[u16; FILTER_PORTS], one: u16, other: u16| {
            list[0] == 0 || one == 0 || other == 0 || list.contains(&one) || list.contains(&other)
        };
        (self.netns == 0 || self.netns == netns)
            && (self.family == 0 || (self.family == 4) == is_ipv4)
            && any_port(&self.ports, local_port, remote_port)
            && any_port(&self.local_ports, local_port, local_port)
            && any_port(&self.remote_ports, remote_port, remote_port)
    }
}
