//! `diagnose`: what it finds on the running kernel and in a trace of the same, and that it stays silent otherwise.

#![expect(clippy::panic, reason = "a panic is how a test fails")]

mod alone;
mod closing;
mod connecting;
mod counting;
mod listening;
mod pools;
mod ports;
mod resets;
mod twins;

use std::net::TcpStream;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use serde_json::{Value, json};
use tcptrace_tests::program::{Finished, run};
use tcptrace_tests::{Actor, End, Namespace, Tracer, pair};

/// Sockets that leak: so many that none of them ends is no accident any more.
const LEAKED: usize = 24;

fn one<'r>(rows: &'r [Value], event: &str, id: &str) -> &'r Value {
    let mut of = rows.iter().filter(|row| row["event"] == event && row["id"] == id);
    of.next().unwrap_or_else(|| panic!("no {event} of {id} in {rows:#?}"))
}

fn findings<'r>(net: &Namespace, rows: &'r [Value]) -> Vec<&'r Value> {
    rows.iter().filter(|row| row["event"] == "finding" && row["subject"]["netns"] == net.inode()).collect()
}

/// What every diagnosis ends with.
fn rows(finished: &Finished, exit: i32) -> Vec<Value> {
    let (rows, summary) = (finished.rows(), finished.summary());
    // What other tests do at the same time may get lost.
    let expected = if exit == 0 && loses(&rows) { 3 } else { exit };
    assert_eq!(finished.code(), expected, "{}\n{}", finished.stderr, finished.text());
    assert_eq!(summary["exit"], expected, "{summary}");
    rows
}

/// Whether events were lost, so that absence proves nothing.
fn loses(rows: &[Value]) -> bool {
    rows.iter().any(|row| row["event"] == "diagnosis" && row["events_lost"] != 0)
}

/// Few look at the same time: each looks at the namespaces of all.
const MOST: usize = 6;

static LOOKS: Mutex<usize> = Mutex::new(0);
static ONE_ENDED: Condvar = Condvar::new();

/// One of those.
struct Turn;

/// A diagnosis that goes on.
struct Look {
    tracer: Tracer,
    _turn: Turn,
}

impl Look {
    /// Starts when there are not too many.
    fn start(args: &[&str]) -> Self {
        let looks = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
        *ONE_ENDED.wait_while(looks, |looks| *looks >= MOST).unwrap_or_else(PoisonError::into_inner) += 1;
        let turn = Turn;
        Self { tracer: Tracer::start(args), _turn: turn }
    }

    /// Ends it, and waits for what it has found.
    fn interrupt(&self) -> Finished {
        self.tracer.interrupt()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *LOOKS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_ENDED.notify_one();
    }
}

/// Starts to look, until it is interrupted.
fn look(net: &Namespace, options: &[&str]) -> Look {
    let netns = net.inode().to_string();
    let always = ["diagnose", "--duration", "10m", "--format", "json", "--netns", &netns];
    let fail: &[&str] = if options.contains(&"--fail-on") { &[] } else { &["--fail-on", "warning"] };
    Look::start(&[&always, fail, options].concat())
}

/// The only finding about a namespace: its severity, its confidence and these figures.
#[track_caller]
fn assert_found<'r>(
    net: &Namespace,
    rows: &'r [Value],
    id: &str,
    sure: [&str; 2],
    figures: &[(&str, Value)],
) -> &'r Value {
    let found = findings(net, rows);
    assert_eq!(found.iter().map(|row| &row["id"]).collect::<Vec<_>>(), [id], "{rows:#?}");
    assert_is(found[0], sure, figures);
    assert_eq!(one(rows, "checked", id)["outcome"], "fired");
    found[0]
}

