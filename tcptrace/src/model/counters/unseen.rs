//! The counters whose growth no event shows, each with its meaning.

use serde::{Deserialize, Serialize};

/// A kernel counter that grows when a connection is refused, or its packets are dropped, before there is a socket to
/// report. Counters that events cover as well are left out (`TCPTimeWaitOverflow`, `TCPAbortOnMemory`), and so is
/// `TCPReqQFullDoCookies`, which counts the same as [`Self::SyncookiesSent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unseen {
    /// `cookie_init_sequence`: the kernel answers a SYN and forgets it.
    SyncookiesSent,
    /// `cookie_v4_check`, `cookie_v6_check`.
    SyncookiesFailed,
    /// `tcp_syn_flood_action`.
    #[serde(rename = "TCPReqQFullDrop")]
    ReqQFullDrop,
    /// `tcp_conn_request`, `tcp_v4_syn_recv_sock`, `tcp_v6_syn_recv_sock`. Each repetition counts again.
    ListenOverflows,
    /// `tcp_listendrop`: the two above, and drops for lack of memory or of a route.
    ListenDrops,
    /// `tcp_check_req`: a request is reset before it becomes a socket, by its client (a half-open port scan, some health
    /// checks) or by us.
    EmbryonicRsts,
    /// `nf_conntrack_in`, `nf_conntrack_confirm`: packets of any protocol.
    #[serde(rename = "conntrack.drop")]
    ConntrackDrop,
    /// `early_drop`: the kernel makes room for new connections.
    #[serde(rename = "conntrack.early_drop")]
    ConntrackEarlyDrop,
}

impl Unseen {
    /// All of them, the most telling first.
    pub const ALL: [Self; 8] = [
        Self::SyncookiesSent,
        Self::SyncookiesFailed,
        Self::ReqQFullDrop,
        Self::ListenOverflows,
        Self::ListenDrops,
        Self::EmbryonicRsts,
        Self::ConntrackDrop,
        Self::ConntrackEarlyDrop,
    ];

    /// Its key in [`Values`](super::Values); its name; what it counts, singular and plural; and why that happens.
    const fn row(self) -> (&'static str, &'static str, [&'static str; 2], &'static str) {
        match self {
            Self::SyncookiesSent => (
                "TcpExt.SyncookiesSent",
                "SyncookiesSent",
                ["SYN cookie sent", "SYN cookies sent"],
                "the SYN queue is full or tcp_syncookies is 2",
            ),
            Self::SyncookiesFailed => (
                "TcpExt.SyncookiesFailed",
                "SyncookiesFailed",
                ["ACK without a valid SYN cookie", "ACKs without a valid SYN cookie"],
                "the kernel answers them with a reset",
            ),
            Self::ReqQFullDrop => (
                "TcpExt.TCPReqQFullDrop",
                "TCPReqQFullDrop",
                ["SYN dropped", "SYNs dropped"],
                "the SYN queue is full and SYN cookies are off",
            ),
            Self::ListenOverflows => (
                "TcpExt.ListenOverflows",
                "ListenOverflows",
                ["SYN or ACK dropped", "SYNs and ACKs dropped"],
                "the accept queue is full",
            ),
            Self::EmbryonicRsts => (
                "TcpExt.EmbryonicRsts",
                "EmbryonicRsts",
                ["half-open connection reset", "half-open connections reset"],
                "by clients or by tcp_abort_on_overflow",
            ),
            Self::ListenDrops => (
                "TcpExt.ListenDrops",
                "ListenDrops",
                ["SYN or ACK dropped by a listener", "SYNs and ACKs dropped by listeners"],
                "for any reason (full queues included)",
            ),
            Self::ConntrackDrop => (
                "conntrack.drop",
                "conntrack.drop",
                ["packet dropped by connection tracking", "packets dropped by connection tracking"],
                "its table is full or a helper refused them",
            ),
            Self::ConntrackEarlyDrop => (
                "conntrack.early_drop",
                "conntrack.early_drop",
                ["tracked connection removed early", "tracked connections removed early"],
                "the connection tracking table is full",
            ),
        }
    }

    /// Its key in [`Values`](super::Values).
    pub const fn key(self) -> &'static str {
        self.row().0
    }

    /// The kernel's name for it.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// What it counts, in the plural: `SYN cookies sent`.
    pub const fn what(self) -> &'static str {
        self.row().2[1]
    }

    /// The same for this count: `SYN cookie sent` for 1.
    pub const fn what_of(self, count: u64) -> &'static str {
        self.row().2[(count != 1) as usize]
    }

    /// Why that happens: `the accept queue is full`.
    pub const fn why(self) -> &'static str {
        self.row().3
    }
}

/// Growth of a counter that no event shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increase {
    /// When it was read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    pub counter: Unseen,
    pub increase: u64,
    /// Time that the growth covers, in ns; `None`: since the namespace was made, after the previous look.
    pub over_ns: Option<u64>,
}
