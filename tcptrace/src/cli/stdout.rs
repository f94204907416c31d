//! Standard output: whether there is one at all, and how large it is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use nix::libc;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The standard library opens `/dev/null` in place of closed descriptors before `main`, so this looks even earlier.
#[used]
// SAFETY: the section holds such functions, called once each before main; this one needs nothing that main sets up.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: this takes no further argument, and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Columns and lines of the terminal on standard output; `None` if there is none, or its size is unknown. Below 80
/// columns, rows would lose too much, so they wrap instead.
pub(super) fn terminal() -> Option<(usize, usize)> {
    let (columns, lines) = terminal_size::terminal_size_of(io::stdout())?;
    Some((usize::from(columns.0).max(80), lines.0.into()))
}

/// # Errors
/// When the parent process has closed standard output: the output would be lost silently.
pub(super) fn expect_open() -> Result<()> {
    ensure!(!WAS_CLOSED.load(Ordering::Relaxed), "cannot write to standard output: it is closed");
    Ok(())
}
