//! Control groups, with their containers and units.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tcptrace_tests::process::spawn;
use tcptrace_tests::program::run;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace, Tracer};

use crate::actor;

const CONTAINER: &str = "4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee0";

/// A control group of the unified hierarchy, removed when it is empty.
struct Group {
    directory: PathBuf,
    path: String,
}

impl Group {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let mut unified = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = unified.next().and_then(|line| line.split(' ').nth(1)).expect("cgroup v2 is mounted");
        // Its path is shown from the root of the hierarchy, where this process's paths begin, too.
        let path = format!("/tcptrace-{}-{name}/docker-{name}.scope", std::process::id());
        let directory = PathBuf::from(format!("{root}{path}"));
        fs::create_dir_all(&directory).expect("make a control group");
        Self { directory, path }
    }

    /// Starts a program in it that connects, and that ends after a line on its standard input.
    fn connect(&self, to: &End) -> Child {
        connect_in(&self.directory, to)
    }
}

/// Starts a program in a control group that connects, and that ends after a line on its standard input.
fn connect_in(directory: &Path, to: &End) -> Child {
    let (procs, remote) = (directory.join("cgroup.procs"), to.remote);
    let connect = format!("exec 3<>/dev/tcp/{}/{}", remote.ip(), remote.port());
    let script = format!("echo $$ > {} && {connect} && read", procs.display());
    spawn(Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()))
}

impl Drop for Group {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.directory);
        let _gone = self.directory.parent().map(fs::remove_dir);
    }
}

/// A control group so deep below others that the kernel writes no path for it. It is removed when it is empty.
struct Deep {
    /// Each is in the one before it.
    groups: Vec<File>,
    name: String,
}

impl Deep {
    fn below(group: &Group) -> Self {
        let mut deep = Self { groups: vec![open(&group.directory)], name: "deep".repeat(60) };
        for _ in 0..=4096 / deep.name.len() {
            let next = deep.last().join(&deep.name);
            fs::create_dir(&next).expect("make a control group");
            deep.groups.push(open(&next));
        }
        deep
    }

    /// The only path to it.
    fn last(&self) -> PathBuf {
        let last = self.groups.last().expect("one group at least").as_raw_fd();
        format!("/proc/{}/fd/{last}", std::process::id()).into()
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        while self.groups.len() > 1 {
            self.groups.pop();
            let _gone = fs::remove_dir(self.last().join(&self.name));
        }
    }
}

fn open(directory: &Path) -> File {
    File::open(directory).expect("open a control group")
}

/// A regression test: after a control group without a readable path, no group had a name any more, and `--cgroup`
/// silently left out their sockets.
#[test]
fn nobody_hides_behind_a_path_that_is_too_long() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let to = End::named(([0, 0, 0, 0], 0).into(), address(&listener));
    let wanted = Group::new("wanted");
    let hidden = Group::new("hidden");
    let deep = Deep::below(&hidden);
    let tracer = Tracer::start_in(&net, &["watch", "--format", "json", "--cgroup", &wanted.path]);
    let end = |mut bash: Child, mut server: End| {
        drop(bash.stdin.take());
        bash.wait().expect("wait for bash");
        server.receive_end();
        server.reset();
    };

    let bash = connect_in(&deep.last(), &to);
    end(bash, accept(&listener));
    let bash = wanted.connect(&to);
    let server = accept(&listener);
    let client = End::named(server.remote, server.local);
    let is_established = |row: &Value| net.is_about(row, &client) && row["new"] == "ESTABLISHED";
    let row = tracer.row(&net, "the client in the wanted group", is_established);
    assert_eq!(row["cgroup"], wanted.path, "{row}");
    end(bash, server);
    let finished = tracer.interrupt();
    assert!(finished.stderr.contains("rows not decided by --cgroup"), "{}", finished.stderr);
    drop(deep);
}

