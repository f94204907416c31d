//! One process opens a connection, and another one closes it: rows name both.

use std::net::TcpStream;

use serde_json::json;
use tcptrace_tests::process::close;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace};

use crate::actor;

/// The client's descriptor is passed to another process.
#[test]
fn connected_and_given_away() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let mut taker = actor("taker", &["take"]);
    taker.did("ready");
    let giver = actor("giver", &["give", &address(&listener).to_string()]);
    let server = accept(&listener);
    taker.did("took");
    let pid = giver.pid();
    giver.finish();
    taker.cue();
    server.receive_reset();

    let told = net.foreign_life(&End::named(server.remote, server.local));
    told.went("CLOSED").ended("reset_local", "reset_linger0");
    told.owned_by("connect", pid).has(json!({"comm": "giver"})).closed_by(taker.pid(), "taker");
    taker.finish();
}

/// The server's descriptor is passed on.
#[test]
fn accepted_and_given_away() {
    let net = Namespace::enter();
    let mut taker = actor("taker", &["take"]);
    taker.did("ready");
    let giver = actor("giver", &["give", "accepted"]);
    let client = End::from(TcpStream::connect(giver.did_at("listening")).expect("connect"));
    giver.did("accepted");
    taker.did("took");
    let pid = giver.pid();
    giver.finish();
    taker.cue();
    client.receive_reset();

    let told = net.foreign_life(&End::named(client.remote, client.local));
    told.went("CLOSED").ended("reset_local", "reset_linger0");
    told.owned_by("accept", pid).has(json!({"comm": "giver"})).closed_by(taker.pid(), "taker");
    taker.finish();
}

/// Another process connects the same socket again: it owns the second connection.
#[test]
fn connected_again_by_another() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let to = address(&listener).to_string();
    let mut taker = actor("taker", &["take", &to]);
    taker.did("ready");
    let giver = actor("giver", &["give", &to, "dissolved"]);
    // The first connection may have ended: only `accept` shows its owner then.
    let (socket, peer) = listener.accept().expect("accept");
    let first = End::named(peer, address(&listener));
    close(socket);
    let second = accept(&listener);
    taker.did("took");
    let pid = giver.pid();
    giver.finish();
    taker.cue();
    second.receive_reset();

    let [first, second] = [first, End::named(second.remote, second.local)].map(|client| net.foreign_life(&client));
    first.ended("reset_local", "disconnected").owned_by("connect", pid).closed_by(pid, "giver");
    second.ended("reset_local", "reset_linger0").owned_by("connect", taker.pid()).closed_by(taker.pid(), "taker");
    second.has(json!({"conn": first.connection["conn"], "comm": "taker"}));
    taker.finish();
}

/// One process shuts it down, and another one has the last descriptor: each row names the process that acted.
#[test]
fn shut_down_and_given_away() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let mut taker = actor("taker", &["take"]);
    taker.did("ready");
    let giver = actor("giver", &["give", &address(&listener).to_string(), "shut"]);
    let server = accept(&listener);
    server.receive_end();
    taker.did("took");
    let pid = giver.pid();
    giver.finish();
    taker.cue();
    server.receive_reset();

    let told = net.foreign_life(&End::named(server.remote, server.local));
    assert_eq!(told.leaving("ESTABLISHED")["close_pid"], pid, "{told}");
    told.ended("active", "reset_linger0").owned_by("connect", pid).closed_by(taker.pid(), "taker");
    taker.finish();
}

/// A process accepts for a child, which has the connection as its input and output.
#[test]
fn accepted_for_a_child() {
    let net = Namespace::enter();
    let parent = actor("inetd", &["inetd"]);
    let mut client = End::from(TcpStream::connect(parent.did_at("listening")).expect("connect"));
    parent.did("accepted");
    let child: u32 = parent.did("served")[0].parse().expect("a process id");
    client.send(100);
    client.receive(100);
    client.finish_sending();
    client.receive_end();
    client.close();

    let told = net.foreign_life(&End::named(client.remote, client.local));
    told.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").owned_by("accept", parent.pid());
    told.has(json!({"comm": "inetd", "close_pid": child, "close_comm": "cat", "bytes_sent": 100}));
    parent.finish();
}
