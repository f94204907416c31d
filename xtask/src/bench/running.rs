//! A running tracer: starts it, waits for it, and reports its cost at the end.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::Pid;

use super::proc::{self, Cpu};
use super::subject::{Sink, TRACE, Tool};
use super::terminal::{Taken, Terminal, Watched};
use crate::command;
use crate::summary::Summary;

/// Time limit for attaching, and for ending after an interrupt.
const PATIENCE: Duration = Duration::from_secs(60);
/// Output counts as complete when it has not grown for this time.
const QUIET: Duration = Duration::from_millis(600);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(20);

/// A tool that does not trace. What the load loses beside it is no cost of tracing.
#[derive(Debug)]
pub(super) struct DidNotAttach(pub(super) String);

impl fmt::Display for DidNotAttach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "did not attach: {}", self.0)
    }
}

impl Error for DidNotAttach {}

/// The cost and the output of a tool.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// User and system time, from being attached to the end.
    pub(super) cpu: Duration,
    /// User time alone.
    pub(super) user: Duration,
    /// Bytes written to standard output or the trace.
    pub(super) written: u64,
    /// The part of that which it wrote after it had attached.
    pub(super) told: u64,
    /// Largest resident set, in bytes.
    pub(super) peak_rss: u64,
    /// Lines written to standard output.
    pub(super) lines: u64,
    /// Transitions seen, by its own count.
    pub(super) seen: Option<u64>,
    /// Events lost, by its own count.
    pub(super) lost: u64,
    /// The text that its terminal received, if kept.
    pub(super) taken: Taken,
}

impl Cost {
    /// Fails if a tool has written next to nothing about so many connections: it did not see them. It may have lost
    /// most of them, but not nearly all.
    pub(super) fn require_rows(&self, connections: u32) -> Result<(), DidNotAttach> {
        if self.told < u64::from(connections) {
            return Err(DidNotAttach(format!("it wrote {} bytes about {connections} connections", self.told)));
        }
        Ok(())
    }
}

/// A running tool, which is killed on drop.
pub(super) struct Running<'a> {
    tool: &'a Tool,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    terminal: Option<Watched>,
    attached: Option<Cpu>,
    /// Bytes that it had written when it had attached.
    written_before: u64,
}

impl<'a> Running<'a> {
    /// Starts it, and waits until it traces; its files go to `folder`.
    pub(super) fn attach(tool: &'a Tool, folder: &Path) -> Result<Self> {
        let mut running = Self::start(tool, folder)?;
        running.wait_until_attached(POLL)?;
        if !tool.is_tcptrace {
            sleep(QUIET);
            // Descriptors also appear while a library finds out what the kernel can do.
            running.require_running()?;
        }
        running.attached = Some(proc::cpu(running.pid())?);
        running.written_before = running.written()?;
        Ok(running)
    }

