//! tcptrace reports the transitions on every kernel: without BTF, from the classic tracepoint.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::{End, Namespace, Tracer};

/// Rows name no namespace here: the address identifies this test's rows.
const SERVER: &str = "127.7.0.1";
const HOLD: Duration = Duration::from_millis(300);

fn path(tracer: &Tracer, net: &Namespace, end: &End) -> String {
    tracer.rows(net, &format!("the end of {end:?}"), |rows| {
        // The local port of the first transition is not chosen yet.
        let begins = |row: &Value| row["old"] == "CLOSED" && row["remote"] == end.remote.to_string();
        let rows: Vec<_> = rows.iter().filter(|row| net.is_about(row, end) || begins(row)).collect();
        let last = rows.last()?["new"].as_str()?;
        let over = last == "CLOSED" || last == "TIME_WAIT";
        over.then(|| {
            rows.iter().map(|row| row["old"].as_str().expect("a state")).chain([last]).collect::<Vec<_>>().join(" ")
        })
    })
}

/// The same with the features that this kernel has: an old one reports less, but nothing wrong.
#[test]
fn transitions() {
    assert_transitions(Tracer::start);
}

#[test]
fn transitions_without_btf() {
    assert_transitions(Tracer::start_without_btf);
}

fn assert_transitions(start: fn(&[&str]) -> Tracer) {
    let net = Namespace::enter_unwatched();
    let tracer = start(&["watch", "--format", "json"]);
    let (mut client, mut server) = connect(&listen(SERVER));
    let begun = Instant::now();
    client.finish_sending();
    server.receive_end();
    sleep(HOLD);
    server.close();
    let longest = begun.elapsed();
    client.receive_end();
    client.close();

    let at_client = path(&tracer, &net, &client);
    assert!(at_client.starts_with("CLOSED SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2"), "{at_client}");
    let at_server = path(&tracer, &net, &server);
    assert!(at_server.ends_with("SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSED"), "{at_server}");
    let mut rows = tracer.rows_now(&net);
    rows.retain(|row| net.is_about(row, &client) || net.is_about(row, &server));
    let held = |row: &Value| Duration::from_nanos(row["held_ns"].as_u64().expect("held_ns"));
    let left = rows.iter().find(|row| row["old"] == "CLOSE_WAIT").expect("a CLOSE_WAIT");
    assert!((HOLD..=longest).contains(&held(left)), "{left}");
    assert_eq!([&left["closer"], &left["side"]], ["passive", "server"], "{left}");
    let left = rows.iter().find(|row| row["old"] == "FIN_WAIT1").expect("a FIN_WAIT1");
    assert_eq!([&left["closer"], &left["side"]], ["active", "client"], "{left}");
    assert_eq!([&left["pid"], &left["owner_source"]], [&json!(std::process::id()), &json!("connect")], "{left}");
}

#[test]
fn connection() {
    assert_connection(Tracer::start);
}

#[test]
fn connection_without_btf() {
    assert_connection(Tracer::start_without_btf);
}

fn assert_connection(start: fn(&[&str]) -> Tracer) {
    let net = Namespace::enter_unwatched();
    let tracer = start(&["connections", "--format", "json"]);
    let (mut client, mut server) = connect(&listen(SERVER));
    let begun = Instant::now();
    client.finish_sending();
    server.receive_end();
    sleep(HOLD);
    server.close();
    let longest = begun.elapsed();
    client.close();

    let told = tracer.row(&net, "the server's end", |row| net.is_about(row, &server));
    assert_eq!([&told["closer"], &told["side"]], ["passive", "server"], "{told}");
    let close_wait = Duration::from_nanos(told["close_wait_ns"].as_u64().expect("close_wait_ns"));
    assert!((HOLD..=longest).contains(&close_wait), "{told}");
    // Values that cannot be seen are unknown.
    assert!(["fin", "unknown"].contains(&told["end"].as_str().expect("a word")), "{told}");
}
