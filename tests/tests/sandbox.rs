//! What tcptrace gives up before it reads what strangers send.
#![expect(clippy::panic, reason = "a panic is how a test fails")]

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

use nix::libc;
use tcptrace_tests::ability::need_root;
use tcptrace_tests::program::{binary, run};
use tcptrace_tests::sockets::{connect, listen};
use tcptrace_tests::tracer::with_tracefs;
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

/// The capabilities that this test may expect: those that the helper of a live command keeps, as far as they can be held
/// here.
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

/// What the process that follows the kernel keeps: nothing, where this kernel lets it read open maps without privileges.
fn of_maps() -> u64 {
    let release = nix::sys::utsname::uname().expect("the kernel says").release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let disabled = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap_or_default();
    if version < (5, 19) && disabled.trim() != "0" { 1 << number("CAP_BPF") } else { 0 }
}

/// The helper of a live command.
fn helper(tracer: &Tracer) -> u32 {
    let parent = tracer.pid().to_string();
    let is_helper = |status: &str| value(status, "PPid") == parent && value(status, "Name") == "tcptrace-helper";
    let begun = Instant::now();
    loop {
        let entries = fs::read_dir("/proc").expect("list it").flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let found =
            pids.find(|pid| fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_helper(&status)));
        if let Some(pid) = found {
            return pid;
        }
        assert!(begun.elapsed() < PATIENCE, "{parent} has no helper");
        sleep(Duration::from_millis(10));
    }
}

fn is_limited(status: &str) -> bool {
    value(status, "NoNewPrivs") == "1" && value(status, "Seccomp") == "2"
}

/// Once it is ready, only the helper of a live command can ask the kernel. The process that reads what strangers send has
/// given up everything.
#[test]
fn live_commands_leave_privileges_to_a_helper() {
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
        for (pid, expected) in [(tracer.pid().as_raw().cast_unsigned(), of_maps()), (helper(&tracer), expected)] {
            for status in wait_until(pid, args[0], is_limited) {
                for set in ["CapEff", "CapPrm"] {
                    assert_eq!(capabilities(&status, set), expected, "{args:?}: {set} of {}", value(&status, "Name"));
                }
                assert_eq!(capabilities(&status, "CapBnd") & !expected, 0, "{args:?}");
            }
        }
        tracer.signal(nix::sys::signal::Signal::SIGTERM);
        tracer.finish();
    }
}

/// What a process shows of its privileges: it has the sandbox of no other, and ignores what it ignored anyway.
const SHOW: &str =
    "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapPrm|CapInh|CapAmb|CapBnd|SigIgn|SigBlk):' /proc/self/status";

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

/// Whether this kernel has Landlock.
fn has_landlock() -> bool {
    const VERSION: u32 = 1;
    // SAFETY: with this flag, it only returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    version > 0
}

