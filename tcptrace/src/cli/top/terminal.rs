//! The terminal as a screen, and as it was before: on every way out.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

/// What leaves the screen: attributes off, cursor shown, the other screen. A signal handler can only write bytes.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// Signals that kill the process. SIGTERM, SIGINT and SIGHUP are not among them: they end it in order.
const FATAL: [i32; 14] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGIO,
];

/// Whether the screen is shown.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// How the terminal was set before. Written once, before any handler is set that reads it.
static mut BEFORE: MaybeUninit<libc::termios> = MaybeUninit::uninit();

/// What a wait for keys has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There may be keys or another size.
    Maybe,
    /// The terminal is gone: reading from it returns nothing, for ever.
    Gone,
}

/// Waits for keys. crossterm reads on and on from a terminal that is gone, so it must not be asked then.
pub(super) fn wait(most: Duration) -> io::Result<Waited> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO)) {
        // A signal: the terminal may have another size.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let is_gone = fds[0].revents().is_some_and(|events| events.intersects(gone));
    Ok(if is_gone { Waited::Gone } else { Waited::Maybe })
}

/// The screen. Dropping it restores the terminal.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    pub(super) fn new() -> Result<Self> {
        remember();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            hook(info);
        }));
        let mut screen = Self { terminal: fresh()? };
        screen.enter()?;
        Ok(screen)
    }

    /// Shows the screen, empty.
    pub(super) fn enter(&mut self) -> Result<()> {
        enable_raw_mode().context("cannot set up the terminal")?;
        IS_SHOWN.store(true, Ordering::SeqCst);
        execute!(io::stdout(), EnterAlternateScreen, Hide).context("cannot write to the terminal")?;
        self.renew()
    }

    /// Begins with an empty screen of the present size.
    pub(super) fn renew(&mut self) -> Result<()> {
        execute!(io::stdout(), Clear(ClearType::All)).context("cannot write to the terminal")?;
        self.terminal = fresh()?;
        Ok(())
    }

    /// Stops the process, as Ctrl-Z does, and comes back when it goes on.
    pub(super) fn suspend(&mut self) -> Result<()> {
        leave();
        // To this thread, so that it stops before it goes on. All others stop, too.
        raise(Signal::SIGSTOP).context("cannot stop")?;
        self.enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// A screen of the terminal's size. One that follows the size by itself would ask the terminal where its cursor is, and
/// fail when the answer takes long.
fn fresh() -> Result<Terminal<CrosstermBackend<io::Stdout>>> {
    let (columns, lines) = size().context("cannot read the size of the terminal")?;
    let viewport = Viewport::Fixed(Rect::new(0, 0, columns, lines));
    let backend = CrosstermBackend::new(io::stdout());
    Terminal::with_options(backend, TerminalOptions { viewport }).context("cannot use the terminal")
}

/// Restores the terminal, if it is not.
fn leave() {
    if IS_SHOWN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = io::stdout().write_all(b"\x1b[0m").and_then(|()| io::stdout().flush());
        let _ = disable_raw_mode();
    }
}

/// Notes how the terminal is set, and has fatal signals restore that.
fn remember() {
    // SAFETY: no handler reads it yet, and no other thread writes it; the call fills it in, or nothing is done with it.
    let is_known = unsafe { libc::tcgetattr(libc::STDOUT_FILENO, (&raw mut BEFORE).cast()) } == 0;
    if !is_known {
        return;
    }
    let handler: extern "C" fn(i32) = die;
    for signal in FATAL {
        // SAFETY: the handler calls only functions that may be called in one.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: it was so before.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Restores the terminal, and ends the process as the signal does by default.
extern "C" fn die(signal: i32) {
    if IS_SHOWN.swap(false, Ordering::SeqCst) {
        // SAFETY: write and tcsetattr may be called in a signal handler; what they read was filled in before.
        unsafe {
            libc::write(libc::STDOUT_FILENO, LEAVE.as_ptr().cast(), LEAVE.len());
            libc::tcsetattr(libc::STDOUT_FILENO, libc::TCSANOW, (&raw const BEFORE).cast());
        }
    }
    // SAFETY: both may be called in a signal handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
