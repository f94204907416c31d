//! Accepts are seen in a function of the kernel where that can be traced, and at the exits of system calls elsewhere.
//! Both ways show the same, and the first slows no other system call down.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde_json::Value;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::object::write_without;
use tcptrace_tests::process::close;
use tcptrace_tests::program::run;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace, Tracer};

use super::hooks;
use crate::actor;

/// Skips the test on a kernel where the function cannot be traced.
pub(super) fn need_function() {
    let features = run(&["check", "--format", "json"]).rows();
    let accept = features.iter().find(|row| row["feature"] == "accept").expect("a feature");
    if !accept["detail"].as_str().is_some_and(|detail| detail.starts_with("fentry/")) {
        skip(format!("this kernel does not show accepts in a function: {}", accept["detail"]));
    }
}

/// What the tracer loads to see accepts at the exits of system calls.
struct WithoutFunction(PathBuf);

impl WithoutFunction {
    fn write() -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-accepts-{}.o", std::process::id()));
        write_without("accept_grafted", &path);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for WithoutFunction {
    fn drop(&mut self) {
        // What is left would be overwritten by the next run.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn dial(to: SocketAddr) -> (End, End) {
    let client = End::from(TcpStream::connect(to).expect("connect"));
    let server = End::named(client.remote, client.local);
    (client, server)
}

/// By each system call.
fn simply(how: &str) -> End {
    let mut actor = actor(how, &["accept", how]);
    let at = actor.did_at("listening");
    if how == "nonblocking" {
        actor.did("nothing");
    }
    let (client, server) = dial(at);
    if how == "nonblocking" {
        actor.cue();
    }
    actor.did("accepted");
    actor.cue();
    client.receive_reset();
    actor.finish();
    server
}

/// The peer resets it before it is accepted.
fn too_late() -> End {
    let mut server = actor("late", &["accept", "nonblocking"]);
    let at = server.did_at("listening");
    server.did("nothing");
    let (mut client, end) = dial(at);
    client.reset();
    server.cue();
    assert_eq!(server.did("accepted"), ["nobody"]);
    server.finish();
    end
}

/// The descriptor is passed on: nobody accepts a second time.
fn passed_on() -> End {
    let mut taker = actor("taker", &["take"]);
    taker.did("ready");
    let giver = actor("giver", &["give", "accepted"]);
    let (client, server) = dial(giver.did_at("listening"));
    giver.did("accepted");
    taker.did("took");
    giver.finish();
    taker.cue();
    client.receive_reset();
    taker.finish();
    server
}

/// The descriptor is duplicated, and the first one closed.
fn duplicated() -> End {
    let listener = listen("127.0.0.1");
    let (client, server) = dial(address(&listener));
    let first = OwnedFd::from(accept(&listener).take());
    let second = first.try_clone().expect("duplicate it");
    close(first);
    close(second);
    client.receive_end();
    server
}

/// Two processes accept from one listener.
fn shared() -> [End; 2] {
    let actor = actor("parent", &["prefork"]);
    let at = actor.did_at("listening");
    let servers = [0, 1].map(|_| {
        let (client, server) = dial(at);
        actor.did("accepted");
        client.finish_sending();
        client.receive_end();
        server
    });
    actor.finish();
    servers
}

#[test]
fn whatever_shows_accepts_shows_the_same() {
    need_function();
    let net = Namespace::enter();
    let object = WithoutFunction::write();
    let command = ["connections", "--format", "json"];
    let by_function = Tracer::start_in(&net, &command);
    let by_calls = Tracer::start_in(&net, &[&command[..], &["--object", object.path()]].concat());

    let hows = ["accept", "accept4", "accept4_nonblock", "nonblocking"];
    let mut ends: Vec<_> = hows.into_iter().map(|how| (how, simply(how))).collect();
    ends.extend([("too late", too_late()), ("passed on", passed_on()), ("duplicated", duplicated())]);
    ends.extend(shared().map(|end| ("shared", end)));
    for (how, end) in ends {
        let told = [&by_function, &by_calls].map(|tracer| {
            let row = tracer.row(&net, how, |row| net.is_about(row, &end));
            ["side", "end", "closer", "owner_source", "pid", "tid", "comm", "close_pid", "close_comm"]
                .map(|field| (field, row[field].clone()))
        });
        assert_eq!(told[0], told[1], "{how}");
        let source = told[0].iter().find(|(field, _)| *field == "owner_source").map(|(_, source)| source);
        assert!(how == "too late" || source == Some(&Value::from("accept")), "{how}: {told:?}");
    }
}

/// What shows calls that fail slows others down, and is attached only for those who ask for it.
#[test]
fn no_other_system_call_is_slowed_down() {
    need_function();
    let (net, folder) = (Namespace::enter(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("trace.tct");
    let attached = |options: &[&str]| {
        let trace = trace.to_str().expect("a path in UTF-8");
        let tracer = Tracer::start_in(&net, &[&["record", "--force", "-o", trace], options].concat());
        let hooks = hooks(&tracer);
        assert_eq!(tracer.interrupt().status.code(), Some(0));
        hooks
    };
    let [usual, without_accepts, with_failed] = [&[][..], &["--accept", "never"], &["--failed-calls"]].map(attached);
    assert_eq!([usual.calls, without_accepts.calls], [0, 0]);
    assert_eq!(usual.functions, without_accepts.functions + 1);
    assert!(with_failed.calls > 0 && with_failed.functions == usual.functions, "{with_failed:?}");
}
