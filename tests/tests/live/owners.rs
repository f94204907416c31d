//! Owners of connections.

mod accepting;
mod functions;
mod passing;
mod unwatched;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::{Pid, gettid};
use serde_json::{Value, json};
use tcptrace_tests::namespace::boot_ns;
use tcptrace_tests::process::spawn;
use tcptrace_tests::sockets::{accept, address, listen};
use tcptrace_tests::{End, Namespace, Tracer, pair};

use crate::actor;

/// The connection closes with its last descriptor, which a child has.
#[test]
fn child_closes_last() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let inherited = OwnedFd::from(client.take());
    let mut child = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(inherited));
    let parent_let_go = boot_ns();
    drop(child.stdin.take());
    child.wait().expect("wait for cat");
    server.receive_end();
    server.reset();

    let told = net.foreign_life(&client);
    assert!(told.leaving("ESTABLISHED")["boot_ns"].as_u64().expect("a time") > parent_let_go, "{told}");
    told.has(json!({"pid": std::process::id(), "owner_source": "connect", "closer": "active"}));
    told.has(json!({"close_pid": child.id(), "close_tid": child.id(), "close_comm": "cat"}));
}

/// A killed process closes its sockets.
#[test]
fn killed_process() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let inherited = OwnedFd::from(client.take());
    let mut child = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(inherited));
    child.kill().expect("kill cat");
    child.wait().expect("wait for cat");
    server.receive_end();
    server.reset();

    net.foreign_life(&client).has(json!({"closer": "active", "close_pid": child.id(), "close_comm": "cat"}));
}

/// The name of this process: its first thread's name.
fn our_name() -> String {
    fs::read_to_string("/proc/self/comm").expect("read our name").trim_end().to_owned()
}

/// Runs something in a new thread with a name of its own, and returns the thread's id.
fn in_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> (T, i32) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, || (work(), gettid().as_raw()));
        thread.expect("a thread").join().expect("no panic")
    })
}

/// Rows have the process's id and name, and the thread's id.
#[test]
fn threads() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let (client, connector) = in_thread("connector", || TcpStream::connect(address(&listener)).expect("connect"));
    let (mut server, acceptor) = in_thread("acceptor", || accept(&listener));
    let mut client = End::from(client);
    let ((), closer) = in_thread("closer", || client.reset());
    server.receive_reset();
    let ((), server_closer) = in_thread("other closer", || server.close());

    let (pid, name) = (std::process::id(), our_name());
    let told = net.life(&client);
    told.ours_by("connect").has(json!({"tid": connector, "comm": name}));
    told.has(json!({"close_pid": pid, "close_tid": closer, "close_comm": name}));
    net.life(&server).ours_by("accept").has(json!({"tid": acceptor, "comm": name}));
    assert!(![connector, acceptor, closer, server_closer].contains(&pid.cast_signed()));
}

/// On loopback, the sender's process is on the CPU while packets are received: it is not the owner.
#[test]
fn peer_is_another_process() {
    let net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let to = address(&listener);
    let script = format!("exec 3<>/dev/tcp/{}/{}; read -u 3; exec 3>&-", to.ip(), to.port());
    let mut bash = spawn(Command::new("bash").args(["-c", &script]));
    let mut server = accept(&listener);
    (&*server).write_all(b"go\n").expect("send");
    server.receive_end();
    server.close();
    bash.wait().expect("wait for bash");

    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").ended("passive", "fin").ours_by("accept");
    let client = End::named(server.remote, server.local);
    let told = net.foreign_life(&client);
    told.has(json!({"pid": bash.id(), "comm": "bash", "owner_source": "connect", "closer": "active", "end": "fin"}));
    for row in &told.transitions {
        assert_eq!(row["pid"], bash.id(), "{told}");
    }
}

/// A killed process closes all its sockets, and remains the owner of each.
#[test]
fn killed_with_many() {
    const MANY: usize = 1_000;
    let net = Namespace::enter();
    let many = MANY.to_string();
    let mut holder = actor("holder", &["hold", &many]);
    let at = holder.did_at("listening");
    let mut dialler = actor("dialler", &["dial", &many, &at.to_string()]);
    for _ in 0..MANY {
        dialler.did("connected");
        holder.did("accepted");
    }
    dialler.kill();
    let pids = [dialler.pid(), holder.pid()];
    holder.cue();
    holder.finish();

    let rows = Tracer::connections().rows(&net, "all of them", |rows| {
        // There may be rows of the kernel's counters, too: the accept queue can be full for a moment.
        let is_wanted = |row: &&Value| row["event"] == "connection" && net.is_new(row);
        // This is checked with each row that comes, while other tests wait for theirs.
        let rows = (rows.len() >= 2 * MANY).then(|| rows.iter().filter(is_wanted).cloned());
        rows.map(Iterator::collect::<Vec<_>>).filter(|rows| rows.len() >= 2 * MANY)
    });
    assert_eq!(rows.len(), 2 * MANY);
    let mut looks = 0;
    for (side, pid, name, source) in
        [("client", pids[0], "dialler", "connect"), ("server", pids[1], "holder", "accept")]
    {
        let rows: Vec<_> = rows.iter().filter(|row| row["side"] == side).collect();
        assert_eq!(rows.len(), MANY, "{side}");
        for row in rows {
            assert_eq!([&row["comm"], &row["owner_source"]], [name, source], "{row}");
            assert_eq!([&row["pid"], &row["complete"]], [&json!(pid), &json!(true)], "{row}");
            // A tracer that scans descriptors holds each for a moment, and may be the last to release one.
            let by_a_look = row["close_pid"].is_null() || row["close_comm"] == "tcptrace";
            assert!(row["close_pid"] == pid || by_a_look, "{row}");
            looks += usize::from(by_a_look);
        }
    }
    assert!(looks < MANY / 100, "{looks} of {MANY}");
    for row in net.told().iter().flatten() {
        assert!(row["pid"].is_null() || pids.iter().any(|pid| row["pid"] == *pid), "somebody else's: {row}");
    }
}

