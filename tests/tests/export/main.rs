//! `tcptrace export`, read by the programs that it exports for.
//!
//! Needs root and `ip`; Java, a browser, and Python with the packages of `tests/requirements.txt`: `cargo xtask setup --tests`.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use tcptrace_tests::ability::need_root;
use tcptrace_tests::program::{Finished, binary, run, run_command};
use tcptrace_tests::sockets::{accept, address, bound_to, connect, listen, socket};
use tcptrace_tests::{End, Namespace, Tracer};

/// The recorded traces, and their data set.
struct Exported {
    folder: PathBuf,
    traces: [String; 2],
}

impl Exported {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The rows that the program prints of both traces.
    fn printed(&self, args: &[&str]) -> Vec<Value> {
        let finished = run(&[args, &self.traces.each_ref().map(String::as_str)].concat());
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        finished.rows()
    }
}

/// Two traces, made once.
fn exported() -> &'static Exported {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        need_root();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("export");
        // Removes the data set of the previous run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let traces = ["one", "two"].map(|name| folder.join(name).to_str().expect("UTF-8").to_owned());
        let exported = Exported { folder, traces };
        for trace in &exported.traces {
            record(trace);
            for rows in ["connections", "transitions"] {
                let finished = export(&[trace, "--format", "parquet", "--rows", rows, "-o", &exported.path("data")]);
                assert_eq!(finished.code(), 0, "{}", finished.stderr);
            }
        }
        exported
    })
}

fn export(args: &[&str]) -> Finished {
    run(&[&["export"], args].concat())
}

/// Connections of several kinds: most of their TIME_WAITs end at once, because new connections reuse their ports.
fn record(trace: &str) {
    let net = Namespace::enter_unwatched();
    let tracer = Tracer::start_in(&net, &["record", "-o", trace]);
    let listener = listen("127.0.0.1");
    let ipv6 = listen("::1");
    let nobody = address(&listen("127.0.0.1"));
    let first = bound_to(([127, 0, 0, 1], 0).into());
    first.connect(&address(&listener).into()).expect("connect");
    let mut client = End::from(first);
    let mut server = accept(&listener);
    for _ in 0..20 {
        client.send(100);
        server.receive(100);
        client.finish_sending();
        server.receive_end();
        server.close();
        client.receive_end();
        client.close();
        let again = bound_to(client.local);
        again.connect(&address(&listener).into()).expect("connect from the same port");
        client = End::from(again);
        server = accept(&listener);
        socket().connect(&nobody.into()).expect_err("nobody listens");
        let (mut one, mut other) = connect(&ipv6);
        one.reset();
        other.receive_reset();
        other.close();
    }
    client.reset();
    server.receive_reset();
    server.close();
    // These stay half closed.
    let _open = [(); 3].map(|()| {
        let (mut client, server) = connect(&listener);
        client.close();
        server.receive_end();
        server
    });
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
}

/// The expected data set, from the JSON lines of the same traces.
fn expected(exported: &Exported) -> Value {
    let connections = exported.printed(&["export", "--format", "jsonl"]);
    let transitions = exported.printed(&["export", "--format", "jsonl", "--rows", "transitions"]);
    assert!(connections.len() > 200 && transitions.len() > 500, "{} {}", connections.len(), transitions.len());
    let mut closers = BTreeMap::<String, [Option<u64>; 5]>::new();
    let mut states = BTreeMap::<String, [u64; 3]>::new();
    let mut ports = BTreeMap::<String, u64>::new();
    for row in &connections {
        let sums = closers.entry(text(&row["closer"])).or_default();
        let counted = [
            Some(1),
            Some(row["time_wait_ns"].is_u64().into()),
            row["time_wait_ns"].as_u64(),
            row["bytes_sent"].as_u64(),
            Some((row["complete"] == true).into()),
        ];
        for (sum, value) in sums.iter_mut().zip(counted) {
            *sum = value.map_or(*sum, |value| Some(sum.unwrap_or(0) + value));
        }
        for stay in row["states"].as_array().expect("states") {
            let sums = states.entry(text(&stay["state"])).or_default();
            let counted = [1, stay["ns"].as_u64().expect("ns"), (stay["at_least"] == true).into()];
            sums.iter_mut().zip(counted).for_each(|(sum, value)| *sum += value);
        }
        let remote: std::net::SocketAddr = text(&row["remote"]).parse().expect("an address");
        *ports.entry(format!("{} {}", remote.ip(), remote.port())).or_default() += 1;
    }
    let mut changes = BTreeMap::<String, [Option<u64>; 2]>::new();
    for row in &transitions {
        let [count, sum] = changes.entry(format!("{} {}", text(&row["old"]), text(&row["new"]))).or_default();
        *count = Some(count.unwrap_or(0) + 1);
        *sum = row["held_ns"].as_u64().map_or(*sum, |ns| Some(sum.unwrap_or(0) + ns));
    }
    assert!(closers["active"][2].is_some_and(|ns| ns > 0), "no TIME_WAIT was seen: {closers:?}");
    json!({ "closers": closers, "states": states, "transitions": changes, "ports": ports })
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// An engine's results for the data set.
fn queried(exported: &Exported, engine: &str) -> Value {
    let scratch = exported.path(engine);
    fs::create_dir_all(&scratch).expect("a folder");
    python("query.py", &[engine, &exported.path("data"), &scratch])
}

/// The output of a script in this folder.
fn python(script: &str, args: &[&str]) -> Value {
    let mut command = Command::new(interpreter());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(script)).args(args);
    let finished = run_command(command);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    serde_json::from_str(finished.text().lines().last().expect("a line")).expect("JSON")
}

