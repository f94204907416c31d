//! Local ports that run out: redis and its benchmark.

use anyhow::Result;

use super::ground::Net;
use super::said::{Said, Want, under, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "redis-without-a-pool",
        parts: &[
            Part { name: "a connection for each request", run: each_request, wants: &EACH_REQUEST },
            Part { name: "ten connections", run: ten_connections, wants: &[] },
        ],
    },
    Scenario {
        name: "ports-exhausted",
        parts: &[
            Part { name: "100 ports", run: |net| exhausted(net, 100), wants: &EXHAUSTED },
            Part { name: "1,000 ports", run: |net| exhausted(net, 1000), wants: &EXHAUSTED },
            Part { name: "100 ports and a pool", run: few_ports_and_pool, wants: &[] },
        ],
    },
];

const EACH_REQUEST: [Want; 1] = [want("no-connection-pool", "warning")];

const EXHAUSTED: [Want; 3] = [
    want("no-connection-pool", "critical"),
    under("no-connection-pool", "ports-exhausted", "critical"),
    under("no-connection-pool", "ports-running-out", "critical"),
];

/// By default loopback takes ports in TIME_WAIT again after a second; a network does not.
fn as_over_a_network(net: &Net) -> Result<()> {
    net.sysctl("net.ipv4.tcp_tw_reuse", "0")
}

fn benchmark(net: &Net, options: &[&str]) -> Result<Vec<String>> {
    let said = net.run("redis-benchmark", &[&["-h", "127.0.0.1", "-t", "ping_mbulk", "--csv"], options].concat())?;
    let last = said.lines().map(|line| line.replace('"', "")).rfind(|line| !line.is_empty());
    Ok(last.into_iter().map(|line| format!("redis-benchmark: {line}")).collect())
}

fn each_request(net: &Net) -> Result<Said> {
    as_over_a_network(net)?;
    net.redis(&[])?;
    net.diagnose(8, || benchmark(net, &["-k", "0", "-c", "1", "-n", "1000"]))
}

fn ten_connections(net: &Net) -> Result<Said> {
    as_over_a_network(net)?;
    net.redis(&[])?;
    net.diagnose(8, || benchmark(net, &["-k", "1", "-c", "10", "-n", "20000"]))
}

fn exhausted(net: &Net, ports: u32) -> Result<Said> {
    as_over_a_network(net)?;
    net.sysctl("net.ipv4.ip_local_port_range", &format!("40000 {}", 39_999 + ports))?;
    net.redis(&[])?;
    // It makes two more connections before the benchmark, and ends with the first that fails.
    net.diagnose(8, || benchmark(net, &["-k", "0", "-c", "1", "-n", "3000"]))
}

fn few_ports_and_pool(net: &Net) -> Result<Said> {
    as_over_a_network(net)?;
    net.sysctl("net.ipv4.ip_local_port_range", "40000 40099")?;
    net.redis(&[])?;
    net.diagnose(8, || benchmark(net, &["-k", "1", "-c", "10", "-n", "20000"]))
}
