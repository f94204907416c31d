//! The counters that stand for what no event tells, each with its meaning.

use serde::{Deserialize, Serialize};

/// A counter of the kernel that grows when a connection is refused, or its packets are dropped, before there is a socket
/// that could tell. Those that events tell as well are left out (`TCPTimeWaitOverflow`, `TCPAbortOnMemory`), and
/// `TCPReqQFullDoCookies`, which counts what [`Self::SyncookiesSent`] counts.
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
    /// `tcp_listendrop`: the two before, and what is dropped for want of memory or of a route.
    ListenDrops,
    /// `tcp_check_req`: a request is reset before it becomes a socket, by its client (a half-open port scan, some health
    /// checks) or by us.
    EmbryonicRsts,
    /// `nf_conntrack_in`, `nf_conntrack_confirm`: packets of any protocol.
    #[serde(rename = "conntrack.drop")]
    ConntrackDrop,
    /// `early_drop`: it makes room for new ones.
    #[serde(rename = "conntrack.early_drop")]
    ConntrackEarlyDrop,
}

impl Unseen {
    /// All of them: what tells most first.
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

    /// Its key among [`Values`](super::Values); its name; what it counts, one and several; and why that happens.
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

    /// Where it is among [`Values`](super::Values).
    pub const fn key(self) -> &'static str {
        self.row().0
    }

    /// Its name: the kernel's.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// What it counts, in the plural: `SYN cookies sent`.
    pub const fn what(self) -> &'static str {
        self.row().2[1]
    }

    /// The same, of so many: `SYN cookie sent` of 1.
    pub const fn what_of(self, count: u64) -> &'static str {
        self.row().2[(count != 1) as usize]
    }

    /// Why that happens: `the accept queue is full`.
    pub const fn why(self) -> &'static str {
        self.row().3
    }
}

/// A counter has grown of whose events nothing else tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increase {
    /// When it was read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// In which network namespace, by inode number.
    pub netns: u32,
    /// Which.
    pub counter: Unseen,
    /// By how much.
    pub increase: u64,
    /// In which time before, in ns; `None`: since the namespace was made, which is later than the look before.
    pub over_ns: Option<u64>,
}
