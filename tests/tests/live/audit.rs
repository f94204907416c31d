//! `--audit`: tcptrace saw everything that the kernel counted, to the last event.

mod minis;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tcptrace_tests::process::close;
use tcptrace_tests::program::{Finished, run};
use tcptrace_tests::sockets::{
    accept, address, bound_to, connect, disconnect, listen, listen_with, socket, start_connecting,
};
use tcptrace_tests::tracer::PATIENCE;
use tcptrace_tests::{End, Namespace, Tracer};

/// Runs an audit of a test's traffic, and returns the counters that were not 0, with their values. The events seen must
/// equal the kernel's counts in one of several tries: an interrupt may hit a running program, and kernels of sandboxes
/// may run none while process 1 is on the CPU. tcptrace reports both.
fn audited(net: &Namespace, traffic: impl Fn()) -> BTreeMap<String, u64> {
    const TRIES: usize = 4;
    let mut finished = audit(net, &traffic);
    for _ in 1..TRIES {
        if finished.code() == 0 {
            break;
        }
        let is_rare = |cause| finished.stderr.contains(cause);
        assert!(is_rare("unaccounted for") || is_rare("running already"), "{}", finished.stderr);
        finished = audit(net, &traffic);
    }
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let rows = finished.rows();
    let (verdict, rows) = rows.split_last().expect("a verdict");
    let fields = ["event", "namespaces", "gone", "lost", "unexplained"].map(|field| verdict[field].clone());
    assert_eq!(fields, ["audited", "1", "0", "0", "0"].map(word), "{}", finished.stderr);
    let counted = rows.iter().filter(|row| row["event"] == "audit").map(|row| {
        assert_eq!((&row["difference"], &row["within"]), (&0.into(), &0.into()), "{row}");
        assert_eq!((&row["netns"], &row["seen"]), (&net.inode().into(), &row["expected"]), "{row}");
        (row["counter"].as_str().expect("a name").to_owned(), row["expected"].as_u64().expect("a number"))
    });
    let counted = counted.collect();
    assert!(finished.stderr.contains("audit: 1 network namespaces compared, 0 gone"), "{}", finished.stderr);
    counted
}

fn audit(net: &Namespace, traffic: impl Fn()) -> Finished {
    let tracer = Tracer::start_in(net, &["connections", "--format", "json", "--no-existing", "--audit"]);
    traffic();
    tracer.interrupt()
}

fn word(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Into::into)
}

