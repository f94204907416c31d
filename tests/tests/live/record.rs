//! Recordings: their contents, and what remains of them after failures.

mod armed;
mod bad_days;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tcptrace_tests::program::{Finished, binary, run, run_command};
use tcptrace_tests::{Namespace, Tracer, pair};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The replay of a trace with these options.
fn replay(files: &[&Path], options: &[&str]) -> Finished {
    let files = files.iter().map(|file| path(file));
    run(&[&["replay", "--format", "json"], options, &files.collect::<Vec<_>>()[..]].concat())
}

fn rows(finished: &Finished) -> Vec<Value> {
    finished.rows()
}

/// Some connections that end in different ways.
fn traffic() {
    for way in 0..4 {
        let (mut client, mut server) = pair();
        match way {
            0 => {
                client.close();
                server.receive_end();
                server.close();
            }
            1 => {
                server.finish_sending();
                client.receive_end();
                client.close();
                server.receive_end();
                server.close();
            }
            2 => client.reset(),
            _ => {
                server.reset();
                client.receive_reset();
            }
        }
    }
}

/// A trace that was recorded beside a live command replays to the same bytes.
fn live_and_replayed(command: &str, options: &[&str], replay_options: &[&str]) {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let before = pair();
    let live = [&[command, "--format", "json", "--record", path(&trace)], options].concat();
    let tracer = Tracer::start_in(&net, &live);
    traffic();
    drop(before);
    traffic();
    let last = pair();
    net.transition(&last.0, "SYN_SENT", "ESTABLISHED");
    let live = tracer.interrupt();
    assert_eq!(live.code(), 0, "{}", live.stderr);
    assert!(live.text().lines().count() > 7, "{}", live.text());
    let replayed = replay(&[&trace], replay_options);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr);
    // The summary row, too, has the numbers of the closing line.
    assert_eq!(replayed.text(), live.text());
    let summary = live.summary();
    assert_eq!(
        [&summary["exit"], &summary["lost"], &summary["damaged"]],
        [&json!(0), &json!({}), &json!(0)],
        "{summary}"
    );
    let [seen, followed, filtered] = ["seen", "followed", "filtered"].map(|name| &summary[name]);
    let closing = format!("{seen} transitions seen, 0 lost, {followed} sockets followed, {filtered} filtered out");
    assert!(live.stderr.contains(&closing), "{summary} and {}", live.stderr);
    assert!(seen.as_u64() > Some(7) && followed.as_u64() >= Some(2), "{summary}");
}

#[test]
fn watch_replays_to_the_same_bytes() {
    live_and_replayed("watch", &[], &[]);
}

#[test]
fn watch_with_reports_replays_to_the_same_bytes() {
    let stuck = ["--report-stuck", "20ms"];
    live_and_replayed("watch", &stuck, &stuck);
}

#[test]
fn connections_replay_to_the_same_bytes() {
    live_and_replayed("connections", &["--at-close"], &["--rows", "connections", "--at-close"]);
}

/// Filters of the recording apply to its readers, too.
#[test]
fn filters_replay_to_the_same_bytes() {
    live_and_replayed("watch", &["--closer", "active"], &[]);
}

/// A recording by itself reports the same connections as the shared live tracers.
#[test]
fn alone() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let tracer = Tracer::start_in(&net, &["record", "--output", path(&trace)]);
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();
    server.close();
    let told = net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    tracer.signal(Signal::SIGTERM);
    let finished = tracer.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let metadata = fs::metadata(&trace).expect("the trace");
    assert_eq!(metadata.mode() & 0o777, 0o600);

    let replayed = replay(&[&trace], &[]);
    let rows = rows(&replayed);
    let same = |row: &&Value| row["conn"] == told["conn"] && row["new"] == "TIME_WAIT";
    let row = rows.iter().find(same).expect("a TIME_WAIT");
    for field in ["old", "closer", "pid", "comm", "uid", "side", "local", "remote", "netns", "owner_source"] {
        assert_eq!(row[field], told[field], "{field}");
    }
    // Filters of the reader.
    let port = client.local.port().to_string();
    let ours = replay(&[&trace], &["--lport", &port]);
    assert!(ours.text().lines().count() > 3, "{}", ours.text());
    assert!(ours.text().lines().count() < rows.len(), "{}", ours.text());
}

#[test]
fn what_was_there_before_is_in_it() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let (client, server) = pair();
    client.finish_sending();
    net.transition(&server, "ESTABLISHED", "CLOSE_WAIT");
    let tracer = Tracer::start_in(&net, &["record", "--output", path(&trace)]);
    net.transition(&client, "FIN_WAIT1", "FIN_WAIT2");
    drop(server);
    net.transition(&client, "TIME_WAIT", "CLOSED");
    assert_eq!(tracer.interrupt().code(), 0);
    let rows = rows(&replay(&[&trace], &[]));
    let left = rows.iter().find(|row| row["old"] == "CLOSE_WAIT").expect("it was left");
    assert_eq!([&left["held_at_least"], &left["pid"]], [&json!(true), &json!(std::process::id())], "{left}");
}

