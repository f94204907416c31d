//! Flight recorders that write by themselves when a condition holds.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tcptrace_tests::program::run;
use tcptrace_tests::{Actor, End, Namespace, Tracer};

use super::{folder, path, wait_until};

/// So many sockets leak that it is no accident.
const MANY: usize = 24;

/// A server that accepts many connections and closes none, and clients that have closed theirs.
fn leak(net: &Namespace) -> (Actor, Vec<End>) {
    let actor = crate::actor("leaky", &["hold", &MANY.to_string()]);
    let listener = actor.did_at("listening");
    let leaked = (0..MANY).map(|_| {
        let client = TcpStream::connect(listener).expect("connect");
        actor.did("accepted");
        let server = End::named(listener, client.local_addr().expect("a bound socket"));
        drop(client);
        net.transition(&server, "ESTABLISHED", "CLOSE_WAIT");
        server
    });
    let leaked = leaked.collect();
    (actor, leaked)
}

/// As many connections, and each is closed when its peer has closed.
fn healthy() {
    for _ in 0..MANY {
        let (mut client, mut server) = tcptrace_tests::pair();
        client.close();
        server.receive_end();
        server.close();
    }
}

/// A program that keeps what it gets.
fn keeper(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("keep");
    fs::write(&program, "#!/bin/sh\necho \"$@\" > \"$1.args\"\ncat > \"$1.new\"\nmv \"$1.new\" \"$1\"\n")
        .expect("write it");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
    program
}

fn armed(net: &Namespace, trace: &Path, options: &[&str]) -> Tracer {
    let always = ["record", "--last", "5m", "-o", path(trace)];
    Tracer::start_in(net, &[&always, options].concat())
}

/// The traces in a folder.
fn traces(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").file_name());
    let mut all: Vec<_> =
        all.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".tct")).collect();
    all.sort();
    all
}

/// The head of a trace.
fn first_block(trace: &Path) -> Vec<u8> {
    let bytes = fs::read(trace).expect("read it");
    let heads = bytes.windows(8).enumerate().filter(|(_, bytes)| *bytes == b"tcptrace").map(|(at, _)| at);
    let second = heads.map(|at| at - 8).nth(1).expect("several blocks");
    bytes[..second].to_vec()
}

/// The file has what led to it, and says why it was written; the command gets the finding and the file.
#[test]
fn a_disease_is_written_down_once() {
    let (net, folder) = (Namespace::enter(), folder());
    let (trace, told) = (folder.path().join("trace.tct"), folder.path().join("told"));
    let command = format!("{} {}", path(&keeper(folder.path())), path(&told));
    let when = "close-wait-leak or ports-running-out";
    let tracer = armed(&net, &trace, &["--when", when, "--exec", &command, "--when-pause", "0s"]);
    healthy();
    let (actor, _) = leak(&net);
    wait_until(|| told.exists());
    assert_eq!(
        fs::read_to_string(folder.path().join("told.args")).expect("arguments").trim(),
        format!("{} {}", path(&told), path(&trace))
    );
    let fired: Value = serde_json::from_str(&fs::read_to_string(&told).expect("what it got")).expect("JSON");
    let is = |field: &str, value: &str| assert_eq!(fired[field], value, "{fired:#}");
    is("event", "fired");
    is("when", when);
    is("rule", "close-wait-leak");
    is("file", path(&trace));
    assert_eq!(fired["finding"]["id"], "close-wait-leak", "{fired:#}");
    assert_eq!(fired["finding"]["subject"]["pid"], actor.pid(), "{fired:#}");

    let finished = tracer.interrupt();
    assert!(finished.stderr.contains("tcptrace: close-wait-leak: "), "{}", finished.stderr);
    assert!(finished.stderr.contains("the condition held, and a file was written"), "{}", finished.stderr);
    assert_eq!(traces(folder.path()), ["trace.tct"], "what goes on is no news\n{}", finished.stderr);
    let report = run(&["report", path(&trace)]);
    assert!(report.text().starts_with("fired at "), "{}", report.text());
    assert!(report.text().lines().next().is_some_and(|line| line.contains("close-wait-leak: ")), "{}", report.text());
    let lines = report.text().lines().filter(|line| line.starts_with("fired at ")).count();
    assert_eq!(lines, 1, "{}", report.text());
    let cut = folder.path().join("cut.part");
    fs::write(&cut, first_block(&trace)).expect("write it");
    let head = run(&["report", "--format", "json", path(&cut)]).rows();
    let said = head.iter().find(|row| row["event"] == "report_fired").expect("the head of the file says why");
    assert_eq!(said["finding"]["subject"]["pid"], actor.pid(), "{said:#}");
    let rows = run(&["replay", "--format", "json", path(&trace)]).rows();
    let waiting = rows.iter().filter(|row| row["new"] == "CLOSE_WAIT").count();
    assert!(waiting >= MANY, "{waiting}");
}

#[test]
fn the_twin_is_not_written_down() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace.tct");
    let tracer = armed(&net, &trace, &["--when", "close-wait-leak or CLOSE_WAIT > 20", "--duration", "12s"]);
    healthy();
    let finished = tracer.finish();
    assert!(finished.stderr.contains("the condition never held, so no file was written"), "{}", finished.stderr);
    assert!(traces(folder.path()).is_empty(), "{}", finished.stderr);
}

/// A look is enough: no engine runs, and no facts are read.
#[test]
fn a_figure_is_enough() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace.tct");
    let tracer = armed(&net, &trace, &["--when", "CLOSE_WAIT >= 24 and not close-wait > 1e3", "--no-facts"]);
    let (_actor, _) = leak(&net);
    wait_until(|| trace.exists() && tracer.complaints().contains("CLOSE_WAIT is 24"));
    let finished = tracer.interrupt();
    assert!(finished.stderr.contains("a file was written"), "{}", finished.stderr);
    assert!(run(&["report", path(&trace)]).text().contains("CLOSE_WAIT is 24"), "the report says why");
}

#[test]
fn wrong_conditions_are_refused() {
    let refused = |options: &[&str]| {
        let finished = run(&[&["record", "--last", "1m"], options].concat());
        assert_eq!(finished.code(), 2, "{options:?}: {}", finished.stderr);
        finished.stderr
    };
    let typo = refused(&["--when", "fd-limit or close-wait-leek"]);
    assert!(typo.contains("did you mean 'close-wait-leak'?"), "{typo}");
    assert!(typo.contains("\n              ^"), "{typo}");
    let unknown = refused(&["--when", "TcpExt.ListenOverflow > 5"]);
    assert!(unknown.contains("did you mean 'TcpExt.ListenOverflows'?"), "{unknown}");
    assert!(unknown.contains("TcpExt.TWRecycled,"), "the names that there are: {unknown}");
    let state = refused(&["--when", "CLOSE_WAITS > 5"]);
    assert!(state.contains("did you mean 'CLOSE_WAIT'?"), "{state}");
    assert!(refused(&["--when", "fd-limit", "--no-facts"]).contains("--no-facts"));
    assert!(refused(&["--exec", "true"]).contains("--when"));
    assert_eq!(run(&["record", "--when", "fd-limit"]).code(), 2, "it needs --last");
}
