//! Connections that are idle for so long that nobody would notice when their peer is gone. They are in no hurry: each part
//! takes more than ten minutes.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::ground::Net;
use super::said::{Said, Want, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "silent-peer",
    parts: &[
        Part { name: "without keepalive", run: |net| idle(net, "0"), wants: &SILENT },
        Part { name: "with keepalive", run: |net| idle(net, "1"), wants: &[] },
    ],
}];

const SILENT: [Want; 1] = [want("silent-peer", "note")];

/// From here on the rule speaks of idle connections, and a little more.
const IDLE: Duration = Duration::from_secs(605);

const SERVES: &str = r#"
import socket, time
server = socket.create_server(("10.78.0.2", 7000))
kept = []
while True:
    kept.append(server.accept()[0])
    kept[-1].sendall(kept[-1].recv(100))
"#;

const CONNECTS: &str = r#"
import socket, sys, time
kept = [socket.create_connection(("10.78.0.2", 7000)) for _ in range(5)]
for it in kept:
    it.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(sys.argv[1]))
    it.sendall(b"hello")
    it.recv(100)
open("ready", "w")
time.sleep(3600)
"#;

/// The server's host goes, and nothing says so to its clients.
fn idle(net: &Net, keepalive: &str) -> Result<Said> {
    const PYTHON: &str = "/usr/bin/python3";
    let there = net.neighbour("10.78.0.1/24", "10.78.0.2/24")?;
    there.serve(PYTHON, &["-c", SERVES], &[7000])?;
    net.python_ready(CONNECTS, &[keepalive])?;
    net.treat("ip saddr 10.78.0.2", "drop")?;
    drop(there);
    sleep(IDLE);
    net.diagnose(6, || Ok(vec![format!("{} in ESTABLISHED", net.sockets("01"))]))
}
