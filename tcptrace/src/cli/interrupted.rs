//! Removes unfinished files when a signal ends the program.

use std::{process, thread};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, raise, sigaction};

use crate::output::export::Draft;

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Signals that wait.
pub(super) struct HeldBack(SigSet);

/// From now on, signals that end the program wait. Call this before any thread starts: only threads that start later
/// inherit the signal mask.
pub(super) fn hold_back() -> Result<HeldBack> {
    let mut signals = SigSet::empty();
    // A signal that was ignored at the start stays ignored, as with `nohup`.
    ENDING.into_iter().filter(|signal| !is_ignored(*signal)).for_each(|signal| signals.add(signal));
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot block signals")?;
    Ok(HeldBack(signals))
}

impl HeldBack {
    /// From now on, they remove unfinished files and end the program. A thread waits for them, which has no other
    /// privileges than its caller.
    pub(super) fn remove_drafts(self) -> Result<()> {
        let Self(signals) = self;
        let wait = move || {
            if let Ok(signal) = signals.wait() {
                Draft::remove_all(|| die_of(signal, &signals));
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).context("cannot wait for signals")?;
        Ok(())
    }
}

/// Ends the process as the signal's default action does.
fn die_of(signal: Signal, held_back: &SigSet) {
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(held_back), None);
    let _ = raise(signal);
    // The first process of a pid namespace outlives it.
    process::exit(128 + signal as i32);
}

fn is_ignored(signal: Signal) -> bool {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action calls no handler.
    let before = unsafe { sigaction(signal, &default) };
    let Ok(before) = before else { return false };
    let is_ignored = matches!(before.handler(), SigHandler::SigIgn);
    if is_ignored {
        // SAFETY: this restores the action that was set before.
        let _ = unsafe { sigaction(signal, &before) };
    }
    is_ignored
}
