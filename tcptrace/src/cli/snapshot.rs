//! `snapshot`: what exists now.

mod ports;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use jiff::tz::TimeZone;
use nix::time::ClockId;

use super::outlet::Outlet;
use super::select::{FilterArgs, OutputArgs, duration, warn_of_missing_groups};
use super::view::undecided;
use super::{Outcome, say, stdout};
use crate::engine::filter::Verdict;
use crate::kernel::{self, Answer, Coverage, Groups, Holders, Multipaths, Namespaces, Wanted};
use crate::live;
use crate::model::criteria::{Criteria, Undecided};
use crate::model::facts::Settings;
use crate::model::row::Entry;
use crate::model::socket::{Holding, Socket};
use crate::model::stream;
use crate::model::tcp::Task;
use crate::output::{Format, Kind, Lister, TextOptions};
use crate::study::snapshot::{self, Counts, Snapshot};

/// Arguments of `snapshot`.
#[derive(Args, Debug)]
pub(super) struct SnapshotArgs {
    /// List every socket, instead of counting them
    #[arg(long)]
    list: bool,
    /// Show how many local ports each destination takes, and how many it has left. Filters choose destinations by their
    /// sockets; all sockets count against the ports
    #[arg(long, conflicts_with_all = ["list", "idle"])]
    ports: bool,
    /// Only sockets whose peer has acknowledged nothing for at least this long (10ms, 1m30s)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle: Option<Duration>,
    /// Print the N owners and the N ends with the most sockets, or the N destinations with the largest share of their ports
    /// taken; one more row sums up the others
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "list")]
    top: usize,
    /// Keep the privileges that tcptrace otherwise gives up
    #[arg(long)]
    no_sandbox: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

pub(super) fn run(args: &SnapshotArgs) -> Result<Outcome> {
    let namespaces = Namespaces::find();
    let criteria = args.filter.criteria(&namespaces)?;
    warn_of_missing_groups(&criteria, false);
    if !args.no_sandbox {
        kernel::drop_privileges(None).context("cannot give up privileges")?;
    }
    // The query switches the network namespace of its thread, so it gets one of its own.
    let asked = std::thread::scope(|scope| scope.spawn(|| Found::ask(&namespaces, &criteria, args)).join());
    let Found { sockets, coverage, allocated, settings } =
        asked.map_err(|_| anyhow!("internal error: the thread that lists sockets panicked"))??;
    let mut report = Report::new(args, criteria)?;
    namespaces.teach(&mut report.context.names);
    for kernel::Interface { netns, index, name } in &coverage.interfaces {
        report.context.names.name_interface(*netns, *index, name);
    }
    let are_hidden = kernel::are_processes_hidden();
    let allocated = allocated.filter(|_| coverage.is_complete() && !are_hidden);
    let holders = holders(&sockets, |task| report.prefers(task))?;
    let snapshot = Snapshot::new(sockets, |inode| holders.of(inode));
    let mut unseen = Unseen::of(&coverage, &holders, are_hidden);
    let (shown, what) = if args.ports {
        let places = [&coverage.namespaces[..], &coverage.interrupted].concat();
        unseen.settings(ports::without_settings(&places, &settings));
        (report.ports(&snapshot, &settings, args.top)?, "destination")
    } else if args.list {
        (report.list(&snapshot)?, "socket")
    } else {
        (report.counts(&snapshot, args.top, allocated)?, "socket")
    };
    let places = coverage.namespaces.len() + coverage.interrupted.len();
    let (shown, places) = (counted(shown, what), counted(places as u64, "network namespace"));
    let undecided = undecided(report.undecided, "socket");
    say(format_args!("{shown} in {places}{undecided}{}", unseen.words()));
    Ok(Outcome::Done)
}

/// The kernel's answer.
struct Found {
    sockets: Vec<Socket>,
    coverage: Coverage,
    allocated: Option<u64>,
    /// Of network namespaces, where ports are asked for.
    settings: Vec<Settings>,
}