    /// Starts it.
    pub(super) fn start(tool: &'a Tool, folder: &Path) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        // Removes the trace of the subject before.
        let _ = fs::remove_file(folder.join(TRACE));
        let mut command = Command::new(&tool.program);
        command.args(&tool.arguments).current_dir(folder).stdin(Stdio::null()).env("TERM", "xterm-256color");
        let terminal = match tool.sink {
            Sink::File | Sink::Null => None,
            Sink::Terminal { keep } => Some(Terminal::open(keep)?),
        };
        let file = create(&stdout)?;
        command.stdout(match &terminal {
            None if tool.sink == Sink::Null => Stdio::null(),
            None => Stdio::from(file),
            Some(terminal) => terminal.stdout()?,
        });
        command.stderr(create(&stderr)?);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", command::line(&command)))?;
        let terminal = terminal.map(Terminal::read);
        Ok(Self { tool, child, stdout, stderr, terminal, attached: None, written_before: 0 })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it traces. tcptrace prints that it is ready. The others do not, but they have a descriptor of what
    /// they attached.
    pub(super) fn wait_until_attached(&mut self, poll: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.is_attached()? {
            self.require_running()?;
            if begun.elapsed() > PATIENCE {
                return Err(self.not_attached(&format!("not within {} s", PATIENCE.as_secs())));
            }
            sleep(poll);
        }
        Ok(())
    }

    /// Fails if it has ended by itself.
    fn require_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot wait for it")? {
            Some(status) => Err(self.not_attached(&format!("it has ended: {status}"))),
            None => Ok(()),
        }
    }

    /// Other tools may fail to attach; tcptrace may not.
    fn not_attached(&self, why: &str) -> anyhow::Error {
        let said = self.said();
        let said = said.lines().last().unwrap_or_default();
        let why = if said.is_empty() { why.to_owned() } else { format!("{why}: {said}") };
        if self.tool.is_tcptrace { anyhow!(why) } else { DidNotAttach(why).into() }
    }

    /// Whether its terminal has shown a line that satisfies this.
    pub(super) fn has_shown(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.has_shown(is_wanted))
    }

    fn is_attached(&self) -> Result<bool> {
        if self.tool.is_tcptrace {
            return Ok(self.said().lines().any(|line| line == "tcptrace: ready"));
        }
        let fds = PathBuf::from(format!("/proc/{}/fd", self.pid()));
        // A process that has ended has none; `wait_until` notices that.
        let Ok(entries) = fs::read_dir(fds) else { return Ok(false) };
        let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let attached = |target: PathBuf| {
            let target = target.to_string_lossy().into_owned();
            target.contains("bpf_link") || target.contains("perf_event")
        };
        Ok(targets.into_iter().any(attached))
    }

    /// Waits until its output has stopped growing.
    pub(super) fn wait_until_quiet(&self) -> Result<()> {
        let begun = Instant::now();
        let mut size = self.written()?;
        let mut since = Instant::now();
        while since.elapsed() < QUIET && begun.elapsed() < PATIENCE {
            sleep(POLL);
            let now = self.written()?;
            if now != size {
                (size, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Interrupts it, and waits for its end.
    pub(super) fn finish(mut self) -> Result<Cost> {
        self.require_running()?;
        let peak_rss = proc::peak_rss(self.pid())?;
        let reaped_before = reaped_cpu()?;
        let status = self.interrupt()?;
        let mut spent = reaped_cpu()?.less(reaped_before);
        if let Some(before) = self.attached {
            spent = spent.less(before);
        }
        let said = self.said();
        // 3 is tcptrace's "done, but events were lost".
        if self.tool.is_tcptrace && !matches!(status.code(), Some(0 | 3)) {
            bail!("it failed: {status}: {said}");
        }
        // With rows of JSON, the last row has the counts; otherwise the closing line has them.
        let summary = Summary::at_end_of(&self.stdout)?.filter(|_| self.tool.is_tcptrace);
        let lost = summary.as_ref().map(Summary::lost).or_else(|| lost(&said));
        if self.tool.is_tcptrace && lost.is_none() {
            bail!("it did not say how much it lost: {said}");
        }
        let (cpu, user) = (spent.user + spent.system, spent.user);
        let mut cost = Cost {
            cpu,
            user,
            written: self.written()?,
            told: 0,
            peak_rss,
            lines: 0,
            seen: summary.map_or_else(|| seen(&said), |summary| Some(summary.seen())),
            lost: lost.unwrap_or(0),
            taken: Taken::default(),
        };
        match self.terminal.take() {
            None => cost.lines = lines(&self.stdout)?,
            Some(terminal) => {
                cost.taken = terminal.close()?;
                (cost.written, cost.lines) = (cost.taken.written, cost.taken.lines);
            }
        }
        cost.told = cost.written.saturating_sub(self.written_before);
        Ok(cost)
    }

    fn interrupt(&mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.pid().try_into().context("its process id is out of range")?);
        kill(pid, Signal::SIGINT).context("cannot interrupt it")?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                return Ok(status);
            }
            sleep(POLL);
        }
        bail!("it has not ended {} s after an interrupt: {}", PATIENCE.as_secs(), self.said())
    }

    fn written(&self) -> Result<u64> {
        if let Some(terminal) = &self.terminal {
            return Ok(terminal.written());
        }
        // The file of subjects that write one.
        let trace = fs::metadata(self.stdout.with_file_name(TRACE)).map_or(0, |metadata| metadata.len());
        let metadata = fs::metadata(&self.stdout).with_context(|| format!("cannot stat {}", self.stdout.display()))?;
        Ok(metadata.len().max(trace))
    }

    fn said(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both fail for a process that has been reaped, as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of all children that were reaped.
fn reaped_cpu() -> Result<Cpu> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot ask for the children's CPU time")?;
    let time = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0));
    Ok(Cpu { user: time(usage.user_time()), system: time(usage.system_time()) })
}

