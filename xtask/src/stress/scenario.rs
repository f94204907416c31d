//! The scenarios: what disturbs the tracer while the load makes connections.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Outcome;
use super::load::{Load, Made};
use super::tracer::{Said, Tracer};
use crate::command;
use crate::hidden::{self, Hidden};

/// Transitions of a connection: 5 of each socket.
const TRANSITIONS: u64 = 10;
/// The same, and the destruction of both sockets.
const EVENTS_WITHOUT_BTF: u64 = TRANSITIONS + 2;
/// Output counts as complete when it has not grown for this time.
const QUIET: Duration = Duration::from_secs(10);
/// Longer than any TIME_WAIT.
const TIME_WAIT: Duration = Duration::from_secs(66);

/// A scenario.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    load: Vec<String>,
    tracer: Vec<String>,
    disturbance: Disturbance,
    proof: Proof,
}

#[derive(Clone, Copy, PartialEq)]
enum Disturbance {
    None,
    /// How long the tracer is stopped.
    Stop(Duration),
    /// Whether another tool's programs run on every CPU all the time.
    Bpftrace,
}

/// How to check that no loss was silent.
#[derive(Clone, Copy, PartialEq)]
enum Proof {
    /// By the transitions in the load's network namespace, which are known exactly.
    Exact,
    /// By the kernel's counters in every network namespace.
    Counters,
    /// By the number of events, where namespaces are unknown.
    Events,
    /// By one row for each end of a connection, after its TIME_WAIT has expired or its network namespace has ended.
    Rows { expire: bool },
}

impl Scenario {
    /// All scenarios, with connections for this long.
    pub(super) fn all(length: Duration) -> Vec<Self> {
        let seconds = length.as_secs_f64();
        let load = |seconds: f64, more: &[&str]| -> Vec<String> {
            let begin = ["--seconds".to_owned(), seconds.to_string()];
            begin.into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
        };
        let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let of = |name, load, tracer: &str, disturbance, proof| Self {
            name,
            load,
            tracer: words(tracer),
            disturbance,
            proof,
        };
        // Leaves some time before and after the stop.
        let stop = |name, ms: u64, tracer: &str| {
            let stopped = Duration::from_millis(ms);
            let load = load(1.0 + stopped.as_secs_f64(), &[]);
            of(name, load, tracer, Disturbance::Stop(stopped), Proof::Exact)
        };
        let few = if length >= Duration::from_secs(30) { "100000" } else { "10000" };
        let burst = |name, expire| {
            let load = load(120.0, &["--connections", few]);
            of(name, load, "connections --format json", Disturbance::None, Proof::Rows { expire })
        };
        let (record, watch) = ("record --force --audit", "watch --audit --format json");
        let none = Disturbance::None;
        let mut all = vec![
            of("record, two generators", load(seconds, &["--threads", "2"]), record, none, Proof::Exact),
            of("watch, two generators", load(seconds, &["--threads", "2"]), watch, none, Proof::Exact),
            stop("record, stopped for 0.1 s", 100, record),
            stop("record, stopped for 0.5 s", 500, record),
            stop("record, stopped for 2 s", 2_000, record),
            stop("watch, stopped for 0.5 s", 500, watch),
            of(
                "record, ring of 256 KiB",
                load(seconds.min(10.0), &["--threads", "2"]),
                "record --force --audit --ring-size 256K",
                none,
                Proof::Exact,
            ),
            of(
                "record, bpftrace on every CPU",
                load(seconds.min(10.0), &[]),
                record,
                Disturbance::Bpftrace,
                Proof::Exact,
            ),
            of(
                "record --no-btf, bpftrace on every CPU",
                load(seconds.min(10.0), &[]),
                "record --force --no-btf",
                Disturbance::Bpftrace,
                Proof::Events,
            ),
            of(
                "record, settings and namespaces change",
                load(seconds.min(20.0), &["--churn"]),
                record,
                none,
                Proof::Counters,
            ),
            burst("connections, TIME_WAITs gone with their namespace", false),
        ];
        let spread = || load(seconds.min(10.0), &["--threads", "2", "--spread"]);
        all.push(of("record, packets taken by any CPU", spread(), record, none, Proof::Exact));
        if length >= Duration::from_secs(30) {
            all.push(burst("connections, TIME_WAITs expire together", true));
            let name = "record --no-btf, packets taken by any CPU, bpftrace on every CPU";
            all.push(of(name, spread(), "record --force --no-btf", Disturbance::Bpftrace, Proof::Events));
        }
        all
    }

