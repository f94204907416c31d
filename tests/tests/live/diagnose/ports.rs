//! Local ports that are taken, and what takes them.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use serde_json::{Value, json};
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{accept, address, listen, socket};
use tcptrace_tests::{End, Namespace};

use super::{Both, assert_found, assert_is, assert_one_cause, figure, findings, look, loses, rows};
use crate::ports::{close, connect, exhaust, hundred};

/// The number of connections that find no port any more.
const IN_VAIN: u64 = 20;

/// Short connections until no port is left, and in vain: one cause.
#[test]
fn without_a_pool_all_ports_are_taken() {
    let (net, server, _) = hundred();
    let both = Both::look(&net, &["--only", "no-connection-pool,pool-too-small,ports-exhausted,ports-running-out"]);
    (0..100).for_each(|_| close(connect(&server).expect("a port")));
    for _ in 0..IN_VAIN {
        assert_eq!(connect(&server).expect_err("no port").kind(), ErrorKind::AddrNotAvailable);
    }
    for rows in both.rows(4) {
        let effects = ["ports-exhausted", "ports-running-out"];
        let [pool, exhausted, full] = assert_one_cause(&net, &rows, "no-connection-pool", &effects)[..] else {
            panic!("three findings");
        };
        let taken = [("taken", json!(100)), ("usable", json!(100))];
        assert_is(pool, ["critical", "likely"], &taken);
        assert_is(pool, ["critical", "likely"], &[("short", json!(100)), ("long", json!(0)), ("pool", json!(1))]);
        assert_is(pool, ["critical", "likely"], &[("active_share", json!(1.0)), ("passive_share", json!(0.0))]);
        assert_eq!([&pool["subject"]["remote"], &pool["subject"]["side"]], ["127.0.0.1:7000", "client"], "{pool:#}");
        assert_eq!(pool["subject"]["pid"], std::process::id(), "{pool:#}");
        assert_is(exhausted, ["critical", "certain"], &taken);
        assert_is(exhausted, ["critical", "certain"], &[("failed", json!(IN_VAIN)), ("time_wait", json!(100))]);
        assert_is(full, ["critical", "certain"], &taken);
        assert_is(full, ["critical", "certain"], &[("taken_share", json!(1.0)), ("open", json!(0))]);
    }
}

/// Ten connections a second take 100 ports in ten seconds: after three, seven are left.
#[test]
fn when_the_last_port_is_taken_is_foretold() {
    const PERIOD: Duration = Duration::from_millis(100);
    let (net, server, _) = hundred();
    let live = look(&net, &["--only", "ports-running-out"]);
    let began = Instant::now();
    for turn in 0..30 {
        close(connect(&server).expect("a port"));
        sleep((PERIOD * (turn + 1)).saturating_sub(began.elapsed()));
    }
    let rows = rows(&live.interrupt(), 4);
    let taken = [("usable", json!(100)), ("taken", json!(30)), ("time_wait", json!(30)), ("samples", json!(30))];
    let found = assert_found(&net, &rows, "ports-running-out", ["critical", "likely"], &taken);
    // The window begins before the first connection.
    let rate = figure(found, "rate");
    assert!((1.7..10.5).contains(&rate), "{found:#}");
    assert!((figure(found, "demand") - rate * 61.0).abs() < 2.0, "{found:#}");
    let left = found["seconds_left"].as_f64().expect("a forecast");
    assert!((left - 70.0 / rate).abs() < 1.0, "{left}s: {found:#}");
    assert!(found["figures"]["levels_off_share"].is_null(), "{found:#}");
}

/// From the half on, connect() looks at all of the taken half first.
#[test]
fn half_of_the_ports_are_taken() {
    let (net, server, _) = hundred();
    let live = look(&net, &["--only", "ports-running-out,ports-exhausted"]);
    let _open: Vec<_> = (0..50).map(|_| connect(&server).expect("a port")).collect();
    let rows = rows(&live.interrupt(), 4);
    let taken = [("taken", json!(50)), ("open", json!(50)), ("time_wait", json!(0)), ("taken_share", json!(0.5))];
    assert_found(&net, &rows, "ports-running-out", ["warning", "certain"], &taken);
}

