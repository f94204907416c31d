//! What the kernel counts, and what it is set to.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::program::{binary, run, run_command};
use tcptrace_tests::sockets::{address, connect, listen, listen_with, start_connecting};
use tcptrace_tests::{End, Namespace, ability, pair};

use super::{Both, assert_found, assert_is, figure, findings, one, rows};

/// For what takes a second.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits until a counter of the namespace has this value at least.
fn wait_for(net: &Namespace, name: &str, least: u64) {
    let began = Instant::now();
    while net.counter("TcpExt", name) < least {
        assert!(began.elapsed() < LONGEST, "{name} stays {}", net.counter("TcpExt", name));
        sleep(Duration::from_millis(5));
    }
}

/// Clients whose handshakes do not end, at a listener for two: the answers to their SYNs get lost.
fn flood(net: &Namespace, counter: &str) -> (std::net::TcpListener, Vec<(socket2::Socket, End)>) {
    let server = listen_with("127.0.0.1", 2);
    net.drop_arriving(&format!("tcp sport {} tcp flags & (syn|ack) == (syn|ack)", address(&server).port()));
    let clients = (0..30).map(|_| start_connecting(address(&server))).collect();
    wait_for(net, counter, 20);
    (server, clients)
}

#[test]
fn a_syn_queue_is_full() {
    binary();
    let net = Namespace::enter_unwatched();
    let both = Both::look(&net, &["--only", "syn-queue-full"]);
    // The requests wait for a minute. The last look of both counts them.
    let (server, _clients) = flood(&net, "TCPReqQFullDoCookies");
    for rows in both.rows(4) {
        let figures = [("full_drops", json!(0)), ("cookies_received", json!(0)), ("syncookies", json!(1))];
        let found = assert_found(&net, &rows, "syn-queue-full", ["warning", "certain"], &figures);
        assert!(figure(found, "full_cookies") >= 20.0, "{found:#}");
        assert!(figure(found, "most_requests") >= figure(found, "queue_limit"), "{found:#}");
        assert_eq!(found["figures"]["queue_limit"], 2, "{found:#}");
        assert_eq!(found["subject"]["lport"], address(&server).port(), "{found:#}");
    }
}

/// The setting that makes it worse is named in its finding, and not told for itself.
#[test]
fn a_syn_queue_without_cookies_drops() {
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_syncookies", "0");
    let both = Both::look(&net, &["--only", "syn-queue-full,risky-setting"]);
    let (_server, _clients) = flood(&net, "TCPReqQFullDrop");
    for rows in both.rows(4) {
        let found = findings(&net, &rows);
        let ids: Vec<_> = found.iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, ["syn-queue-full", "risky-setting"], "{rows:#?}");
        let figures = [("full_cookies", json!(0)), ("cookies_sent", json!(0)), ("syncookies", json!(0))];
        assert_is(found[0], ["critical", "certain"], &figures);
        assert!(figure(found[0], "full_drops") >= 20.0, "{found:#?}");
        let why = found[0]["why"].as_str().expect("why");
        assert!(why.ends_with("tcp_syncookies=0 drops SYNs when a SYN queue is full."), "{why}");
        assert_is(found[1], ["note", "certain"], &[("value", json!(0)), ("default", json!(1))]);
        assert_eq!(found[1]["because_of"], "syn-queue-full", "{found:#?}");
    }
}

