//! The command that is recorded.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::{AccessFlags, Pid, access};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::run::{Stop, reached};

/// Time from the request to end until it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A command that cannot be run, with the exit status that shells use for it.
#[derive(Debug, thiserror::Error)]
#[error("cannot run '{program}': {reason}")]
pub(super) struct CannotRun {
    program: String,
    reason: io::Error,
    pub(super) status: u8,
}

impl CannotRun {
    fn new(program: &OsStr, reason: io::Error) -> Self {
        let status = if reason.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Self { program: program.to_string_lossy().into_owned(), reason, status }
    }
}

/// Checks whether a command can be run.
///
/// # Errors
/// When there is no such program, or it may not be run.
pub(super) fn look_for(command: &[OsString]) -> Result<(), CannotRun> {
    let Some(program) = command.first() else { return Ok(()) };
    let found = if program.as_bytes().contains(&b'/') {
        is_program(Path::new(program))
    } else {
        let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let tried: Vec<_> = env::split_paths(&path).map(|folder| is_program(&folder.join(program))).collect();
        // As execvp(3) does: report a program that may not be run only if no other is found.
        let is_telling =
            |tried: &io::Result<()>| !matches!(tried, Err(error) if error.kind() == io::ErrorKind::NotFound);
        let best = tried.iter().position(Result::is_ok).or_else(|| tried.iter().position(is_telling));
        best.map_or(Err(io::ErrorKind::NotFound.into()), |best| tried.into_iter().nth(best).unwrap_or(Ok(())))
    };
    found.map_err(|reason| CannotRun::new(program, reason))
}

fn is_program(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    access(path, AccessFlags::X_OK)?;
    if metadata.is_dir() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    /// When to kill it, once it was asked to end.
    killed_at: Option<Instant>,
}

impl Running {
    /// Starts a command, if there is one. Where the trace goes to our standard output, the command's goes to standard
    /// error.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) fn start(command: &[OsString], is_output_taken: bool) -> Result<Option<Self>, CannotRun> {
        let Some((program, args)) = command.split_first() else { return Ok(None) };
        let mut command = Command::new(program);
        command.args(args);
        if is_output_taken {
            command.stdout(Stdio::from(io::stderr()));
        }
        let child = command.spawn().map_err(|reason| CannotRun::new(program, reason))?;
        Ok(Some(Self { child, killed_at: None }))
    }

    /// Waits until it exits. Passes on a signal to end, and sends SIGTERM at `end`. Kills it after `GRACE`, or at the
    /// second request.
    pub(super) async fn ended(&mut self, stop: &mut Stop, end: Option<Instant>) -> Result<ExitStatus> {
        loop {
            let due = if self.killed_at.is_none() { end } else { None };
            tokio::select! {
                status = self.child.wait() => return status.context("cannot wait for the command"),
                signal = stop.forwarded() => self.ask(signal),
                () = reached(due) => self.ask(Signal::SIGTERM),
                () = reached(self.killed_at) => self.kill(),
            }
        }
    }

    fn ask(&mut self, signal: Signal) {
        if self.killed_at.is_some() {
            return self.kill();
        }
        self.killed_at = Some(Instant::now() + GRACE);
        self.send(signal);
    }

    fn kill(&mut self) {
        self.killed_at = Some(Instant::now() + GRACE);
        self.send(Signal::SIGKILL);
    }

    fn send(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended just now.
            let _ = signal::kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The exit status as shells report it.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sh", None)]
    #[case("/bin/sh", None)]
    #[case("/no/such/command", Some(127))]
    #[case("no-such-command", Some(127))]
    #[case("/etc/passwd", Some(126))]
    #[case("/etc", Some(126))]
    #[case("/etc/passwd/x", Some(126))]
    fn commands(#[case] program: &str, #[case] expected: Option<u8>) {
        assert_eq!(look_for(&[program.into()]).map_err(|error| error.status).err(), expected);
    }
}
