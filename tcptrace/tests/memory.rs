//! Memory that the engine uses for live connections, measured in the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tcptrace::engine::lifecycle::{Config, Engine};
use tcptrace::model::event::{Change, Event, Flags, Id};
use tcptrace::model::row::Row;
use tcptrace::model::tcp::{Comm, State, Task, Tuple};
use tcptrace_tests::test;

/// Promised bytes for each connection: its record, its entries in order and index, and everything else that grows with
/// the number of connections.
const PROMISED: usize = 160;

#[test]
fn a_connection_that_lives_takes_little_memory() {
    is_kept([60_000, 100_000, 115_000]);
}

/// The same with a large number of connections.
#[test]
#[ignore = "takes minutes, and a gigabyte"]
fn five_million_connections_take_little_memory_each() {
    is_kept([5_000_000]);
}

fn is_kept(sizes: impl IntoIterator<Item = u32>) {
    // Allocations of all threads are counted together.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().expect("no other test has failed");
    for size in sizes {
        for ip in [Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)] {
            let each = taken_by(size, ip) / size as usize;
            assert!(each <= PROMISED, "{each} bytes for each of {size} connections from {ip}");
        }
    }
}

/// The bytes that an engine allocates for this many established connections from an address.
fn taken_by(size: u32, ip: Ipv6Addr) -> usize {
    let before = NOW.load(Relaxed);
    let config = Config { sockets: size as usize, scans: true, stuck_after: Some(1_000_000_000), ..Config::default() };
    let mut engine = Engine::new(config);
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..size {
        for event in opening(number, ip) {
            engine.feed(&event, &mut rows);
        }
        rows.clear();
    }
    let last = u64::from(size) * APART_NS;
    engine.feed(&Event::Passed { at: last + 5_000_000_000 }, &mut rows);
    drop(rows);
    assert_eq!((engine.stats().followed, engine.stats().evicted), (size as usize, 0));
    NOW.load(Relaxed) - before
}

/// Time between two connections.
const APART_NS: u64 = 100_000;

/// Every other connection is a client; the rest were accepted.
fn opening(number: u32, ip: Ipv6Addr) -> Vec<Event> {
    let at = u64::from(number) * APART_NS;
    let id = Id::Cookie(u64::from(number) + 1);
    let pid = 1_000 + number % 500;
    let task = Task { pid, tid: pid, comm: Comm::from(format!("worker-{}", pid % 10).as_str()) };
    let (local_port, remote_port) = (32_768 + (number % 28_000) as u16, 443);
    let change = |after, old, new| Change {
        at: at + after,
        id,
        address: None,
        tuple: Tuple { local_ip: ip, remote_ip: ip, local_port, remote_port },
        netns: Some(4_026_531_840),
        uid: Some(1_000),
        cgroup: Some(u64::from(pid)),
        interface: 0,
        old,
        new,
        flags: Some(Flags { has_socket: true, ..Flags::default() }),
        task: Some(task),
        idle: None,
        end: None,
    };
    let (first, second) = if number.is_multiple_of(2) {
        (change(0, State::Closed, State::SynSent), change(10, State::SynSent, State::Established))
    } else {
        (change(0, State::Listen, State::SynRecv), change(10, State::SynRecv, State::Established))
    };
    let mut events = vec![Event::Change(first), Event::Change(second)];
    if !number.is_multiple_of(2) {
        events.push(Event::Accepted { at: at + 20, id, task });
    }
    events
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// Bytes that are currently allocated.
static NOW: AtomicUsize = AtomicUsize::new(0);

struct Counted;

// SAFETY: It counts, and leaves the work to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.fetch_add(layout.size(), Relaxed);
        // SAFETY: The caller's guarantees hold for the system's allocator as well, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: As above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_add(size, Relaxed);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: As above.
        unsafe { System.realloc(place, layout, size) }
    }
}
