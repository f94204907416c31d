//! The load: connections on loopback, one after the other, in a network namespace of their own.
//!
//! Each is opened, accepted, closed by the client and then by the server: 10 transitions of `inet_sock_set_state`, 5
//! for each socket. One thread, bound to one CPU, does all of it, so that the cost of a tracer shows as fewer
//! connections a second.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::fd::AsRawFd as _;

/// Transitions of one connection by the kernel's count; the end of its TIME_WAIT is not one of them.
pub(super) const TRANSITIONS: u32 = 10;
/// Transitions of the listener.
pub(super) const LISTENER_TRANSITIONS: u32 = 2;
/// After this many connections, destination addresses repeat.
pub(super) const MAX_CONNECTIONS: i64 = 8_000_000;
/// Time limit of the load.
const LIMIT: Duration = Duration::from_secs(120);
/// Interval of looking at the clock, in connections.
const CONNECTIONS_A_LOOK: u32 = 64;

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of connections
    #[arg(long)]
    connections: u32,
    /// CPU to run on
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Make this many connections a second, instead of as many as possible
    #[arg(long)]
    rate: Option<f64>,
    /// Print the network namespace, and begin when a line arrives on standard input
    #[arg(long)]
    wait: bool,
}

/// The orders of a generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Greatest number of connections.
    pub(super) connections: u32,
    /// CPU to run on.
    pub(super) cpu: usize,
    /// Time limit in seconds.
    pub(super) seconds: Option<f64>,
    /// Connections a second; without it, as many as possible.
    pub(super) rate: Option<f64>,
}

impl Order {
    /// This many connections, as fast as possible.
    pub(super) fn connections(connections: u32) -> Self {
        Self { connections, cpu: 0, seconds: None, rate: None }
    }
}

/// A generator in another process, in a network namespace of its own. Both end when this is dropped.
pub(super) struct Generator {
    child: Child,
    said: BufReader<ChildStdout>,
    netns: u32,
}

