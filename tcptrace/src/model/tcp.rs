//! The words of TCP: states, endpoints, processes, and how connections end.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcptrace_common::state;

use super::named;

/// Declares an enum whose variants have one fixed name each, which is also parsed: on the command line, and in data.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        named! { $(#[$doc])* $name { $($(#[$vdoc])* $variant = $word,)* } }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(word)).ok_or_else(|| {
                    UnknownWord { word: word.into(), known: Self::ALL.iter().map(|value| value.as_str()).collect() }
                })
            }
        }
    };
}

/// A word that is not among the known ones.
#[derive(Debug, thiserror::Error)]
#[error("'{word}' is not one of {}", known.join(", "))]
pub struct UnknownWord {
    word: String,
    known: Vec<&'static str>,
}

words! {
    /// A state of a TCP socket, full or mini-socket.
    State {
        /// No connection.
        Closed = "CLOSED",
        /// Waits for connections.
        Listen = "LISTEN",
        /// Our SYN is out.
        SynSent = "SYN_SENT",
        /// The peer's SYN is in.
        SynRecv = "SYN_RECV",
        /// Both directions open.
        Established = "ESTABLISHED",
        /// Our FIN is out, first.
        FinWait1 = "FIN_WAIT1",
        /// Our FIN is acknowledged, the peer's has not come.
        FinWait2 = "FIN_WAIT2",
        /// The peer's FIN came first; the application has not closed.
        CloseWait = "CLOSE_WAIT",
        /// Both FINs crossed.
        Closing = "CLOSING",
        /// The peer closed first, our FIN is out.
        LastAck = "LAST_ACK",
        /// Both FINs done, ours first: the mini-socket waits.
        TimeWait = "TIME_WAIT",
    }
}

impl State {
    /// Whether the state of a connection shows that its own end was neither closed nor shut down.
    pub(crate) fn is_unclosed(self) -> bool {
        matches!(self, Self::SynSent | Self::Established | Self::CloseWait)
    }

    /// The state that the kernel gives this number, or `None` for one that is not traced.
    pub const fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            state::ESTABLISHED => Self::Established,
            state::SYN_SENT => Self::SynSent,
            state::SYN_RECV => Self::SynRecv,
            state::FIN_WAIT1 => Self::FinWait1,
            state::FIN_WAIT2 => Self::FinWait2,
            state::TIME_WAIT => Self::TimeWait,
            state::CLOSED => Self::Closed,
            state::CLOSE_WAIT => Self::CloseWait,
            state::LAST_ACK => Self::LastAck,
            state::LISTEN => Self::Listen,
            state::CLOSING => Self::Closing,
            _ => return None,
        })
    }
}

words! {
    /// Which end of the connection a socket is.
    Side {
        /// It connected.
        Client = "client",
        /// It was made by a listener.
        Server = "server",
        /// Its opening was not seen.
        Unknown = "unknown",
    }
}

words! {
    /// Who ended the connection.
    Closer {
        /// Our FIN went out first.
        Active = "active",
        /// The peer's FIN came first.
        Passive = "passive",
        /// Both FINs crossed.
        Simultaneous = "simultaneous",
        /// We sent a reset, before any FIN.
        ResetLocal = "reset_local",
        /// The peer sent a reset, before any FIN.
        ResetRemote = "reset_remote",
        /// The kernel gave up waiting, before any FIN.
        Timeout = "timeout",
        /// An administrator destroyed the socket (`ss -K`), or the kernel did.
        Killed = "killed",
        /// There was no connection to close.
        NeverEstablished = "never_established",
        /// It was not seen.
        Unknown = "unknown",
    }
}

