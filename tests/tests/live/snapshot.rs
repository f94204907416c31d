//! Compares `snapshot` with `ss` at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};
use tcptrace_tests::program::{Finished, copy_for_everybody, run, run_command};
use tcptrace_tests::zoo::Zoo;
use tcptrace_tests::{End, Namespace, pair};

fn snapshot(net: &Namespace, args: &[&str]) -> Vec<Value> {
    rows(&run(&[&["snapshot", "--format", "json", "--netns", &net.inode().to_string()], args].concat()))
}

fn rows(finished: &Finished) -> Vec<Value> {
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A socket of `ss`, in the words of `snapshot`.
fn of_ss(line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = match words[0] {
        "ESTAB" => "ESTABLISHED".to_owned(),
        state => state.replace("WAIT-", "WAIT").replace('-', "_"),
    };
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let tagged = |tag: &str| words.iter().find_map(|word| word.strip_prefix(tag));
    let inode = tagged("ino:").map(number).filter(|inode| *inode != 0);
    json!({
        "state": state, "recv_queue": number(words[1]), "send_queue": number(words[2]),
        "local": words[3].replace(":*", ":0"), "remote": words[4].replace(":*", ":0"),
        "inode": inode, "conn": tagged("sk:").expect("a cookie"),
    })
}

#[test]
fn agrees_with_ss_about_every_socket() {
    let net = Namespace::enter();
    let _zoo = Zoo::fill(&net);
    let before = net.run("ss", &["-taneH"]);
    let sockets = snapshot(&net, &["--list"]);
    let counts = snapshot(&net, &[]);
    assert_eq!(lines(&net.run("ss", &["-taneH"])), lines(&before), "the zoo does not change");

    let told = |row: &Value| {
        let fields = ["state", "recv_queue", "send_queue", "local", "remote", "inode", "conn"];
        fields.iter().map(|field| ((*field).to_owned(), row[field].clone())).collect::<Value>().to_string()
    };
    let expected: BTreeSet<String> = before.lines().map(|line| of_ss(line).to_string()).collect();
    assert_eq!(sockets.iter().map(told).collect::<BTreeSet<_>>(), expected);

    let mut by_state = BTreeMap::<String, u64>::new();
    for line in before.lines() {
        *by_state.entry(of_ss(line)["state"].as_str().expect("a state").to_owned()).or_default() += 1;
    }
    assert_eq!(by_state.len(), 10, "every state but CLOSED: {by_state:?}");
    for row in counts.iter().filter(|row| row["by"] == "state" && row["state"] != "CLOSED") {
        assert_eq!(row["total"], by_state[row["state"].as_str().expect("a state")], "{row}");
    }
}

/// Only timers change by themselves.
fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| of_ss(line).to_string()).collect()
}

#[test]
fn who_has_what() {
    let net = Namespace::enter();
    let zoo = Zoo::fill(&net);
    let rows = snapshot(&net, &["--list"]);
    let ours = std::process::id();
    let of = |end: &End| {
        let is_it = |row: &&Value| row["local"] == end.local.to_string() && row["remote"] == end.remote.to_string();
        rows.iter().find(is_it).expect("every socket is listed")
    };
    for end in [&zoo.established.0, &zoo.established.1, &zoo.half_closed.0, &zoo.half_closed.1, &zoo.closing] {
        let row = of(end);
        assert_eq!([&row["kept"], &row["pid"]], [&json!("held"), &json!(ours)], "{row}");
        // A process that another test is just starting has it, too.
        assert!(row["holders"].as_u64() >= Some(1), "{row}");
        assert_eq!([&row["fd"], &row["owner_source"]], [&json!(end.as_raw_fd()), &json!("scan")], "{row}");
        // The kernel knows when the last segment came, which is no lower bound for states that begin without one. Young
        // sockets have no age.
        let is_begun_by_segment = ["FIN_WAIT2", "CLOSE_WAIT", "CLOSING"].iter().any(|state| row["state"] == *state);
        assert!(row["age_ns"].is_null() || is_begun_by_segment && row["age_at_least"] == true, "{row}");
    }
    let row = of(&zoo.never_accepted);
    assert_eq!([&row["state"], &row["kept"], &row["pid"]], [&json!("CLOSE_WAIT"), &json!("queued"), &Value::Null]);
    assert_eq!(row["listener_pid"], ours, "{row}");
    for (end, state) in [(&zoo.fin_wait1, "FIN_WAIT1"), (&zoo.last_ack, "LAST_ACK")] {
        let row = of(end);
        assert_eq!([&row["state"], &row["kept"], &row["pid"]], [&json!(state), &json!("orphan"), &Value::Null]);
        assert_eq!(row["timer"], "on", "{row}");
    }
    let row = of(&zoo.fin_wait2);
    assert_eq!(
        [&row["state"], &row["kept"], &row["time_wait_left_ns"]],
        [&json!("FIN_WAIT2"), &json!("mini"), &Value::Null]
    );
    let row = of(&zoo.time_wait);
    assert_eq!([&row["state"], &row["kept"], &row["timer"]], ["TIME_WAIT", "mini", "timewait"], "{row}");
    let left = row["time_wait_left_ns"].as_u64().expect("a time");
    assert!((1..=60_000_000_000).contains(&left), "{row}");
    assert!(row["age_ns"].as_u64().is_none_or(|age| age + left == 60_000_000_000), "{row}");
}

