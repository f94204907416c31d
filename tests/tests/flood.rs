//! Tests with so much traffic that others could not run beside them: they have a process of their own, and run one by
//! one.
//!
//! Needs root and `ip`.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tcptrace_tests::attempt::skip;
use tcptrace_tests::program::{binary, run};
use tcptrace_tests::sockets::{address, connect, listen, listen_with};
use tcptrace_tests::{End, Namespace, Tracer, pair};

static TURN: Mutex<()> = Mutex::new(());

fn row(tracer: &Tracer, net: &Namespace, end: &End, wanted: impl Fn(&Value) -> bool) -> Value {
    tracer.row(net, &format!("{end:?}"), |row| net.is_about(row, end) && wanted(row))
}

/// A leak of 20,000 sockets, most of which were never accepted.
#[test]
fn many_in_close_wait_before() {
    const QUEUES: usize = 4;
    const QUEUED: usize = 4_000;
    const HELD: usize = 4_000;
    let _turn = TURN.lock();
    let net = Namespace::enter_unwatched();
    let held = listen("127.0.0.1");
    let left_by_client = |_| {
        let (mut client, server) = connect(&held);
        client.close();
        server
    };
    let servers: Vec<End> = (0..HELD).map(left_by_client).collect();
    let queues: Vec<_> = (0..QUEUES).map(|_| listen_with("127.0.0.1", QUEUED)).collect();
    for queue in &queues {
        for _ in 0..QUEUED {
            End::from(std::net::TcpStream::connect(address(queue)).expect("connect")).close();
        }
    }
    let options = ["connections", "--format", "json", "--report-stuck", "1s", "--state", "CLOSE_WAIT"];
    let tracer = Tracer::start_in(&net, &options);

    let all = QUEUES * QUEUED + HELD;
    let rows = tracer.rows(&net, "20,000 reports", |rows| rows.get(..all).map(<[Value]>::to_vec));
    let stuck: HashMap<String, Value> = rows.into_iter().map(|row| (row["conn"].to_string(), row)).collect();
    assert_eq!(stuck.len(), all, "each once, before any of them twice");
    let ours = json!(std::process::id());
    let count = |accepted: bool, whose: &str| {
        stuck
            .values()
            .filter(|row| row["accepted"] == accepted && row[whose] == ours && row["age_at_least"] == true)
            .count()
    };
    assert_eq!([count(true, "holder_pid"), count(false, "listener_pid")], [HELD, QUEUES * QUEUED]);
    let fds: HashSet<u64> = stuck.values().filter_map(|row| row["fd"].as_u64()).collect();
    assert_eq!(fds, servers.iter().map(|end| u64::try_from(end.as_raw_fd()).expect("a descriptor")).collect());
}

/// Events are lost while the reader is stopped. Sockets that vanished meanwhile are reported, and the rest goes on.
#[test]
fn after_a_loss() {
    let _turn = TURN.lock();
    let net = Namespace::enter_unwatched();
    let options = ["connections", "--format", "json", "--ring-size", "1"];
    let tracer = Tracer::start_in(&net, &options);
    let [mut gone, mut stays, mut moves] = [pair(), pair(), pair()];
    // It follows all of them once it reports a later one.
    let (mut probe, mut other) = pair();
    probe.reset();
    other.receive_reset();
    other.close();
    row(&tracer, &net, &probe, |_| true);

    tracer.pause();
    let listener = listen("127.0.0.1");
    for _ in 0..3_000 {
        let (mut client, mut server) = connect(&listener);
        client.reset();
        server.close();
    }
    gone.0.reset();
    gone.1.receive_reset();
    gone.1.close();
    moves.0.finish_sending();
    moves.1.receive_end();
    tracer.resume();

    let told = row(&tracer, &net, &gone.0, |_| true);
    assert_eq!(
        [&told["end"], &told["closer"], &told["complete"]],
        [&json!("unknown"), &json!("unknown"), &json!(false)]
    );
    assert_eq!(told["pid"], std::process::id(), "{told}");
    stays.0.reset();
    stays.1.receive_reset();
    let told = row(&tracer, &net, &stays.0, |_| true);
    assert_eq!([&told["end"], &told["complete"]], [&json!("reset_linger0"), &json!(true)], "{told}");
    moves.1.close();
    moves.0.receive_end();
    moves.0.close();
    let told = row(&tracer, &net, &moves.1, |_| true);
    assert_eq!([&told["end"], &told["closer"], &told["complete"]], [&json!("fin"), &json!("passive"), &json!(false)]);
    let close_wait = told["states"].as_array().expect("states").iter().find(|stay| stay["state"] == "CLOSE_WAIT");
    assert_eq!(close_wait.expect("its last stay")["at_least"], true, "{told}");
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
}

