//! One request to connect, for which two CPUs make a socket each.

use std::fs::File;
use std::hint::spin_loop;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tcptrace_tests::ability::need_alone;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::sockets::{accept, address, listen, socket};
use tcptrace_tests::{End, Namespace, Tracer};

/// The server's address, to which two ways lead.
const SERVER: &str = "10.8.0.1";

/// About one in a hundred connections makes the two CPUs meet, on a machine with nothing else to do.
const AT_A_TIME: usize = 250;
const LONGEST: Duration = Duration::from_secs(20);

fn enter(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
}

/// The namespace of the clients, from which acknowledgements come to one CPU of the server's, and marked segments to the other.
fn clients(net: &Namespace, theirs: &File) {
    let ours = File::open("/proc/thread-self/ns/net").expect("open this network namespace");
    let ip = |line: &str| drop(net.run("ip", &line.split(' ').collect::<Vec<_>>()));
    let other = format!("/proc/{}/fd/{}", std::process::id(), theirs.as_raw_fd());
    for of in ["all", "default"] {
        net.sysctl(&format!("ipv4/conf/{of}/rp_filter"), "0");
    }
    ip(&format!("addr add {SERVER}/32 dev lo"));
    for way in [0, 1] {
        ip(&format!("link add s{way} type veth peer name c{way} netns {other}"));
        ip(&format!("addr add 10.9.{way}.2/24 dev s{way}"));
        ip(&format!("link set s{way} up"));
    }
    let steer = "mount -t sysfs sysfs /sys && cd /sys/class/net && echo 1 >s0/queues/rx-0/rps_cpus && \
                 echo 2 >s1/queues/rx-0/rps_cpus";
    net.run("unshare", &["--mount", "sh", "-c", steer]);
    enter(theirs);
    for way in [0, 1] {
        ip(&format!("addr add 10.9.{way}.1/24 dev c{way}"));
        ip(&format!("link set c{way} up"));
    }
    ip(&format!("route add {SERVER} via 10.9.0.2"));
    ip(&format!("route add {SERVER} via 10.9.1.2 table 7"));
    ip("rule add fwmark 1 table 7");
    enter(&ours);
}

/// Clients that send as soon as they are connected, or a little later.
fn connect_and_send(theirs: &File, to: SocketAddr) {
    enter(theirs);
    let mut only = CpuSet::new();
    only.set(1).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).expect("stay on a CPU");
    for pause in 0..AT_A_TIME {
        let client = socket();
        client.connect(&to.into()).expect("connect");
        (0..pause).for_each(|_| spin_loop());
        client.set_mark(1).expect("mark it");
        let client = End::from(client);
        client.send(5);
        client.receive_reset();
    }
}

/// A socket that the kernel has dropped before it was established.
fn dropped_row(net: &Namespace) -> Option<Value> {
    let is_drop = |row: &Value| row["old"] == "SYN_RECV" && row["new"] == "CLOSED" && net.is_new(row);
    Tracer::watch().rows_now(net).into_iter().find(is_drop)
}

/// An acknowledgement and the first data come at the same time. Of the two sockets the kernel drops one, which is no connection
/// and belongs to nobody: the client happened to be on the CPU.
#[test]
fn one_request_is_one_connection() {
    need_alone("it interrupts whatever runs on two CPUs of this machine");
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        skip("it needs two CPUs");
    }
    let there = Namespace::enter_unwatched();
    let theirs = File::open("/proc/thread-self/ns/net").expect("open this network namespace");
    there.leave();
    let net = Namespace::enter();
    clients(&net, &theirs);
    let listener = listen(SERVER);
    let to = address(&listener);

    let begun = Instant::now();
    let mut made = 0;
    let dropped = loop {
        let last = thread::scope(|scope| {
            scope.spawn(|| connect_and_send(&theirs, to));
            let serve = || {
                let mut server = accept(&listener);
                server.receive(5);
                server.reset();
                server
            };
            (1..AT_A_TIME).for_each(|_| drop(serve()));
            serve()
        });
        made += AT_A_TIME;
        net.transition(&last, "ESTABLISHED", "CLOSED");
        if let Some(row) = dropped_row(&net) {
            break row;
        }
        if begun.elapsed() > LONGEST {
            skip(format!("no two CPUs met in {made} connections"));
        }
    };
    let known = ["pid", "close_pid", "closer", "reason"].map(|name| &dropped[name]);
    assert_eq!(known, [&Value::Null; 4], "{dropped}");
    assert_eq!([&dropped["side"], &dropped["owner_source"]], ["server", "unknown"], "{dropped}");
    let address = |name: &str| dropped[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let end = End::named(address("local"), address("remote"));
    // Later connections can have the same port.
    let at = |row: &Value| row["boot_ns"].as_u64().expect("a time");
    let is_near = |row: &Value| at(row).abs_diff(at(&dropped)) < 1_000_000_000;
    let is_one = |row: &Value| row["event"] == "connection" && net.is_about(row, &end) && is_near(row);
    Tracer::connections().row(&net, "its connection", is_one);
    let rows = Tracer::connections().rows_now(&net);
    let ones: Vec<_> = rows.iter().filter(|row| is_one(row)).collect();
    assert_eq!(ones.iter().map(|row| &row["end"]).collect::<Vec<_>>(), [&json!("reset_linger0")], "{ones:#?}");
}
