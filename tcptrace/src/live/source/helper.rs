//! The helper: a process of its own with the privileges that questions to the kernel take. The process that follows the
//! kernel, and so reads what strangers send, can then give all of them up. It asks by a few ways, one for each kind of
//! question, so that slow answers hold up no quick ones.
//!
//! The helper is a copy that is made once everything is attached: it has its own descriptors of programs, maps and links. A
//! program that is attached only as needed is attached here alone, because it stays attached as long as anybody has its link.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};
use serde::{Deserialize, Serialize};

use super::counting::{self, Scope};
use super::{lookups, readings};
use crate::kernel::probe::Probe;
use crate::kernel::{Namespaces, User, drop_privileges};
use crate::live::messages;
use crate::live::queries::{self, LastFound, Request};
use crate::live::tally;
use crate::live::way::{Fate, Way};

/// How long to wait until the helper has ended, in ms: its programs are detached by then.
const LONGEST_END: u16 = 5_000;

/// Signals that the process that follows the kernel decides about, or that only it has handlers for.
const IGNORED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What the helper is to do with its programs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    /// Attach or detach stand-ins as needed, now that this many records have been read, and say how often programs did not
    /// run.
    Recursion { records: u64 },
    /// Attach or detach what shows accepts, and say whether they are seen.
    Accepts { watch: bool },
}

/// What it says of that.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Done {
    Recursion(u64),
    Accepts(bool),
}

/// The helper, as the process that follows the kernel has it. Dropping it ends the helper.
pub(super) struct Helper {
    pid: Pid,
    /// Tells when it has ended, where the kernel can.
    ended: Option<OwnedFd>,
    ways: Ways,
    fate: Fate,
    /// Passes on what it reports.
    listening: Option<JoinHandle<()>>,
}

/// A way for each kind of question.
#[derive(Debug)]
pub(super) struct Ways {
    orders: Way,
    reports: Way,
    pub(super) queries: Way,
    pub(super) counting: Way,
    pub(super) lookups: Way,
    pub(super) readings: Way,
    pub(super) tally: Way,
}

/// What the helper needs to know.
pub(super) struct Task<'s> {
    pub(super) probe: &'s mut Probe,
    pub(super) filter: tcptrace_common::Filter,
    pub(super) scope: Scope,
    /// The network namespaces that have been found.
    pub(super) namespaces: &'s Namespaces,
    /// Who it becomes.
    pub(super) user: Option<&'s User>,
}

impl Ways {
    /// Both ends of each.
    fn pairs(fate: &Fate) -> io::Result<(Self, Self)> {
        let pair = || Way::pair(fate);
        let [orders, reports, queries] = [pair()?, pair()?, pair()?];
        let [counting, lookups, readings, tally] = [pair()?, pair()?, pair()?, pair()?];
        let of = |[orders, reports, queries, counting, lookups, readings, tally]: [Way; 7]| Self {
            orders,
            reports,
            queries,
            counting,
            lookups,
            readings,
            tally,
        };
        let all = [orders, reports, queries, counting, lookups, readings, tally];
        let ours = all.each_ref().map(|(ours, _)| ours.clone());
        Ok((of(ours), of(all.map(|(_, theirs)| theirs))))
    }

    fn all(&self) -> [&Way; 7] {
        let Self { orders, reports, queries, counting, lookups, readings, tally } = self;
        [orders, reports, queries, counting, lookups, readings, tally]
    }
}

