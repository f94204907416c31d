//! The load of the soak: connections at an even rate and in bursts, processes that come and go, and network namespaces
//! that do.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::prctl::set_name;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde_json::json;

use crate::stress::load::{FIRST, enter_new_namespace, say};

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// How long to make connections
    #[arg(long)]
    seconds: u64,
    /// Connections a second
    #[arg(long)]
    rate: u32,
    /// Connections of a burst, besides
    #[arg(long)]
    burst: u32,
    /// Seconds between bursts
    #[arg(long)]
    every: u64,
    /// How many TIME_WAITs there may be
    #[arg(long)]
    time_waits: u32,
}

/// Addresses to connect to, so that no 4-tuple repeats within a TIME_WAIT.
const ADDRESSES: u32 = 8_000_000;
/// Connections in a network namespace that goes away.
const PASSING: u32 = 10;
/// The part of a second's connections that a process of its own makes.
const BY_A_CHILD: u32 = 5;

struct Soak {
    /// For this process, and for its children.
    listeners: [TcpListener; 2],
    made: u32,
}

/// Makes the connections. It has one thread, so that it can fork.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    enter_new_namespace()?;
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", args.time_waits.to_string())
        .context("cannot limit the number of TIME_WAITs")?;
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback");
    let listeners = [listen()?, listen()?];
    let ports = [listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()];
    let netns = fs::metadata("/proc/thread-self/ns/net").context("cannot look at the network namespace")?.ino();
    say(&json!({ "netns": netns, "ports": ports }))?;
    let mut input = BufReader::new(io::stdin());
    input.read_line(&mut String::new()).context("cannot wait for the order to begin")?;
    let begun = Instant::now();
    let mut soak = Soak { listeners, made: 0 };
    for second in 0..args.seconds {
        let is_burst = second % args.every == args.every - 1;
        soak.second(second, args.rate, if is_burst { args.burst } else { 0 })?;
        sleep(Duration::from_secs(second + 1).saturating_sub(begun.elapsed()));
    }
    say(&json!({ "connections": soak.made, "seconds": begun.elapsed().as_secs_f64() }))?;
    input.read_to_end(&mut Vec::new()).context("cannot wait for the order to end")?;
    Ok(())
}

impl Soak {
    /// What happens in a second.
    fn second(&mut self, second: u64, rate: u32, burst: u32) -> Result<()> {
        let begun = Instant::now();
        let by_child = rate / BY_A_CHILD;
        let (first, [_, theirs]) = (self.made, &self.listeners);
        let child = in_a_child(&format!("soak-{second}"), || connect(theirs, first, by_child, None))?;
        let port = theirs.local_addr()?.port();
        let passing = in_a_child("soak-passing", || pass(port))?;
        self.made += by_child;
        let own = rate - by_child;
        connect(&self.listeners[0], self.made, own, Some((begun, own)))?;
        self.made += own;
        connect(&self.listeners[0], self.made, burst, None)?;
        self.made += burst;
        for child in [child, passing] {
            let status = waitpid(child, None).context("cannot wait for a child")?;
            ensure!(matches!(status, WaitStatus::Exited(_, 0)), "a child failed: {status:?}");
        }
        Ok(())
    }
}

/// Connects so often; the client closes first. With a pace, that takes most of a second.
fn connect(listener: &TcpListener, first: u32, count: u32, pace: Option<(Instant, u32)>) -> Result<()> {
    let port = listener.local_addr()?.port();
    for number in 0..count {
        if let Some((begun, of)) = pace {
            let due = Duration::from_millis(950) * number / of.max(1);
            sleep(due.saturating_sub(begun.elapsed()));
        }
        let address = Ipv4Addr::from(u32::from(FIRST) + (first + number) % ADDRESSES);
        let to = SocketAddrV4::new(address, port);
        let client = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let (mut server, _) = listener.accept().context("cannot accept")?;
        drop(client);
        server.read(&mut [0; 1]).context("cannot read")?;
    }
    Ok(())
}

/// Makes connections in a network namespace of its own.
fn pass(port: u16) -> Result<()> {
    enter_new_namespace()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    connect(&listener, 0, PASSING, None)
}

/// Does this in another process, which ends then.
fn in_a_child(name: &str, work: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: this process has one thread, so the child finds every lock free.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let name = std::ffi::CString::new(name).unwrap_or_default();
            let done = set_name(&name).map_err(anyhow::Error::from).and_then(|()| work());
            if let Err(error) = &done {
                eprintln!("{}: {error:#}", name.to_string_lossy());
            }
            // Nothing of the parent's is to be flushed or dropped a second time.
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
    }
}
