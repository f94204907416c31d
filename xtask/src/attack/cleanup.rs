//! Cleans up, however this program ends.

use std::path::PathBuf;
use std::process::exit;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use super::groups;

/// Control groups to remove.
static GROUPS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Shells make background processes ignore the keyboard's signals, and their children inherit that. This resets the
/// signals, unless a scenario wants them ignored.
pub(super) fn heed_signals() -> Result<()> {
    for which in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(which, SigHandler::SigDfl) }.with_context(|| format!("cannot reset {which}"))?;
    }
    Ok(())
}

/// Removes control groups when a signal ends this process. Processes, namespaces and mounts end with it by themselves.
pub(super) fn on_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // Processes that should react to these signals are started with none of them blocked.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot block signals")?;
    thread::spawn(move || {
        let signal = signals.wait();
        if let Ok(groups) = GROUPS.lock() {
            groups.iter().for_each(|group| groups::remove(group));
        }
        exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

/// A control group that is removed on drop, with everything in it.
pub(super) struct Base(PathBuf);

impl Base {
    pub(super) fn new(group: PathBuf) -> Self {
        if let Ok(mut groups) = GROUPS.lock() {
            groups.push(group.clone());
        }
        Self(group)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        groups::remove(&self.0);
        if let Ok(mut groups) = GROUPS.lock() {
            groups.retain(|group| *group != self.0);
        }
    }
}
