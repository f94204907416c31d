//! What the kernel side reports that no row shows: system calls that fail, and options of sockets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::sockopt::{ReuseAddr, ReusePort};
use nix::sys::socket::{
    Backlog, SockFlag, SockaddrIn, SockaddrStorage, accept4, bind, getsockname, listen, setsockopt,
};
use nix::time::ClockId;
use tcptrace::kernel::clock_ns;
use tcptrace::kernel::probe::{Options, Probe};
use tcptrace::model::event::{Call, Event, FailedCall, Idle, Reuse};
use tcptrace::model::feature::Feature;
use tcptrace::model::tcp::State;
use tcptrace_tests::Namespace;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::sockets::address;
use tcptrace_tests::test;

/// No event takes longer to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two ticks of a kernel that has a hundred a second.
const TICKS: Duration = Duration::from_millis(20);

/// The programs, with a namespace of their own.
struct Watched {
    net: Namespace,
    probe: Probe,
    /// The ring buffer registers with it.
    runtime: tokio::runtime::Runtime,
    events: Vec<Event>,
}

impl Watched {
    fn begin(failed_calls: bool) -> Self {
        let net = Namespace::enter_unwatched();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let inside = runtime.enter();
        let netns = u32::try_from(net.inode()).expect("an inode number");
        let filter = tcptrace_common::Filter { netns, ..tcptrace_common::Filter::default() };
        let probe = Probe::attach(&Options { filter, failed_calls, ..Options::default() }).expect("attach");
        drop(inside);
        let served = |feature| probe.services().iter().find(|(served, _)| *served == feature);
        let wanted = if failed_calls { Feature::FailedCalls } else { Feature::Transitions };
        let (_, service) = served(wanted).expect("it was asked for");
        if !service.is_attached() || !probe.knows_cookies() {
            skip(format!("this kernel does not allow it: {service}"));
        }
        assert_eq!(served(Feature::FailedCalls).is_some(), failed_calls, "attached on demand only");
        Self { net, probe, runtime, events: Vec::new() }
    }

    /// Waits for an event.
    fn wait<T>(&mut self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = &mut self.events;
            let now = clock_ns(ClockId::CLOCK_BOOTTIME).expect("the time");
            self.probe.drain(usize::MAX, now, &[], |event| events.push(event));
            if let Some(found) = self.events.iter().find_map(&mut find) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} in {:#?}", self.events);
            self.runtime.block_on(self.probe.wait(Duration::from_millis(100)));
        }
    }

    /// Waits until a call of a process is told.
    fn failed(&mut self, call: Call, pid: u32) -> FailedCall {
        let found = self.wait(call.as_str(), |event| match event {
            Event::FailedCall(failed) if failed.call == call => Some(*failed),
            _ => None,
        });
        assert_eq!((found.task.pid, found.netns.map(u64::from)), (pid, Some(self.net.inode())));
        found
    }
}

/// The id of a child that does this and ends with its errno: what this process does itself is not told, as it is the
/// tracer. `work` makes system calls only.
fn child(expected: Errno, work: impl FnOnce() -> Result<(), Errno>) -> u32 {
    // SAFETY: the child makes system calls on its own stack, and ends.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(work().map_or_else(|errno| errno as i32, |()| 0));
        }
        pid
    };
    assert!(pid > 0, "fork");
    let mut status = 0;
    // SAFETY: it is our child, and the status is ours to write.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(libc::WEXITSTATUS(status), expected as i32);
    u32::try_from(pid).expect("a pid")
}

fn bind_to(socket: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    bind(socket.as_raw_fd(), &SockaddrStorage::from(to))
}

fn number(fd: &impl AsRawFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("a descriptor")
}

fn socket(domain: i32) -> OwnedFd {
    socket_of(domain, libc::SOCK_STREAM)
}

fn socket_of(domain: i32, kind: i32) -> OwnedFd {
    // SAFETY: a system call without pointers; the descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "a socket");
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn a_bind_that_fails() {
    let mut watched = Watched::begin(true);
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let taken = address(&listener);
    let socket = socket(libc::AF_INET);
    let pid = child(Errno::EADDRINUSE, || bind_to(&socket, taken));

    let failed = watched.failed(Call::Bind, pid);
    assert_eq!((i32::from(failed.errno), failed.fd), (libc::EADDRINUSE, number(&socket)));
    assert_eq!(failed.address, Some((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), taken.port())));
}

#[test]
fn a_bind_to_an_address_of_another_host() {
    let mut watched = Watched::begin(true);
    let socket = socket(libc::AF_INET6);
    let foreign: SocketAddrV6 = "[2001:db8::1]:4321".parse().expect("an address");
    let pid = child(Errno::EADDRNOTAVAIL, || bind_to(&socket, foreign.into()));

    let failed = watched.failed(Call::Bind, pid);
    assert_eq!((i32::from(failed.errno), failed.fd), (libc::EADDRNOTAVAIL, number(&socket)));
    assert_eq!(failed.address, Some((*foreign.ip(), foreign.port())));
}

/// Two sockets may be bound to a port, if both say so, but only one of them may listen.
#[test]
fn a_listen_that_fails() {
    let mut watched = Watched::begin(true);
    let sockets = [socket(libc::AF_INET), socket(libc::AF_INET)];
    let mut at: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    for socket in &sockets {
        setsockopt(socket, ReuseAddr, &true).expect("SO_REUSEADDR");
        bind_to(socket, at).expect("bind");
        let name: SockaddrIn = getsockname(socket.as_raw_fd()).expect("its name");
        at.set_port(name.port());
    }
    listen(&sockets[0], Backlog::MAXCONN).expect("listen");
    let pid = child(Errno::EADDRINUSE, || listen(&sockets[1], Backlog::MAXCONN));

    let failed = watched.failed(Call::Listen, pid);
    assert_eq!((i32::from(failed.errno), failed.fd), (libc::EADDRINUSE, number(&sockets[1])));
    assert_eq!(failed.address, Some((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), at.port())));
}

