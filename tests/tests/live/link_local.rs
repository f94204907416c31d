//! A link-local address means nothing without its interface.

use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;
use tcptrace_tests::program::run;
use tcptrace_tests::{End, Namespace, Tracer};

/// Both ends of a veth pair.
const NEAR: (&str, Ipv6Addr) = ("near0", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa));
const FAR: (&str, Ipv6Addr) = ("far0", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb));

/// An address as rows print it.
fn zoned((interface, ip): (&str, Ipv6Addr), port: u16) -> String {
    format!("[{ip}%{interface}]:{port}")
}

/// A namespace with that pair, and the index of its near end.
fn namespace() -> (Namespace, u32) {
    let net = Namespace::enter_unwatched();
    net.run("ip", &["link", "add", NEAR.0, "type", "veth", "peer", "name", FAR.0]);
    for (interface, ip) in [NEAR, FAR] {
        net.run("ip", &["link", "set", interface, "addrgenmode", "none", "up"]);
        net.run("ip", &["addr", "add", &format!("{ip}/64"), "dev", interface, "nodad"]);
    }
    let line = net.run("ip", &["-o", "link", "show", NEAR.0]);
    let index = line.split(':').next().and_then(|index| index.parse().ok()).expect("an index");
    (net, index)
}

/// A connection from the near end to the far end, which the client resets.
fn connect_and_reset(index: u32) -> (u16, u16) {
    let listener = TcpListener::bind("[::]:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let mut client = End::from(TcpStream::connect(SocketAddrV6::new(FAR.1, port, 0, index)).expect("connect"));
    let server = tcptrace_tests::sockets::accept(&listener);
    let from = client.local.port();
    client.reset();
    server.receive_reset();
    (from, port)
}

fn of(rows: &[Value], event: &str, side: &str) -> Vec<[String; 2]> {
    let wanted = rows.iter().filter(|row| row["event"] == event && row["side"] == side && row["old"] != "LISTEN");
    wanted.map(|row| ["local", "remote"].map(|end| row[end].as_str().expect("an address").to_owned())).collect()
}

/// The rows of both ends, each with its interface; those of the server's socket from its first row on.
fn assert_zoned(rows: &[Value], (from, port): (u16, u16)) {
    // The last row of a replay is the summary, and has no ends.
    for row in rows.iter().filter(|row| row["remote"].is_string() && row["remote"] != "[::]:0") {
        for end in ["local", "remote"] {
            assert!(row[end].as_str().expect("an address").contains('%'), "{row}");
        }
    }
    let (near, far) = ([zoned(NEAR, from), zoned(FAR_FROM_NEAR, port)], [zoned(FAR, port), zoned(NEAR_FROM_FAR, from)]);
    for event in ["transition", "connection"] {
        for (side, ends) in [("client", &near), ("server", &far)] {
            let shown = of(rows, event, side);
            assert_eq!(shown.last(), Some(ends), "{event} of the {side}: {rows:#?}");
        }
    }
}

/// An address of the other end, with this end's interface.
const FAR_FROM_NEAR: (&str, Ipv6Addr) = (NEAR.0, FAR.1);
const NEAR_FROM_FAR: (&str, Ipv6Addr) = (FAR.0, NEAR.1);

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn live_and_from_a_trace() {
    let (net, index) = namespace();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.tct");
    let file = Path::to_str(&file).expect("UTF-8");
    let tracers = [
        Tracer::start_in(&net, &["watch", "--format", "json"]),
        Tracer::start_in(&net, &["connections", "--format", "json"]),
        Tracer::start_in(&net, &["connections"]),
    ];
    let recorder = Tracer::start_in(&net, &["record", "-o", file]);
    let ports = connect_and_reset(index);
    let ended = |row: &Value| row["side"] == "server" && (row["event"] == "connection" || row["new"] == "CLOSED");
    let closed = |row: &Value| ended(row) && row["local"].as_str().is_some_and(|end| end.contains("fe80"));
    let [watch, connections, text] = &tracers;
    watch.row(&net, "the server's end", closed);
    connections.row(&net, "the server's end", closed);
    assert!(text.text(&zoned(FAR_FROM_NEAR, ports.1)).contains(&zoned(NEAR, ports.0)));
    recorder.interrupt();

    assert_zoned(&[watch.rows_now(&net), connections.rows_now(&net)].concat(), ports);
    let replayed = |options: &[&str]| json(run(&[&["replay", "--format", "json", file], options].concat()).text());
    assert_zoned(&[replayed(&[]), replayed(&["--rows", "connections"])].concat(), ports);
    let remote = |rows: &[Value], event: &str| {
        let mut remotes = rows.iter().filter(|row| row["event"] == event).filter_map(|row| row["remote"].as_str());
        remotes.any(|remote| remote == zoned(FAR_FROM_NEAR, ports.1))
    };
    let report = json(run(&["report", "--format", "json", file]).text());
    assert!(remote(&report, "report_group") && remote(&report, "report_slowest"), "{report:#?}");
    for command in [&["report", "--full"][..], &["timeline"]] {
        let printed = run(&[command, &[file]].concat());
        assert!(printed.text().contains(&format!("{}%{}", FAR.1, NEAR.0)), "{command:?}: {}", printed.text());
    }
}

/// A socket from before the trace gets its interface from the survey.
#[test]
fn of_a_connection_that_was_there_before() {
    let (net, index) = namespace();
    let listener = TcpListener::bind(SocketAddrV6::new(NEAR.1, 0, 0, index)).expect("listen");
    let to = listener.local_addr().expect("an address");
    let client = End::from(TcpStream::connect(to).expect("connect to oneself"));
    let server = tcptrace_tests::sockets::accept(&listener);
    client.finish_sending();
    server.receive_end();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--report-stuck", "100ms"]);
    let stuck = tracer.row(&net, "a socket that waits", |row| row["event"] == "stuck" && row["old"] == "CLOSE_WAIT");
    assert_eq!(stuck["local"], zoned(NEAR, to.port()), "{stuck}");
    assert_eq!(stuck["remote"], zoned(NEAR, client.local.port()), "{stuck}");
}

/// Without BTF, the kernel does not show the interface: it is left out.
#[test]
fn without_btf() {
    let (net, index) = namespace();
    let tracer = Tracer::start_without_btf(&["watch", "--format", "json"]);
    let (from, _) = connect_and_reset(index);
    let is_it = |row: &Value| row["local"].as_str().is_some_and(|end| end == format!("[{}]:{from}", NEAR.1));
    tracer.row(&net, "the client's end", |row| is_it(row) && row["new"] == "CLOSED");
}
