//! IPv6, IPv4-mapped IPv6, and multipath TCP.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tcptrace_tests::sockets::{address, connect, listen};
use tcptrace_tests::{End, Namespace, TimeWaitClock};

#[test]
fn ipv6() {
    let net = Namespace::enter();
    let (mut client, mut server) = connect(&listen("::1"));
    let clock = TimeWaitClock::start(&net);
    client.close();
    server.receive_end();
    server.close();

    assert!(client.local.to_string().starts_with("[::1]:"));
    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect").waited_out(clock);
    told.has(json!({"family": "ipv6"}));
    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").has(json!({"family": "ipv6"}));
}

/// A server that listens on `::` accepts IPv4 connections, too: they are shown as IPv4.
#[test]
fn ipv4_mapped() {
    let net = Namespace::enter();
    let listener = TcpListener::bind("[::]:0").expect("listen");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, address(&listener).port()));
    let mut client = End::from(std::net::TcpStream::connect(to).expect("connect"));
    let mut server = tcptrace_tests::sockets::accept(&listener);
    assert!(server.local_addr().expect("an address").is_ipv6());
    server.close();
    client.receive_end();
    client.close();

    assert_eq!(server.local, to);
    let told = net.life(&server);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("accept").expired();
    told.has(json!({"family": "ipv4", "local": to.to_string()}));
}

/// A multipath connection consists of its TCP subflows, and each is reported once.
#[test]
fn multipath() {
    let net = Namespace::enter();
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("an MPTCP socket");
    let [listener, client] = [mptcp(), mptcp()];
    listener.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).expect("bind");
    listener.listen(8).expect("listen");
    client.connect(&listener.local_addr().expect("an address")).expect("connect");
    let mut server = tcptrace_tests::sockets::accept(&TcpListener::from(listener));
    let mut client = End::from(client);
    client.send(100);
    server.receive(100);
    client.close();
    server.receive_end();
    server.close();

    assert_eq!(net.counter("MPTcpExt", "MPCapableSYNRX"), 1, "multipath was agreed on");
    for end in [&client, &server] {
        let told = net.foreign_life(end);
        assert!(told.path().contains(" ESTABLISHED "), "{told}");
        told.has(json!({"protocol": "tcp", "end": "fin"}));
    }
    let [_, connections] = net.told();
    assert_eq!(connections.len(), 2, "one row for each end: {connections:#?}");
}
