//! Whose a connection is.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::gettid;
use serde_json::json;
use tcptrace_tests::namespace::boot_ns;
use tcptrace_tests::process::spawn;
use tcptrace_tests::sockets::{accept, address, connect, listen};
use tcptrace_tests::{Namespace, pair};

/// The connection closes with its last descriptor, and that is a child's.
#[test]
fn child_closes_last() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let inherited = OwnedFd::from(client.take());
    let mut child = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(inherited));
    let parent_let_go = boot_ns();
    drop(child.stdin.take());
    child.wait().expect("wait for cat");
    server.receive_end();
    server.reset();

    let told = net.foreign_life(&client);
    assert!(told.leaving("ESTABLISHED")["boot_ns"].as_u64().expect("a time") > parent_let_go, "{told}");
    told.has(json!({"pid": std::process::id(), "owner_source": "connect", "closer": "active"}));
    told.has(json!({"close_pid": child.id(), "close_tid": child.id(), "close_comm": "cat"}));
}

/// A killed process closes what it held.
#[test]
fn killed_process() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let inherited = OwnedFd::from(client.take());
    let mut child = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(inherited));
    child.kill().expect("kill cat");
    child.wait().expect("wait for cat");
    server.receive_end();
    server.reset();

    net.foreign_life(&client).has(json!({"closer": "active", "close_pid": child.id(), "close_comm": "cat"}));
}

/// The process id is the process's, the thread id and the name are the thread's.
#[test]
fn thread_connects() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let work = move || {
        let (mut client, server) = connect(&listener);
        client.reset();
        server.receive_reset();
        (client, gettid().as_raw())
    };
    let (client, tid) =
        thread::Builder::new().name("connector".into()).spawn(work).expect("a thread").join().expect("no panic");

    let told = net.life(&client);
    told.ours_by("connect").has(json!({"pid": std::process::id(), "tid": tid, "comm": "connector"}));
    told.has(json!({"close_pid": std::process::id(), "close_tid": tid, "close_comm": "connector"}));
    assert_ne!(told.connection["tid"], told.connection["pid"], "{told}");
}

/// On the loopback, packets are received in the name of whoever sent them: that is not the owner.
#[test]
fn peer_is_another_process() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let to = address(&listener);
    let script = format!("exec 3<>/dev/tcp/{}/{}; read -u 3; exec 3>&-", to.ip(), to.port());
    let mut bash = spawn(Command::new("bash").args(["-c", &script]));
    let mut server = accept(&listener);
    (&*server).write_all(b"go\n").expect("send");
    server.receive_end();
    server.close();
    bash.wait().expect("wait for bash");

    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours();
    let client = tcptrace_tests::End::named(server.remote, server.local);
    let told = net.foreign_life(&client);
    told.has(json!({"pid": bash.id(), "comm": "bash", "owner_source": "connect", "closer": "active", "end": "fin"}));
    for row in &told.transitions {
        assert_eq!(row["pid"], bash.id(), "{told}");
    }
}