/// One process accepts, and another one in a group of its own closes. A regression test: no filter found the second
/// one.
#[test]
fn of_who_closes() {
    let net = Namespace::enter();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace").to_str().expect("UTF-8").to_owned();
    let group = Group::new("closes");
    let mut taker = actor("taker", &["take"]);
    fs::write(group.directory.join("cgroup.procs"), taker.pid().to_string()).expect("move the taker");
    taker.did("ready");
    let connections = ["connections", "--format", "json"];
    let start = |filter: &[&str]| Tracer::start_in(&net, &[&connections, filter].concat());
    let by_group = start(&["--cgroup", &group.path, "--record", &trace]);
    let by_name = start(&["--comm", "taker"]);
    let by_pid = start(&["--pid", &taker.pid().to_string()]);
    let by_owner = start(&["--comm", "taker", "--owner-only"]);
    let by_group_of_the_socket = start(&["--cgroup", &group.path, "--owner-only"]);

    let giver = actor("giver", &["give", "accepted"]);
    let client = End::from(TcpStream::connect(giver.did_at("listening")).expect("connect"));
    giver.did("accepted");
    taker.did("took");
    giver.finish();
    taker.cue();
    client.receive_reset();
    let server = End::named(client.remote, client.local);
    for tracer in [&by_group, &by_name, &by_pid] {
        let row = tracer.row(&net, "the end that the taker closed", |row| net.is_about(row, &server));
        assert_eq!([&row["comm"], &row["close_comm"]], ["giver", "taker"], "{row}");
        assert!(tracer.rows_now(&net).iter().all(|row| net.is_about(row, &server)), "{:?}", tracer.rows_now(&net));
    }
    taker.finish();
    for tracer in [by_owner, by_group_of_the_socket] {
        assert!(tracer.interrupt().rows().is_empty());
    }
    let live = by_group.interrupt();
    assert!(!live.stderr.contains("not decided"), "{}", live.stderr);
    let replayed = run(&["replay", "--rows", "connections", "--format", "json", &trace]);
    assert_eq!(replayed.text(), live.text());
}

#[test]
fn a_group_that_is_not_there_is_reported() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["watch", "--cgroup", "/no\u{1b}such-group"]);
    let complaint =
        "tcptrace: no control group matches '/no\\x1bsuch-group' now; its sockets are shown once it is created";
    assert!(tracer.complaints().lines().any(|line| line == complaint), "{}", tracer.complaints());
}

#[test]
fn of_a_container() {
    let net = Namespace::enter();
    let group = Group::new(CONTAINER);
    let listener = listen("127.0.0.1");
    let to = End::named(([0, 0, 0, 0], 0).into(), address(&listener));
    let chosen = Tracer::start_in(&net, &["watch", "--format", "json", "--cgroup", &CONTAINER[..12]]);
    let mut bash = group.connect(&to);
    let mut server = accept(&listener);
    let client = End::named(server.remote, server.local);

    let netns = net.inode().to_string();
    let found = run(&["snapshot", "--list", "--format", "json", "--netns", &netns, "--cgroup", &group.path]);
    let found: Vec<Value> = found.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["pid"], bash.id(), "{found:?}");

    drop(bash.stdin.take());
    bash.wait().expect("wait for bash");
    server.receive_end();
    server.reset();
    let told = net.foreign_life(&client);
    for row in told.transitions.iter().chain([&told.connection, &found[0]]) {
        assert_eq!([&row["cgroup"], &row["container"]], [&group.path, CONTAINER], "{row}");
        assert_eq!(row["unit"], format!("docker-{CONTAINER}.scope"), "{row}");
    }
    let last = |row: &Value| net.is_about(row, &client) && row["new"] == "CLOSED";
    chosen.row(&net, "the end of the client", last);
    let others = chosen
        .rows_now(&net)
        .into_iter()
        .filter(|row| !net.is_about(row, &client) && row["local"] != json!("127.0.0.1:0"));
    assert_eq!(others.count(), 0, "{:?}", chosen.rows_now(&net));
}
