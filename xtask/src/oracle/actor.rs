//! One end of a life: a process that plays its part of the script, and logs every call.

pub(crate) mod resume;
mod rules;
mod share;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::{self, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage,
    accept4, bind, connect, getpeername, getsockname, listen, recv, recvmsg, send, sendmsg, sendto, setsockopt,
    shutdown, socket, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{ForkResult, alarm, fork, pipe, read};

use super::log::{Call, now};
use super::rules::Verdict;
use super::script::{Action, Family, Life, Place, Who};

/// Port of every server; each has an address of its own.
pub(super) const PORT: u16 = 7_000;
/// Time limit of a call, in ms.
const PATIENCE: i64 = 400;
/// Time limit of an actor, in seconds.
const LIMIT: u32 = 30;

/// The address of a life's server, as its own socket reports it.
pub(super) fn server_address(life: &Life, index: usize) -> SocketAddr {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let (v4, v6) = match life.place {
        Place::Loopback => (0x7f01_0000, 0xfd00),
        Place::Veth => (0x0a40_0000, 0xfd01),
        Place::Relay => (0x0a42_0000, 0xfd03),
    };
    let v4 = Ipv4Addr::from(v4 + number);
    let ip: IpAddr = match life.family {
        Family::V4 => v4.into(),
        Family::Mapped => v4.to_ipv6_mapped().into(),
        Family::V6 => Ipv6Addr::from((v6 << 112) | (1 << 32) | u128::from(number)).into(),
    };
    SocketAddr::new(ip, PORT)
}

/// The link between the two ends, by the server's address.
pub(super) fn place_of(server: IpAddr) -> Option<Place> {
    let prefix = match server.to_canonical() {
        IpAddr::V4(v4) => u32::from(v4) >> 16,
        IpAddr::V6(v6) => v6.segments()[0].into(),
    };
    match prefix {
        0x7f01 | 0xfd00 => Some(Place::Loopback),
        0x0a40 | 0xfd01 => Some(Place::Veth),
        0x0a42 | 0xfd03 => Some(Place::Relay),
        _ => None,
    }
}

/// The number of the life, by its server's address.
pub(super) fn life_at(server: IpAddr) -> Option<usize> {
    let number = match server.to_canonical() {
        IpAddr::V4(v4) => match u32::from(v4) >> 16 {
            0x7f01 | 0x0a40 | 0x0a42 => u32::from(v4) & 0xffff,
            _ => return None,
        },
        IpAddr::V6(v6) => u32::try_from(u128::from(v6) & 0xffff_ffff).ok()?,
    };
    usize::try_from(number).ok()
}

/// Resources that all actors share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) log: &'a File,
    pub(super) relay: &'a File,
}

/// One end of a life.
pub(super) struct Actor<'life> {
    index: usize,
    life: &'life Life,
    who: Who,
    /// Pipe on which the other end reports each step that it has done.
    peer: OwnedFd,
    shared: Shared<'life>,
    /// The current or next step.
    at: usize,
    listener: Option<OwnedFd>,
    /// Descriptors of its socket.
    sockets: Vec<OwnedFd>,
    cookie: u64,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// Steps that the other end has reported.
    heard: usize,
    /// Kinds of incoming segments with a rule, by verdict.
    rules: [u32; 3],
}

impl<'life> Actor<'life> {
    pub(super) fn new(index: usize, life: &'life Life, who: Who, peer: OwnedFd, shared: Shared<'life>) -> Self {
        Self {
            index,
            life,
            who,
            peer,
            shared,
            at: 0,
            listener: None,
            sockets: Vec::new(),
            cookie: 0,
            local: None,
            remote: None,
            heard: 0,
            rules: [0; 3],
        }
    }

    /// Plays its part, and ends the process.
    pub(super) fn play(mut self) -> ! {
        alarm::set(LIMIT);
        if self.who == Who::Server {
            self.call("listen", Self::listen);
            self.say_done();
        }
        self.go_on()
    }

    fn go_on(mut self) -> ! {
        // The server listens before the first step.
        let mut expected = usize::from(self.who == Who::Client);
        let next = self.at;
        for (at, step) in self.life.steps.iter().enumerate() {
            if step.who != self.who {
                expected += usize::from(step.awaited);
                continue;
            }
            if at < next {
                continue;
            }
            self.at = at;
            self.hear(expected);
            sleep(Duration::from_millis(step.wait_ms.into()));
            self.act(step.action);
            if step.awaited {
                self.say_done();
            }
        }
        self.vanish("exit");
        // SAFETY: ends the process at once; nothing uses its memory afterwards.
        unsafe { libc::_exit(0) }
    }

