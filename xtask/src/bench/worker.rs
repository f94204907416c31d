//! The loads of interleaved pairs: one thread that does the same again and again, and times it in short batches.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

use super::generator::{connect_and_close, destination, isolate, listen, stay_on};
use super::pairs::Pace;
use super::stats::Figures;

/// Bytes of each message of a ping-pong.
pub(super) const MESSAGE: usize = 64;
/// The share of batches that counts as undisturbed.
const UNDISTURBED: f64 = 0.1;

/// What a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deed {
    /// Opens, accepts and closes a connection
    Connection,
    /// Calls `getppid`
    Getppid,
    /// Sends a message over one connection that stays, and one back
    PingPong,
}

impl Deed {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How often it happens between two looks at the clock, which must not show in the result.
    fn batch(self) -> u32 {
        match self {
            Self::Connection => 8,
            Self::Getppid => 1_024,
            Self::PingPong => 32,
        }
    }
}

/// Options of the hidden subcommand.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do
    deed: Deed,
    /// How often
    #[arg(long)]
    count: u32,
    /// CPU to run on
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Run before every other program that wants this CPU
    #[arg(long)]
    first: bool,
}

impl Args {
    /// So many times, on CPU 0.
    pub(super) fn times(deed: Deed, count: u32) -> Self {
        Self { deed, count, cpu: 0, seconds: None, first: false }
    }

    /// The same, before every other program that wants its CPU.
    pub(super) fn first(self) -> Self {
        Self { first: true, ..self }
    }

    /// For so many seconds on this CPU.
    pub(super) fn seconds(deed: Deed, seconds: f64, cpu: usize) -> Self {
        // Never reached: no operation takes less than this.
        let count = (seconds * 1e9 / 20.0) as u32;
        Self { deed, count, cpu, seconds: Some(seconds), first: false }
    }

    /// How often it happens at least.
    pub(super) fn least(&self) -> u32 {
        if self.seconds.is_some() { 0 } else { self.count - self.count % self.deed.batch() }
    }
}

/// The result of one worker.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Done {
    operations: u32,
    seconds: f64,
    /// Of one operation, in ns.
    undisturbed: f64,
}

/// Runs workers at the same time, each in another process and a network namespace of its own, and returns how long one
/// operation took one of them.
pub(super) fn measure(orders: &[Args]) -> Result<Pace> {
    let mut workers = orders.iter().map(Worker::start).collect::<Result<Vec<_>>>()?;
    workers.iter_mut().try_for_each(Worker::go)?;
    let done = workers.iter_mut().map(Worker::wait).collect::<Result<Vec<_>>>()?;
    pace(&done)
}

fn pace(done: &[Done]) -> Result<Pace> {
    let operations: u32 = done.iter().map(|done| done.operations).sum();
    ensure!(operations > 0, "a load did nothing");
    let seconds: f64 = done.iter().map(|done| done.seconds).sum();
    let undisturbed = done.iter().map(|done| done.undisturbed).sum::<f64>() / done.len() as f64;
    Ok(Pace { mean: 1e9 * seconds / f64::from(operations), undisturbed: Some(undisturbed) })
}

