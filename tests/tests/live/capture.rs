//! A packet capture is cut to one connection by the command that `timeline --conn` prints.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::process::spawn;
use tcptrace_tests::program::{run, run_command};
use tcptrace_tests::{Namespace, Tracer, pair};

/// Starts a capture on the loopback of this namespace, and waits until it runs.
fn capture(file: &Path) -> Child {
    let mut command = Command::new("dumpcap");
    command.args(["-i", "lo", "-w"]).arg(file).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("File:")), "dumpcap captures");
    // Nobody reads the rest; dumpcap ignores that.
    std::thread::spawn(move || lines.count());
    child
}

/// The ports of every packet.
fn ports(folder: &Path, file: &str) -> Vec<BTreeSet<u16>> {
    let mut command = Command::new("tshark");
    command.current_dir(folder).args(["-r", file, "-T", "fields", "-e", "tcp.port"]);
    let printed = run_command(command);
    assert_eq!(printed.code(), 0, "{}", printed.stderr);
    let of = |line: &str| line.split(',').map(|port| port.parse().expect("a port")).collect();
    printed.text().lines().map(of).collect()
}

#[test]
fn is_cut_to_one_connection() {
    tcptrace_tests::ability::need_root();
    if Command::new("tshark").arg("--version").output().is_err() {
        skip("tshark is not installed");
    }
    let (net, folder) = (Namespace::enter_unwatched(), tempfile::tempdir().expect("a folder"));
    let trace = folder.path().join("one.tct");
    let mut dumpcap = capture(&folder.path().join("capture.pcap"));
    let tracer = Tracer::start_in(&net, &["record", "-o", trace.to_str().expect("UTF-8")]);
    let lives: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, server) = pair();
            client.send(5);
            server.receive(5);
            client.reset();
            server.receive_reset();
            client
        })
        .collect();
    assert_eq!(tracer.interrupt().code(), 0);
    kill(Pid::from_raw(dumpcap.id().cast_signed()), Signal::SIGINT).expect("it runs");
    assert!(dumpcap.wait().expect("wait for it").success());

    let trace = trace.to_str().expect("UTF-8");
    let rows = run(&["replay", "--rows", "connections", "--format", "json", trace]).rows();
    let row = rows.iter().find(|row| row["local"] == lives[1].local.to_string()).expect("its connection");
    let drawn = run(&["timeline", trace, "--conn", row["conn"].as_str().expect("an id")]);
    let printed = drawn.text().lines().find(|line| line.starts_with("  tshark ")).expect("a command");
    assert_eq!(printed.matches("frame.time_epoch").count(), 2, "{printed}");
    let mut command = Command::new("sh");
    command.current_dir(folder.path()).args(["-c", printed]);
    let cut = run_command(command);
    assert_eq!(cut.code(), 0, "{printed}: {}", cut.stderr);

    let wanted = BTreeSet::from([lives[1].local.port(), lives[1].remote.port()]);
    let mut expected = ports(folder.path(), "capture.pcap");
    expected.retain(|ports| *ports == wanted);
    // The handshake, the data and its acknowledgement, and the reset.
    assert!(expected.len() >= 6, "{expected:?}");
    assert_eq!(ports(folder.path(), "part.pcap"), expected, "{printed}");
}