/// Losses are reported where events are missing: connections from before the reader was stopped, and as many as its
/// buffer holds, are complete. Live and from a trace, byte for byte.
#[test]
fn losses_have_their_place() {
    let _turn = TURN.lock();
    let net = Namespace::enter_unwatched();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let path = trace.to_str().expect("UTF-8");
    let options = ["connections", "--format", "json", "--ring-size", "1", "--no-existing", "--record", path];
    let tracer = Tracer::start_in(&net, &options);
    tracer.pause();
    let listener = listen("127.0.0.1");
    let lives: Vec<String> = (0..4_000)
        .map(|_| {
            let (mut client, server) = connect(&listener);
            client.reset();
            server.receive_reset();
            client.local.to_string()
        })
        .collect();
    tracer.resume();
    tracer.text(r#""cause":"ring_full""#);
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 3, "{}", finished.stderr);

    let rows: Vec<Value> = finished.text().lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let lost: Vec<usize> = (0..rows.len()).filter(|place| rows[*place]["cause"] == "ring_full").collect();
    assert_eq!(lost.len(), 1, "one place: {lost:?}\n{}", finished.stderr);
    let place = lost[0];
    let count = rows[place]["count"].as_u64().expect("a number");
    assert!(finished.stderr.contains(&format!("{count} ring buffer full")), "{}", finished.stderr);
    let before: Vec<&Value> = rows[..place].iter().filter(|row| row["end"] == "reset_linger0").collect();
    // Each takes about a thousand bytes.
    assert!(before.len() > 700, "{} before it", before.len());
    assert!(before.iter().zip(&lives).all(|(row, life)| row["local"] == **life), "the first ones, in order");
    assert!(before.iter().all(|row| row["complete"] == true), "nothing was lost before it");
    assert!(rows[place]["boot_ns"].as_u64() >= before[before.len() - 1]["boot_ns"].as_u64());

    let replayed = run(&["replay", "--rows", "connections", "--format", "json", path]);
    assert_eq!(replayed.code(), 3, "{}", replayed.stderr);
    assert!(replayed.text() == finished.text(), "{}", replayed.stderr);
    let summary = finished.summary();
    assert_eq!([&summary["lost"]["ring_full"], &summary["exit"]], [&rows[place]["count"], &3.into()], "{summary}");
}

/// A tracer whose output nobody reads reports its losses with that cause.
#[test]
fn nobody_takes_the_output() {
    let _turn = TURN.lock();
    let net = Namespace::enter_unwatched();
    let netns = net.inode().to_string();
    let options = ["watch", "--format", "json", "--ring-size", "1", "--netns", &netns];
    let mut child = Command::new(binary())
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while line != "tcptrace: ready\n" {
        line.clear();
        stderr.read_line(&mut line).expect("it says when it is ready");
    }
    let listener = listen("127.0.0.1");
    for _ in 0..8_000 {
        let (mut client, server) = connect(&listener);
        client.reset();
        server.receive_reset();
    }
    let mut stdout = child.stdout.take().expect("a pipe");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("a tcptrace to interrupt");
    let mut rows = String::new();
    stdout.read_to_string(&mut rows).expect("UTF-8");
    let mut closing = String::new();
    stderr.read_to_string(&mut closing).expect("UTF-8");
    assert_eq!(child.wait().expect("its end").code(), Some(3), "{closing}");
    let lost: Vec<Value> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a row"))
        .filter(|row| row["event"] == "lost")
        .collect();
    let slow = lost.iter().filter(|row| row["cause"] == "output_slow");
    let count: u64 = slow.map(|row| row["count"].as_u64().expect("a number")).sum();
    assert!(lost.iter().all(|row| row["cause"] != "ring_full") && count > 0, "{lost:?}");
    assert!(closing.contains(&format!("{count} output not taken fast enough")), "{closing}");
}

