//! Whether there is a standard output at all.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use nix::libc;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main` the standard library opens `/dev/null` in the place of descriptors that are closed: so this has to look
/// even earlier.
#[used]
// SAFETY: the section holds such functions, called once each before main; this one needs nothing that main sets up.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: this takes no further argument, and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// # Errors
/// When standard output was closed by whoever started the program: what is printed would be lost without a word.
pub(super) fn expect_open() -> Result<()> {
    ensure!(!WAS_CLOSED.load(Ordering::Relaxed), "cannot write to standard output: it is closed");
    Ok(())
}
