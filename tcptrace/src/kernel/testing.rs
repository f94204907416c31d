//! Helpers for tests of several modules.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tcptrace_tests::ability::need_root;

/// Runs a test in a thread of its own, in a network namespace of its own with its loopback up.
pub(super) fn in_new_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    need_root();
    thread::scope(|scope| {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
            run("ip", &["link", "set", "lo", "up"]);
            test()
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command, which must succeed.
pub(super) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("start a command");
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// A network namespace with a name, until dropped.
pub(super) struct Named(pub(super) String);

impl Named {
    pub(super) fn new(name: &str) -> Self {
        need_root();
        let name = format!("tcptrace-{name}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Self(name)
    }

    pub(super) fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    pub(super) fn inode(&self) -> u32 {
        u32::try_from(fs::metadata(self.path()).expect("look at it").ino()).expect("32 bits")
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}