/// Where a file is made later, it is made in the folder that was given, even if another one has its path by then.
#[test]
fn later_files_stay_in_their_folder() {
    need_root();
    if !has_landlock() {
        tcptrace_tests::attempt::skip("this kernel has no Landlock");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (given, other, link) = (path("given"), path("other"), path("link"));
    fs::create_dir(&given).and_then(|()| fs::create_dir(&other)).expect("two folders");
    std::os::unix::fs::symlink(&given, &link).expect("a link");
    let count = |folder: &Path| fs::read_dir(folder).expect("list it").count();
    let trace = link.join("t.tct");
    let tracer =
        Tracer::start(&["record", "-o", trace.to_str().expect("UTF-8"), "--rotate", "50ms", "--max-files", "5"]);
    let begun = Instant::now();
    while count(&given) < 3 {
        assert!(begun.elapsed() < PATIENCE, "it makes one file after the other");
        sleep(Duration::from_millis(10));
    }
    fs::remove_file(&link).and_then(|()| std::os::unix::fs::symlink(&other, &link)).expect("another link");
    wait_for(&tracer, "Permission denied");
    let finished = tracer.interrupt();
    assert_eq!(count(&other), 0, "{}", finished.stderr);
}

const LOST: &str = "the helper process has ended";

/// Without its helper, a live command says so, goes on, and ends with the status of lost evidence.
#[test]
fn a_helper_that_is_killed_is_missed_once() {
    need_root();
    let folder = tempfile::tempdir().expect("a folder");
    let [trace, audited, armed] =
        ["t", "audited", "armed"].map(|name| folder.path().join(name).to_str().expect("UTF-8").to_owned());
    for args in [
        &["watch"][..],
        &["connections", "--record", &trace],
        &["record", "--audit", "--output", &audited],
        &["record", "--last", "1m", "--when", "CLOSE_WAIT > 1000000", "--output", &armed],
        &["diagnose", "--duration", "1m", "--fail-on", "never"],
        &["top", "--once", "--duration", "1m"],
    ] {
        let tracer = Tracer::launched(args);
        let helper = helper(&tracer);
        wait_until(tracer.pid().as_raw().cast_unsigned(), args[0], is_limited);
        kill(helper, "KILL");
        wait_for(&tracer, LOST);
        let finished = tracer.interrupt();
        // An audit without counters is none.
        let expected = if args.contains(&"--audit") { 1 } else { 3 };
        assert_eq!(finished.code(), expected, "{args:?}: {}", finished.stderr);
        assert_eq!(finished.stderr.matches(LOST).count(), 1, "{args:?}: {}", finished.stderr);
    }
}

/// Waits until it has said this.
fn wait_for(tracer: &Tracer, text: &str) {
    let begun = Instant::now();
    while !tracer.complaints().contains(text) {
        assert!(begun.elapsed() < PATIENCE, "{text}: {}", tracer.complaints());
        sleep(Duration::from_millis(10));
    }
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill {pid}");
}

/// Without the process that it works for, the helper ends. Signals for both do not end it before.
#[test]
fn a_helper_ends_with_the_process_that_it_works_for() {
    need_root();
    let tracer = Tracer::start(&["watch"]);
    let helper = helper(&tracer);
    for signal in ["INT", "TERM", "HUP", "USR1"] {
        kill(helper, signal);
    }
    let is_there =
        || fs::read_to_string(format!("/proc/{helper}/status")).is_ok_and(|it| !value(&it, "State").starts_with('Z'));
    assert!(is_there());
    tracer.signal(nix::sys::signal::Signal::SIGKILL);
    let begun = Instant::now();
    while is_there() {
        assert!(begun.elapsed() < PATIENCE, "it goes on");
        sleep(Duration::from_millis(10));
    }
}

/// One look keeps what it needs for looking, and no more.
#[test]
fn a_snapshot_gives_up_what_it_does_not_need() {
    need_root();
    let net = Namespace::enter_unwatched();
    let listener = listen("127.0.0.1");
    // More than what fits into a pipe.
    let connections: Vec<_> = (0..200).map(|_| connect(&listener)).collect();
    let netns = net.inode().to_string();
    let mut command = Command::new(binary());
    command.args(["snapshot", "--list", "--format", "json", "--netns", &netns]);
    let mut child = process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let expected = lasting();
    for status in wait_until(child.id(), "snapshot", is_limited) {
        assert_eq!(capabilities(&status, "CapEff"), expected);
        assert_eq!(capabilities(&status, "CapPrm"), expected);
    }
    let mut rows = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().expect("piped"), &mut rows).expect("rows");
    assert!(child.wait().expect("it ends").success());
    assert!(rows.lines().count() > 2 * connections.len(), "{}", rows.lines().count());
    assert!(rows.contains(&format!("\"pid\":{}", std::process::id())));
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
    for (pid, expected) in [(tracer.pid().as_raw().cast_unsigned(), of_maps()), (helper(&tracer), expected)] {
        for status in wait_until(pid, "it is nobody", is_nobody) {
            assert_eq!(capabilities(&status, "CapEff"), expected);
            assert_eq!(value(&status, "Groups"), "");
        }
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

/// A connection that exists in a namespace with a name, and a later one; by a process of another user, in a control group
/// of its own.
const PLAY: &str = r#"
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
os.setuid(1)
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.connect(listener.getsockname())
        return client, listener.accept()[0]
old = pair()
print("ready", flush=True)
sys.stdin.readline()
new = pair()
for one in [*new, *old]:
    one.close()
print("done", flush=True)
sys.stdin.readline()
"#;

/// A network namespace with a name, and a control group, until dropped.
struct Stage {
    name: String,
    group: PathBuf,
}

impl Stage {
    fn new() -> Self {
        need_root();
        let name = format!("tcptrace-sandbox-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read it");
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let point = unified.and_then(|line| line.split(' ').nth(4)).unwrap_or("/sys/fs/cgroup");
        let group = Path::new(point).join(&name);
        if fs::create_dir(&group).is_err() || !group.join("cgroup.procs").exists() {
            tcptrace_tests::attempt::skip("it needs a unified hierarchy of control groups");
        }
        let stage = Self { name, group };
        stage.ip(&["netns", "add", &stage.name]);
        stage.ip(&["-n", &stage.name, "link", "set", "lo", "up"]);
        stage
    }

    fn ip(&self, args: &[&str]) {
        let mut command = Command::new("ip");
        command.args(args);
        let finished = tcptrace_tests::program::run_command(command);
        assert!(finished.status.success(), "{}: {args:?}: {}", self.name, finished.stderr);
    }

    fn inode(&self) -> String {
        let metadata = fs::metadata(Path::new("/run/netns").join(&self.name)).expect("there");
        std::os::unix::fs::MetadataExt::ino(&metadata).to_string()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).status();
        let begun = Instant::now();
        while fs::remove_dir(&self.group).is_err() && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10));
        }
    }
}

