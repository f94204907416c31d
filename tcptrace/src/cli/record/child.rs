//! The command that is recorded.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::super::run::{Stop, reached};
use super::starter::{MESSAGE, Order, Said};

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
    starter: UnixStream,
    /// What has come of the next message.
    message: [u8; MESSAGE],
    filled: usize,
    /// When to kill it, once it was asked to end.
    killed_at: Option<Instant>,
}

impl Running {
    /// Has the starter start its command.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) async fn start(starter: std::os::unix::net::UnixStream, program: &OsStr) -> Result<Self, CannotRun> {
        Self::begin(starter).await.map_err(|reason| CannotRun::new(program, reason))
    }

    async fn begin(starter: std::os::unix::net::UnixStream) -> io::Result<Self> {
        starter.set_nonblocking(true)?;
        let starter = UnixStream::from_std(starter)?;
        let mut running = Self { starter, message: [0; MESSAGE], filled: 0, killed_at: None };
        running.starter.writable().await?;
        running.order(Order::Start);
        match running.said().await? {
            Said::Refused(number) => Err(io::Error::from_raw_os_error(number)),
            Said::Started | Said::Ended(_) => Ok(running),
        }
    }

    /// The next message. What has come of it stays if nobody waits any more.
    async fn said(&mut self) -> io::Result<Said> {
        while self.filled < MESSAGE {
            self.starter.readable().await?;
            match self.starter.try_read(&mut self.message[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.filled = 0;
        Said::parse(self.message).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits until it exits. Passes on a signal to end, and sends SIGTERM at `end`. Kills it after `GRACE`, or at the
    /// second request.
    pub(super) async fn ended(&mut self, stop: &mut Stop, end: Option<Instant>) -> Result<ExitStatus> {
        loop {
            let (due, killed_at) = (if self.killed_at.is_none() { end } else { None }, self.killed_at);
            tokio::select! {
                said = self.said() => match said.context("cannot wait for the command")? {
                    Said::Ended(status) => return Ok(ExitStatus::from_raw(status)),
                    Said::Started | Said::Refused(_) => {}
                },
                signal = stop.forwarded() => self.ask(signal),
                () = reached(due) => self.ask(Signal::SIGTERM),
                () = reached(killed_at) => self.kill(),
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
        self.order(Order::Send(signal as i32));
    }

    /// The starter reads at once. If it is gone, waiting for the command tells.
    fn order(&self, order: Order) {
        let _ = self.starter.try_write(&order.bytes());
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