    fn say_done(&self) {
        // The other end may have ended.
        let _ = send(self.peer.as_raw_fd(), &[1], MsgFlags::MSG_NOSIGNAL);
    }

    /// Waits until the other end has done this many steps, or has ended.
    fn hear(&mut self, expected: usize) {
        while self.heard < expected {
            match read(&self.peer, &mut [0; 1]) {
                Ok(1) => self.heard += 1,
                Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.close_all();
                self.connect(action.name(), None, None);
            }
            Action::FastOpen(bytes) => {
                self.close_all();
                self.connect(action.name(), None, Some(bytes));
            }
            Action::Drop(kinds) => self.call(action.name(), |actor| actor.set_rule(Verdict::Drop, kinds)),
            Action::Reject(kinds) => self.call(action.name(), |actor| actor.set_rule(Verdict::Reject, kinds)),
            Action::Unreach(kinds) => self.call(action.name(), |actor| actor.set_rule(Verdict::Unreach, kinds)),
            Action::Undrop => self.call(action.name(), Self::forget_rules),
            Action::Hold { kinds, ms } => self.call(action.name(), |actor| actor.hold(kinds, ms)),
            Action::Share => self.share(),
            // If exec succeeds, the new program logs the call.
            Action::Exec => self.call(action.name(), |actor| actor.exec()),
            Action::Reconnect => {
                self.close_all();
                let from = self.local;
                self.connect(action.name(), from, None);
            }
            Action::Accept => {
                self.close_all();
                self.call(action.name(), Self::accept);
            }
            Action::Send(bytes) => self.call(action.name(), |actor| actor.send(bytes)),
            Action::Receive(bytes) => self.call(action.name(), |actor| actor.receive(bytes)),
            Action::ReceiveEnd => self.call(action.name(), |actor| actor.receive(u32::MAX)),
            Action::ShutWrite => self.shut(action, Shutdown::Write),
            Action::ShutRead => self.shut(action, Shutdown::Read),
            Action::ShutBoth => self.shut(action, Shutdown::Both),
            Action::Close => self.close(),
            Action::Linger(seconds) => self.call(action.name(), |actor| actor.linger(seconds)),
            Action::Linger2(seconds) => self.call(action.name(), |actor| {
                let value = if seconds == 0 { -1 } else { i32::try_from(seconds).unwrap_or(1) };
                actor.option(libc::TCP_LINGER2, value)
            }),
            Action::UserTimeout(ms) => self.call(action.name(), |actor| {
                actor.option(libc::TCP_USER_TIMEOUT, i32::try_from(ms).unwrap_or(i32::MAX))
            }),
            Action::Keepalive => self.call(action.name(), |actor| {
                setsockopt(actor.socket()?, sockopt::KeepAlive, &true)?;
                [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT]
                    .into_iter()
                    .try_fold(0, |_, option| actor.option(option, 1))
            }),
            Action::Duplicate => self.call(action.name(), |actor| {
                let copy = actor.socket()?.try_clone().map_err(|_| Errno::EMFILE)?;
                actor.sockets.push(copy);
                Ok(0)
            }),
            Action::Fork => self.fork(),
            Action::Pass => self.pass(),
            Action::Disconnect => self.call(action.name(), Self::disconnect),
            Action::Unlisten => self.call(action.name(), |actor| actor.listener.take().map(|_| 0).ok_or(Errno::EBADF)),
            Action::Destroy => self.call(action.name(), Self::destroy),
            Action::Exit => {
                self.vanish(action.name());
                process::exit(0);
            }
            Action::Kill => {
                self.vanish(action.name());
                // This call does not return.
                let _ = raise(Signal::SIGKILL);
            }
        }
    }

    fn write(&self, name: &str, from: u64, to: Option<u64>, result: Result<u64, Errno>) {
        let (errno, number) = result.map_or_else(|errno| (errno as i32, 0), |number| (0, number));
        let call = Call {
            life: self.index,
            who: self.who,
            name: name.to_owned(),
            pid: process::id(),
            from,
            to,
            errno,
            cookie: self.cookie,
            local: self.local,
            remote: self.remote,
            number,
        };
        call.write(self.shared.log);
    }

    fn call(&mut self, name: &str, what: impl FnOnce(&mut Self) -> Result<u64, Errno>) {
        let from = now();
        let result = what(self);
        self.write(name, from, Some(now()), result);
    }

    /// Logs a call that does not return.
    fn vanish(&self, name: &str) {
        self.write(name, now(), None, Ok(0));
    }

    fn socket(&self) -> Result<&OwnedFd, Errno> {
        self.sockets.last().ok_or(Errno::EBADF)
    }