/// Owners and names are the same, whatever tcptrace has given up.
#[test]
fn owners_and_names_are_the_same_in_the_sandbox() {
    let stage = Stage::new();
    // `ip netns exec` would hide the control groups.
    let mut play = Command::new("nsenter");
    play.args([&format!("--net=/run/netns/{}", stage.name), "python3", "-c", PLAY]).arg(&stage.group);
    let mut play = process::spawn(play.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (mut cue, mut said) = (play.stdin.take().expect("a pipe"), play.stdout.take().expect("a pipe"));
    let mut expect = |line: &str| {
        let mut told = vec![0; line.len()];
        std::io::Read::read_exact(&mut said, &mut told).expect("it goes on");
        assert_eq!(told, line.as_bytes());
    };
    expect("ready\n");
    let folder = tempfile::tempdir().expect("a folder");
    let traces: Vec<String> =
        ["a", "b", "c"].map(|name| folder.path().join(name).to_str().expect("UTF-8").to_owned()).to_vec();
    let netns = stage.inode();
    let group = serde_json::Value::from(format!("/{}", stage.name));
    // A folder in which everybody makes files.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("for everybody");
    let start = |trace: &str, more: &[&str]| {
        Tracer::start(&[&["record", "--netns", &netns, "--accept", "auto", "-o", trace], more].concat())
    };
    let tracers =
        [start(&traces[0], &["--no-sandbox"]), start(&traces[1], &[]), start(&traces[2], &["--user", "4711"])];
    let told = |trace: &String| {
        let exported = run(&["export", "--format", "jsonl", trace]);
        let mut rows: Vec<_> = exported.rows();
        rows.sort_by_key(|row| row["conn"].as_str().map(str::to_owned));
        let names = ["conn", "local", "netns_name", "pid", "comm", "uid", "cgroup", "side", "closer", "close_pid"];
        let one = |row: &serde_json::Value| names.map(|name| (name, row[name].clone()));
        rows.iter().map(one).collect::<Vec<_>>()
    };
    // They look up names while they go on.
    let is_named =
        |trace: &String| told(trace).iter().filter(|row| row.contains(&("cgroup", group.clone()))).count() == 2;
    let begun = Instant::now();
    while !traces.iter().all(is_named) {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", traces.iter().map(told).collect::<Vec<_>>());
        sleep(Duration::from_millis(50));
    }
    cue.write_all(b"\n").expect("it listens");
    expect("done\n");
    for tracer in &tracers {
        let finished = tracer.interrupt();
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert!(!finished.stderr.contains("cannot"), "{}", finished.stderr);
    }
    drop(cue);
    play.wait().expect("it ends");
    let [outside, within, as_another] = [0, 1, 2].map(|place| told(&traces[place]));
    assert_eq!(outside, within);
    assert_eq!(outside, as_another);
    let whole = |row: &[(&str, serde_json::Value)]| {
        let of = |name: &str| row.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        of("netns_name") == Some(stage.name.as_str().into())
            && of("comm") == Some("python3".into())
            && of("cgroup").is_some_and(|group| group.as_str().is_some_and(|path| path.contains(&stage.name)))
    };
    assert!(outside.iter().filter(|row| whole(&row[..])).count() >= 4, "{outside:#?}");
}

/// A command that runs the program as nobody, with these capabilities alone. It cannot mount tracefs, so that is there.
fn with_capabilities(program: &Path, names: &[&str], args: &[&str]) -> Command {
    let set = |begin: &str| {
        let words = names.iter().map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()));
        std::iter::once(begin.to_owned()).filter(|begin| !begin.is_empty()).chain(words).collect::<Vec<_>>().join(",")
    };
    let mut command = with_tracefs();
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", &set("-all")]);
    command.args(["--ambient-caps", &set("-all"), "--bounding-set", &set("-all")]).arg(program).args(args);
    command
}

