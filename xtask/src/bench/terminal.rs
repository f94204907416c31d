//! A pseudo-terminal, and a thread that reads it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::time::{ClockId, clock_gettime};

/// The output of a terminal.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Number of bytes.
    pub(super) written: u64,
    /// Number of lines.
    pub(super) lines: u64,
    /// The text, if it was kept.
    text: Vec<u8>,
    /// Times in ns of `CLOCK_BOOTTIME`, each with the length of the text at that time.
    reads: Vec<(u64, usize)>,
}

impl Taken {
    /// Every whole line of the kept text, with the time, in ns of `CLOCK_BOOTTIME`, at which its end arrived.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &str)> {
        let mut reads = self.reads.iter().peekable();
        let mut end = 0;
        self.text.split_inclusive(|&byte| byte == b'\n').filter_map(move |line| {
            end += line.len();
            while reads.next_if(|(_, there)| *there < end).is_some() {}
            let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
            Some((reads.peek()?.0, line))
        })
    }
}

/// A terminal that is not read yet.
pub(super) struct Terminal {
    ours: File,
    theirs: OwnedFd,
    keep: bool,
}

impl Terminal {
    /// Opens one. With `keep`, the reader keeps the text; otherwise it only counts.
    pub(super) fn open(keep: bool) -> Result<Self> {
        let size = Winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).context("cannot open a terminal")?;
        Ok(Self { ours: File::from(master), theirs: slave, keep })
    }

    /// Its other side, for the process that writes to it.
    pub(super) fn stdout(&self) -> Result<Stdio> {
        Ok(self.theirs.try_clone().context("cannot duplicate a descriptor")?.into())
    }

    /// Reads it until no writer is left.
    pub(super) fn read(self) -> Watched {
        // From here on, only the writers keep it open.
        drop(self.theirs);
        let taken = Arc::new(Mutex::new(Taken::default()));
        let (shared, keep, mut ours) = (Arc::clone(&taken), self.keep, self.ours);
        Watched { taken, reader: thread::spawn(move || take(&mut ours, keep, &shared)) }
    }
}

/// A terminal with a reading thread.
pub(super) struct Watched {
    taken: Arc<Mutex<Taken>>,
    reader: JoinHandle<Result<()>>,
}

impl Watched {
    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        lock(&self.taken).written
    }

    /// Whether a line that satisfies this has arrived.
    pub(super) fn has_shown(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        lock(&self.taken).lines().any(|(_, line)| is_wanted(line))
    }

    /// Waits until all writers have ended.
    pub(super) fn close(self) -> Result<Taken> {
        self.reader.join().map_err(|_| anyhow!("the reader of the terminal has panicked"))??;
        Ok(std::mem::take(&mut *lock(&self.taken)))
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // A panic of the reader shows when it is joined.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(terminal: &mut File, keep: bool, taken: &Mutex<Taken>) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = match terminal.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // No writer is left.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        let now = boot_ns()?;
        let read = buffer.get(..length).unwrap_or_default();
        let mut taken = lock(taken);
        taken.written += length as u64;
        taken.lines += read.iter().filter(|&&byte| byte == b'\n').count() as u64;
        if keep {
            taken.text.extend_from_slice(read);
            let there = taken.text.len();
            taken.reads.push((now, there));
        }
    }
}

/// The time of `CLOCK_BOOTTIME`, in ns.
pub(super) fn boot_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_line_was_there_when_its_end_was_read() {
        let text = b"one\ntwo\nthree\nfo".to_vec();
        let taken = Taken { text, reads: vec![(10, 5), (20, 8), (30, 16)], ..Taken::default() };
        assert_eq!(taken.lines().collect::<Vec<_>>(), [(10, "one"), (20, "two"), (30, "three")]);
        assert_eq!(Taken::default().lines().count(), 0);
    }

    #[test]
    fn all_that_a_process_writes_to_a_terminal_is_taken() {
        let terminal = Terminal::open(true).expect("a terminal");
        let mut command = Command::new("sh");
        command.args(["-c", "test -t 1 && echo yes && seq 10000"]).stdout(terminal.stdout().expect("a descriptor"));
        let mut child = command.spawn().expect("sh");
        drop(command);
        let before = boot_ns().expect("a clock");
        let taken = terminal.read().close().expect("read to its end");
        assert!(child.wait().expect("a child").success());
        let lines: Vec<_> = taken.lines().collect();
        assert_eq!((lines.len(), taken.lines), (10_001, 10_001));
        assert_eq!((lines[0].1.trim_end(), lines[10_000].1.trim_end()), ("yes", "10000"));
        assert!(lines.is_sorted_by_key(|line| line.0) && lines[10_000].0 > before.saturating_sub(10_000_000_000));
    }
}