impl Helper {
    /// Starts it. Call this before any thread starts: it has a copy of this thread alone.
    ///
    /// # Errors
    /// When there can be no other process, or it cannot become the user.
    pub(super) fn begin(task: Task<'_>) -> Result<Self> {
        let context = "cannot start the helper process";
        let fate = Fate::default();
        let (ours, theirs) = Ways::pairs(&fate).context(context)?;
        let parent = Pid::this();
        // `--accept auto` has a program detached in a thread, where that was attached to see whether it can be.
        task.probe.await_detached();
        // SAFETY: there is no other thread whose locks the new process could miss.
        match unsafe { fork() }.context(context)? {
            ForkResult::Parent { child: pid } => {
                drop(theirs);
                task.probe.leave_to_another();
                let mut helper = Self { pid, ended: pidfd(pid), ways: ours, fate, listening: None };
                let began: io::Result<Result<u32, String>> = helper.ways.orders.take();
                match began.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(number) => task.probe.leave_out(number),
                    Err(reason) => {
                        helper.fate.end();
                        helper.end();
                        return Err(anyhow!(reason).context(context));
                    }
                }
                Ok(helper)
            }
            ForkResult::Child => {
                drop(ours);
                // Nothing of what the copy has may be dropped: it is registered with the event loop of the other process.
                let _ = catch_unwind(AssertUnwindSafe(|| be_helper(task, theirs, parent)));
                // SAFETY: nothing is left to be done here; what is buffered is the other process's.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Passes on what the helper reports, in a thread. Until then, it waits.
    pub(super) fn listen(&mut self) {
        let (reports, fate) = (self.ways.reports.clone(), self.fate.clone());
        let listen = move || {
            messages::pass_on(&reports);
            fate.lose();
        };
        match thread::Builder::new().name("helper".into()).spawn(listen) {
            Ok(thread) => self.listening = Some(thread),
            Err(error) => log::warn!("cannot hear the helper process: cannot start a thread: {error}"),
        }
    }

    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Whether it has ended, although it was not to.
    pub(super) fn is_lost(&self) -> bool {
        self.fate.is_lost()
    }

    /// Has it attach or detach stand-ins as needed, now that this many records have been read. Returns how often programs
    /// did not run.
    pub(super) fn read_recursion(&self, records: u64) -> Option<u64> {
        match self.ways.orders.ask(&Order::Recursion { records })? {
            Done::Recursion(recursion) => Some(recursion),
            Done::Accepts(_) => None,
        }
    }

    /// Has it begin or end seeing accepts. Returns whether they are seen.
    pub(super) fn watch_accepts(&self, watch: bool) -> bool {
        matches!(self.ways.orders.ask(&Order::Accepts { watch }), Some(Done::Accepts(true)))
    }

    /// It ends as soon as nobody asks any more.
    fn end(&mut self) {
        self.ways.all().into_iter().for_each(Way::shut);
        let has_ended = match &self.ended {
            Some(ended) => {
                let mut waited = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
                poll(&mut waited, PollTimeout::from(LONGEST_END)).is_ok_and(|ready| ready > 0)
            }
            None => true,
        };
        if has_ended {
            // Its status tells nothing.
            let _ = waitpid(self.pid, self.ended.is_some().then_some(WaitPidFlag::WNOHANG));
            if let Some(listening) = self.listening.take() {
                // A panic has already been printed.
                let _ = listening.join();
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.fate.end();
        self.end();
    }
}

/// A descriptor that tells when a process has ended (Linux 5.3 and newer).
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    // SAFETY: it only returns a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(Errno::result(fd).ok()?).ok()?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Answers until nobody asks any more.
fn be_helper(task: Task<'_>, ways: Ways, parent: Pid) {
    let Task { probe, filter, scope, namespaces, user } = task;
    begin_anew(&ways);
    let began = drop_privileges(user).map_err(|error| error.to_string());
    // A change of the user has undone it.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let has_failed = began.is_err() || getppid() != parent;
    let pid = Probe::pid();
    if ways.orders.send(&began.map(|()| pid)).is_err() || has_failed {
        return;
    }
    messages::report_by(ways.reports.clone());
    probe.leave_out(pid);
    let found = LastFound::default();
    if let Ok(mut found) = found.lock() {
        *found = namespaces.clone();
    }
    let Ways { orders, queries, counting, lookups, readings, tally, .. } = ways;
    let (of_counting, of_lookups) = (found.clone(), found.clone());
    let is_served = in_thread("counters", move || counting::serve(&counting, &of_counting, scope))
        && in_thread("names", move || lookups::serve(&lookups, &of_lookups))
        && in_thread("audit", move || readings::serve(&readings))
        && in_thread("tally", move || tally::serve(&tally));
    if is_served {
        serve(probe, filter, &orders, &queries, &found);
    }
}

fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let started = thread::Builder::new().name(name.into()).spawn(work);
    started.inspect_err(|error| log::warn!("the helper process cannot start a thread: {error}")).is_ok()
}

/// Leaves behind what belongs to the other process: its signals, its terminal and its files.
fn begin_anew(ways: &Ways) {
    for number in IGNORED {
        // SAFETY: no handler is set.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
    let _ = prctl::set_name(c"tcptrace-helper");
    // SAFETY: it only makes other numbers lead to where messages go. Nothing reads or writes there.
    unsafe {
        libc::dup2(libc::STDERR_FILENO, libc::STDIN_FILENO);
        libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO);
    }
    let kept = ways.all().map(AsRawFd::as_raw_fd);
    for fd in descriptors().unwrap_or_default() {
        if fd > libc::STDERR_FILENO && !kept.contains(&fd) && !is_of_programs(fd) {
            // SAFETY: what owns it is neither used nor dropped in this process.
            unsafe { libc::close(fd) };
        }
    }
}

fn descriptors() -> io::Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Whether it is a program, a map or a link.
fn is_of_programs(fd: RawFd) -> bool {
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let is = |kind: &str| path.as_os_str().as_bytes().starts_with(OsStr::new(kind).as_bytes());
    is("anon_inode:bpf") || is("anon_inode:[perf_event]")
}

/// Carries out orders, and has threads answer queries.
fn serve(probe: &mut Probe, filter: tcptrace_common::Filter, orders: &Way, queries: &Way, found: &LastFound) {
    loop {
        let mut asked = [orders, queries].map(|way| PollFd::new(way.as_fd(), PollFlags::POLLIN));
        match poll(&mut asked, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        }
        let [has_order, has_query] = asked.map(|asked| asked.any().unwrap_or(true));
        if has_order {
            let Ok(order) = orders.take() else { return };
            let done = match order {
                Order::Recursion { records } => Done::Recursion(probe.read_recursion_after(records)),
                Order::Accepts { watch } => Done::Accepts(probe.watch_accepts(watch)),
            };
            if orders.send(&done).is_err() {
                return;
            }
        }
        if has_query {
            let Ok(request) = queries.take::<Request>() else { return };
            queries::answer_by(queries.clone(), request, probe, filter, found);
        }
    }
}
