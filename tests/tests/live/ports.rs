//! How many local ports `snapshot` says a destination has left, against how many connections succeed.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::ability::kernel;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::program::{binary, run};
use tcptrace_tests::sockets::{accept, bound_to};
use tcptrace_tests::{End, Namespace};

/// For what takes a second.
const LONGEST: Duration = Duration::from_secs(30);

fn ports(net: &Namespace, args: &[&str]) -> Vec<Value> {
    let netns = net.inode().to_string();
    let finished = run(&[&["snapshot", "--ports", "--format", "json", "--netns", &netns], args].concat());
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The row of a destination.
fn of(net: &Namespace, remote: SocketAddr) -> Option<Value> {
    ports(net, &[]).into_iter().find(|row| row["remote"] == remote.to_string())
}

/// Waits until a figure of its row is that.
fn wait_for(net: &Namespace, remote: SocketAddr, name: &str, figure: u64) -> Value {
    let began = Instant::now();
    loop {
        let row = of(net, remote).expect("it has sockets");
        if row[name] == figure {
            return row;
        }
        assert!(began.elapsed() < LONGEST, "{name} is not {figure}: {row}");
    }
}

fn assert_figures(row: &Value, figures: &[(&str, u64)]) {
    for (name, figure) in figures {
        assert_eq!(row[*name], *figure, "{name} of {row}");
    }
}

/// 100 ports, without reuse, and two servers elsewhere.
pub(crate) fn hundred() -> (Namespace, TcpListener, TcpListener) {
    // It may have to be built, which takes longer than a TIME_WAIT.
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/ip_local_port_range", "40000 40099");
    net.sysctl("ipv4/tcp_tw_reuse", "0");
    let [one, other] = [7_000, 7_001].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("listen"));
    (net, one, other)
}

pub(crate) fn connect(to: &TcpListener) -> std::io::Result<(End, End)> {
    let client = TcpStream::connect(to.local_addr().expect("its address"))?;
    Ok((client.into(), accept(to)))
}

/// The client closes first.
pub(crate) fn close((mut client, mut server): (End, End)) {
    client.close();
    server.receive_end();
    server.close();
}

/// Connects until no port is left.
pub(crate) fn exhaust(to: &TcpListener) -> Vec<(End, End)> {
    let mut open = Vec::new();
    loop {
        match connect(to) {
            Ok(both) => open.push(both),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
                return open;
            }
        }
    }
}

/// Nine are reserved and one has a listener of another address; 30 are in TIME_WAIT and 10 open.
#[test]
fn free_is_what_connect_can_have() {
    let (net, server, other) = hundred();
    net.sysctl("ipv4/ip_local_reserved_ports", "40010-40018,50000");
    let _blocks = TcpListener::bind("127.0.0.9:40050").expect("listen");
    let address = server.local_addr().expect("its address");
    let mut open: Vec<_> = (0..10).map(|_| connect(&server).expect("a port")).collect();
    (0..30).for_each(|_| close(connect(&server).expect("a port")));

    let row = wait_for(&net, address, "time_wait", 30);
    let blocked = [("range", 100), ("reserved", 9), ("blocked", 1), ("usable", 90)];
    assert_figures(&row, &blocked);
    assert_figures(&row, &[("taken", 40), ("open", 10), ("fin_wait2", 0), ("free", 50), ("holds_ns", 61_000_000_000)]);
    assert_eq!([&row["reuse"], &row["half_taken"]], [&json!("off"), &json!(false)], "{row}");
    assert_eq!([&row["share"], &row["sustainable_per_second"]], [&json!(0.4444), &json!(1.3115)], "{row}");
    assert_eq!([&row["local"], &row["pid"]], [&json!("127.0.0.1:0"), &json!(std::process::id())], "{row}");
    for unknown in ["rate_per_second", "demand", "levels_off_at", "seconds_left"] {
        assert!(row[unknown].is_null(), "one look knows no rate: {row}");
    }

    open.extend(exhaust(&server));
    assert_eq!(open.len(), 60, "50 were free");
    let row = of(&net, address).expect("it has sockets");
    assert_figures(&row, &blocked);
    assert_figures(&row, &[("taken", 90), ("open", 60), ("time_wait", 30), ("free", 0), ("share", 1)]);
    let text = run(&["snapshot", "--ports", "--netns", &net.inode().to_string()]).text().to_owned();
    assert!(text.lines().any(|line| line.contains("127.0.0.1:7000") && line.ends_with("no port is left")), "{text}");

    // The same ports serve another destination.
    let others = exhaust(&other);
    assert_eq!(others.len(), 90);
    assert_figures(&of(&net, other.local_addr().expect("its address")).expect("it has sockets"), &[("taken", 90)]);
    let remotes = |args: &[&str]| ports(&net, args).iter().map(|row| row["remote"].clone()).collect::<Vec<_>>();
    assert_eq!(remotes(&["--rport", "7001"]), [json!("127.0.0.1:7001")]);
    assert_eq!(remotes(&["--state", "TIME_WAIT"]), [json!("127.0.0.1:7000")]);
    let top = ports(&net, &["--top", "1"]);
    assert_eq!([&top[1]["groups"], &top[1]["remote"]], [&json!(1), &Value::Null], "{top:?}");
    assert_figures(&top[1], &[("taken", 90)]);
    // Sockets that are filtered out count, too.
    assert_figures(&ports(&net, &["--rport", "7001"])[0], &blocked);
}

