//! `--exec`: a command that gets each file.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cli::say;

/// How long to wait at the end until a command has read its input.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a command for each file: its last argument is the path, and its standard input has one line of JSON.
pub(in crate::cli::record) struct Exec {
    command: Vec<OsString>,
    /// Commands that have not read all of their input.
    running: Vec<Receiver<()>>,
}

/// The words of a command. There is no shell: quotes and variables mean nothing.
pub(in crate::cli::record) fn split(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

impl Exec {
    pub(in crate::cli::record) fn new(command: Vec<OsString>) -> Self {
        Self { command, running: Vec::new() }
    }

    /// Starts the command, and does not wait for it.
    pub(super) fn run(&mut self, path: &Path, row: &Value) {
        let Some((program, args)) = self.command.split_first() else { return };
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(args).arg(path).stdin(Stdio::piped());
        let line = format!("{row}\n");
        let (has_read, running) = channel();
        let run = move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return say(format_args!("cannot run '{name}': {error}")),
            };
            // A command that does not want it may close its input.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(line.as_bytes()));
            let _ = has_read.send(());
            match child.wait() {
                Ok(status) if !status.success() => say(format_args!("'{name}' failed: {status}")),
                Ok(_) => {}
                Err(error) => say(format_args!("cannot wait for '{name}': {error}")),
            }
        };
        match thread::Builder::new().name("exec".into()).spawn(run) {
            Ok(_) => self.running.push(running),
            Err(error) => say(format_args!("cannot run '{}': {error}", program.to_string_lossy())),
        }
        self.running.retain(|running| matches!(running.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)));
    }

    /// Waits until every command has its input. It may go on after that.
    pub(super) fn finish(&mut self) {
        for running in self.running.drain(..) {
            if running.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                say(format_args!("the command of --exec has not read its input within {} s", PATIENCE.as_secs()));
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
