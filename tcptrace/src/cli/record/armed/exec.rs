//! `--exec`: a command that gets each file.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::starter;
use crate::cli::say;

/// How long to wait at the end until a command has read its input.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has the starter run a command for each file: its last argument is the path, and its standard input has one line of
/// JSON.
pub(in crate::cli::record) struct Exec {
    starter: UnixStream,
    /// Commands that may not have read all of their input.
    running: usize,
}

/// The words of a command. There is no shell: quotes and variables mean nothing.
pub(in crate::cli::record) fn split(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

impl Exec {
    pub(in crate::cli::record) fn new(starter: UnixStream) -> Self {
        Self { starter, running: 0 }
    }

    /// Starts the command, and does not wait for it.
    pub(super) fn run(&mut self, path: &Path, row: &Value) {
        let line = format!("{row}\n");
        let sent = starter::send(&self.starter, path.as_os_str().as_bytes())
            .and_then(|()| starter::send(&self.starter, line.as_bytes()));
        match sent {
            Ok(()) => self.running += 1,
            Err(error) => say(format_args!("cannot run the command of --exec: {error}")),
        }
    }

    /// Waits until every command has its input. It may go on after that.
    pub(super) fn finish(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.running > 0 {
            let left = end.saturating_duration_since(Instant::now());
            // A time of zero would mean forever.
            let _ = self.starter.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match self.starter.read(&mut [0]) {
                Ok(1) => self.running -= 1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !left.is_zero() => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    say(format_args!("the command of --exec has not read its input within {} s", PATIENCE.as_secs()));
                    break;
                }
                Ok(_) | Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words() {
        assert_eq!(split("  notify --team  $DB 'x y' "), ["notify", "--team", "$DB", "'x", "y'"]);
        assert!(split(" ").is_empty());
    }
}
