//! Ends that the kernel reports to no program, and does not count as lost either.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::object::write_with_idle;
use tcptrace_tests::program::{Finished, run};
use tcptrace_tests::{End, Namespace, Tracer, pair};

/// An orphan in LAST_ACK, whose peer does not receive its FIN.
struct Orphan {
    net: Namespace,
    end: End,
    _peer: End,
    object: PathBuf,
}

impl Orphan {
    fn new(name: &str) -> Self {
        let net = Namespace::enter();
        let (mut client, mut server) = pair();
        client.close();
        server.receive_end();
        net.drop_arriving(&format!("tcp sport {}", server.local.port()));
        server.close();
        let object = std::env::temp_dir().join(format!("tcptrace-{name}-{}.o", std::process::id()));
        write_with_idle(&["tp_btf/inet_sock_set_state", "tp_btf/tcp_destroy_sock"], &object);
        Self { net, end: server, _peer: client, object }
    }

    /// Follows it with eBPF programs that report nothing.
    fn follow(&self, command: &[&str]) -> Tracer {
        let object = self.object.to_str().expect("a path in UTF-8");
        Tracer::start_in(&self.net, &[command, &["--object", object]].concat())
    }

    /// Its peer receives the FIN, and it ends. tcptrace asks only about sockets that have waited longer.
    fn end(&self) {
        std::thread::sleep(Duration::from_secs(1));
        self.net.heal();
        self.net.transition(&self.end, "LAST_ACK", "CLOSED");
    }

    fn assert_unreported(&self, row: &Value) {
        assert_eq!([&row["closer"], &row["end"]], [&json!("passive"), &json!("unknown")], "{row}");
        assert_eq!(row["complete"], false, "{row}");
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        // It may not have been written.
        let _ = std::fs::remove_file(&self.object);
    }
}

fn assert_counted(finished: &Finished) {
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("1 not reported by the kernel"), "{}", finished.stderr);
}

/// A regression test: its connection stayed open for ever.
#[test]
fn a_survey_at_the_end_notices_what_is_gone() {
    let orphan = Orphan::new("last");
    let tracer = orphan.follow(&["connections", "--format", "json"]);
    orphan.end();
    let finished = tracer.interrupt();
    let row = finished
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .find(|row: &Value| orphan.net.is_about(row, &orphan.end) && row["event"] == "connection");
    orphan.assert_unreported(&row.expect("a row for it"));
    assert_counted(&finished);
}

#[test]
fn surveys_notice_what_is_gone_while_tracing() {
    let orphan = Orphan::new("while");
    let tracer = orphan.follow(&["connections", "--format", "json"]);
    orphan.end();
    let row = tracer.row(&orphan.net, "a connection that nobody ended", |row| {
        orphan.net.is_about(row, &orphan.end) && row["event"] == "connection"
    });
    orphan.assert_unreported(&row);
    assert_counted(&tracer.interrupt());
}

/// Readers of a recording notice it, too.
#[test]
fn a_recording_has_what_it_takes() {
    let orphan = Orphan::new("recorded");
    let trace = orphan.object.with_extension("tct");
    let tracer = orphan.follow(&["record", "--output", trace.to_str().expect("a path in UTF-8")]);
    orphan.end();
    tracer.interrupt();
    let replay = run(&["replay", trace.to_str().expect("a path in UTF-8"), "--connections", "--format", "json"]);
    std::fs::remove_file(&trace).expect("remove the recording");
    let row = replay
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .find(|row: &Value| orphan.net.is_about(row, &orphan.end) && row["event"] == "connection");
    orphan.assert_unreported(&row.expect("a row for it"));
}

/// It still exists: a lack of events does not end it.
#[test]
fn what_is_still_there_stays_open() {
    let orphan = Orphan::new("open");
    let tracer = orphan.follow(&["connections", "--format", "json"]);
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(!finished.text().contains("\"connection\""), "{}", finished.text());
}
