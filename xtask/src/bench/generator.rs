//! The load: connections on loopback, one after the other, in a network namespace of their own.
//!
//! Each is opened, accepted, closed by the client and then by the server: 10 transitions of the kernel's
//! `inet_sock_set_state`, 5 of each socket. A thread that is bound to one CPU does all of it, so that what a tracer
//! adds to the path of a transition shows as fewer connections a second.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::fd::AsRawFd as _;

use crate::command;

/// Transitions in the life of one connection.
pub(super) const TRANSITIONS: u32 = 10;
/// So many connections have a destination address each.
pub(super) const MAX_CONNECTIONS: i64 = 8_000_000;
/// The load ends after this, however many connections it has made.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the time is looked at.
const CONNECTIONS_A_LOOK: u32 = 1024;

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many connections to make
    #[arg(long)]
    connections: u32,
}

/// What a generator did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Connections made.
    pub(super) connections: u32,
    /// How long that took.
    pub(super) seconds: f64,
}

impl Load {
    /// Connections a second.
    pub(super) fn rate(&self) -> f64 {
        f64::from(self.connections) / self.seconds
    }
}

/// Runs a generator as another process, so that its network namespace ends with it.
pub(super) fn spawn(connections: u32) -> Result<Load> {
    // This very program, even if its file has been built anew since.
    let mut command = Command::new("/proc/self/exe");
    command.args(["generate", "--connections", &connections.to_string()]);
    let said = command::output(&mut command)?;
    parse(&said).with_context(|| format!("the generator said `{}`", said.trim()))
}

fn parse(said: &str) -> Result<Load> {
    let value: Value = serde_json::from_str(said)?;
    let connections = value["connections"].as_u64().context("it has no `connections`")?;
    let seconds = value["seconds"].as_f64().context("it has no `seconds`")?;
    Ok(Load { connections: u32::try_from(connections)?, seconds })
}

/// Makes the connections and prints how long that took.
pub(crate) fn run(args: &Args) -> Result<()> {
    isolate(args.connections)?;
    let load = generate(args.connections)?;
    println!("{}", json!({ "connections": load.connections, "seconds": load.seconds }));
    Ok(())
}

fn isolate(connections: u32) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    bring_loopback_up().context("cannot bring up loopback in the new network namespace")?;
    // Every connection stays in TIME_WAIT; beyond this many the kernel would skip it and the load be another one.
    let buckets = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    fs::write(buckets, (connections + 65_536).to_string()).with_context(|| format!("cannot write {buckets}"))?;
    let mut first = CpuSet::new();
    first.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &first)).context("cannot stay on CPU 0")
}

pub(crate) fn bring_loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a valid `ifreq`: it has integers, arrays and pointers only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the socket is open, and `request` is the struct that this request reads, living until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

fn generate(connections: u32) -> Result<Load> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback")?;
    let port = listener.local_addr().context("cannot ask for the listening port")?.port();
    let begun = Instant::now();
    let mut made = 0;
    while made < connections && (made % CONNECTIONS_A_LOOK != 0 || begun.elapsed() < LIMIT) {
        let to = destination(made, port);
        connect_and_close(&listener, to).with_context(|| format!("connection {made} to {to} failed"))?;
        made += 1;
    }
    Ok(Load { connections: made, seconds: begun.elapsed().as_secs_f64() })
}

/// Another address of 127.0.0.0/8 for each connection, so that no 4-tuple comes twice.
fn destination(connection: u32, port: u16) -> SocketAddrV4 {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    SocketAddrV4::new(Ipv4Addr::from(first + connection), port)
}

fn connect_and_close(listener: &TcpListener, to: SocketAddrV4) -> Result<()> {
    let client = TcpStream::connect(to).context("cannot connect")?;
    let (mut server, from) = listener.accept().context("cannot accept")?;
    ensure!(client.local_addr()? == from, "somebody else connected: {from}");
    drop(client);
    if server.read(&mut [0; 1]).context("cannot read")? != 0 {
        bail!("there is data, but none was sent");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_loopback_and_differ() {
        let max = u32::try_from(MAX_CONNECTIONS).expect("fits");
        assert_eq!(destination(0, 1).ip(), &Ipv4Addr::new(127, 1, 0, 0));
        assert_eq!(destination(256, 1).ip(), &Ipv4Addr::new(127, 1, 1, 0));
        assert!(destination(max, 1).ip().is_loopback());
    }

    #[test]
    fn what_a_generator_prints_is_read() {
        let load = parse("{\"connections\":40000,\"seconds\":1.25}\n").expect("valid");
        assert_eq!(load, Load { connections: 40_000, seconds: 1.25 });
        assert!((load.rate() - 32_000.0).abs() < 0.01);
        parse("{}").expect_err("nothing in it");
    }
}