fn lines(path: &Path) -> Result<u64> {
    let failed = || format!("cannot read {}", path.display());
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).with_context(failed)?);
    let mut count = 0;
    loop {
        let chunk = reader.fill_buf().with_context(failed)?;
        if chunk.is_empty() {
            return Ok(count);
        }
        count += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let length = chunk.len();
        reader.consume(length);
    }
}

/// `12 transitions seen`, from tcptrace's closing line.
fn seen(said: &str) -> Option<u64> {
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.windows(2).position(|pair| matches!(pair, ["transitions", seen] if seen.starts_with("seen")))?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// The sum of reported losses: `12 lost` in tcptrace's closing line, `lost 12 events` of other tools.
fn lost(said: &str) -> Option<u64> {
    said.split(['\n', ',', ';']).filter_map(lost_in).reduce(|sum, count| sum + count)
}

fn lost_in(clause: &str) -> Option<u64> {
    let words: Vec<_> = clause.split_whitespace().collect();
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("lost"))?;
    let number = |at: usize| words.get(at)?.parse().ok();
    number(at + 1).or_else(|| number(at.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tool that is this shell script.
    fn script(text: &str) -> Tool {
        let arguments = ["-c", text].map(str::to_owned).to_vec();
        Tool { program: "/bin/sh".into(), arguments, is_tcptrace: false, sink: Sink::File }
    }

    #[test]
    fn a_tool_that_ends_did_not_attach() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = script("echo cannot find tracefs >&2; exit 3");
        let error = Running::attach(&tool, folder.path()).err().expect("it has ended");
        let said = error.downcast::<DidNotAttach>().expect("that is why").to_string();
        assert_eq!(said, "did not attach: it has ended: exit status: 3: cannot find tracefs");
    }

    #[test]
    fn a_tool_that_ends_under_the_load_has_no_cost() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = script("exit 0");
        let mut running = Running::start(&tool, folder.path()).expect("it starts");
        while running.child.try_wait().expect("a child").is_none() {
            sleep(POLL);
        }
        let error = running.finish().expect_err("it has ended");
        assert!(error.is::<DidNotAttach>(), "{error:#}");
    }

    #[test]
    fn a_tool_that_wrote_next_to_nothing_did_not_attach() {
        let told = |told| Cost { told, ..Cost::default() }.require_rows(1000);
        assert!(told(30_000).is_ok());
        let error = told(60).expect_err("that is a heading");
        assert_eq!(error.to_string(), "did not attach: it wrote 60 bytes about 1000 connections");
    }

    #[test]
    fn losses_are_read_as_each_tool_says_them() {
        assert_eq!(lost("tcptrace: 300123 transitions seen, 5 lost, 12 sockets followed"), Some(5));
        assert_eq!(lost("lost 12 events on CPU #1!\nlost 3 events on CPU #0!"), Some(15));
        assert_eq!(lost("Lost 7 events"), Some(7));
        assert_eq!(lost("tcptrace: 9 events seen, 3 lost; the condition never held"), Some(3));
        assert_eq!(lost("tcptrace: 9 transitions seen, 7 lost (4 the buffer was full, 3 recursion), 1"), Some(7));
        assert_eq!(lost("all is well"), None);
    }

    #[test]
    fn what_was_seen_is_read() {
        assert_eq!(seen("tcptrace: ready\ntcptrace: 300123 transitions seen, 5 lost"), Some(300_123));
        assert_eq!(seen("tcptrace: 7 events recorded, 0 lost, 1.04 KiB"), None);
    }
}
