//! Ends of TIME_WAIT other than by its timer.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::attempt::skip;
use tcptrace_tests::faults::{RST, inject};
use tcptrace_tests::object::write_without;
use tcptrace_tests::program;
use tcptrace_tests::sockets::{accept, address, bound_to, connect, listen, socket};
use tcptrace_tests::{End, Life, Namespace, Tracer, pair};

const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_millis(300);
/// Well before its timer: on a busy machine, a test learns late of the TIME_WAIT that it should end.
const CUT_SHORT: Duration = Duration::from_secs(50);
const ACTIVE: &str = "FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED";

/// One end closes, then the other; returns when the first is in TIME_WAIT.
fn close(net: &Namespace, first: &mut End, second: &mut End) {
    first.finish_sending();
    second.receive_end();
    second.close();
    first.receive_end();
    net.transition(first, "FIN_WAIT2", "TIME_WAIT");
    first.close();
}

fn assert_cut_short(life: &Life, how: &str, length: std::ops::Range<Duration>) {
    life.went(ACTIVE).ended("active", "fin").has(json!({"time_wait_end": how})).held("TIME_WAIT", length);
}

/// `connect` takes over the port of a TIME_WAIT: allowed after a second, if no other port is free.
#[test]
fn port_taken_over_by_connect() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.sysctl("ipv4/ip_local_port_range", "50000 50000");
    let (mut client, mut server) = connect(&listener);
    close(&net, &mut client, &mut server);
    let mut again = take_over(&listener);
    accept(&listener).reset();
    again.receive_reset();
    again.close();

    assert_eq!(net.counter("TcpExt", "TWRecycled"), 1);
    let told = net.lives(&client, 2);
    // In ms since 6.14; before, it must be another second of the clock (tcp_twsk_unique, net/ipv4/tcp_ipv4.c).
    let wait = if Path::new("/proc/sys/net/ipv4/tcp_tw_reuse_delay").exists() { SECOND } else { Duration::ZERO };
    assert_cut_short(&told[0], "reused", wait..CUT_SHORT);
    told[0].ours_by("connect");
    told[1].went("CLOSED").ended("reset_remote", "reset_received").ours_by("connect");
    assert_ne!(told[0].connection["conn"], told[1].connection["conn"]);
}

fn take_over(listener: &TcpListener) -> End {
    loop {
        let socket = socket();
        match socket.connect(&address(listener).into()) {
            Ok(()) => return socket.into(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrNotAvailable),
        }
        sleep(HOLD);
    }
}

/// A socket bound to the port may take over the TIME_WAIT at any age.
#[test]
fn port_taken_over_by_a_bound_socket() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let socket = bound_to(([127, 0, 0, 1], 0).into());
    socket.connect(&address(&listener).into()).expect("connect");
    let (mut client, mut server) = (End::from(socket), accept(&listener));
    close(&net, &mut client, &mut server);
    sleep(HOLD);
    let socket = bound_to(client.local);
    socket.connect(&address(&listener).into()).expect("connect from the same port");
    let mut again = End::from(socket);
    again.reset();

    assert_eq!(net.counter("TcpExt", "TWRecycled"), 1);
    let told = net.lives(&client, 2);
    assert_cut_short(&told[0], "reused", HOLD..CUT_SHORT);
    told[1].went("CLOSED").ended("reset_local", "reset_linger0").ours_by("connect");
}

/// The TIME_WAIT is the server's, and the client connects again from the same port.
#[test]
fn ended_by_a_new_syn() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let (mut client, mut server) = connect(&listener);
    close(&net, &mut server, &mut client);
    sleep(HOLD);
    let socket = bound_to(client.local);
    socket.connect(&address(&listener).into()).expect("connect from the same port");
    let mut again = accept(&listener);
    again.reset();

    let told = net.lives(&server, 2);
    assert_cut_short(&told[0], "new_syn", HOLD..CUT_SHORT);
    told[1].went("CLOSED").ended("reset_local", "reset_linger0").ours_by("accept");
    assert_ne!(told[0].connection["conn"], told[1].connection["conn"]);
}

#[test]
fn ended_by_a_reset() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let at_client = client.sequence();
    close(&net, &mut client, &mut server);
    sleep(HOLD);
    let after_the_fin = at_client.expects.wrapping_add(1);
    inject(server.local, client.local, after_the_fin, 0, RST);

    assert_cut_short(&net.life(&client), "reset", HOLD..CUT_SHORT);
}

#[test]
fn killed_by_an_administrator() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    close(&net, &mut client, &mut server);
    sleep(HOLD);
    net.run("ss", &["-K", "-tn", "state", "time-wait", "sport", "=", &format!(":{}", client.local.port())]);

    let told = net.life(&client);
    assert_cut_short(&told, "killed", HOLD..CUT_SHORT);
    told.ours_by("connect");
}

