//! Waiting sockets, reported while they still exist.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::sockets::{address, listen, start_connecting};
use tcptrace_tests::{End, Namespace, Tracer, pair};

const AFTER: &str = "500ms";
const AFTER_NS: u64 = 500_000_000;

fn start(net: &Namespace, command: &str) -> Tracer {
    Tracer::start_in(net, &[command, "--format", "json", "--report-stuck", AFTER])
}

fn row(tracer: &Tracer, net: &Namespace, end: &End, event: &str) -> Value {
    tracer.row(net, &format!("{event} of {end:?}"), |row| net.is_about(row, end) && row["event"] == event)
}

fn assert_ours(row: &Value, end: &End) {
    assert_eq!([&row["holder_pid"], &row["fd"]], [&json!(std::process::id()), &json!(end.as_raw_fd())], "{row}");
    // A process that another test is just starting has it, too.
    assert!(row["holders"].as_u64() >= Some(1), "{row}");
}

#[test]
fn close_wait_that_a_process_does_not_close() {
    let net = Namespace::enter();
    let [watch, connections] = ["watch", "connections"].map(|command| start(&net, command));
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();

    let told = row(&watch, &net, &server, "stuck");
    assert_eq!(
        [&told["old"], &told["new"], &told["accepted"]],
        [&json!("CLOSE_WAIT"), &json!("CLOSE_WAIT"), &json!(true)]
    );
    assert!(told["held_ns"].as_u64().is_some_and(|ns| ns >= AFTER_NS) && told["held_at_least"] == false, "{told}");
    assert_ours(&told, &server);
    // Once per doubling.
    let ages = watch.rows(&net, "a second report", |rows| {
        let about = rows.iter().filter(|row| net.is_about(row, &server) && row["event"] == "stuck");
        let ages: Vec<u64> = about.map(|row| row["held_ns"].as_u64().expect("an age")).collect();
        (ages.len() > 1).then_some(ages)
    });
    assert!(ages[1] >= 2 * ages[0], "{ages:?}");

    let told = row(&connections, &net, &server, "stuck");
    assert_eq!([&told["state"], &told["closed"], &told["end"]], [&json!("CLOSE_WAIT"), &Value::Null, &Value::Null]);
    assert_eq!([&told["closer"], &told["age_at_least"]], [&json!("passive"), &json!(false)], "{told}");
    assert_ours(&told, &server);
    server.close();
    let told = row(&connections, &net, &server, "connection");
    assert_eq!([&told["end"], &told["complete"]], [&json!("fin"), &json!(true)], "{told}");
    assert!(told.get("holder_pid").is_none(), "{told}");
}

#[test]
fn close_wait_that_nobody_accepts() {
    let net = Namespace::enter();
    let watch = start(&net, "watch");
    let listener = listen("127.0.0.1");
    let mut client = End::from(std::net::TcpStream::connect(address(&listener)).expect("connect"));
    client.close();
    let server = End::named(client.remote, client.local);

    let told = row(&watch, &net, &server, "stuck");
    assert_eq!(
        [&told["old"], &told["accepted"], &told["holder_pid"]],
        [&json!("CLOSE_WAIT"), &json!(false), &Value::Null]
    );
    assert_eq!([&told["listener_pid"], &told["pid"]], [&json!(std::process::id()), &Value::Null], "{told}");
}

/// The kernel has forgotten the connection, and `ss` no longer shows it; the process still has a descriptor.
#[test]
fn reset_that_a_process_does_not_notice() {
    let net = Namespace::enter();
    let [watch, connections] = ["watch", "connections"].map(|command| start(&net, command));
    let (mut client, mut server) = pair();
    client.reset();

    let told = row(&watch, &net, &server, "stuck");
    assert_eq!([&told["old"], &told["new"], &told["reason"]], ["CLOSED", "CLOSED", "reset_received"], "{told}");
    assert_ours(&told, &server);
    assert!(!net.run("ss", &["-tanH"]).contains(&format!(":{}", server.remote.port())), "ss shows it");
    row(&connections, &net, &server, "stuck");
    server.close();
    let released = row(&watch, &net, &server, "released");
    assert_eq!([&released["reason"], &released["holder_pid"]], [&json!("reset_received"), &Value::Null], "{released}");
    assert!(released["held_ns"].as_u64() > told["held_ns"].as_u64(), "{released}");
    let told = row(&connections, &net, &server, "released");
    assert_eq!([&told["end"], &told["state"]], ["reset_received", "CLOSED"], "{told}");
}

