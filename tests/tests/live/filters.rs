//! Filters.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::process::spawn;
use tcptrace_tests::sockets::{accept, address, bound_to, connect, listen};
use tcptrace_tests::{End, Namespace, Tracer, pair};

use crate::actor;

fn watch(net: &Namespace, filter: &[&str]) -> Tracer {
    Tracer::start_in(net, &[&["watch", "--format", "json"], filter].concat())
}

fn connections(net: &Namespace, filter: &[&str]) -> Tracer {
    Tracer::start_in(net, &[&["connections", "--format", "json"], filter].concat())
}

/// Makes a connection and resets it from the client: it ends at once.
fn short(address: &str) -> (End, End) {
    let (mut client, mut server) = connect(&listen(address));
    client.reset();
    server.receive_reset();
    server.close();
    (client, server)
}

/// All rows, once one reports that this end is closed.
fn until_closed(tracer: &Tracer, net: &Namespace, end: &End) -> Vec<Value> {
    tracer.rows(net, &format!("the end of {end:?}"), |rows| {
        let closed = |row: &Value| net.is_about(row, end) && (row["new"] == "CLOSED" || row["event"] == "connection");
        rows.iter().any(closed).then(|| rows.to_vec())
    })
}

fn assert_only(rows: &[Value], end: &End) {
    let local = end.local.to_string();
    assert!(rows.iter().all(|row| row["local"] == local), "{rows:#?}");
}

/// The kernel chooses the local port after the first transition, which is shown nevertheless.
#[test]
fn local_port_that_was_not_chosen_yet() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.sysctl("ipv4/ip_local_port_range", "45000 45000");
    let tracer = watch(&net, &["--lport", "45000"]);
    let (mut client, _server) = connect(&listener);
    client.reset();

    let rows = until_closed(&tracer, &net, &client);
    let states: Vec<_> = rows.iter().map(|row| row["new"].as_str().expect("a state")).collect();
    assert_eq!(states, ["SYN_SENT", "ESTABLISHED", "CLOSED"]);
    assert_eq!(client.local.port(), 45_000);
    assert!(rows.iter().skip(1).all(|row| row["local"] == client.local.to_string()), "{rows:#?}");
}

#[test]
fn ports() {
    let net = Namespace::enter();
    let [other, wanted] = [(); 2].map(|()| listen("127.0.0.1"));
    let port = address(&wanted).port().to_string();
    let [any, remote] = ["--port", "--rport"].map(|option| connections(&net, &[option, &port]));
    connect(&other).0.reset();
    let (mut client, mut server) = connect(&wanted);
    client.reset();
    server.receive_reset();
    server.close();

    assert_only(&until_closed(&remote, &net, &client), &client);
    until_closed(&any, &net, &client);
    for row in until_closed(&any, &net, &server) {
        assert!(net.is_about(&row, &client) || net.is_about(&row, &server), "{row}");
    }
}

#[test]
fn process() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let to = address(&listener);
    let tracer = connections(&net, &["--pid", &std::process::id().to_string()]);
    let script = format!("exec 3<>/dev/tcp/{}/{}; read -u 3", to.ip(), to.port());
    let mut bash = spawn(Command::new("bash").args(["-c", &script]).stderr(std::process::Stdio::null()));
    let mut server = accept(&listener);
    server.reset();
    bash.wait().expect("wait for bash");
    let bashs = End::named(server.remote, server.local);
    net.foreign_life(&bashs).has(json!({"comm": "bash"}));
    let (mut ours, _server) = connect(&listener);
    ours.reset();

    let rows = until_closed(&tracer, &net, &ours);
    assert!(rows.iter().all(|row| row["pid"] == std::process::id() && !net.is_about(row, &bashs)), "{rows:#?}");
}

/// A process's connection is shown from its first transition on.
#[test]
fn process_from_the_beginning() {
    let net = Namespace::enter();
    let tracer = watch(&net, &["--pid", &std::process::id().to_string()]);
    let (client, _server) = short("127.0.0.1");
    let rows = until_closed(&tracer, &net, &client);
    let path: Vec<_> = rows.iter().filter(|row| row["side"] == "client").map(|row| row["old"].clone()).collect();
    assert_eq!(path, ["CLOSED", "SYN_SENT", "ESTABLISHED"]);
}

