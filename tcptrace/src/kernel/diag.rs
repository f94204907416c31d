//! The TCP sockets of a network namespace, listed as `ss` does it (`sock_diag`).

mod wire;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use nix::time::ClockId;
use zerocopy::{Immutable, IntoBytes};

use super::clock::clock_ns;
use crate::model::event::Found;
use crate::model::socket::Socket;
use crate::model::tcp::State;
use wire::{AutoboundRequest, Circumstances, MptcpRequest, Of, Request, Step};

/// The kernel answers in pieces of up to 32 KiB, even if this is larger.
const BUFFER: usize = 64 * 1024;

/// Which sockets to ask for, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them, with as few facts as the kernel allows.
    All,
    /// All of them, and which are subflows of MPTCP connections. If there are any, the kernel locks each full socket
    /// for that.
    AllAndPaths,
    /// Sockets that a received segment has brought into a state that waits for somebody, with their
    /// [`Progress`](crate::model::socket::Progress). The kernel locks each of them for that.
    Waiting,
    /// All of them, as little as the kernel gives, and those that are bound and nothing else, which are CLOSED (6.8 and
    /// newer).
    AllAndBound,
    /// Both of these.
    AllAndBoundAndPaths,
    /// Those in these states, as bits by the kernel's numbers ([`Wanted::in_states`]), with as few facts as the kernel allows.
    In(u32),
    /// Those that listen.
    Listening,
    /// Connection requests.
    Requests,
    /// Those of which one end has closed, with their [`Progress`](crate::model::socket::Progress).
    Lingering,
    /// Sockets that have data to send, or may have, with their [`Progress`](crate::model::socket::Progress).
    Flowing,
}

impl Wanted {
    /// Sockets in these states only: the kernel passes over the others, and says nothing of them.
    pub fn in_states(states: &[State]) -> Self {
        Self::In(wire::bits(states))
    }
}

/// The result of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Dump {
    /// The kernel noticed a change during the dump: sockets may be missing.
    pub interrupted: bool,
}

/// Why sockets cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list TCP sockets (sock_diag, {family}): {reason}")]
pub struct DiagError {
    family: &'static str,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The kernel refused, or could not continue.
    Kernel(Errno),
    /// A piece of the answer was longer than the kernel makes them.
    TooLong(usize),
    /// A piece of the answer was malformed.
    Malformed,
    /// The kernel lost part of the answer.
    Overrun,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(Errno::ENOENT) => {
                f.write_str("the kernel module tcp_diag is missing: run `modprobe tcp_diag` as root")
            }
            Self::Kernel(error) => f.write_str(error.desc()),
            Self::TooLong(bytes) => write!(f, "a piece of the answer is too long ({bytes} bytes)"),
            Self::Malformed => f.write_str("the answer is malformed"),
            Self::Overrun => f.write_str("the kernel lost part of the answer"),
        }
    }
}