/// A copy that everybody may run, until dropped.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Self {
        need_root();
        Self(tcptrace_tests::program::copy_for_everybody(name))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("remove the copy");
    }
}

/// The table of the documentation, row by row: names of capabilities, and of features.
fn documented() -> Vec<(Vec<String>, Vec<String>)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../tcptrace/docs/privileges.md");
    let page = fs::read_to_string(page).expect("read the page");
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| `CAP_"));
    let cells = rows.map(|row| row.split('|').map(str::to_owned).collect::<Vec<_>>());
    cells.map(|cells| (quoted(&cells[1]), quoted(&cells[3]))).collect()
}

const LEAST: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];

/// Each set of capabilities in the documentation serves the features beside it.
#[test]
fn each_feature_needs_what_the_documentation_says() {
    let copy = Copied::new("features");
    let rows = documented();
    assert!(rows.len() >= 6, "{rows:?}");
    let available = |names: &[&str]| {
        let finished =
            tcptrace_tests::program::run_command(with_capabilities(&copy.0, names, &["check", "--format", "json"]));
        assert_eq!(finished.code(), 0, "{names:?}: {}", finished.stderr);
        let rows = finished.rows().into_iter().filter(|row| row["available"] == true);
        rows.map(|row| row["feature"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    // What this kernel has at all.
    let all = run(&["check", "--format", "json"]).rows();
    let is_there = |feature: &String| all.iter().any(|row| row["feature"] == **feature && row["available"] == true);
    let mut mode = with_tracefs();
    mode.args(["stat", "-c", "%a", "/sys/kernel/tracing"]);
    let mode = tcptrace_tests::program::run_command(mode);
    let tracefs_is_closed = mode.text().trim_end().ends_with('0');
    for (capabilities, features) in rows.iter().filter(|(_, features)| !features.is_empty()) {
        let names: Vec<&str> = LEAST.into_iter().chain(capabilities.iter().map(String::as_str)).collect();
        let served = available(&names);
        for feature in features.iter().filter(|feature| is_there(feature)) {
            assert!(served.contains(feature), "{names:?} do not serve {feature}: {served:?}");
        }
    }
    let least = available(&LEAST);
    assert!(!tracefs_is_closed || !least.contains(&"accept".to_owned()), "{least:?}");
}

/// Without root, it follows what it can, and says what it does not see.
#[test]
fn two_capabilities_are_enough_to_follow() {
    let copy = Copied::new("follow");
    let net = Namespace::enter_unwatched();
    let netns = net.inode().to_string();
    let args = ["watch", "--format", "json", "--netns", &netns];
    let tracer = Tracer::follow(with_capabilities(&copy.0, &LEAST, &args));
    let (mut client, _server) = connect(&listen("127.0.0.1"));
    client.reset();
    let row = tracer.row(&net, "the end", |row| net.is_about(row, &client) && row["new"] == "CLOSED");
    assert_eq!(row["pid"], std::process::id());
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("not seen here: "), "{}", finished.stderr);
    let rows = tcptrace_tests::program::run_command(with_capabilities(
        &copy.0,
        &LEAST,
        &["check", "--privileges", "--format", "json"],
    ));
    let held: Vec<_> = rows.rows().into_iter().filter(|row| row["held"] == true).collect();
    assert_eq!(held.iter().map(|row| row["capability"].clone()).collect::<Vec<_>>(), LEAST);
}

/// With `CAP_SYS_ADMIN`, and `CAP_SYS_PTRACE` for namespaces without a name, it sees the sockets of other namespaces; with
/// `CAP_DAC_READ_SEARCH`, who holds them.
#[test]
fn other_namespaces_need_what_the_documentation_says() {
    let copy = Copied::new("namespaces");
    let net = Namespace::enter_unwatched();
    let _listener = listen("127.0.0.1");
    let netns = net.inode().to_string();
    // Another process leads there, too.
    let _there = Reader(process::spawn(Command::new("sleep").arg("1000")));
    net.leave();
    let found = |more: &[&str]| {
        let names = [&LEAST[..], more].concat();
        let args = ["snapshot", "--list", "--format", "json", "--netns", &netns];
        let finished = tcptrace_tests::program::run_command(with_capabilities(&copy.0, &names, &args));
        finished.rows().into_iter().map(|row| row["pid"].as_u64()).collect::<Vec<_>>()
    };
    let own = u64::from(std::process::id());
    assert!(found(&["CAP_SYS_PTRACE"]).is_empty());
    assert!(found(&["CAP_SYS_ADMIN"]).is_empty(), "no name leads there");
    assert_eq!(found(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]), [None]);
    assert_eq!(found(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]), [Some(own)]);
}

#[test]
fn file_capabilities_are_enough() {
    let copy = Copied::new("setcap");
    let mut setcap = Command::new("setcap");
    setcap.arg("cap_bpf,cap_perfmon,cap_syslog,cap_dac_read_search,cap_sys_ptrace,cap_sys_admin=ep").arg(&copy.0);
    if !setcap.status().is_ok_and(|status| status.success()) {
        tcptrace_tests::attempt::skip("setcap does not work here");
    }
    let net = Namespace::enter_unwatched();
    let netns = net.inode().to_string();
    let (mut client, _server) = connect(&listen("127.0.0.1"));
    let mut command = with_tracefs();
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy.0);
    command.args(["watch", "--format", "json", "--netns", &netns]);
    let tracer = Tracer::follow(command);
    client.reset();
    let row = tracer.row(&net, "the end", |row| net.is_about(row, &client) && row["new"] == "CLOSED");
    assert_eq!(row["pid"], std::process::id());
    let status = fs::read_to_string(format!("/proc/{}/status", tracer.pid())).expect("read it");
    assert_eq!((value(&status, "NoNewPrivs"), value(&status, "Seccomp")), ("1", "2"));
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(!finished.stderr.contains("not seen here"), "{}", finished.stderr);
}

/// Runs the arguments in a root of its own: no users, no tracefs, no devices.
const CONTAINER: &str = r#"
set -e
mount -t tmpfs none "$1"
for folder in usr proc sys tmp; do mkdir "$1/$folder"; done
mount --bind /usr "$1/usr"
for folder in bin lib lib64; do
    if [ -L "/$folder" ]; then cp -a "/$folder" "$1/"
    elif [ -d "/$folder" ]; then mkdir "$1/$folder"; mount --bind "/$folder" "$1/$folder"; fi
done
mount -t proc none "$1/proc"
mount -t sysfs none "$1/sys"
cp "$2" "$1/tcptrace"
exec chroot "$1" /bin/sh -c "$3"
"#;

#[test]
fn in_a_container() {
    need_root();
    let root = tempfile::tempdir().expect("a folder");
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh"]);
        command.arg(root.path()).arg(binary()).arg(script);
        tcptrace_tests::program::run_command(command)
    };
    let finished = inside("cd /tmp && /tcptrace record --user 4711 -o t.tct -- true && /tcptrace replay t.tct >rows");
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("tcptrace: ready"), "{}", finished.stderr);
    assert!(finished.stderr.contains("events read"), "{}", finished.stderr);
    let finished = inside("/tcptrace watch --duration 10ms --user root");
    assert_eq!(finished.code(), 2, "no file lists users: {}", finished.stderr);
    assert!(finished.stderr.contains("give its number"), "{}", finished.stderr);
}
