//! Sockets of MPTCP, whose descriptors do not lead to the TCP sockets that are traced.

use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tcptrace_tests::sockets::{accept, address};
use tcptrace_tests::{End, Namespace, Tracer};

/// As every Go program listens.
fn listen() -> TcpListener {
    const IPPROTO_MPTCP: i32 = 262;
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP))).expect("a socket of MPTCP");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind it");
    socket.listen(8).expect("listen");
    socket.into()
}

/// Once, nobody was known to listen: a walk through descriptors finds MPTCP's socket, and not its TCP socket.
#[test]
fn a_listener_from_before_has_an_owner() {
    let net = Namespace::enter();
    let listener = listen();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--report-stuck", "100ms"]);
    let client = End::from(TcpStream::connect(address(&listener)).expect("connect"));
    client.finish_sending();
    let server = End::named(client.remote, client.local);
    let is_known =
        |row: &Value| net.is_about(row, &server) && row["event"] == "stuck" && row["listener_pid"] != json!(null);
    let row = tracer.row(&net, "a connection that nobody accepts", is_known);
    assert_eq!([&row["new"], &row["accepted"]], [&json!("CLOSE_WAIT"), &json!(false)], "{row}");
    assert_eq!([&row["listener_pid"], &row["pid"]], [&json!(std::process::id()), &json!(null)], "{row}");
    accept(&listener).close();
}