impl From<Errno> for Reason {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

/// Hands over the wanted TCP sockets of the calling thread's network namespace, whose inode number is `netns`: those of
/// `AF_INET`, of `AF_INET6`, or both. The latter can have IPv4-mapped addresses.
///
/// A socket can come twice, and one whose state changes meanwhile can be missed: the kernel walks through a table that
/// is in use.
///
/// # Errors
///
/// The kernel's error. Sockets handed over before it are valid, but not complete.
pub fn dump(
    netns: Option<u32>,
    wanted: Wanted,
    ipv4: bool,
    ipv6: bool,
    sink: &mut dyn FnMut(Socket),
) -> Result<Dump, DiagError> {
    let mut dump = Dump::default();
    let families = [(ipv4, "IPv4", libc::AF_INET), (ipv6, "IPv6", libc::AF_INET6)];
    for (_, family, number) in families.into_iter().filter(|(wanted, ..)| *wanted) {
        let question = Question { netns, protocol: Of::Tcp, request: Request::new(number as u8, wanted) };
        dump.interrupted |= question.ask(sink).map_err(|reason| DiagError { family, reason })?;
    }
    Ok(dump)
}

/// Hands over the listeners of the calling thread's network namespace whose port the kernel chose: no bind() has asked for
/// it (`SOCK_BINDPORT_LOCK` in `inet_bind`).
pub(super) fn autobound(sink: &mut dyn FnMut(Socket)) -> Result<(), DiagError> {
    for (family, number) in [("IPv4", libc::AF_INET), ("IPv6", libc::AF_INET6)] {
        let request = AutoboundRequest::new(number as u8);
        let question = Question { netns: None, protocol: Of::Tcp, request };
        question.ask(sink).map_err(|reason| DiagError { family, reason })?;
    }
    Ok(())
}

/// Asks for these sockets of the calling thread's network namespace once more, one by one, with their
/// [`Progress`](crate::model::socket::Progress). Those that are gone are left out.
pub(super) fn inspect<'f>(
    sockets: impl IntoIterator<Item = &'f Found>,
    sink: &mut dyn FnMut(Socket),
) -> Result<(), DiagError> {
    let failed = |reason| DiagError { family: "one socket", reason };
    let kernel = open().map_err(|error| failed(error.into()))?;
    let mut buffer = vec![0; BUFFER];
    for found in sockets {
        let Some(request) = Request::one(found) else { continue };
        let mut ask = || {
            send(kernel.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
            let about = Circumstances { at: boot_ns()?, netns: found.netns, protocol: Of::Tcp };
            let piece = receive(&kernel, &mut buffer)?;
            wire::parse(piece, &about, &mut Step::default(), sink)
        };
        match ask() {
            // Another one can have its addresses by now.
            Ok(()) | Err(Reason::Kernel(Errno::ENOENT | Errno::ESTALE)) => {}
            Err(reason) => return Err(failed(reason)),
        }
    }
    Ok(())
}

/// Hands over every MPTCP socket in the calling thread's network namespace, with its token and its own state. If a
/// process holds it, its subflows (TCP sockets) have the same inode number (`mptcp_subflow_create_socket` in
/// `net/mptcp/subflow.c`), and no descriptor leads to them. A kernel without MPTCP, or without a list of its sockets,
/// has none.
pub fn mptcp(netns: Option<u32>, sink: &mut dyn FnMut(Socket)) {
    if IS_MPTCP_MISSING.load(Ordering::Relaxed) {
        return;
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let question = Question { netns, protocol: Of::Mptcp, request: MptcpRequest::new(family as u8) };
        match question.ask(sink) {
            // Otherwise each request would make the kernel look for the module.
            Err(Reason::Kernel(Errno::ENOENT | Errno::EINVAL)) => IS_MPTCP_MISSING.store(true, Ordering::Relaxed),
            Err(reason) => log::debug!("cannot list MPTCP sockets: {reason}"),
            Ok(_) => {}
        }
    }
}

static IS_MPTCP_MISSING: AtomicBool = AtomicBool::new(false);

struct Question<R> {
    netns: Option<u32>,
    protocol: Of,
    request: R,
}

impl<R: IntoBytes + Immutable> Question<R> {
    /// Whether the answer was interrupted.
    fn ask(&self, sink: &mut dyn FnMut(Socket)) -> Result<bool, Reason> {
        let kernel = open()?;
        send(kernel.as_raw_fd(), self.request.as_bytes(), MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        let mut step = Step::default();
        // The kernel writes each piece at the end of the call before the one that returns it (`netlink_recvmsg` in
        // `net/netlink/af_netlink.c`).
        let mut written = boot_ns()?;
        while !step.done {
            let piece = receive(&kernel, &mut buffer)?;
            let about = Circumstances { at: written, netns: self.netns, protocol: self.protocol };
            written = boot_ns()?;
            wire::parse(piece, &about, &mut step, sink)?;
        }
        Ok(step.interrupted)
    }
}

/// Reads any bytes as an answer of the kernel.
#[cfg(feature = "fuzz")]
pub(super) fn read_any(piece: &[u8], of_mptcp: bool, sink: &mut dyn FnMut(Socket)) {
    let about = Circumstances { at: 0, netns: None, protocol: if of_mptcp { Of::Mptcp } else { Of::Tcp } };
    // An error is an answer, too.
    let _ = wire::parse(piece, &about, &mut Step::default(), sink);
}

/// A socket that receives only from the kernel.
fn open() -> nix::Result<OwnedFd> {
    let kernel =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    connect(kernel.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(kernel)
}

fn receive<'a>(kernel: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], Reason> {
    let bytes = loop {
        // With this flag the length is the true one, even if the buffer is shorter.
        match recv(kernel.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(Reason::Malformed),
            other => break other?,
        }
    };
    buffer.get(..bytes).ok_or(Reason::TooLong(bytes))
}

fn boot_ns() -> nix::Result<u64> {
    clock_ns(ClockId::CLOCK_BOOTTIME).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)))
}

#[cfg(test)]
mod tests;
