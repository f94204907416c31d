//! A process that plays a part in a test: `actor NAME ROLE [ARGUMENT…]`.
//!
//! It takes the name, and reports each action as a line on stdout. A cue is a line on stdin, or the end of stdin. It
//! resets the connections that it closes itself, unless a role does otherwise.

use std::error::Error;
use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::process::{Command, exit, id};
use std::time::Duration;
use std::{env, ptr};

use io_uring::{IoUring, opcode, types};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, recvmsg, sendmsg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tcptrace_tests::sockets::disconnect;

type Played = Result<(), Box<dyn Error>>;

/// Any free port.
const ANYWHERE: &str = "127.0.0.1:0";
/// The abstract address at which [`give`] meets [`take`]; it belongs to the network namespace.
const MEETING: &[u8] = b"tcptrace-actors";

fn main() -> Played {
    let mut words = env::args_os().skip(1).map(OsStringExt::into_vec);
    set_name(&CString::new(words.next().ok_or("no name")?)?)?;
    let words = words.map(String::from_utf8).collect::<Result<Vec<_>, _>>()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dial", count, to] => dial(count.parse()?, to.parse()?, None),
        ["dial", count, to, from] => dial(count.parse()?, to.parse()?, Some(from.parse()?)),
        ["hold", count] => hold(count.parse()?, ANYWHERE),
        ["hold", count, at] => hold(count.parse()?, at),
        ["hoard"] => hoard(),
        ["accept", how] => accept(how),
        ["prefork"] => prefork(),
        ["heir"] => heir(),
        ["reuseport"] => reuseport(),
        ["give", "accepted"] => give(&accept_one()?),
        ["give", to] => give(&TcpStream::connect(to)?),
        ["give", to, "shut"] => {
            let connection = TcpStream::connect(to)?;
            connection.shutdown(Shutdown::Write)?;
            give(&connection)
        }
        ["give", to, "dissolved"] => {
            let connection = TcpStream::connect(to)?;
            disconnect(&connection);
            give(&connection)
        }
        ["take"] => take(None),
        ["take", to] => take(Some(to.parse()?)),
        ["inetd"] => inetd(),
        ["uring", count, how] => uring(count.parse()?, how),
        _ => Err("no such role".into()),
    }
}

/// Connects, waits for a cue, and resets the connections.
fn dial(count: usize, to: SocketAddr, from: Option<SocketAddr>) -> Played {
    let mut held = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            socket.bind(&from.into())?;
        }
        if let Err(error) = socket.connect(&to.into()) {
            return say(&format!("failed {error}"));
        }
        let socket = TcpStream::from(socket);
        say(&format!("connected {}", socket.local_addr()?))?;
        held.push(socket);
    }
    cue()?;
    held.into_iter().try_for_each(reset)
}

/// Listens, accepts, waits for a cue, and resets the connections.
fn hold(count: usize, at: &str) -> Played {
    let listener = listen(at)?;
    let held = (0..count).map(|_| accept_from(&listener)).collect::<Result<Vec<_>, _>>()?;
    cue()?;
    held.into_iter().try_for_each(reset)
}

/// Accepts until that fails, reports the error's number, and waits for a cue.
fn hoard() -> Played {
    let listener = listen(ANYWHERE)?;
    let mut held = Vec::new();
    loop {
        match accept_from(&listener) {
            Ok(connection) => held.push(connection),
            Err(error) => {
                let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
                say(&format!("failed {}", number.unwrap_or(0)))?;
                return cue();
            }
        }
    }
}

/// Accepts with this system call. A non-blocking listener first finds nothing, and accepts after a cue. Then it waits
/// for another cue, and resets the connection.
fn accept(how: &str) -> Played {
    let listener = listen(ANYWHERE)?;
    let fd = listener.as_raw_fd();
    let accepted = match how {
        "accept" => socket::accept(fd)?,
        "accept4" => socket::accept4(fd, SockFlag::SOCK_CLOEXEC)?,
        "accept4_nonblock" => socket::accept4(fd, SockFlag::SOCK_NONBLOCK)?,
        "nonblocking" => {
            listener.set_nonblocking(true)?;
            let nothing = socket::accept(fd).err();
            say(&format!("nothing {}", nothing == Some(nix::errno::Errno::EAGAIN)))?;
            cue()?;
            socket::accept(fd)?
        }
        _ => return Err("no such way to accept".into()),
    };
    // SAFETY: the descriptor is new, and nothing else owns it.
    let accepted = unsafe { TcpStream::from_raw_fd(accepted) };
    // A connection that its peer has reset has no peer address any more.
    say(&format!("accepted {}", accepted.peer_addr().map_or("nobody".into(), |peer| peer.to_string())))?;
    cue()?;
    reset(accepted)
}

/// Listens, and has two children accept one connection each.
fn prefork() -> Played {
    let listener = listen(ANYWHERE)?;
    let child = |_: usize| {
        let mut accepted = accept_from(&listener)?;
        read_to_end(&mut accepted)
    };
    let children = [start("child0", || child(0))?, start("child1", || child(1))?];
    cue()?;
    stop(&children)
}

