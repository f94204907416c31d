//! One process opens a connection, and another one closes it: both are told.

use std::net::TcpStream;

use serde_json::json;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace};

use crate::actor;

/// The client's descriptor goes to another process.
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

/// The server's descriptor does.
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
