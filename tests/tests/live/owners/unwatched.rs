//! Owners where accepts are not seen, or only as needed: who closes a connection, or holds it. What nobody has shown is
//! unknown.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};
use tcptrace_tests::namespace::boot_ns;
use tcptrace_tests::program::run;
use tcptrace_tests::tracer::PATIENCE;
use tcptrace_tests::{Actor, End, Namespace, Tracer};

use super::{attacher, hooks};
use crate::actor;

/// Connects: returns the client's end, and the name of the server's.
fn dial(to: SocketAddr) -> (End, End) {
    let client = End::from(TcpStream::connect(to).expect("connect"));
    let server = End::named(client.remote, client.local);
    (client, server)
}

/// The process that reports that it accepted this connection.
fn acceptor(actor: &Actor, client: &End) -> u32 {
    let words = actor.did("accepted");
    assert_eq!(words[1].parse(), Ok(client.local));
    words[0].parse().expect("a process id")
}

/// The row of a connection that has ended after `since`: its ports may have been another one's before.
fn row(tracer: &Tracer, net: &Namespace, end: &End, since: u64) -> Value {
    let is_over = |row: &Value| row["event"] == "connection" && row["boot_ns"].as_u64() > Some(since);
    tracer.row(net, "a connection", |row| net.is_about(row, end) && is_over(row))
}

/// Opens a connection, closes it on both sides, and returns who accepted it with the server's row.
fn serve(tracer: &Tracer, net: &Namespace, actor: &Actor, at: SocketAddr) -> (u32, Value) {
    let begun = boot_ns();
    let (mut client, server) = dial(at);
    let pid = acceptor(actor, &client);
    client.finish_sending();
    client.receive_end();
    client.close();
    (pid, row(tracer, net, &server, begun))
}

/// Nobody has seen who accepted it. A process that closes it is its owner.
#[test]
fn whoever_closes_it_owns_it() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["connections", "--format", "json", "--accept", "never"]);
    let mut actor = actor("parent", &["heir"]);
    let at = actor.did_at("listening");
    let (parent, told) = serve(&tracer, &net, &actor, at);
    assert_eq!(parent, actor.pid());
    assert_eq!([&told["pid"], &told["owner_source"]], [&json!(parent), &json!("close")], "{told}");
    actor.cue();
    actor.did("bequeathed");
    let (child, told) = serve(&tracer, &net, &actor, at);
    assert_ne!(child, parent);
    assert_eq!([&told["pid"], &told["comm"]], [&json!(child), &json!("heir")], "{told}");
    assert_eq!(told["owner_source"], "close");
    actor.finish();
}

/// The peer resets it at once: who had it is unknown. If it stays, a scan shows who holds it.
#[test]
fn whoever_holds_it_owns_it() {
    let net = Namespace::enter();
    let args = ["watch", "--format", "json", "--accept", "never", "--report-stuck", "200ms"];
    let tracer = Tracer::start_in(&net, &args);
    let mut actor = actor("holder", &["hold", "2"]);
    let at = actor.did_at("listening");
    let (mut short, server) = dial(at);
    actor.did("accepted");
    short.reset();
    let told = tracer.row(&net, "an end", |row| net.is_about(row, &server) && row["new"] == "CLOSED");
    // Other tests may have asked for a scan just then.
    let is_known = told["owner_source"] == "scan" && told["pid"] == actor.pid();
    assert!(is_known || told["pid"].is_null() && told["owner_source"] == "unknown", "{told}");

    let (client, server) = dial(at);
    actor.did("accepted");
    client.finish_sending();
    let is_stuck = |row: &Value| row["old"] == "CLOSE_WAIT" && row["new"] == "CLOSE_WAIT";
    // A report does not wait for ever for a scan.
    let is_known = |row: &Value| is_stuck(row) && row["owner_source"] != "unknown";
    let told = tracer.row(&net, "a socket that waits", |row| net.is_about(row, &server) && is_known(row));
    assert_eq!([&told["pid"], &told["owner_source"]], [&json!(actor.pid()), &json!("scan")], "{told}");
    assert_eq!([&told["accepted"], &told["holder_pid"]], [&json!(true), &json!(actor.pid())], "{told}");
    actor.cue();
    client.receive_reset();
    actor.finish();
}

