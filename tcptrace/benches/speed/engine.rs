//! The lifecycle engine with a growing number of live connections.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use tcptrace::engine::lifecycle::{Config, Engine};
use tcptrace::model::event::{Change, EndFacts, Event, Flags, Id};
use tcptrace::model::row::Row;
use tcptrace::model::tcp::{Comm, State, Task, Tuple};

use crate::cpu::CpuTime;

/// Environment variable for one more size, which takes long to set up.
const MORE: &str = "TCPTRACE_BENCH_LIVE";

pub(crate) fn bench(criterion: &mut Criterion<CpuTime>) {
    let mut sizes = vec![1_000, 100_000, 1_000_000];
    sizes.extend(std::env::var(MORE).ok().and_then(|size| size.parse::<usize>().ok()));
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(4));
    for size in sizes {
        let mut crowd = Crowd::of(size);
        group.bench_function(BenchmarkId::new("live", size), |bencher| bencher.iter(|| crowd.churn()));
    }
}

/// Live connections. At any moment one may end while another begins.
struct Crowd {
    engine: Engine,
    rows: Vec<Row>,
    live: Vec<u64>,
    next: u64,
    noise: u64,
}

impl Crowd {
    fn of(size: usize) -> Self {
        let engine = Engine::new(Config { sockets: 2 * size, ..Config::default() });
        let mut crowd = Self { engine, rows: Vec::new(), live: Vec::with_capacity(size), next: 0, noise: 1 };
        while crowd.live.len() < size {
            let cookie = crowd.open();
            crowd.live.push(cookie);
        }
        assert_eq!(crowd.engine.stats().followed, size);
        crowd
    }

    /// Two events that end a connection, and two that open another one.
    fn churn(&mut self) {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = (self.noise >> 33) as usize % self.live.len();
        self.end(self.live[place]);
        self.live[place] = self.open();
        black_box(&self.rows);
        self.rows.clear();
    }

    fn open(&mut self) -> u64 {
        self.next += 1;
        let pid = 1_000 + (self.next % 64) as u32;
        let task = Some(Task { pid, tid: pid, comm: Comm::from("client") });
        let opening = Change { task, ..change(self.next, State::Closed, State::SynSent) };
        self.feed(Event::Change(opening));
        self.feed(Event::Change(change(self.next, State::SynSent, State::Established)));
        self.rows.clear();
        self.next
    }

    fn end(&mut self, cookie: u64) {
        let facts = Some(EndFacts { err: 104, ..EndFacts::default() });
        let flags = Some(Flags { dead: true, ..Flags::default() });
        let closing = Change { end: facts, flags, ..change(cookie, State::Established, State::Closed) };
        self.feed(Event::Change(Change { at: self.now(), ..closing }));
        self.feed(Event::Destroyed { at: self.now(), id: Id::Cookie(cookie), shut: Some(true) });
    }

    fn now(&self) -> u64 {
        1_000 * self.next
    }

    fn feed(&mut self, event: Event) {
        self.engine.feed(&event, &mut self.rows);
    }
}

fn change(cookie: u64, old: State, new: State) -> Change {
    let ip = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped();
    let (local_port, remote_port) = (32_768 + (cookie % 28_000) as u16, 443);
    Change {
        at: 1_000 * cookie,
        id: Id::Cookie(cookie),
        address: None,
        tuple: Tuple { local_ip: ip(1), remote_ip: ip((cookie % 251) as u8), local_port, remote_port },
        netns: Some(4_026_531_840),
        uid: Some(1_000),
        cgroup: Some(1_234),
        interface: 0,
        old,
        new,
        flags: Some(Flags { has_socket: true, ..Flags::default() }),
        task: None,
        idle: None,
        end: None,
    }
}
