//! Processes that do not accept, that lack descriptors, or that do not close: redis, nginx, Java.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::ground::Net;
use super::said::{Said, Want, may, under, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "stopped-server",
        parts: &[
            Part { name: "redis under SIGSTOP", run: |net| stopped(net, true), wants: &STOPPED },
            Part { name: "redis that runs", run: |net| stopped(net, false), wants: &[] },
        ],
    },
    Scenario {
        name: "nginx-descriptors",
        parts: &[
            Part { name: "worker_rlimit_nofile 30", run: |net| descriptors(net, "30"), wants: &DESCRIPTORS },
            Part { name: "worker_rlimit_nofile 4096", run: |net| descriptors(net, "4096"), wants: &[] },
        ],
    },
    Scenario {
        name: "java-leak",
        parts: &[
            Part { name: "keeps what its clients closed", run: |net| java(net, "leak"), wants: &LEAK },
            Part { name: "closes", run: |net| java(net, "close"), wants: &[] },
        ],
    },
    Scenario {
        name: "python-client-leak",
        parts: &[
            Part { name: "answers not closed", run: |net| client(net, "leak"), wants: &LEAK },
            Part { name: "answers closed", run: |net| client(net, "close"), wants: &[] },
        ],
    },
    Scenario {
        name: "peer-does-not-close",
        parts: &[
            Part { name: "redis stops after accept", run: |net| does_not_close(net, true), wants: &DOES_NOT_CLOSE },
            Part { name: "redis that runs", run: |net| does_not_close(net, false), wants: &SHORT },
        ],
    },
];

/// The queue is full before it is certain that nobody accepts: who looks then finds that.
const STOPPED: [Want; 4] = [
    want("never-accepted", "critical"),
    under("never-accepted", "accept-queue-full", "critical"),
    under("never-accepted", "connect-timeout", "warning"),
    may("accept-queue-full", "critical"),
];
const DESCRIPTORS: [Want; 2] = [want("fd-limit", "critical"), under("fd-limit", "never-accepted", "critical")];
const LEAK: [Want; 1] = [want("close-wait-leak", "warning")];
const DOES_NOT_CLOSE: [Want; 3] = [
    want("close-wait-leak", "warning"),
    under("close-wait-leak", "peer-does-not-close", "note"),
    may("no-connection-pool", "note"),
];
/// 120 connections of less than a second look like a missing pool.
const SHORT: [Want; 1] = [may("no-connection-pool", "note")];

/// Opens so many connections, waits, and says how many were made.
const OPENS: &str = r#"
import socket, sys, time
port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sockets = []
for _ in range(count):
    it = socket.socket()
    it.setblocking(False)
    it.connect_ex(("127.0.0.1", port))
    sockets.append(it)
time.sleep(0.5)
open("ready", "w")
time.sleep(seconds)
"#;

fn stopped(net: &Net, stops: bool) -> Result<Said> {
    // On a busy machine even a redis that runs may be late for a queue of four.
    let redis = net.redis(&["--tcp-backlog", if stops { "4" } else { "64" }])?;
    if stops {
        net.signal(redis, Signal::SIGSTOP)?;
    }
    net.diagnose(9, || {
        net.python_ready(OPENS, &["6379", "20", "30"])?;
        Ok(vec![format!("20 clients, {} in SYN_SENT", net.sockets("02"))])
    })
}

fn descriptors(net: &Net, limit: &str) -> Result<Said> {
    net.nginx(&format!("worker_rlimit_nofile {limit};"), "", "")?;
    net.diagnose(8, || {
        net.python_ready(OPENS, &["8080", "40", "30"])?;
        Ok(Vec::new())
    })
}

/// A server with a thread for each client, which reads to the end.
const MAIN: &str = r#"
import java.net.*;
import java.util.*;

public class Main {
    static final List<Socket> kept = Collections.synchronizedList(new ArrayList<>());

    public static void main(String[] arguments) throws Exception {
        boolean leaks = arguments[0].equals("leak");
        ServerSocket server = new ServerSocket(8080, 100, InetAddress.getByName("127.0.0.1"));
        while (true) {
            Socket socket = server.accept();
            new Thread(() -> {
                try {
                    while (socket.getInputStream().read() >= 0) { }
                    if (leaks) kept.add(socket); else socket.close();
                } catch (Exception e) { }
            }).start();
        }
    }
}
"#;

/// Connects, sends and closes, ten times a second.
const COMES_AND_GOES: &str = r#"
import socket, time
for _ in range(50):
    with socket.create_connection(("127.0.0.1", 8080)) as it:
        it.sendall(b"hello")
    time.sleep(0.1)
"#;

fn java(net: &Net, what: &str) -> Result<Said> {
    net.java(MAIN, &[what], 8080)?;
    net.diagnose(8, || {
        net.python(COMES_AND_GOES, &[])?;
        Ok(vec![format!("{} in CLOSE_WAIT", net.sockets("08"))])
    })
}

/// A client that does not close what answers it, when the server closes after each.
const ANSWERS: &str = r#"
import http.client, sys, time
kept = []
for _ in range(50):
    it = http.client.HTTPConnection("127.0.0.1", 8080)
    it.request("GET", "/")
    while it.sock.recv(4096):
        pass
    if sys.argv[1] == "leak":
        kept.append(it)
    else:
        it.close()
    time.sleep(0.1)
open("ready", "w")
time.sleep(30)
"#;

fn client(net: &Net, what: &str) -> Result<Said> {
    net.nginx("", "keepalive_timeout 0;", "")?;
    net.diagnose(8, || {
        net.python_ready(ANSWERS, &[what])?;
        Ok(vec![format!("{} in CLOSE_WAIT", net.sockets("08"))])
    })
}

/// A pool of 120 connections that closes them all.
const CLOSES_ALL: &str = r#"
import os, signal, socket, sys, time
sockets = [socket.create_connection(("127.0.0.1", 6379)) for _ in range(120)]
for it in sockets:
    it.sendall(b"PING\r\n")
    it.recv(100)
if sys.argv[2] == "True":
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
for it in sockets:
    it.close()
"#;

fn does_not_close(net: &Net, stops: bool) -> Result<Said> {
    let redis = net.redis(&[])?;
    net.diagnose(8, || {
        net.python(CLOSES_ALL, &[&redis.to_string(), if stops { "True" } else { "False" }])?;
        Ok(Vec::new())
    })
}