fn expected<const N: usize>(counters: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// One end closes, then the other; the first is in TIME_WAIT when the second is gone.
fn close_in_turn(first: &mut End, second: &mut End) {
    first.finish_sending();
    second.receive_end();
    second.close();
    first.receive_end();
    first.close();
}

#[test]
fn thousands_of_connections() {
    let net = Namespace::enter_unwatched();
    let mut counted = audited(&net, || {
        let (v4, v6) = (listen("127.0.0.1"), listen("::1"));
        for _ in 0..2_000 {
            let (mut client, mut server) = connect(&v4);
            close_in_turn(&mut client, &mut server);
            let (mut client, mut server) = connect(&v6);
            close_in_turn(&mut server, &mut client);
        }
    });
    // On a machine so slow that this takes more than a second, a port may repeat.
    counted.remove("TWRecycled");
    assert_eq!(counted, expected([("ActiveOpens", 4_000), ("PassiveOpens", 4_000), ("TW+TWKilled", 4_000)]));
}

#[test]
fn connections_that_do_not_come_about() {
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_syn_retries", "1");
    let counted = audited(&net, || {
        net.sysctl("ipv4/ip_local_port_range", "32768 60999");
        let listener = listen("127.0.0.1");
        let nobody = address(&listen("127.0.0.1"));
        for _ in 0..10 {
            TcpStream::connect(nobody).expect_err("nobody listens");
        }
        net.drop_arriving(&format!("tcp flags syn tcp dport {}", address(&listener).port()));
        // Closed while connecting; dissolved; killed; and one without an answer.
        close(start_connecting(address(&listener)).0);
        let (connecting, _) = start_connecting(address(&listener));
        let (waiting, client) = start_connecting(address(&listener));
        net.run("ss", &["-K", "-tn", "sport", "=", &format!(":{}", client.local.port())]);
        let unanswered = socket().connect(&address(&listener).into());
        unanswered.expect_err("nobody answers");
        close(waiting);
        close(connecting);
        net.heal();
        net.sysctl("ipv4/ip_local_port_range", "50000 50000");
        let (_only, _server) = connect(&listener);
        for _ in 0..10 {
            socket().connect(&address(&listener).into()).expect_err("the only port is taken");
        }
    });
    // Two of them had no answer: the second took that long.
    assert_eq!(counted["ActiveOpens"], 10 + 4 + 1);
    assert!((12..=13).contains(&counted["AttemptFails"]), "{counted:?}");
}

#[test]
fn resets() {
    let net = Namespace::enter_unwatched();
    let counted = audited(&net, || {
        let listener = listen("127.0.0.1");
        for _ in 0..100 {
            let (mut client, server) = connect(&listener);
            client.reset();
            server.receive_reset();
            let (client, mut server) = connect(&listener);
            client.finish_sending();
            server.receive_end();
            server.reset();
            client.receive_reset();
            let (client, server) = connect(&listener);
            disconnect(&client);
            server.receive_reset();
            let (client, mut server) = connect(&listener);
            client.send(1);
            server.leave_unread();
            server.close();
            client.receive_reset();
        }
        let never_accepted = listen_with("127.0.0.1", 10);
        let clients: Vec<End> =
            (0..10).map(|_| TcpStream::connect(address(&never_accepted)).expect("connect").into()).collect();
        drop(never_accepted);
        clients.iter().for_each(End::receive_reset);
    });
    // Both ends each time, except the end that had sent its FIN.
    let expected = expected([("ActiveOpens", 410), ("EstabResets", 100 * 7 + 20), ("PassiveOpens", 410)]);
    assert_eq!(counted, expected);
}

#[test]
fn time_waits() {
    const EACH: u64 = 20;
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_fin_timeout", "1");
    let counted = audited(&net, || {
        net.sysctl("ipv4/tcp_max_tw_buckets", "262144");
        let listener = listen("127.0.0.1");
        for _ in 0..EACH {
            // A socket bound to the same port takes over, and resets.
            let socket = bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
            socket.connect(&address(&listener).into()).expect("connect");
            let (mut client, mut server) = (End::from(socket), accept(&listener));
            close_in_turn(&mut client, &mut server);
            let socket = bound_to(client.local);
            socket.connect(&address(&listener).into()).expect("connect from the same port");
            accept(&listener).reset();
            // An orphan whose peer does not close: a mini-socket for a second.
            let (mut client, server) = connect(&listener);
            client.close();
            server.receive_end();
            // Data for a closed socket: the mini-socket answers with a reset.
            let (mut client, server) = connect(&listener);
            client.close();
            server.receive_end();
            server.send(1);
            server.receive_reset();
        }
        // Both of them, while no TIME_WAIT is allowed.
        net.sysctl("ipv4/tcp_max_tw_buckets", "0");
        for _ in 0..EACH {
            let (mut client, mut server) = connect(&listener);
            close_in_turn(&mut client, &mut server);
            let (mut client, server) = connect(&listener);
            client.close();
            server.receive_end();
        }
    });
    assert_eq!(counted["TWRecycled"], EACH, "{counted:?}");
    assert_eq!(counted["TCPTimeWaitOverflow"], 2 * EACH, "{counted:?}");
    // No mini-socket was made to answer the data if the data came with the acknowledgement of the FIN.
    assert!((2 * EACH..=3 * EACH).contains(&counted["TW+TWKilled"]), "{counted:?}");
}

/// Connections for which the kernel kept no state before they were complete (SYN cookies), and connections with data in
/// the SYN.
#[test]
fn cookies_and_fast_open() {
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_syncookies", "2");
    net.sysctl("ipv4/tcp_fastopen", "1543");
    let counted = audited(&net, || {
        let listener = listen("127.0.0.1");
        for _ in 0..100 {
            let (mut client, mut server) = connect(&listener);
            close_in_turn(&mut client, &mut server);
            let socket = socket();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpFastOpenConnect, &true)
                .expect("fast open");
            socket.connect(&address(&listener).into()).expect("connect");
            socket.send(b"early").expect("send the SYN with data");
            let (mut client, mut server) = (End::from(socket), accept(&listener));
            server.receive(5);
            close_in_turn(&mut client, &mut server);
        }
    });
    assert_eq!(counted, expected([("ActiveOpens", 200), ("PassiveOpens", 200), ("TW+TWKilled", 200)]));
}