    fn listen(&mut self) -> Result<u64, Errno> {
        let address = server_address(self.life, self.index);
        let socket = new_socket(self.life.family)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if self.life.steps.iter().any(|step| step.action == Action::Share) {
            setsockopt(&socket, sockopt::ReusePort, &true)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(64)?)?;
        self.listener = Some(socket);
        Ok(0)
    }

    fn accept(&mut self) -> Result<u64, Errno> {
        self.cookie = 0;
        let listener = self.listener.as_ref().ok_or(Errno::EBADF)?;
        let raw = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: it was just made, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        self.cookie = cookie(&socket)?;
        be_impatient(&socket)?;
        self.sockets = vec![socket];
        self.name_ends();
        Ok(0)
    }

    fn connect(&mut self, name: &str, from: Option<SocketAddr>, with: Option<u32>) {
        let to = server_address(self.life, self.index);
        let begun = now();
        let result = self.connect_to(to, from, with);
        self.name_ends();
        self.remote = Some(canonical(to));
        // The socket could not be bound otherwise.
        let name = if self.sockets.is_empty() { "nosocket" } else { name };
        self.write(name, begun, Some(now()), result.map(|()| 0));
        if result.is_err_and(|errno| !matches!(errno, Errno::EINPROGRESS | Errno::EAGAIN | Errno::EALREADY)) {
            // It is closed already.
            self.sockets.clear();
        }
    }

    fn connect_to(&mut self, to: SocketAddr, from: Option<SocketAddr>, with: Option<u32>) -> Result<(), Errno> {
        let socket = new_socket(self.life.family)?;
        be_impatient(&socket)?;
        self.cookie = cookie(&socket)?;
        if let Some(from) = from {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            let from = match (from, self.life.family) {
                (SocketAddr::V4(v4), Family::Mapped) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
                _ => from,
            };
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        let result = match with {
            None => connect(socket.as_raw_fd(), &SockaddrStorage::from(to)),
            Some(bytes) => {
                let data = vec![b'x'; usize::try_from(bytes).unwrap_or(0)];
                let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN) | MsgFlags::MSG_NOSIGNAL;
                sendto(socket.as_raw_fd(), &data, &SockaddrStorage::from(to), flags).map(drop)
            }
        };
        self.sockets = vec![socket];
        result
    }

    fn name_ends(&mut self) {
        let Some(socket) = self.sockets.last() else { return };
        let name = |storage: SockaddrStorage| address(&storage).map(canonical);
        self.local = getsockname(socket.as_raw_fd()).ok().and_then(name);
        self.remote = getpeername(socket.as_raw_fd()).ok().and_then(name).or(self.remote);
    }

    fn send(&self, bytes: u32) -> Result<u64, Errno> {
        let data = vec![b'x'; usize::try_from(bytes).unwrap_or(0)];
        let sent = send(self.socket()?.as_raw_fd(), &data, MsgFlags::MSG_NOSIGNAL)?;
        Ok(u64::try_from(sent).unwrap_or(0))
    }