#[test]
fn counts_name_who_and_where() {
    let net = Namespace::enter();
    let zoo = Zoo::fill(&net);
    let rows = snapshot(&net, &["--state", "CLOSE_WAIT"]);
    let ours = json!(std::process::id());
    let owners: Vec<_> = rows.iter().filter(|row| row["by"] == "owner").collect();
    assert!(owners.iter().any(|row| row["pid"] == ours && row["total"] == 2 && row["held"] == 2), "{owners:?}");
    assert!(owners.iter().any(|row| row["listener_pid"] == ours && row["queued"] == 1), "{owners:?}");
    let ends: Vec<_> = rows.iter().filter(|row| row["by"] == "remote").collect();
    let (local, remote) = (zoo.close_wait.local.to_string(), "127.0.0.1:0");
    assert!(ends.iter().any(|row| row["local"] == local && row["remote"] == remote && row["total"] == 2), "{ends:?}");
    assert!(
        rows.iter().all(|row| row["state"] == "CLOSE_WAIT" || row["total"] == 0 || row["state"] == "CLOSED"),
        "{rows:?}"
    );
}

#[test]
fn filters() {
    let net = Namespace::enter();
    let (client, server) = pair();
    let local = |args: &[&str]| {
        let rows = snapshot(&net, &[&["--list"], args].concat());
        rows.iter().map(|row| row["local"].as_str().expect("an address").to_owned()).collect::<Vec<_>>()
    };
    let (ours, theirs) = (client.local.to_string(), server.local.to_string());
    assert_eq!(local(&["--lport", &client.local.port().to_string()]), [&*ours]);
    assert_eq!(local(&["--rport", &client.local.port().to_string()]), [&*theirs]);
    assert_eq!(local(&["--pid", &std::process::id().to_string()]).len(), 2);
    assert_eq!(local(&["--pid", "1"]).len(), 0);
    assert_eq!(local(&["-6"]).len(), 0);
    assert_eq!(local(&["--state", "ESTABLISHED", "--addr", "127.0.0.0/8"]).len(), 2);
    assert_eq!(local(&["--state", "TIME_WAIT"]).len(), 0);
}

/// By when the last segment came that acknowledged anything.
#[test]
fn idle_sockets() {
    let net = Namespace::enter_unwatched();
    let (client, server) = pair();
    client.send(1);
    server.receive(1);
    let least = 300_000_000;
    let rows = loop {
        let rows = snapshot(&net, &["--list", "--idle", "300ms"]);
        if rows.len() == 2 {
            break rows;
        }
    };
    assert!(rows.iter().all(|row| row["idle_ns"].as_u64().is_some_and(|idle| idle >= least)), "{rows:?}");
    assert_eq!(snapshot(&net, &["--list", "--idle", "1h"]), [] as [Value; 0]);
    let counted = |idle| {
        let rows = snapshot(&net, &["--idle", idle]);
        rows.iter().find(|row| row["by"] == "state" && row["state"] == "ESTABLISHED").map(|row| row["total"].clone())
    };
    assert_eq!([counted("300ms"), counted("1h")], [Some(json!(2)), Some(json!(0))]);
    let text = run(&["snapshot", "--list", "--idle", "300ms", "--netns", &net.inode().to_string()]).text().to_owned();
    assert_eq!(text.lines().filter(|line| line.contains(", idle ")).count(), 2, "{text}");
}

#[test]
fn accept_queues() {
    let net = Namespace::enter_unwatched();
    let listener = tcptrace_tests::sockets::listen_with("127.0.0.1", 4);
    let address = listener.local_addr().expect("its address");
    let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).expect("connect")).collect();
    let list =
        || run(&["snapshot", "--list", "--state", "LISTEN", "--netns", &net.inode().to_string()]).text().to_owned();
    let is_there = |text: &str| text.lines().any(|line| line.ends_with("accept queue 3/4"));
    let mut text = list();
    while !is_there(&text) {
        assert!(text.contains("LISTEN"), "{text}");
        text = list();
    }
}

