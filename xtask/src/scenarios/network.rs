//! Networks that lose packets or answer them with resets, and peers that are gone; and ports, descriptors and closes that are
//! late: nginx, redis, Python.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::ground::Net;
use super::said::{Said, Want, may, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "fixed-port",
        parts: &[
            Part { name: "50051", run: |net| fixed_port(net, ""), wants: &FIXED },
            Part { name: "50051, reserved", run: |net| fixed_port(net, "50051"), wants: &[] },
        ],
    },
    Scenario {
        name: "lost-acks",
        parts: &[
            Part { name: "for nginx", run: |net| lost_acks(net, true), wants: &PROLONGED },
            Part { name: "none is lost", run: |net| lost_acks(net, false), wants: &[] },
        ],
    },
    Scenario {
        name: "slow-close",
        parts: &[
            Part { name: "2s after the client", run: |net| slow_close(net, "2"), wants: &SLOW },
            Part { name: "at once", run: |net| slow_close(net, "0"), wants: &[] },
        ],
    },
    Scenario {
        name: "closed-not-released",
        parts: &[
            Part { name: "redis stops, and has keepalive", run: |net| not_released(net, true), wants: &NOT_RELEASED },
            Part { name: "redis that runs", run: |net| not_released(net, false), wants: &SHORT },
        ],
    },
    Scenario {
        name: "clients-gone",
        parts: &[
            Part { name: "nginx closes, nobody answers", run: |net| clients_gone(net, true), wants: &UNANSWERED },
            Part { name: "clients close", run: |net| clients_gone(net, false), wants: &[] },
        ],
    },
    Scenario {
        name: "reset-on-the-way",
        parts: &[
            Part { name: "after 2s without data", run: |net| rejected(net, true), wants: &RESET },
            Part { name: "never", run: |net| rejected(net, false), wants: &[] },
        ],
    },
    Scenario {
        name: "dead-peer",
        parts: &[
            Part { name: "redis is gone", run: |net| dead(net, true), wants: &DEAD },
            Part { name: "redis is there", run: |net| dead(net, false), wants: &[] },
        ],
    },
];

const FIXED: [Want; 1] = [want("fixed-port-in-range", "note")];
const PROLONGED: [Want; 2] = [want("time-wait-prolonged", "warning"), may("fin-unanswered", "warning")];
const SLOW: [Want; 1] = [want("close-wait-slow", "note")];
/// Until the kernel gives them up, they wait in CLOSE_WAIT: who looks then finds that.
const NOT_RELEASED: [Want; 4] = [
    want("closed-not-released", "warning"),
    may("close-wait-leak", "warning"),
    may("peer-does-not-close", "note"),
    may("no-connection-pool", "note"),
];
/// 120 connections of less than a second look like a missing pool.
const SHORT: [Want; 1] = [may("no-connection-pool", "note")];
const UNANSWERED: [Want; 1] = [want("fin-unanswered", "warning")];
const RESET: [Want; 1] = [want("reset-by-peer", "critical")];
const DEAD: [Want; 1] = [want("dead-peer", "critical")];

const PYTHON: &str = "/usr/bin/python3";

fn fixed_port(net: &Net, reserved: &str) -> Result<Said> {
    if !reserved.is_empty() {
        net.sysctl("net.ipv4.ip_local_reserved_ports", reserved)?;
    }
    net.serve(PYTHON, &["-m", "http.server", "--bind", "127.0.0.1", "50051"], &[50051])?;
    net.diagnose(5, || Ok(Vec::new()))
}

/// So many connections with a request each, which wait for the file `go`, and then end.
const IDLES: &str = r#"
import http.client, os, sys, time
clients = []
for _ in range(int(sys.argv[1])):
    client = http.client.HTTPConnection("127.0.0.1", 8080)
    client.request("GET", "/")
    client.getresponse().read()
    clients.append(client)
open("ready", "w")
while not os.path.exists("go"):
    time.sleep(0.01)
for client in clients:
    client.close()
time.sleep(30)
"#;

fn lost_acks(net: &Net, are_lost: bool) -> Result<Said> {
    net.nginx("", "", "")?;
    net.diagnose(10, || {
        net.python_ready(IDLES, &["40"])?;
        if are_lost {
            net.treat("tcp dport 8080 tcp flags == ack", "drop")?;
        }
        net.file("go", "")?;
        // By then nginx has repeated its FINs five times.
        std::thread::sleep(Duration::from_secs(7));
        Ok(vec![format!("{} in LAST_ACK", net.sockets("09"))])
    })
}

