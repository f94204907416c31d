//! A network namespace for each test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};

use crate::process::{self, output};
use crate::{Tracer, Witness, ability};

/// The namespace in which this process was started.
static HOME: LazyLock<File> = LazyLock::new(current);

/// The namespaces that the shared tracers watch for tests, by inode number, and since when.
static OURS: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

fn current() -> File {
    File::open("/proc/thread-self/ns/net").expect("open this thread's network namespace")
}

/// Records the namespace of the process, before any thread leaves it. Returns its descriptor.
pub(crate) fn remember_home() -> RawFd {
    HOME.as_raw_fd()
}

/// Moves the calling thread back to the namespace of the process.
pub(crate) fn go_home() {
    setns(HOME.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the network namespace that the tests started in");
}

/// A new network namespace with the calling thread in it, and with its loopback up. On drop, the thread goes back, and
/// the kernel destroys the namespace once it is empty.
pub struct Namespace {
    inode: u64,
    since_ns: u64,
    /// Not `Send`: it belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Namespace {
    /// Enters a new namespace that the shared tracers already watch.
    pub fn enter() -> Self {
        process::prepare();
        ability::need_root();
        ability::expect_whole_picture();
        Tracer::start_shared();
        // Starts the witness before anything happens, if there can be one.
        let _witness = Witness::get();
        let net = Self::enter_unwatched();
        Tracer::forget(net.inode);
        OURS.lock().expect("no panic with it").insert(net.inode, net.since_ns);
        net
    }

    /// Enters a new namespace without the shared tracers.
    pub fn enter_unwatched() -> Self {
        process::prepare();
        ability::need_root();
        unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
        let inode = current().metadata().expect("look at the network namespace").ino();
        let net = Self { inode, since_ns: boot_ns(), not_send: PhantomData };
        net.run("ip", &["link", "set", "lo", "up"]);
        net
    }

    /// Whether a test of this process made the namespace for the shared tracers before that time.
    pub(crate) fn is_ours(inode: u64, boot_ns: u64) -> bool {
        OURS.lock().expect("no panic with it").get(&inode).is_some_and(|since_ns| boot_ns >= *since_ns)
    }

    /// Its inode number, which rows contain.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// When it was made, in ns of `CLOCK_BOOTTIME`. The kernel reuses inode numbers: older rows are about another
    /// namespace.
    pub fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Goes back early. The namespace ends when it is empty, and its number can still be used for checks.
    pub fn leave(&self) {
        go_home();
    }

    /// Sets `/proc/sys/net/<name>` of this namespace.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).unwrap_or_else(|error| panic!("write {value} to {path}: {error}"));
    }

    /// A counter of this namespace, as `nstat -az` shows it: `counter("TcpExt", "TWRecycled")`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let read =
            |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("read the network counters");
        let text = ["netstat", "snmp"].map(read).concat();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let found = names.split(' ').zip(values.split(' ')).find(|(key, _)| *key == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no counter {group}{name}"));
        value.parse().expect("a number")
    }

    /// Runs a command in this namespace, and returns its standard output.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(args);
        let output = output(command);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        forget(&mut OURS.lock().unwrap_or_else(PoisonError::into_inner), self.inode, self.since_ns);
        go_home();
    }
}

/// Forgets a namespace: a later one that is not watched may reuse its number. If that was left early, a later one that is
/// watched may have its number already.
fn forget(ours: &mut BTreeMap<u64, u64>, inode: u64, since_ns: u64) {
    if ours.get(&inode) == Some(&since_ns) {
        ours.remove(&inode);
    }
}

/// Now, in the unit of rows: ns of `CLOCK_BOOTTIME`.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("read CLOCK_BOOTTIME");
    u64::try_from(now.tv_sec()).expect("after boot") * 1_000_000_000 + u64::try_from(now.tv_nsec()).expect("positive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_number_is_forgotten() {
        let mut ours = BTreeMap::from([(1, 10), (2, 20)]);
        forget(&mut ours, 1, 10);
        forget(&mut ours, 2, 5);
        assert_eq!(ours, BTreeMap::from([(2, 20)]));
    }
}
