//! Starts processes and closes sockets without mixing the two.
//!
//! Between fork and exec, a child has a copy of every descriptor of its parent. If a socket were closed at that moment,
//! the child's copy would be the last one: the child would close the connection, and later.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;

use crate::ability::is_root;
use crate::namespace::remember_home;

type Work = Box<dyn FnOnce() + Send>;

/// Passes work to a thread with a descriptor table of its own, which has no sockets.
static ASIDE: LazyLock<Mutex<Sender<Work>>> = LazyLock::new(|| {
    let home = remember_home();
    let (sender, receiver) = channel();
    let (ready, is_ready) = channel();
    thread::spawn(move || work_aside(&receiver, &ready, home));
    is_ready.recv().expect("a thread of its own");
    Mutex::new(sender)
});

/// Locked for writing while a process that inherits a socket starts, for reading while a socket is closed.
static STARTING: RwLock<()> = RwLock::new(());

fn work_aside(work: &Receiver<Work>, ready: &Sender<()>, kept: RawFd) {
    unshare(CloneFlags::CLONE_FILES).expect("have a table of descriptors of its own");
    close_copies(kept).expect("read the table of descriptors");
    ready.send(()).expect("a waiting caller");
    for task in work {
        // The new thread shares the descriptors of this one, not those of the tests.
        thread::spawn(task);
    }
}

/// Closes what this thread's own table has of what others have open, but for `kept`: who reads from a pipe would wait for
/// ever, and a network namespace would stay.
fn close_copies(kept: RawFd) -> io::Result<()> {
    let number = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
    let all = fs::read_dir("/proc/thread-self/fd")?.map(number).collect::<io::Result<Vec<Option<RawFd>>>>()?;
    for fd in all.into_iter().flatten().filter(|fd| *fd > libc::STDERR_FILENO && *fd != kept) {
        // SAFETY: the table is a copy, and only this thread has it so far: nothing here uses what is in it.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Prepares for [`aside`], before any socket exists.
pub(crate) fn prepare() {
    LazyLock::force(&ASIDE);
}

/// Runs something in the caller's network namespace, in a thread without the tests' descriptors.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, result) = channel();
    let (entered, has_entered) = channel();
    let caller = format!("/proc/self/task/{}/ns/net", gettid());
    let work = move || {
        // Without root, no thread has left the first namespace.
        if is_root() {
            let net = File::open(&caller).expect("open the caller's network namespace");
            setns(net.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the caller's network namespace");
        }
        entered.send(()).expect("a caller that waits");
        // The caller may no longer wait.
        let _unheard = sender.send(work());
    };
    ASIDE.lock().unwrap_or_else(PoisonError::into_inner).send(Box::new(work)).expect("a thread that works");
    has_entered.recv().expect("the caller's network namespace");
    result
}

/// Runs a process to its end, without input, in the caller's network namespace.
pub fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let said = format!("{command:?}");
    let result = aside(move || command.output()).recv().expect("no panic aside");
    result.unwrap_or_else(|error| panic!("run {said}: {error}"))
}

/// Starts a process that may inherit a socket. Returns when it has only the descriptors meant for it, and this process
/// no longer has that socket.
pub fn spawn(command: &mut Command) -> Child {
    let _no_close = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    wait_for_exec(child.id());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child
}

/// The parent continues before the kernel has closed what the child does not keep (`begin_new_exec` in fs/exec.c,
/// `____fput` as task work). That is done when the child waits in another system call, or has ended.
fn wait_for_exec(pid: u32) {
    let path = format!("/proc/{pid}/syscall");
    let exec = libc::SYS_execve.to_string();
    while let Ok(text) = fs::read_to_string(&path) {
        match text.split_whitespace().next() {
            None | Some("running") => {}
            Some(number) if number == exec => {}
            Some(_) => return,
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Closes a socket. No other process has it, unless it was passed on.
pub fn close(socket: impl Into<OwnedFd>) {
    let _no_fork = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    drop(socket.into());
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// A pipe ends, and a descriptor that is kept can be used.
    #[test]
    fn what_others_have_open_is_left_to_them() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let kept = File::open("/proc/self/ns/net").expect("a file");
        let number = kept.as_raw_fd();
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        let works = thread::spawn(move || work_aside(&receiver, &ready, number));
        is_ready.recv().expect("a thread of its own");
        drop(writer);
        let mut waited = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut waited, PollTimeout::from(10_000_u16)).expect("wait for its end");
        assert_eq!((ready, waited[0].revents()), (1, Some(PollFlags::POLLHUP)));
        let (seen, see) = channel();
        let look = move || seen.send(fs::read_link(format!("/proc/thread-self/fd/{number}"))).expect("somebody waits");
        sender.send(Box::new(look)).expect("a thread that works");
        let to = see.recv().expect("no panic").expect("a descriptor");
        assert!(to.to_string_lossy().starts_with("net:"), "{}", to.display());
        drop(sender);
        works.join().expect("no panic");
    }
}