    /// Why it cannot run here.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        let wants_bpftrace = self.disturbance == Disturbance::Bpftrace;
        (wants_bpftrace && command::find("bpftrace").is_none()).then_some("bpftrace is not installed")
    }

    pub(super) fn run(&self, tcptrace: &Path, folder: &Path) -> Result<Outcome> {
        let mut load = Load::start(&self.load)?;
        let mut arguments = self.tracer.clone();
        arguments.push("--no-existing".into());
        match self.proof {
            Proof::Exact | Proof::Rows { .. } => arguments.extend(["--netns".into(), load.netns.to_string()]),
            Proof::Events => arguments.extend(load.ports.iter().map(|port| format!("--port={port}"))),
            Proof::Counters => {}
        }
        let trace = folder.join("trace");
        if self.tracer[0] == "record" {
            arguments.extend(["--output".into(), trace.display().to_string()]);
        }
        let foreign = if self.disturbance == Disturbance::Bpftrace { Some(Foreign::start()?) } else { None };
        let tracer = Tracer::start(tcptrace, &arguments)?;
        let events: &[&str] =
            if self.proof == Proof::Events { &[hidden::TRANSITIONS, hidden::ENDS] } else { &[hidden::TRANSITIONS] };
        let hidden = Hidden::count(events, if self.proof == Proof::Counters { &[] } else { &load.ports });
        load.begin()?;
        if let Disturbance::Stop(length) = self.disturbance {
            sleep(Duration::from_millis(300));
            tracer.signal(Signal::SIGSTOP)?;
            sleep(length);
            tracer.signal(Signal::SIGCONT)?;
        }
        let made = load.wait()?;
        if let Proof::Rows { expire } = self.proof {
            if !expire {
                load.end()?;
            }
            wait_for_rows(&tracer, made.connections * 2, if expire { TIME_WAIT } else { QUIET });
        }
        let rows = tracer.rows.load(Ordering::Relaxed);
        let said = tracer.finish()?;
        let hidden = hidden.map_or(0, |hidden| hidden.so_far());
        drop(foreign);
        load.end()?;
        Ok(self.judge(&load, &made, &said, rows, hidden))
    }

    fn judge(&self, load: &Load, made: &Made, said: &Said, rows: u64, hidden: u64) -> Outcome {
        let mut complaints = Vec::new();
        let mut must = |is_so: bool, complaint: String| {
            if !is_so {
                complaints.push(complaint);
            }
        };
        let (truth, told, seen) = match self.proof {
            Proof::Exact | Proof::Counters => {
                let [transitions, lost_transitions, _, unexplained] = said.verdict.unwrap_or_default();
                must(said.verdict.is_some(), "there was no audit".into());
                must(unexplained <= hidden, format!("the audit finds {unexplained} unexplained events"));
                let of = |name: &str| said.counters.get(&(load.netns, name.to_owned())).copied().unwrap_or_default();
                let [active, active_expected, active_missing] = of("ActiveOpens");
                let [_, passive_expected, _] = of("PassiveOpens");
                must(
                    active_expected == made.connections && passive_expected == made.connections,
                    format!("the kernel counted {active_expected} and {passive_expected} connections"),
                );
                match self.proof {
                    // A program that was already running may have missed transitions.
                    Proof::Exact => {
                        let told = transitions + lost_transitions + said.missed;
                        let truth = made.connections * TRANSITIONS;
                        (truth, if said.missed > 0 { told.min(truth) } else { told }, transitions)
                    }
                    _ => (made.connections, active + active_missing.min(said.lost), active),
                }
            }
            // Sockets of other programs may be among them, as long as their ports are unknown.
            Proof::Events => {
                let truth = made.connections * EVENTS_WITHOUT_BTF;
                (truth, (said.events + said.lost).min(truth), said.events)
            }
            // The loss may include a row or a part of one.
            Proof::Rows { .. } => {
                let truth = made.connections * 2;
                (truth, if rows < truth { truth.min(rows + said.lost) } else { rows }, rows)
            }
        };
        let missing = truth.saturating_sub(told);
        must(told <= truth && missing <= hidden, format!("{told} of {truth} told"));
        must(said.status == Some(if said.lost > 0 { 3 } else { 0 }), format!("exit status {:?}", said.status));
        let mut lost = if said.lost > 0 { said.causes.clone() } else { "0".into() };
        if missing > 0 {
            lost += &format!("; {missing} kept from all eBPF programs by this kernel (process 1, {hidden} at most)");
        }
        let rate = f64::from(u32::try_from(made.connections).unwrap_or(u32::MAX)) / made.seconds;
        Outcome { connections: made.connections, rate, truth, seen, lost, complaints }
    }
}

/// Waits until there are this many rows, or until no more come.
fn wait_for_rows(tracer: &Tracer, wanted: u64, patience: Duration) {
    let (mut seen, mut since) = (0, Instant::now());
    while seen < wanted && since.elapsed() < patience {
        sleep(Duration::from_millis(50));
        let now = tracer.rows.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// Another tool's programs, on classic tracepoints that are hit all the time.
struct Foreign {
    child: Child,
    is_over: Arc<AtomicBool>,
}

impl Foreign {
    fn start() -> Result<Self> {
        const BUSY: &str = "BEGIN { printf(\"ready\\n\"); } \
            tracepoint:timer:timer_start, tracepoint:timer:timer_cancel, tracepoint:raw_syscalls:sys_enter \
            { @[kstack, comm] = count(); }";
        let program = command::find("bpftrace").context("bpftrace is not installed")?;
        let mut command = Command::new(program);
        command.args(["-e", BUSY]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start bpftrace")?;
        let mut stdout = std::io::BufReader::new(child.stdout.take().context("bpftrace has no output")?);
        let mut line = String::new();
        while !line.starts_with("ready") {
            line.clear();
            let read = std::io::BufRead::read_line(&mut stdout, &mut line).context("cannot read bpftrace's output")?;
            anyhow::ensure!(read > 0, "bpftrace did not get ready");
        }
        // Nothing reads its table, but its output needs a destination.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let is_over = Arc::new(AtomicBool::new(false));
        // Busy processes keep every CPU in those programs, so that interrupts hit them.
        for cpu in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut only = CpuSet::new();
                // bpftrace itself must not be limited to one CPU.
                let _ = only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
                while !is_over.load(Ordering::Relaxed) {
                    nix::unistd::getppid();
                }
            });
        }
        Ok(Self { child, is_over })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It has ended already, unless it was killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
