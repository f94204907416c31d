//! Sockets in a sockmap, whose data bypasses TCP.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use serde_json::Value;
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::{End, Namespace, Tracer};

/// `BPF_MAP_CREATE` and `BPF_MAP_UPDATE_ELEM`; `BPF_MAP_TYPE_SOCKMAP`.
const CREATE: libc::c_int = 0;
const UPDATE: libc::c_int = 2;
const SOCKMAP: u32 = 15;

/// Number of sockets in it at a time.
const PLACES: u32 = 64;

/// Long enough for many readings of the map.
const PATIENCE: Duration = Duration::from_secs(60);

struct SockMap(OwnedFd);

impl SockMap {
    fn new() -> Self {
        let (key_size, value_size) = (4, 8);
        let map = bpf(CREATE, &[SOCKMAP, key_size, value_size, PLACES]);
        // SAFETY: the kernel has just made it, and nothing else owns it.
        Self(unsafe { OwnedFd::from_raw_fd(map) })
    }

    fn put(&self, place: u32, socket: &impl AsRawFd) {
        let value = u64::from(socket.as_raw_fd().cast_unsigned());
        let [key, value] = [(&raw const place).addr() as u64, (&raw const value).addr() as u64];
        bpf(UPDATE, &[u64::from(self.0.as_raw_fd().cast_unsigned()), key, value, 0]);
    }
}

fn bpf<T>(command: libc::c_int, attributes: &[T]) -> i32 {
    // SAFETY: the attributes, and the memory that they point to, live until this returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    i32::try_from(Errno::result(result).expect("ask the kernel for a map: these tests need root")).expect("a number")
}

/// Bytes that are passed from socket to socket are not counted: the byte counts are unknown.
#[test]
fn bytes_of_sockets_in_a_sockmap_are_unknown() {
    let net = Namespace::enter_unwatched();
    let tracer = Tracer::start(&["connections", "--format", "json"]);
    let listener = listen("127.7.1.1");
    let (mut plain, _served) = connect(&listener);
    let plain_end = plain.name();
    plain.reset();
    let row = tracer.row(&net, "the connection that is in no map", |row| net.is_about(row, &plain_end));
    assert_eq!(row["bytes_sent"], 0, "{row}");

    let map = SockMap::new();
    let mut inside: VecDeque<(End, End)> = VecDeque::new();
    let begun = Instant::now();
    let mut place = 0;
    // A socket that was in the map during a reading.
    let row = loop {
        assert!(begun.elapsed() < PATIENCE, "none is unknown: {}", tracer.complaints());
        let (client, served) = connect(&listener);
        map.put(place % PLACES, &*client);
        place += 1;
        inside.push_back((client, served));
        if inside.len() < 16 {
            continue;
        }
        let Some((mut client, _served)) = inside.pop_front() else { continue };
        let end = client.name();
        client.reset();
        let row = tracer.row(&net, "a connection that was in the map", |row| net.is_about(row, &end));
        if row["bytes_sent"].is_null() {
            break row;
        }
    };
    assert_eq!([&row["bytes_received"], &row["retransmits"]], [&Value::Null, &Value::Null], "{row}");
    assert_eq!(row["closer"], "reset_local", "{row}");
}