/// Each file can be read alone, the oldest are removed, and the remaining ones read as one trace.
#[test]
fn rotation() {
    let (net, folder) = (Namespace::enter(), folder());
    let pattern = folder.path().join("trace.tct");
    let options = ["record", "--rotate", "6K", "--max-files", "3", "--output", path(&pattern)];
    let tracer = Tracer::start_in(&net, &options);
    let _open = pair();
    wait_until(|| {
        traffic();
        files(folder.path()).iter().filter_map(|file| number_of(file)).max() >= Some(6)
    });
    // If the machine stalls, a file may contain only clocks.
    (0..20).for_each(|_| traffic());
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let files = files(folder.path());
    assert_eq!(files.len(), 3, "{files:?}");
    let mut sum = 0;
    for file in &files {
        let alone = replay(&[file], &[]);
        assert_eq!(alone.code(), 0, "{file:?}: {}", alone.stderr);
        sum += alone.text().lines().count();
    }
    let paths: Vec<&Path> = files.iter().rev().map(PathBuf::as_path).collect();
    let together = replay(&paths, &[]);
    assert_eq!(together.code(), 0, "{}", together.stderr);
    let count = together.text().lines().count();
    // A connection in two files is reported twice when they are read alone.
    assert!(count > 0 && count <= sum, "{count} of {sum}");
    // The next recording refuses to start where numbered files exist.
    let again = run(&options);
    assert_eq!(again.code(), 1, "{}", again.stderr);
    assert!(again.stderr.contains("the file exists"), "{}", again.stderr);
    // Without the file in the middle, there is a gap, and nothing is invented.
    let gap = replay(&[paths[0], paths[2]], &[]);
    assert_eq!(gap.code(), 3, "{}", gap.stderr);
    assert!(gap.stderr.contains("missing"), "{}", gap.stderr);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

fn number_of(file: &Path) -> Option<u32> {
    path(file).strip_suffix(".tct")?.rsplit_once('.')?.1.parse().ok()
}

/// A file that is still empty does not keep the others from being read.
#[test]
fn size() {
    let (net, folder) = (Namespace::enter(), folder());
    let [trace, empty] = ["trace", "empty"].map(|name| folder.path().join(name));
    fs::write(&empty, "").expect("a file");
    let tracer = Tracer::start_in(&net, &["record", "--max-size", "32K", "--output", path(&trace)]);
    wait_until(|| {
        traffic();
        tracer.complaints().contains("all that --max-size allows")
    });
    let finished = tracer.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let len = fs::metadata(&trace).expect("the trace").len();
    assert!((1..=32 << 10).contains(&len), "{len} bytes");
    let replayed = replay(&[&empty, &trace], &[]);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr);
    assert!(replayed.text().lines().count() > 3, "{}", replayed.text());
    assert_eq!(replay(&[&empty], &[]).code(), 1);
}

/// The flight recorder writes when asked, and goes on.
#[test]
fn last() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace.tct");
    let tracer = Tracer::start_in(&net, &["record", "--last", "1h", "--output", path(&trace)]);
    traffic();
    let (mut client, server) = pair();
    net.transition(&server, "SYN_RECV", "ESTABLISHED");
    assert!(!trace.exists());
    tracer.signal(Signal::SIGUSR1);
    wait_until(|| trace.exists() && replay(&[&trace], &[]).text().contains("\"ESTABLISHED\""));
    client.reset();
    net.transition(&client, "ESTABLISHED", "CLOSED");
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let second = folder.path().join("trace.0002.tct");
    let port = client.local.port().to_string();
    let count = |trace: &Path| replay(&[trace], &["--lport", &port]).rows().len();
    assert_eq!([count(&trace), count(&second)], [2, 3], "opened; opened and reset");
}

fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..1_200 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    unreachable!("it has not come to that within a minute");
}

#[test]
fn nothing_is_overwritten() {
    let (_net, folder) = (Namespace::enter(), folder());
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "precious").expect("a file");
    symlink(&file, &link).expect("a link");
    for (output, force, reason) in [
        (&file, false, "the file exists; --force replaces it"),
        (&link, false, "the file exists"),
        (&link, true, "symbolic link"),
        (&folder.path().to_owned(), true, "directory"),
        (&folder.path().join("none/file"), false, "No such file"),
    ] {
        let force: &[&str] = if force { &["--force"] } else { &[] };
        for options in [&[][..], &["--last", "1m"]] {
            let finished = run(&[&["record", "--duration", "0s", "--output", path(output)], force, options].concat());
            assert_eq!(finished.code(), 1, "{output:?} {force:?} {options:?}: {}", finished.stderr);
            assert!(finished.stderr.contains(reason), "{output:?} {force:?} {options:?}: {}", finished.stderr);
        }
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "precious");

    let replaced = run(&["record", "--force", "--duration", "0s", "--output", path(&file)]);
    assert_eq!(replaced.code(), 0, "{}", replaced.stderr);
    assert_eq!(fs::metadata(&file).expect("the file").mode() & 0o777, 0o600, "whatever it was before");
    assert_eq!(replay(&[&file], &[]).code(), 0);
}

