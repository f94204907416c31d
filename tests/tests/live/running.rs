//! Connections that were there before the tracer.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::process::close;
use tcptrace_tests::sockets::{address, listen};
use tcptrace_tests::{End, Namespace, Tracer, pair};

const HOLD: Duration = Duration::from_millis(300);

fn both(net: &Namespace) -> [Tracer; 2] {
    ["watch", "connections"].map(|command| Tracer::start_in(net, &[command, "--format", "json"]))
}

fn row(tracer: &Tracer, net: &Namespace, end: &End, wanted: impl Fn(&Value) -> bool) -> Value {
    tracer.row(net, &format!("{end:?}"), |row| net.is_about(row, end) && wanted(row))
}

#[test]
fn established_before() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    sleep(HOLD);
    let [watch, connections] = both(&net);
    sleep(HOLD);
    client.finish_sending();
    server.receive_end();
    server.reset();
    client.receive_reset();
    client.close();

    let left = row(&watch, &net, &client, |row| row["old"] == "ESTABLISHED");
    assert_eq!([&left["new"], &left["held_at_least"]], [&json!("FIN_WAIT1"), &json!(true)], "{left}");
    assert!(left["held_ns"].as_u64().is_some_and(|ns| u128::from(ns) >= HOLD.as_nanos()), "the known part: {left}");
    let told = row(&connections, &net, &client, |_| true);
    assert_eq!([&told["complete"], &told["opened"]], [&json!(false), &Value::Null], "{told}");
    assert_eq!([&told["closer"], &told["end"]], ["active", "reset_received"], "{told}");
    assert_eq!(
        [&told["states"][0]["state"], &told["states"][0]["at_least"]],
        [&json!("ESTABLISHED"), &json!(true)],
        "{told}"
    );
    for row in [&left, &told] {
        assert_eq!(row["pid"], std::process::id(), "{row}");
    }
}

#[test]
fn close_wait_before() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    let [watch, connections] = both(&net);
    sleep(HOLD);
    server.close();
    client.receive_end();
    client.close();

    let left = row(&watch, &net, &server, |row| row["old"] == "CLOSE_WAIT");
    assert_eq!([&left["new"], &left["held_at_least"]], [&json!("LAST_ACK"), &json!(true)], "{left}");
    assert!(left["held_ns"].as_u64().is_some_and(|ns| u128::from(ns) >= HOLD.as_nanos()), "the known part: {left}");
    let told = row(&connections, &net, &server, |_| true);
    assert_eq!([&told["complete"], &told["closer"]], [&json!(false), &json!("passive")], "{told}");
    assert_eq!([&told["end"], &told["pid"]], [&json!("fin"), &json!(std::process::id())], "{told}");
}

/// Its end is seen all the same, and it is not taken for a minute shorter than it was.
#[test]
fn time_wait_before() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();
    server.close();
    net.transition(&client, "FIN_WAIT1", "FIN_WAIT2");
    sleep(5 * Duration::from_secs(1));
    let [watch, connections] = both(&net);

    let ended = row(&watch, &net, &client, |row| row["new"] == "CLOSED");
    assert_eq!([&ended["old"], &ended["reason"]], ["TIME_WAIT", "expired"], "{ended}");
    assert!(ended["held_ns"].as_u64().is_none_or(|ns| ns > 30_000_000_000), "{ended}");
    assert_eq!(ended["held_at_least"], !ended["held_ns"].is_null(), "{ended}");
    let told = row(&connections, &net, &client, |_| true);
    assert_eq!([&told["complete"], &told["time_wait_end"]], [&json!(false), &json!("expired")], "{told}");
}

#[test]
fn listener_before() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let end = End::named(address(&listener), ([0, 0, 0, 0], 0).into());
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json"]);
    close(listener);

    let closed = row(&tracer, &net, &end, |row| row["new"] == "CLOSED");
    assert_eq!([&closed["old"], &closed["pid"]], [&json!("LISTEN"), &json!(std::process::id())], "{closed}");
    assert!(closed["held_at_least"] == true || closed["held_ns"].is_null(), "{closed}");
    assert_ne!(closed["held_ns"], 0, "{closed}");
}
