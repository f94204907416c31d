//! `watch` and `connections`: from the kernel to the terminal.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use clap::Args;
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::select::{FilterArgs, OutputArgs, duration};
use super::{Outcome, say};
use crate::event::Event;
use crate::filter::Filter;
use crate::lifecycle::{Config, Engine, Row};
use crate::output::{Clock, Format, Kind, Printer, TextOptions};
use crate::probe::{self, Losses, Probe};

/// Records taken from the ring buffer at a time.
const BATCH: usize = 1024;
/// How often the slower loss counters are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How far boot time must run away from monotonic time to count as sleep, and not as reading them one by one.
const SLEEP_NS: u64 = 10_000_000;

#[derive(Args, Debug)]
struct LiveArgs {
    /// Stop after this time (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    /// Size of the ring buffer in MiB, rounded up to a power of two
    #[arg(long, value_name = "MIB", default_value_t = probe::DEFAULT_RING_BYTES >> 20, value_parser = clap::value_parser!(u32).range(1..=1024))]
    ring_size: u32,
    /// Follow at most this many sockets, and forget the one that has been idle longest beyond that
    #[arg(long, value_name = "N", default_value_t = Config::default().sockets)]
    max_sockets: usize,
    /// Use the classic tracepoints only, as on a kernel without BTF: no TIME_WAIT, and ends unexplained
    #[arg(long)]
    no_btf: bool,
    /// Load this eBPF object instead of the built-in one
    #[arg(long, value_name = "PATH", hide = true)]
    object: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    live: LiveArgs,
}

/// Arguments of `connections`.
#[derive(Args, Debug)]
pub(super) struct ConnectionsArgs {
    /// Print a connection when its socket is closed, instead of waiting for the end of its TIME_WAIT
    #[arg(long)]
    at_close: bool,
    /// Add a line with the time spent in each state (text only; the other formats always have it)
    #[arg(long)]
    states: bool,
    #[command(flatten)]
    live: LiveArgs,
}

pub(super) fn watch(args: &WatchArgs) -> Result<Outcome> {
    run(&args.live, Kind::Transition, false, false)
}

pub(super) fn connections(args: &ConnectionsArgs) -> Result<Outcome> {
    run(&args.live, Kind::Connection, args.at_close, args.states)
}

fn run(args: &LiveArgs, kind: Kind, at_close: bool, states: bool) -> Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")?;
    runtime.block_on(async {
        let mut stop = Stop::new()?;
        let mut live = Live::start(args, kind, at_close, states)?;
        live.until_stopped(&mut stop, args.duration).await?;
        live.finish()
    })
}

/// Everything between the ring buffer and standard output.
struct Live {
    probe: Probe,
    engine: Engine,
    filter: Filter,
    printer: Box<dyn Printer>,
    clock: Clock,
    /// Boot time minus monotonic time: grows while the machine sleeps.
    slept_ns: u64,
    losses: Losses,
    next_housekeeping: Instant,
    events: Vec<Event>,
    rows: Vec<Row>,
    shown: Vec<Row>,
}

impl Live {
    fn start(args: &LiveArgs, kind: Kind, at_close: bool, states: bool) -> Result<Self> {
        let criteria = args.filter.criteria();
        let options = probe::Options {
            ring_bytes: args.ring_size << 20,
            filter: criteria.kernel(),
            no_btf: args.no_btf,
            object: args.object.clone(),
        };
        let probe = Probe::attach(&options)?;
        let text = TextOptions { colour: args.output.colour(), states, zone: TimeZone::system() };
        let mut live = Self {
            printer: printer(args.output.format, text),
            engine: Engine::new(Config {
                sockets: args.max_sockets,
                at_close,
                transitions: kind == Kind::Transition,
                connections: kind == Kind::Connection,
                ..Config::default()
            }),
            filter: Filter::new(criteria),
            clock: Clock::default(),
            slept_ns: 0,
            losses: Losses::default(),
            next_housekeeping: Instant::now(),
            events: Vec::new(),
            rows: Vec::new(),
            shown: Vec::new(),
            probe,
        };
        live.read_clocks()?;
        live.engine.feed(&Event::Started { at: boot_ns()? }, &mut live.rows);
        live.printer.header(kind)?;
        live.printer.flush()?;
        say("ready");
        Ok(live)
    }

