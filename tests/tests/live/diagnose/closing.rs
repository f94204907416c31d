//! Connections that one side has closed and the other one has not.

use std::fs;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;
use tcptrace_tests::process::close;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{address, connect, listen};
use tcptrace_tests::{End, Namespace};

use super::{Both, LEAKED, assert_found, assert_is, assert_one_cause, figure, findings, leak, look, rows};

/// How many descriptors a process has.
pub(super) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count()
}

/// Room for so many descriptors more.
pub(super) fn leave_room(net: &Namespace, pid: u32, more: usize) -> usize {
    let limit = descriptors(pid) + more;
    net.run("prlimit", &["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")]);
    limit
}

#[test]
fn a_leak_takes_all_descriptors() {
    let net = Namespace::enter();
    let live = look(&net, &["--only", "close-wait-leak,fd-limit"]);
    let (actor, _) = leak(&net);
    let limit = leave_room(&net, actor.pid(), 1);
    let rows = rows(&live.interrupt(), 4);
    let found = assert_one_cause(&net, &rows, "close-wait-leak", &["fd-limit"]);
    let open = [("descriptors", json!(limit - 1)), ("descriptor_limit", json!(limit))];
    assert_is(found[0], ["critical", "likely"], &open);
    assert_is(found[0], ["critical", "likely"], &[("close_wait", json!(LEAKED)), ("recv_queue_1", json!(LEAKED))]);
    assert_is(found[1], ["critical", "certain"], &open);
    assert_is(found[1], ["critical", "certain"], &[("close_wait", json!(LEAKED)), ("accept_failed", json!(0))]);
    assert_eq!(found[1]["subject"]["pid"], actor.pid(), "{found:#?}");
}

/// The clients have sent a request and left; the server reads none. Ten seconds are too long for one that reads.
#[test]
fn requests_stay_unread() {
    const LONG: Duration = Duration::from_millis(10_100);
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    let mut served: Vec<_> = (0..5).map(|_| connect(&server)).collect();
    for (client, end) in &mut served {
        client.send(100);
        end.leave_unread();
        client.close();
    }
    sleep(LONG);
    let live = look(&net, &["--only", "close-wait-unread,close-wait-leak,stale-pool"]);
    let rows = rows(&live.interrupt(), 4);
    let figures = [("unread", json!(5)), ("unread_bytes", json!(500))];
    let found = assert_found(&net, &rows, "close-wait-unread", ["warning", "certain"], &figures);
    assert!((10e9..60e9).contains(&figure(found, "oldest_ns")), "{found:#}");
    assert_eq!(found["subject"]["pid"], std::process::id(), "{found:#}");
}

/// Clients wait for a FIN in FIN_WAIT2, and the process at the other end is named.
#[test]
fn a_peer_does_not_close() {
    const MANY: usize = 110;
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/ip_local_port_range", "40000 40999");
    let live = look(&net, &["--only", "peer-does-not-close,close-wait-leak"]);
    let actor = crate::actor("leaky", &["hold", &MANY.to_string()]);
    let to = actor.did_at("listening");
    for _ in 0..MANY {
        let client = TcpStream::connect(to).expect("connect");
        actor.did("accepted");
        close(client);
    }
    // A FIN that is on its way comes sooner.
    sleep(Duration::from_millis(1_100));
    let rows = rows(&live.interrupt(), 4);
    let found = assert_one_cause(&net, &rows, "close-wait-leak", &["peer-does-not-close"]);
    assert_eq!(found[0]["subject"]["pid"], actor.pid(), "{found:#?}");
    assert_eq!(found[0]["figures"]["recv_queue_1"], MANY, "{found:#?}");
    let figures =
        [("waiting", json!(MANY)), ("timed_out", json!(0)), ("port_share", json!(0.11)), ("fin_timeout_s", json!(60))];
    assert_is(found[1], ["warning", "certain"], &figures);
}

/// A server closes a second after its clients; another one closes at once.
#[test]
fn a_server_closes_late() {
    const MANY: usize = 20;
    binary();
    let net = Namespace::enter_unwatched();
    let [slow, fast] = [listen("127.0.0.1"), listen("127.0.0.1")];
    let live = look(&net, &["--only", "close-wait-slow,close-wait-leak"]);
    let mut late: Vec<_> = (0..MANY).map(|_| connect(&slow)).collect();
    for (client, server) in &mut late {
        client.close();
        server.receive_end();
    }
    sleep(Duration::from_millis(1_100));
    late.iter_mut().for_each(|(_, server)| server.close());
    for _ in 0..MANY {
        let (mut client, mut server) = connect(&fast);
        client.close();
        server.receive_end();
        server.close();
    }
    let rows = rows(&live.interrupt(), 0);
    let figures = [("left", json!(MANY)), ("most", json!(MANY))];
    let found = assert_found(&net, &rows, "close-wait-slow", ["note", "certain"], &figures);
    assert!((1e9..10e9).contains(&figure(found, "lasted_p50_ns")), "{found:#}");
    assert_eq!(found["subject"]["lport"], address(&slow).port(), "{found:#}");
}