/// A connection that waits in the accept queue is told as such, whether accepts are seen or not.
#[test]
fn an_accept_queue_needs_no_accepts() {
    let net = Namespace::enter();
    let args = ["watch", "--format", "json", "--accept", "never", "--report-stuck", "200ms"];
    let tracer = Tracer::start_in(&net, &args);
    let mut actor = actor("late", &["accept", "nonblocking"]);
    let at = actor.did_at("listening");
    actor.did("nothing");
    let (client, server) = dial(at);
    client.finish_sending();
    let is_stuck = |row: &Value| row["old"] == "CLOSE_WAIT" && row["new"] == "CLOSE_WAIT";
    let is_known = |row: &Value| is_stuck(row) && !row["accepted"].is_null();
    let told = tracer.row(&net, "a socket that waits", |row| net.is_about(row, &server) && is_known(row));
    assert_eq!([&told["accepted"], &told["pid"]], [&json!(false), &json!(null)], "{told}");
    assert_eq!(told["listener_pid"], actor.pid(), "{told}");
    actor.cue();
    actor.did("accepted");
    actor.cue();
    client.receive_reset();
    actor.finish();
}

/// Accepts are seen once a listener has a second holder, and no more when it has one again. Owners are right before, in
/// between and afterwards.
#[test]
fn accepts_are_seen_as_needed() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["connections", "--format", "json", "--accept", "auto"]);
    let mut actor = actor("parent", &["heir"]);
    let at = actor.did_at("listening");
    let (parent, told) = serve(&tracer, &net, &actor, at);
    assert_eq!([&told["pid"], &told["owner_source"]], [&json!(parent), &json!("close")], "{told}");
    actor.cue();
    let child: u32 = actor.did("bequeathed")[0].parse().expect("a process id");
    let until = |wanted: &str, actor: &Actor, server: u32| {
        let begun = Instant::now();
        loop {
            let (pid, told) = serve(&tracer, &net, actor, at);
            assert_eq!(pid, server);
            // Another tracer that looks at descriptors can be the last to release one.
            let is_by_a_look = told["owner_source"] == "close" && told["comm"] == "tcptrace";
            assert!(told["pid"] == pid || told["pid"].is_null() || is_by_a_look, "{told}");
            // On a slow machine it lasts until a scan.
            if told["owner_source"] == wanted || wanted == "close" && told["owner_source"] == "scan" {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never {wanted}, but {told}: {}", tracer.complaints());
        }
    };
    until("accept", &actor, child);
    actor.cue();
    actor.did("gone");
    until("close", &actor, parent);
    actor.finish();
}

/// Whether the tracer waits for the kernel, which runs a program for a while after its descriptor is gone.
fn is_detaching(tracer: &Tracer) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", attacher(tracer))).expect("its threads").flatten();
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok()).any(|name| name == "detach\n")
}

/// A recording has the hook while a listener has a second holder, and not before or afterwards.
#[test]
fn a_recording_sees_accepts_as_needed() {
    let (net, folder) = (Namespace::enter(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("trace.tct");
    let trace = trace.to_str().expect("a path in UTF-8");
    let tracer = Tracer::start_in(&net, &["record", "--accept", "auto", "-o", trace]);
    let without = hooks(&tracer);
    let mut actor = actor("parent", &["heir"]);
    let at = actor.did_at("listening");
    let mut servers = Vec::new();
    let mut serve = |actor: &Actor| {
        let (mut client, server) = dial(at);
        let pid = acceptor(actor, &client);
        client.finish_sending();
        client.receive_end();
        client.close();
        servers.push((pid, server));
    };
    let until = |is_there: bool| {
        let begun = Instant::now();
        while (hooks(&tracer) == without) == is_there || is_detaching(&tracer) {
            assert!(begun.elapsed() < PATIENCE, "still {:?}: {}", hooks(&tracer), tracer.complaints());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    serve(&actor);
    assert_eq!(hooks(&tracer), without);
    actor.cue();
    actor.did("bequeathed");
    until(true);
    serve(&actor);
    actor.cue();
    actor.did("gone");
    until(false);
    serve(&actor);
    actor.finish();
    assert_eq!(tracer.interrupt().status.code(), Some(0));

    let told = run(&["replay", "--format", "json", "--rows", "connections", trace]).rows();
    for ((pid, server), source) in servers.iter().zip(["close", "accept", "close"]) {
        let told = told.iter().find(|row| net.is_about(row, server)).expect("its row");
        // Another tracer that looks at descriptors can be the last to release one.
        let is_by_a_look = source == "close" && told["comm"] == "tcptrace";
        let is_by_a_scan = source == "close" && told["owner_source"] == "scan";
        assert!(told["owner_source"] == source || is_by_a_scan, "{source}: {told}");
        assert!(told["pid"] == *pid || is_by_a_look, "{source}: {told}");
    }
}
