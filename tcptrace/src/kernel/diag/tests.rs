//! What this kernel answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use nix::sys::stat::fstat;

use super::*;
use crate::kernel::testing::in_new_namespace;
use crate::model::event::{Id, Kept};
use crate::model::socket::Timer;
use crate::model::tcp::State;

fn sockets() -> Vec<Socket> {
    let mut sockets = Vec::new();
    let dump = dump(Some(1), Wanted::All, true, true, &mut |socket| sockets.push(socket)).expect("list sockets");
    assert!(!dump.interrupted);
    sockets
}

/// Waits until there is a socket like this.
fn wait_for(what: &str, is_it: impl Fn(&Socket) -> bool) -> Socket {
    for _ in 0..500 {
        if let Some(socket) = sockets().into_iter().find(&is_it) {
            return socket;
        }
        thread::sleep(Duration::from_millis(10));
    }
    unreachable!("no {what} among {:#?}", sockets());
}

fn wait_for_state(local: SocketAddr, remote: SocketAddr, state: State) -> Socket {
    wait_for(state.as_str(), |socket| {
        let found = &socket.found;
        (found.tuple.local(), found.tuple.remote(), found.state) == (local, remote, state)
    })
}

fn inode(socket: impl AsFd) -> u32 {
    u32::try_from(fstat(socket).expect("look at the socket").st_ino).expect("32 bits")
}

fn cookie(socket: &impl AsRawFd) -> Id {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let to = (&raw mut cookie).cast();
    // SAFETY: the descriptor is open, and there is room for the 8 bytes that the kernel may write.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, to, &raw mut length) };
    assert_eq!(result, 0);
    Id::Cookie(cookie)
}

fn set_option(socket: &impl AsRawFd, option: i32, value: i32) {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value as long as the length says.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length) };
    assert_eq!(result, 0);
}

fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("listen");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Both ends of a connection, and the address of the first.
fn connected(listener: &TcpListener) -> (TcpStream, SocketAddr, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
    let address = client.local_addr().expect("its address");
    let (server, _) = listener.accept().expect("accept");
    (client, address, server)
}

#[tcptrace_tests::test]
fn a_listener_shows_its_queue() {
    in_new_namespace(|| {
        let (listener, address) = listen("127.0.0.1:0");
        let nobody = "0.0.0.0:0".parse().expect("an address");
        let empty = wait_for_state(address, nobody, State::Listen);
        assert_eq!((empty.inode, empty.found.kept), (inode(&listener), Kept::Held));
        assert_eq!(empty.found.id, cookie(&listener));
        assert_eq!(empty.found.uid, Some(0));
        assert!(empty.found.cgroup.is_some(), "since 5.9");
        assert_eq!(empty.recv_queue, 0);
        assert!(empty.send_queue > 0);

        let client = TcpStream::connect(address).expect("connect");
        let queued = wait_for_state(address, client.local_addr().expect("its address"), State::Established);
        assert_eq!((queued.inode, queued.found.kept, queued.is_request), (0, Kept::Queued, false));
        assert_eq!(wait_for_state(address, nobody, State::Listen).recv_queue, 1);
    });
}

/// The kernel writes a piece of its answer before the piece before it is read. Reading that may take long.
#[tcptrace_tests::test]
fn a_socket_is_seen_when_the_kernel_writes_it() {
    in_new_namespace(|| {
        let _listeners: Vec<_> = (0..500).map(|_| listen("127.0.0.1:0")).collect();
        let mut seen = Vec::new();
        let handed_over = &mut |socket: Socket| seen.push((socket.found.at, boot_ns().expect("read the clock")));
        dump(Some(1), Wanted::All, true, true, handed_over).expect("list sockets");
        let turns = || seen.windows(2).filter(|pair| pair[0].0 != pair[1].0);
        assert!(turns().count() > 1, "pieces of the answer: {}", turns().count() + 1);
        for pair in turns() {
            assert!(pair[1].0 < pair[0].1, "the second was seen before the first was handed over: {pair:?}");
        }
    });
}

#[tcptrace_tests::test]
fn a_connection_shows_its_queues_and_holders() {
    in_new_namespace(|| {
        let (listener, address) = listen("127.0.0.1:0");
        let (client, from, mut server) = connected(&listener);
        server.write_all(b"hello").expect("write");
        let before = boot_ns().expect("read the clock");
        let found = wait_for("unread data", |socket| socket.recv_queue == 5);
        assert!(before <= found.found.at && found.found.at <= boot_ns().expect("read the clock"));
        assert_eq!((found.found.tuple.local(), found.found.tuple.remote()), (from, address));
        assert_eq!((found.inode, found.found.id), (inode(&client), cookie(&client)));
        assert_eq!((found.found.netns, found.found.state), (Some(1), State::Established));
        let other = wait_for_state(address, from, State::Established);
        assert_eq!((other.inode, other.found.id), (inode(&server), cookie(&server)));
    });
}

#[tcptrace_tests::test]
fn a_half_closed_connection_is_held_at_both_ends() {
    in_new_namespace(|| {
        let (listener, address) = listen("[::1]:0");
        let (client, from, server) = connected(&listener);
        client.shutdown(std::net::Shutdown::Write).expect("shut down");
        let waiting = wait_for_state(address, from, State::CloseWait);
        assert_eq!((waiting.inode, waiting.found.kept), (inode(&server), Kept::Held));
        let closing = wait_for_state(from, address, State::FinWait2);
        assert_eq!((closing.inode, closing.found.kept), (inode(&client), Kept::Held));
    });
}