impl Generator {
    /// Starts a generator, and waits until it is ready.
    pub(super) fn start(order: &Order) -> Result<Self> {
        // The running program, even if its file has been rebuilt since.
        let mut command = Command::new("/proc/self/exe");
        command.args(["generate", "--wait", "--connections", &order.connections.to_string()]);
        command.args(["--cpu", &order.cpu.to_string()]);
        command.args(order.seconds.map(|seconds| format!("--seconds={seconds}")));
        command.args(order.rate.map(|rate| format!("--rate={rate}")));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a generator")?;
        let said = BufReader::new(child.stdout.take().context("a generator has no output")?);
        let mut generator = Self { child, said, netns: 0 };
        generator.netns = generator.line()?.parse().context("a generator did not say its namespace")?;
        Ok(generator)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The inode number of its network namespace.
    pub(super) fn netns(&self) -> u32 {
        self.netns
    }

    /// Lets it begin.
    pub(super) fn go(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("a generator has no input")?;
        stdin.write_all(b"go\n").context("cannot write to a generator")
    }

    /// Waits until it is done. Its process stays.
    pub(super) fn wait(&mut self) -> Result<Load> {
        let said = self.line()?;
        parse(&said).with_context(|| format!("the generator said `{said}`"))
    }

    /// Waits until it has ended.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("cannot wait for a generator")?;
        ensure!(status.success(), "a generator failed: {status}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("cannot read what a generator says")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Both fail for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of a generator.
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
    let mut generator = Generator::start(&Order::connections(connections))?;
    generator.go()?;
    let load = generator.wait()?;
    generator.finish()?;
    Ok(load)
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
    stay_on(args.cpu)?;
    if args.wait {
        println!("{}", fs::metadata("/proc/self/ns/net").context("cannot look at the network namespace")?.ino());
        read_line()?;
    }
    let limit = args.seconds.map(Duration::from_secs_f64);
    let load = match (args.rate, limit) {
        (None, None) => generate(args.connections)?,
        (None, Some(limit)) => generate_for(args.connections, limit)?,
        (Some(rate), limit) => generate_at(rate, args.connections, limit.unwrap_or(LIMIT))?,
    };
    println!("{}", json!({ "connections": load.connections, "seconds": load.seconds }));
    if args.wait {
        read_line()?;
    }
    Ok(())
}

fn read_line() -> Result<()> {
    std::io::stdin().read_line(&mut String::new()).context("cannot wait for the order to begin")?;
    Ok(())
}

/// Enters a network namespace with room for the TIME_WAITs of so many connections.
pub(super) fn isolate(connections: u32) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    bring_loopback_up().context("cannot bring up loopback in the new network namespace")?;
    // Every connection stays in TIME_WAIT. Above this limit, the kernel would skip TIME_WAIT, and the load would be
    // different.
    let buckets = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    fs::write(buckets, (connections + 65_536).to_string()).with_context(|| format!("cannot write {buckets}"))
}

/// Binds this thread to a CPU.
pub(super) fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    let stay = only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    stay.with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// Brings up loopback in the network namespace of this thread.
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

/// Makes this many connections, as fast as possible.
fn generate(connections: u32) -> Result<Load> {
    generate_for(connections, LIMIT)
}

/// Makes connections until `limit`, but not more than this many.
fn generate_for(connections: u32, limit: Duration) -> Result<Load> {
    let (listener, port) = listen()?;
    let begun = Instant::now();
    let mut made = 0;
    while made < connections && (made % CONNECTIONS_A_LOOK != 0 || begun.elapsed() < limit) {
        let to = destination(made, port);
        connect_and_close(&listener, to).with_context(|| format!("connection {made} to {to} failed"))?;
        made += 1;
    }
    Ok(Load { connections: made, seconds: begun.elapsed().as_secs_f64() })
}

/// Makes this many connections a second, until `limit` or the end. Each stays open for half of the interval, so that
/// opening and closing are separate events.
fn generate_at(rate: f64, connections: u32, limit: Duration) -> Result<Load> {
    ensure!(rate > 0.0, "no connections a second is no load");
    let (listener, port) = listen()?;
    let begun = Instant::now();
    let sleep_until =
        |connections: f64| sleep(Duration::from_secs_f64(connections / rate).saturating_sub(begun.elapsed()));
    let mut made = 0;
    while made < connections && begun.elapsed() < limit {
        let to = destination(made, port);
        // Random, so as not to run in step with a timer.
        let jitter = f64::from(made.wrapping_mul(0x9e37_79b9) >> 16) / 65_536.0 - 0.5;
        sleep_until(f64::from(made) + 0.4 * jitter + 0.2);
        let client = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let server = listener.accept().context("cannot accept")?.0;
        sleep_until(f64::from(made) + 0.4 * jitter + 0.7);
        close(client, server)?;
        made += 1;
    }
    Ok(Load { connections: made, seconds: begun.elapsed().as_secs_f64() })
}

/// A listener on every address, and its port.
pub(super) fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback")?;
    let port = listener.local_addr().context("cannot ask for the listening port")?.port();
    Ok((listener, port))
}

/// A different address of 127.0.0.0/8 for each connection, so that no 4-tuple repeats.
pub(super) fn destination(connection: u32, port: u16) -> SocketAddrV4 {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    SocketAddrV4::new(Ipv4Addr::from(first + connection), port)
}

/// One connection: opened, accepted, closed by the client and then by the server.
pub(super) fn connect_and_close(listener: &TcpListener, to: SocketAddrV4) -> Result<()> {
    let client = TcpStream::connect(to).context("cannot connect")?;
    let (server, from) = listener.accept().context("cannot accept")?;
    ensure!(client.local_addr()? == from, "somebody else connected: {from}");
    close(client, server)
}

/// Closes the client's end first, then the server's.
fn close(client: TcpStream, mut server: TcpStream) -> Result<()> {
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