impl Found {
    fn ask(namespaces: &Namespaces, criteria: &Criteria, args: &SnapshotArgs) -> Result<Self> {
        let (mut sockets, mut multipaths) = (Vec::new(), Multipaths::default());
        let mut ask = |wanted, sockets: &mut Vec<Socket>| {
            let mut keep = |answer| match answer {
                // The same again with more of it, or one that is bound and nothing else.
                Answer::Socket(socket) | Answer::Inspected(socket) => sockets.push(socket),
                Answer::Multipath(socket) => multipaths.note(&socket),
                Answer::Namespace(_) => {}
            };
            // IPv4-mapped addresses are among those of IPv6. A port is taken from both families.
            let ipv4 = criteria.ipv4 || !criteria.ipv6 || args.ports;
            kernel::survey(namespaces, &criteria.netns, wanted, ipv4, true, &mut keep)
        };
        let allocated = kernel::allocated();
        let coverage = ask(if args.ports { Wanted::AllAndBound } else { Wanted::AllAndPaths }, &mut sockets)?;
        let settings = if args.ports { settings(namespaces, &criteria.netns)? } else { Vec::new() };
        // What it cannot list now is known from before, but for that.
        let has_ages = args.list && sockets.iter().any(snapshot::is_waiting);
        for (is_wanted, wanted) in [(args.idle.is_some(), Wanted::Flowing), (has_ages, Wanted::Waiting)] {
            if is_wanted {
                ask(wanted, &mut sockets)?;
                break;
            }
        }
        sockets.iter_mut().for_each(|socket| socket.multipath = multipaths.of(socket));
        Ok(Self { sockets, coverage, allocated, settings })
    }
}

/// Those of all network namespaces, or of these.
fn settings(namespaces: &Namespaces, only: &[u32]) -> Result<Vec<Settings>> {
    let now = || kernel::clock_ns(ClockId::CLOCK_BOOTTIME).unwrap_or_default();
    kernel::settings(namespaces, only, &now).context("cannot come back to the own network namespace")
}

fn holders(sockets: &[Socket], prefers: impl FnMut(&Task) -> bool) -> Result<Holders> {
    let mut inodes: Vec<u32> = sockets.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
    inodes.sort_unstable();
    kernel::holders(|inode| inodes.binary_search(&inode).is_ok(), prefers)
        .context("cannot read socket owners from /proc")
}

/// Filters the answer, and prints it.
struct Report {
    criteria: Criteria,
    printer: Box<dyn Lister>,
    context: stream::Context,
    groups: Option<Groups>,
    undecided: Undecided,
    idle_ns: Option<u64>,
}

impl Report {
    fn new(args: &SnapshotArgs, criteria: Criteria) -> Result<Self> {
        let SnapshotArgs { output, idle, .. } = args;
        let width = stdout::terminal().map(|(columns, _)| columns);
        let colour = output.colour();
        let text = TextOptions { colour, zone: TimeZone::system(), width, ..TextOptions::default() };
        let context = stream::Context { clock: live::read_clocks()?.clock(), ..stream::Context::default() };
        // Text has no column for control groups.
        let groups = output.format != Format::Text || criteria.ask_groups();
        let printer = output.format.lister(Outlet::default(), text);
        let idle_ns = idle.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let groups = groups.then(Groups::new);
        Ok(Self { criteria, printer, context, groups, undecided: Undecided::default(), idle_ns })
    }

    fn list(&mut self, snapshot: &Snapshot<impl Fn(u32) -> Option<Holding>>) -> Result<u64> {
        self.printer.header(Kind::Socket)?;
        let mut shown = 0;
        for socket in snapshot.entries() {
            if self.is_wanted(&socket) {
                shown += 1;
                self.printer.socket(&socket, &self.context)?;
            }
        }
        self.printer.flush()?;
        Ok(shown)
    }