/// The same addresses and ports, at the same time, in two network namespaces.
#[test]
fn twins_in_two_namespaces() {
    const SERVER: &str = "127.0.0.1:7000";
    const CLIENT: &str = "127.0.0.1:7001";
    let play = |names: [&str; 2]| {
        let net = Namespace::enter();
        let server = actor(names[0], &["hold", "1", SERVER]);
        server.did("listening");
        let client = actor(names[1], &["dial", "1", SERVER, CLIENT]);
        client.did("connected");
        server.did("accepted");
        // While the process exists, its number is not reused.
        let held = File::open("/proc/thread-self/ns/net").expect("the namespace of this thread");
        (net, server, client, held)
    };
    let (first, first_server, first_client, _first_held) = play(["server0", "client0"]);
    let (second, second_server, second_client, _second_held) = play(["server1", "client1"]);
    let pids = [&first_server, &first_client, &second_server, &second_client].map(tcptrace_tests::Actor::pid);
    first_client.finish();
    second_server.finish();
    first_server.finish();
    second_client.finish();

    let [server, client] = [SERVER, CLIENT].map(|address| address.parse().expect("an address"));
    let (server, client) = (End::named(server, client), End::named(client, server));
    let lives = [&first, &second].map(|net| [&server, &client].map(|end| net.foreign_life(end)));
    for (life, pid) in lives.iter().flatten().zip(pids) {
        let source = if life.connection["side"] == "server" { "accept" } else { "connect" };
        life.owned_by(source, pid);
    }
    // A process whose peer resets the connection has not closed it.
    lives[0][0].ended("reset_remote", "reset_received").has(json!({"comm": "server0", "close_pid": null}));
    lives[0][1].ended("reset_local", "reset_linger0").closed_by(pids[1], "client0").has(json!({"comm": "client0"}));
    lives[1][0].ended("reset_local", "reset_linger0").closed_by(pids[2], "server1").has(json!({"comm": "server1"}));
    lives[1][1].ended("reset_remote", "reset_received").has(json!({"comm": "client1", "close_pid": null}));
    let conns: HashSet<_> = lives.iter().flatten().map(|life| life.connection["conn"].to_string()).collect();
    assert_eq!(conns.len(), 4, "{conns:?}");
}

/// What a tracer has attached, other than to typed tracepoints.
#[derive(Debug, PartialEq, Eq)]
struct Hooks {
    /// Classic tracepoints, such as those of system calls.
    calls: usize,
    /// Functions of the kernel.
    functions: usize,
}

/// The process of a tracer that attaches and detaches: its helper, if it has one.
fn attacher(tracer: &Tracer) -> Pid {
    let pid = tracer.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    let is_helper =
        |child: &Pid| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "tcptrace-helper\n");
    children.split_whitespace().filter_map(|child| child.parse().ok().map(Pid::from_raw)).find(is_helper).unwrap_or(pid)
}

/// Lists a tracer's descriptors. The kernel's name of a classic tracepoint's link has changed, but not that of the event.
fn hooks(tracer: &Tracer) -> Hooks {
    let files = fs::read_dir(format!("/proc/{}/fd", attacher(tracer))).expect("its descriptors").flatten();
    let mut hooks = Hooks { calls: 0, functions: 0 };
    for file in files {
        // It may have closed it since.
        let target = fs::read_link(file.path()).unwrap_or_default();
        let info = fs::read_to_string(file.path().to_string_lossy().replace("/fd/", "/fdinfo/")).unwrap_or_default();
        let kind = info.lines().find_map(|line| line.strip_prefix("link_type:")).map(str::trim);
        hooks.calls += usize::from(kind == Some("perf") || target.to_string_lossy().contains("[perf_event]"));
        hooks.functions += usize::from(kind == Some("tracing"));
    }
    hooks
}
