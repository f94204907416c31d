//! Processes that hold connections on loopback.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

use super::generator::bring_loopback_up;

/// Pairs of sockets per process: below the usual limit of descriptors.
pub(super) const PAIRS: u32 = 5_000;

/// Options of the hidden subcommand that holds sockets.
#[derive(clap::Args)]
pub(crate) struct HoldArgs {
    /// Number of pairs
    #[arg(long)]
    pairs: u32,
    /// Number of the block of 65,536 addresses of 127.0.0.0/8 to connect to
    #[arg(long)]
    block: u8,
}

/// A process that holds sockets; killed on drop.
pub(super) struct Holder(Child);

impl Holder {
    /// Starts as many as this number of pairs needs, in the network namespace of this thread.
    pub(super) fn start(pairs: u32) -> Result<Vec<Self>> {
        let blocks = (1..).zip((0..pairs).step_by(PAIRS as usize));
        let started: Vec<_> =
            blocks.map(|(block, before)| Self::spawn(block, PAIRS.min(pairs - before))).collect::<Result<_>>()?;
        started.into_iter().map(Self::wait_until_ready).collect()
    }

    fn spawn(block: u8, pairs: u32) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["hold", "--pairs", &pairs.to_string(), "--block", &block.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a holder")?;
        Ok(Self(child))
    }

    fn wait_until_ready(mut self) -> Result<Self> {
        let said = self.0.stdout.take().context("a holder has no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).context("cannot read what a holder says")?;
        ensure!(line == "ready\n", "a holder could not make its sockets");
        Ok(self)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Both fail for a process that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the sockets, reports ready, and keeps them until standard input ends.
pub(crate) fn hold(args: &HoldArgs) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback")?;
    let port = listener.local_addr().context("cannot ask for the listening port")?.port();
    let mut kept = Vec::new();
    for pair in 0..args.pairs {
        let [_, _, third, fourth] = pair.to_be_bytes();
        let to = SocketAddrV4::new(Ipv4Addr::new(127, args.block, third, fourth), port);
        let client = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let (server, _) = listener.accept().context("cannot accept")?;
        kept.push((client, server));
    }
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new()).context("cannot wait")?;
    Ok(())
}

/// Runs something in a new network namespace; processes that it starts are in it, too.
pub(super) fn in_namespace<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    // In a separate thread, because a thread that has entered a namespace cannot always go back.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            bring_loopback_up().context("cannot bring up loopback in the new network namespace")?;
            act()
        });
        thread.join().map_err(|_| anyhow!("a thread has panicked"))?
    })
}
