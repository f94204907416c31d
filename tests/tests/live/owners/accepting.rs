//! The owner of the server's end is the process that accepted it, by whatever call.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::{Actor, End, Life, Namespace, Tracer};

use super::functions::need_function;
use crate::actor;

/// Connects: returns the client's end, and the name of the server's.
fn dial(to: SocketAddr) -> (End, End) {
    let client = End::from(TcpStream::connect(to).expect("connect"));
    let server = End::named(client.remote, client.local);
    (client, server)
}

/// A listener as rows name it.
fn listening(at: SocketAddr) -> End {
    End::named(at, ([0, 0, 0, 0], 0).into())
}

/// Waits until a process reports that it accepted a connection; returns the process and the peer.
fn accepted(actor: &Actor) -> (u32, SocketAddr) {
    let words = actor.did("accepted");
    (words[0].parse().expect("a process id"), words[1].parse().expect("an address"))
}

/// Checks that the owner and the closer, where known, are this process.
fn assert_nobody_elses(told: &Life, pid: u32) {
    for row in told.transitions.iter().chain([&told.connection]) {
        for field in ["pid", "close_pid"] {
            assert!(row[field].is_null() || row[field] == pid, "{told}");
        }
    }
}

/// Children accept on an inherited listener: the parent owns the listener, the children own the connections.
#[test]
fn children_of_a_listener() {
    let net = Namespace::enter();
    let actor = actor("parent", &["prefork"]);
    let at = actor.did_at("listening");
    let mut connections = Vec::new();
    for _ in 0..2 {
        let (client, server) = dial(at);
        let (pid, peer) = accepted(&actor);
        assert_eq!(peer, client.local);
        connections.push((pid, client, server));
    }
    assert_ne!(connections[0].0, connections[1].0, "each child accepts one");
    assert!(connections.iter().all(|(pid, ..)| *pid != actor.pid()));
    let parent = actor.pid();
    let opened = net.transition(&listening(at), "CLOSED", "LISTEN");

    let mut names = Vec::new();
    for (pid, mut client, server) in connections {
        client.finish_sending();
        client.receive_end();
        client.close();
        let told = net.foreign_life(&server);
        let name = told.connection["comm"].as_str().expect("a name").to_owned();
        told.went("CLOSE_WAIT LAST_ACK CLOSED").owned_by("accept", pid).closed_by(pid, &name);
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["child0", "child1"]);
    actor.finish();
    let closed = net.transition(&listening(at), "LISTEN", "CLOSED");
    for row in [&opened, &closed] {
        assert_eq!([&row["pid"], &row["comm"]], [&json!(parent), &json!("parent")], "{row}");
        assert_eq!(row["owner_source"], "listen", "{row}");
    }
}

/// Several processes listen at the same address: each owns what it accepts, and a process that dies closes only its
/// own.
#[test]
fn listeners_that_share_an_address() {
    const CONNECTIONS: usize = 32;
    let net = Namespace::enter();
    let actor = actor("parent", &["reuseport"]);
    let listeners: HashMap<u32, SocketAddr> = (0..2)
        .map(|_| {
            let words = actor.did("listening");
            (words[0].parse().expect("a process id"), words[1].parse().expect("an address"))
        })
        .collect();
    let at = *listeners.values().next().expect("a listener");
    let mut clients = HashMap::new();
    for _ in 0..CONNECTIONS {
        let (client, _) = dial(at);
        clients.insert(client.local, client);
    }
    let mut of: HashMap<u32, Vec<End>> = HashMap::new();
    for _ in 0..CONNECTIONS {
        let (pid, peer) = accepted(&actor);
        of.entry(pid).or_default().push(clients.remove(&peer).expect("one of ours"));
    }
    let [mut first, mut second] = [0, 1].map(|child| *listeners.keys().nth(child).expect("two listeners"));
    assert_eq!(of.len(), 2, "the kernel chooses by a hash of the addresses: {of:?}");

    for _ in 0..2 {
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).expect("kill a child");
        for mut client in of.remove(&first).expect("its connections") {
            client.receive_end();
            client.reset();
            let told = net.foreign_life(&End::named(client.remote, client.local));
            let name = told.connection["comm"].as_str().expect("a name").to_owned();
            assert!(name.starts_with("child"), "{told}");
            told.owned_by("accept", first).closed_by(first, &name).has(json!({"closer": "active"}));
        }
        for client in of.get(&second).into_iter().flatten() {
            client.set_nonblocking(true).expect("make it non-blocking");
            assert_eq!(client.peek(&mut [0]).expect_err("it goes on").kind(), ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("make it blocking");
        }
        (first, second) = (second, first);
    }
    for (pid, at) in listeners {
        for (old, new) in [("CLOSED", "LISTEN"), ("LISTEN", "CLOSED")] {
            let is_its = |row: &serde_json::Value| row["old"] == old && row["new"] == new && row["pid"] == pid;
            let row = Tracer::watch()
                .row(&net, &format!("{old} > {new} of {pid}"), |row| net.is_about(row, &listening(at)) && is_its(row));
            assert_eq!(row["owner_source"], "listen", "{row}");
        }
    }
    actor.finish();
}

