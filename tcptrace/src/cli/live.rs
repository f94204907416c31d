//! `watch` and `connections`: from the kernel to the terminal.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use foldhash::fast::FixedState;
use jiff::tz::TimeZone;
use nix::time::ClockId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::clock::{self, boot_ns};
use super::inquire::{Answer, Inquirer, Question};
use super::outlet::Outlet;
use super::select::{FilterArgs, OutputArgs, duration};
use super::{Outcome, say};
use crate::event::Event;
use crate::existing::{Groups, Namespaces};
use crate::filter::Filter;
use crate::lifecycle::{Config, Engine, Row};
use crate::output::{self, Format, Kind, Printer, TextOptions};
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
    /// Report a socket that stays in CLOSE_WAIT, FIN_WAIT2, LAST_ACK or SYN_SENT for so long, or whose connection is over
    /// while its descriptor is still open; and again whenever that time has doubled (30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    report_stuck: Option<Duration>,
    /// Do not ask which sockets there are already: those show from their next change on
    #[arg(long)]
    no_existing: bool,
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
    inquirer: Inquirer,
    names_wanted: bool,
    groups: Groups,
    /// Network namespaces that were asked about, if they have names.
    namespaces: HashSet<u32, FixedState>,
    filter: Filter,
    printer: Box<dyn Printer>,
    context: output::Context,
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
        let namespaces = Namespaces::find();
        let criteria = args.filter.criteria(&namespaces)?;
        let options = probe::Options {
            ring_bytes: args.ring_size << 20,
            filter: criteria.kernel(),
            no_btf: args.no_btf,
            object: args.object.clone(),
        };
        let probe = Probe::attach(&options)?;
        let knows_cookies = probe.knows_cookies();
        let mut context = output::Context::default();
        namespaces.teach(&mut context.names);
        let text = TextOptions { colour: args.output.colour(), states, zone: TimeZone::system() };
        let mut live = Self {
            printer: args.output.format.printer(Outlet::default(), text),
            engine: Engine::new(Config {
                sockets: args.max_sockets,
                at_close,
                transitions: kind == Kind::Transition,
                connections: kind == Kind::Connection,
                stuck_after: args.report_stuck.map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
                existing: !args.no_existing,
                scans: knows_cookies,
            }),
            inquirer: Inquirer::new(options.filter),
            // A line of text has no room for them.
            names_wanted: args.output.format != Format::Text || !criteria.cgroups.is_empty(),
            groups: Groups::new(),
            namespaces: namespaces.iter().map(|namespace| namespace.inode).collect(),
            filter: Filter::new(criteria),
            context,
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
        if knows_cookies && !args.no_existing {
            live.inquirer.want(Question::Survey);
            live.inquirer.want(Question::Scan);
        }
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
            let answer = tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                () = reached(end) => return Ok(()),
                () = self.probe.wait(wait) => None,
                answer = self.inquirer.answer() => answer,
            };
            self.take_in()?;
            // What is answered is older than whatever comes next, and younger than what has just come.
            match answer {
                Some(Answer::Events(events)) => self.take_answer(&events)?,
                Some(Answer::Namespaces(namespaces)) => namespaces.teach(&mut self.context.names),
                None => {}
            }
            self.inquire()?;
        }
    }

    fn take_answer(&mut self, events: &[Event]) -> Result<()> {
        for event in events {
            self.engine.feed(event, &mut self.rows);
        }
        self.show()?;
        Ok(self.printer.flush()?)
    }

    /// Asks what the engine would like to know, now or later.
    fn inquire(&mut self) -> Result<()> {
        if self.engine.wants_scan() {
            self.inquirer.want(Question::Scan);
        }
        if let Some(begun) = self.inquirer.ask(&mut self.probe, boot_ns()?) {
            self.engine.feed(&begun, &mut self.rows);
        }
        Ok(())
    }

    /// How long nothing needs to be done unless something happens.
    fn longest_wait(&self) -> Result<Duration> {
        let deadline = self.engine.next_deadline().unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(deadline.saturating_sub(boot_ns()?)).min(self.inquirer.rest());
        Ok(wait.clamp(Duration::from_millis(1), HOUSEKEEPING))
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
            if self.probe.knows_cookies() {
                self.inquirer.want(Question::Survey);
            }
        }
    }

    fn newly_lost(&mut self) -> u64 {
        let before = self.losses.total();
        self.losses = self.probe.losses();
        self.losses.total().saturating_sub(before)
    }

    fn show(&mut self) -> Result<()> {
        self.learn_names();
        let rows = if self.filter.is_open() {
            &mut self.rows
        } else {
            self.rows.drain(..).for_each(|row| self.filter.push(row, &self.context.names, &mut self.shown));
            &mut self.shown
        };
        for row in rows.iter() {
            self.printer.row(row, &self.context)?;
        }
        rows.clear();
        Ok(())
    }

    /// Finds the names that the rows need.
    fn learn_names(&mut self) {
        if !self.names_wanted {
            return;
        }
        for row in &self.rows {
            let identity = row.identity();
            if let Some(id) = identity.cgroup {
                self.groups.learn(id, &mut self.context.names);
            }
            if identity.netns.is_some_and(|netns| self.namespaces.insert(netns)) {
                self.inquirer.want(Question::Namespaces);
            }
        }
    }

    fn read_clocks(&mut self) -> Result<()> {
        let boot = boot_ns()?;
        let slept = boot.saturating_sub(clock::read(ClockId::CLOCK_MONOTONIC)?);
        self.context.clock.boot_to_unix_ns = clock::boot_to_unix_ns()?;
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
