//! Connections that the kernel gives up.

use std::time::Duration;

use serde_json::json;
use socket2::{SockRef, TcpKeepalive};
use tcptrace_tests::{End, Namespace, pair};

const SECOND: Duration = Duration::from_secs(1);

/// From now on, drops all packets from the client.
fn cut_off(net: &Namespace, client: &End) {
    net.drop_arriving(&format!("tcp sport {}", client.local.port()));
}

#[test]
fn retransmissions_go_unanswered() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_retries2", "2");
    let (client, mut server) = pair();
    cut_off(&net, &client);
    client.send(100);

    let told = net.life(&client);
    told.went("CLOSED").ended("timeout", "retransmit_timeout").ours_by("connect");
    told.held("ESTABLISHED", SECOND..10 * SECOND).has(json!({"time_wait_end": null}));
    assert!(told.connection["retransmits"].as_u64().expect("a count") >= 2, "{told}");
    assert!(told.connection["bytes_sent"].as_u64().expect("a count") >= 300, "with retransmissions: {told}");
    server.reset();
    net.life(&server).went("CLOSED").ended("reset_local", "reset_linger0");
}

#[test]
fn user_timeout() {
    let net = Namespace::enter();
    let (client, mut server) = pair();
    SockRef::from(&*client).set_tcp_user_timeout(Some(SECOND / 2)).expect("set TCP_USER_TIMEOUT");
    cut_off(&net, &client);
    client.send(100);

    let told = net.life(&client);
    told.went("CLOSED").ended("timeout", "user_timeout").ours_by("connect").held("ESTABLISHED", SECOND / 2..5 * SECOND);
    server.reset();
}

#[test]
fn keepalive_goes_unanswered() {
    let net = Namespace::enter();
    let (client, mut server) = pair();
    let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(2);
    SockRef::from(&*client).set_tcp_keepalive(&keepalive).expect("set SO_KEEPALIVE");
    cut_off(&net, &client);

    let told = net.life(&client);
    told.went("CLOSED").ended("timeout", "keepalive_timeout").ours_by("connect");
    told.held("ESTABLISHED", 2 * SECOND..10 * SECOND);
    server.reset();
}

/// The peer answers, but has no room for our data.
#[test]
fn peer_reads_nothing() {
    let net = Namespace::enter();
    let (client, mut server) = pair();
    SockRef::from(&*client).set_tcp_user_timeout(Some(SECOND)).expect("set TCP_USER_TIMEOUT");
    client.set_nonblocking(true).expect("make it non-blocking");
    let block = vec![0; 1 << 20];
    while std::io::Write::write(&mut &*client, &block).is_ok() {}

    net.life(&client).went("CLOSED").ended("timeout", "user_timeout").ours_by("connect");
    server.reset();
}

/// The passive closer's FIN is never acknowledged.
#[test]
fn last_ack_goes_unanswered() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_orphan_retries", "1");
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    net.drop_arriving(&format!("tcp sport {}", server.local.port()));
    server.close();

    let told = net.life(&server);
    told.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "retransmit_timeout").ours_by("accept");
    net.heal();
    client.reset();
}
