//! The command line, as people and scripts rely on it.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use tcptrace_tests::ability::{is_root, need_root};
use tcptrace_tests::process::aside;
use tcptrace_tests::program::{Finished, binary, copy_for_everybody, run, run_command};
use tcptrace_tests::sockets::{address, connect, listen, socket};
use tcptrace_tests::{Namespace, Tracer};

const USAGE: i32 = 2;

fn assert_usage_error(args: &[&str], said: &[&str]) {
    let finished = run(args);
    assert_eq!(finished.code(), USAGE, "{args:?}: {}", finished.stderr);
    assert_eq!(finished.text(), "", "{args:?}");
    for words in said {
        assert!(finished.stderr.contains(words), "{args:?} does not mention {words}: {}", finished.stderr);
    }
}

#[test]
fn help() {
    let finished = run(&["--help"]);
    assert_eq!(finished.code(), 0);
    let listed = finished.text().lines().skip_while(|line| *line != "Commands:").skip(1);
    // Continuation lines are indented further.
    let listed = listed.take_while(|line| !line.is_empty()).filter(|line| line.as_bytes().get(2) != Some(&b' '));
    let listed: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    for command in
        ["watch", "connections", "record", "replay", "snapshot", "timeline", "export", "report", "check", "diagnose"]
    {
        assert!(listed.contains(&command), "{}", finished.text());
    }
    for command in listed.into_iter().filter(|command| *command != "help") {
        let finished = run(&[command, "--help"]);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        let has_format = finished.text().contains("--format <FORMAT>");
        assert_eq!(has_format, !["record", "completions"].contains(&command), "{}", finished.text());
        assert!(finished.text().contains("Examples:\n  "), "{}", finished.text());
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn version() {
    let finished = run(&["--version"]);
    assert_eq!((finished.code(), finished.text()), (0, concat!("tcptrace ", env!("CARGO_PKG_VERSION"), "\n")));
}

/// Programs that read the output can rely on a schema that is a JSON Schema itself.
#[test]
fn schema() {
    let schema: serde_json::Value = serde_json::from_str(run(&["schema", "--format", "json"]).text()).expect("JSON");
    assert_eq!(schema["$defs"]["watch"]["properties"]["held_ns"]["x-unit"], "ns");
    assert_eq!(schema["$defs"]["watch"]["properties"]["held_ns"]["type"], serde_json::json!(["integer", "null"]));
    assert!(run(&["schema"]).text().contains("held_ns"));
}

#[test]
fn wrong_usage() {
    assert_usage_error(&[], &["Usage"]);
    assert_usage_error(&["no-such-command"], &["no-such-command"]);
    assert_usage_error(&["watch", "--no-such-option"], &["--no-such-option"]);
    assert_usage_error(&["watch", "leftover"], &["leftover"]);
}

/// An error names the wrong word and the nearest correct one.
#[test]
fn wrong_values() {
    assert_usage_error(&["watch", "--format", "bogus"], &["bogus", "text", "json", "csv"]);
    assert_usage_error(&["connections", "--format", "bogus"], &["bogus", "text", "json", "csv"]);
    assert_usage_error(&["watch", "--state", "bogus"], &["bogus", "TIME_WAIT", "CLOSE_WAIT", "SYN_SENT"]);
    assert_usage_error(&["snapshot", "--state", "close-wiat"], &["'close-wiat'", "similar value exists: 'CLOSE_WAIT'"]);
    assert_usage_error(&["connections", "--closer", "reset"], &["'reset'", "similar value exists: 'reset_"]);
    assert_usage_error(&["export", "t"], &["--format"]);
    assert_usage_error(&["replay", "--connections", "--rows", "transitions", "t"], &["--connections", "--rows"]);
    assert_usage_error(&["watch", "--closer", "bogus"], &["bogus", "active", "passive", "reset_local"]);
    assert_usage_error(&["watch", "--addr", "10.0.0.0/33"], &["10.0.0.0/33"]);
    assert_usage_error(&["watch", "--port", "0"], &["0"]);
    assert_usage_error(&["watch", "--port", "65536"], &["65536"]);
    assert_usage_error(&["watch", "--pid", "init"], &["init"]);
    assert_usage_error(&["watch", "--min-duration", "5"], &["'5'"]);
    assert_usage_error(&["watch", "--duration", "-1s"], &[]);
    assert_usage_error(&["watch", "-4", "-6"], &["-4", "-6"]);
}

/// One sentence that names what to use instead.
#[test]
fn top_needs_a_terminal() {
    let finished = run(&["top"]);
    assert_eq!((finished.code(), finished.text()), (1, ""), "{}", finished.stderr);
    for words in ["tcptrace watch", "tcptrace snapshot", "--once"] {
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
    assert_usage_error(&["top", "--speed", "2"], &["<FILE>"]);
    assert_usage_error(&["top", "--format", "json"], &["--once"]);
}

/// One sentence that names the missing feature, and no more.
#[test]
fn without_privileges() {
    const NOBODY: u32 = 65_534;
    let copy = copy_for_everybody("unprivileged");
    for command in ["watch", "connections", "check"] {
        let finished = {
            let mut nobodys = Command::new(&copy);
            nobodys.arg(command);
            if is_root() {
                nobodys.uid(NOBODY).gid(NOBODY);
            }
            run_command(nobodys)
        };
        assert_eq!(finished.code(), 1, "{command}: {}", finished.stderr);
        assert_eq!(finished.text(), "", "{command}");
        assert_eq!(finished.stderr.lines().count(), 1, "{command}: {}", finished.stderr);
        assert!(finished.stderr.starts_with("tcptrace: "), "{command}: {}", finished.stderr);
        let names_it = ["root", "CAP_BPF"].iter().any(|word| finished.stderr.contains(word));
        assert!(names_it, "{command}: {}", finished.stderr);
    }
    fs::remove_file(&copy).expect("remove the copy");
}

#[test]
fn check() {
    need_root();
    let finished = run(&["check"]);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(finished.text().contains("TIME_WAIT"), "{}", finished.text());
    let finished = run(&["check", "--format", "json"]);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    for line in finished.text().lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("one object a line");
    }
}

/// Data goes to stdout, everything else to stderr, and the closing line comes last.
fn assert_summary(finished: &Finished) {
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.first(), Some(&"tcptrace: ready"), "{}", finished.stderr);
    let summary = lines.last().expect("a summary");
    for word in ["seen", "lost", "followed", "filtered out"] {
        assert!(summary.contains(word), "{summary}");
    }
}

/// SIGINT ends it in order, even while it prints that it is ready.
#[test]
fn interrupted() {
    for command in ["watch", "connections"].repeat(5) {
        assert_summary(&Tracer::start(&[command]).interrupt());
    }
}

/// Rows from before the interrupt are printed and counted.
#[test]
fn interrupted_after_rows() {
    let net = Namespace::enter_unwatched();
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json"]);
    let (mut client, _server) = connect(&listen("127.0.0.1"));
    client.reset();
    let finished = tracer.interrupt();
    assert_summary(&finished);
    let to_the_end = finished.text().lines().any(|line| line.contains(r#""reason":"reset_linger0""#));
    assert!(to_the_end, "{}", finished.text());
}

#[test]
fn ends_by_itself() {
    need_root();
    let begun = Instant::now();
    let finished = run(&["watch", "--duration", "1s"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_summary(&finished);
}

/// `tcptrace watch | head -n 1`: a reader that closes its pipe is no failure.
#[test]
fn reader_goes_away() {
    let net = Namespace::enter_unwatched();
    let nobody = address(&listen("127.0.0.1"));
    for format in ["text", "json", "csv"] {
        let script =
            format!("\"$0\" watch --format {format} --netns {} | head -n 1; echo \"${{PIPESTATUS[0]}}\"", net.inode());
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).arg(binary());
        let output = aside(move || bash.output().expect("run bash"));
        let output = loop {
            match output.try_recv() {
                Ok(output) => break output,
                Err(gone) => assert_eq!(gone, TryRecvError::Empty),
            }
            socket().connect(&nobody.into()).expect_err("nobody listens");
            std::thread::sleep(Duration::from_millis(10));
        };
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        let lines: Vec<_> = stdout.lines().collect();
        assert_eq!((lines.len(), lines.last()), (2, Some(&"0")), "{format}: {stdout}{stderr}");
        for word in ["pipe", "panic", "error"] {
            assert!(!stderr.contains(word), "{format}: {stderr}");
        }
    }
}

/// The header is printed at once, so that a reader knows the columns before the first row.
#[test]
fn csv_has_a_header() {
    let tracer = Tracer::start(&["watch", "--format", "csv"]);
    let header = tracer.text("\n");
    for field in ["time", "conn", "old", "new", "held_ns"] {
        assert!(header.lines().next().expect("a line").split(',').any(|name| name == field), "{header}");
    }
}

/// A shell that runs the program as `"$T"`, with its output and its exit status on stderr.
fn shell(script: &str) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("T", binary());
    let finished = run_command(bash);
    assert_eq!(finished.text(), "", "{script}");
    finished.stderr
}

/// A failed write to stdout is a failure: `&&` must not go on.
#[test]
fn output_that_goes_nowhere_is_a_failure() {
    need_root();
    for args in ["--help", "--version", "watch --help", "schema", "schema --format json", "check", "completions bash"] {
        let full = shell(&format!("\"$T\" {args} >/dev/full; echo \" status $?\" >&2"));
        assert!(full.contains("No space left on device") && full.ends_with(" status 1\n"), "{args}: {full}");
        let closed = shell(&format!("\"$T\" {args} >&-; echo \" status $?\" >&2"));
        assert!(closed.contains("it is closed") && closed.ends_with(" status 1\n"), "{args}: {closed}");
        let nobody = shell(&format!("\"$T\" {args} | true; echo \"status ${{PIPESTATUS[0]}}\" >&2"));
        assert_eq!(nobody, "status 0\n", "{args}");
        let unwanted = shell(&format!("\"$T\" {args} >/dev/null; echo \"status $?\" >&2"));
        assert_eq!(unwanted, "status 0\n", "{args}");
    }
}

/// File names may come from archives and from other users, so they are escaped.
#[test]
fn what_is_typed_does_not_steer_the_terminal() {
    const NAME: &str = "x\x1b[31m\u{202e}\ny";
    // A folder that does not exist.
    let path = format!("{NAME}/out");
    let commands: [&[&str]; 8] = [
        &[NAME],
        &["replay", NAME],
        &["replay", "--since", NAME, "f"],
        &["watch", "--state", NAME],
        &["watch", "--netns", NAME],
        &["watch", NAME],
        &["export", "--format", "csv", "-o", &path, "f"],
        &["report", "--html", &path, "f"],
    ];
    for args in commands {
        let finished = run(args);
        assert_ne!(finished.code(), 0, "{args:?}");
        assert!(finished.stderr.contains("\\x1b[31m\\u{202e}"), "{args:?}: {}", finished.stderr);
        let is_raw = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
        assert!(!finished.stderr.contains(is_raw) && !finished.stderr.contains("\ny"), "{args:?}: {}", finished.stderr);
    }
}

/// Old names of options still work, and are hidden.
#[test]
fn older_spellings() {
    need_root();
    let net = Namespace::enter_unwatched();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.tct");
    let trace = trace.to_str().expect("UTF-8");
    let tracer = Tracer::start_in(&net, &["record", "-o", trace]);
    let (mut client, _server) = connect(&listen("127.0.0.1"));
    client.reset();
    assert_eq!(tracer.interrupt().code(), 0);
    let said = |options: &str| {
        let args: Vec<_> = options.split(' ').chain([trace]).collect();
        let finished = run(&args);
        assert_eq!(finished.code(), 0, "{options}: {}", finished.stderr);
        assert!(!finished.stdout.is_empty(), "{options}: {}", finished.stderr);
        finished.text().to_owned()
    };
    for (old, new) in [
        ("replay --from 0s --to 1h", "replay --since 0s --until 1h"),
        ("replay --to 0s --format csv", "replay --until 0s --format csv"),
        ("report --from 0s --to 1h", "report --since 0s --until 1h"),
        ("timeline --from 0s --to 1h --ascii", "timeline --since 0s --until 1h --ascii"),
        ("replay --connections", "replay --rows connections"),
        ("replay", "replay --rows transitions"),
        ("replay --no-color", "replay --color=never"),
        ("report --no-color", "report --color=never"),
        ("export --to jsonl", "export --format jsonl"),
        ("export --to csv --rows transitions --from 0s", "export --format csv --rows transitions --since 0s"),
        ("export --to jsonl --open", "export --format jsonl"),
        ("export --to jsonl --until 1h", "export --format jsonl --until 1h"),
    ] {
        assert_eq!(said(old), said(new), "{old}");
    }
    assert_eq!(said("replay --state listening"), said("replay --state LISTEN"));
}

#[test]
fn too_few_descriptors_are_said() {
    need_root();
    for command in ["watch", "record -o /dev/null", "check"] {
        let said = shell(&format!("ulimit -n 8; \"$T\" {command}; echo \" status $?\" >&2"));
        assert!(said.contains("ulimit -n") && said.ends_with(" status 1\n"), "{command}: {said}");
    }
}

/// An unknown rule is wrong usage, and the nearest one is named.
#[test]
fn rules_of_diagnose() {
    for option in ["--only", "--skip", "--explain"] {
        assert_usage_error(&["diagnose", option, "close-wait-lek"], &["close-wait-lek", "close-wait-leak"]);
    }
    assert_usage_error(&["diagnose", "--since", "1s"], &["FILE"]);
    assert_usage_error(&["diagnose", "--duration", "1s", "trace"], &["--duration"]);
    let rules = run(&["diagnose", "--rules", "--format", "json"]);
    assert_eq!(rules.code(), 0, "{}", rules.stderr);
    for row in rules.rows() {
        let id = row["id"].as_str().expect("an id");
        let page = run(&["diagnose", "--explain", id]);
        assert!(page.code() == 0 && page.text().starts_with(id), "{}", page.stderr);
    }
}

/// Without privileges there is one look, which says what it could not see.
#[test]
fn diagnose_without_privileges() {
    const NOBODY: u32 = 65_534;
    let copy = copy_for_everybody("diagnoses");
    let mut nobodys = Command::new(&copy);
    nobodys.args(["diagnose", "--format", "json"]);
    if is_root() {
        nobodys.uid(NOBODY).gid(NOBODY);
    }
    let finished = run_command(nobodys);
    fs::remove_file(copy).expect("remove a copy");
    assert!([0, 4].contains(&finished.code()), "{}", finished.stderr);
    assert!(finished.stderr.contains("looking once instead, without eBPF"), "{}", finished.stderr);
    let rows = finished.rows();
    assert_eq!((&rows[0]["event"], &rows[0]["looked_ns"]), (&"diagnosis".into(), &0.into()), "{}", rows[0]);
    assert!(rows.iter().any(|row| row["event"] == "checked" && row["outcome"] != "not_checked"), "{rows:#?}");
}