/// Connects from a port that bind() has chosen, or that connect() will choose.
pub(super) fn connect_bound(to: &TcpListener, no_port: bool) -> io::Result<(End, End)> {
    let client = socket();
    setsockopt(&client, IpBindAddressNoPort, &no_port)?;
    client.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    client.connect(&address(to).into())?;
    Ok((client.into(), accept(to)))
}

/// Each of two servers could have 100 connections, and both together have them.
#[test]
fn ports_that_are_bound_are_for_all_destinations() {
    let (net, one, other) = hundred();
    let both = Both::look(&net, &["--only", "bind-before-connect"]);
    let mut open = Vec::new();
    let error = loop {
        match connect_bound(if open.len() % 2 == 0 { &one } else { &other }, false) {
            Ok(ends) => open.push(ends),
            Err(error) => break error,
        }
    };
    assert_eq!((open.len(), error.raw_os_error()), (100, Some(libc::EADDRINUSE)), "{error}");
    for rows in both.rows(4) {
        let figures =
            [("bound", json!(100)), ("destinations", json!(2)), ("sockets", json!(100)), ("usable", json!(100))];
        let found = assert_found(&net, &rows, "bind-before-connect", ["critical", "certain"], &figures);
        assert_is(found, ["critical", "certain"], &[("refused", json!(1)), ("lacks_no_port", json!(true))]);
        assert_eq!([&found["subject"]["local"], &found["subject"]["side"]], ["127.0.0.1:0", "client"], "{found:#}");
    }
}

#[test]
fn closes_are_without_a_time_wait() {
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_max_tw_buckets", "10");
    let server = listen("127.0.0.1");
    let both = Both::look(&net, &["--only", "time-wait-refused"]);
    (0..30).for_each(|_| close(connect(&server).expect("a port")));
    for rows in both.rows(4) {
        let figures =
            [("refused", json!(20)), ("time_waits", json!(10)), ("limit", json!(10)), ("used_share", json!(1.0))];
        assert_found(&net, &rows, "time-wait-refused", ["warning", "certain"], &figures);
    }
}

/// `tcp_tw_reuse` needs timestamps. Once more, if events were lost: then nobody knows that none was reused.
#[test]
fn reuse_without_timestamps_does_nothing() {
    let found = (0..5).any(|_| {
        let (net, rows) = reuse_in_vain();
        let is_lossy = loses(&rows);
        if !is_lossy {
            assert_reuse_in_vain(&net, &rows);
        }
        !is_lossy
    });
    assert!(found, "events were lost each time");
}

fn reuse_in_vain() -> (Namespace, Vec<Value>) {
    let (net, server, _) = hundred();
    net.sysctl("ipv4/tcp_tw_reuse", "1");
    net.sysctl("ipv4/tcp_timestamps", "0");
    let live = look(&net, &["--only", "tw-reuse-inert", "--fail-on", "never"]);
    (0..60).for_each(|_| close(connect(&server).expect("a port")));
    // From then on they would be reused.
    sleep(Duration::from_millis(1_100));
    (0..40).for_each(|_| close(connect(&server).expect("a port")));
    assert_eq!(exhaust(&server).len(), 0);
    assert_eq!(net.counter("TcpExt", "TWRecycled"), 0);
    let rows = rows(&live.interrupt(), 0);
    (net, rows)
}

fn assert_reuse_in_vain(net: &Namespace, rows: &[Value]) {
    let figures = [("usable", json!(100)), ("reused", json!(0))];
    let found = assert_found(net, rows, "tw-reuse-inert", ["warning", "certain"], &figures);
    assert!((60.0..=100.0).contains(&figure(found, "time_wait_old")), "{found:#}");
    assert!(figure(found, "opened") >= 100.0, "{found:#}");
    let headline = found["headline"].as_str().expect("a headline");
    assert!(headline.contains("tcp_timestamps"), "{headline}");
}

