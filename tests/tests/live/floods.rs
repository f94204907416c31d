//! Requests that the kernel drops before a socket exists: no event reports them, but counters do.

use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tcptrace_tests::faults::{SYN, inject};
use tcptrace_tests::program::run;
use tcptrace_tests::sockets::{address, listen_with, start_connecting};
use tcptrace_tests::{Namespace, Tracer};

/// The growth of a counter of this namespace, according to these rows.
fn told(rows: &[Value], event: &str, counter: &str) -> u64 {
    let wanted = rows.iter().filter(|row| row["event"] == event && row["counter"] == counter);
    wanted.map(|row| row["increase"].as_u64().expect("a number")).sum()
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// More clients than the accept queue of a listener holds; also returns how many stay outside.
fn overflow() -> (impl Sized, u64) {
    const CLIENTS: u64 = 20;
    const BACKLOG: u64 = 1;
    let listener = listen_with("127.0.0.1", 1);
    let clients: Vec<_> = (0..CLIENTS).map(|_| start_connecting(address(&listener))).collect();
    // The queue is full when it is longer than the backlog.
    ((listener, clients), CLIENTS - BACKLOG - 1)
}

/// SYNs of clients that never answer, because packets to them are dropped.
fn flood(net: &Namespace, to: SocketAddr, count: u16) {
    net.run("ip", &["route", "add", "10.9.0.0/16", "dev", "lo"]);
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let from = SocketAddr::from(([10, 9, high, low], 1024 + number));
        inject(from, to, u32::from(number) * 1_000, 0, SYN);
    }
}

#[test]
fn a_full_accept_queue_is_told_at_once() {
    let net = Namespace::enter();
    let (_sockets, outside) = overflow();
    for counter in ["ListenOverflows", "ListenDrops"] {
        let sum = Tracer::watch().rows(&net, counter, |rows| {
            let sum = told(rows, "counter", counter);
            (sum >= outside).then_some(sum)
        });
        // Each retransmission of a SYN counts again.
        assert!(sum <= net.counter("TcpExt", counter));
    }
    let row = Tracer::connections().row(&net, "the accept queue", |row| row["counter"] == "ListenOverflows");
    assert_eq!((&row["event"], &row["netns"]), (&"counter".into(), &net.inode().into()));
    assert_eq!(row["meaning"], "the accept queue is full");
}

#[test]
fn it_is_told_in_words() {
    let net = Namespace::enter_unwatched();
    let tracer = Tracer::start_in(&net, &["watch"]);
    let _sockets = overflow();
    let text = tracer.text("): the accept queue is full");
    let line = text.lines().find(|line| line.contains("(ListenOverflows")).expect("a line");
    let (_, rest) = line.split_once(&format!(" netns {}: ", net.inode())).expect("its namespace");
    assert!(rest.contains(" SYNs and ACKs dropped (ListenOverflows"), "{line}");
    let csv = Tracer::start_in(&net, &["watch", "--format", "csv"]).interrupt();
    assert!(!csv.text().contains("ListenOverflows"), "{}", csv.text());
}

#[test]
fn it_replays_to_the_same_bytes() {
    let (net, folder) = (Namespace::enter_unwatched(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("trace");
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--record", path(&trace)]);
    let (_sockets, _) = overflow();
    tracer.row(&net, "the accept queue", |row| row["counter"] == "ListenOverflows");
    let live = tracer.interrupt();
    let replayed = run(&["replay", "--format", "json", path(&trace)]);
    assert_eq!((live.code(), replayed.code()), (0, 0), "{}{}", live.stderr, replayed.stderr);
    assert_eq!(replayed.text(), live.text());
}

#[test]
fn a_flood_of_syns_is_in_the_report() {
    const SYNS: u16 = 500;
    const BACKLOG: u16 = 8;
    let (net, folder) = (Namespace::enter_unwatched(), tempfile::tempdir().expect("a folder"));
    net.sysctl("ipv4/tcp_syncookies", "1");
    let trace = folder.path().join("trace");
    let before = listen_with("127.0.0.1", BACKLOG.into());
    let tracer = Tracer::start_in(&net, &["record", "--output", path(&trace), "--audit"]);
    flood(&net, address(&before), SYNS);
    tracer.signal(Signal::SIGTERM);
    let recorded = tracer.finish();
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    let cookies = net.counter("TcpExt", "SyncookiesSent");
    assert!(cookies >= u64::from(SYNS - BACKLOG - 1), "only {cookies}");
    assert!(recorded.stderr.contains("not visible in events (SYN cookies sent)"), "{}", recorded.stderr);

    let report = run(&["report", "--format", "json", path(&trace)]);
    assert_eq!((report.code(), told(&json(report.text()), "report_counter", "SyncookiesSent")), (0, cookies));
    let report = run(&["report", "--full", path(&trace)]);
    assert!(report.text().contains(" SYN cookies sent (SyncookiesSent): the SYN queue is full"), "{}", report.text());
    let audit = run(&["replay", "--format", "json", path(&trace)]);
    assert_eq!(told(&json(audit.text()), "unseen", "SyncookiesSent"), cookies);
}

/// `--no-facts` leaves the counters out.
#[test]
fn a_recording_can_do_without() {
    let (net, folder) = (Namespace::enter_unwatched(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("trace");
    let tracer = Tracer::start_in(&net, &["record", "--output", path(&trace), "--no-facts"]);
    let (_sockets, _) = overflow();
    let recorded = tracer.interrupt();
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    assert!(net.counter("TcpExt", "ListenOverflows") > 0);
    let replayed = run(&["replay", "--format", "json", path(&trace)]);
    assert_eq!(told(&json(replayed.text()), "counter", "ListenOverflows"), 0);
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
