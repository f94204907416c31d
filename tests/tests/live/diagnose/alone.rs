//! What is set for a whole machine: in a virtual machine, where nothing else runs at the same time.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::ability::need_alone;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{address, connect, listen, start_connecting};
use tcptrace_tests::{End, Namespace};

use super::{Both, assert_found, assert_is, figure, one};

/// For what takes a second.
const LONGEST: Duration = Duration::from_secs(30);

/// A setting of the whole machine, as long as this lives.
struct Setting {
    name: &'static str,
    before: String,
}

impl Setting {
    fn set(name: &'static str, value: &str) -> Self {
        need_alone("it changes settings of the whole machine");
        let before = in_first(&format!("cat /proc/sys/net/{name}"));
        let setting = Self { name, before };
        setting.change(value);
        setting
    }

    fn change(&self, value: &str) {
        in_first(&format!("echo '{value}' >/proc/sys/net/{}", self.name));
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.change(self.before.trim());
    }
}

/// Runs a script in the first network namespace.
fn in_first(script: &str) -> String {
    let mut command = Command::new("nsenter");
    let output = command.args(["--net=/proc/1/ns/net", "sh", "-c", script]).output().expect("run nsenter");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONGEST, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn found<'r>(rows: &'r [Value], id: &str) -> &'r Value {
    let of: Vec<_> = rows.iter().filter(|row| row["event"] == "finding" && row["id"] == id).collect();
    assert_eq!(of.len(), 1, "{rows:#?}");
    of[0]
}

/// The machine's count of orphans, of `/proc/net/sockstat`.
fn level(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").expect("the kernel's count of sockets");
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: ")).expect("a line of TCP");
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// Clients that have closed, and whose FINs do not arrive.
fn orphans(net: &Namespace, count: usize) -> Vec<(End, End)> {
    let server = listen("127.0.0.1");
    let mut open: Vec<_> = (0..count).map(|_| connect(&server)).collect();
    net.drop_arriving(&format!("tcp dport {} tcp flags & fin == fin", address(&server).port()));
    open.iter_mut().for_each(|(client, _)| client.close());
    open
}

#[test]
fn orphans_are_near_their_limit() {
    let limit = Setting::set("ipv4/tcp_max_orphans", "100");
    binary();
    let net = Namespace::enter_unwatched();
    for (count, expected) in [(20, None), (30, Some("warning")), (60, Some("critical"))] {
        let both = Both::look(&net, &["--only", "orphans-near-limit"]);
        let open = orphans(&net, count);
        wait_until("no orphans", || level("orphan") == count as u64);
        for rows in both.rows(if expected.is_some() { 4 } else { 0 }) {
            let Some(severity) = expected else {
                let checked = one(&rows, "checked", "orphans-near-limit");
                assert_eq!(checked["outcome"], "silent", "{rows:#?}");
                continue;
            };
            let found = found(&rows, "orphans-near-limit");
            let figures = [("orphans", json!(count)), ("orphan_limit", json!(100)), ("aborted", json!(0))];
            assert_is(found, [severity, "certain"], &figures);
        }
        net.heal();
        drop(open);
        wait_until("orphans stay", || level("orphan") == 0);
    }
    limit.change("10");
    let both = Both::look(&net, &["--only", "orphans-near-limit"]);
    let open = orphans(&net, 30);
    wait_until("nothing is aborted", || net.counter("TcpExt", "TCPAbortOnMemory") > 0);
    for rows in both.rows(4) {
        let found = found(&rows, "orphans-near-limit");
        assert_is(found, ["critical", "certain"], &[("orphan_limit", json!(10))]);
        assert!(figure(found, "aborted") >= 1.0 && figure(found, "killed") >= 1.0, "{found:#}");
    }
    drop(open);
}

#[test]
fn connection_tracking_is_full() {
    const LIMIT: usize = 100;
    binary();
    let net = Namespace::enter_unwatched();
    // From now on its connections are tracked.
    net.drop_arriving("ct state invalid");
    let _limit = Setting::set("netfilter/nf_conntrack_max", &LIMIT.to_string());
    let server = listen("127.0.0.1");
    let both = Both::look(&net, &["--only", "conntrack-full"]);
    let some = (0..60).map(|_| connect(&server)).collect::<Vec<_>>();
    for rows in both.rows(0) {
        assert_eq!(one(&rows, "checked", "conntrack-full")["outcome"], "silent", "{rows:#?}");
    }
    let both = Both::look(&net, &["--only", "conntrack-full"]);
    let most = (0..25).map(|_| connect(&server)).collect::<Vec<_>>();
    for rows in both.rows(4) {
        let figures = [("entries", json!(85)), ("entry_limit", json!(LIMIT)), ("dropped", json!(0))];
        assert_found(&net, &rows, "conntrack-full", ["warning", "certain"], &figures);
    }
    let both = Both::look(&net, &["--only", "conntrack-full"]);
    let rest: Vec<_> = (0..30).map(|_| start_connecting(address(&server))).collect();
    let dropped = || {
        let text = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").expect("what conntrack counts");
        let place = text.lines().next().and_then(|names| names.split_whitespace().position(|name| name == "drop"));
        let place = place.expect("a column of drops");
        let of =
            |line: &str| u64::from_str_radix(line.split_whitespace().nth(place).expect("a number"), 16).expect("hex");
        text.lines().skip(1).map(of).sum::<u64>()
    };
    wait_until("nothing is dropped", || dropped() >= 10);
    for rows in both.rows(4) {
        let found =
            assert_found(&net, &rows, "conntrack-full", ["critical", "certain"], &[("entry_limit", json!(LIMIT))]);
        assert!(figure(found, "entries") >= 100.0 && figure(found, "dropped") >= 10.0, "{found:#}");
    }
    drop((some, most, rest));
}

/// Nobody reads what comes in, and there is room for little.
#[test]
fn memory_is_short() {
    let memory = Setting::set("ipv4/tcp_mem", "600000 700000 800000");
    binary();
    let net = Namespace::enter_unwatched();
    let server = listen("127.0.0.1");
    for expected in [None, Some("warning")] {
        let both = Both::look(&net, &["--only", "tcp-memory"]);
        if expected.is_some() {
            memory.change("64 128 800000");
        }
        let open: Vec<_> = (0..40).map(|_| connect(&server)).collect();
        for (client, _) in &open {
            let mut client: &TcpStream = client;
            client.set_nonblocking(true).expect("make it non-blocking");
            while client.write(&[7; 65_536]).is_ok() {}
        }
        wait_until("no memory is used", || level("mem") > 128);
        for rows in both.rows(if expected.is_some() { 4 } else { 0 }) {
            let Some(severity) = expected else {
                let checked = one(&rows, "checked", "tcp-memory");
                assert_eq!(checked["outcome"], "silent", "{rows:#?}");
                assert!(figure(checked, "used_pages") > 128.0, "{checked:#}");
                continue;
            };
            let found = found(&rows, "tcp-memory");
            assert_is(found, [severity, "certain"], &[("pressure_pages", json!(128)), ("limit_pages", json!(800_000))]);
            assert!(figure(found, "used_pages") > 128.0 && figure(found, "unread_bytes") > 1e5, "{found:#}");
        }
        drop(open);
    }
}