/// Accepts one with `accept` or with `accept4` and its flags.
#[test]
fn by_each_system_call() {
    let net = Namespace::enter();
    for how in ["accept", "accept4", "accept4_nonblock"] {
        let mut actor = actor(how, &["accept", how]);
        let (client, server) = dial(actor.did_at("listening"));
        assert_eq!(actor.did_at("accepted"), client.local);
        actor.cue();
        client.receive_reset();
        let name = &how[..how.len().min(15)];
        let told = net.foreign_life(&server);
        told.went("CLOSED").owned_by("accept", actor.pid()).closed_by(actor.pid(), name).has(json!({"comm": name}));
        actor.finish();
    }
}

/// The first accept finds nothing.
#[test]
fn by_a_listener_that_does_not_wait() {
    let net = Namespace::enter();
    let mut actor = actor("poller", &["accept", "nonblocking"]);
    let at = actor.did_at("listening");
    assert_eq!(actor.did("nothing"), ["true"]);
    let (client, server) = dial(at);
    actor.cue();
    assert_eq!(actor.did_at("accepted"), client.local);
    actor.cue();
    client.receive_reset();

    net.foreign_life(&server).went("CLOSED").owned_by("accept", actor.pid()).closed_by(actor.pid(), "poller");
    actor.finish();
}

/// The peer resets it before it is accepted: it never had an owner, least of all the peer.
#[test]
fn after_its_end() {
    let net = Namespace::enter();
    let mut server = actor("late", &["accept", "nonblocking"]);
    let at = server.did_at("listening");
    assert_eq!(server.did("nothing"), ["true"]);
    let client = actor("client", &["dial", "1", &at.to_string()]);
    let local = client.did_at("connected");
    let client_pid = client.pid();
    client.finish();
    server.cue();
    assert_eq!(server.did("accepted"), ["nobody"]);
    let server_pid = server.pid();
    server.finish();

    let told = net.foreign_life(&End::named(at, local));
    told.went("CLOSED").ended("reset_remote", "reset_received");
    assert_nobody_elses(&told, server_pid);
    net.foreign_life(&End::named(local, at)).owned_by("connect", client_pid).closed_by(client_pid, "client");
}

/// A process that accepts with io_uring, and its address. Skips the test on a machine that forbids io_uring.
fn ring(count: usize, how: &str) -> (Actor, SocketAddr) {
    let actor = actor("ring", &["uring", &count.to_string(), how]);
    let words = actor.says();
    if words[0] == "unavailable" {
        skip(format!("io_uring is {}", words.join(" ")));
    }
    (actor, words[1].parse().expect("an address"))
}

/// Where a function of the kernel shows accepts, it shows those with io_uring, too.
#[test]
fn through_a_ring_at_once() {
    need_function();
    let net = Namespace::enter();
    for how in ["descriptor", "ring"] {
        let (actor, at) = ring(1, how);
        let (mut client, server) = dial(at);
        actor.did("accepted");
        client.reset();
        net.foreign_life(&server).owned_by("accept", actor.pid()).has(json!({"comm": "ring"}));
        actor.finish();
    }
}

/// Accepting with io_uring is no system call: where those show accepts, a later scan finds the owner.
#[test]
fn through_a_ring() {
    // On a busy machine a scan is slow, and the next one comes only after twenty times that.
    const TRIES: usize = 240;
    let net = Namespace::enter();
    let (actor, at) = ring(TRIES, "descriptor");
    let connect = |_| {
        let ends = dial(at);
        actor.did("accepted");
        ends
    };
    let connections: Vec<_> = (0..TRIES).map(connect).collect();
    let found = connections.into_iter().any(|(mut client, server)| {
        sleep(Duration::from_secs(1));
        client.reset();
        // A process whose peer resets the connection has not closed it, so `close` cannot be the source.
        let told = net.foreign_life(&server);
        assert_nobody_elses(&told, actor.pid());
        let rows = [told.last(), &told.connection];
        let is_known = |row: &serde_json::Value| row["owner_source"] == "scan" || row["owner_source"] == "accept";
        rows.iter().all(|row| is_known(row) && row["pid"] == actor.pid() && row["comm"] == "ring")
    });
    assert!(found, "nobody looked");
    actor.finish();
}

/// It is closed before any scan: the process that closes it is the owner.
#[test]
fn through_a_ring_shortly() {
    let net = Namespace::enter();
    let (mut actor, at) = ring(1, "descriptor");
    let (client, server) = dial(at);
    actor.did("accepted");
    actor.cue();
    client.receive_reset();

    let told = net.foreign_life(&server);
    told.went("CLOSED").closed_by(actor.pid(), "ring").has(json!({"comm": "ring", "pid": actor.pid()}));
    let source = &told.connection["owner_source"];
    assert!(source == "close" || source == "scan" || source == "accept", "{told}");
    actor.finish();
}

/// It has no descriptor, and the kernel closes it with the ring, after its process has ended.
#[test]
fn into_a_ring() {
    let net = Namespace::enter();
    let (actor, at) = ring(1, "ring");
    let (mut client, server) = dial(at);
    actor.did("accepted");
    let pid = actor.pid();
    actor.finish();
    client.receive_end();
    client.reset();

    let told = net.foreign_life(&server);
    assert_nobody_elses(&told, pid);
}