/// Serves one connection. After a cue a child inherits the listener, and serves alone. After another cue it is killed, and
/// the parent serves until the last cue.
fn heir() -> Played {
    let listener = listen(ANYWHERE)?;
    let serve = |listener: &TcpListener| read_to_end(&mut accept_from(listener)?);
    serve(&listener)?;
    cue()?;
    let child = start("heir", || {
        loop {
            serve(&listener)?;
        }
    })?;
    say(&format!("bequeathed {child}"))?;
    cue()?;
    stop(&[child])?;
    say("gone")?;
    std::thread::spawn(move || while serve(&listener).is_ok() {});
    cue()
}

/// Two children listen at the same address, each with its own listener, and accept until they are killed.
fn reuseport() -> Played {
    // Reserves the port until both children listen.
    let place = shared(ANYWHERE.parse()?)?;
    let at = place.local_addr()?.as_socket().ok_or("no address")?;
    let child = || {
        let listener = shared(at)?;
        listener.listen(64)?;
        let listener = TcpListener::from(listener);
        say(&format!("listening {} {at}", id()))?;
        let mut held = Vec::new();
        loop {
            held.push(accept_from(&listener)?);
        }
    };
    let children = [start("child0", child)?, start("child1", child)?];
    cue()?;
    stop(&children)
}

/// Passes its connection on, and keeps no copy.
fn give(connection: &TcpStream) -> Played {
    let to = UnixStream::connect_addr(&UnixAddress::from_abstract_name(MEETING)?)?;
    let fds = [connection.as_raw_fd()];
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    cue()
}

/// Receives a connection, or a socket to connect. Waits for a cue, and resets it.
fn take(to: Option<SocketAddr>) -> Played {
    let listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(MEETING)?)?;
    say("ready")?;
    let (from, _) = listener.accept()?;
    let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 1]));
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let given = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    let given = unsafe { TcpStream::from_raw_fd(given.ok_or("nothing was given")?) };
    if let Some(to) = to {
        SockRef::from(&given).connect(&to.into())?;
    }
    say("took")?;
    cue()?;
    reset(given)
}

/// Accepts a connection for a child, and keeps no copy.
fn inetd() -> Played {
    let connection = OwnedFd::from(accept_one()?);
    let mut child = Command::new("cat").stdin(connection.try_clone()?).stdout(connection).spawn()?;
    say(&format!("served {}", child.id()))?;
    child.wait()?;
    Ok(())
}

/// Accepts through io_uring: into descriptors, or into the ring alone, with which the connections end.
fn uring(count: usize, how: &str) -> Played {
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return say(&format!("unavailable {error}")),
    };
    let listener = listen(ANYWHERE)?;
    let slots = u32::try_from(count)?;
    ring.submitter().register_files_sparse(slots)?;
    let mut held = Vec::new();
    for _ in 0..count {
        let accept = opcode::Accept::new(types::Fd(listener.as_raw_fd()), ptr::null_mut(), ptr::null_mut());
        let slot = (how == "ring").then(types::DestinationSlot::auto_target);
        // SAFETY: the listener outlives the request, which writes no address.
        unsafe { ring.submission().push(&accept.file_index(slot).build())? };
        ring.submit_and_wait(1)?;
        let accepted = ring.completion().next().ok_or("nothing was completed")?.result();
        if accepted < 0 {
            return Err(io::Error::from_raw_os_error(-accepted).into());
        }
        if slot.is_none() {
            // SAFETY: the descriptor is new, and nothing else owns it.
            held.push(unsafe { TcpStream::from_raw_fd(accepted) });
        }
        say("accepted")?;
    }
    cue()?;
    held.into_iter().try_for_each(reset)
}

/// A socket that can share its address with others.
fn shared(at: SocketAddr) -> Result<Socket, Box<dyn Error>> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn listen(at: &str) -> Result<TcpListener, Box<dyn Error>> {
    let listener = TcpListener::bind(at)?;
    say(&format!("listening {}", listener.local_addr()?))?;
    Ok(listener)
}

/// Reports which process accepted a connection, and from which peer.
fn accept_from(listener: &TcpListener) -> Result<TcpStream, Box<dyn Error>> {
    let (connection, peer) = listener.accept()?;
    say(&format!("accepted {} {peer}", id()))?;
    Ok(connection)
}

fn accept_one() -> Result<TcpStream, Box<dyn Error>> {
    accept_from(&listen(ANYWHERE)?)
}

/// Starts a child with this name that runs this, and that ends with its parent.
fn start(name: &str, work: impl FnOnce() -> Played) -> Result<Pid, Box<dyn Error>> {
    // SAFETY: this process has no other thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL)?;
            set_name(&CString::new(name)?)?;
            exit(i32::from(work().is_err()));
        }
    }
}

fn stop(children: &[Pid]) -> Played {
    for child in children {
        // It may have ended already; its id stays reserved until it is reaped.
        kill(*child, Signal::SIGKILL)?;
        waitpid(*child, None)?;
    }
    Ok(())
}

fn reset(connection: TcpStream) -> Played {
    SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
    drop(connection);
    Ok(())
}

fn read_to_end(connection: &mut TcpStream) -> Played {
    connection.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// In one write, so that the lines of several processes do not mix.
fn say(line: &str) -> Played {
    io::stdout().write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// Waits for a line, or for the end of its input.
fn cue() -> Played {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
