//! `cargo xtask bench-snapshot`: how long it takes to look at many sockets, next to `ss`, in one run.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};

use super::generator::bring_loopback_up;
use super::report::{median, sorted};
use crate::{command, host};

/// Pairs of sockets that one process holds: below the usual limit of descriptors.
const PAIRS: u32 = 5_000;

/// Options of `cargo xtask bench-snapshot`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each subject is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many sockets there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    sockets: u32,
    /// Measure this tcptrace instead of a release build of the workspace
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// Options of the hidden subcommand that holds sockets.
#[derive(clap::Args)]
pub(crate) struct HoldArgs {
    /// How many pairs
    #[arg(long)]
    pairs: u32,
    /// Which 65,536 addresses of 127.0.0.0/8 they connect to
    #[arg(long)]
    block: u8,
}

/// Measures and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("the benchmark makes a network namespace, which is for root: run `cargo xtask bench-snapshot` as root");
    }
    let tcptrace = args.tcptrace.clone().map_or_else(super::release_build, Ok)?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    bring_loopback_up().context("cannot bring up loopback in the new network namespace")?;
    let _holders = Holder::start(args.sockets.div_ceil(2))?;

    let ss = command::find("ss").context("there is no ss: `cargo xtask setup --tests` installs it")?;
    let subjects: [(&Path, &[&str]); 5] = [
        (&ss, &["-tan"]),
        (&ss, &["-tanp"]),
        (&tcptrace, &["snapshot"]),
        (&tcptrace, &["snapshot", "--list"]),
        (&tcptrace, &["snapshot", "--list", "--format", "json"]),
    ];
    let mut samples = vec![Vec::new(); subjects.len()];
    for round in 1..=args.rounds {
        for ((program, words), samples) in subjects.iter().zip(&mut samples) {
            let sample = measure(Command::new(program).args(*words))?;
            eprintln!("round {round}/{}: {words:?}: {:.3} s", args.rounds, sample.seconds);
            samples.push(sample);
        }
    }
    println!("| | seconds, median (min–max) | of `ss -tanp` | peak RSS |\n| --- | ---: | ---: | ---: |");
    for ((program, words), taken) in subjects.iter().zip(&samples) {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let seconds = sorted(taken.iter().map(|sample| sample.seconds));
        let shares = sorted(taken.iter().zip(&samples[1]).map(|(sample, ss)| 100.0 * sample.seconds / ss.seconds));
        let rss = taken.iter().map(|sample| sample.peak_rss).max().unwrap_or(0).div_ceil(1 << 20);
        let (least, most) = (seconds.first().copied().unwrap_or(0.0), seconds.last().copied().unwrap_or(0.0));
        let median_seconds = median(&seconds);
        let share = median(&shares);
        println!(
            "| {name} {} | {median_seconds:.2} ({least:.2}–{most:.2}) | {share:.0} % | {rss} MiB |",
            words.join(" ")
        );
    }
    println!(
        "\nLinux {}; {} sockets of {} processes, ESTABLISHED over loopback; {} interleaved rounds, output to /dev/null.",
        host::kernel_release(),
        args.sockets,
        args.sockets.div_ceil(2).div_ceil(PAIRS),
        args.rounds,
    );
    Ok(())
}

/// What one run took.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// User and system time, in seconds.
    pub(super) cpu: f64,
    /// In bytes.
    pub(super) peak_rss: u64,
}

/// Runs a command to its end.
pub(super) fn measure(command: &mut Command) -> Result<Sample> {
    let line = command::line(command);
    let nothing = File::create("/dev/null").context("cannot open /dev/null")?;
    let begun = Instant::now();
    let child =
        command.stdout(nothing).stderr(Stdio::null()).spawn().with_context(|| format!("cannot run `{line}`"))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`: it has integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables that live until the call returns. Nobody else waits for this child.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    Errno::result(waited).with_context(|| format!("cannot wait for `{line}`"))?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status == 0, "`{line}` failed: wait status {status}");
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Ok(Sample { seconds, cpu, peak_rss: u64::try_from(usage.ru_maxrss)? * 1024 })
}

/// A process that holds sockets; killed on drop.
struct Holder(Child);

impl Holder {
    fn start(pairs: u32) -> Result<Vec<Self>> {
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
        // Both fail for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the sockets, says so, and keeps them until its standard input ends.
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