/// Something on the way sets timestamps back. Without a random beginning they are the time since the kernel booted, so that 1
/// is older than all of them.
#[test]
fn timestamps_go_backwards() {
    const MANY: u64 = 12;
    ability::need_root();
    binary();
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_timestamps", "2");
    let both = Both::look(&net, &["--only", "paws-drops"]);
    let server = listen("127.0.0.1");
    let open: Vec<_> = (0..MANY).map(|_| connect(&server)).collect();
    net.treat_arriving(&format!("tcp dport {}", address(&server).port()), "tcp option timestamp tsval set 1");
    open.iter().for_each(|(client, _)| client.send(10));
    wait_for(&net, "PAWSEstab", MANY);
    let kernel = ability::kernel();
    if kernel < (6, 14) {
        // Those count reordered ACKs among them.
        wait_for(&net, "PAWSEstab", 100);
    }
    net.heal();
    open.iter().for_each(|(_, served)| served.receive(10));
    for rows in both.rows(4) {
        let figures = [("active", json!(0)), ("time_wait", json!(0)), ("echo", json!(0))];
        let found = assert_found(&net, &rows, "paws-drops", ["warning", "certain"], &figures);
        assert!(figure(found, "established") >= MANY as f64, "{found:#}");
        assert!(figure(found, "segments") > figure(found, "established"), "{found:#}");
        assert!(figure(found, "dropped_share") > 0.0001, "{found:#}");
    }
}

/// Each namespace has a table of its own, and all have one limit.
#[test]
fn connection_tracking_has_room() {
    binary();
    let net = Namespace::enter_unwatched();
    net.drop_arriving("ct state invalid");
    let both = Both::look(&net, &["--only", "conntrack-full"]);
    let server = listen("127.0.0.1");
    let open: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    for rows in both.rows(0) {
        assert_eq!(findings(&net, &rows), Vec::<&Value>::new());
        let checked = one(&rows, "checked", "conntrack-full");
        assert!(checked["figures"]["entries"].as_u64() >= Some(20), "{checked:#}");
        assert!(figure(checked, "entry_limit") > 1_000.0, "{checked:#}");
    }
    drop(open);
}

#[test]
fn settings_that_are_risky() {
    let net = Namespace::enter_unwatched();
    for (name, value) in [
        ("ipv4/tcp_timestamps", "0"),
        ("ipv4/tcp_abort_on_overflow", "1"),
        ("ipv4/tcp_syncookies", "2"),
        ("ipv4/tcp_fin_timeout", "9"),
        ("ipv4/tcp_retries2", "7"),
        ("ipv4/tcp_syn_retries", "1"),
        ("ipv4/tcp_keepalive_time", "59"),
        ("ipv4/ip_local_port_range", "40000 49998"),
        ("ipv4/tcp_max_tw_buckets", "4095"),
        ("core/somaxconn", "64"),
    ] {
        net.sysctl(name, value);
    }
    let _capped = listen_with("127.0.0.1", 100);
    let (_client, _server) = pair();
    let netns = net.inode().to_string();
    let options = ["diagnose", "--duration", "0", "--format", "json", "--only", "risky-setting", "--netns", &netns];
    let rows = rows(&run(&options), 0);
    let found = findings(&net, &rows);
    let mut names: Vec<_> = found
        .iter()
        .map(|row| {
            assert_is(row, ["note", "certain"], &[]);
            let text = row["evidence"][0]["text"].as_str().expect("a line");
            text.split('=').next().expect("a name").rsplit('.').next().expect("a name")
        })
        .collect();
    names.sort_unstable();
    let expected = [
        "ip_local_port_range",
        "somaxconn",
        "tcp_abort_on_overflow",
        "tcp_fin_timeout",
        "tcp_keepalive_time",
        "tcp_max_tw_buckets",
        "tcp_retries2",
        "tcp_syn_retries",
        "tcp_syncookies",
        "tcp_timestamps",
    ];
    assert_eq!(names, expected, "{found:#?}");
}

/// A namespace as it is made, with a listener that asks for much.
#[test]
fn settings_that_are_fine() {
    let net = Namespace::enter_unwatched();
    let _server = listen_with("127.0.0.1", 4096);
    let (_client, _other) = pair();
    let netns = net.inode().to_string();
    let options = ["diagnose", "--duration", "0", "--format", "json", "--only", "risky-setting", "--netns", &netns];
    let rows = rows(&run(&options), 0);
    assert_eq!(findings(&net, &rows), Vec::<&Value>::new());
    let compared = one(&rows, "checked", "risky-setting");
    assert!(figure(compared, "compared") >= 10.0 || compared["outcome"] == "fired", "{compared:#}");
}

