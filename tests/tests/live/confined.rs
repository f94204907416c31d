//! tcptrace in namespaces of its own, as in a container.

use std::process::Command;

use serde_json::{Value, json};
use tcptrace_tests::program::{binary, run_command};
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::{Namespace, Tracer, pair};

/// Runs the program with these arguments, in namespaces that `unshare` makes with these options.
fn confined(namespaces: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["--fork", "--kill-child", "--"]).arg(binary()).args(args);
    command
}

fn watch(net: &Namespace, namespaces: &[&str], args: &[&str]) -> Tracer {
    let netns = net.inode().to_string();
    Tracer::follow(confined(namespaces, &[&["watch", "--format", "json", "--netns", &netns], args].concat()))
}

/// Seconds since midnight.
fn second(row: &Value) -> Option<i64> {
    let time = row["time"].as_str()?.get(11..19)?;
    time.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))
}

fn boot_second(row: &Value) -> Option<i64> {
    row["boot_ns"].as_i64().map(|ns| ns / 1_000_000_000)
}

/// A regression test: every time was off by the namespace's offset, and a TIME_WAIT ended as soon as it had begun.
#[test]
fn in_a_time_namespace() {
    let net = Namespace::enter();
    let tracer = watch(&net, &["--time", "--boottime", "1000000", "--monotonic", "5000"], &[]);
    let listener = listen("127.0.0.1");
    let (mut client, mut server) = connect(&listener);
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    let expected = net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    client.close();
    let (mut later, other) = connect(&listener);
    later.reset();
    other.receive_reset();
    tracer.row(&net, "the end of a later connection", |row| net.is_about(row, &later) && row["new"] == "CLOSED");

    let rows = tracer.rows_now(&net);
    let rows: Vec<&Value> = rows.iter().filter(|row| net.is_about(row, &client)).collect();
    let last = rows.last().expect("rows of the client");
    assert_eq!(last["new"], "TIME_WAIT", "it is not over: {rows:#?}");
    for clock in [second, boot_second] {
        let [shown, expected] = [clock(last), clock(&expected)].map(|time| time.expect("a time"));
        // Two programs read the clock, one after the other.
        let apart = (shown - expected).rem_euclid(86_400);
        assert!(apart <= 1 || apart == 86_399, "{shown} is not {expected}");
    }
}

const PID_NAMESPACE: &[&str] = &["--pid", "--mount", "--mount-proc"];

/// A regression test: it reported that no process held a socket whose holder it could not see.
#[test]
fn in_a_pid_namespace() {
    let net = Namespace::enter();
    let (old, mut old_server) = pair();
    let tracer = watch(&net, PID_NAMESPACE, &["--report-stuck", "100ms"]);
    let (mut client, mut server) = pair();
    for (client, server) in [(&old, &old_server), (&client, &server)] {
        client.finish_sending();
        let is_stuck = |row: &Value| net.is_about(row, server) && row["event"] == "stuck";
        let row = tracer.row(&net, "a socket that waits to be closed", is_stuck);
        assert_eq!(
            [&row["new"], &row["holders"], &row["holder_pid"]],
            [&json!("CLOSE_WAIT"), &json!(null), &json!(null)]
        );
    }
    client.reset();
    let row = tracer.row(&net, "the end", |row| net.is_about(row, &client) && row["new"] == "CLOSED");
    assert_eq!([&row["pid"], &row["close_pid"]], [std::process::id(), std::process::id()], "as the host numbers it");
    server.close();
    old_server.close();
}

/// eBPF programs and `/proc` number processes differently there.
#[test]
fn what_a_pid_namespace_hides_is_said() {
    let net = Namespace::enter();
    let netns = net.inode().to_string();
    let (_client, _server) = pair();
    let run = |args: &[&str]| run_command(confined(PID_NAMESPACE, args));
    let checked = run(&["check"]);
    let line = checked.text().lines().find(|line| line.contains("which processes hold a socket"));
    assert!(
        line.is_some_and(|line| line.starts_with("part ") && line.contains("outside this pid namespace")),
        "{line:?}"
    );
    let checked = run(&["check", "--format", "json"]);
    let partial = |line: &&str| line.contains(r#""feature":"holders""#) && line.contains(r#""partial":true"#);
    assert_eq!(checked.text().lines().filter(partial).count(), 1, "{}", checked.text());
    let found = run(&["snapshot", "--list", "--format", "json", "--netns", &netns]);
    assert!(found.stderr.contains("not seen: the processes outside this pid namespace"), "{}", found.stderr);
    let rows = found.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let owners: Vec<Value> = rows.map(|row| row["pid"].clone()).collect();
    assert_eq!(owners, [json!(null), json!(null)]);
    let refused = run(&["watch", "--pid", "1", "--duration", "1ms"]);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("--pid in this pid namespace"), "{}", refused.stderr);
}