/// No descriptor is left. Of what a process tries in a circle, a part is told.
#[test]
fn an_accept_without_a_descriptor() {
    let mut watched = Watched::begin(true);
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = address(&listener);
    let _client = TcpStream::connect(at).expect("connect");
    let accept = || accept4(listener.as_raw_fd(), SockFlag::empty());
    let pid = child(Errno::EMFILE, || {
        setrlimit(Resource::RLIMIT_NOFILE, 0, 0)?;
        (0..99).try_for_each(|_| {
            accept().map(drop).or_else(|errno| if errno == Errno::EMFILE { Ok(()) } else { Err(errno) })
        })?;
        accept().map(drop)
    });
    let last = child(Errno::EADDRINUSE, || bind_to(&socket(libc::AF_INET), at));

    let failed = watched.failed(Call::Accept, pid);
    assert_eq!((i32::from(failed.errno), failed.fd), (libc::EMFILE, number(&listener)));
    assert_eq!(failed.address, Some((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), at.port())));
    watched.failed(Call::Bind, last);
    let times: Vec<_> =
        watched.events.iter().filter(|event| matches!(event, Event::FailedCall(_))).map(Event::at).collect();
    let (_, accepts) = times.split_last().expect("calls");
    let took_ms = (accepts[accepts.len() - 1] - accepts[0]) / 1_000_000;
    // The time that a record shows is a bit later than the one that counts.
    assert!(accepts.len() as u64 <= took_ms + 2, "{times:?}");
}

/// Only failures of TCP sockets are told, only those that somebody can do something about, and only those of the
/// namespaces that are asked for.
#[test]
fn calls_that_are_not_told() {
    let mut watched = Watched::begin(true);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    let taken = taken.local_addr().expect("its address");
    child(Errno::EADDRINUSE, || bind_to(&socket_of(libc::AF_INET, libc::SOCK_DGRAM), taken));
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    listener.set_nonblocking(true).expect("not to wait");
    child(Errno::EAGAIN, || accept4(listener.as_raw_fd(), SockFlag::empty()).map(drop));
    std::thread::scope(|scope| {
        let elsewhere = || {
            let _other = Namespace::enter_unwatched();
            let foreign = "192.0.2.1:80".parse().expect("an address");
            child(Errno::EADDRNOTAVAIL, || bind_to(&socket(libc::AF_INET), foreign));
        };
        scope.spawn(elsewhere).join().expect("the other namespace");
    });
    let last = child(Errno::EADDRINUSE, || bind_to(&socket(libc::AF_INET), address(&listener)));

    watched.failed(Call::Bind, last);
    let told = watched.events.iter().filter(|event| matches!(event, Event::FailedCall(_))).count();
    assert_eq!(told, 1, "{:#?}", watched.events);
}

/// Both ends say how long nothing had moved, and their options; those of a child are its listener's.
#[test]
fn how_long_it_was_quiet() {
    const HOLD: Duration = Duration::from_millis(300);
    let mut watched = Watched::begin(false);
    let listener = socket(libc::AF_INET);
    setsockopt(&listener, ReuseAddr, &true).expect("SO_REUSEADDR");
    setsockopt(&listener, ReusePort, &true).expect("SO_REUSEPORT");
    bind_to(&listener, "127.0.0.1:0".parse().expect("an address")).expect("bind");
    listen(&listener, Backlog::MAXCONN).expect("listen");
    let listener = TcpListener::from(listener);
    let connected = Instant::now();
    let mut client = TcpStream::connect(address(&listener)).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    std::thread::sleep(HOLD);
    let sent = Instant::now();
    std::io::Write::write_all(&mut client, b"hello").expect("send");
    std::io::Read::read_exact(&mut server, &mut [0; 5]).expect("receive");
    std::thread::sleep(HOLD);
    drop(server);
    drop(client);
    let (quiet, open) = (sent.elapsed(), connected.elapsed());

    let mut idle_at = |state| {
        watched.wait("end", |event| match event {
            Event::Change(change) if (change.old, change.new) == (State::Established, state) => Some(change.idle),
            _ => None,
        })
    };
    let about = |ms: Option<u32>, from: Duration, to: Duration| {
        let took = Duration::from_millis(ms.expect("a time").into());
        assert!((from.saturating_sub(TICKS)..=to + TICKS).contains(&took), "{took:?} is not {from:?} to {to:?}");
    };
    let Idle { received_ms, sent_ms, .. } = idle_at(State::FinWait1).expect("idle times");
    about(received_ms, HOLD, quiet);
    assert_eq!(sent_ms, None, "the server has not sent anything");
    let Idle { received_ms, sent_ms, .. } = idle_at(State::CloseWait).expect("idle times");
    about(sent_ms, HOLD, quiet);
    about(received_ms, 2 * HOLD, open);

    let reuse = |watched: &mut Watched, old, new| {
        watched.wait("options", |event| match event {
            Event::Change(change) if (change.old, change.new) == (old, new) => change.flags?.reuse,
            _ => None,
        })
    };
    let both = Reuse { address: true, port: true };
    assert_eq!(reuse(&mut watched, State::Closed, State::Listen), both);
    assert_eq!(reuse(&mut watched, State::Closed, State::SynSent), Reuse::default());
    assert_eq!(reuse(&mut watched, State::FinWait2, State::Closed), both, "a child is as its listener");
    assert_eq!(reuse(&mut watched, State::LastAck, State::Closed), Reuse::default());
}