fn interpreter() -> PathBuf {
    let set = std::env::var_os("TCPTRACE_TEST_PYTHON").map(PathBuf::from);
    let python = set.unwrap_or_else(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("Cargo's target directory");
        target.join("python/bin/python")
    });
    assert!(python.exists(), "{} is missing: run `cargo xtask setup --tests`", python.display());
    python
}

fn assert_agrees(engine: &str) {
    let exported = exported();
    let mut said = queried(exported, engine);
    let [places, times, totals] =
        ["places", "times", "report"].map(|key| said.as_object_mut().expect("an object").remove(key).expect("a part"));
    assert_agrees_with_report(exported, engine, &totals);
    let expected = expected(exported);
    for (what, expected) in expected.as_object().expect("an object") {
        assert_eq!(said[what], *expected, "{engine}: {what}");
    }
    let connections = exported.printed(&["export", "--format", "jsonl", "--ended"]);
    let mut closed: Vec<i64> = connections.iter().map(|row| unix_ns(&text(&row["closed"]))).collect();
    closed.sort_unstable();
    assert_eq!(times, json!([closed.len(), closed.first(), closed.last()]), "{engine}");
    let [host, boot_id] = ["kernel/hostname", "kernel/random/boot_id"]
        .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).expect("a name").trim().to_owned());
    for place in places.as_array().expect("places") {
        let words = text(place);
        let words: Vec<&str> = words.split(' ').collect();
        assert!(["connections", "transitions"].contains(&words[0]), "{words:?}");
        assert_eq!(words[2..], [host.as_str(), boot_id.as_str()]);
    }
}

/// Counts and sums equal those of the report of both traces.
fn assert_agrees_with_report(exported: &Exported, engine: &str, said: &Value) {
    let rows = exported.printed(&["report", "--format", "json"]);
    let of = |event: &str| rows.iter().filter(move |row| row["event"] == event).collect::<Vec<_>>();
    let counts = of("report_count");
    for property in ["closer", "end"] {
        let counts = counts.iter().filter(|row| row["property"] == property);
        let expected: Value = counts.map(|row| (text(&row["value"]), row["connections"].clone())).collect();
        assert_eq!(said[property], expected, "{engine}: {property}");
    }
    let states = of("report_state");
    assert_eq!(states.len(), 3);
    for row in states {
        let state = text(&row["state"]);
        assert_eq!(said["exact"][&state], json!([row["min_ns"], row["max_ns"]]), "{engine}: {state}");
    }
    let report = of("report")[0];
    assert_eq!([&report["bytes_sent"], &report["open"]], [&said["bytes_sent"], &said["open"]], "{engine}");
    // Both ends of the half-closed connections, in both traces, and any other whose end had not been seen.
    let open = said["open"].as_u64().expect("a number");
    assert!((12..24).contains(&open), "{engine}: {open}");
}

/// RFC 3339 in UTC with 9 digits, of a day between 1970 and 2100.
fn unix_ns(time: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| time[range].parse::<i64>().expect("a number");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    let leap = |year: i64| i64::from(year % 4 == 0);
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: i64 = lengths.iter().zip(1..month).map(|(days, _)| days).sum();
    let days = (1970..year).map(|year| 365 + leap(year)).sum::<i64>() + before + day - 1;
    let seconds = ((days * 24 + part(11..13)) * 60 + part(14..16)) * 60 + part(17..19);
    seconds * 1_000_000_000 + part(20..29)
}

#[test]
fn duckdb_reads_the_data_set() {
    assert_agrees("duckdb");
}

#[test]
fn spark_reads_the_data_set() {
    assert_agrees("spark");
}