    /// Follows the stream until a signal comes or the time is over.
    async fn until_stopped(&mut self, stop: &mut Stop, duration: Option<Duration>) -> Result<()> {
        let end = duration.map(|duration| Instant::now() + duration);
        loop {
            let wait = self.longest_wait()?;
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                () = reached(end) => return Ok(()),
                () = self.probe.wait(wait) => {}
            }
            self.take_in()?;
        }
    }

    /// How long nothing needs to be done unless something happens.
    fn longest_wait(&self) -> Result<Duration> {
        let Some(deadline) = self.engine.next_deadline() else { return Ok(HOUSEKEEPING) };
        Ok(Duration::from_nanos(deadline.saturating_sub(boot_ns()?)).clamp(Duration::from_millis(1), HOUSEKEEPING))
    }

    /// Takes in what the ring buffer holds, and shows what follows from it.
    fn take_in(&mut self) -> Result<()> {
        if Instant::now() >= self.next_housekeeping {
            self.next_housekeeping = Instant::now() + HOUSEKEEPING;
            self.probe.read_recursion();
        }
        self.read_clocks()?;
        loop {
            let before = boot_ns()?;
            let is_empty = self.take_batch(before)?;
            if is_empty {
                self.engine.advance(before, &mut self.rows);
            }
            self.show()?;
            if is_empty {
                return Ok(self.printer.flush()?);
            }
        }
    }

    /// Takes in one batch. Returns whether the ring buffer is empty.
    fn take_batch(&mut self, now: u64) -> Result<bool> {
        let Self { probe, events, .. } = self;
        let is_empty = probe.drain(BATCH, |event| events.push(event));
        // What was lost was lost between two of these events, nobody knows which: mark the connections that end
        // among them, and those that go on.
        let lost = self.newly_lost();
        self.feed_lost(self.events.first().map_or(now, Event::at), lost);
        for event in &self.events {
            self.engine.feed(event, &mut self.rows);
        }
        self.events.clear();
        if lost > 0 {
            self.feed_lost(boot_ns()?, lost);
        }
        Ok(is_empty)
    }

    fn feed_lost(&mut self, at: u64, events: u64) {
        if events > 0 {
            self.engine.feed(&Event::Lost { at, events }, &mut self.rows);
        }
    }

    fn newly_lost(&mut self) -> u64 {
        let before = self.losses.total();
        self.losses = self.probe.losses();
        self.losses.total().saturating_sub(before)
    }

    fn show(&mut self) -> Result<()> {
        let rows = if self.filter.is_open() {
            &mut self.rows
        } else {
            self.rows.drain(..).for_each(|row| self.filter.push(row, &mut self.shown));
            &mut self.shown
        };
        for row in rows.iter() {
            self.printer.row(row, &self.clock)?;
        }
        rows.clear();
        Ok(())
    }

    fn read_clocks(&mut self) -> Result<()> {
        let boot = boot_ns()?;
        let slept = boot.saturating_sub(read_clock(ClockId::CLOCK_MONOTONIC)?);
        let unix = read_clock(ClockId::CLOCK_REALTIME)?;
        self.clock.boot_to_unix_ns =
            i64::try_from(i128::from(unix) - i128::from(boot)).context("the clock is unset")?;
        if self.slept_ns != 0 && slept > self.slept_ns + SLEEP_NS {
            self.engine.feed(&Event::Suspended { at: boot, ns: slept - self.slept_ns }, &mut self.rows);
        }
        self.slept_ns = slept;
        Ok(())
    }

    /// Shows what is left, and says what there was.
    fn finish(mut self) -> Result<Outcome> {
        self.probe.read_recursion();
        self.take_in()?;
        self.filter.finish();
        let stats = self.engine.stats();
        let (lost, causes) = self.lost(stats.evicted);
        let filtered = self.losses.filtered + self.filter.filtered_out();
        say(format_args!(
            "{} transitions seen, {lost} lost{causes}, {} sockets followed, {filtered} filtered out",
            stats.transitions, stats.followed,
        ));
        Ok(if lost > 0 { Outcome::Lost } else { Outcome::Done })
    }

    /// How much was lost, and why, in words for the closing line.
    fn lost(&self, evicted: u64) -> (u64, String) {
        let Losses { ring_full, ring_full_others, recursion, filtered: _ } = self.losses;
        let causes = [
            (ring_full + ring_full_others, "ring buffer full, try --ring-size"),
            (recursion, "program was running already"),
            (evicted, "sockets forgotten, try --max-sockets"),
            (self.filter.dropped(), "rows held back too long for the filter"),
        ];
        let lost = causes.iter().map(|(count, _)| count).sum();
        let named: Vec<_> =
            causes.iter().filter(|(count, _)| *count > 0).map(|(count, cause)| format!("{count} {cause}")).collect();
        (lost, if named.is_empty() { String::new() } else { format!(" ({})", named.join("; ")) })
    }
}

fn printer(format: Format, text: TextOptions) -> Box<dyn Printer> {
    format.printer(Outlet::default(), text)
}

/// Standard output, written to once a round: a write for every row would cost more than the row.
#[derive(Default)]
struct Outlet {
    pending: BytesMut,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const FULL: usize = 1 << 18;
        self.pending.put_slice(bytes);
        if self.pending.len() >= FULL {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.pending.split())?;
        stdout.flush()
    }
}

/// The signals that end a run in order: the ring buffer is drained and the closing line printed.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on the signals do not kill the process.
    fn new() -> Result<Self> {
        Ok(Self { interrupt: handler(SignalKind::interrupt())?, terminate: handler(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn handler(kind: SignalKind) -> Result<Signal> {
    signal(kind).with_context(|| format!("cannot handle signal {}", kind.as_raw_value()))
}

async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn boot_ns() -> Result<u64> {
    read_clock(ClockId::CLOCK_BOOTTIME)
}

fn read_clock(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock).with_context(|| format!("cannot read clock {clock}"))?;
    u64::try_from(Duration::from(time).as_nanos()).context("the clock is out of range")
}
