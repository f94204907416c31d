//! Starts programs with the privileges that tcptrace was called with: a process of its own, which exists before tcptrace
//! gives any up. It runs nothing but the recorded command and the command of `--exec`.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::libc;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::cli::say;
use crate::kernel::User;

/// Signals that end tcptrace, which then tells the starter.
const ENDING: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1];

/// What can be started.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs {
    /// The recorded command; none if empty.
    pub(super) command: Vec<OsString>,
    /// Its standard output is ours, which the trace takes.
    pub(super) is_output_taken: bool,
    /// Who it runs as.
    pub(super) user: Option<User>,
    /// The command of `--exec`; none if empty.
    pub(super) exec: Vec<OsString>,
}

/// The ways to the starter. It ends when both are closed.
pub(super) struct Starter {
    pub(super) command: UnixStream,
    pub(super) exec: UnixStream,
}

/// What the starter says of the recorded command, with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Started,
    /// The number of the error.
    Refused(i32),
    /// The status as `wait` has it.
    Ended(i32),
}

/// What the starter is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start,
    Send(i32),
}

/// Length of each message about the command.
pub(super) const MESSAGE: usize = 5;

impl Said {
    fn bytes(self) -> [u8; MESSAGE] {
        match self {
            Self::Started => message(0, 0),
            Self::Refused(number) => message(1, number),
            Self::Ended(status) => message(2, status),
        }
    }

    pub(super) fn parse(bytes: [u8; MESSAGE]) -> Option<Self> {
        match parts(bytes) {
            (0, _) => Some(Self::Started),
            (1, number) => Some(Self::Refused(number)),
            (2, status) => Some(Self::Ended(status)),
            _ => None,
        }
    }
}

impl Order {
    pub(super) fn bytes(self) -> [u8; MESSAGE] {
        match self {
            Self::Start => message(0, 0),
            Self::Send(signal) => message(1, signal),
        }
    }

    fn parse(bytes: [u8; MESSAGE]) -> Option<Self> {
        match parts(bytes) {
            (0, _) => Some(Self::Start),
            (1, signal) => Some(Self::Send(signal)),
            _ => None,
        }
    }
}

fn message(kind: u8, number: i32) -> [u8; MESSAGE] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

fn parts([kind, a, b, c, d]: [u8; MESSAGE]) -> (u8, i32) {
    (kind, i32::from_le_bytes([a, b, c, d]))
}

