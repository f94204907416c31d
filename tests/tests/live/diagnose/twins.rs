//! The healthy twins of all diseases, side by side: nothing is found.

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{scope, sleep};
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::program::{binary, run};
use tcptrace_tests::sockets::{address, connect, listen, listen_with, start_connecting};
use tcptrace_tests::{Namespace, Tracer, ability};

use super::listening::{late, restart};
use super::pools::ask;
use super::ports::connect_bound;
use super::{Look, one, path, rows};
use crate::ports::{self, close, hundred};

/// For what takes two seconds.
const LONGEST: Duration = Duration::from_secs(60);

/// What a twin has to say to the test, and when it may go on.
struct Twin<'t> {
    news: Sender<u64>,
    cues: &'t Receiver<()>,
}

impl Twin<'_> {
    /// Waits until it is watched.
    fn begins(&self, net: &Namespace) {
        self.news.send(net.inode()).expect("a test");
        self.cues.recv().expect("a test that goes on");
    }

    /// Keeps what it has until nobody watches any more.
    fn ends(&self) {
        self.news.send(0).expect("a test");
        self.cues.recv().expect("a test that goes on");
    }
}

/// Clients are not given the ports of these servers.
fn reserve(net: &Namespace, ports: &[u16]) {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    net.sysctl("ipv4/ip_local_reserved_ports", &ports.join(","));
}

/// Fewer connections than make a habit, each with a request that is read and an answer; one is refused.
fn busy(twin: &Twin<'_>) {
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    reserve(&net, &[address(&server).port()]);
    twin.begins(&net);
    for _ in 0..60 {
        let ends = connect(&server);
        ask(&ends, 1);
        close(ends);
    }
    let nobody = listen("127.0.0.1");
    let at = address(&nobody);
    drop(nobody);
    TcpStream::connect(at).expect_err("nobody listens");
    twin.ends();
}

/// Forty connections to each of two servers, used again and again, of 100 ports.
fn pooled(twin: &Twin<'_>) {
    let (net, one, other) = hundred();
    twin.begins(&net);
    let pool: Vec<_> = [one, other].iter().flat_map(|to| (0..40).map(|_| connect(to)).collect::<Vec<_>>()).collect();
    (0..5).for_each(|_| pool.iter().for_each(|ends| ask(ends, 1)));
    twin.ends();
}

/// Bound to an address, and not to a port.
fn bound(twin: &Twin<'_>) {
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/ip_local_port_range", "40000 40199");
    let servers = [listen("127.0.0.1"), listen("127.0.0.1")];
    reserve(&net, &[address(&servers[0]).port(), address(&servers[1]).port()]);
    twin.begins(&net);
    let bound = |turn: usize| connect_bound(&servers[turn % 2], true).expect("a port");
    let _open: Vec<_> = (0..120).map(bound).collect();
    twin.ends();
}

/// `tcp_tw_reuse` with timestamps.
fn reusing(twin: &Twin<'_>) {
    let (net, server, _) = hundred();
    net.sysctl("ipv4/tcp_tw_reuse", "1");
    twin.begins(&net);
    (0..60).for_each(|_| close(ports::connect(&server).expect("a port")));
    sleep(Duration::from_millis(1_100));
    (0..39).for_each(|_| close(ports::connect(&server).expect("a port")));
    twin.ends();
}

/// A server that accepts late, and one that begins anew.
fn serving(twin: &Twin<'_>) {
    let net = Namespace::enter_unwatched();
    twin.begins(&net);
    let server = listen_with("127.0.0.1", 16);
    let _clients: Vec<_> = (0..3).map(|_| start_connecting(address(&server))).collect();
    let _new = restart();
    let _accepted = late(&server);
    twin.ends();
}

/// Idle connections that the client closes, sooner than the server would.
fn idle(twin: &Twin<'_>) {
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    reserve(&net, &[address(&server).port()]);
    twin.begins(&net);
    let open: Vec<_> = (0..6).map(|_| connect(&server)).collect();
    open.iter().for_each(|ends| ask(ends, 1));
    sleep(Duration::from_secs(1));
    open.into_iter().for_each(close);
    twin.ends();
}