    fn counts(
        &mut self,
        snapshot: &Snapshot<impl Fn(u32) -> Option<Holding>>,
        top: usize,
        allocated: Option<u64>,
    ) -> Result<u64> {
        let mut counts = Counts::default();
        let mut shown = 0;
        for socket in snapshot.entries() {
            if self.is_wanted(&socket) {
                shown += 1;
                counts.add(&socket, snapshot.is_served(socket.identity.netns, socket.identity.tuple.local_port));
            }
        }
        self.printer.header(Kind::Count)?;
        for row in counts.rows(top, allocated.filter(|_| self.criteria.is_empty())) {
            self.printer.count(&row, &self.context)?;
        }
        self.printer.flush()?;
        Ok(shown)
    }

    fn is_wanted(&mut self, socket: &Entry) -> bool {
        if let (Some(groups), Some(id)) = (&mut self.groups, socket.identity.cgroup) {
            groups.learn(id, &mut self.context.names);
        }
        // Of a socket that the kernel says nothing of, nobody knows.
        if self.idle_ns.is_some_and(|least| socket.idle_ns.is_none_or(|idle| idle < least)) {
            return false;
        }
        if self.criteria.is_empty() {
            return true;
        }
        let verdict = self.criteria.judge_socket(socket, &self.context.names);
        self.undecided.shown += u64::from(verdict == Verdict::Undecided);
        self.undecided.left_out += u64::from(verdict == Verdict::Unknown);
        matches!(verdict, Verdict::Shown | Verdict::Undecided)
    }

    /// Whether a process with sockets matches the filters.
    fn prefers(&mut self, task: &Task) -> bool {
        if let (Some(groups), false) = (&mut self.groups, !self.criteria.ask_groups()) {
            let group = groups.of_process(task.pid);
            self.context.names.note_process(task.pid, group);
            group.iter().for_each(|id| groups.learn(*id, &mut self.context.names));
        }
        self.criteria.wants_process(task, &self.context.names)
    }
}

/// What could not be seen, in words for the closing line.
struct Unseen(Vec<String>);

impl Unseen {
    fn of(coverage: &Coverage, holders: &Holders, are_hidden: bool) -> Self {
        let mut parts = Vec::new();
        parts.extend(of_processes("descriptors", holders.unseen_processes, are_hidden));
        if !kernel::are_all_visible() && !are_hidden {
            parts.push("the processes outside this pid namespace".to_owned());
        }
        parts.extend(of_processes("network namespaces", coverage.unseen_processes, are_hidden));
        parts.extend(coverage.unreadable.iter().map(|(netns, reason)| format!("network namespace {netns} ({reason})")));
        if !coverage.interrupted.is_empty() {
            let places = counted(coverage.interrupted.len() as u64, "network namespace");
            parts.push(format!("changes during the listing in {places}"));
        }
        Self(parts)
    }

    fn settings(&mut self, of: usize) {
        if of > 0 {
            self.0.push(format!(
                "the ports of {}, whose settings cannot be read",
                counted(of as u64, "network namespace")
            ));
        }
    }

    fn words(&self) -> String {
        let advice = if nix::unistd::geteuid().is_root() { "" } else { "; run as root to see all" };
        if self.0.is_empty() { String::new() } else { format!("; not seen: {}{advice}", self.0.join(", ")) }
    }
}

/// Parts of processes that could not be read.
fn of_processes(what: &str, unseen: usize, are_hidden: bool) -> Option<String> {
    let of = match (unseen, are_hidden) {
        (0, false) => return None,
        (0, true) => "the processes that /proc hides (hidepid)".to_owned(),
        (_, false) => counted(unseen as u64, "process"),
        (_, true) => format!("{} and of those that /proc hides (hidepid)", counted(unseen as u64, "process")),
    };
    Some(format!("the {what} of {of}"))
}

fn counted(number: u64, what: &str) -> String {
    let ending = match number {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {what}{ending}")
}
