//! Processes that play a part in a test: see `src/bin/actor.rs` for their roles.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::process::spawn;

/// Time limit for waiting for an actor.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that plays a part, and is killed on drop.
pub struct Actor {
    process: Child,
    said: Receiver<String>,
}

impl Actor {
    /// Starts an actor in the caller's network namespace.
    pub fn start(program: &str, name: impl AsRef<OsStr>, role: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.arg(name).args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let mut process = spawn(&mut command);
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let (sender, said) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, said }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its next line, split into words.
    pub fn says(&self) -> Vec<String> {
        let line = self.said.recv_timeout(PATIENCE).expect("an actor that says something");
        line.split(' ').map(str::to_owned).collect()
    }

    /// Waits for its next line, which must report this action, and returns the rest.
    #[track_caller]
    pub fn did(&self, what: &str) -> Vec<String> {
        let mut words = self.says();
        assert_eq!(words[0], what, "{words:?}");
        words.split_off(1)
    }

    /// The same, and returns the last word as an address.
    #[track_caller]
    pub fn did_at(&self, what: &str) -> SocketAddr {
        let words = self.did(what);
        words.last().expect("an address").parse().expect("an address")
    }

    /// Gives it a cue.
    pub fn cue(&mut self) {
        self.process.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("give a cue");
    }

    /// Gives it its last cue, and waits until it ends.
    pub fn finish(mut self) {
        let status = self.process.wait().expect("wait for an actor");
        assert!(status.success(), "an actor failed: {status}");
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill an actor");
        self.process.wait().expect("wait for an actor");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
