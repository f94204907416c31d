//! Connections that a reset ends.

use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use tcptrace_tests::process::close;
use tcptrace_tests::sockets::{address, connect, disconnect, listen};
use tcptrace_tests::{End, Namespace, pair};

#[test]
fn close_with_unread_data() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    server.send(321);
    client.leave_unread();
    client.close();
    server.receive_reset();
    server.close();

    let told = net.life(&client);
    told.went("CLOSED").ended("reset_local", "reset_unread_data").ours_by("connect");
    told.has(json!({"bytes_received": 321, "bytes_unread": 321, "time_wait_ns": null, "time_wait_end": null}));
    net.life(&server).went("CLOSED").ended("reset_remote", "reset_received").has(json!({"bytes_sent": 321}));
}

#[test]
fn linger_of_zero() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.send(5);
    server.receive(5);
    client.reset();
    server.receive_reset();
    server.close();

    let told = net.life(&client);
    told.went("CLOSED").ended("reset_local", "reset_linger0").ours_by("connect");
    told.has(json!({"bytes_sent": 5, "time_wait_ns": null, "time_wait_end": null}));
    net.life(&server).went("CLOSED").ended("reset_remote", "reset_received").has(json!({"bytes_received": 5}));
}

/// The client half-closes, waits, and then resets: the server was in CLOSE_WAIT.
#[test]
fn reset_in_close_wait() {
    let net = Namespace::enter();
    let hold = Duration::from_millis(200);
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    net.transition(&client, "FIN_WAIT1", "FIN_WAIT2");
    sleep(hold);
    client.reset();
    net.transition(&server, "CLOSE_WAIT", "CLOSED");
    server.close();

    net.life(&client).went("FIN_WAIT1 FIN_WAIT2 CLOSED").ended("active", "reset_linger0").ours_by("connect");
    net.life(&server).went("CLOSE_WAIT CLOSED").ended("passive", "reset_received").held("CLOSE_WAIT", hold..);
}

/// The process learns of the reset only when it closes, seconds later: the connection ended with the reset.
#[test]
fn reset_while_nobody_looks() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.reset();
    let told = net.life(&server);
    told.went("CLOSED").ended("reset_remote", "reset_received");
    server.close();
    net.life(&client);
}

#[test]
fn reset_of_a_closer_in_close_wait() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    server.reset();
    client.receive_reset();
    client.close();

    net.life(&server).went("CLOSE_WAIT CLOSED").ended("passive", "reset_linger0").ours_by("accept");
    net.life(&client).ended("active", "reset_received").ours_by("connect");
}

#[test]
fn killed_by_an_administrator() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    net.run("ss", &["-K", "-tn", "sport", "=", &format!(":{}", client.local.port())]);
    server.receive_reset();
    client.close();
    server.close();

    net.life(&client).went("CLOSED").ended("killed", "killed").ours_by("connect");
    net.life(&server).went("CLOSED").ended("reset_remote", "reset_received");
}

/// Connections in the accept queue end with their listener.
#[test]
fn listener_closed_before_it_accepts() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let socket = std::net::TcpStream::connect(address(&listener)).expect("connect");
    let mut client = End::from(socket);
    close(listener);
    client.receive_reset();
    client.close();

    let told = net.life(&End::named(client.remote, client.local));
    told.went("CLOSED").ended("reset_local", "never_accepted");
    net.life(&client).went("CLOSED").ended("reset_remote", "reset_received").ours_by("connect");
}

/// `connect(AF_UNSPEC)` resets the connection and keeps the socket, which can then connect anew.
#[test]
fn disconnected_and_connected_again() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let (mut first, mut server) = connect(&listener);
    let socket = first.take();
    disconnect(&socket);
    server.receive_reset();
    server.close();
    net.life(&first).went("CLOSED").ended("reset_local", "disconnected").ours_by("connect");
    net.life(&server).went("CLOSED").ended("reset_remote", "reset_received");

    socket2::SockRef::from(&socket).connect(&address(&listener).into()).expect("connect again");
    let mut second = End::from(socket);
    second.reset();
    let told = net.lives(&second, if second.local == first.local { 2 } else { 1 });
    told.last().expect("a life").went("CLOSED").ended("reset_local", "reset_linger0").ours_by("connect");
}

/// After both FINs, `SO_LINGER` 0 drops the connection and sends nothing.
#[test]
fn linger_of_zero_in_last_ack() {
    let net = Namespace::enter();
    let (client, mut server) = pair();
    net.drop_arriving(&format!("tcp sport {} tcp flags & fin == fin", server.local.port()));
    client.finish_sending();
    server.receive_end();
    server.finish_sending();
    net.transition(&server, "CLOSE_WAIT", "LAST_ACK");
    let before = net.counter("Tcp", "OutRsts");
    server.reset();

    let told = net.life(&server);
    told.went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "disconnected").ours_by("accept");
    assert_eq!(net.counter("Tcp", "OutRsts"), before);
}

/// A checkpoint (`TCP_REPAIR`): the socket is closed without a packet, and its peer does not notice.
#[test]
fn closed_in_repair_mode() {
    let net = Namespace::enter();
    let (mut client, _server) = pair();
    let on: i32 = 1;
    // SAFETY: the option takes an `int`.
    let set = unsafe {
        let value = std::ptr::from_ref(&on).cast();
        nix::libc::setsockopt(client.as_raw_fd(), nix::libc::IPPROTO_TCP, nix::libc::TCP_REPAIR, value, 4)
    };
    assert_eq!(set, 0, "set TCP_REPAIR");
    client.close();

    net.life(&client).went("CLOSED").ended("unknown", "disconnected").ours_by("connect");
    assert_eq!(net.counter("Tcp", "OutRsts"), 0);
}