/// Requests that are reset before they become sockets are failed attempts without an event.
#[test]
fn requests_that_are_reset() {
    let net = Namespace::enter_unwatched();
    let listener = listen("127.0.0.1");
    let tracer = Tracer::start_in(&net, &["connections", "--format", "json", "--no-existing", "--audit"]);
    net.drop_arriving(&format!("tcp sport {}", address(&listener).port()));
    close(start_connecting(address(&listener)).0);
    net.heal();
    // The answer is retransmitted, and its receiver is gone.
    let begun = Instant::now();
    while net.counter("TcpExt", "EmbryonicRsts") == 0 {
        assert!(begun.elapsed() < PATIENCE, "no request was reset");
        sleep(Duration::from_millis(10));
    }
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let rows = finished.rows();
    let row = rows.iter().find(|row| row["counter"] == "AttemptFails").expect("it is among them");
    assert_eq!(["seen", "expected", "within"].map(|field| row[field].as_u64()), [0, 1, 1].map(Some));
}

/// Sockets from before the trace do not count, whatever happens to them. A recording passes its audit on to every
/// reader.
#[test]
fn recorded() {
    let net = Namespace::enter_unwatched();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let listener = listen("127.0.0.1");
    let (mut client, mut server) = connect(&listener);
    let (mut other, mut stays) = connect(&listener);
    close_in_turn(&mut client, &mut server);
    let tracer = Tracer::start_in(&net, &["record", "--audit", "--output", text(&trace)]);
    other.reset();
    stays.receive_reset();
    stays.close();
    let (mut client, mut server) = connect(&listener);
    close_in_turn(&mut client, &mut server);
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let audit = |stderr: &str| -> Vec<String> {
        stderr.lines().filter(|line| line.contains("audit: ")).map(str::to_owned).collect()
    };
    let lines = audit(&finished.stderr);
    let counts = |name: &str| lines.iter().find(|line| line.contains(name)).map(|line| numbers(line));
    assert_eq!(counts(" ActiveOpens "), Some(vec![1, 1, 0]), "{lines:?}");
    assert_eq!(counts(" EstabResets "), Some(vec![2, 2, 0]), "{lines:?}");

    let replayed = run(&["replay", "--rows", "connections", "--format", "json", text(&trace)]);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr);
    assert_eq!(audit(&replayed.stderr), lines);
    assert!(replayed.rows().last().is_some_and(|row| row["event"] == "audited"));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The columns after the name of the counter.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().skip(4).map_while(|word| word.parse().ok()).collect()
}

#[test]
fn other_filters_make_no_sense() {
    for command in [&["watch"][..], &["connections"], &["record", "--output", "/dev/null/none"]] {
        let finished = run(&[command, &["--audit", "--port", "80", "--netns", "1"]].concat());
        assert_eq!(finished.code(), 2, "{}", finished.stderr);
        assert!(finished.stderr.contains("--netns is the only filter"), "{}", finished.stderr);
    }
}

/// A namespace that is gone has no counters left.
#[test]
fn a_namespace_that_goes() {
    let net = Namespace::enter_unwatched();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--no-existing", "--audit"]);
    let (mut client, server) = connect(&listen("127.0.0.1"));
    client.reset();
    server.receive_reset();
    let closed = |row: &Value| row["new"] == "CLOSED" && row["old"] == "ESTABLISHED";
    tracer.rows(&net, "both ends to close", |rows| (rows.iter().filter(|row| closed(row)).count() == 2).then_some(()));
    drop(server);
    net.leave();
    // Its sockets end first; its name in /proc ends with its last process.
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let rows = finished.rows();
    let verdict = rows.last().expect("a row");
    assert_eq!([&verdict["event"], &verdict["namespaces"]], ["audited", "0"].map(word).each_ref());
    // The kernel gives its number to the next namespace, which may be that of another test.
    let counts = ["gone", "unclear"].map(|name| verdict[name].as_u64());
    assert!([[Some(1), Some(0)], [Some(0), Some(1)]].contains(&counts), "{verdict}");
}