/// How often the kernel skipped one of a tracer's programs, because it was already running on that CPU.
fn skipped(tracer: &Tracer) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid())).expect("a tracer that runs");
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let count = |info: String| -> Option<u64> {
        info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
    };
    infos.filter_map(count).sum()
}

/// A namespace in which packets that are sent on one CPU are received on another.
fn with_steered_packets() -> Namespace {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        skip("with one CPU, packets never interrupt a program");
    }
    let net = Namespace::enter_unwatched();
    // The setting is in a sysfs mounted inside the namespace.
    let steer = format!(
        "mount -t sysfs none /sys && echo {:x} > /sys/class/net/lo/queues/rx-0/rps_cpus",
        (1_u64 << cpus.min(32)) - 1
    );
    net.run("unshare", &["--mount", "sh", "-c", &steer]);
    net
}

/// Runs on each of two CPUs, until a tracer's programs were interrupted often enough. Returns how often they were.
fn on_two_cpus_until_skipped(tracer: &Tracer, enough: u64, traffic: impl Fn() + Sync) -> u64 {
    let begun = Instant::now();
    thread::scope(|scope| {
        for cpu in 0..2 {
            let traffic = &traffic;
            scope.spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).expect("stay on a CPU");
                while skipped(tracer) < enough && begun.elapsed() < Duration::from_secs(60) {
                    traffic();
                }
            });
        }
    });
    skipped(tracer)
}

/// Packets interrupt a process that closes a socket, inside the program that reports the close, and change the state of
/// other sockets. tcptrace reports those changes, too.
#[test]
fn interrupted_by_packets() {
    /// More than the other programs' interruptions could amount to.
    const ENOUGH: u64 = 20;
    let _turn = TURN.lock();
    let net = with_steered_packets();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let tracer = Tracer::start_in(&net, &["record", "--no-existing", "--output", trace.to_str().expect("UTF-8")]);
    let skipped = on_two_cpus_until_skipped(&tracer, ENOUGH, || {
        let listener = listen("127.0.0.1");
        for _ in 0..500 {
            let (mut client, mut server) = connect(&listener);
            client.close();
            server.receive_end();
            server.close();
        }
    });
    let finished = tracer.interrupt();
    if skipped < ENOUGH {
        skip("packets do not interrupt programs here");
    }
    assert!(finished.stderr.contains(" events recorded, 0 lost"), "{skipped} skipped: {}", finished.stderr);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
}

/// A firewall drops outgoing packets, interrupted by incoming packets that it also drops. None of them is a transition.
#[test]
fn interrupted_by_dropped_packets() {
    const ENOUGH: u64 = 20;
    let _turn = TURN.lock();
    let net = with_steered_packets();
    let rules = "add table inet t; \
                 add chain inet t out { type filter hook output priority 0; }; \
                 add chain inet t in { type filter hook input priority 0; }; \
                 add rule inet t out udp dport 9 drop; add rule inet t in udp dport 10 drop";
    net.run("nft", &[rules]);
    let tracer = Tracer::start_in(&net, &["connections"]);
    let skipped = on_two_cpus_until_skipped(&tracer, ENOUGH, || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for low in 1..=200_u8 {
            // A send may fail at once because of the drop; the CPU that receives a packet depends on the address.
            for port in [9, 10] {
                let _ = socket.send_to(&[low], (Ipv4Addr::new(127, 0, 0, low), port));
            }
        }
    });
    let finished = tracer.interrupt();
    if skipped < ENOUGH {
        skip("packets do not interrupt programs here");
    }
    assert!(finished.stderr.contains(" transitions seen, 0 lost"), "{skipped} skipped: {}", finished.stderr);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
}
