//! tcptrace in namespaces of its own, as in a container.

use std::process::Command;

use serde_json::Value;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::{Namespace, Tracer};

/// The program, with these arguments, in namespaces that `unshare` makes with these.
fn confined(namespaces: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["--fork", "--kill-child", "--"]).arg(binary()).args(args);
    command
}

fn watch(net: &Namespace, namespaces: &[&str], args: &[&str]) -> Tracer {
    let netns = net.inode().to_string();
    Tracer::follow(confined(namespaces, &[&["watch", "--format", "json", "--netns", &netns], args].concat()))
}

/// The second of the day.
fn second(row: &Value) -> Option<i64> {
    let time = row["time"].as_str()?.get(11..19)?;
    time.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))
}

fn boot_second(row: &Value) -> Option<i64> {
    row["boot_ns"].as_i64().map(|ns| ns / 1_000_000_000)
}

/// Once, every time was off by what the namespace adds, and a TIME_WAIT was over as soon as it had begun.
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
        // Two programs have read the clock, one after the other.
        let apart = (shown - expected).rem_euclid(86_400);
        assert!(apart <= 1 || apart == 86_399, "{shown} is not {expected}");
    }
}
