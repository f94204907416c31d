//! Disturbances: dropped packets and forged packets.

use std::net::{Ipv4Addr, SocketAddr};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::TcpRepair};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{End, Namespace};

/// Forged packets carry this time to live, and no rule drops them.
const INJECTED_TTL: u8 = 77;

/// FIN, as a flag of [`inject`].
pub const FIN: u8 = 0x01;
/// SYN, as a flag of [`inject`].
pub const SYN: u8 = 0x02;
/// RST, as a flag of [`inject`].
pub const RST: u8 = 0x04;
/// ACK, as a flag of [`inject`].
pub const ACK: u8 = 0x10;

impl Namespace {
    /// From now on, drops incoming packets that match this nft expression. The sender does not notice. IPv4 only.
    pub fn drop_arriving(&self, expression: &str) {
        self.treat_arriving(expression, "drop");
    }

    /// From now on, applies this verdict to incoming packets that match this nft expression. IPv4 only.
    pub fn treat_arriving(&self, expression: &str, verdict: &str) {
        let rule = format!("ip ttl != {INJECTED_TTL} {expression} {verdict}");
        self.run(
            "nft",
            &[&format!("table inet faults {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}")],
        );
    }

    /// Removes all rules.
    pub fn heal(&self) {
        self.run("nft", &["delete table inet faults"]);
    }
}

sockopt_impl!(
    /// The queue for [`QueueSeq`].
    RepairQueue, Both, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, u32
);
sockopt_impl!(
    /// The next sequence number of a queue.
    QueueSeq, Both, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, u32
);

/// The sequence numbers of both directions of an end.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// The number of the next byte to send.
    pub sends: u32,
    /// The number of the next expected byte.
    pub expects: u32,
}

impl End {
    /// Its sequence numbers; only an established connection has them.
    pub fn sequence(&self) -> Sequence {
        const RECEIVE_QUEUE: u32 = 1;
        const SEND_QUEUE: u32 = 2;
        /// Ends the repair without a window probe.
        const OFF_WITHOUT_PROBE: u32 = u32::MAX;
        let next = |queue| {
            setsockopt(&**self, RepairQueue, &queue).expect("choose a queue");
            nix::sys::socket::getsockopt(&**self, QueueSeq).expect("read a sequence number")
        };
        setsockopt(&**self, TcpRepair, &1).expect("begin a TCP repair");
        let sequence = Sequence { sends: next(SEND_QUEUE), expects: next(RECEIVE_QUEUE) };
        setsockopt(&**self, TcpRepair, &OFF_WITHOUT_PROBE).expect("end a TCP repair");
        sequence
    }
}

/// Forges a segment without data from `from` to `to`. IPv4 only.
pub fn inject(from: SocketAddr, to: SocketAddr, sequence: u32, acknowledged: u32, flags: u8) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("{from} > {to} is not IPv4") };
    let mut segment = [&from.port().to_be_bytes()[..], &to.port().to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(*from.ip(), *to.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, INJECTED_TTL, 6, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(segment);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).expect("a raw socket");
    raw.send_to(&packet, &SocketAddr::new((*to.ip()).into(), 0).into()).expect("send a crafted segment");
}

/// The checksum of a TCP segment, pseudo-header included (RFC 9293, 3.1).
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).expect("a short segment").to_be_bytes();
    let covered = [&from.octets()[..], &to.octets(), &[0, 6], &length, segment].concat();
    let words = covered.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
