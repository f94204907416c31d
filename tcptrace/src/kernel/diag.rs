//! The TCP sockets of a network namespace, asked for as `ss` does it (`sock_diag`).

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
use wire::{Circumstances, MptcpRequest, Of, Request, Step};

/// The kernel answers in pieces of up to 32 KiB, however large this is.
const BUFFER: usize = 64 * 1024;

/// Which sockets to ask for, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them, as little as the kernel gives.
    All,
    /// All of them, and which are subflows of MPTCP connections: where there are any, the kernel locks each full socket for
    /// that.
    AllAndPaths,
    /// Those that a received segment has brought into a state that waits for somebody, with their
    /// [`Progress`](crate::model::socket::Progress): the kernel locks each of them for that.
    Waiting,
    /// All of them, as little as the kernel gives, and those that are bound and nothing else, which are CLOSED (6.8 and
    /// newer).
    AllAndBound,
    /// Both of these.
    AllAndBoundAndPaths,
    /// Those that listen.
    Listening,
    /// Connection requests.
    Requests,
    /// Those of which one end has closed, with their [`Progress`](crate::model::socket::Progress).
    Lingering,
    /// Those that have data to send, or may have, with their [`Progress`](crate::model::socket::Progress).
    Flowing,
}

/// How an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Dump {
    /// The kernel says that something changed under its hands: sockets may be missing.
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
    /// The kernel says no, or could not go on.
    Kernel(Errno),
    /// A piece of the answer was larger than the kernel makes them.
    TooLong(usize),
    /// A piece of the answer makes no sense.
    Malformed,
    /// The kernel says that it lost part of the answer.
    Overrun,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(Errno::ENOENT) => {
                f.write_str("the kernel has no module tcp_diag: `modprobe tcp_diag` as root")
            }
            Self::Kernel(error) => f.write_str(error.desc()),
            Self::TooLong(bytes) => write!(f, "a piece of the answer has {bytes} bytes"),
            Self::Malformed => f.write_str("the answer is malformed"),
            Self::Overrun => f.write_str("part of the answer was lost"),
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
/// What the kernel says. What was handed over until then is true, but not everything.
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
            let piece = receive(&kernel, &mut buffer)?;
            let about = Circumstances { at: boot_ns()?, netns: found.netns, protocol: Of::Tcp };
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

/// Hands over every socket of MPTCP in the calling thread's network namespace, with its token and its own state. If a
/// process holds it, its TCP sockets, the subflows, have the same inode number (`mptcp_subflow_create_socket` in
/// `net/mptcp/subflow.c`), and no descriptor leads to them. Where the kernel knows no MPTCP, or does not list it, there
/// are none.
pub fn mptcp(netns: Option<u32>, sink: &mut dyn FnMut(Socket)) {
    if IS_MPTCP_MISSING.load(Ordering::Relaxed) {
        return;
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let question = Question { netns, protocol: Of::Mptcp, request: MptcpRequest::new(family as u8) };
        match question.ask(sink) {
            // Every question would have the kernel look for the module.
            Err(Reason::Kernel(Errno::ENOENT | Errno::EINVAL)) => IS_MPTCP_MISSING.store(true, Ordering::Relaxed),
            Err(reason) => log::debug!("cannot list sockets of MPTCP: {reason}"),
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
        while !step.done {
            let piece = receive(&kernel, &mut buffer)?;
            let about = Circumstances { at: boot_ns()?, netns: self.netns, protocol: self.protocol };
            wire::parse(piece, &about, &mut step, sink)?;
        }
        Ok(step.interrupted)
    }
}

/// A socket that hears from nobody but the kernel.
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