#[tcptrace_tests::test]
fn a_connection_that_was_closed_before_anybody_accepted_it_is_queued() {
    in_new_namespace(|| {
        let (_listener, address) = listen("127.0.0.1:0");
        let client = TcpStream::connect(address).expect("connect");
        let from = client.local_addr().expect("its address");
        drop(client);
        assert_eq!(wait_for_state(address, from, State::CloseWait).found.kept, Kept::Queued);
    });
}

#[tcptrace_tests::test]
fn a_mini_socket_keeps_the_cookie_and_has_a_timer() {
    in_new_namespace(|| {
        let (listener, address) = listen("127.0.0.1:0");
        let (client, from, server) = connected(&listener);
        let id = cookie(&client);
        drop(client);
        let orphan = wait_for("FIN_WAIT2 mini-socket", |socket| socket.timer == Timer::TimeWait);
        assert_eq!((orphan.found.state, orphan.found.id), (State::FinWait2, id));
        drop(server);
        let found = wait_for_state(from, address, State::TimeWait);
        assert_eq!((found.found.id, found.found.uid, found.inode), (id, None, 0));
        let Kept::Mini { due_ns } = found.found.kept else { unreachable!("{found:?}") };
        assert!(0 < due_ns && due_ns <= 60_000_000_000, "{due_ns}");
        assert_eq!((found.timer.as_str(), found.timer_left_ns), (Some("timewait"), due_ns));
    });
}

#[tcptrace_tests::test]
fn a_closed_socket_with_data_to_send_is_an_orphan() {
    in_new_namespace(|| {
        let (listener, address) = listen("127.0.0.1:0");
        let (mut client, from, _server) = connected(&listener);
        client.set_nonblocking(true).expect("do not wait");
        let full = loop {
            if let Err(error) = client.write(&[0; 65536]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        drop(client);
        let found = wait_for_state(from, address, State::FinWait1);
        assert_eq!((found.inode, found.found.kept), (0, Kept::Orphan));
        assert!(found.send_queue > 0);
        assert_ne!(found.timer, Timer::None);
    });
}

#[tcptrace_tests::test]
fn a_request_is_not_a_socket_yet() {
    in_new_namespace(|| {
        let (listener, address) = listen("127.0.0.1:0");
        // Without data the connection stays a request.
        set_option(&listener, libc::TCP_DEFER_ACCEPT, 10);
        let mut client = TcpStream::connect(address).expect("connect");
        let from = client.local_addr().expect("its address");
        let found = wait_for_state(address, from, State::SynRecv);
        assert!(found.is_request);
        assert_eq!((found.inode, found.found.uid, found.found.kept), (0, None, Kept::Queued));
        client.write_all(b"!").expect("write");
        let (mut server, _) = listener.accept().expect("accept");
        server.read_exact(&mut [0]).expect("read");
        assert_eq!(found.found.id, cookie(&server));
    });
}

#[tcptrace_tests::test]
fn families_are_listed_apart() {
    in_new_namespace(|| {
        let (_four, four) = listen("127.0.0.1:0");
        let (_six, six) = listen("[::1]:0");
        let addresses = |ipv4, ipv6| {
            let mut found = Vec::new();
            let mut note = |socket: Socket| found.push(socket.found.tuple.local());
            dump(None, Wanted::All, ipv4, ipv6, &mut note).expect("list sockets");
            found
        };
        assert_eq!(addresses(true, false), [four]);
        assert_eq!(addresses(false, true), [six]);
        assert_eq!(addresses(true, true), [four, six]);
        assert_eq!(addresses(false, false), []);
    });
}

#[test]
fn the_kernel_refuses_what_it_does_not_know() {
    let question = Question { netns: None, protocol: Of::Tcp, request: Request::new(255, Wanted::All) };
    assert_eq!(question.ask(&mut |_| {}), Err(Reason::Kernel(Errno::EINVAL)));
}

#[test]
fn a_piece_that_was_cut_is_refused() {
    let kernel = open().expect("a socket");
    send(kernel.as_raw_fd(), Request::new(libc::AF_INET as u8, Wanted::All).as_bytes(), MsgFlags::empty())
        .expect("ask");
    assert!(matches!(receive(&kernel, &mut [0; 8]), Err(Reason::TooLong(bytes)) if bytes > 8));
}

#[test]
fn an_error_says_what_was_asked() {
    let error = DiagError { family: "IPv4", reason: Reason::Kernel(Errno::EPERM) };
    assert_eq!(error.to_string(), "cannot list TCP sockets (sock_diag, IPv4): Operation not permitted");
}

/// What is not asked for is not said, and mini-sockets count as what they are.
#[tcptrace_tests::test]
fn some_states_only() {
    in_new_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("its address");
        let left = TcpStream::connect(address).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        let _open = TcpStream::connect(address).expect("connect");
        let (local, remote) = (left.local_addr().expect("bound"), address);
        drop(left);
        wait_for_state(local, remote, State::FinWait2);
        let states = |wanted: &[State]| {
            let mut states = Vec::new();
            let mut take = |socket: Socket| states.push(socket.found.state.as_str());
            dump(None, Wanted::in_states(wanted), true, true, &mut take).expect("list sockets");
            states.sort_unstable();
            states
        };
        assert_eq!(states(&[State::CloseWait]), ["CLOSE_WAIT"]);
        assert_eq!(states(&[State::FinWait2, State::Listen]), ["FIN_WAIT2", "LISTEN"]);
        assert_eq!(states(&[State::Established]), ["ESTABLISHED"; 2]);
        assert_eq!(states(&[State::TimeWait, State::SynRecv]), [""; 0]);
        drop(server);
        wait_for_state(local, remote, State::TimeWait);
        assert_eq!(states(&[State::TimeWait]), ["TIME_WAIT"]);
    });
}
