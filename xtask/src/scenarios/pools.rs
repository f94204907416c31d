//! Pools that are missing, too small, or that keep what the server has closed: nginx, and Python's clients.

use anyhow::Result;

use super::ground::Net;
use super::said::{Said, Want, may, want};
use super::servers::ab;
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "nginx-upstream",
        parts: &[
            Part { name: "without keepalive", run: |net| upstream(net, ""), wants: &UPSTREAM },
            Part { name: "keepalive 8", run: |net| upstream(net, "keepalive 8;"), wants: &[] },
        ],
    },
    Scenario {
        name: "python-pool",
        parts: &[
            Part { name: "10 idle for 50 workers", run: |net| pool(net, "10", "50"), wants: &POOL },
            Part { name: "100 idle for 50 workers", run: |net| pool(net, "100", "50"), wants: &[] },
            Part { name: "10 idle for 8 workers", run: |net| pool(net, "10", "8"), wants: &[] },
        ],
    },
    Scenario {
        name: "stale-pool",
        parts: &[
            Part { name: "nginx keepalive_timeout 1", run: |net| left_idle(net, "1"), wants: &STALE },
            Part { name: "nginx keepalive_timeout 75", run: |net| left_idle(net, "75"), wants: &[] },
        ],
    },
    Scenario {
        name: "idle-close-race",
        parts: &[
            Part { name: "requests after 1.0s", run: |net| race(net, "0.996", "0.0001"), wants: &RACE },
            Part { name: "requests after 0.5s", run: |net| race(net, "0.5", "0.0001"), wants: &SHORT },
        ],
    },
];

/// Its other half closes first.
const UPSTREAM: [Want; 2] = [want("no-connection-pool", "note"), may("server-closes-first", "note")];
const POOL: [Want; 1] = [want("pool-too-small", "warning")];
const STALE: [Want; 1] = [want("stale-pool", "note")];
const RACE: [Want; 4] = [
    want("idle-close-race", "critical"),
    may("reset-by-peer", "critical"),
    may("unread-at-close", "warning"),
    may("stale-pool", "note"),
];
/// 200 connections of half a second look like a missing pool.
const SHORT: [Want; 1] = [may("no-connection-pool", "warning")];

/// nginx passes requests to itself: without `keepalive` it opens a connection for each, and its other half closes it.
fn upstream(net: &Net, keepalive: &str) -> Result<Said> {
    let http = format!(
        "upstream app {{ server 127.0.0.1:8080; {keepalive} }}\n\
         server {{ listen 127.0.0.1:8000; location / {{ proxy_pass http://app; {} }} }}",
        if keepalive.is_empty() { "" } else { "proxy_http_version 1.1; proxy_set_header Connection \"\";" }
    );
    net.nginx("", &http, "")?;
    net.diagnose(8, || ab(net, &["-k", "-n", "2000", "-c", "4", "http://127.0.0.1:8000/"]))
}

/// A urllib3 pool that keeps so many idle, for so many workers: it closes what finds no room when it comes back. It works for
/// longer than findings look back.
const POOL_OF: &str = r#"
import logging, random, sys, threading, time, urllib3
logging.disable(logging.CRITICAL)
idle, workers = int(sys.argv[1]), int(sys.argv[2])
pool = urllib3.HTTPConnectionPool("127.0.0.1", 8080, maxsize=idle, block=False)
end = time.monotonic() + 60
def work():
    rng = random.Random()
    while time.monotonic() < end:
        answer = pool.request("GET", "/", preload_content=False)
        time.sleep(rng.uniform(0.01, 0.03))
        answer.read()
        answer.release_conn()
        time.sleep(rng.uniform(0, 0.02))
threads = [threading.Thread(target=work) for _ in range(workers)]
[thread.start() for thread in threads]
open("ready", "w")
[thread.join() for thread in threads]
"#;

fn pool(net: &Net, idle: &str, workers: &str) -> Result<Said> {
    net.nginx("", "", "")?;
    net.python_ready(POOL_OF, &[idle, workers])?;
    net.diagnose(7, || Ok(Vec::new()))
}

/// Five connections of requests' pool, left idle after a request each.
const LEFT_IDLE: &str = r#"
import requests, requests.adapters, threading, time
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=5))
barrier = threading.Barrier(5)
def work():
    barrier.wait()
    answer = session.get("http://127.0.0.1:8080/", stream=True)
    barrier.wait()
    answer.content
threads = [threading.Thread(target=work) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
time.sleep(3)
open("ready", "w")
time.sleep(60)
"#;

fn left_idle(net: &Net, timeout: &str) -> Result<Said> {
    net.nginx("", &format!("keepalive_timeout {timeout};"), "")?;
    net.python_ready(LEFT_IDLE, &[])?;
    net.diagnose(5, || Ok(Vec::new()))
}

/// Two hundred connections of http.client send a second request about when nginx closes them.
const RACES: &str = r#"
import collections, http.client, sys, threading, time
first, step = float(sys.argv[1]), float(sys.argv[2])
counts = collections.Counter()
def work(number):
    time.sleep(number * 0.01)
    client = http.client.HTTPConnection("127.0.0.1", 8080)
    client.request("GET", "/")
    client.getresponse().read()
    begun = time.perf_counter()
    pause = first + number % 80 * step
    time.sleep(max(0, pause - 0.02))
    while time.perf_counter() - begun < pause:
        pass
    try:
        client.sock.sendall(b"GET / HTTP/1.1\r\nHost: it\r\n\r\n")
        counts["answered" if client.sock.recv(4096) else "not answered"] += 1
    except OSError as error:
        counts[type(error).__name__] += 1
    client.close()
threads = [threading.Thread(target=work, args=[number]) for number in range(200)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
"#;

fn race(net: &Net, first: &str, step: &str) -> Result<Said> {
    net.nginx("", "keepalive_timeout 1;", "")?;
    net.diagnose(8, || Ok(vec![net.python(RACES, &[first, step])?.trim().to_owned()]))
}