#[test]
fn ended_with_its_namespace() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    close(&net, &mut client, &mut server);
    sleep(HOLD);
    net.leave();

    assert_cut_short(&net.life(&client), "netns_gone", HOLD..30 * SECOND);
}

/// `tcp_max_tw_buckets` is reached: the socket closes without a TIME_WAIT.
#[test]
fn refused_for_want_of_buckets() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_max_tw_buckets", "0");
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    client.close();

    assert_eq!(net.counter("TcpExt", "TCPTimeWaitOverflow"), 1);
    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 CLOSED").ended("active", "fin").ours_by("connect");
    told.has(json!({"time_wait_ns": null, "time_wait_end": "refused"}));
    net.life(&server).has(json!({"closer": "passive"}));
}

/// A retransmission of the peer restarts the timer, so that a TIME_WAIT can last longer than a minute.
#[test]
fn restarted_by_a_retransmitted_fin() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    // The client's last acknowledgement is lost, so that the server sends its FIN again.
    net.drop_arriving(&format!("tcp sport {}", client.local.port()));
    server.close();
    client.receive_end();
    client.close();
    net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    sleep(3 * SECOND);
    net.heal();

    let (server, client) = (net.life(&server), net.life(&client));
    server.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours_by("accept");
    client.went(ACTIVE).ended("active", "fin").ours_by("connect").has(json!({"time_wait_end": "expired"}));
    let time = |row: &Value| Duration::from_nanos(row["boot_ns"].as_u64().expect("a time"));
    let restarted_after = time(server.last()) - time(client.leaving("FIN_WAIT2"));
    assert!(restarted_after > 3 * SECOND, "{server}");
    client.held("TIME_WAIT", restarted_after + 59 * SECOND..restarted_after + 65 * SECOND);
}

/// Where the kernel's own functions show mini-sockets, they show what the tracepoints of timers show.
#[test]
fn whatever_shows_mini_sockets_shows_the_same() {
    let features = program::run(&["check", "--format", "json"]).rows();
    let killed = features.iter().find(|row| row["feature"] == "time_wait_killed").expect("a feature");
    if !killed["detail"].as_str().is_some_and(|detail| detail.starts_with("fentry/")) {
        skip("this kernel cannot attach to the functions");
    }
    let net = Namespace::enter();
    let object = std::env::temp_dir().join(format!("tcptrace-minis-{}.o", std::process::id()));
    write_without("mini_killed", &object);
    let args = ["watch", "--format", "json"];
    let by_timers = [&args[..], &["--object", object.to_str().expect("a path in UTF-8")]].concat();
    let tracers = [Tracer::start_in(&net, &args), Tracer::start_in(&net, &by_timers)];
    std::fs::remove_file(&object).expect("remove the object");

    let after_its_fin = |client: &End| client.sequence().expects.wrapping_add(1);
    let (mut reset, mut its_peer) = pair();
    let next = after_its_fin(&reset);
    close(&net, &mut reset, &mut its_peer);
    inject(its_peer.local, reset.local, next, 0, RST);
    let (mut killed, mut its_peer) = pair();
    close(&net, &mut killed, &mut its_peer);
    net.run("ss", &["-K", "-tn", "state", "time-wait", "sport", "=", &format!(":{}", killed.local.port())]);
    let listener = listen("127.0.0.1");
    let (mut renewed, mut its_peer) = connect(&listener);
    close(&net, &mut its_peer, &mut renewed);
    let renewed = its_peer;
    let again = bound_to(renewed.remote);
    again.connect(&address(&listener).into()).expect("connect from the same port");
    let (mut orphan, mut its_peer) = pair();
    orphan.close();
    its_peer.receive_end();
    net.transition(&orphan, "FIN_WAIT1", "FIN_WAIT2");
    its_peer.close();
    net.transition(&its_peer, "LAST_ACK", "CLOSED");
    net.run("ss", &["-K", "-tn", "state", "time-wait", "sport", "=", &format!(":{}", orphan.local.port())]);

    for (end, how) in [(&reset, "reset"), (&killed, "killed"), (&renewed, "new_syn"), (&orphan, "killed")] {
        let told = tracers.each_ref().map(|tracer| {
            let is_over = |row: &Value| row["old"] == "TIME_WAIT" && row["new"] == "CLOSED";
            tracer.row(&net, "the end of a TIME_WAIT", |row| net.is_about(row, end) && is_over(row))
        });
        for field in ["old", "new", "side", "end", "closer", "time_wait_end", "reason", "pid", "orphan"] {
            assert_eq!(told[0][field], told[1][field], "{field} in {} and {}", told[0], told[1]);
        }
        assert!(told[0].to_string().contains(how), "{how}: {}", told[0]);
    }
}
