//! Checks the limit of open files before the event loop starts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

/// Descriptors that the event loop opens at its start. It panics if it cannot.
const EVENT_LOOP: usize = 8;

/// # Errors
/// When the limit of open files is too low to follow the kernel.
pub(super) fn expect_room() -> Result<()> {
    let taken: io::Result<Vec<OwnedFd>> = (0..EVENT_LOOP).map(|_| io::stderr().as_fd().try_clone_to_owned()).collect();
    taken.map(drop).context("cannot start the event loop: the limit of open files is too low (ulimit -n)")
}
