//! The load of a scenario: a process in a network namespace of its own, which stays until it is told to end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Destination of the first connection; each later one goes to the next address.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to make connections
    #[arg(long)]
    seconds: f64,
    /// Instead: how many connections each thread makes
    #[arg(long, default_value_t = u32::MAX)]
    connections: u32,
    /// Number of threads, each on a CPU of its own
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Let any CPU process received packets, also while it runs an eBPF program
    #[arg(long)]
    spread: bool,
    /// Change the namespace's settings all the time, and create and destroy other namespaces
    #[arg(long)]
    churn: bool,
    /// Make this many connections a second in each thread, instead of as many as possible
    #[arg(long)]
    rate: Option<f64>,
    /// Write the time when each connection of the first thread ended to this file: ns of `CLOCK_MONOTONIC`, as u64
    #[arg(long)]
    ends: Option<PathBuf>,
}

/// A running load.
pub(crate) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Inode number of its network namespace.
    pub(crate) netns: u64,
    /// Its listening ports.
    pub(crate) ports: Vec<u64>,
    /// Everything that it printed when it was ready.
    pub(crate) said: Value,
}

/// The result of a load.
pub(crate) struct Made {
    pub(crate) connections: u64,
    pub(crate) seconds: f64,
}

impl Load {
    /// Starts a load, which waits to begin.
    pub(crate) fn start(arguments: &[String]) -> Result<Self> {
        Self::start_as("stress-load", arguments)
    }

    /// Starts another hidden subcommand that speaks the same protocol.
    pub(crate) fn start_as(subcommand: &str, arguments: &[String]) -> Result<Self> {
        // The running program, even if its file has been rebuilt since.
        let mut command = Command::new("/proc/self/exe");
        command.arg(subcommand).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        crate::command::dies_with_us(&mut command);
        let mut child = command.spawn().context("cannot start the load")?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().context("the load has no output")?);
        let said = line(&mut output)?;
        let netns = said["netns"].as_u64().context("the load did not print its network namespace")?;
        let ports = said["ports"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        Ok(Self { child, input, output, netns, ports, said })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.input.as_mut().context("the load is gone")?.write_all(b"go\n").context("cannot write to the load")
    }

    /// Waits until it has made its connections. Its network namespace stays.
    pub(crate) fn wait(&mut self) -> Result<Made> {
        let said = line(&mut self.output)?;
        let connections = said["connections"].as_u64().context("the load did not print its number of connections")?;
        Ok(Made { connections, seconds: said["seconds"].as_f64().unwrap_or(0.0) })
    }

    /// Ends it and its network namespace. Does nothing the second time.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(input) = self.input.take() else { return Ok(()) };
        drop(input);
        let status = self.child.wait().context("cannot wait for the load")?;
        ensure!(status.success(), "the load failed: {status}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(output: &mut impl io::BufRead) -> Result<Value> {
    let mut said = String::new();
    output.read_line(&mut said).context("cannot read the load's output")?;
    serde_json::from_str(&said).with_context(|| format!("the load said `{}`", said.trim()))
}

/// Makes the connections.
pub(crate) fn run(args: &Args) -> Result<()> {
    enter_new_namespace()?;
    if args.spread {
        spread().context("cannot have every CPU take packets")?;
    }
    let listeners: Vec<TcpListener> = (0..args.threads)
        .map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback"))
        .collect::<Result<_>>()?;
    let ports: Vec<u16> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<_>>()?;
    let netns = fs::metadata("/proc/thread-self/ns/net").context("cannot look at the network namespace")?.ino();
    say(&json!({ "netns": netns, "ports": ports }))?;
    let mut input = BufReader::new(io::stdin());
    input.read_line(&mut String::new()).context("cannot wait for the order to begin")?;
    let begun = Instant::now();
    let is_over = AtomicBool::new(false);
    let made: Result<Vec<u32>> = thread::scope(|scope| {
        let churn = args.churn.then(|| scope.spawn(|| churn(&is_over)));
        let threads: Vec<_> = listeners
            .iter()
            .zip(0..)
            .map(|(listener, cpu)| scope.spawn(move || connect(listener, cpu, args)))
            .collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(0))).collect();
        is_over.store(true, Ordering::Relaxed);
        if let Some(churn) = churn {
            churn.join().unwrap_or(Ok(()))?;
        }
        made
    });
    let made: u64 = made?.into_iter().map(u64::from).sum();
    say(&json!({ "connections": made, "seconds": begun.elapsed().as_secs_f64() }))?;
    input.read_to_end(&mut Vec::new()).context("cannot wait for the order to end")?;
    Ok(())
}

pub(crate) fn say(what: &Value) -> Result<()> {
    println!("{what}");
    io::stdout().flush().context("nobody listens")
}

pub(crate) fn enter_new_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    crate::bench::generator::bring_loopback_up().context("cannot bring up loopback in the new network namespace")
}

/// Turns on receive packet steering for loopback. The settings are in a sysfs mounted inside the network namespace.
fn spread() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(32);
    fs::write("/sys/class/net/lo/queues/rx-0/rps_cpus", format!("{:x}", (1_u64 << cpus) - 1))?;
    Ok(())
}

/// Connects to a different address each time, so that no 4-tuple repeats. The client closes first.
fn connect(listener: &TcpListener, cpu: u32, args: &Args) -> Result<u32> {
    let mut only = CpuSet::new();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    only.set(usize::try_from(cpu)? % cpus).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))?;
    let port = listener.local_addr()?.port();
    let first = u32::from(FIRST) + cpu * 4_000_000;
    let mut ends = args.ends.as_ref().filter(|_| cpu == 0).map(fs::File::create).transpose()?;
    let look = if args.rate.is_some() { 1 } else { 256 };
    let begun = Instant::now();
    let mut made = 0;
    while made < args.connections && (made % look != 0 || begun.elapsed().as_secs_f64() < args.seconds) {
        if let Some(rate) = args.rate {
            thread::sleep(Duration::from_secs_f64(f64::from(made) / rate).saturating_sub(begun.elapsed()));
        }
        let to = SocketAddrV4::new(Ipv4Addr::from(first + made % 4_000_000), port);
        let client = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let (mut server, _) = listener.accept().context("cannot accept")?;
        drop(client);
        server.read(&mut [0; 1]).context("cannot read")?;
        drop(server);
        made += 1;
        if let Some(ends) = &mut ends {
            ends.write_all(&now()?.to_ne_bytes()).context("cannot write when a connection was over")?;
        }
    }
    Ok(made)
}

/// Now, in ns of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?);
    Ok(u64::try_from(now.as_nanos())?)
}

fn churn(is_over: &AtomicBool) -> Result<()> {
    let settings =
        [("tcp_max_tw_buckets", ["0", "262144"]), ("tcp_fin_timeout", ["1", "60"]), ("tcp_tw_reuse", ["0", "1"])];
    let mut round = 0_usize;
    while !is_over.load(Ordering::Relaxed) {
        for (name, values) in settings {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, values[round % 2]).with_context(|| format!("cannot write {path}"))?;
        }
        thread::scope(|scope| scope.spawn(passing_namespace).join().unwrap_or(Ok(())))?;
        round += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A network namespace that ends with this thread, with open connections in it.
fn passing_namespace() -> Result<()> {
    enter_new_namespace()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    for _ in 0..10 {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop((client, server));
    }
    Ok(())
}