impl Starter {
    /// Starts the starter, if there is anything to start. Call this before any thread starts.
    ///
    /// # Errors
    /// When there can be no other process.
    pub(super) fn begin(programs: &Programs) -> Result<Option<Self>> {
        if programs.command.is_empty() && programs.exec.is_empty() {
            return Ok(None);
        }
        let context = "cannot start the process that starts programs";
        let (command, commands) = UnixStream::pair().context(context)?;
        let (exec, execs) = UnixStream::pair().context(context)?;
        // SAFETY: there is no other thread whose locks the new process could miss.
        match unsafe { fork() }.context(context)? {
            ForkResult::Parent { .. } => Ok(Some(Self { command, exec })),
            ForkResult::Child => {
                drop((command, exec));
                serve(programs, commands, execs);
                // SAFETY: nothing is left to be done here; what is buffered is the parent's.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

fn serve(programs: &Programs, commands: UnixStream, execs: UnixStream) {
    outlive_signals();
    let _ = nix::sys::prctl::set_name(c"tcptrace-starts");
    let exec = programs.exec.clone();
    // Without that thread, there is no `--exec`, and its caller notices that the way is closed.
    let executing = thread::Builder::new().spawn(move || serve_exec(&exec, execs));
    serve_command(programs, commands);
    if let Ok(executing) = executing {
        // A panic has already been printed.
        let _ = executing.join();
    }
}

/// What starts inherits signals that are ignored, but no handlers.
fn outlive_signals() {
    extern "C" fn nothing(_: i32) {}
    let handler = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in ENDING {
        // SAFETY: the handler does nothing, which it may do at any moment.
        let before = unsafe { signal::sigaction(signal, &handler) };
        if let Ok(before) = before
            && matches!(before.handler(), SigHandler::SigIgn)
        {
            // SAFETY: it was so before.
            let _ = unsafe { signal::sigaction(signal, &before) };
        }
    }
}

/// Starts the recorded command and sends it signals, as ordered. Ends when the caller has closed its end of the socket.
fn serve_command(programs: &Programs, mut orders: UnixStream) {
    let running = Running::default();
    let mut bytes = [0; MESSAGE];
    while orders.read_exact(&mut bytes).is_ok() {
        let done = match Order::parse(bytes) {
            Some(Order::Start) => start(programs, &running, &orders),
            Some(Order::Send(number)) => {
                running.send(number);
                Ok(())
            }
            None => break,
        };
        if done.is_err() {
            break;
        }
    }
}

/// The process id of the command, until it has ended.
#[derive(Clone, Debug, Default)]
struct Running(Arc<Mutex<Option<Pid>>>);

impl Running {
    fn set(&self, pid: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    fn send(&self, number: i32) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(pid), Ok(signal)) = (*running, Signal::try_from(number)) {
            // It may have ended just now.
            let _ = signal::kill(pid, signal);
        }
    }
}

fn start(programs: &Programs, running: &Running, mut orders: &UnixStream) -> io::Result<()> {
    let said = |error: &io::Error| Said::Refused(error.raw_os_error().unwrap_or(libc::EINVAL));
    let child = match command(programs).and_then(|mut command| command.spawn()) {
        Ok(child) => child,
        Err(error) => return orders.write_all(&said(&error).bytes()),
    };
    running.set(i32::try_from(child.id()).ok().map(Pid::from_raw));
    // Before it can end.
    orders.write_all(&Said::Started.bytes())?;
    let (running, answers) = (running.clone(), orders.try_clone()?);
    thread::Builder::new().spawn(move || wait_for(child, &running, answers)).map(drop)
}

/// Waits until it ends. Up to then, the process id is its own.
fn wait_for(mut child: Child, running: &Running, mut answers: UnixStream) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    }
    running.set(None);
    if let Ok(status) = child.wait() {
        // The caller may be gone.
        let _ = answers.write_all(&Said::Ended(status.into_raw()).bytes());
    }
}

fn command(programs: &Programs) -> io::Result<Command> {
    let (program, args) = programs.command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command.args(args);
    if programs.is_output_taken {
        command.stdout(Stdio::from(io::stderr()));
    }
    if let Some(user) = programs.user.clone() {
        // SAFETY: it makes system calls only, and allocates nothing.
        unsafe { command.pre_exec(move || user.become_it()) };
    }
    Ok(command)
}

/// Runs the command of `--exec` for each file. The answer to each is a byte, when its input has been read.
fn serve_exec(command: &[OsString], mut orders: UnixStream) {
    let Some((program, args)) = command.split_first() else { return };
    while let Ok((path, line)) = take(&mut orders).and_then(|path| Ok((path, take(&mut orders)?))) {
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(args).arg(OsString::from_vec(path)).stdin(Stdio::piped());
        let Ok(mut read) = orders.try_clone() else { break };
        let failed = name.clone();
        let run = move || {
            let child = command.spawn().inspect_err(|error| say(format_args!("cannot run '{name}': {error}")));
            if let Ok(mut child) = child {
                // A command that does not want it may close its input.
                let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&line));
                let _ = read.write_all(&[0]);
                match child.wait() {
                    Ok(status) if !status.success() => say(format_args!("'{name}' failed: {status}")),
                    Ok(_) => {}
                    Err(error) => say(format_args!("cannot wait for '{name}': {error}")),
                }
            } else {
                let _ = read.write_all(&[0]);
            }
        };
        if let Err(error) = thread::Builder::new().spawn(run) {
            say(format_args!("cannot run '{failed}': {error}"));
        }
    }
}

/// Sends the bytes that [`take`] takes.
pub(super) fn send(mut orders: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    orders.write_all(&len.to_le_bytes())?;
    orders.write_all(bytes)
}

fn take(orders: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    orders.read_exact(&mut len)?;
    let mut bytes = Vec::new();
    let wanted = u64::from(u32::from_le_bytes(len));
    orders.take(wanted).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        for said in [Said::Started, Said::Refused(2), Said::Ended(-1)] {
            assert_eq!(Said::parse(said.bytes()), Some(said));
        }
        for order in [Order::Start, Order::Send(15)] {
            assert_eq!(Order::parse(order.bytes()), Some(order));
        }
        assert_eq!(Said::parse([9; MESSAGE]), None);
        assert_eq!(Order::parse([9; MESSAGE]), None);
    }

    /// In this process, instead of the one that is forked.
    #[test]
    fn a_command_is_started_and_gets_signals() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let programs = Programs { command: ["sleep", "1000"].map(OsString::from).to_vec(), ..Programs::default() };
        let served = thread::spawn(move || serve_command(&programs, theirs));
        let mut next = |order: Option<Order>| {
            order.iter().for_each(|order| ours.write_all(&order.bytes()).expect("send it"));
            let mut bytes = [0; MESSAGE];
            ours.read_exact(&mut bytes).expect("an answer");
            Said::parse(bytes)
        };
        assert_eq!(next(Some(Order::Start)), Some(Said::Started));
        assert_eq!(next(Some(Order::Send(libc::SIGTERM))), Some(Said::Ended(libc::SIGTERM)));
        drop(ours);
        served.join().expect("it ends");
    }

    #[test]
    fn a_command_that_is_not_there_is_refused() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let programs = Programs { command: vec!["/no/such/program".into()], ..Programs::default() };
        let served = thread::spawn(move || serve_command(&programs, theirs));
        ours.write_all(&Order::Start.bytes()).expect("send it");
        let mut bytes = [0; MESSAGE];
        ours.read_exact(&mut bytes).expect("an answer");
        assert_eq!(Said::parse(bytes), Some(Said::Refused(libc::ENOENT)));
        drop(ours);
        served.join().expect("it ends");
    }
}
