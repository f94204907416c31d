//! Polling with `ss`, as most people do: how many states of the load's sockets it ever sees.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::once::{self, Run};

/// Interval of polling.
const EVERY: Duration = Duration::from_millis(100);
/// States of the two sockets of a connection of the load: five of the client's, four of the server's.
pub(super) const STATES: u32 = 9;

/// The results.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Sockets that were ever seen in each state.
    sockets: BTreeMap<String, HashSet<String>>,
    /// Bytes that were printed.
    pub(super) written: u64,
    /// Number of printed lines.
    pub(super) lines: u64,
    /// Duration of each poll.
    pub(super) looks: Vec<Run>,
}

impl Seen {
    /// States of the load's sockets that were seen, each counted once per socket.
    pub(super) fn states(&self) -> usize {
        self.sockets.values().map(HashSet::len).sum()
    }

    /// The sockets in TIME_WAIT among them.
    pub(super) fn time_waits(&self) -> usize {
        self.sockets.get("TIME-WAIT").map_or(0, HashSet::len)
    }

    fn take(&mut self, said: &str) {
        self.written += said.len() as u64;
        for line in said.lines() {
            self.lines += 1;
            // State, two queues, both addresses.
            let mut words = line.split_whitespace();
            let (Some(state), Some(local), Some(remote)) = (words.next(), words.nth(2), words.next()) else { continue };
            if !matches!(state, "State" | "LISTEN") {
                self.sockets.entry(state.to_owned()).or_default().insert(format!("{local} {remote}"));
            }
        }
    }
}

/// A thread that polls, in the network namespace of a process.
pub(super) struct Polling {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl Polling {
    /// Starts polling.
    pub(super) fn start(ss: &Path, pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ss, until) = (ss.to_owned(), Arc::clone(&over));
        Self { over, thread: thread::spawn(move || poll(&ss, pid, &until)) }
    }

    /// Polls once more, and ends.
    pub(super) fn stop(self) -> Result<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that polls has panicked"))?
    }
}

fn poll(ss: &Path, pid: u32, until: &AtomicBool) -> Result<Seen> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let namespace = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    // Only this thread, and the processes that it starts, enter the namespace.
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the load's network namespace")?;
    let mut seen = Seen::default();
    loop {
        let is_last = until.load(Ordering::Relaxed);
        let begun = Instant::now();
        let mut child = Command::new(ss).arg("-tan").stdout(Stdio::piped()).spawn().context("cannot run ss")?;
        let mut said = String::new();
        let output = child.stdout.as_mut().context("ss has no output")?;
        output.read_to_string(&mut said).context("cannot read what ss says")?;
        seen.looks.push(once::reap(&child, begun).context("ss failed")?);
        seen.take(&said);
        if is_last {
            return Ok(seen);
        }
        sleep(EVERY.saturating_sub(begun.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_counts_once_a_state() {
        let said = "State      Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n\
                    LISTEN     0      128    0.0.0.0:40001      0.0.0.0:*\n\
                    ESTAB      0      0      127.0.0.1:5000     127.1.0.0:40001\n\
                    TIME-WAIT  0      0      127.0.0.1:5001     127.1.0.1:40001\n";
        let mut seen = Seen::default();
        seen.take(said);
        seen.take(said);
        assert_eq!((seen.states(), seen.time_waits(), seen.lines), (2, 1, 8));
    }
}