/// As with `perf record`: the previous file is kept once, and no name is needed.
#[test]
fn the_default_file() {
    let (net, folder) = (Namespace::enter(), folder());
    let (trace, old) = (folder.path().join("tcptrace.tct"), folder.path().join("tcptrace.tct.old"));
    let recorder = |options: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["record", "--netns", &net.inode().to_string()]).args(options).current_dir(&folder);
        command
    };
    let record = |options: &[&str]| run_command(recorder(&[&["--duration", "0s"], options].concat()));
    let first = record(&[]);
    assert_eq!(first.code(), 0, "{}", first.stderr);
    assert!(first.stderr.contains(" in tcptrace.tct\n"), "{}", first.stderr);
    let inode = |file: &Path| fs::metadata(file).expect("a file").ino();
    let (oldest, is_old) = (inode(&trace), old.exists());
    assert!(!is_old);

    // A file that is being written stays in place.
    let running = Tracer::follow(recorder(&[]));
    wait_until(|| old.exists() && inode(&trace) != oldest);
    assert_eq!(inode(&old), oldest);
    let middle = inode(&trace);
    let refused = record(&[]);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("tcptrace.tct': another process is writing it"), "{}", refused.stderr);
    assert_eq!(running.interrupt().code(), 0);
    assert_eq!([inode(&old), inode(&trace)], [oldest, middle]);

    for options in [&[][..], &["--last", "1m"]] {
        let before = inode(&trace);
        let finished = record(options);
        assert_eq!(finished.code(), 0, "{options:?}: {}", finished.stderr);
        assert_eq!(inode(&old), before, "{options:?}");
        assert_eq!(replay(&[&trace], &[]).code(), 0, "{options:?}");
        assert_eq!(replay(&[&old], &[]).code(), 0, "{options:?}");
    }

    // Named files and numbered ones are replaced only with --force.
    let named = record(&["-o", "tcptrace.tct"]);
    assert!(named.code() == 1 && named.stderr.contains("--force replaces it"), "{}", named.stderr);
    assert_eq!(record(&["--rotate", "1M"]).code(), 0);
    let numbered = record(&["--rotate", "1M"]);
    assert!(numbered.code() == 1 && numbered.stderr.contains("--force replaces it"), "{}", numbered.stderr);

    // An empty file is replaced.
    let kept = inode(&old);
    fs::write(&trace, "").expect("an empty file");
    assert_eq!(record(&[]).code(), 0);
    assert_eq!(inode(&old), kept);
    let mut names: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(names, ["tcptrace.0001.tct", "tcptrace.tct", "tcptrace.tct.old"]);
}

#[test]
fn two_do_not_write_one_file() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let first = Tracer::start_in(&net, &["record", "--output", path(&trace)]);
    let second = run(&["record", "--force", "--duration", "0s", "--output", path(&trace)]);
    assert_eq!(second.code(), 1);
    assert!(second.stderr.contains("another process is writing it"), "{}", second.stderr);
    assert_eq!(first.interrupt().code(), 0);
    assert_eq!(replay(&[&trace], &[]).code(), 0);
}

/// tcptrace records a command until it ends, and exits with its status.
#[test]
fn commands() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let record = |command: &[&str]| {
        let netns = net.inode().to_string();
        run(&[&["record", "--force", "--netns", &netns, "--output", path(&trace), "--"], command].concat())
    };
    assert_eq!(record(&["true"]).code(), 0);
    assert_eq!(record(&["sh", "-c", "exit 7"]).code(), 7);
    assert_eq!(record(&["sh", "-c", "kill -KILL $$"]).code(), 128 + 9);

    let refused = record(&["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1"]);
    assert_ne!(refused.code(), 0);
    let rows = rows(&replay(&[&trace], &["--rows", "connections"]));
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!([&row["end"], &row["comm"]], ["refused", "bash"], "{row}");
}

/// tcptrace ends with its command, and passes signals on to it.
#[test]
fn a_command_is_ended() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let command = ["record", "--output", path(&trace), "--", "sleep", "1000"];
    let [record, rest @ ..] = command;
    let netns = net.inode().to_string();
    let args = [&[record, "--netns", &netns][..], &rest[..]].concat();
    let tracer = Tracer::start(&args);
    tracer.signal(Signal::SIGTERM);
    let finished = tracer.finish();
    assert_eq!(finished.code(), 128 + 15, "{}", finished.stderr);
    assert_eq!(replay(&[&trace], &[]).code(), 0);
}

#[test]
fn a_trace_is_no_program_output() {
    let finished = replay(&[binary()], &[]);
    assert_eq!(finished.code(), 1);
    assert!(finished.stderr.contains("is not a tcptrace trace"), "{}", finished.stderr);
}