#[test]
fn syn_sent_that_nobody_answers() {
    let net = Namespace::enter();
    let watch = start(&net, "watch");
    let listener = listen("127.0.0.1");
    net.drop_arriving("tcp flags syn");
    let (connecting, client) = start_connecting(address(&listener));

    // The holder is not looked up for each report where that is slow.
    let is_stuck = |row: &Value| net.is_about(row, &client) && row["event"] == "stuck" && !row["fd"].is_null();
    let told = watch.row(&net, &format!("stuck, of {client:?}"), is_stuck);
    assert_eq!(
        [&told["old"], &told["owner_source"], &told["accepted"]],
        [&json!("SYN_SENT"), &json!("connect"), &Value::Null]
    );
    assert_eq!([&told["holder_pid"], &told["fd"]], [&json!(std::process::id()), &json!(connecting.as_raw_fd())]);
}

/// Fills the peer's buffers until nothing more can be sent.
fn fill(end: &End) {
    end.set_nonblocking(true).expect("make it non-blocking");
    while (&**end).write(&[b'x'; 65_536]).is_ok() {}
}

/// No event reports that the peer stops reading.
#[test]
fn established_whose_peer_does_not_read() {
    let net = Namespace::enter();
    let connections = start(&net, "connections");
    let (client, server) = pair();
    let (idle, _other) = pair();
    fill(&server);

    let told = row(&connections, &net, &server, "stuck");
    assert_eq!([&told["state"], &told["age_at_least"]], [&json!("ESTABLISHED"), &json!(true)], "{told}");
    assert!(told["age_ns"].as_u64() >= Some(AFTER_NS) && told["bytes_unacked"].as_u64() > Some(0), "{told}");
    assert_ours(&told, &server);
    let rows = connections.rows_now(&net);
    assert!(rows.iter().all(|row| !net.is_about(row, &idle) && !net.is_about(row, &client)), "{rows:?}");
}

#[test]
fn fin_wait1_whose_peer_does_not_read() {
    let net = Namespace::enter();
    let watch = start(&net, "watch");
    let (_client, mut server) = pair();
    fill(&server);
    server.close();

    let told = row(&watch, &net, &server.name(), "stuck");
    assert_eq!([&told["old"], &told["orphan"]], [&json!("FIN_WAIT1"), &json!(false)], "{told}");
    assert!(told["bytes_unacked"].as_u64() > Some(0), "{told}");
}

/// How long no data must flow for a connection to seem still, where it is reported after two seconds.
const SEEMS_STILL: Duration = Duration::from_millis(500);

/// A half-closed connection on which data flows is not stuck. A busy machine may stop both ends for so long that they are
/// rightly reported.
#[test]
fn half_closed_while_data_flows() {
    let net = Namespace::enter();
    let watch = Tracer::start_in(&net, &["watch", "--format", "json", "--report-stuck", "2s"]);
    let (client, server) = pair();
    client.finish_sending();
    server.receive_end();
    let began = Instant::now();
    let (mut last, mut pause) = (began, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(5) {
        server.send(10);
        client.receive(10);
        pause = pause.max(last.elapsed());
        last = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
    }
    let stopped = watch.rows_now(&net);
    let about = |row: &&Value| row["event"] == "stuck" && (net.is_about(row, &client) || net.is_about(row, &server));
    let pause = pause.max(last.elapsed());
    assert!(stopped.iter().filter(about).count() == 0 || pause >= SEEMS_STILL, "{pause:?}: {stopped:?}");
    for (end, state) in [(&client, "FIN_WAIT2"), (&server, "CLOSE_WAIT")] {
        let told = row(&watch, &net, end, "stuck");
        assert_eq!(told["old"], state, "{told}");
        assert!(told["bytes_since"].as_u64() > Some(0) && told["bytes_unacked"] == 0, "{told}");
    }
}

/// Only sockets that match a filter are reported.
#[test]
fn filtered() {
    let net = Namespace::enter();
    let (mut client, server) = pair();
    let (mut other, unwanted) = pair();
    let port = server.local.port().to_string();
    let args = ["watch", "--format", "json", "--report-stuck", AFTER, "--lport", &port, "--state", "CLOSE_WAIT"];
    let watch = Tracer::start_in(&net, &args);
    other.close();
    unwanted.receive_end();
    client.close();
    server.receive_end();

    row(&watch, &net, &server, "stuck");
    assert!(watch.rows_now(&net).iter().all(|row| !net.is_about(row, &unwanted)), "{:?}", watch.rows_now(&net));
}