#[test]
fn process_name() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let tracer = connections(&net, &["--comm", "wanted"]);
    let connected_by = |name: &str| {
        let actor = actor(name, &["dial", "1", &address(&listener).to_string()]);
        let _server = accept(&listener);
        let client = End::named(actor.did_at("connected"), address(&listener));
        actor.finish();
        client
    };
    net.foreign_life(&connected_by("other"));
    let wanted = connected_by("wanted");
    assert_only(&until_closed(&tracer, &net, &wanted), &wanted);
}

#[test]
fn network_namespace() {
    let net = Namespace::enter();
    let tracer = connections(&net, &[]);
    let elsewhere = thread::spawn(|| {
        let other = Namespace::enter();
        let (client, _server) = short("127.0.0.1");
        other.life(&client);
    });
    elsewhere.join().expect("no panic elsewhere");
    let (client, _server) = short("127.0.0.1");

    until_closed(&tracer, &net, &client);
    let printed = tracer.interrupt();
    for line in printed.text().lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        // The summary row has no namespace.
        assert!(row["netns"] == net.inode() || row["event"] == "summary", "{line}");
    }
}

#[test]
fn closer() {
    let net = Namespace::enter();
    let tracer = connections(&net, &["--closer", "reset_remote"]);
    let (client, server) = short("127.0.0.1");
    net.life(&client);
    assert_only(&until_closed(&tracer, &net, &server), &server);
}

#[test]
fn shortest_duration() {
    let net = Namespace::enter();
    let tracer = connections(&net, &["--min-duration", "3s"]);
    let (early, _server) = short("127.0.0.1");
    net.life(&early);
    let (mut late, server) = pair();
    thread::sleep(Duration::from_millis(3_100));
    late.reset();
    server.receive_reset();

    for row in until_closed(&tracer, &net, &late) {
        let stays = row["states"].as_array().expect("states").iter();
        let ns: u64 = stays.map(|stay| stay["ns"].as_u64().expect("a number")).sum();
        assert!(ns > 2_900_000_000, "{row}");
    }
}

#[test]
fn state() {
    let net = Namespace::enter();
    let tracer = watch(&net, &["--state", "CLOSE_WAIT"]);
    let (early, _server) = short("127.0.0.1");
    net.life(&early);
    let (client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    server.close();

    tracer.row(&net, "the end of CLOSE_WAIT", |row| net.is_about(row, &server) && row["old"] == "CLOSE_WAIT");
    for row in tracer.rows_now(&net) {
        assert!(row["old"] == "CLOSE_WAIT" || row["new"] == "CLOSE_WAIT", "{row}");
        assert!(net.is_about(&row, &server), "{row}");
    }
}

#[test]
fn families() {
    let net = Namespace::enter();
    let [four, six] = ["-4", "-6"].map(|option| connections(&net, &[option]));
    for order in [["127.0.0.1", "::1"], ["::1", "127.0.0.1"]] {
        for (client, _server) in order.map(short) {
            let tracer = if client.local.is_ipv4() { &four } else { &six };
            until_closed(tracer, &net, &client);
        }
    }
    assert!(four.rows_now(&net).iter().all(|row| row["family"] == "ipv4"));
    assert!(six.rows_now(&net).iter().all(|row| row["family"] == "ipv6"));
}

#[test]
fn addresses() {
    let net = Namespace::enter();
    let tracer = connections(&net, &["--addr", "127.0.7.0/24"]);
    let (other, _server) = short("127.0.0.1");
    net.life(&other);
    let listener = listen("127.0.0.1");
    let socket = bound_to(SocketAddr::from(([127, 0, 7, 9], 0)));
    socket.connect(&address(&listener).into()).expect("connect");
    let mut client = End::from(socket);
    client.reset();

    for row in until_closed(&tracer, &net, &client) {
        assert!(net.is_about(&row, &client) || row["remote"] == client.local.to_string(), "{row}");
    }
}
