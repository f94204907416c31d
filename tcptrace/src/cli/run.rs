//! What the live commands share: the event loop, signals and the end time.

use std::mem::MaybeUninit;
use std::ptr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal as Number;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

pub(super) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

/// The signals that end a run in order: the ring buffer is drained and the closing line printed.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone; ignored where it was at the start, as `nohup` does.
    hang_up: Option<Signal>,
    quit: Option<Signal>,
}

impl Stop {
    /// From now on the signals do not kill the process.
    pub(super) fn new() -> Result<Self> {
        let unless_ignored = |number: Number, kind| (!is_ignored(number)).then(|| handler(kind)).transpose();
        Ok(Self {
            hang_up: unless_ignored(Number::SIGHUP, SignalKind::hangup())?,
            quit: unless_ignored(Number::SIGQUIT, SignalKind::quit())?,
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
        })
    }

    /// Waits for any of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = received(&mut self.hang_up) => {}
            () = received(&mut self.quit) => {}
        }
    }

    /// Waits for a signal to pass on to the command. Those from the keyboard are skipped: the terminal sends them to
    /// the command as well.
    pub(super) async fn forwarded(&mut self) -> Number {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                () = received(&mut self.quit) => {}
                _ = self.terminate.recv() => return Number::SIGTERM,
                () = received(&mut self.hang_up) => return Number::SIGHUP,
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

pub(super) fn handler(kind: SignalKind) -> Result<Signal> {
    signal(kind).with_context(|| format!("cannot handle signal {}", kind.as_raw_value()))
}

/// Whether the parent process has set this signal to be ignored.
fn is_ignored(signal: Number) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the null pointer sets nothing, and the kernel fills in `action` or fails.
    let asked = unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: every bit pattern is a value of it, and it was zeroed.
    Errno::result(asked).is_ok() && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Makes a write beyond `ulimit -f` fail with an error, as on a full disk, instead of ending the process. Child
/// processes are not affected.
pub(super) fn survive_file_size_limit() {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: the handler does nothing, which it may do at any moment.
    unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
}

/// Keeps a command that runs for weeks small; call it before there are threads. By default, each thread gets a heap of its
/// own, which keeps what a thread that has ended had once, and heaps keep more and more for the next large piece.
#[cfg(target_env = "gnu")]
pub(super) fn stay_small() {
    /// From this size on, memory that is given back goes to the kernel at once.
    const GIVE_BACK: i32 = 256 << 10;
    for (what, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, GIVE_BACK), (libc::M_MMAP_THRESHOLD, GIVE_BACK)]
    {
        // SAFETY: it sets a number of the allocator, and there are no other threads.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Other allocators have no such settings.
#[cfg(not(target_env = "gnu"))]
pub(super) fn stay_small() {}

/// Waits until this moment; without one, forever.
pub(super) async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored() {
        assert!(is_ignored(Number::SIGPIPE), "by every Rust program");
        assert!(!is_ignored(Number::SIGWINCH));
    }
}
