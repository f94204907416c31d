//! What a signal ends leaves nothing half-done behind.

use std::{process, thread};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, raise, sigaction};

use crate::output::export::Draft;

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// From now on, files that are being written are removed when a signal ends the program. Threads that run by then are not
/// reached: call it before there are any.
pub(super) fn remove_drafts() -> Result<()> {
    let mut signals = SigSet::empty();
    // Some start programs so that they outlive their terminal (`nohup`).
    ENDING.into_iter().filter(|signal| !is_ignored(*signal)).for_each(|signal| signals.add(signal));
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot hold signals back")?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            Draft::remove_all(|| die_of(signal, &signals));
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("cannot wait for signals")?;
    Ok(())
}

/// As it would have been without us.
fn die_of(signal: Signal, held_back: &SigSet) {
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(held_back), None);
    let _ = raise(signal);
    // The first process of a pid namespace outlives it.
    process::exit(128 + signal as i32);
}

fn is_ignored(signal: Signal) -> bool {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: nothing is called at all when it comes.
    let before = unsafe { sigaction(signal, &default) };
    let Ok(before) = before else { return false };
    let is_ignored = matches!(before.handler(), SigHandler::SigIgn);
    if is_ignored {
        // SAFETY: it is what was there.
        let _ = unsafe { sigaction(signal, &before) };
    }
    is_ignored
}
