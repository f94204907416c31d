//! What has to go, however this program ends.

use std::path::PathBuf;
use std::process::exit;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use super::groups;

/// Control groups that were made.
static GROUPS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Shells have what they start in the background ignore the keyboard's signals, and what is started there inherits that. Here
/// nothing is ignored, unless a scenario wants it.
pub(super) fn heed_signals() -> Result<()> {
    for which in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(which, SigHandler::SigDfl) }.with_context(|| format!("cannot reset {which}"))?;
    }
    Ok(())
}

/// Removes what was made when a signal ends this process. Everything else ends with it: processes, namespaces, mounts.
pub(super) fn on_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // What is started and should be ended by them is started with none of them blocked.
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

/// A control group that is removed, with all that is in it, when this goes.
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