/// A worker in another process, which ends when this is dropped.
struct Worker {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Worker {
    fn start(order: &Args) -> Result<Self> {
        // The running program, even if its file has been rebuilt since.
        let mut command = Command::new("/proc/self/exe");
        command.args([
            "work",
            &order.deed.name(),
            &format!("--count={}", order.count),
            &format!("--cpu={}", order.cpu),
        ]);
        command.args(order.seconds.map(|seconds| format!("--seconds={seconds}")));
        command.args(order.first.then_some("--first"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a load")?;
        let said = BufReader::new(child.stdout.take().context("a load has no output")?);
        let mut worker = Self { child, said };
        let ready = worker.line()?;
        ensure!(ready == "ready", "a load said `{ready}` instead of being ready");
        Ok(worker)
    }

    fn go(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("a load has no input")?;
        stdin.write_all(b"go\n").context("cannot write to a load")
    }

    fn wait(&mut self) -> Result<Done> {
        let said = self.line()?;
        let done = parse(&said).with_context(|| format!("a load said `{said}`"))?;
        let status = self.child.wait().context("cannot wait for a load")?;
        ensure!(status.success(), "a load failed: {status}");
        Ok(done)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("cannot read what a load says")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(said: &str) -> Result<Done> {
    let value: Value = serde_json::from_str(said)?;
    let number = |name: &str| value[name].as_f64().with_context(|| format!("it has no `{name}`"));
    let operations = value["operations"].as_u64().context("it has no `operations`")?;
    Ok(Done { operations: operations.try_into()?, seconds: number("seconds")?, undisturbed: number("undisturbed_ns")? })
}

/// Does it when a line arrives, and prints how long it took.
pub(crate) fn run(args: &Args) -> Result<()> {
    isolate(if args.deed == Deed::Connection { args.count } else { 0 })?;
    stay_on(args.cpu)?;
    if args.first {
        hurry()?;
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).context("cannot wait for the order to begin")?;
    let done = match args.deed {
        Deed::Connection => connections(args)?,
        Deed::Getppid => timed(args, |_| {
            std::hint::black_box(nix::unistd::getppid());
            Ok(())
        })?,
        Deed::PingPong => ping_pong(args)?,
    };
    let Done { operations, seconds, undisturbed } = done;
    println!("{}", json!({ "operations": operations, "seconds": seconds, "undisturbed_ns": undisturbed }));
    Ok(())
}

/// Gives this process the highest priority that others can have.
fn hurry() -> Result<()> {
    // SAFETY: a system call with numbers only; 0 is this process.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    Errno::result(result).context("cannot raise the priority of a load")?;
    Ok(())
}

fn connections(args: &Args) -> Result<Done> {
    let (listener, port) = listen()?;
    timed(args, |number| {
        let to = destination(number, port);
        connect_and_close(&listener, to).with_context(|| format!("connection {number} to {to} failed"))
    })
}

fn ping_pong(args: &Args) -> Result<Done> {
    let (listener, port) = listen()?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot connect")?;
    let (mut server, _) = listener.accept().context("cannot accept")?;
    [&client, &server]
        .iter()
        .try_for_each(|end| end.set_nodelay(true))
        .context("cannot switch off Nagle's algorithm")?;
    let mut message = [0; MESSAGE];
    timed(args, |_| {
        client.write_all(&message)?;
        server.read_exact(&mut message)?;
        server.write_all(&message)?;
        Ok(client.read_exact(&mut message)?)
    })
}

/// Does something in batches, and times them.
fn timed(args: &Args, mut act: impl FnMut(u32) -> Result<()>) -> Result<Done> {
    let batch = args.deed.batch();
    let limit = args.seconds.map(Duration::from_secs_f64);
    let mut batches = Vec::new();
    let begun = Instant::now();
    let (mut last, mut operations) = (begun, 0);
    while operations + batch <= args.count && limit.is_none_or(|limit| last - begun < limit) {
        for _ in 0..batch {
            act(operations)?;
            operations += 1;
        }
        let now = Instant::now();
        batches.push((now - last).as_nanos() as f64 / f64::from(batch));
        last = now;
    }
    let undisturbed = batches.into_iter().collect::<Figures>().quantile(UNDISTURBED);
    let undisturbed = undisturbed.context("a load is shorter than one batch")?;
    Ok(Done { operations, seconds: (last - begun).as_secs_f64(), undisturbed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_at_the_same_time_have_one_pace() {
        let done = |operations, seconds, undisturbed| Done { operations, seconds, undisturbed };
        let both = pace(&[done(300, 1e-6, 2.0), done(100, 1e-6, 4.0)]).expect("they did something");
        assert_eq!(both.undisturbed, Some(3.0));
        assert!((both.mean - 5.0).abs() < 1e-9, "2 us of CPUs for 400 operations: {both:?}");
        pace(&[]).expect_err("nobody did anything");
    }

    #[test]
    fn what_a_worker_prints_is_read() {
        let said = json!({ "operations": 40_000, "seconds": 0.5, "undisturbed_ns": 11.5 }).to_string();
        assert_eq!(parse(&said).expect("valid"), Done { operations: 40_000, seconds: 0.5, undisturbed: 11.5 });
        parse("{}").expect_err("nothing in it");
    }

    #[test]
    fn whole_batches_are_done_until_the_count_or_the_limit() {
        let mut did = Vec::new();
        let mut act = |number| {
            did.push(number);
            Ok(())
        };
        let done = timed(&Args::times(Deed::Connection, 20), &mut act).expect("it works");
        assert_eq!(done.operations, 16);
        let none = Args { seconds: Some(0.0), ..Args::times(Deed::Connection, 20) };
        timed(&none, &mut act).expect_err("no batch");
        assert_eq!(did, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn the_options_of_a_worker_are_understood() {
        for deed in Deed::value_variants() {
            assert_eq!(Deed::from_str(&deed.name(), false).as_ref(), Ok(deed));
        }
    }
}