/// A server that closes so many seconds after its clients.
const CLOSES_LATE: &str = r#"
import socketserver, sys, time
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(4096):
            pass
        time.sleep(float(sys.argv[1]))
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 100
Server(("127.0.0.1", 8080), Handler).serve_forever()
"#;

/// Connects, sends and closes, ten times a second.
const COMES_AND_GOES: &str = r#"
import socket, time
for _ in range(40):
    with socket.create_connection(("127.0.0.1", 8080)) as it:
        it.sendall(b"hello")
    time.sleep(0.1)
"#;

fn slow_close(net: &Net, seconds: &str) -> Result<Said> {
    net.serve(PYTHON, &["-c", CLOSES_LATE, seconds], &[8080])?;
    net.diagnose(8, || {
        net.python(COMES_AND_GOES, &[])?;
        Ok(vec![format!("{} in CLOSE_WAIT", net.sockets("08"))])
    })
}

/// 120 connections that close, when redis may have stopped.
const CLOSES_ALL: &str = r#"
import os, signal, socket, sys
sockets = [socket.create_connection(("127.0.0.1", 6379)) for _ in range(120)]
for it in sockets:
    it.sendall(b"PING\r\n")
    it.recv(100)
if sys.argv[2] == "stop":
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
for it in sockets:
    it.close()
"#;

fn not_released(net: &Net, stops: bool) -> Result<Said> {
    // The mini-sockets of the clients end before the keepalive probes of redis come, which are then answered with resets.
    net.sysctl("net.ipv4.tcp_fin_timeout", "1")?;
    let redis = net.redis(&["--tcp-keepalive", "3"])?;
    let said = net.diagnose(9, || {
        net.python(CLOSES_ALL, &[&redis.to_string(), if stops { "stop" } else { "go on" }])?;
        net.wait_until("no socket is in CLOSE_WAIT", || Ok(net.sockets("08") == 0))?;
        Ok(Vec::new())
    });
    net.signal(redis, Signal::SIGCONT)?;
    said
}

fn clients_gone(net: &Net, are_gone: bool) -> Result<Said> {
    net.nginx("", "keepalive_timeout 1;", "")?;
    net.diagnose(14, || {
        net.python_ready(IDLES, &["10"])?;
        if are_gone {
            net.treat("tcp sport 8080", "drop")?;
        } else {
            net.file("go", "")?;
        }
        Ok(Vec::new())
    })
}

/// Twelve connections to redis, which wait for the file `go`, and ask once more.
const ASKS_AGAIN: &str = r#"
import collections, os, socket, sys, time
TCP_USER_TIMEOUT = 18
counts = collections.Counter()
clients = []
for _ in range(12):
    client = socket.create_connection(("127.0.0.1", 6379))
    client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 2000)
    client.sendall(b"PING\r\n")
    client.recv(100)
    clients.append(client)
open("ready", "w")
while not os.path.exists("go"):
    time.sleep(0.01)
for client in clients:
    client.sendall(b"PING\r\n")
for client in clients:
    try:
        counts["answered" if client.recv(100) else "not answered"] += 1
    except OSError as error:
        counts[type(error).__name__] += 1
    client.close()
open("result", "w").write(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
time.sleep(30)
"#;

/// They ask again after two seconds, when packets to redis may be treated so.
fn asks_again(net: &Net, verdict: Option<&str>) -> Result<Said> {
    net.redis(&[])?;
    net.diagnose(9, || {
        net.python_ready(ASKS_AGAIN, &[])?;
        std::thread::sleep(Duration::from_secs(2));
        if let Some(verdict) = verdict {
            net.treat("tcp dport 6379", verdict)?;
        }
        net.file("go", "")?;
        let result = net.folder.join("result");
        net.wait_until("the clients have asked", || Ok(std::fs::metadata(&result).is_ok_and(|it| it.len() > 0)))?;
        Ok(vec![std::fs::read_to_string(&result)?])
    })
}

fn rejected(net: &Net, are_rejected: bool) -> Result<Said> {
    asks_again(net, are_rejected.then_some("reject with tcp reset"))
}

fn dead(net: &Net, is_dead: bool) -> Result<Said> {
    asks_again(net, is_dead.then_some("drop"))
}