/// Clients reset their connections, and the process keeps its descriptors; then it closes them.
#[test]
fn descriptors_of_connections_that_are_over() {
    const MANY: usize = 110;
    binary();
    let net = Namespace::enter_unwatched();
    let options = ["--only", "closed-not-released"];
    let both = Both::look(&net, &options);
    let mut actor = crate::actor("keeper", &["hold", &MANY.to_string()]);
    let to = actor.did_at("listening");
    for _ in 0..MANY {
        let mut client = End::from(TcpStream::connect(to).expect("connect"));
        actor.did("accepted");
        client.reset();
    }
    for rows in both.rows(4) {
        let figures = [("over", json!(MANY)), ("old", json!(0)), ("reset", json!(MANY)), ("timed_out", json!(0))];
        let found = assert_found(&net, &rows, "closed-not-released", ["warning", "possible"], &figures);
        assert_eq!(found["subject"]["pid"], actor.pid(), "{found:#}");
        assert!(figure(found, "over_share") > 0.5, "{found:#}");
    }
    // It closes them, and listens no more.
    actor.cue();
    actor.finish();
    let rows = rows(&look(&net, &options).interrupt(), 0);
    assert_eq!(findings(&net, &rows), Vec::<&Value>::new());
}

/// The servers' FINs get no answer, and the kernel gives up after one retransmission.
#[test]
fn fins_that_nobody_acknowledges() {
    const MANY: usize = 5;
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_orphan_retries", "1");
    let server = listen("127.0.0.1");
    let both = Both::look(&net, &["--only", "fin-unanswered,dead-peer"]);
    let mut open: Vec<_> = (0..MANY).map(|_| connect(&server)).collect();
    for (client, served) in &open {
        client.finish_sending();
        served.receive_end();
    }
    net.drop_arriving(&format!("tcp sport {}", address(&server).port()));
    open.iter_mut().for_each(|(_, served)| served.close());
    wait_for_timeouts(&net, MANY);
    net.heal();
    for rows in both.rows(4) {
        let figures = [("given_up", json!(MANY)), ("waiting", json!(0)), ("closed_window", json!(0))];
        let found = assert_found(&net, &rows, "fin-unanswered", ["warning", "certain"], &figures);
        assert_eq!(found["subject"]["remote"], "127.0.0.1:0", "{found:#}");
    }
}

/// The kernel gives up so many connections.
fn wait_for_timeouts(net: &Namespace, count: usize) {
    let began = Instant::now();
    while net.counter("TcpExt", "TCPAbortOnTimeout") < count as u64 {
        assert!(began.elapsed() < Duration::from_secs(30), "no timeouts");
        sleep(Duration::from_millis(10));
    }
}

/// What three clients send gets no answer; another server answers.
#[test]
fn a_peer_stops_answering() {
    const MANY: usize = 3;
    binary();
    let net = Namespace::enter_unwatched();
    let [gone, alive] = [listen("127.0.0.1"), listen("127.0.0.1")];
    let both = Both::look(&net, &["--only", "fin-unanswered,dead-peer"]);
    let open: Vec<_> = (0..MANY).map(|_| connect(&gone)).collect();
    let well = connect(&alive);
    net.drop_arriving(&format!("tcp dport {}", address(&gone).port()));
    for (client, _) in &open {
        SockRef::from(&**client).set_tcp_user_timeout(Some(Duration::from_millis(500))).expect("set TCP_USER_TIMEOUT");
        client.send(100);
    }
    wait_for_timeouts(&net, MANY);
    well.0.send(10);
    well.1.receive(10);
    for rows in both.rows(4) {
        let figures = [("died", json!(MANY)), ("user_timeout", json!(MANY)), ("ended", json!(MANY))];
        let found = assert_found(&net, &rows, "dead-peer", ["warning", "certain"], &figures);
        assert_eq!(found["figures"]["alive"], 1, "the other server: {found:#}");
        assert_eq!(found["subject"]["remote"], address(&gone).to_string(), "{found:#}");
    }
}
