//! What tcptrace gives up before it reads what strangers send.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tcptrace_tests::ability::need_root;
use tcptrace_tests::program::{binary, run};
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::{Namespace, Tracer, process};

const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;

/// The status of each thread of a process, as lines of `name: value`.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).collect()
}

fn value<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {status}")).trim()
}

fn capabilities(status: &str, set: &str) -> u64 {
    u64::from_str_radix(value(status, set), 16).expect("a mask")
}

/// Waits until every thread is as wanted.
fn wait_until(pid: u32, what: &str, is_so: impl Fn(&str) -> bool) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let all = threads(pid);
        if !all.is_empty() && all.iter().all(|status| is_so(status)) {
            return all;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {all:#?}");
        sleep(Duration::from_millis(10));
    }
}

fn is_confined(status: &str) -> bool {
    let sets = ["CapEff", "CapPrm", "CapInh", "CapAmb"];
    value(status, "NoNewPrivs") == "1"
        && value(status, "Seccomp") == "2"
        && sets.iter().all(|set| capabilities(status, set) == 0)
}

/// A program that waits for the rest of its input.
struct Reader(Child);

impl Reader {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(process::spawn(&mut command))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("end it");
    }
}

/// A folder with a trace.
struct Recorded {
    folder: tempfile::TempDir,
}

impl Recorded {
    fn new() -> Self {
        need_root();
        let net = Namespace::enter_unwatched();
        let folder = tempfile::tempdir().expect("a folder");
        let recorded = Self { folder };
        let netns = net.inode().to_string();
        let trace = recorded.trace();
        let mut command = Command::new(binary());
        command.args(["record", "-o", &trace, "--netns", &netns, "--", "sh", "-c", "echo ready; read line"]);
        let mut child = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut byte).expect("it is ready");
        let (mut client, _server) = connect(&listen("127.0.0.1"));
        client.reset();
        drop(child.stdin.take());
        child.wait().expect("it ends");
        recorded
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trace(&self) -> String {
        self.path("t.tct").to_str().expect("UTF-8").to_owned()
    }
}

/// While it waits for a trace, a reading command has given up everything.
#[test]
fn reading_commands_are_in_a_sandbox_before_the_first_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (page, rows, data) = (out("page.html"), out("rows.jsonl"), out("data"));
    let all: [&[&str]; 8] = [
        &["replay"],
        &["report"],
        &["report", "--html", &page],
        &["export", "--format", "csv"],
        &["export", "--format", "jsonl", "-o", &rows],
        &["export", "--format", "parquet", "-o", &data],
        &["export", "--format", "perfetto"],
        &["diagnose"],
    ];
    for args in all {
        let reader = Reader::start(&[args, &["-"]].concat());
        wait_until(reader.0.id(), &args.join(" "), is_confined);
    }
    let reader = Reader::start(&["replay", "--no-sandbox", "-"]);
    wait_until(reader.0.id(), "--no-sandbox", |status| value(status, "Name") == "tcptrace");
    assert_eq!(value(&threads(reader.0.id())[0], "Seccomp"), "0");
}

