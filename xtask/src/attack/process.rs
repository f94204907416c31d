//! A tcptrace process under attack.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

use super::words::{self, Figures};
use crate::bench::proc;
use crate::command;

/// Time limit for starting, and for ending in order.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(5);

/// A running process. Its stderr goes to a file.
pub(crate) struct Process {
    child: Child,
    stderr: PathBuf,
}

/// What a process has open, and how many threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Open {
    /// All descriptors.
    pub(super) descriptors: usize,
    /// Those among them that keep a BPF program attached.
    pub(super) links: usize,
    pub(super) threads: usize,
}

/// Whether a descriptor that leads there keeps a BPF program attached: the kernel's names of links, and the event that is
/// one where there are no links of tracepoints.
fn is_link(leads_to: &str) -> bool {
    ["anon_inode:bpf_link", "anon_inode:bpf-link", "anon_inode:bpf-raw-tracepoint", "anon_inode:[perf_event]"]
        .contains(&leads_to)
}

/// A process that has ended.
pub(crate) struct Ended {
    /// Its exit status, or 128 plus the signal.
    pub(crate) status: i32,
    /// Its stderr.
    pub(crate) said: String,
    /// Time from the request to end until its end.
    pub(super) took: Duration,
}

impl Ended {
    /// The numbers of its closing line.
    pub(crate) fn figures(&self) -> Result<Figures> {
        words::closing(&self.said)
            .with_context(|| format!("no closing line (status {}): {}", self.status, words::tail(&self.said)))
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command, stderr: &Path) -> Result<Self> {
        let file = File::create(stderr).with_context(|| format!("cannot create {}", stderr.display()))?;
        command.stderr(file);
        command::dies_with_us(command);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", command::line(command)))?;
        Ok(Self { child, stderr: stderr.to_owned() })
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn ready(command: &mut Command, stderr: &Path) -> Result<Self> {
        let mut process = Self::start(command, stderr)?;
        process.wait_until_ready()?;
        Ok(process)
    }

    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until("it is ready", |said| said.contains(words::READY))
    }

    /// Waits until its stderr satisfies this.
    pub(super) fn wait_until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<()> {
        wait_until(what, || {
            if is_so(&self.said()) {
                return Ok(true);
            }
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                // It may have printed this just before it ended.
                if !is_so(&self.said()) {
                    bail!("it ended ({status}) before {what}: {}", words::tail(&self.said()));
                }
            }
            Ok(false)
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its stderr so far.
    pub(super) fn said(&self) -> String {
        fs::read(&self.stderr).map_or_else(|_| String::new(), |said| String::from_utf8_lossy(&said).into_owned())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context("it is gone")
    }

    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for it")?.is_none())
    }

    /// How many descriptors and threads it and its helper have. Descriptors that keep BPF programs attached do not count.
    pub(super) fn descriptors_and_threads(&self) -> Result<[usize; 2]> {
        self.open().map(|open| [open.descriptors - open.links, open.threads])
    }

    /// What it has open now, and what a helper has.
    pub(super) fn open(&self) -> Result<Open> {
        let mut open = Open::default();
        for pid in proc::family(self.pid()) {
            let entries = |what| fs::read_dir(format!("/proc/{pid}/{what}")).context("it is gone");
            open.threads += entries("task")?.count();
            for descriptor in entries("fd")?.flatten() {
                // It may have been closed since.
                let Ok(leads_to) = fs::read_link(descriptor.path()) else { continue };
                open.descriptors += 1;
                open.links += usize::from(is_link(&leads_to.to_string_lossy()));
            }
        }
        Ok(open)
    }

    /// Waits until it ends; fails after this time.
    pub(super) fn wait(mut self, limit: Duration) -> Result<Ended> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                return Ok(Ended { status: code(status), said: self.said(), took: begun.elapsed() });
            }
            if begun.elapsed() > limit {
                bail!("it has not ended within {} s: {}", limit.as_secs(), words::tail(&self.said()));
            }
            sleep(POLL);
        }
    }

    /// Sends it a signal, and waits until it ends.
    pub(crate) fn end(self, with: Signal) -> Result<Ended> {
        self.signal(with)?;
        self.wait(PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until this is true.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            bail!("{} s have passed before {what}", PATIENCE.as_secs());
        }
        sleep(POLL);
    }
    Ok(())
}

/// The exit status as shells report it.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Limits a resource of the process.
pub(super) fn limited(mut command: Command, resource: Resource, most: u64) -> Command {
    // SAFETY: between fork and exec this makes one system call, and touches no memory but its own stack.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, most, most)?)) };
    command
}

/// Makes the process ignore a signal from its start, as `nohup` does.
pub(super) fn ignoring(mut command: Command, which: Signal) -> Command {
    let ignore = move || {
        // SAFETY: ignoring a signal runs no code of ours when it comes.
        unsafe { signal(which, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: between fork and exec this makes one system call, and touches no memory but its own stack.
    unsafe { command.pre_exec(ignore) };
    command
}