    fn receive(&self, bytes: u32) -> Result<u64, Errno> {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut received = 0;
        let mut buffer = [0; 16_384];
        while left > 0 {
            let want = left.min(buffer.len());
            let got = match recv(self.socket()?.as_raw_fd(), &mut buffer[..want], MsgFlags::empty()) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Err(errno) if received == 0 => return Err(errno),
                Err(_) => break,
                Ok(got) => got,
            };
            left -= got;
            received += u64::try_from(got).unwrap_or(0);
        }
        Ok(received)
    }

    fn shut(&mut self, action: Action, how: Shutdown) {
        self.call(action.name(), |actor| {
            let how = match how {
                Shutdown::Read => nix::sys::socket::Shutdown::Read,
                Shutdown::Write => nix::sys::socket::Shutdown::Write,
                Shutdown::Both => nix::sys::socket::Shutdown::Both,
            };
            shutdown(actor.socket()?.as_raw_fd(), how).map(|()| 0)
        });
    }

    /// Closes one descriptor.
    fn close(&mut self) {
        let name = if self.sockets.len() > 1 { "closeref" } else { "close" };
        self.call(name, |actor| actor.sockets.pop().map(|_| 0).ok_or(Errno::EBADF));
    }

    fn close_all(&mut self) {
        while !self.sockets.is_empty() {
            self.close();
        }
    }

    fn linger(&self, seconds: u32) -> Result<u64, Errno> {
        let linger = libc::linger { l_onoff: 1, l_linger: libc::c_int::try_from(seconds).unwrap_or(1) };
        setsockopt(self.socket()?, sockopt::Linger, &linger)?;
        Ok(seconds.into())
    }

    /// An int option of TCP.
    fn option(&self, option: libc::c_int, value: libc::c_int) -> Result<u64, Errno> {
        let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        let raw = self.socket()?.as_raw_fd();
        // SAFETY: the socket is open, and the option is an int that lives until the call returns.
        let result = unsafe { libc::setsockopt(raw, libc::IPPROTO_TCP, option, (&raw const value).cast(), length) };
        Errno::result(result)?;
        Ok(u64::try_from(value).unwrap_or(0))
    }

    fn disconnect(&mut self) -> Result<u64, Errno> {
        let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or(16);
        // SAFETY: the socket is open, and the address lives until the call returns.
        let result = unsafe { libc::connect(self.socket()?.as_raw_fd(), &raw const nowhere, length) };
        Errno::result(result)?;
        Ok(0)
    }

    /// Runs `ss -K`, and returns its process id.
    fn destroy(&mut self) -> Result<u64, Errno> {
        let (Some(local), Some(remote)) = (self.local, self.remote) else { return Err(Errno::ENOTCONN) };
        let ends = |name: &str, end: SocketAddr| match end {
            SocketAddr::V4(v4) => format!("{name} {v4}"),
            SocketAddr::V6(v6) => format!("{name} [{}]:{}", v6.ip(), v6.port()),
        };
        let filter = format!("{} and {}", ends("src", local), ends("dst", remote));
        let mut command = Command::new("ss");
        command.args(["-KtnaH", &filter]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().map_err(|_| Errno::ENOENT)?;
        let pid = child.id();
        let output = child.wait_with_output().map_err(|_| Errno::ECHILD)?;
        // `ss -K` prints the sockets that it destroyed.
        if output.stdout.is_empty() { Err(Errno::ENOENT) } else { Ok(pid.into()) }
    }

    /// Forks; the child goes on when its parent has closed everything.
    fn fork(&mut self) {
        let Ok((gone, here)) = pipe() else { return };
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(here);
                self.call("fork", |_| wait_for_end(&gone));
                alarm::set(LIMIT);
            }
            Ok(ForkResult::Parent { .. }) => self.leave(),
            Err(_) => {}
        }
    }

    /// Passes the socket to another process, which goes on with the received descriptor.
    fn pass(&mut self) {
        let Ok((here, there)) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC) else {
            return;
        };
        let is_connected = !self.sockets.is_empty();
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(here);
                self.call("pass", |actor| {
                    actor.sockets.clear();
                    if is_connected {
                        actor.sockets.push(take(&there)?);
                    }
                    wait_for_end(&there)
                });
                alarm::set(LIMIT);
            }
            Ok(ForkResult::Parent { .. }) => {
                drop(there);
                if let Ok(socket) = self.socket() {
                    let raw = [socket.as_raw_fd()];
                    let rights = [ControlMessage::ScmRights(&raw)];
                    let _ = sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None);
                }
                self.leave();
            }
            Err(_) => {}
        }
    }

    fn leave(&mut self) -> ! {
        let count = self.sockets.len();
        for _ in 0..count {
            self.call("closeref", |actor| actor.sockets.pop().map(|_| 0).ok_or(Errno::EBADF));
        }
        self.listener = None;
        // SAFETY: ends the process at once; nothing uses its memory afterwards.
        unsafe { libc::_exit(0) }
    }
}

fn wait_for_end(pipe: &OwnedFd) -> Result<u64, Errno> {
    while read(pipe, &mut [0; 8])? > 0 {}
    Ok(0)
}

fn take(from: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut data = [0; 1];
    let mut vector = [IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(from.as_raw_fd(), &mut vector, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            let raw = *descriptors.first().ok_or(Errno::EBADMSG)?;
            // SAFETY: the kernel has just made it for this process, and nothing else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(raw) });
        }
    }
    Err(Errno::EBADMSG)
}

fn new_socket(family: Family) -> Result<OwnedFd, Errno> {
    let family = if family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Also for a listener: no accept waits for ever.
    be_impatient(&socket)?;
    Ok(socket)
}

fn be_impatient(socket: &OwnedFd) -> Result<(), Errno> {
    let patience = TimeVal::milliseconds(PATIENCE);
    setsockopt(socket, sockopt::ReceiveTimeout, &patience)?;
    setsockopt(socket, sockopt::SendTimeout, &patience)
}

fn cookie(socket: &OwnedFd) -> Result<u64, Errno> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the socket is open, and there is room for the 64 bits that the kernel writes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

/// An address as rows print it.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
