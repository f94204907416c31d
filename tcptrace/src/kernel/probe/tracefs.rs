//! The file system in which the kernel lists its classic tracepoints.

use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where it is mounted, if it is.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Runs work that needs tracefs. Where tracefs is not mounted, as in most containers, a thread mounts it for itself
/// alone, for as long as the work takes.
pub(super) fn with<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if is_mounted() {
        return work();
    }
    let in_private = || {
        if let Err(error) = mount_privately() {
            log::debug!("cannot mount tracefs: {error}");
        }
        work()
    };
    thread::scope(|scope| match scope.spawn(in_private).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn is_mounted() -> bool {
    [TRACEFS, "/sys/kernel/debug/tracing"].iter().any(|path| Path::new(path).join("events").exists())
}

/// Gives the calling thread a mount namespace of its own, with tracefs in it.
fn mount_privately() -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)?;
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), NOTHING)
}