#[test]
fn namespaces_have_names() {
    let name = format!("tcptrace-test-{}", std::process::id());
    let net = Namespace::enter();
    let (client, _server) = pair();
    let _named = Named::bind(&name);
    let list = |netns: &str| rows(&run(&["snapshot", "--list", "--format", "json", "--netns", netns]));
    for netns in [name.clone(), net.inode().to_string(), format!("/run/netns/{name}")] {
        let rows = list(&netns);
        let row = rows.iter().find(|row| row["local"] == client.local.to_string()).expect("the client");
        assert_eq!([&row["netns_name"], &row["netns"]], [&json!(name), &json!(net.inode())], "{row}");
    }
    let unknown = run(&["snapshot", "--netns", "nobody-has-this-name"]);
    assert_eq!(unknown.code(), 1);
    assert!(unknown.stderr.contains("no network namespace is called 'nobody-has-this-name'"), "{}", unknown.stderr);
}

/// A name for this thread's network namespace, as `ip netns` gives it.
pub(super) struct Named(String);

impl Named {
    pub(super) fn bind(name: &str) -> Self {
        fs::create_dir_all("/run/netns").expect("make a place for names");
        let path = format!("/run/netns/{name}");
        fs::write(&path, "").expect("make a file to mount on");
        let here = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        let nothing = None::<&str>;
        nix::mount::mount(Some(here.as_str()), path.as_str(), nothing, nix::mount::MsFlags::MS_BIND, nothing)
            .expect("mount the namespace");
        Self(path)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(self.0.as_str(), nix::mount::MntFlags::MNT_DETACH);
        let _gone = fs::remove_file(&self.0);
    }
}

/// Every user may take a snapshot, and learns what stays hidden.
#[test]
fn without_privileges() {
    let _net = Namespace::enter();
    let (client, _server) = pair();
    let place = copy_for_everybody("snapshot");
    let mut command = Command::new(&place);
    command.args(["snapshot", "--list", "--format", "json"]).uid(65_534).gid(65_534);
    let finished = run_command(command);
    fs::remove_file(&place).expect("remove the copy");

    let rows = rows(&finished);
    let row = rows.iter().find(|row| row["local"] == client.local.to_string()).expect("the client");
    assert_eq!(
        [&row["state"], &row["pid"], &row["owner_source"]],
        [&json!("ESTABLISHED"), &Value::Null, &json!("unknown")]
    );
    assert!(finished.stderr.contains("not seen: the descriptors of"), "{}", finished.stderr);
    assert!(finished.stderr.contains("run as root"), "{}", finished.stderr);
}

/// `/proc` can be mounted so that other processes are invisible.
#[test]
fn processes_that_proc_hides_are_not_seen() {
    let _net = Namespace::enter();
    let (client, _server) = pair();
    let place = copy_for_everybody("hidepid");
    let mut command = Command::new("unshare");
    let hide =
        "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(&place).args(["snapshot", "--list", "--format", "json"]);
    let finished = run_command(command);
    fs::remove_file(&place).expect("remove the copy");

    let rows = rows(&finished);
    let row = rows.iter().find(|row| row["local"] == client.local.to_string()).expect("the client");
    assert_eq!([&row["state"], &row["pid"]], [&json!("ESTABLISHED"), &Value::Null]);
    for what in ["the descriptors of", "the network namespaces of"] {
        assert!(
            finished.stderr.contains(&format!("{what} the processes that /proc hides (hidepid)")),
            "{}",
            finished.stderr
        );
    }
    assert!(finished.stderr.contains("run as root"), "{}", finished.stderr);
}

/// Link-local addresses are the same on every interface.
#[test]
fn a_link_local_address_has_its_interface() {
    let net = Namespace::enter();
    let commands = "ip link add d0 type veth peer name d1 && ip addr add fe80::1/64 dev d0 nodad && \
                    ip link set d0 up && ip link set d1 up";
    let mut command = Command::new("sh");
    command.args(["-c", commands]);
    let finished = run_command(command);
    assert!(finished.status.success(), "{}", finished.stderr);
    let index = fs::read_to_string("/proc/thread-self/net/dev_snmp6/d0").expect("the interface");
    let index: u32 = index.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    let address = std::net::SocketAddrV6::new("fe80::1".parse().expect("an address"), 0, 0, index);
    let listener = std::net::TcpListener::bind(address).expect("listen");
    let port = listener.local_addr().expect("its address").port();
    let server = std::net::SocketAddrV6::new(*address.ip(), port, 0, index);
    let client = std::net::TcpStream::connect(server).expect("connect");
    let client = format!("[fe80::1%d0]:{}", client.local_addr().expect("its address").port());

    let ends: Vec<_> = snapshot(&net, &["--list"])
        .iter()
        .map(|row| {
            (
                row["local"].as_str().unwrap_or_default().to_owned(),
                row["remote"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let server = format!("[fe80::1%d0]:{port}");
    assert!(ends.contains(&(client.clone(), server.clone())), "{ends:?}");
    assert!(ends.contains(&(server.clone(), client)), "{ends:?}");
    assert!(ends.iter().any(|(local, remote)| *local == server && remote == "[::]:0"), "{ends:?}");
}
