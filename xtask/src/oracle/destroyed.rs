//! The third witness: the kernel's notice of every socket that it frees (`sock_diag_broadcast_destroy`,
//! net/core/sock_diag.c), with the socket's counts.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};

const NETLINK_SOCK_DIAG: libc::c_int = 4;
/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`, as bits.
const GROUPS: u32 = 1 | 1 << 2;
const INET_DIAG_INFO: u16 = 2;
/// Offset of the attributes, behind `nlmsghdr` and `inet_diag_msg`.
const ATTRIBUTES: usize = 16 + 72;
const BUFFER: libc::c_int = 64 << 20;

/// The counts of a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counted {
    pub(super) bytes_sent: u64,
    /// Including the peer's FIN, if it arrived.
    pub(super) bytes_received: u64,
    pub(super) retransmits: u64,
}

/// By cookie.
pub(super) type Destroyed = HashMap<u64, Counted>;

/// Collects notices until it is stopped.
pub(super) struct Listener {
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<Result<Destroyed>>,
}

impl Listener {
    /// Starts in this network namespace.
    pub(super) fn start(namespace: PathBuf) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            let socket = open(&namespace);
            // The receiver waits in `start`.
            let _ = ready.send(());
            read(&socket?, &over)
        });
        is_ready.recv().context("the listener for destroyed sockets ended")?;
        Ok(Self { is_over, reader })
    }

    /// Stops. It holds the network namespace no longer.
    pub(super) fn stop(self) -> Result<Destroyed> {
        self.is_over.store(true, Ordering::Relaxed);
        self.reader.join().map_err(|_| anyhow!("the listener for destroyed sockets panicked"))?
    }
}

fn open(namespace: &Path) -> Result<OwnedFd> {
    let namespace = File::open(namespace).context("cannot find the network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG) };
    let raw = Errno::result(raw).context("cannot make a netlink socket")?;
    // SAFETY: it was just made, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let (buffer, length) = (BUFFER, libc::socklen_t::try_from(size_of::<libc::c_int>())?);
    // SAFETY: the socket is open, and the option is an int that lives until the call returns.
    let result =
        unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const buffer).cast(), length) };
    Errno::result(result).context("cannot set up the netlink socket")?;
    // SAFETY: all zeroes is a valid `sockaddr_nl`: it has integers only.
    let mut address: libc::sockaddr_nl = unsafe { zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK)?;
    address.nl_groups = GROUPS;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>())?;
    // SAFETY: the socket is open, and the address lives until the call returns.
    let result = unsafe { libc::bind(raw, (&raw const address).cast(), length) };
    Errno::result(result).context("cannot listen for destroyed sockets")?;
    Ok(socket)
}

fn read(socket: &OwnedFd, is_over: &AtomicBool) -> Result<Destroyed> {
    let mut destroyed = Destroyed::new();
    let mut buffer = [0_u8; 8_192];
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives until the call returns.
        unsafe { libc::poll(&raw mut poll, 1, 50) };
        loop {
            let raw = socket.as_raw_fd();
            // SAFETY: the socket is open, and the buffer has the given length.
            let length = unsafe { libc::recv(raw, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
            let Ok(length) = usize::try_from(length) else {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(error).context("cannot receive notices of destroyed sockets"),
                }
            };
            destroyed.extend(parse(&buffer[..length]));
        }
        if was_over {
            return Ok(destroyed);
        }
    }
}

/// The cookie and the counts; `struct tcp_info` (include/uapi/linux/tcp.h) has only grown at its end.
fn parse(message: &[u8]) -> Option<(u64, Counted)> {
    let u64_at = |data: &[u8], at: usize| Some(u64::from_ne_bytes(data.get(at..at + 8)?.try_into().ok()?));
    let u32_at = |data: &[u8], at: usize| Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let cookie = u64::from(u32_at(message, 16 + 44)?) | u64::from(u32_at(message, 16 + 48)?) << 32;
    let mut at = ATTRIBUTES;
    loop {
        let header = message.get(at..at + 4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == INET_DIAG_INFO {
            let info = message.get(at + 4..at + length)?;
            let retransmits = u32_at(info, 100)?.into();
            return Some((
                cookie,
                Counted { bytes_sent: u64_at(info, 200)?, bytes_received: u64_at(info, 128)?, retransmits },
            ));
        }
        at += length.next_multiple_of(4).max(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read() {
        let mut message = vec![0_u8; ATTRIBUTES];
        message[60..64].copy_from_slice(&7_u32.to_ne_bytes());
        message.extend([8_u16.to_ne_bytes(), 9_u16.to_ne_bytes()].concat());
        message.extend([0; 4]);
        message.extend([(4 + 240_u16).to_ne_bytes(), INET_DIAG_INFO.to_ne_bytes()].concat());
        let mut info = vec![0_u8; 240];
        info[100..104].copy_from_slice(&3_u32.to_ne_bytes());
        info[128..136].copy_from_slice(&11_u64.to_ne_bytes());
        info[200..208].copy_from_slice(&22_u64.to_ne_bytes());
        message.extend(info);
        assert_eq!(parse(&message), Some((7, Counted { bytes_sent: 22, bytes_received: 11, retransmits: 3 })));
        assert_eq!(parse(&message[..200]), None);
    }
}