/// A finding's severity, its confidence and these figures.
#[track_caller]
fn assert_is(found: &Value, sure: [&str; 2], figures: &[(&str, Value)]) {
    assert_eq!([&found["severity"], &found["confidence"]], sure, "{found:#}");
    for (name, figure) in figures {
        assert_eq!(&found["figures"][name], figure, "{name} of {found:#}");
    }
    let headline = found["headline"].as_str().expect("a headline");
    assert!(headline.chars().count() <= 110, "{headline}");
}

/// One cause is found in a namespace, and that explains all others; returns it and the finding of each.
#[track_caller]
fn assert_one_cause<'r>(net: &Namespace, rows: &'r [Value], cause: &str, effects: &[&str]) -> Vec<&'r Value> {
    let found = findings(net, rows);
    let ids: Vec<_> = found.iter().map(|row| row["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), 1 + effects.len(), "{ids:?}: {rows:#?}");
    let of = |id: &str| *found.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no {id}: {ids:?}"));
    let because_of = |id: &str| of(id)["because_of"].clone();
    assert_eq!(because_of(cause), Value::Null, "{found:#?}");
    for effect in effects {
        assert_eq!(because_of(effect), cause, "{effect} of {found:#?}");
        let explained = of(cause)["explains"].as_array().expect("explains");
        assert!(explained.iter().any(|it| it == effect), "{effect} of {found:#?}");
    }
    [cause].iter().chain(effects).map(|id| of(id)).collect()
}

/// A number of a finding.
#[track_caller]
fn figure(found: &Value, name: &str) -> f64 {
    found["figures"][name].as_f64().unwrap_or_else(|| panic!("no number {name} in {found:#}"))
}

/// A diagnosis that goes on, and a recording of the same for another one.
struct Both {
    netns: String,
    options: Vec<String>,
    folder: tempfile::TempDir,
    live: Look,
    recorder: Tracer,
}

impl Both {
    fn look(net: &Namespace, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let netns = net.inode().to_string();
        let live = look(net, options);
        let recorder = Tracer::start(&[
            "record",
            "--failed-calls",
            "--output",
            path(&folder.path().join("trace")),
            "--netns",
            &netns,
        ]);
        Self { netns, options: options.iter().map(|&it| it.to_owned()).collect(), folder, live, recorder }
    }

    /// What is found live, and in the trace: both end with this status.
    fn rows(self, exit: i32) -> [Vec<Value>; 2] {
        let live = self.live.interrupt();
        let recorded = self.recorder.interrupt();
        assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
        let file = self.folder.path().join("trace");
        let always = ["diagnose", "--format", "json", "--netns", &self.netns, "--fail-on", "warning", path(&file)];
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        [rows(&live, exit), rows(&run(&[&always, &options[..]].concat()), exit)]
    }
}

/// A process whose peers close their connections, which it does not.
fn leak(net: &Namespace) -> (Actor, Vec<End>) {
    let actor = crate::actor("leaky", &["hold", &LEAKED.to_string()]);
    let listener = actor.did_at("listening");
    let mut leaked = Vec::new();
    for _ in 0..LEAKED {
        let client = TcpStream::connect(listener).expect("connect");
        actor.did("accepted");
        let server = End::named(listener, client.local_addr().expect("a bound socket"));
        drop(client);
        net.transition(&server, "ESTABLISHED", "CLOSE_WAIT");
        leaked.push(server);
    }
    (actor, leaked)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn assert_leak(net: &Namespace, actor: &Actor, rows: &[Value]) {
    let found = findings(net, rows);
    assert_eq!(found.iter().map(|row| &row["id"]).collect::<Vec<_>>(), ["close-wait-leak"], "{found:#?}");
    let found = found[0];
    // At the rate of a test, descriptors may run out within minutes.
    assert!(found["severity"] == "warning" || found["severity"] == "critical", "{found:#}");
    assert_eq!(found["confidence"], "likely", "{found:#}");
    assert_eq!(
        [&found["subject"]["pid"], &found["subject"]["comm"]],
        [&json!(actor.pid()), &json!("leaky")],
        "{found:#}"
    );
    let figures = &found["figures"];
    assert_eq!([&figures["close_wait"], &figures["began"], &figures["left"]], [LEAKED, LEAKED, 0], "{found:#}");
    assert_eq!(figures["recv_queue_1"], LEAKED, "{found:#}");
    let examples = found["examples"].as_array().expect("examples");
    assert!(!examples.is_empty() && examples.iter().all(|it| it["state"] == "CLOSE_WAIT"), "{found:#}");
    assert_eq!(one(rows, "checked", "close-wait-leak")["outcome"], "fired");
}

/// The same is found live and in a trace that was recorded meanwhile.
#[test]
fn a_leak_is_found() {
    let (net, folder) = (Namespace::enter(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("trace");
    let recorder = Tracer::start(&["record", "--output", path(&trace)]);
    let live = look(&net, &["--only", "close-wait-leak"]);
    let (actor, _) = leak(&net);
    let live = live.interrupt();
    let recorded = recorder.interrupt();
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    assert_leak(&net, &actor, &rows(&live, 4));
    let (netns, file) = (net.inode().to_string(), path(&trace));
    let always = ["diagnose", "--format", "json", "--netns", &netns, "--only", "close-wait-leak", file];
    assert_leak(&net, &actor, &rows(&run(&[&always, &["--fail-on", "warning"][..]].concat()), 4));
    assert_leak(&net, &actor, &rows(&run(&[&always, &["--fail-on", "never"][..]].concat()), 0));
    let others = rows(&run(&[&always, &["--fail-on", "warning", "--comm", "nobody"][..]].concat()), 0);
    assert_eq!(findings(&net, &others), Vec::<&Value>::new());
    assert_eq!(one(&others, "checked", "close-wait-leak")["outcome"], "fired");
}

/// The twin of the leak: as many connections, each of which is closed.
#[test]
fn connections_that_are_closed_are_no_leak() {
    let net = Namespace::enter();
    // It closes them with a reset, which another rule is about.
    let live = look(&net, &["--skip", "linger-zero"]);
    let (mut actor, held) = leak(&net);
    actor.cue();
    for server in held {
        net.transition(&server, "CLOSE_WAIT", "CLOSED");
    }
    let live = live.interrupt();
    let rows = rows(&live, 0);
    assert_eq!(findings(&net, &rows), Vec::<&Value>::new());
}

/// One look sees the sockets, their owners and queues, and says what it could not check.
#[test]
fn one_look_needs_no_time() {
    let net = Namespace::enter();
    let (actor, _) = leak(&net);
    let netns = net.inode().to_string();
    let always = ["diagnose", "--duration", "0", "--format", "json", "--netns", &netns];
    let finished = run(&always);
    let rows = rows(&finished, 0);
    let told = &rows[0];
    assert_eq!([&told["event"], &told["source"], &told["looked_ns"]], [&json!("diagnosis"), &json!("live"), &json!(0)]);
    let row = one(&rows, "checked", "close-wait-leak");
    // Too young to be a leak, but seen.
    assert!(row["figures"]["close_wait"].as_u64() >= Some(LEAKED as u64) && row["figures"]["began"].is_null(), "{row}");
    drop(actor);
}

#[test]
fn settings_of_a_namespace_are_seen() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_fin_timeout", "90");
    let netns = net.inode().to_string();
    let options = ["diagnose", "--duration", "0", "--format", "json", "--only", "fin-timeout-trap", "--netns", &netns];
    // Somebody has to be there.
    let (_client, _server) = pair();
    let rows = rows(&run(&options), 0);
    let found = findings(&net, &rows);
    assert_eq!(found.iter().map(|row| &row["severity"]).collect::<Vec<_>>(), ["note"], "{rows:#?}");
    assert_eq!(found[0]["figures"]["effective_ns"], 60_000_000_000_u64);
}
