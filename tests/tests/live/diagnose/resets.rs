//! Connections that end with a reset.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tcptrace_tests::Namespace;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{address, connect, listen};

use super::pools::ask;
use super::{Both, assert_found, assert_is, figure, findings, look, rows};

const MANY: u64 = 12;

/// Clients end with SO_LINGER 0, and servers close with a request unread.
#[test]
fn closes_that_destroy_data() {
    binary();
    let net = Namespace::enter_unwatched();
    let [lingering, deaf] = [listen("127.0.0.1"), listen("127.0.0.1")];
    let both = Both::look(&net, &["--only", "linger-zero,unread-at-close"]);
    for _ in 0..MANY {
        let (mut client, mut server) = connect(&lingering);
        client.send(10);
        server.receive(10);
        client.reset();
        server.receive_reset();
        server.close();
        let (client, mut server) = connect(&deaf);
        client.send(10);
        server.leave_unread();
        server.close();
        client.receive_reset();
    }
    for rows in both.rows(4) {
        let found = findings(&net, &rows);
        assert_eq!(
            found.iter().map(|row| &row["id"]).collect::<Vec<_>>(),
            ["linger-zero", "unread-at-close"],
            "{found:#?}"
        );
        // This process has both kinds of clients, of which one half resets.
        let figures = [("reset_linger0", json!(MANY)), ("with_data", json!(MANY)), ("undelivered", json!(0))];
        assert_is(found[0], ["warning", "certain"], &figures);
        assert_is(found[0], ["warning", "certain"], &[("ended", json!(2 * MANY)), ("reset_share", json!(0.5))]);
        let figures =
            [("reset_unread_data", json!(MANY)), ("bytes_unread", json!(10 * MANY)), ("reset_share", json!(1.0))];
        assert_is(found[1], ["warning", "certain"], &figures);
        assert_eq!(found[1]["subject"]["lport"], address(&deaf).port(), "{found:#?}");
    }
}

/// After a second without a request the server closes, and the request comes.
#[test]
fn a_request_comes_as_the_server_closes() {
    const IDLE: Duration = Duration::from_secs(1);
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    let live = look(&net, &["--only", "idle-close-race"]);
    let mut open: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    let begun = Instant::now();
    open.iter().for_each(|ends| ask(ends, 1));
    sleep(IDLE);
    for (client, served) in &mut open {
        served.close();
        client.send(10);
        client.receive_reset();
    }
    let longest = begun.elapsed().as_secs_f64() + 0.1;
    let rows = rows(&live.interrupt(), 4);
    let figures = [("raced", json!(4)), ("share", json!(1.0)), ("closed_well", json!(0))];
    let found = assert_found(&net, &rows, "idle-close-race", ["critical", "likely"], &figures);
    let quiet = figure(found, "quiet_ns") / 1e9;
    assert!((0.95..longest).contains(&quiet), "closed after {quiet}s: {found:#}");
    assert_eq!(
        [&found["subject"]["lport"], &found["subject"]["side"]],
        [&json!(address(&server).port()), &json!("server")]
    );
}

/// Something between both ends answers what clients send after a second with a reset. A server that resets its connections
/// itself is another rule's.
#[test]
fn neither_end_has_sent_the_reset() {
    const IDLE: Duration = Duration::from_millis(1_100);
    binary();
    let net = Namespace::enter_unwatched();
    let [rejected, resetting] = [listen("127.0.0.1"), listen("127.0.0.1")];
    let both = Both::look(&net, &["--only", "reset-by-peer"]);
    let open: Vec<_> = (0..MANY).map(|_| connect(&rejected)).collect();
    let begun = Instant::now();
    open.iter().for_each(|ends| ask(ends, 1));
    for _ in 0..MANY {
        let (client, mut server) = connect(&resetting);
        server.reset();
        client.receive_reset();
    }
    sleep(IDLE);
    net.treat_arriving(&format!("tcp dport {}", address(&rejected).port()), "reject with tcp reset");
    for (client, _) in &open {
        client.send(10);
        client.receive_reset();
    }
    // On a slow machine, it takes a while beside the second.
    let longest = begun.elapsed().as_secs_f64() + 0.1;
    for rows in both.rows(4) {
        let figures = [("reset", json!(MANY)), ("ended", json!(MANY)), ("sent_here", json!(0))];
        let found = assert_found(&net, &rows, "reset-by-peer", ["critical", "certain"], &figures);
        assert_is(found, ["critical", "certain"], &[("sent_by_nobody", json!(MANY)), ("with_data", json!(MANY))]);
        let quiet = figure(found, "quiet_p50_ns") / 1e9;
        assert!((1.0..longest).contains(&quiet), "{quiet}s: {found:#}");
        let headline = found["headline"].as_str().expect("a headline");
        assert!(headline.starts_with("something between "), "{headline}");
        assert_eq!(found["subject"]["remote"], address(&rejected).to_string(), "{found:#}");
    }
}