/// The commands that copy standard input first.
#[test]
fn commands_that_read_twice_are_in_a_sandbox_too() {
    for args in [&["timeline"][..], &["top", "--once"], &["diagnose", "--port", "1"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let reader = Reader::start(&[args, &[pipe.to_str().expect("UTF-8")]].concat());
        // Opening it waits for the reader.
        let mut writer = OpenOptions::new().write(true).open(&pipe).expect("open it");
        wait_until(reader.0.id(), args[0], is_confined);
        writer.write_all(b"x").expect("write to it");
    }
}

/// Every command prints and writes the same, in the sandbox and outside.
#[test]
fn results_are_the_same_in_the_sandbox() {
    let recorded = Recorded::new();
    let trace = recorded.trace();
    let all: [&[&str]; 8] = [
        &["replay", "--format", "json"],
        &["replay", "--rows", "connections"],
        &["report", "--format", "json"],
        &["report", "--full"],
        &["timeline"],
        &["export", "--format", "jsonl"],
        &["diagnose", "--format", "json"],
        &["top", "--once", "--format", "json"],
    ];
    for args in all {
        let [within, outside] = [&[][..], &["--no-sandbox"]].map(|more| run(&[args, more, &[&trace]].concat()));
        assert_eq!(within.code(), outside.code(), "{args:?}: {}", within.stderr);
        assert_eq!(within.text(), outside.text(), "{args:?}");
        assert_eq!(within.stderr, outside.stderr, "{args:?}");
        assert!(!within.text().is_empty(), "{args:?}");
    }
    for args in [&["report", "--html"][..], &["export", "--format", "csv", "-o"]] {
        let [within, outside] = ["within", "outside"].map(|name| recorded.path(name));
        let written = |out: &Path, more: &[&str]| {
            let finished = run(&[args, &[out.to_str().expect("UTF-8"), "--force"], more, &[&trace]].concat());
            assert_eq!(finished.code(), 0, "{args:?}: {}", finished.stderr);
            fs::read(out).expect("read it")
        };
        assert_eq!(written(&within, &[]), written(&outside, &["--no-sandbox"]), "{args:?}");
        fs::remove_file(within).and_then(|()| fs::remove_file(outside)).expect("remove them");
    }
    let data = recorded.path("data");
    let finished = run(&["export", "--format", "parquet", "-o", data.to_str().expect("UTF-8"), &trace]);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("in 1 file"), "{}", finished.stderr);
    let left: Vec<_> = fs::read_dir(recorded.folder.path()).expect("list it").flatten().collect();
    assert_eq!(left.len(), 2, "nothing unfinished is left: {left:?}");
}

/// Root reads the traces of others: they are opened before that right is given up.
#[test]
fn traces_of_others_are_read() {
    let recorded = Recorded::new();
    let trace = recorded.trace();
    chown(&trace, Some(NOBODY), Some(NOBODY)).expect("give it away");
    fs::set_permissions(&trace, fs::Permissions::from_mode(0o600)).expect("for its owner only");
    for command in ["replay", "timeline", "diagnose"] {
        let finished = run(&[command, &trace]);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
    }
    // From a pipe, and several times.
    let mut command = Command::new(binary());
    command.args(["timeline", "--conn", "1", "-"]).stdin(File::open(&trace).expect("open it"));
    let finished = command.output().expect("run it");
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
}

/// The capabilities that this test may expect: those that a live command keeps, as far as they can be held here.
fn lasting() -> u64 {
    let rows = run(&["check", "--privileges", "--format", "json"]).rows();
    let kept = rows.iter().filter(|row| row["kept"] == true && row["held"] == true);
    kept.map(|row| 1 << number(row["capability"].as_str().expect("a name"))).sum()
}

fn number(capability: &str) -> u64 {
    match capability {
        "CAP_DAC_READ_SEARCH" => 2,
        "CAP_NET_ADMIN" => 12,
        "CAP_SYS_PTRACE" => 19,
        "CAP_SYS_ADMIN" => 21,
        "CAP_PERFMON" => 38,
        "CAP_BPF" => 39,
        other => panic!("nobody has said that live commands keep {other}"),
    }
}

/// Once it is ready, a live command can do what it still has to do.
#[test]
fn live_commands_keep_what_they_need() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.tct");
    let expected = lasting();
    assert!(expected & 1 << number("CAP_BPF") != 0);
    for args in [
        &["watch"][..],
        &["connections", "--record", trace.to_str().expect("UTF-8")],
        &["record", "--output", trace.to_str().expect("UTF-8"), "--force"],
        &["diagnose", "--duration", "1m"],
        &["top", "--once", "--duration", "1m"],
    ] {
        let tracer = Tracer::launched(args);
        let is_limited = |status: &str| value(status, "NoNewPrivs") == "1" && value(status, "Seccomp") == "2";
        for status in wait_until(tracer.pid().as_raw().cast_unsigned(), args[0], is_limited) {
            for set in ["CapEff", "CapPrm"] {
                assert_eq!(capabilities(&status, set), expected, "{args:?}: {set} of {}", value(&status, "Name"));
            }
            assert_eq!(capabilities(&status, "CapBnd") & !expected, 0, "{args:?}");
        }
        tracer.signal(nix::sys::signal::Signal::SIGTERM);
        tracer.finish();
    }
}