words! {
    /// How the connection ended.
    End {
        /// By FINs in both directions.
        Fin = "fin",
        /// Our FIN was acknowledged, the peer's never came, and `tcp_fin_timeout` ran out.
        FinWait2Timeout = "fin_wait2_timeout",
        /// The peer answered our SYN with a reset.
        Refused = "refused",
        /// Nobody answered our SYNs.
        ConnectTimeout = "connect_timeout",
        /// Retransmissions went unanswered.
        RetransmitTimeout = "retransmit_timeout",
        /// Keepalive probes went unanswered.
        KeepaliveTimeout = "keepalive_timeout",
        /// `TCP_USER_TIMEOUT` ran out.
        UserTimeout = "user_timeout",
        /// The peer sent a reset.
        ResetReceived = "reset_received",
        /// We closed with received data unread, so the kernel sent a reset.
        ResetUnreadData = "reset_unread_data",
        /// We closed with `SO_LINGER` 0, so the kernel sent a reset.
        ResetLinger0 = "reset_linger0",
        /// The peer sent data after we had closed, so the kernel sent a reset.
        ResetDataAfterClose = "reset_data_after_close",
        /// The kernel sent a reset for another reason.
        ResetOther = "reset_other",
        /// `connect(AF_UNSPEC)`; or the process dropped the connection and nothing was sent: in `TCP_REPAIR`, or by
        /// `SO_LINGER` 0 after both FINs.
        Disconnected = "disconnected",
        /// No local port was left, or the one chosen was in use with that peer (`EADDRNOTAVAIL`).
        NoLocalPort = "no_local_port",
        /// The network said that the peer cannot be reached.
        Unreachable = "unreachable",
        /// The application gave up before the connection was established.
        ClosedWhileConnecting = "closed_while_connecting",
        /// The listener was closed before anybody accepted the connection.
        NeverAccepted = "never_accepted",
        /// The kernel killed an orphan: `tcp_max_orphans`, memory, or its namespace.
        OrphanKilled = "orphan_killed",
        /// Destroyed by an administrator (`ss -K`) or a BPF program.
        Killed = "killed",
        /// It was not seen.
        Unknown = "unknown",
    }
}

impl End {
    /// Whether a reset ended it, from either side. A connection that was refused had not begun.
    pub fn is_reset(self) -> bool {
        matches!(
            self,
            Self::ResetReceived
                | Self::ResetUnreadData
                | Self::ResetLinger0
                | Self::ResetDataAfterClose
                | Self::ResetOther
        )
    }
}

words! {
    /// How a TIME_WAIT ended.
    TimeWaitEnd {
        /// Its timer ran out.
        Expired = "expired",
        /// `connect` took its addresses and ports over (`tcp_tw_reuse`).
        Reused = "reused",
        /// A new SYN for the same addresses and ports came in.
        NewSyn = "new_syn",
        /// The peer sent a reset.
        Reset = "reset",
        /// Destroyed by an administrator (`ss -K`).
        Killed = "killed",
        /// Its network namespace went away.
        NetnsGone = "netns_gone",
        /// It never began: `tcp_max_tw_buckets` was reached, or memory was short.
        Refused = "refused",
        /// It was not seen.
        Unknown = "unknown",
    }
}

words! {
    /// How tcptrace knows the owner of a connection.
    OwnerSource {
        /// It connected.
        Connect = "connect",
        /// It accepted.
        Accept = "accept",
        /// It listens.
        Listen = "listen",
        /// It closed.
        Close = "close",
        /// It was found to hold the descriptor.
        Scan = "scan",
        /// No process is known.
        Unknown = "unknown",
    }
}

/// A process name as the kernel keeps it: up to 16 bytes, chosen by the process, untrusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The bytes before the first NUL.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

impl From<&str> for Comm {
    /// Cut to what fits, as the kernel does.
    fn from(name: &str) -> Self {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        Self(comm)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes().escape_ascii())
    }
}

/// A thread, as seen from the initial pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    pub comm: Comm,
}

/// Both ends of a connection. IPv4 is kept as IPv4-mapped IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Local address.
    pub local_ip: Ipv6Addr,
    /// Remote address.
    pub remote_ip: Ipv6Addr,
    /// Local port; 0 while the kernel has not chosen one.
    pub local_port: u16,
    /// Remote port; 0 for a listener.
    pub remote_port: u16,
}

impl Tuple {
    /// The local end.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.local_ip), self.local_port)
    }

    /// The remote end.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.remote_ip), self.remote_port)
    }

    /// Whether it is shown as IPv4, which IPv4-mapped IPv6 is too.
    pub fn is_ipv4(&self) -> bool {
        self.local_ip.to_ipv4_mapped().is_some()
    }

    /// `ipv4` or `ipv6`.
    pub fn family(&self) -> &'static str {
        if self.is_ipv4() { "ipv4" } else { "ipv6" }
    }

    /// Whether an address is link-local, so that it means nothing without an interface.
    pub fn is_link_local(&self) -> bool {
        self.local_ip.is_unicast_link_local() || self.remote_ip.is_unicast_link_local()
    }

    /// The same connection, seen from its other end.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            local_ip: self.remote_ip,
            remote_ip: self.local_ip,
            local_port: self.remote_port,
            remote_port: self.local_port,
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.local(), self.remote())
    }
}

/// A link-local address together with the index of its interface (RFC 4007), if that is not 0.
pub fn scoped(address: SocketAddr, interface: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(mut address) if address.ip().is_unicast_link_local() => {
            address.set_scope_id(interface);
            address.into()
        }
        _ => address,
    }
}

/// IPv4 for an IPv4-mapped address.
pub fn unmapped(ip: Ipv6Addr) -> IpAddr {
    IpAddr::V6(ip).to_canonical()
}
