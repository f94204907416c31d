//! How long a connection was quiet before it began to end, and which calls failed: what only a diagnosis is made of.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tcptrace_tests::program::run;
use tcptrace_tests::{Namespace, pair};

const HOLD: Duration = Duration::from_millis(300);

/// The kernel counts in ticks, of which no kernel has fewer than a hundred a second; a time begins and ends in one.
const TICKS: Duration = Duration::from_millis(20);

fn assert_quiet(life: &tcptrace_tests::Life, from: Duration, to: Duration) {
    let quiet = life.connection["idle_before_close_ns"].as_u64().map(Duration::from_nanos);
    let quiet = quiet.expect("an idle time");
    assert!((from.saturating_sub(TICKS)..=to + TICKS).contains(&quiet), "{quiet:?} is not {from:?} to {to:?}: {life}");
}

/// Since the last byte, whoever sent it; what comes after the first FIN does not count.
#[test]
fn since_the_last_byte() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.send(5);
    server.receive(5);
    let begun = Instant::now();
    server.send(7);
    client.receive(7);
    sleep(HOLD);
    server.finish_sending();
    client.receive_end();
    let longest = begun.elapsed();
    sleep(HOLD);
    client.send(3);
    client.close();
    server.receive(3);
    server.close();

    for end in [&client, &server] {
        assert_quiet(&net.life(end), HOLD, longest);
    }
}

/// Without a byte, since the handshake; and a reset ends it as well.
#[test]
fn without_a_byte() {
    let net = Namespace::enter();
    let begun = Instant::now();
    let (mut client, mut server) = pair();
    sleep(HOLD);
    client.reset();
    server.receive_reset();
    server.close();
    let longest = begun.elapsed();

    for end in [&client, &server] {
        assert_quiet(&net.life(end), HOLD, longest);
    }
}

/// A kernel on which tcptrace sees who accepts a connection shows which calls fail, too.
#[test]
fn failed_calls_can_be_seen() {
    let _net = Namespace::enter_unwatched();
    let checked = run(&["check", "--format", "json"]);
    let rows =
        checked.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>();
    let is_available = |feature| rows.iter().find(|row| row["feature"] == feature).map(|row| &row["available"]);
    assert!(is_available("accept").is_some(), "{}", checked.text());
    assert_eq!(is_available("failed_calls"), is_available("accept"), "{}", checked.text());
}