/// `export` writes the same bytes as `replay`, to standard output and to a file.
#[test]
fn lines_are_those_of_replay() {
    let exported = exported();
    let trace = exported.traces[0].as_str();
    for (to, format) in [("jsonl", "json"), ("csv", "csv")] {
        for (rows, replayed) in [("connections", &["--rows", "connections"][..]), ("transitions", &[])] {
            let replay = run(&[&["replay", trace, "--format", format], replayed].concat());
            let printed = export(&[trace, "--format", to, "--rows", rows, "--ended"]);
            assert_eq!((printed.code(), replay.code()), (0, 0), "{}{}", printed.stderr, replay.stderr);
            // Except the last row, which is about the command.
            let summary = replay.text().lines().last().filter(|line| line.starts_with(r#"{"event":"summary""#));
            assert_eq!(summary.is_some(), format == "json");
            let summed_up = summary.map_or(0, |line| line.len() + 1);
            let replayed = &replay.stdout[..replay.stdout.len() - summed_up];
            assert!(printed.stdout.len() > 1000 && printed.stdout == replayed, "{to} {rows}");
            let file = exported.path(&format!("{rows}.{to}"));
            let written = export(&[trace, "--format", to, "--rows", rows, "--ended", "-o", &file]);
            assert_eq!((written.code(), written.text()), (0, ""), "{}", written.stderr);
            assert!(fs::read(&file).expect("a file") == printed.stdout, "{to} {rows} in a file");
        }
    }
}

/// A connection that closed first was in TIME_WAIT when the trace ended: a filter for its closer must keep it.
#[test]
fn open_connections_are_exported_unless_left_out() {
    let trace = exported().traces[0].as_str();
    let lines = |more: &[&str]| {
        let finished = export(&[&[trace, "--format", "jsonl"], more].concat());
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        let rows = finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON"));
        rows.collect::<Vec<Value>>()
    };
    let (all, ended) = (lines(&[]), lines(&["--ended"]));
    assert_eq!(all[..ended.len()], ended, "they follow those that ended");
    assert!(ended.iter().all(|row| row["event"] == "connection" && row["closed"].is_string()));
    let open = &all[ended.len()..];
    assert!(open.iter().all(|row| row["event"] == "open" && row["closed"].is_null() && row["end"].is_null()));
    // Both ends of the three half-closed connections, whether or not the first FIN was acknowledged.
    let left = |closer: &str, states: &[&str]| {
        let those = open.iter().filter(|row| row["closer"] == closer);
        those.filter(|row| states.iter().any(|state| row["state"] == *state)).count()
    };
    assert_eq!(left("active", &["FIN_WAIT1", "FIN_WAIT2"]), 3, "{open:?}");
    assert_eq!(left("passive", &["CLOSE_WAIT"]), 3, "{open:?}");
    assert_eq!(lines(&["--open"]), all, "an option of older scripts");
    let csv = export(&[trace, "--format", "csv"]);
    assert_eq!(csv.text().lines().filter(|line| line.starts_with("open,")).count(), open.len());
    let transitions = export(&[trace, "--format", "jsonl", "--rows", "transitions"]);
    assert!(!transitions.text().contains("\"event\":\"open\""), "they are no transitions");
}

/// A trace that is already part of a data set is not added a second time.
#[test]
fn a_trace_is_not_exported_twice() {
    let exported = exported();
    let (trace, data) = (exported.traces[0].as_str(), exported.path("data"));
    let again = export(&[trace, "--format", "parquet", "-o", &data]);
    assert_eq!(again.code(), 1);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    let elsewhere = exported.path("elsewhere");
    for force in [&[][..], &["--force"]] {
        let finished = export(&[&[trace, "--format", "parquet", "-o", &elsewhere], force].concat());
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
    }
}

/// The time axis has every connection, with its states at their times.
#[test]
fn a_time_axis_for_perfetto() {
    let exported = exported();
    let printed = run(&["export", &exported.traces[0], "--format", "perfetto"]);
    assert_eq!(printed.code(), 0, "{}", printed.stderr);
    let axis: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let events = axis["traceEvents"].as_array().expect("events");
    let lines = run(&["export", &exported.traces[0], "--format", "jsonl", "--ended"]);
    let rows: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lives = events.iter().filter(|event| event["ph"] == "b" && event["args"]["event"] == "connection");
    let lives: Vec<&Value> = lives.map(|event| &event["args"]).collect();
    assert!(lives.len() > 100 && lives == rows.iter().collect::<Vec<_>>(), "{} of {}", lives.len(), rows.len());
    let state = |phase: &str, state: &str| {
        let events = events.iter().filter(move |event| event["ph"] == phase && event["name"] == state);
        events.map(|event| event["ts"].as_f64().expect("a time")).sum::<f64>()
    };
    let drawn = state("e", "TIME_WAIT") - state("b", "TIME_WAIT");
    let told: u64 = rows.iter().filter_map(|row| row["time_wait_ns"].as_u64()).sum();
    // Within the accuracy of a browser's numbers.
    assert!(told > 0 && (drawn * 1000.0 - told as f64).abs() < 100.0 * rows.len() as f64, "{drawn} µs, {told} ns");
}

/// Perfetto's UI finds every connection below the process that owns it, and every state in its connection.
#[test]
fn perfetto_opens_the_time_axis() {
    let exported = exported();
    let axis = exported.path("axis.json");
    let written = export(&[&exported.traces[0], "--format", "perfetto", "-o", &axis]);
    assert_eq!(written.code(), 0, "{}", written.stderr);
    let found = python(
        "perfetto.py",
        &[
            &axis,
            "select process.name, track.name, count(*) from slice join process_track track on slice.track_id = track.id \
         join process using (upid) where depth = 0 group by 1, 2",
            "select state.name, count(*), sum(state.dur) from slice state join slice life on state.parent_id = life.id \
         where life.depth = 0 group by 1",
            "select name, value from stats where value > 0 and severity != 'info'",
        ],
    );
    let lines = run(&["export", &exported.traces[0], "--format", "jsonl"]);
    let rows = lines.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (mut lives, mut states) = (BTreeMap::<[String; 2], u64>::new(), BTreeMap::<String, (u64, u64)>::new());
    for row in rows {
        let owner = row["comm"].as_str();
        let process = owner.map_or_else(|| "no owner".to_owned(), |comm| format!("{comm}[{}]", row["pid"]));
        let (kind, end) = if row["side"] == "client" { ("client of", "remote") } else { ("server at", "local") };
        *lives.entry([process, format!("{kind} {}", text(&row[end]))]).or_default() += 1;
        for stay in row["states"].as_array().expect("states") {
            let (count, ns) = states.entry(text(&stay["state"])).or_default();
            *count += 1;
            *ns += stay["ns"].as_u64().unwrap_or(0);
        }
    }
    let answers = |index: usize| found[index].as_array().expect("rows").iter();
    let drawn = answers(0).map(|row| {
        let process = text(&row[0]);
        let (process, _host) = process.split_once(" on ").expect("a process on a host");
        ([process.to_owned(), text(&row[1])], row[2].as_u64().expect("a number"))
    });
    assert_eq!(drawn.collect::<BTreeMap<_, _>>(), lives);
    let drawn = answers(1).map(|row| (text(&row[0]), [1, 2].map(|field| row[field].as_u64().expect("a number"))));
    let drawn: BTreeMap<_, _> = drawn.collect();
    for (state, (count, ns)) in states {
        // The UI shows whole nanoseconds, but parses floating-point numbers.
        let [drawn, drawn_ns] = drawn[&state];
        assert!(
            drawn == count && drawn_ns.abs_diff(ns) <= 200 * count,
            "{state}: {drawn} {drawn_ns}, not {count} {ns}"
        );
    }
    assert_eq!(found[2], json!([]), "what Perfetto found fault with");
}

#[test]
fn wrong_usage() {
    for (args, said) in [
        (&["t", "--format", "parquet"][..], "--output"),
        (&["t", "--format", "perfetto", "--rows", "transitions"], "transitions"),
        (&["t"], "--format"),
        (&["--format", "jsonl"], "FILE"),
    ] {
        let finished = export(args);
        assert_eq!((finished.code(), finished.text()), (2, ""), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(said), "{args:?}: {}", finished.stderr);
    }
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The trace comes through a pipe that stays open, so the export does not end by itself.
#[test]
fn a_signal_leaves_no_unfinished_file() {
    let trace = fs::read(&exported().traces[0]).expect("it was recorded");
    for (signal, format) in [(Signal::SIGTERM, "csv"), (Signal::SIGHUP, "parquet"), (Signal::SIGINT, "perfetto")] {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).expect("make a pipe");
        let mut command = Command::new(binary());
        command.args(["export", "--format", format, "-o"]).arg(folder.path().join("out")).arg(&pipe);
        let mut child = command.stderr(Stdio::null()).spawn().expect("run it");
        let mut writer = fs::OpenOptions::new().write(true).open(&pipe).expect("it reads the pipe");
        writer.write_all(&trace).expect("it goes on reading");
        while !files_below(folder.path()).iter().any(|path| path.extension().is_some_and(|end| end == "tmp")) {
            assert!(child.try_wait().expect("it is ours").is_none(), "{format}: it has ended");
            std::thread::yield_now();
        }
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
        assert_eq!(child.wait().expect("it is ours").signal(), Some(signal as i32), "{format}");
        assert_eq!(files_below(folder.path()), [pipe], "{format}");
    }
}
