//! One measurement: a tool, under one load.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::generator::{self, Load};
use super::subject::{Subject, Tool};
use crate::command;

/// How long a tool may take to attach, or to end after an interrupt.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the output of a tool must stand still before it counts as complete.
const QUIET: Duration = Duration::from_millis(600);
/// How often something is looked at that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// What one measurement gave.
pub(super) struct Sample {
    /// What the generator did.
    pub(super) load: Load,
    /// What it cost the tool; nothing, without one.
    pub(super) cost: Option<Cost>,
}

/// What a tool spent and said.
pub(super) struct Cost {
    /// User and system time from being attached to its end.
    pub(super) cpu: Duration,
    /// User time alone.
    pub(super) user: Duration,
    /// Bytes that it wrote, to standard output or its trace.
    pub(super) written: u64,
    /// Largest resident set, in bytes.
    pub(super) peak_rss: u64,
    /// Lines that it wrote to standard output.
    pub(super) lines: u64,
    /// Events that it says it lost.
    pub(super) lost: u64,
}

/// Runs the load, beside the tool if the subject has one; output goes to files in `folder`.
pub(super) fn measure(subject: &Subject, connections: u32, folder: &Path) -> Result<Sample> {
    let Some(tool) = &subject.tool else {
        return Ok(Sample { load: generator::spawn(connections)?, cost: None });
    };
    let mut running = Running::start(tool, folder)?;
    running.wait_until_attached()?;
    let cpu_before = running.cpu()?;
    let load = generator::spawn(connections)?;
    running.wait_until_quiet()?;
    let cost = running.finish(cpu_before)?;
    Ok(Sample { load, cost: Some(cost) })
}

/// Time on a CPU.
#[derive(Clone, Copy)]
struct Cpu {
    user: Duration,
    system: Duration,
}

impl Cpu {
    fn less(self, other: Self) -> Self {
        let less = |ours: Duration, theirs| ours.saturating_sub(theirs);
        Self { user: less(self.user, other.user), system: less(self.system, other.system) }
    }
}

/// A tool that is tracing. It does not outlive this.
struct Running<'a> {
    tool: &'a Tool,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl<'a> Running<'a> {
    fn start(tool: &'a Tool, folder: &Path) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        // That of the subject before.
        let _ = fs::remove_file(folder.join(super::subject::TRACE));
        let mut command = Command::new(&tool.program);
        command.args(tool.arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(create(&stdout)?).stderr(create(&stderr)?);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", command::line(&command)))?;
        Ok(Self { tool, child, stdout, stderr })
    }

    /// tcptrace says when it is ready. The others do not, but what attaches them is a file descriptor.
    fn wait_until_attached(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.is_attached()? {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                bail!("it ended before it had attached: {status}: {}", self.said());
            }
            if begun.elapsed() > PATIENCE {
                bail!("it has not attached within {} s: {}", PATIENCE.as_secs(), self.said());
            }
            sleep(POLL);
        }
        if !self.tool.is_tcptrace {
            sleep(QUIET);
        }
        Ok(())
    }

    fn is_attached(&self) -> Result<bool> {
        if self.tool.is_tcptrace {
            return Ok(self.said().lines().any(|line| line == "tcptrace: ready"));
        }
        let fds = self.proc("fd");
        // A process that has ended has none; whoever waits notices that.
        let Ok(entries) = fs::read_dir(fds) else { return Ok(false) };
        let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let attached = |target: PathBuf| {
            let target = target.to_string_lossy().into_owned();
            target.contains("bpf_link") || target.contains("perf_event")
        };
        Ok(targets.into_iter().any(attached))
    }

    fn wait_until_quiet(&self) -> Result<()> {
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

    fn finish(&mut self, before: Cpu) -> Result<Cost> {
        let peak_rss = self.peak_rss()?;
        let reaped_before = reaped_cpu()?;
        let status = self.interrupt()?;
        let spent = reaped_cpu()?.less(reaped_before).less(before);
        let said = self.said();
        // 3 is tcptrace's "done, but events were lost".
        if self.tool.is_tcptrace && !matches!(status.code(), Some(0 | 3)) {
            bail!("it failed: {status}: {said}");
        }
        let lost = lost(&said);
        if self.tool.is_tcptrace && lost.is_none() {
            bail!("it did not say how much it lost: {said}");
        }
        let lines = lines(&self.stdout)?;
        let (cpu, user) = (spent.user + spent.system, spent.user);
        Ok(Cost { cpu, user, written: self.written()?, peak_rss, lines, lost: lost.unwrap_or(0) })
    }

    fn interrupt(&mut self) -> Result<ExitStatus> {
        kill(self.pid()?, Signal::SIGINT).context("cannot interrupt it")?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                return Ok(status);
            }
            sleep(POLL);
        }
        bail!("it has not ended {} s after an interrupt: {}", PATIENCE.as_secs(), self.said())
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.child.id().try_into().context("its process id is out of range")?))
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    fn read_proc(&self, file: &str) -> Result<String> {
        let path = self.proc(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// User and system time so far: fields 14 and 15 of `proc_pid_stat(5)`, in ticks.
    fn cpu(&self) -> Result<Cpu> {
        let stat = self.read_proc("stat")?;
        // The second field is the name, in parentheses, which may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = after_name.split_whitespace().skip(11).map(|field| field.parse::<u32>().unwrap_or(0));
        let mut ticks = || fields.next().unwrap_or(0);
        let hz = sysconf(SysconfVar::CLK_TCK).context("cannot ask for the clock tick")?;
        let hz = hz.and_then(|hz| u64::try_from(hz).ok()).filter(|&hz| hz > 0).context("the clock tick is unknown")?;
        let tick = Duration::from_micros(1_000_000 / hz);
        Ok(Cpu { user: tick * ticks(), system: tick * ticks() })
    }

    fn peak_rss(&self) -> Result<u64> {
        let status = self.read_proc("status")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(1024 * kib.unwrap_or(0_u64))
    }

    fn written(&self) -> Result<u64> {
        // Where the subjects that write a file of their own have it.
        let trace =
            fs::metadata(self.stdout.with_file_name(super::subject::TRACE)).map_or(0, |metadata| metadata.len());
        let metadata = fs::metadata(&self.stdout).with_context(|| format!("cannot stat {}", self.stdout.display()))?;
        Ok(metadata.len().max(trace))
    }

    fn said(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both fail for a process that has been waited for, which is what should have happened.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of every child that has been waited for.
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

/// The sum of what is said to be lost: `12 lost` as tcptrace has it, `lost 12 events` as others do.
fn lost(said: &str) -> Option<u64> {
    said.split(['\n', ',']).filter_map(lost_in).reduce(|sum, count| sum + count)
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

    #[test]
    fn losses_are_read_as_each_tool_says_them() {
        assert_eq!(lost("tcptrace: 300123 transitions seen, 5 lost, 12 sockets followed"), Some(5));
        assert_eq!(lost("lost 12 events on CPU #1!\nlost 3 events on CPU #0!"), Some(15));
        assert_eq!(lost("Lost 7 events"), Some(7));
        assert_eq!(lost("all is well"), None);
    }
}
