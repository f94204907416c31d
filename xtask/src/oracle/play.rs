//! The hidden subcommand that makes lives, in two network namespaces of its own, which stay until it is told to end.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read as _, stdin};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};
use serde_json::json;

use super::actor::{Actor, Shared};
use super::rules;
use super::script::{Life, Place, Who};
use crate::command;
use crate::stress::load::{enter_new_namespace, say};

/// `tcp_fin_timeout` in these namespaces.
pub(super) const FIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Retries of an orphan, as set in [`SETTINGS`].
pub(super) const ORPHAN_RETRIES: u8 = 2;

/// Short waits for a peer that does not answer, data in every SYN allowed, and servers that need only a route to their
/// addresses.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4/tcp_fin_timeout", "2"),
    ("ipv4/tcp_syn_retries", "1"),
    ("ipv4/tcp_retries2", "3"),
    ("ipv4/tcp_orphan_retries", "2"),
    ("ipv4/tcp_fastopen", "1543"),
    ("ipv6/ip_nonlocal_bind", "1"),
];

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scripts, one a line
    #[arg(long)]
    scripts: PathBuf,
    /// Log of the actors
    #[arg(long)]
    log: PathBuf,
    /// Begin this many lives a second
    #[arg(long)]
    rate: f64,
}

/// Makes the lives.
pub(crate) fn run(args: &Args) -> Result<()> {
    let clients = new_namespace()?;
    let servers = new_namespace()?;
    join(&servers, &clients)?;
    let (orders, relay) = std::io::pipe().context("cannot make a pipe")?;
    let relay = File::from(OwnedFd::from(relay));
    // This process reaps the actors' children as well as the actors.
    set_child_subreaper(true).context("cannot wait for orphans")?;
    let scripts = fs::read_to_string(&args.scripts).context("cannot read the scripts")?;
    let lives: Vec<Life> = scripts.lines().map(str::parse).collect::<Result<_>>()?;
    let log = OpenOptions::new().create(true).append(true).open(&args.log).context("cannot write the log")?;
    let number = |of: &File| Ok::<_, anyhow::Error>(of.metadata().context("cannot look at a network namespace")?.ino());
    say(&json!({
        "netns": number(&servers)?,
        "ports": [],
        "clients": { "netns": number(&clients)?, "fd": clients.as_raw_fd() },
        "orders": orders.as_raw_fd(),
    }))?;
    let mut input = BufReader::new(stdin());
    std::io::BufRead::read_line(&mut input, &mut String::new()).context("cannot wait for the order to begin")?;
    let begun = Instant::now();
    for (index, life) in lives.iter().enumerate() {
        let index_f = f64::from(u32::try_from(index)?);
        sleep(Duration::from_secs_f64(index_f / args.rate).saturating_sub(begun.elapsed()));
        play(index, life, Shared { log: &log, relay: &relay }, &clients)
            .with_context(|| format!("cannot begin life {index}"))?;
    }
    while wait().is_ok() {}
    say(&json!({ "connections": lives.len(), "seconds": begun.elapsed().as_secs_f64() }))?;
    input.read_to_end(&mut Vec::new()).context("cannot wait for the order to end")?;
    Ok(())
}

/// Enters a new network namespace with the settings that lives need.
fn new_namespace() -> Result<File> {
    enter_new_namespace()?;
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
    }
    command::output(Command::new("nft").arg(rules::table())).context("cannot set rules: nftables is needed")?;
    File::open("/proc/thread-self/ns/net").context("cannot look at the network namespace")
}

/// Joins both by a veth pair, and ends in that of the servers.
fn join(servers: &File, clients: &File) -> Result<()> {
    let ip = |line: &str| command::output(Command::new("ip").args(line.split(' '))).map(drop);
    let other = format!("/proc/{}/fd/{}", std::process::id(), clients.as_raw_fd());
    ip("-6 addr add fd00::1/128 dev lo nodad")?;
    ip("-6 route add local fd00::/64 dev lo")?;
    ip(&format!("link add servers type veth peer name clients netns {other}"))?;
    ip("addr add 10.65.0.2/30 dev servers")?;
    ip("-6 addr add fd02::2/64 dev servers nodad")?;
    ip("link set servers mtu 60000 up")?;
    ip("route add local 10.64.0.0/16 dev lo")?;
    ip("-6 route add local fd01::/64 dev lo")?;
    setns(clients, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
    ip("addr add 10.65.0.1/30 dev clients")?;
    ip("-6 addr add fd02::1/64 dev clients nodad")?;
    ip("link set clients mtu 60000 up")?;
    ip("route add 10.64.0.0/16 via 10.65.0.2")?;
    ip("-6 route add fd01::/64 via fd02::2")?;
    setns(servers, CloneFlags::CLONE_NEWNET).context("cannot go back to a network namespace")
}

fn play(index: usize, life: &Life, shared: Shared, clients: &File) -> Result<()> {
    let (client, server) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let mut ends = [(Who::Server, Some(server)), (Who::Client, Some(client))];
    for at in 0..ends.len() {
        // SAFETY: this process has one thread.
        if let ForkResult::Child = unsafe { fork() }? {
            let (who, own) = (ends[at].0, ends[at].1.take());
            // The other end notices this one's death, because nothing else holds its pipe.
            ends.iter_mut().for_each(|(_, end)| drop(end.take()));
            if who == Who::Client && life.place != Place::Loopback {
                setns(clients, CloneFlags::CLONE_NEWNET)?;
            }
            Actor::new(index, life, who, own.context("an actor has one end")?, shared).play();
        }
        ends[at].1 = None;
    }
    Ok(())
}
