//! Whether there are file descriptors to begin with.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

/// What the event loop opens at once: without that it panics.
const EVENT_LOOP: usize = 8;

/// # Errors
/// When the limit of open files is too low to follow the kernel.
pub(super) fn expect_room() -> Result<()> {
    let taken: io::Result<Vec<OwnedFd>> = (0..EVENT_LOOP).map(|_| io::stderr().as_fd().try_clone_to_owned()).collect();
    taken.map(drop).context("cannot start the event loop: the limit of open files is too low (ulimit -n)")
}
