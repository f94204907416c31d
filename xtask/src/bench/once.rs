//! A program that runs to its end by itself.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

use super::proc::{self, Cpu};
use super::stats::Figures;
use super::table::mib;
use crate::command;

/// Interval of looking at a running program.
const LOOK: Duration = Duration::from_millis(1);

/// The cost of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// From its start to its end.
    pub(super) seconds: f64,
    /// CPU time.
    pub(super) cpu: Cpu,
    /// Largest resident set, in bytes, read at most a millisecond before its end.
    pub(super) peak_rss: u64,
}

impl Run {
    /// CPU time in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        (self.cpu.user + self.cpu.system).as_secs_f64()
    }
}

/// Runs a command to its end, with its output to `/dev/null`.
pub(super) fn measure(command: &mut Command) -> Result<Run> {
    let line = command::line(command);
    let nothing = File::create("/dev/null").context("cannot open /dev/null")?;
    let begun = Instant::now();
    let child =
        command.stdout(nothing).stderr(Stdio::null()).spawn().with_context(|| format!("cannot run `{line}`"))?;
    reap(&child, begun).with_context(|| format!("`{line}` failed"))
}

/// Waits for the end of a child that was started at `begun`.
pub(super) fn reap(child: &Child, begun: Instant) -> Result<Run> {
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`: it has integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut peak_rss = 0;
    loop {
        // SAFETY: both pointers are to variables that live until the call returns. Nobody else waits for this child.
        let waited = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
        if Errno::result(waited).context("cannot wait for it")? == pid {
            break;
        }
        // The peak of `wait4` starts from the memory of the parent, which is this process.
        peak_rss = proc::peak_rss(child.id()).unwrap_or(0).max(peak_rss);
        sleep(LOOK);
    }
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status == 0, "wait status {status}");
    let time = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    let cpu = Cpu { user: time(usage.ru_utime), system: time(usage.ru_stime) };
    Ok(Run { seconds, cpu, peak_rss })
}

/// Several runs of one program.
pub(super) struct Runs {
    /// Its name in a table.
    pub(super) name: String,
    /// One run per round.
    pub(super) runs: Vec<Run>,
}

impl Runs {
    /// Without runs yet.
    pub(super) fn none(name: String) -> Self {
        Self { name, runs: Vec::new() }
    }

    /// Durations of the runs.
    pub(super) fn seconds(&self) -> Figures {
        self.runs.iter().map(|run| run.seconds).collect()
    }

    /// Median CPU time, in seconds.
    pub(super) fn cpu(&self) -> f64 {
        self.runs.iter().map(Run::cpu_seconds).collect::<Figures>().median().unwrap_or(0.0)
    }

    /// The largest resident set of all runs.
    pub(super) fn peak_rss(&self) -> String {
        mib(self.runs.iter().map(|run| run.peak_rss).max().unwrap_or(0) as f64)
    }

    /// All runs as JSON.
    pub(super) fn json(&self) -> Value {
        let run = |run: &Run| {
            json!({
                "seconds": run.seconds,
                "cpu_seconds": run.cpu_seconds(),
                "user_seconds": run.cpu.user.as_secs_f64(),
                "peak_rss_bytes": run.peak_rss,
            })
        };
        json!({ "name": self.name, "rounds": self.runs.iter().map(run).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named() {
        let error = measure(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "`sh -c 'exit 3'` failed: wait status 768");
    }

    #[test]
    fn a_program_takes_time_and_memory() {
        let run = measure(Command::new("sh").args(["-c", "sleep 0.05"])).expect("it works");
        assert!(run.seconds >= 0.05 && run.peak_rss > 100_000, "{run:?}");
    }
}