/// TIME_WAITs of a listening port are nothing to worry about.
#[test]
fn a_server_that_closes_first_has_time_waits() {
    const MANY: u64 = 1_050;
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    let live = look(&net, &["--only", "server-closes-first,ports-running-out"]);
    for _ in 0..MANY {
        let (mut client, mut served) = connect(&server).expect("a port");
        served.close();
        client.receive_end();
        client.close();
    }
    let rows = rows(&live.interrupt(), 0);
    let figures = [("closes", json!(MANY)), ("active_share", json!(1.0))];
    let found = assert_found(&net, &rows, "server-closes-first", ["note", "certain"], &figures);
    assert!(figure(found, "time_waits") >= 1_000.0, "{found:#}");
    let subject = &found["subject"];
    assert_eq!(
        [&subject["lport"], &subject["side"]],
        [&json!(address(&server).port()), &Value::from("server")],
        "{found:#}"
    );
}

/// A server asks for a port that the kernel gives to clients, too; then a client of this host has it, and then it is
/// reserved. Another server takes whatever port it gets.
#[test]
fn a_port_that_clients_may_be_given() {
    binary();
    let net = Namespace::enter_unwatched();
    let port = 40_123;
    let server = TcpListener::bind(("127.0.0.1", port)).expect("no other server in this namespace");
    let _other = listen("127.0.0.1");
    let options = ["--only", "fixed-port-in-range"];
    let free = rows(&look(&net, &options).interrupt(), 0);
    let figures =
        [("in_range", json!(1)), ("asked_for", json!(1)), ("lport", json!(port)), ("used_by_clients", json!(0))];
    let found = assert_found(&net, &free, "fixed-port-in-range", ["note", "certain"], &figures);
    assert_eq!(found["subject"]["lport"], port, "{found:#}");

    let live = look(&net, &options);
    let client = socket();
    client.bind(&SocketAddr::from(([127, 0, 0, 2], port)).into()).expect("the same port of another address");
    client.connect(&address(&server).into()).expect("connect");
    let _served = accept(&server);
    let taken = rows(&live.interrupt(), 4);
    let figures = [("in_range", json!(1)), ("lport", json!(port)), ("used_by_clients", json!(1))];
    assert_found(&net, &taken, "fixed-port-in-range", ["warning", "certain"], &figures);

    net.sysctl("ipv4/ip_local_reserved_ports", &port.to_string());
    let reserved = rows(&look(&net, &options).interrupt(), 0);
    assert_eq!(findings(&net, &reserved), Vec::<&Value>::new());
}

/// Last ACKs get lost, so that the servers repeat their FINs. Those of another server arrive.
#[test]
fn time_waits_begin_anew() {
    const MANY: usize = 25;
    /// After so many retransmissions, which take three seconds, the timer has moved on a step at least.
    const FINS: usize = 4;
    binary();
    let net = Namespace::enter_unwatched();
    let [lossy, whole] = [listen("127.0.0.1"), listen("127.0.0.1")];
    let port = address(&lossy).port();
    let live = look(&net, &["--only", "time-wait-prolonged"]);
    let mut open: Vec<_> =
        [&lossy, &whole].iter().flat_map(|to| (0..MANY).map(|_| connect(to).expect("a port"))).collect();
    net.drop_arriving(&format!("tcp dport {port} tcp flags == ack"));
    for (client, server) in &mut open {
        client.close();
        server.receive_end();
        server.close();
    }
    let began = Instant::now();
    while net.counter("Tcp", "RetransSegs") < (MANY * (FINS + 1)) as u64 {
        assert!(began.elapsed() < Duration::from_secs(30), "no retransmissions");
        sleep(Duration::from_millis(20));
    }
    let rows = rows(&live.interrupt(), 4);
    let figures = [("rearmed", json!(MANY)), ("time_waits", json!(MANY)), ("rearmed_share", json!(1.0))];
    let found = assert_found(&net, &rows, "time-wait-prolonged", ["warning", "likely"], &figures);
    assert_eq!(found["subject"]["remote"], format!("127.0.0.1:{port}"), "{found:#}");
}
