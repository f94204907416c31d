//! MPTCP sockets: their descriptors do not lead to the TCP sockets that tcptrace traces.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tcptrace_tests::program::run;
use tcptrace_tests::sockets::{accept, address};
use tcptrace_tests::{End, Namespace, Tracer};

/// The way in which every Go program listens.
fn listen() -> TcpListener {
    const IPPROTO_MPTCP: i32 = 262;
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP))).expect("a socket of MPTCP");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind it");
    socket.listen(8).expect("listen");
    socket.into()
}

/// Both ends of an established MPTCP connection.
fn connect(listener: &TcpListener) -> [End; 2] {
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a socket of MPTCP");
    client.connect(&address(listener).into()).expect("connect");
    let (client, server) = (End::from(client), accept(listener));
    client.send(100);
    server.receive(100);
    [client, server]
}

/// Tokens and states of MPTCP connections by their two ends, in the words of `snapshot`.
fn of_ss(net: &Namespace) -> BTreeMap<String, [Value; 2]> {
    let lines = net.run("ss", &["-ManiOH"]);
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let state = match words[0] {
            "ESTAB" => "ESTABLISHED".to_owned(),
            state => state.replace("WAIT-", "WAIT").replace('-', "_"),
        };
        let token = words.iter().find_map(|word| word.strip_prefix("token:"));
        (format!("{} {}", words[3], words[4]), [json!(state), json!(token)])
    };
    lines.lines().map(entry).collect()
}

fn name(end: &End) -> String {
    format!("{} {}", end.local, end.remote)
}

/// A server's process leaves its MPTCP connection in CLOSE_WAIT, while all its TCP sockets are established.
#[test]
fn its_own_state_is_told_with_its_subflows() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--report-stuck", "300ms"]);
    let listener = listen();
    let [mut client, server] = connect(&listener);
    let plain = End::from(TcpStream::connect(address(&listener)).expect("connect"));
    client.close();

    let is_it =
        |row: &Value| net.is_about(row, &server) && row["event"] == "stuck" && row["mptcp_state"] == "CLOSE_WAIT";
    let row = tracer.row(&net, "a subflow of a connection in CLOSE_WAIT", is_it);
    assert_eq!([&row["old"], &row["mptcp_subflow"]], [&json!("ESTABLISHED"), &json!(true)], "{row}");
    assert_eq!([&row["holder_pid"], &row["fd"]], [&json!(std::process::id()), &json!(server.as_raw_fd())], "{row}");
    assert_eq!(row["mptcp_token"], of_ss(&net)[&name(&server)][1], "{row}");

    let snapshot = ["snapshot", "--list", "--format", "json", "--netns", &net.inode().to_string()];
    let rows = run(&snapshot);
    let rows: Vec<Value> = rows.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told = |local: SocketAddr, remote: SocketAddr| {
        let is_it = |row: &&Value| row["local"] == local.to_string() && row["remote"] == remote.to_string();
        let row = rows.iter().find(is_it).expect("every socket is listed");
        [&row["mptcp_subflow"], &row["mptcp_state"], &row["mptcp_token"]]
    };
    let expected = of_ss(&net);
    assert_eq!(told(plain.local, plain.remote), [&json!(false), &Value::Null, &Value::Null]);
    for end in [&client, &server] {
        let [state, token] = &expected[&name(end)];
        assert_eq!(told(end.local, end.remote), [&json!(true), state, token], "{expected:?}");
    }
    assert_eq!(expected[&name(&client)][0], "FIN_WAIT2", "its data is still unread");
}

/// A regression test: listeners had no owner, because a walk through descriptors finds MPTCP's socket and not its TCP
/// socket.
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
