//! Pools of connections.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{address, connect, listen};
use tcptrace_tests::{End, Namespace};

use super::{assert_found, figure, look, rows};
use crate::ports::close;

/// So many requests of ten bytes, each with its answer.
pub(super) fn ask(ends: &(End, End), times: usize) {
    let (client, server) = ends;
    for _ in 0..times {
        client.send(10);
        server.receive(10);
        server.send(10);
        client.receive(10);
    }
}

/// The pool keeps some connections and closes what is given back beyond that, long used or new.
#[test]
fn a_pool_closes_what_it_needs_again() {
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    let _kept: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    let live = look(&net, &["--only", "pool-too-small,no-connection-pool"]);
    let mut old = VecDeque::new();
    for _ in 0..60 {
        let used = connect(&server);
        ask(&used, 20);
        old.push_back(used);
        let new = connect(&server);
        ask(&new, 1);
        close(new);
        if old.len() > 20 {
            close(old.pop_front().expect("an old one"));
        }
    }
    let rows = rows(&live.interrupt(), 4);
    let figures = [("closed_here", json!(100)), ("bytes_sent_p10", json!(10)), ("bytes_sent_p90", json!(200))];
    let found = assert_found(&net, &rows, "pool-too-small", ["warning", "likely"], &figures);
    assert!(figure(found, "reopened_share") > 0.95, "{found:#}");
    assert_eq!([figure(found, "least_open"), figure(found, "most_open")], [3.0, 25.0], "{found:#}");
    assert!(figure(found, "established_p90_ns") >= 5.0 * figure(found, "established_p10_ns"), "{found:#}");
    assert_eq!(found["subject"]["remote"], address(&server).to_string(), "{found:#}");
}

/// Connections of a pool that the server has closed after a second; on another one, a request follows.
#[test]
fn a_pool_keeps_what_the_server_has_closed() {
    const IDLE: Duration = Duration::from_secs(1);
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    let mut pool: Vec<_> = (0..5).map(|_| connect(&server)).collect();
    pool.iter().for_each(|ends| ask(ends, 1));
    sleep(IDLE);
    pool.iter_mut().for_each(|(_, served)| served.close());
    // Younger ones may be on their way out.
    sleep(IDLE);
    let live = look(&net, &["--only", "stale-pool,close-wait-leak"]);
    let (unlucky, mut served) = connect(&server);
    served.close();
    unlucky.send(10);
    unlucky.receive_reset();
    let rows = rows(&live.interrupt(), 4);
    let figures = [("stale", json!(5)), ("reset", json!(1))];
    let found = assert_found(&net, &rows, "stale-pool", ["warning", "likely"], &figures);
    let quiet = figure(found, "quiet_ns") / 1e9;
    assert!((0.9..1.2).contains(&quiet), "the server closes after {quiet}s: {found:#}");
    assert!(figure(found, "oldest_ns") >= 1e9, "{found:#}");
    assert_eq!([&found["subject"]["remote"], &found["subject"]["side"]], [&json!(address(&server)), &json!("client")]);
}
