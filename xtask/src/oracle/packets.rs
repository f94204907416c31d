//! The second witness: every TCP segment in a network namespace, from a packet socket.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::time::ClockId;

use super::log::clock;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;
/// Room for the headers.
const SNAP: usize = 192;
/// Room for packets that arrive while the reader does not run.
const BUFFER: libc::c_int = 256 << 20;

/// A segment that left an end or arrived at one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Packet {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) at: u64,
    pub(super) is_outgoing: bool,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// Bytes of payload.
    pub(super) len: u32,
}

/// Collects segments until it is stopped.
pub(super) struct Capture {
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<Result<Seen>>,
}

/// The result.
pub(super) struct Seen {
    pub(super) packets: Vec<Packet>,
    /// Number of segments for which there was no room.
    pub(super) dropped: u32,
    /// The kernel's counts of connections opened and accepted.
    pub(super) opens: [u64; 2],
}

impl Capture {
    /// Starts in this network namespace.
    pub(super) fn start(namespace: PathBuf) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            let socket = open(&namespace)?;
            // The receiver waits in `start`.
            let _ = ready.send(());
            read(&socket, &over)
        });
        if is_ready.recv().is_err() {
            return Err(reader.join().map_or_else(
                |_| anyhow::anyhow!("the reader of packets panicked"),
                |result| result.err().unwrap_or_else(|| anyhow::anyhow!("the reader of packets ended")),
            ));
        }
        Ok(Self { is_over, reader })
    }

    /// Stops. It holds the network namespace no longer.
    pub(super) fn stop(self) -> Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        self.reader.join().map_err(|_| anyhow::anyhow!("the reader of packets panicked"))?
    }
}

fn open(namespace: &Path) -> Result<OwnedFd> {
    let namespace = std::fs::File::open(namespace).context("cannot find the network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let all = libc::c_int::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, all) };
    let raw = nix::errno::Errno::result(raw).context("cannot make a packet socket")?;
    // SAFETY: it was just made, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    for (option, value) in [(libc::SO_RCVBUFFORCE, BUFFER), (libc::SO_TIMESTAMPNS, 1)] {
        let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
        // SAFETY: the socket is open, and the option is an int that lives until the call returns.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), length)
        };
        nix::errno::Errno::result(result).context("cannot set up the packet socket")?;
    }
    Ok(socket)
}

fn read(socket: &OwnedFd, is_over: &AtomicBool) -> Result<Seen> {
    let mut packets = Vec::new();
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives until the call returns.
        unsafe { libc::poll(&raw mut poll, 1, 50) };
        let since_boot = since_boot();
        while let Some(packet) = receive(socket, since_boot)? {
            packets.extend(packet);
        }
        // Everything that arrived before the order to stop has been read.
        if was_over {
            return Ok(Seen { packets, dropped: dropped(socket)?, opens: opens()? });
        }
    }
}

/// The kernel's counts in the network namespace of this thread.
fn opens() -> Result<[u64; 2]> {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read counters")?;
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let of = |name: &str| {
        let at = names.split(' ').position(|word| word == name)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Ok([of("ActiveOpens").unwrap_or(0), of("PassiveOpens").unwrap_or(0)])
}

/// The offset of the packets' clock, from readings without an interruption in between.
fn since_boot() -> u64 {
    let reading = || {
        let before = clock(ClockId::CLOCK_BOOTTIME);
        let real = clock(ClockId::CLOCK_REALTIME);
        let after = clock(ClockId::CLOCK_BOOTTIME);
        (after.saturating_sub(before), real.saturating_sub(before + after.saturating_sub(before) / 2))
    };
    (0..16).map(|_| reading()).min().map_or(0, |(_, ahead)| ahead)
}

fn dropped(socket: &OwnedFd) -> Result<u32> {
    const PACKET_STATISTICS: libc::c_int = 6;
    let mut statistics = [0_u32; 2];
    let mut length = libc::socklen_t::try_from(size_of::<[u32; 2]>())?;
    // SAFETY: `tpacket_stats` is two unsigned ints, and the buffer has that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(result).context("cannot ask for what was dropped")?;
    Ok(statistics[1])
}

/// The next segment: `None` if nothing waits, `Some(None)` if it is not TCP.
fn receive(socket: &OwnedFd, since_boot: u64) -> Result<Option<Option<Packet>>> {
    let mut data = [0_u8; SNAP];
    let mut control = [0_u64; 16];
    // SAFETY: all zeroes is a valid `sockaddr_ll`: it has integers only.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message leads to memory that lives until the call returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error).context("cannot receive packets"),
        };
    };
    let Some(at) = timestamp(&message) else { return Ok(Some(None)) };
    let is_outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
    Ok(Some(parse(&data[..length.min(SNAP)], at.saturating_sub(since_boot), is_outgoing)))
}

fn timestamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel has filled in the control messages, and set their length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    // SAFETY: such a message holds a `timespec`, which need not be aligned.
    let at = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
    Some(u64::try_from(at.tv_sec).ok()? * 1_000_000_000 + u64::try_from(at.tv_nsec).ok()?)
}

/// Parses a packet without a link header; `None` if it is not TCP.
pub(super) fn parse(data: &[u8], at: u64, is_outgoing: bool) -> Option<Packet> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let (tcp, total, [from, to]): (usize, u32, [IpAddr; 2]) = match data.first()? >> 4 {
        4 if *data.get(9)? == 6 => {
            let address = |at| Some(Ipv4Addr::from(u32_at(at)?).into());
            (usize::from(data[0] & 15) * 4, u16_at(2)?.into(), [address(12)?, address(16)?])
        }
        6 if *data.get(6)? == 6 => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(data.get(at..at + 16)?).ok()?).into());
            (40, u32::from(u16_at(4)?) + 40, [address(8)?, address(24)?])
        }
        _ => return None,
    };
    let headers = u32::try_from(tcp).ok()? + u32::from(data.get(tcp + 12)? >> 4) * 4;
    Some(Packet {
        at,
        is_outgoing,
        from: SocketAddr::new(from, u16_at(tcp)?),
        to: SocketAddr::new(to, u16_at(tcp + 2)?),
        seq: u32_at(tcp + 4)?,
        ack: u32_at(tcp + 8)?,
        flags: *data.get(tcp + 13)?,
        len: total.checked_sub(headers)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read() {
        let mut data = vec![0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2];
        data.extend([0, 80, 1, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, FIN | ACK, 0, 0, 0, 0, 0, 0]);
        let packet = parse(&data, 5, true).expect("a segment");
        assert_eq!((packet.from.to_string(), packet.to.port()), ("127.0.0.1:80".to_owned(), 256));
        assert_eq!((packet.seq, packet.ack, packet.flags, packet.len), (7, 9, FIN | ACK, 3));
        data[9] = 17;
        assert_eq!(parse(&data, 5, true), None);
        assert_eq!(parse(&[0x45], 5, true), None);
    }
}
