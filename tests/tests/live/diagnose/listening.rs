//! Listeners: queues that overflow, descriptors that run out, ports that are taken.

use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use serde_json::json;
use socket2::Socket;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{accept, address, connect, listen, listen_with, socket, start_connecting};
use tcptrace_tests::{Actor, End, Namespace};

use super::closing::{descriptors, leave_room};
use super::{Both, assert_found, assert_is, assert_one_cause, figure, findings, look, one, rows};
use crate::ports;

/// For what takes a second.
const LONGEST: Duration = Duration::from_secs(30);

/// So many clients come at once, to a queue for two.
fn crowd(net: &Namespace, server: &TcpListener) -> Vec<(Socket, End)> {
    let clients: Vec<_> = (0..9).map(|_| start_connecting(address(server))).collect();
    let began = Instant::now();
    while net.counter("TcpExt", "ListenOverflows") < 7 {
        assert!(began.elapsed() < LONGEST, "no overflow");
        sleep(Duration::from_millis(1));
    }
    clients
}

#[test]
fn a_queue_that_nobody_accepts_from() {
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen_with("127.0.0.1", 1);
    let both = Both::look(&net, &["--only", "never-accepted,accept-queue-full,connect-timeout"]);
    let _clients = crowd(&net, &server);
    // An event loop does not stall for so long.
    sleep(Duration::from_millis(5_200));
    for rows in both.rows(4) {
        let effects = ["accept-queue-full", "connect-timeout"];
        let found = assert_one_cause(&net, &rows, "never-accepted", &effects);
        let queue = [("queued", json!(2)), ("queue_limit", json!(1)), ("accepted", json!(0)), ("gone", json!(0))];
        assert_is(found[0], ["critical", "certain"], &queue);
        assert!((5e9..60e9).contains(&figure(found[0], "waited_ns")), "{:#}", found[0]);
        assert_eq!(found[0]["subject"]["lport"], address(&server).port(), "{:#}", found[0]);
        assert_is(found[1], ["critical", "certain"], &[("most_queued", json!(2)), ("queue_limit", json!(1))]);
        assert!(figure(found[1], "overflows") >= 7.0, "{:#}", found[1]);
        // Two of its clients got through.
        assert_is(found[2], ["warning", "certain"], &[("waiting", json!(7)), ("timed_out", json!(0))]);
        assert_eq!(found[2]["subject"]["remote"], address(&server).to_string(), "{:#}", found[2]);
    }
}

/// The process accepts, but too late.
#[test]
fn a_queue_overflows() {
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen_with("127.0.0.1", 1);
    let live = look(&net, &["--only", "accept-queue-full"]);
    let _clients = crowd(&net, &server);
    let rows = rows(&live.interrupt(), 4);
    let queue = [("most_queued", json!(2)), ("queue_limit", json!(1)), ("somaxconn", json!(4096))];
    let found = assert_found(&net, &rows, "accept-queue-full", ["critical", "certain"], &queue);
    assert!(figure(found, "overflows") >= 7.0, "{found:#}");
    assert!(figure(found, "drops") >= figure(found, "overflows"), "{found:#}");
    assert_eq!(found["subject"]["lport"], address(&server).port(), "{found:#}");
}

/// Room for six more descriptors, and ten clients.
#[test]
fn accept_has_no_descriptor_left() {
    binary();
    let net = Namespace::enter_unwatched();
    let live = look(&net, &["--only", "fd-limit,never-accepted,close-wait-leak"]);
    let actor: Actor = crate::actor("hoarder", &["hoard"]);
    let to = actor.did_at("listening");
    // It may be inside accept() already, which has a descriptor before there is a connection.
    let limit = leave_room(&net, actor.pid(), 6);
    let _clients: Vec<_> = (0..20).map(|_| start_connecting(to)).collect();
    let said = loop {
        let said = actor.says();
        if said[0] != "accepted" {
            break said;
        }
    };
    assert_eq!(said, ["failed", &libc::EMFILE.to_string()]);
    let open = descriptors(actor.pid());
    let rows = rows(&live.interrupt(), 4);
    let figures = [("descriptors", json!(open)), ("descriptor_limit", json!(limit)), ("accept_failed", json!(1))];
    let found = assert_found(&net, &rows, "fd-limit", ["critical", "certain"], &figures);
    assert_eq!([&found["subject"]["pid"], &found["subject"]["comm"]], [&json!(actor.pid()), &json!("hoarder")]);
    assert_eq!(found["figures"]["close_wait"], 0, "{found:#}");
}

/// What bind() says about an address.
fn bind(to: SocketAddr) -> Option<i32> {
    socket().bind(&to.into()).err().and_then(|error| error.raw_os_error())
}

/// A listener without SO_REUSEADDR, as its connections are then.
fn plain() -> TcpListener {
    listen_with("127.0.0.1", 8)
}

/// A listener, a client, a connection of a server that is gone, and its TIME_WAIT: each has a port.
#[test]
fn ports_that_somebody_has() {
    binary();
    let net = Namespace::enter_unwatched();
    let both = Both::look(&net, &["--only", "bind-refused"]);
    let older = crate::actor("older", &["hold", "1"]);
    let elsewhere = listen("127.0.0.1");
    let (client, _served) = connect(&elsewhere);
    let gone = plain();
    let open = address(&gone);
    let _still = connect(&gone);
    drop(gone);
    let gone = plain();
    let waiting = address(&gone);
    let (client_end, mut served) = connect(&gone);
    served.close();
    client_end.receive_end();
    drop((gone, client_end));
    let wanted = [older.did_at("listening"), client.local, open, waiting];
    for address in wanted {
        assert_eq!(bind(address), Some(libc::EADDRINUSE), "{address}");
    }
    for rows in both.rows(4) {
        let found = findings(&net, &rows);
        assert_eq!(found.len(), 4, "{rows:#?}");
        assert_eq!(one(&rows, "checked", "bind-refused")["outcome"], "fired");
        let kinds = ["listeners", "clients", "open", "time_wait"];
        for (address, kind) in wanted.iter().zip(kinds) {
            let of = found.iter().find(|row| row["subject"]["local"] == address.to_string());
            let of = of.unwrap_or_else(|| panic!("nothing about {address}: {found:#?}"));
            let severity = if kind == "listeners" { "warning" } else { "critical" };
            assert_is(of, [severity, "certain"], &[("failures", json!(1)), (kind, json!(1))]);
            assert_eq!(of["subject"]["pid"], std::process::id(), "{of:#}");
        }
    }
}

/// The server of a twin: it waits, and then accepts all.
pub(super) fn late(server: &TcpListener) -> Vec<End> {
    sleep(Duration::from_secs(1));
    (0..3).map(|_| accept(server)).collect()
}

/// A server closes first, goes, and comes back at once.
pub(super) fn restart() -> TcpListener {
    // No port of those that clients are given.
    let server = TcpListener::bind("127.0.0.1:8080").expect("listen");
    let at = address(&server);
    let (client, mut served) = ports::connect(&server).expect("a connection");
    served.close();
    client.receive_end();
    drop((client, server));
    TcpListener::bind(at).expect("SO_REUSEADDR on both")
}
