//! The hidden subcommand that makes lives: in a network namespace of its own, which stays until it is told to go.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read as _, stdin};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};
use serde_json::json;

use super::actor::{Actor, PORT};
use super::script::{Life, Who};
use crate::command;
use crate::stress::load::{enter_new_namespace, say};

/// How long an orphan waits for the peer's FIN in these namespaces.
pub(super) const FIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Nobody waits long for a peer that does not answer, and every SYN may bring data.
const SETTINGS: [(&str, &str); 5] = [
    ("tcp_fin_timeout", "2"),
    ("tcp_syn_retries", "1"),
    ("tcp_retries2", "3"),
    ("tcp_orphan_retries", "2"),
    ("tcp_fastopen", "1543"),
];

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scripts, one a line
    #[arg(long)]
    scripts: PathBuf,
    /// Where the actors log what they do
    #[arg(long)]
    log: PathBuf,
    /// Begin so many lives a second
    #[arg(long)]
    rate: f64,
}

/// Makes the lives.
pub(crate) fn run(args: &Args) -> Result<()> {
    enter_new_namespace()?;
    command::output(Command::new("ip").args(["-6", "addr", "add", "fd00::1/128", "dev", "lo", "nodad"]))?;
    command::output(Command::new("ip").args(["-6", "route", "add", "local", "fd00::/64", "dev", "lo"]))?;
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
    }
    command::output(Command::new("nft").arg(rules())).context("cannot set rules: nftables is needed")?;
    // Actors' children are waited for as actors are.
    set_child_subreaper(true).context("cannot wait for orphans")?;
    let scripts = fs::read_to_string(&args.scripts).context("cannot read the scripts")?;
    let lives: Vec<Life> = scripts.lines().map(str::parse).collect::<Result<_>>()?;
    let log = OpenOptions::new().create(true).append(true).open(&args.log).context("cannot write the log")?;
    let netns = fs::metadata("/proc/thread-self/ns/net").context("cannot look at the network namespace")?.ino();
    say(&json!({ "netns": netns, "ports": [] }))?;
    let mut input = BufReader::new(stdin());
    std::io::BufRead::read_line(&mut input, &mut String::new()).context("nobody says when to begin")?;
    let begun = Instant::now();
    for (index, life) in lives.iter().enumerate() {
        let index_f = f64::from(u32::try_from(index)?);
        sleep(Duration::from_secs_f64(index_f / args.rate).saturating_sub(begun.elapsed()));
        play(index, life, &log).with_context(|| format!("cannot begin life {index}"))?;
    }
    while wait().is_ok() {}
    say(&json!({ "connections": lives.len(), "seconds": begun.elapsed().as_secs_f64() }))?;
    input.read_to_end(&mut Vec::new()).context("nobody says when to go")?;
    Ok(())
}

fn play(index: usize, life: &Life, log: &File) -> Result<()> {
    let (client, server) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let mut ends = [(Who::Server, Some(server)), (Who::Client, Some(client))];
    for at in 0..ends.len() {
        // SAFETY: this process has one thread.
        if let ForkResult::Child = unsafe { fork() }? {
            let (who, own) = (ends[at].0, ends[at].1.take());
            // The other end hears of this one's death: nobody else has it.
            ends.iter_mut().for_each(|(_, end)| drop(end.take()));
            Actor::new(index, life, who, own.context("an actor has one end")?, log).play();
        }
        ends[at].1 = None;
    }
    Ok(())
}

/// For either end a set for each kind of segments: servers' addresses, to or from which such are dropped.
fn rules() -> String {
    let mut sets = String::new();
    let mut chain = String::new();
    for (end, port, address) in [("s", "dport", "daddr"), ("c", "sport", "saddr")] {
        let kinds = [(1, "fin == fin"), (2, "syn == syn"), (4, "rst == rst"), (8, "(fin|syn|rst) == 0")];
        for (kind, flags) in kinds {
            sets += &format!("set {end}{kind} {{ type ipv4_addr; }}; ");
            chain += &format!("tcp {port} {PORT} tcp flags & {flags} ip {address} @{end}{kind} drop; ");
        }
    }
    format!("table inet oracle {{ {sets} chain input {{ type filter hook input priority 0; {chain} }}; }}")
}
