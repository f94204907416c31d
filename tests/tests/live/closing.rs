//! Connections that end with FINs in both directions.

use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::faults::{ACK, FIN, inject};
use tcptrace_tests::{Namespace, TimeWaitClock, Tracer, pair};

const HOLD: Duration = Duration::from_millis(300);

#[test]
fn client_closes_first() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let clock = TimeWaitClock::start(&net);
    client.send(1000);
    server.receive(1000);
    server.send(50);
    client.receive(50);
    client.close();
    server.receive_end();
    server.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect").waited_out(clock);
    told.has(json!({"side": "client", "bytes_sent": 1000, "bytes_received": 50, "close_wait_ns": null}));
    let told = net.life(&server);
    told.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours_by("accept");
    told.has(json!({"side": "server", "bytes_sent": 50, "bytes_received": 1000}));
    told.has(json!({"time_wait_ns": null, "time_wait_end": null}));
}

#[test]
fn server_closes_first() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let clock = TimeWaitClock::start(&net);
    server.send(7);
    client.receive(7);
    server.close();
    client.receive_end();
    client.close();

    let told = net.life(&server);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("accept").waited_out(clock);
    told.has(json!({"side": "server", "bytes_sent": 7, "bytes_received": 0}));
    let told = net.life(&client);
    told.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours_by("connect");
    told.has(json!({"side": "client", "bytes_sent": 0, "bytes_received": 7, "time_wait_end": null}));
}

#[test]
fn states_last_as_long_as_the_processes_take() {
    let net = Namespace::enter();
    let before = Instant::now();
    let (mut client, mut server) = pair();
    sleep(HOLD);
    let established = HOLD..=before.elapsed() + HOLD;
    client.finish_sending();
    server.receive_end();
    sleep(2 * HOLD);
    server.close();
    let longest = before.elapsed() - HOLD;
    client.close();

    net.life(&server).held("CLOSE_WAIT", 2 * HOLD..=longest).held("ESTABLISHED", established.clone());
    // The peer acknowledges our FIN at once or a little later.
    net.life(&client).held("FIN_WAIT2", HOLD..=longest).held("ESTABLISHED", established);
}

/// The peer may go on sending after our FIN.
#[test]
fn half_close() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let clock = TimeWaitClock::start(&net);
    client.send(10);
    client.finish_sending();
    server.receive(10);
    server.receive_end();
    sleep(HOLD);
    server.send(5000);
    client.receive(5000);
    server.close();
    client.receive_end();
    net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    client.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect").waited_out(clock);
    told.has(json!({"bytes_sent": 10, "bytes_received": 5000}));
    assert_eq!(told.leaving("FIN_WAIT2")["orphan"], false, "{told}");
    net.life(&server)
        .went("CLOSE_WAIT LAST_ACK CLOSED")
        .ended("passive", "fin")
        .ours_by("accept")
        .held("CLOSE_WAIT", HOLD..);
}

/// Neither end has the other's FIN when it sends its own: the FINs cross.
#[test]
fn simultaneous_close() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let [at_client, at_server] = [client.sequence(), server.sequence()];
    net.drop_arriving("meta l4proto tcp");
    client.close();
    server.close();
    inject(client.local, client.remote, at_client.sends, at_client.expects, FIN | ACK);
    inject(server.local, server.remote, at_server.sends, at_server.expects, FIN | ACK);
    for end in [&client, &server] {
        net.transition(end, "FIN_WAIT1", "CLOSING");
    }
    net.heal();

    for (end, side, source) in [(&client, "client", "connect"), (&server, "server", "accept")] {
        let told = net.life(end);
        told.went("FIN_WAIT1 CLOSING TIME_WAIT CLOSED").ended("simultaneous", "fin").ours_by(source);
        told.has(json!({"side": side, "time_wait_end": "expired", "close_wait_ns": null}));
        told.expired();
    }
}

/// `shutdown(SHUT_RDWR)` closes both directions and keeps the descriptor.
#[test]
fn shut_down_both_ways() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.shutdown(Shutdown::Both).expect("shut down");
    server.receive_end();
    server.close();
    net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    client.close();

    net.life(&client).went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect").expired();
    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours_by("accept");
}

/// A connection is not over when its socket is closed.
#[test]
fn connections_come_after_their_time_wait() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();
    server.close();
    net.life(&server);
    let [_, connections] = net.told();
    assert!(connections.iter().all(|row| !net.is_about(row, &client)), "its TIME_WAIT has just begun: {connections:?}");

    let told = net.life(&client);
    let [open, over] = [&told.transitions[1], told.last()].map(|row| row["boot_ns"].as_u64().expect("a time"));
    assert!(over - open > 60_000_000_000, "{told}");
    assert!(told.connection["boot_ns"].as_u64().expect("a time").abs_diff(over) < 100_000_000, "{told}");
}

/// `--at-close` does not wait: the end of the TIME_WAIT is unknown then.
#[test]
fn told_at_close() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["connections", "--format", "json", "--at-close"]);
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    client.close();

    let told = tracer.row(&net, "the client's end", |row| net.is_about(row, &client));
    assert_eq!([&told["closer"], &told["end"], &told["side"]], ["active", "fin", "client"], "{told}");
    assert_eq!([&told["time_wait_ns"], &told["time_wait_end"]], [&Value::Null, &Value::Null], "{told}");
    let entered = net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    let time = |row: &Value| row["boot_ns"].as_u64().expect("a time");
    assert!(time(&told).abs_diff(time(&entered)) < 1_000_000_000, "{told}");
}
