//! Connections that are older than the tracer.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::namespace::boot_ns;
use tcptrace_tests::process::close;
use tcptrace_tests::sockets::{address, listen};
use tcptrace_tests::zoo::Zoo;
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

/// The kernel's timer shows the time left, and so the time that has passed.
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
    let held = Duration::from_nanos(ended["held_ns"].as_u64().expect("an age"));
    assert!((59_900..65_000).contains(&held.as_millis()), "{ended}");
    assert_eq!(ended["held_at_least"], true, "{ended}");
    let told = row(&connections, &net, &client, |_| true);
    assert_eq!([&told["complete"], &told["time_wait_end"]], [&json!(false), &json!("expired")], "{told}");
    // No process has it, so it has no owner.
    assert_eq!([&told["pid"], &told["owner_source"]], [&Value::Null, &json!("unknown")], "{told}");
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

/// A socket from before the trace has a state and an owner before it changes.
#[test]
fn every_state_before() {
    let net = Namespace::enter();
    let zoo = Zoo::fill(&net);
    let begun = boot_ns();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--report-stuck", "300ms"]);
    let ready = boot_ns();

    let ours = json!(std::process::id());
    let stuck = |end: &End| row(&tracer, &net, end, |row| row["event"] == "stuck");
    for (end, state) in [
        (&zoo.syn_sent, "SYN_SENT"),
        (&zoo.half_closed.0, "FIN_WAIT2"),
        (&zoo.half_closed.1, "CLOSE_WAIT"),
        (&zoo.close_wait, "CLOSE_WAIT"),
    ] {
        let row = stuck(end);
        assert_eq!([&row["old"], &row["pid"], &row["owner_source"]], [&json!(state), &ours, &json!("scan")], "{row}");
        assert_eq!([&row["holder_pid"], &row["held_at_least"]], [&ours, &json!(true)], "{row}");
        // Its time is a lower bound from when the trace began, and never 0.
        let at = row["boot_ns"].as_u64().expect("a time");
        let age = row["held_ns"].as_u64().expect("an age");
        assert!((at - ready..=at - begun).contains(&age), "{row}");
    }
    let queued = stuck(&zoo.never_accepted);
    assert_eq!([&queued["pid"], &queued["accepted"]], [&Value::Null, &json!(false)], "{queued}");
    assert_eq!(queued["listener_pid"], ours, "{queued}");
    for (end, state) in [(&zoo.last_ack, "LAST_ACK"), (&zoo.fin_wait2, "FIN_WAIT2")] {
        let row = stuck(end);
        assert_eq!(
            [&row["old"], &row["pid"], &row["holder_pid"]],
            [&json!(state), &Value::Null, &Value::Null],
            "{row}"
        );
    }
    // The rest shows that it was known when its state changed.
    let Zoo { established: (mut client, mut server), mut closing, listener, .. } = zoo;
    client.reset();
    server.receive_reset();
    server.close();
    closing.close();
    let end = End::named(address(&listener), ([0, 0, 0, 0], 0).into());
    close(listener);
    for (end, state) in [(&client, "ESTABLISHED"), (&server, "ESTABLISHED"), (&end, "LISTEN")] {
        let row = row(&tracer, &net, end, |row| row["new"] == "CLOSED" && row["event"] == "transition");
        assert_eq!([&row["old"], &row["pid"], &row["owner_source"]], [&json!(state), &ours, &json!("scan")], "{row}");
        assert_eq!(row["held_at_least"], true, "{row}");
    }
}

#[test]
fn without_existing() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();
    let options = ["watch", "--format", "json", "--report-stuck", "200ms", "--no-existing"];
    let tracer = Tracer::start_in(&net, &options);
    let (mut later, other) = pair();
    later.close();
    row(&tracer, &net, &other, |row| row["event"] == "stuck");
    assert!(tracer.rows_now(&net).iter().all(|row| !net.is_about(row, &server)), "{:?}", tracer.rows_now(&net));
    server.close();
    let left = row(&tracer, &net, &server, |row| row["old"] == "CLOSE_WAIT");
    assert_eq!([&left["owner_source"], &left["event"]], ["close", "transition"], "{left}");
}