/// A second after they began, connect() takes over what the loopback has left in TIME_WAIT.
#[test]
fn reusable_is_what_connect_takes_over() {
    let (net, server, _) = hundred();
    let address = server.local_addr().expect("its address");
    (0..100).for_each(|_| close(connect(&server).expect("a port")));
    net.sysctl("ipv4/tcp_tw_reuse", "2");
    let row = wait_for(&net, address, "reusable", 100);
    assert_figures(&row, &[("free", 100), ("share", 0), ("holds_ns", 1_000_000_000), ("sustainable_per_second", 100)]);
    assert_eq!(row["reuse"], "on", "{row}");
    assert_eq!(exhaust(&server).len(), 100);
}

/// A socket that is bound and nothing else takes its port from everybody, whatever its address.
#[test]
fn what_is_bound_is_not_there_for_connect() {
    if kernel() < (6, 8) {
        skip("older kernels do not list sockets that are bound and nothing else");
    }
    let (net, server, _) = hundred();
    let _bound = [1, 2, 3].map(|port| bound_to(SocketAddr::from(([127, 0, 0, 9], 40_010 + port))));
    let _first = connect(&server).expect("a port");
    let row = of(&net, server.local_addr().expect("its address")).expect("it has a socket");
    assert_figures(&row, &[("blocked", 3), ("usable", 97), ("taken", 1), ("free", 96)]);
    assert_eq!(row["usable_at_most"], false, "{row}");
    assert_eq!(exhaust(&server).len(), 96);
}

/// Beyond the loopback, connect() takes over what has timestamps: of a TIME_WAIT the kernel does not show that, of another
/// connection to the same place it does.
#[test]
fn an_open_connection_shows_whether_others_are_reusable() {
    let (net, ..) = hundred();
    net.run("ip", &["addr", "add", "10.9.0.1/32", "dev", "lo"]);
    let server = TcpListener::bind("10.9.0.1:7000").expect("listen");
    let address = server.local_addr().expect("its address");
    (0..3).for_each(|_| close(connect(&server).expect("a port")));
    wait_for(&net, address, "time_wait", 3);
    let reuse = || of(&net, address).expect("it has sockets")["reuse"].clone();
    net.sysctl("ipv4/tcp_tw_reuse", "2");
    assert_eq!(reuse(), "loopback_only");
    net.sysctl("ipv4/tcp_tw_reuse", "1");
    assert_eq!(reuse(), "unknown");
    let _open = connect(&server).expect("a port");
    assert_eq!(reuse(), "on");
    wait_for(&net, address, "reusable", 3);
}

/// The server closed first: what it leaves takes no port of its clients.
#[test]
fn a_server_that_closes_first_takes_no_port() {
    let (net, server, _) = hundred();
    for _ in 0..300 {
        let (client, mut served) = connect(&server).expect("a port");
        served.close();
        client.receive_end();
    }
    let rows = ports(&net, &[]);
    let taken: u64 = rows.iter().filter_map(|row| row["taken"].as_u64()).sum();
    assert_eq!(taken, rows.iter().filter_map(|row| row["open"].as_u64()).sum::<u64>(), "no TIME_WAIT: {rows:?}");
}