/// What a process shows of its privileges: it has the sandbox of no other, and ignores what it ignored anyway.
const SHOW: &str = "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapPrm|CapInh|CapAmb|CapBnd|SigIgn|SigBlk):' /proc/self/status";

#[test]
fn recorded_commands_have_all_privileges() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.tct");
    let mut alone = Command::new("sh");
    alone.args(["-c", SHOW]);
    let alone = tcptrace_tests::program::run_command(alone);
    let recorded = run(&["record", "-o", trace.to_str().expect("UTF-8"), "--", "sh", "-c", SHOW]);
    assert_eq!((recorded.code(), recorded.text()), (0, alone.text()), "{}", recorded.stderr);
    assert_eq!(recorded.text().lines().count(), 9);
}

/// A command of `--exec`, too.
#[test]
fn commands_of_exec_have_all_privileges() {
    let net = Namespace::enter_unwatched();
    let folder = tempfile::tempdir().expect("a folder");
    let [trace, script, out] = ["t.tct", "script", "out"].map(|name| folder.path().join(name));
    fs::write(&script, format!("#!/bin/sh\n({SHOW}; cat >/dev/null) >{0}.tmp; mv {0}.tmp {0}\n", out.display()))
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .expect("write it");
    let [trace, script] = [&trace, &script].map(|path| path.to_str().expect("UTF-8"));
    let args = ["record", "--last", "1m", "--when", "LISTEN > 0", "--exec", script, "-o", trace];
    let tracer = Tracer::start_in(&net, &args);
    let _listener = listen("127.0.0.1");
    let begun = Instant::now();
    while !out.exists() {
        assert!(begun.elapsed() < PATIENCE, "{}", tracer.complaints());
        sleep(Duration::from_millis(20));
    }
    tracer.interrupt();
    let shown = fs::read_to_string(&out).expect("read it");
    let mut alone = Command::new("sh");
    alone.args(["-c", SHOW]);
    assert_eq!(shown, tcptrace_tests::program::run_command(alone).text());
}

#[test]
fn it_becomes_another_user() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.tct");
    let path = trace.to_str().expect("UTF-8");
    let expected = lasting();
    let tracer = Tracer::start(&["record", "-o", path, "--user", "nobody"]);
    let is_nobody = |status: &str| value(status, "Uid").split_whitespace().all(|id| id == "65534");
    for status in wait_until(tracer.pid().as_raw().cast_unsigned(), "it is nobody", is_nobody) {
        assert_eq!(capabilities(&status, "CapEff"), expected);
        assert_eq!(value(&status, "Groups"), "");
    }
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&trace).expect("there"));
    assert_eq!(owner, NOBODY);
    let command = ["record", "--force", "-o", path, "--user", "4711", "--", "sh", "-c", "id -u; id -g; id -G"];
    let refused = run(&command);
    assert_eq!(refused.code(), 1, "the file would have to be replaced by that user: {}", refused.stderr);
    assert!(refused.stderr.contains("user 4711 cannot create files in"), "{}", refused.stderr);
    fs::remove_file(&trace).expect("remove it");
    let finished = run(&command);
    assert_eq!((finished.code(), finished.text()), (0, "4711\n4711\n4711\n"), "{}", finished.stderr);
    let unknown = run(&["watch", "--user", "no-such-user"]);
    assert_eq!(unknown.code(), 2);
    assert!(unknown.stderr.contains("give its number"), "{}", unknown.stderr);
}

/// It is theirs, as what other programs of sudo should do.
#[test]
fn a_trace_belongs_to_the_user_who_called_sudo() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    chown(folder.path(), Some(1234), Some(1234)).expect("give it away");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("for its owner only");
    let record = || {
        let mut command = Command::new(binary());
        command.arg("record").current_dir(folder.path()).env("SUDO_UID", "1234").env("SUDO_GID", "1235");
        command.args(["--duration", "10ms"]);
        let finished = tcptrace_tests::program::run_command(command);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
    };
    record();
    // The second one renames the first, in a folder of somebody else.
    record();
    for name in ["tcptrace.tct", "tcptrace.tct.old"] {
        let metadata = fs::metadata(folder.path().join(name)).expect("there");
        let (uid, gid) =
            (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata));
        assert_eq!((uid, gid), (1234, 1235), "{name}");
    }
}
