//! Connections between two sockets of this process.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::process::close;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Time limit for waiting on a socket.
const PATIENCE: Duration = Duration::from_secs(30);

/// One end of a connection. Its addresses outlive its socket.
#[derive(Debug)]
pub struct End {
    socket: Option<TcpStream>,
    /// Its own address, as rows print it.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl From<TcpStream> for End {
    fn from(socket: TcpStream) -> Self {
        let local = canonical(socket.local_addr().expect("a bound socket"));
        let remote = canonical(socket.peer_addr().expect("a connected socket"));
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Self { socket: Some(socket), local, remote }
    }
}

impl From<Socket> for End {
    fn from(socket: Socket) -> Self {
        TcpStream::from(socket).into()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            close(socket);
        }
    }
}

impl Deref for End {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.socket.as_ref().expect("an open socket")
    }
}

impl End {
    /// An end whose socket is closed, or belongs to another process.
    pub fn named(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { socket: None, local, remote }
    }

    /// The same end without its socket, for checks after the close.
    pub fn name(&self) -> Self {
        Self::named(self.local, self.remote)
    }

    /// `close`.
    pub fn close(&mut self) {
        close(self.take());
    }

    /// `close` with `SO_LINGER` 0: a reset.
    pub fn reset(&mut self) {
        let socket = self.take();
        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
        close(socket);
    }

    /// Passes the socket on.
    pub fn take(&mut self) -> TcpStream {
        self.socket.take().expect("an open socket")
    }

    /// `shutdown(SHUT_WR)`: sends a FIN and can still receive.
    pub fn finish_sending(&self) {
        self.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Sends that many bytes.
    pub fn send(&self, bytes: usize) {
        (&**self).write_all(&vec![b'x'; bytes]).expect("send");
    }

    /// Receives that many bytes.
    pub fn receive(&self, bytes: usize) {
        (&**self).read_exact(&mut vec![0; bytes]).expect("receive");
    }

    /// Waits for the peer's FIN, without data before it.
    pub fn receive_end(&self) {
        let rest = (&**self).read_to_end(&mut Vec::new()).expect("receive the end");
        assert_eq!(rest, 0, "bytes before the end");
    }

    /// Waits until data can be read, and does not read it.
    pub fn leave_unread(&self) {
        assert_ne!(self.peek(&mut [0]).expect("wait for data"), 0);
    }

    /// Waits for the peer's reset.
    pub fn receive_reset(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.take_error().expect("read SO_ERROR").is_none() {
            assert!(Instant::now() < deadline, "no reset came");
            if (&**self).read(&mut [0]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Listens on a free port of that address.
pub fn listen(address: &str) -> TcpListener {
    TcpListener::bind((address, 0)).expect("listen")
}

/// The same with a backlog of this length.
pub fn listen_with(address: &str, backlog: usize) -> TcpListener {
    let listener = socket();
    let address = SocketAddr::new(address.parse().expect("an address"), 0);
    listener.bind(&address.into()).expect("bind");
    listener.listen(i32::try_from(backlog).expect("a backlog")).expect("listen");
    listener.into()
}

/// The address of a listener.
pub fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound socket")
}

/// Connects to a listener: the client's end and the server's.
pub fn connect(listener: &TcpListener) -> (End, End) {
    let client = TcpStream::connect(address(listener)).expect("connect");
    (client.into(), accept(listener))
}

/// Accepts one connection.
pub fn accept(listener: &TcpListener) -> End {
    listener.accept().expect("accept").0.into()
}

/// A connection over the loopback, IPv4: the client's end and the server's.
pub fn pair() -> (End, End) {
    connect(&listen("127.0.0.1"))
}

/// A TCP socket of IPv4 that is not yet connected.
pub fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("make a socket")
}

/// A socket bound to that local address, which may be in TIME_WAIT.
pub fn bound_to(local: SocketAddr) -> Socket {
    let socket = socket();
    socket.set_reuse_address(true).expect("set SO_REUSEADDR");
    socket.bind(&local.into()).expect("bind");
    socket
}

/// Starts to connect without waiting; returns the future end, with its local port.
pub fn start_connecting(to: SocketAddr) -> (Socket, End) {
    let socket = socket();
    socket.set_nonblocking(true).expect("make it non-blocking");
    let _in_progress = socket.connect(&to.into());
    let local = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("a local address");
    (socket, End::named(local, to))
}

/// `connect(AF_UNSPEC)`: dissolves the connection and keeps the socket.
pub fn disconnect(socket: &TcpStream) {
    let storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: a zeroed sockaddr_storage is a valid address of family AF_UNSPEC, whose length is that of the family.
    let nowhere = unsafe { SockAddr::new(storage, 16) };
    SockRef::from(socket).connect(&nowhere).expect("dissolve the connection");
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