/// A process with descriptors to spare.
fn modest(twin: &Twin<'_>) {
    let net = Namespace::enter_unwatched();
    let actor = crate::actor("modest", &["hold", "5"]);
    let to = actor.did_at("listening");
    reserve(&net, &[to.port()]);
    twin.begins(&net);
    let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(to).expect("connect")).collect();
    (0..5).for_each(|_| drop(actor.did("accepted")));
    twin.ends();
}

const TWINS: [fn(&Twin<'_>); 7] = [busy, pooled, bound, reusing, serving, idle, modest];

/// Nobody tracks connections, and a trace holds no files.
const NOT_HERE: [&str; 3] =
    ["events were lost", "no connection tracking in any namespace", "a trace does not hold files of the host"];

fn assert_checked(row: &Value) {
    let is_not_here = || NOT_HERE.iter().any(|reason| row["reason"] == *reason);
    assert!(row["outcome"] != "not_checked" || is_not_here(), "{row:#}");
}

/// Twins have few ports, so that they need few connections: that is noted.
fn is_of_the_test(row: &Value) -> bool {
    row["id"] == "risky-setting" && row["evidence"].to_string().contains("net.ipv4.ip_local_port_range")
}

/// Of every rule: it was checked, and what it has found, if anything, other tests make at the same time.
fn assert_silent(netns: &[String], rows: &[Value]) {
    for rule in run(&["diagnose", "--rules", "--format", "json"]).rows() {
        let id = rule["id"].as_str().expect("an id");
        let checked = one(rows, "checked", id);
        if NOT_HERE.iter().any(|reason| checked["reason"] == *reason) {
            continue;
        }
        assert_checked(checked);
        let found: Vec<_> = rows.iter().filter(|row| row["event"] == "finding" && row["id"] == id).collect();
        assert!(checked["outcome"] == "silent" || !found.is_empty(), "{checked:#}");
        for row in found {
            let there = row["subject"]["netns"].to_string();
            assert!(!netns.contains(&there) || is_of_the_test(row), "{row:#}");
        }
    }
}

#[test]
fn twins_are_healthy() {
    ability::need_root();
    binary();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    scope(|scope| {
        let (news, told) = channel();
        let mut cues = Vec::new();
        for play in TWINS {
            let (cue, cues_of) = channel();
            let news = news.clone();
            cues.push(cue);
            scope.spawn(move || play(&Twin { news, cues: &cues_of }));
        }
        drop(news);
        let all = || TWINS.iter().map(|_| told.recv_timeout(LONGEST).expect("a twin that lives")).collect::<Vec<u64>>();
        let go_on = || cues.iter().for_each(|cue| cue.send(()).expect("a twin that lives"));

        let netns: Vec<String> = all().iter().map(ToString::to_string).collect();
        let about: Vec<&str> = netns.iter().flat_map(|netns| ["--netns", netns]).collect();
        let recorder = Tracer::start(&["record", "--failed-calls", "--output", path(&trace)]);
        let options = ["diagnose", "--duration", "10m", "--format", "json", "--fail-on", "warning"];
        let live = Look::start(&[&options, &about[..]].concat());
        go_on();
        all();
        let (live, recorded) = (live.interrupt(), recorder.interrupt());
        go_on();

        let live = rows(&live, 0);
        // Those of the host are not theirs.
        let is_theirs = |row: &&Value| row["event"] == "finding" && !row["subject"]["netns"].is_null();
        let found: Vec<_> = live.iter().filter(is_theirs).filter(|row| !is_of_the_test(row)).collect();
        assert!(found.is_empty(), "{found:#?}");
        live.iter().filter(|row| row["event"] == "checked").for_each(assert_checked);
        assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
        let options = ["diagnose", "--format", "json", "--fail-on", "never", path(&trace)];
        assert_silent(&netns, &rows(&run(&options), 0));
    });
}