/// A setting and its row in the table.
#[test]
fn settings_are_shown_with_what_they_do() {
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_fin_timeout", "90");
    let netns = net.inode().to_string();
    let all = run(&["diagnose", "--settings", "--format", "json", "--netns", &netns]);
    assert_eq!(all.code(), 0, "{}", all.stderr);
    let rows = all.rows();
    assert!(rows.iter().all(|row| row["event"] == "setting"), "{rows:#?}");
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {rows:#?}"));
    let row = of("net.ipv4.tcp_fin_timeout");
    assert_eq!([&row["value"], &row["default"], &row["source"]], ["90", "60", "changed"], "{row:#}");
    assert_eq!(row["netns"], net.inode(), "{row:#}");
    let gone = of("net.ipv4.tcp_tw_recycle");
    assert_eq!([&gone["value"], &gone["source"]], [&Value::Null, &json!("missing")], "{gone:#}");
    assert_eq!(of("net.ipv4.tcp_mem")["source"], "computed");
    assert_eq!(of("TIME_WAIT")["netns"], Value::Null);

    let text = run(&["diagnose", "--settings"]);
    assert_eq!(text.code(), 0, "{}", text.stderr);
    let place = format!("network namespace {netns}: the same, but");
    assert!(text.text().lines().any(|line| line == place), "{}", text.text());
    let changed = |line: &str| line.starts_with("* net.ipv4.tcp_fin_timeout ") && line.ends_with(" 60");
    assert!(text.text().lines().any(changed), "{}", text.text());

    // They are told beside a diagnosis, too, and a trace has them.
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let trace = trace.to_str().expect("UTF-8");
    let recorded = run(&["record", "--duration", "1s", "--output", trace]);
    // What other tests do at the same time may get lost.
    assert!([0, 3].contains(&recorded.code()), "{}", recorded.stderr);
    for options in [&["--duration", "0"][..], &[trace]] {
        let always =
            ["diagnose", "--format", "json", "--fail-on", "never", "--only", "fin-timeout-trap", "--netns", &netns];
        let rows = run(&[&always, options].concat()).rows();
        let is_it = |row: &&Value| row["event"] == "setting" && row["name"] == "net.ipv4.tcp_fin_timeout";
        let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("not there: {rows:#?}"));
        assert_eq!([&row["value"], &row["source"]], ["90", "changed"], "{row:#}");
    }
}

/// Files of a mount namespace of its own, so that no other process sees them.
#[test]
fn files_set_what_has_no_effect() {
    let net = Namespace::enter_unwatched();
    let lines = "# advice\nnet.ipv4.tcp_tw_recycle=1\nnet.ipv4.tcp_fin_timeout=17\nvm.swappiness=1\n";
    let options = "diagnose --duration 0 --format json --only stale-setting";
    let script = format!(
        "mount -t tmpfs tmpfs /etc/sysctl.d && printf '%s' \"$LINES\" >/etc/sysctl.d/99-tune.conf && exec \"$PROGRAM\" {options}"
    );
    let look = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).env("PROGRAM", binary()).env("LINES", lines);
        rows(&run_command(command), 0)
    };
    let found = |rows: &[Value]| {
        let of = rows.iter().filter(|row| row["id"] == "stale-setting" && row["event"] == "finding");
        let headline = |row: &Value| row["headline"].as_str().expect("a headline").to_owned();
        of.map(headline).filter(|headline| headline.contains("99-tune.conf")).collect::<Vec<_>>()
    };
    let recycle = "/etc/sysctl.d/99-tune.conf:2 sets net.ipv4.tcp_tw_recycle=1, which Linux does not have since 4.12";
    // Files are not for this namespace.
    assert_eq!(found(&look()), [recycle]);
    net.leave();
    let rows = look();
    let differs = "/etc/sysctl.d/99-tune.conf:3 sets net.ipv4.tcp_fin_timeout=17, and the kernel has 60";
    assert_eq!(found(&rows), [recycle, differs], "{rows:#?}");
}
