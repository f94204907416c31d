//! Servers of Debian's packages, with clients that keep their connections.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::super::Bench;
use super::super::generator::stay_on;
use super::super::pairs::Pace;
use super::CONNECTIONS;
use crate::command;

/// Longest time until a server listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(10);
/// What a server without its program or its client is.
const MISSING: &str = "not installed";

/// Requests of a measurement of redis.
const REQUESTS: u32 = 30_000;
/// Duration of one of nginx, in whole seconds, as wrk wants it.
const SECONDS: u32 = 1;

const REDIS_PORT: u16 = 6379;
const NGINX_PORT: u16 = 8080;

const NGINX: &str = "daemon off; master_process off; pid nginx.pid; error_log nginx.log; \
    events { } \
    http { access_log off; keepalive_requests 1000000000; client_body_temp_path t1; proxy_temp_path t2; \
    fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; \
    server { listen 127.0.0.1:8080; location / { return 200 \"well\"; } } }";

/// A running server, killed on drop, and its client.
pub(super) struct Server {
    child: Child,
    client: Vec<String>,
    /// Reads requests a second in what the client prints.
    rate: fn(&str) -> Option<f64>,
}

/// redis with redis-benchmark; without one of them, the reason.
pub(super) fn redis(bench: &Bench) -> Result<Result<Server, &'static str>> {
    let (Some(server), Some(client)) = (command::find("redis-server"), command::find("redis-benchmark")) else {
        return Ok(Err(MISSING));
    };
    let mut command = Command::new(server);
    let port = REDIS_PORT.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let (requests, connections) = (bench.times_of(REQUESTS).to_string(), CONNECTIONS.to_string());
    let client = client.display().to_string();
    let client = [&client, "-p", &port, "-t", "get", "-n", &requests, "-c", &connections, "--csv"].map(str::to_owned);
    Server::start(command, REDIS_PORT, client.to_vec(), redis_rate, bench).map(Ok)
}

/// nginx with wrk; without one of them, the reason.
pub(super) fn nginx(bench: &Bench) -> Result<Result<Server, &'static str>> {
    let (Some(server), Some(client)) = (command::find("nginx"), command::find("wrk")) else { return Ok(Err(MISSING)) };
    let config = bench.folder.join("nginx.conf");
    fs::write(&config, NGINX).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = Command::new(server);
    command.arg("-p").arg(&bench.folder).arg("-c").arg(&config);
    let (connections, duration) = (format!("-c{CONNECTIONS}"), format!("-d{SECONDS}s"));
    let url = format!("http://127.0.0.1:{NGINX_PORT}/");
    let client = [client.display().to_string(), "-t1".to_owned(), connections, duration, url];
    Server::start(command, NGINX_PORT, client.to_vec(), wrk_rate, bench).map(Ok)
}

impl Server {
    /// Starts it on CPU 0, in the network namespace of this thread, and waits until it listens.
    fn start(
        mut server: Command,
        port: u16,
        client: Vec<String>,
        rate: fn(&str) -> Option<f64>,
        bench: &Bench,
    ) -> Result<Self> {
        server.current_dir(&bench.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command::dies_with_us(&mut server);
        let line = command::line(&server);
        let child = on_cpu(0, || server.spawn().with_context(|| format!("cannot run `{line}`")))?;
        let mut server = Self { child, client, rate };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = server.child.try_wait().context("cannot wait for a server")?;
            ensure!(ended.is_none(), "`{line}` has ended: {ended:?}");
            ensure!(begun.elapsed() < PATIENCE, "`{line}` does not listen on port {port}");
            sleep(POLL);
        }
        Ok(server)
    }

    /// Runs its client on CPU 1, or on the only one, and returns how long a request took.
    pub(super) fn measure(&self) -> Result<Pace> {
        let (program, arguments) = self.client.split_first().context("no client")?;
        let mut client = Command::new(program);
        client.args(arguments);
        let said = on_cpu(last_of_two()?, || command::output(&mut client))?;
        let rate = (self.rate)(&said).filter(|rate| *rate > 0.0);
        let rate = rate.with_context(|| format!("`{}` did not print a rate: {said}", command::line(&client)))?;
        Ok(Pace { mean: 1e9 / rate, undisturbed: None })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU 1, if this thread may run there.
fn last_of_two() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot ask for the CPUs of this thread")?;
    Ok(usize::from(allowed.is_set(1).unwrap_or(false)))
}

/// What this starts runs on one CPU.
fn on_cpu<T>(cpu: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before: CpuSet = sched_getaffinity(this).context("cannot ask for the CPUs of this thread")?;
    stay_on(cpu)?;
    let started = start();
    sched_setaffinity(this, &before).context("cannot give this thread its CPUs back")?;
    started
}

/// From the table that `redis-benchmark --csv` prints.
fn redis_rate(said: &str) -> Option<f64> {
    let row = said.lines().find(|line| line.starts_with("\"GET\""))?;
    row.split(',').nth(1)?.trim_matches('"').parse().ok()
}

/// From what wrk prints.
fn wrk_rate(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    // Wrong answers count, too.
    let is_wrong = said.contains("Non-2xx") || said.contains("Socket errors");
    line.trim().parse().ok().filter(|_| !is_wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_what_the_clients_print() {
        let table = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"76923.08\",\"0.062\"\n";
        assert_eq!(redis_rate(table), Some(76_923.08));
        assert_eq!(redis_rate("Could not connect to Redis"), None);
        let said = "  2 threads and 8 connections\nRequests/sec:  54321.50\nTransfer/sec:      9.1MB\n";
        assert_eq!(wrk_rate(said), Some(54_321.5));
        assert_eq!(wrk_rate(&format!("  Non-2xx or 3xx responses: 7\n{said}")), None);
        assert_eq!(wrk_rate("unable to connect to 127.0.0.1:8080 Connection refused"), None);
    }

    #[test]
    fn what_is_started_stays_on_its_cpu_and_this_thread_does_not() {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).expect("a set");
        let mut command = Command::new("sh");
        command.args(["-c", "grep Cpus_allowed_list /proc/self/status"]);
        let said = on_cpu(0, || command::output(&mut command)).expect("it runs");
        assert_eq!(said.split_whitespace().last(), Some("0"));
        assert_eq!(sched_getaffinity(this).expect("a set"), before);
    }
}
