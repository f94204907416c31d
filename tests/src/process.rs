//! Starting processes and closing sockets, which do not mix.
//!
//! Between fork and exec, a child has a copy of every descriptor of this process. Were a socket closed in that moment,
//! the child's copy would be the last one: it would be the child that closes the connection, and later.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

/// Locked for writing while a process is started, for reading while a socket is closed.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a process, and returns when it has its own descriptors only.
pub fn spawn(command: &mut Command) -> Child {
    let _no_close = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"))
}

/// Runs a process to its end, without input.
pub fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command).wait_with_output().expect("wait for a process")
}

/// Closes a socket. No other process has it, unless it was given one.
pub fn close(socket: impl Into<OwnedFd>) {
    let _no_fork = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    drop(socket.into());
}
