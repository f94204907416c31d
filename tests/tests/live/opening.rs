//! How connections begin or fail to.

mod alone;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tcptrace_tests::process::close;
use tcptrace_tests::sockets::{address, bound_to, connect, disconnect, listen, socket, start_connecting};
use tcptrace_tests::{End, Namespace, Tracer};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn refused() {
    let net = Namespace::enter();
    let nobody = address(&listen("127.0.0.1"));
    let socket = bound_to(SocketAddr::new(nobody.ip(), 0));
    let local = socket.local_addr().expect("a bound socket").as_socket().expect("an address");
    socket.connect(&nobody.into()).expect_err("nobody listens");

    let told = net.life(&End::named(local, nobody));
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "refused").ours_by("connect");
    told.has(json!({"side": "client", "established_ns": null, "time_wait_ns": null, "time_wait_end": null}));
}

#[test]
fn nobody_answers() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_syn_retries", "1");
    let listener = listen("127.0.0.1");
    net.drop_arriving("tcp flags syn");
    let (_connecting, client) = start_connecting(address(&listener));

    let told = net.life(&client);
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "connect_timeout").ours_by("connect");
    told.held("SYN_SENT", SECOND..20 * SECOND);
}

#[test]
fn network_unreachable() {
    let net = Namespace::enter();
    net.treat_arriving("tcp flags syn", "reject with icmp type host-unreachable");
    let (_connecting, client) = start_connecting(address(&listen("127.0.0.1")));

    let told = net.life(&client);
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "unreachable").ours_by("connect");
}

#[test]
fn no_local_port_is_left() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.sysctl("ipv4/ip_local_port_range", "50000 50000");
    let (_only, _server) = connect(&listener);
    let error = socket().connect(&address(&listener).into()).expect_err("the only port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);

    let told = net.life(&End::named(SocketAddr::from(([127, 0, 0, 1], 0)), address(&listener)));
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "no_local_port").ours_by("connect");
}

#[test]
fn closed_while_connecting() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.drop_arriving("tcp flags syn");
    let (connecting, client) = start_connecting(address(&listener));
    net.transition_to(client.remote, "CLOSED", "SYN_SENT");
    close(connecting);

    let told = net.life(&client);
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "closed_while_connecting").ours_by("connect");
}

/// A program that gives up a connect need not close the socket: the kernel drops the connection.
#[test]
fn given_up_while_connecting() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.drop_arriving("tcp flags syn");
    let give_up: [fn(&std::net::TcpStream); 2] = [|socket| drop(socket.shutdown(std::net::Shutdown::Both)), disconnect];
    for give_up in give_up {
        let (connecting, client) = start_connecting(address(&listener));
        let connecting = connecting.into();
        give_up(&connecting);
        let told = net.life(&client);
        told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "closed_while_connecting");
        told.ours_by("connect").has(json!({"close_pid": std::process::id()}));
        close(connecting);
    }
}

/// The port is chosen, but in use with this peer.
#[test]
fn no_free_port_for_a_bound_socket() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let local = SocketAddr::from(([127, 0, 0, 1], 50_000));
    let [first, second] = [bound_to(local), bound_to(local)];
    first.connect(&address(&listener).into()).expect("connect");
    let error = second.connect(&address(&listener).into()).expect_err("the same two ends");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);

    let told = net.life(&End::named(local, address(&listener)));
    told.went_all("CLOSED SYN_SENT CLOSED").ended("never_established", "no_local_port").ours_by("connect");
}

/// The SYN is lost once: its retransmission establishes the connection.
#[test]
fn answered_late() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    net.drop_arriving("tcp flags syn");
    let (connecting, client) = start_connecting(address(&listener));
    net.transition_to(client.remote, "CLOSED", "SYN_SENT");
    net.heal();
    let mut server = tcptrace_tests::sockets::accept(&listener);
    server.reset();
    close(connecting);

    let told = net.life(&client);
    // On a busy machine, several are lost before the rule is removed.
    told.went("CLOSED").ended("reset_remote", "reset_received").held("SYN_SENT", SECOND * 9 / 10..130 * SECOND);
    assert!(told.connection["retransmits"].as_u64().expect("a count") >= 1, "{told}");
}

/// The SYN carries data, and the server accepts before the handshake is done.
#[test]
fn fast_open() {
    let net = Namespace::enter();
    // Allows Fast Open for clients and servers, without cookies, on all listeners.
    net.sysctl("ipv4/tcp_fastopen", "1543");
    let listener = listen("127.0.0.1");
    let socket = socket();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpFastOpenConnect, &true).expect("fast open");
    socket.connect(&address(&listener).into()).expect("connect");
    socket.send(b"early").expect("send the SYN with data");
    let mut server = tcptrace_tests::sockets::accept(&listener);
    let mut client = End::from(socket);
    server.receive(5);
    client.close();
    server.receive_end();
    server.close();

    assert_eq!(net.counter("TcpExt", "TCPFastOpenPassive"), 1, "the SYN carried the data");
    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect");
    told.has(json!({"bytes_sent": 5})).expired();
    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").has(json!({"bytes_received": 5}));
}

/// A socket that connects to itself: both SYNs are the same packet.
#[test]
fn connected_to_itself() {
    let net = Namespace::enter();
    let socket = bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
    let local = socket.local_addr().expect("a bound socket");
    socket.connect(&local).expect("connect to itself");
    let mut end = End::from(socket);
    end.close();

    let told = net.life(&end);
    told.went_all("CLOSED SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT CLOSED");
    told.ended("simultaneous", "fin").ours_by("connect").expired();
}

#[test]
fn listener() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let end = End::named(address(&listener), SocketAddr::from(([0, 0, 0, 0], 0)));
    let opened = net.transition(&end, "CLOSED", "LISTEN");
    close(listener);
    let closed = net.transition(&end, "LISTEN", "CLOSED");

    for row in [&opened, &closed] {
        assert_eq!([&row["pid"], &row["owner_source"]], [&json!(std::process::id()), &json!("listen")], "{row}");
        assert_eq!(row["conn"], opened["conn"]);
    }
    let passed = closed["boot_ns"].as_u64().expect("a time") - opened["boot_ns"].as_u64().expect("a time");
    assert_eq!([&closed["held_ns"], &closed["held_at_least"]], [&json!(passed), &json!(false)]);

    // A listener is no connection: wait for the next connection to be reported, without a row for the listener.
    let (mut client, _server) = connect(&listen("127.0.0.1"));
    client.reset();
    net.life(&client);
    let rows = Tracer::connections().rows_now(&net);
    assert!(rows.iter().all(|row| row["conn"] != opened["conn"]), "{rows:?}");
}
