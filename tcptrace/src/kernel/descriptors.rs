//! Which processes have descriptors of which sockets, from the links in `/proc/PID/fd`.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use foldhash::fast::FixedState;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

use super::{about, processes};
use crate::model::socket::Holding;
use crate::model::tcp::{Comm, Task};

/// Longer than `socket:[4294967295]`. The kernel cuts other links, which do not matter here.
const LINK: usize = 32;

/// Who has descriptors of which sockets.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    sockets: HashMap<u32, Entry, FixedState>,
    /// Processes that hold a socket, once each, and whether they are preferred.
    processes: Vec<(Task, bool)>,
    /// Number of processes whose descriptors tcptrace may not read: that takes the right to trace them.
    pub unseen_processes: usize,
}

/// One holder of a socket. There can be a million of them.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Index of the process.
    process: u32,
    fd: u32,
    count: u32,
}

/// Looks for descriptors of the wanted sockets, by inode number. If several processes hold one, preferred processes
/// come first.
///
/// Each process is read once, by its main thread. So tcptrace misses the descriptors of a thread with a table of its
/// own (`unshare(CLONE_FILES)`), and those of other threads after the main thread has ended. Process ids are those of
/// the pid namespace whose `/proc` is mounted.
///
/// # Errors
///
/// If `/proc` cannot be read, or if no descriptor or memory is left.
pub fn holders(wanted: impl Fn(u32) -> bool, mut prefers: impl FnMut(&Task) -> bool) -> io::Result<Holders> {
    let mut holders = Holders::default();
    for pid in processes::ids()? {
        match holders.look_into(pid, &wanted, &mut prefers) {
            Err(Errno::EACCES | Errno::EPERM) => holders.unseen_processes += 1,
            Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                return Err(about(format_args!("/proc/{pid}/fd"))(error.into()));
            }
            // The process has ended.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(holders)
}

impl Holders {
    /// Who holds the socket with this inode number.
    pub fn of(&self, inode: u32) -> Option<Holding> {
        let entry = self.sockets.get(&inode)?;
        let (task, _) = *self.processes.get(usize::try_from(entry.process).ok()?)?;
        Some(Holding { task, fd: entry.fd, count: entry.count })
    }

    fn look_into(
        &mut self,
        pid: u32,
        wanted: &impl Fn(u32) -> bool,
        prefers: &mut impl FnMut(&Task) -> bool,
    ) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::open(format!("/proc/{pid}/fd").as_str(), flags, Mode::empty())?;
        let handle = directory.as_raw_fd();
        let mut process = None;
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(fd) = processes::digits(name.to_bytes()) else { continue };
            if let Some(inode) = socket(handle, name)?.filter(|inode| wanted(*inode)) {
                let process = *process.get_or_insert_with(|| self.add_process(pid, prefers));
                self.note(inode, process, fd);
            }
        }
        Ok(())
    }

    fn add_process(&mut self, pid: u32, prefers: &mut impl FnMut(&Task) -> bool) -> u32 {
        let task = Task { pid, tid: pid, comm: comm(pid) };
        self.processes.push((task, prefers(&task)));
        // There are fewer processes than ids.
        u32::try_from(self.processes.len() - 1).unwrap_or(u32::MAX)
    }

    fn note(&mut self, inode: u32, process: u32, fd: u32) {
        let is_preferred = |process: u32| self.processes.get(process as usize).is_some_and(|(_, preferred)| *preferred);
        let entry = self.sockets.entry(inode).or_insert(Entry { process, fd, count: 0 });
        entry.count = entry.count.saturating_add(1);
        if entry.process != process && is_preferred(process) && !is_preferred(entry.process) {
            (entry.process, entry.fd) = (process, fd);
        }
        if entry.process == process {
            entry.fd = entry.fd.min(fd);
        }
    }
}

/// The inode number of the socket that a descriptor leads to, if it leads to one.
fn socket(directory: RawFd, name: &CStr) -> nix::Result<Option<u32>> {
    let mut link = [0_u8; LINK];
    // SAFETY: the name ends with a NUL, and the kernel writes no more than the length it is given.
    let length = unsafe { libc::readlinkat(directory, name.as_ptr(), link.as_mut_ptr().cast(), link.len()) };
    match Errno::result(length) {
        Ok(length) => Ok(usize::try_from(length).ok().and_then(|length| inode(link.get(..length)?))),
        // It was closed meanwhile; or it is a file so deep that `d_path` (`fs/d_path.c`) writes no path for it.
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn inode(link: &[u8]) -> Option<u32> {
    processes::digits(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

fn comm(pid: u32) -> Comm {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let mut comm = Comm::default();
    for (to, from) in comm.0.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    comm
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::thread;
    use std::time::Duration;

    use nix::sys::stat::fstat;
    use rstest::rstest;

    use super::*;

    fn inode_of(socket: impl AsFd) -> u32 {
        u32::try_from(fstat(socket).expect("look at the socket").st_ino).expect("32 bits")
    }

    fn number(socket: &impl AsRawFd) -> u32 {
        u32::try_from(socket.as_raw_fd()).expect("not negative")
    }

    #[test]
    fn the_lowest_descriptor_is_found_and_all_are_counted() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("listen");
        let copy = socket.try_clone().expect("duplicate it");
        let other = TcpListener::bind("127.0.0.1:0").expect("listen");
        let wanted = inode_of(&socket);
        let pid = std::process::id();
        let expected =
            Holding { task: Task { pid, tid: pid, comm: comm(pid) }, fd: number(&socket).min(number(&copy)), count: 2 };
        // What other tests start has copies of all descriptors for a moment.
        let found = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            let holders = holders(|inode| inode == wanted, |_| false).expect("read /proc");
            assert_eq!(holders.of(inode_of(&other)), None);
            holders.of(wanted).filter(|holding| *holding == expected)
        });
        assert!(found.is_some(), "no {expected:?}");
        assert_eq!(
            holders(|_| true, |_| false).expect("read /proc").of(inode_of(&other)).map(|holding| holding.task.pid),
            Some(pid)
        );
    }

    #[test]
    fn a_million_sockets_are_small() {
        assert!(size_of::<(u32, Entry)>() <= 16);
    }

    #[test]
    fn the_name_is_that_of_the_process() {
        let name = fs::read_to_string("/proc/self/comm").expect("read it");
        assert_eq!(comm(std::process::id()).bytes(), name.trim_end().as_bytes());
        assert_eq!(comm(0), Comm::default());
    }

    #[rstest]
    #[case("socket:[12]", Some(12))]
    #[case("socket:[4294967295]", Some(u32::MAX))]
    #[case("socket:[4294967296]", None)]
    #[case("socket:[]", None)]
    #[case("pipe:[12]", None)]
    #[case("/tmp/socket:[12]", None)]
    fn a_link_names_a_socket(#[case] link: &str, #[case] expected: Option<u32>) {
        assert_eq!(inode(link.as_bytes()), expected);
    }
}
