//! Connections that one side has closed and the other one has not.

use std::fs;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use tcptrace_tests::Namespace;
use tcptrace_tests::process::close;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{connect, listen};

use super::{LEAKED, assert_found, assert_is, assert_one_cause, figure, leak, look, rows};

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
