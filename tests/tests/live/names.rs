//! Hostile names of processes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tcptrace_tests::program::Finished;
use tcptrace_tests::sockets::{address, listen};
use tcptrace_tests::{Namespace, Tracer};

use crate::actor;

/// Clears the screen, rings the bell, ends the line, and breaks out of quotes and columns.
const NAME: &[u8] = b"evil\x1b[2J\n\",\x07\r";

/// Connects under that name, and returns a tracer's output about it in this format.
fn traced(command: &str, format: &str) -> Finished {
    let net = Namespace::enter();
    let nobody = address(&listen("127.0.0.1"));
    let tracer = Tracer::start_in(&net, &[command, "--format", format, "--color=never"]);
    let actor = actor(OsStr::from_bytes(NAME), &["dial", "1", &nobody.to_string()]);
    actor.did("failed");
    actor.finish();
    tracer.text("refused");
    tracer.interrupt()
}

/// Everything that a terminal or a parser could misread is escaped.
fn assert_harmless(printed: &Finished) {
    let text = printed.text();
    assert!(text.contains("evil"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    for line in text.lines().filter(|line| line.contains("evil")) {
        assert!(line.contains("127.0.0.1") && line.contains("[2J"), "a line was broken: {line:?}");
    }
}

#[test]
fn text() {
    for command in ["watch", "connections"] {
        assert_harmless(&traced(command, "text"));
    }
}

#[test]
fn json() {
    for command in ["watch", "connections"] {
        let printed = traced(command, "json");
        assert_harmless(&printed);
        for row in printed.rows() {
            assert!(!row["comm"].as_str().expect("a name").contains(char::is_control), "{row}");
        }
    }
}

#[test]
fn csv() {
    for command in ["watch", "connections"] {
        let printed = traced(command, "csv");
        assert_harmless(&printed);
        let fields = |line: &str| split_csv(line).len();
        let columns = fields(printed.text().lines().next().expect("a header"));
        assert!(columns > 10);
        assert!(printed.text().lines().all(|line| fields(line) == columns), "{}", printed.text());
    }
}

/// The fields of a line of CSV (RFC 4180).
fn split_csv(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().expect("a field").push(character),
        }
    }
    fields
}
