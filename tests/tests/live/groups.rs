//! Control groups, and the containers and units that they stand for.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tcptrace_tests::process::spawn;
use tcptrace_tests::program::run;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace, Tracer};

const CONTAINER: &str = "4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee4f1c0ffee0";

/// A control group of the unified hierarchy, which is removed when nothing is left in it.
struct Group {
    directory: PathBuf,
    path: String,
}

impl Group {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let mut unified = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = unified.next().and_then(|line| line.split(' ').nth(1)).expect("cgroup v2 is mounted");
        // Its path is shown from the root of the hierarchy, which is where this process's paths begin, too.
        let path = format!("/tcptrace-{}/docker-{name}.scope", std::process::id());
        let directory = PathBuf::from(format!("{root}{path}"));
        fs::create_dir_all(&directory).expect("make a control group");
        Self { directory, path }
    }

    /// Starts a program in it that connects, and waits for a line on its standard input before it ends.
    fn connect(&self, to: &End) -> Child {
        let (procs, remote) = (self.directory.join("cgroup.procs"), to.remote);
        let connect = format!("exec 3<>/dev/tcp/{}/{}", remote.ip(), remote.port());
        let script = format!("echo $$ > {} && {connect} && read", procs.display());
        spawn(Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.directory);
        let _gone = self.directory.parent().map(fs::remove_dir);
    }
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
