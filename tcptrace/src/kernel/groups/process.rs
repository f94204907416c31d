//! The control group that a process is in.

use std::fs;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use super::Mount;
use crate::kernel::processes;

/// The beginning of `struct pidfd_info` of Linux 6.13 (`include/uapi/linux/pidfd.h`).
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    others: [u32; 12],
}

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;

/// `PIDFD_INFO_CGROUPID`.
const CGROUP: u64 = 1 << 2;

/// Finds the groups of processes.
#[derive(Debug)]
pub(super) struct Processes {
    /// The kernel and this `/proc` number processes alike.
    are_numbered_alike: bool,
    /// The kernel shows the group of a process by its pidfd, without waiting. `/proc/PID/cgroup` waits while any
    /// process is moved (`proc_cgroup_show` in `kernel/cgroup/cgroup.c` takes `cgroup_mutex`).
    by_descriptor: bool,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self { are_numbered_alike: processes::are_all_visible(), by_descriptor: true }
    }

    /// The id of its group; `None` when the process is gone, or is not visible here.
    pub(super) fn group(&mut self, pid: u32, mount: &Mount) -> Option<u64> {
        if !self.are_numbered_alike {
            return None;
        }
        if self.by_descriptor {
            match by_descriptor(pid) {
                Ok(group) => return group,
                Err(Errno::ESRCH) => return None,
                // Before Linux 6.13.
                Err(Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS) => self.by_descriptor = false,
                Err(_) => {}
            }
        }
        by_path(pid, mount)
    }
}

fn by_descriptor(pid: u32) -> nix::Result<Option<u64>> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the system call takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it, for nobody else.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = Info { mask: CGROUP, ..Info::default() };
    // SAFETY: the number of the request says how long `info` is, and the kernel writes no more.
    Errno::result(unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO as _, &raw mut info) })?;
    Ok((info.mask & CGROUP != 0 && info.cgroup != 0).then_some(info.cgroup))
}

fn by_path(pid: u32, mount: &Mount) -> Option<u64> {
    let table = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let path = table.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(fs::metadata(directory(path, mount)?).ok()?.ino())
}

/// Where a group is mounted. Its path is as the control group namespace shows it, which the mount shows as well.
fn directory(path: &[u8], mount: &Mount) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let below = path.strip_prefix(&*mount.root).or_else(|| path.strip_prefix(b"/"))?;
    let below = Path::new(std::ffi::OsStr::from_bytes(below.strip_prefix(b"/").unwrap_or(below)));
    let is_below = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    is_below.then(|| mount.point.join(below))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::{Hierarchy, tests::Made};
    use super::*;

    /// The kernel and `/proc` agree, also on a zombie.
    #[tcptrace_tests::test]
    fn the_group_of_a_process_is_found_both_ways() {
        let mount = Hierarchy::find().expect("a unified hierarchy").mount;
        let made = Made::new("tcptrace-member");
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("start a command");
        fs::write(made.0.join("cgroup.procs"), child.id().to_string()).expect("move it");
        assert_eq!(by_path(child.id(), &mount), Some(made.id()));
        let mut processes = Processes::new();
        assert_eq!(processes.group(child.id(), &mount), Some(made.id()));
        child.kill().expect("end it");
        let ended = (0..1000).any(|_| {
            let status = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it was not waited for");
            std::thread::yield_now();
            status.contains(") Z ")
        });
        assert!(ended, "it was killed");
        assert_eq!(processes.group(child.id(), &mount), Some(made.id()));
        child.wait().expect("wait for it");
        assert_eq!(processes.group(child.id(), &mount), None);
        assert_eq!(by_path(child.id(), &mount), None);
        processes.by_descriptor = false;
        let own = by_path(std::process::id(), &mount);
        assert!(own.is_some());
        assert_eq!(processes.group(std::process::id(), &mount), own);
        assert_eq!(
            Processes { are_numbered_alike: false, by_descriptor: true }.group(std::process::id(), &mount),
            None
        );
    }

    #[test]
    fn a_group_is_where_its_mount_shows_it() {
        let at = |root: &str, path: &str| {
            let mount = Mount { point: "/sys/fs/cgroup".into(), root: root.into() };
            directory(path.as_bytes(), &mount).map(|path| path.display().to_string())
        };
        assert_eq!(at("/", "/a/b").as_deref(), Some("/sys/fs/cgroup/a/b"));
        assert_eq!(at("/", "/").as_deref(), Some("/sys/fs/cgroup/"));
        assert_eq!(at("/docker/x", "/docker/x/a").as_deref(), Some("/sys/fs/cgroup/a"));
        assert_eq!(at("/", "/../outside"), None);
    }
}
