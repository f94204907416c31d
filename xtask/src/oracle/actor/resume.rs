//! Goes on as another program: the actor's state becomes arguments of a hidden subcommand, and its descriptors are
//! inherited.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use super::{Actor, Shared};
use crate::oracle::log::now;
use crate::oracle::script::{Life, Who};

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    index: usize,
    #[arg(long)]
    life: String,
    #[arg(long)]
    is_server: bool,
    /// The next step
    #[arg(long)]
    at: usize,
    #[arg(long)]
    cookie: u64,
    #[arg(long)]
    local: Option<SocketAddr>,
    #[arg(long)]
    remote: Option<SocketAddr>,
    #[arg(long)]
    heard: usize,
    #[arg(long, value_delimiter = ',')]
    rules: Vec<u32>,
    /// Descriptors of the log, of the relay and of the other end
    #[arg(long, value_delimiter = ',')]
    shared: Vec<RawFd>,
    #[arg(long)]
    listener: Option<RawFd>,
    #[arg(long, value_delimiter = ',')]
    sockets: Vec<RawFd>,
}

impl Actor<'_> {
    /// Executes another program, which continues with the next step.
    pub(super) fn exec(&self) -> Result<u64, Errno> {
        let shared = [self.shared.log.as_raw_fd(), self.shared.relay.as_raw_fd(), self.peer.as_raw_fd()];
        let sockets: Vec<RawFd> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let listener = self.listener.as_ref().map(AsRawFd::as_raw_fd);
        for raw in shared.iter().chain(&sockets).chain(&listener) {
            // SAFETY: this call takes no pointers.
            Errno::result(unsafe { libc::fcntl(*raw, libc::F_SETFD, 0) })?;
        }
        let list = |numbers: &[RawFd]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new("/proc/self/exe");
        command.arg("oracle-resume").arg(format!("--index={}", self.index)).arg(format!("--life={}", self.life));
        command.args((self.who == Who::Server).then_some("--is-server"));
        command.arg(format!("--at={}", self.at + 1)).arg(format!("--cookie={}", self.cookie));
        command.args(self.local.map(|local| format!("--local={local}")));
        command.args(self.remote.map(|remote| format!("--remote={remote}")));
        let [drop, reject, unreach] = self.rules;
        command.arg(format!("--heard={}", self.heard)).arg(format!("--rules={drop},{reject},{unreach}"));
        command.arg(format!("--shared={}", list(&shared)));
        command.args(listener.map(|listener| format!("--listener={listener}")));
        if !sockets.is_empty() {
            command.arg(format!("--sockets={}", list(&sockets)));
        }
        Err(command.exec().raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
    }
}

/// Continues a life.
pub(crate) fn run(args: &Args) -> Result<()> {
    // SAFETY: the program before left these descriptors open for this one, and nothing else here owns them.
    let own = |raw: RawFd| unsafe { OwnedFd::from_raw_fd(raw) };
    let &[log, relay, peer] = &args.shared[..] else { anyhow::bail!("three descriptors are needed") };
    let (log, relay) = (File::from(own(log)), File::from(own(relay)));
    let life: Life = args.life.parse()?;
    let who = if args.is_server { Who::Server } else { Who::Client };
    let shared = Shared { log: &log, relay: &relay };
    let mut actor = Actor::new(args.index, &life, who, own(peer), shared);
    actor.at = args.at;
    actor.cookie = args.cookie;
    (actor.local, actor.remote) = (args.local, args.remote);
    actor.heard = args.heard;
    actor.rules = args.rules.clone().try_into().unwrap_or_default();
    actor.listener = args.listener.map(own);
    actor.sockets = args.sockets.iter().copied().map(own).collect();
    let now = now();
    actor.write("exec", now, Some(now), Ok(0));
    if life.steps.get(args.at.wrapping_sub(1)).is_some_and(|step| step.awaited) {
        actor.say_done();
    }
    actor.go_on()
}
