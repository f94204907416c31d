//! A tcptrace that reads a trace, and its cost.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::words;
use super::{Verdict, escapes};
use crate::command;

/// Reading hostile input for longer counts as a hang.
pub(super) const HANG: Duration = Duration::from_secs(5);
/// More memory on hostile input counts as a bomb, in bytes.
const MOST_MEMORY: u64 = 70 << 20;
/// Interval of looking for its end.
const POLL: Duration = Duration::from_millis(1);

/// The result of a run.
pub(super) struct Read {
    /// Its command line.
    pub(super) line: String,
    /// Its exit status, or 128 plus the signal.
    pub(super) status: i32,
    /// Its stderr.
    pub(super) said: String,
    pub(super) took: Duration,
    /// Largest resident set, in bytes.
    pub(super) memory: u64,
    /// Digest of its standard output.
    pub(super) digest: u64,
    /// The first raw control character that it printed.
    pub(super) escape: Option<String>,
    /// Whether it had to be killed.
    hangs: bool,
}

impl Read {
    /// Checks a run on any input.
    pub(super) fn must_be_harmless(&self, verdict: &mut Verdict) {
        let Self { line, status, said, took, memory, .. } = self;
        let last = said.lines().last().unwrap_or("");
        verdict.must(!self.hangs, || format!("`{line}` hangs"));
        verdict.must(self.hangs || matches!(status, 0 | 1 | 3), || format!("`{line}`: status {status}: {last}"));
        verdict.must(!words::has_panicked(said), || format!("`{line}` panics: {last}"));
        verdict.must(*took <= HANG || self.hangs, || format!("`{line}` takes {:.1} s", took.as_secs_f64()));
        verdict.must(*memory <= MOST_MEMORY, || format!("`{line}` takes {} MiB", memory >> 20));
        self.must_not_deceive(verdict);
    }

    /// Checks a run on any names.
    pub(super) fn must_not_deceive(&self, verdict: &mut Verdict) {
        if let Some(escape) = &self.escape {
            verdict.must(false, || format!("`{}` prints {escape}", self.line));
        }
        let said = self.said.split_inclusive('\n').find_map(|line| escapes::raw(line.as_bytes()));
        verdict.must(said.is_none(), || format!("`{}` says {}", self.line, said.unwrap_or_default()));
    }
}

/// Runs a command to its end, which must come within `limit`, and hands over each line that it prints.
pub(super) fn read(mut command: Command, limit: Duration, mut each: impl FnMut(&[u8]) + Send) -> Result<Read> {
    command::dies_with_us(&mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let line = command::line(&command);
    let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    let mut stdout = BufReader::with_capacity(1 << 16, child.stdout.take().context("it has no output")?);
    let mut stderr = child.stderr.take().context("it has no output")?;
    thread::scope(|scope| {
        let printed = scope.spawn(move || {
            let (mut digest, mut escape, mut line) = (Digest::new(), None, Vec::new());
            while stdout.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                digest.add(&line);
                escape = escape.or_else(|| escapes::raw(&line));
                each(&line);
                line.clear();
            }
            (digest.0, escape)
        });
        let said = scope.spawn(move || {
            let mut said = Vec::new();
            // Keep the lines that were read before the failure.
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let (status, memory, hangs) = end(child.id(), begun, limit)?;
        let took = begun.elapsed();
        let (digest, escape) = printed.join().ok().context("cannot read its output")?;
        let said = said.join().ok().context("cannot read what it says")?;
        Ok(Read { line, status, said, took, memory, digest, escape, hangs })
    })
}

/// Waits for a process, and kills it after the time limit. Returns its status, its memory, and whether it was killed.
fn end(pid: u32, begun: Instant, limit: Duration) -> Result<(i32, u64, bool)> {
    let mut hangs = false;
    loop {
        if let Some((status, memory)) = ended(pid)? {
            return Ok((status, memory, hangs));
        }
        if !hangs && begun.elapsed() > limit {
            hangs = true;
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).context("cannot kill it")?;
        }
        thread::sleep(POLL);
    }
}

/// Status and largest resident set of a process, if it has ended.
fn ended(pid: u32) -> Result<Option<(i32, u64)>> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`: it has integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are written by this call alone, and live until it returns.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, libc::WNOHANG, &raw mut usage) };
    match waited {
        0 => Ok(None),
        -1 => bail!("cannot wait for it: {}", nix::errno::Errno::last()),
        _ => {
            let by_signal = || 128 + libc::WTERMSIG(status);
            let status = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { by_signal() };
            Ok(Some((status, 1024 * u64::try_from(usage.ru_maxrss)?)))
        }
    }
}

/// FNV-1a, to distinguish outputs.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
