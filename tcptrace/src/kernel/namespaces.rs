//! The existing network namespaces: those of processes, and those that a file keeps alive.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foldhash::fast::FixedState;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use super::{about, processes};
use crate::model::names::Names;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Directories where `ip netns` and Docker keep namespaces, each as a file with a name.
const NAMED: &[&str] = &["/run/netns", "/run/docker/netns", "/var/run/docker/netns"];

/// The network namespaces found.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    list: Vec<Namespace>,
    /// Number of processes whose namespaces tcptrace may not read: that takes the right to trace them.
    pub unseen_processes: usize,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number, by which it is known.
    pub inode: u32,
    /// The name that `ip netns` or Docker gave it.
    pub name: Option<Box<[u8]>>,
    /// A file that leads to it.
    path: PathBuf,
}

/// Why a text names no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It is neither a name nor a number.
    #[error("no network namespace is called '{0}' (see ip netns)")]
    Unknown(String),
    /// It is the path of something else.
    #[error("'{0}' is not a network namespace")]
    SomethingElse(String),
    /// It is a path that leads nowhere, or that tcptrace may not follow.
    #[error("cannot look at '{path}': {reason}")]
    Unreadable { path: String, reason: io::Error },
}

impl Namespaces {
    /// Looks for network namespaces: first that of the calling thread, then those with a name, then those of processes
    /// and their threads. A namespace that only an open descriptor keeps alive is not found.
    pub fn find() -> Self {
        let mut found = Self::default();
        if let Some(inode) = Self::own_namespace() {
            found.list.push(Namespace { inode, name: None, path: OWN.into() });
        }
        NAMED.iter().for_each(|directory| found.add_named(Path::new(directory)));
        found.add_of_processes();
        found
    }

    /// Namespaces of a recording, by number and name: no file leads to them.
    pub fn recorded<'n>(named: impl Iterator<Item = (u32, &'n [u8])>) -> Self {
        let one = |(inode, name): (u32, &[u8])| Namespace { inode, name: Some(name.into()), path: PathBuf::new() };
        Self { list: named.map(one).collect(), unseen_processes: 0 }
    }

    /// Namespaces that another process has found: no file leads to them here.
    pub fn told(list: impl IntoIterator<Item = (u32, Option<Box<[u8]>>)>, unseen_processes: usize) -> Self {
        let one = |(inode, name)| Namespace { inode, name, path: PathBuf::new() };
        Self { list: list.into_iter().map(one).collect(), unseen_processes }
    }

    fn add_named(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(Some((_, inode))) = open(&path) else { continue };
            let name = entry.file_name().as_bytes().into();
            match self.list.iter_mut().find(|known| known.inode == inode) {
                Some(known) => known.name = known.name.take().or(Some(name)),
                None => self.list.push(Namespace { inode, name: Some(name), path }),
            }
        }
    }

    fn add_of_processes(&mut self) {
        let mut known: HashSet<u32, FixedState> = self.iter().map(|namespace| namespace.inode).collect();
        for pid in processes::ids().unwrap_or_default() {
            for path in of_process(pid) {
                match inode(&path) {
                    Ok(inode) if known.insert(inode) => {
                        self.list.push(Namespace { inode, name: None, path });
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        self.unseen_processes += 1;
                        break;
                    }
                    // It has ended.
                    Err(_) => {}
                }
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.list.iter()
    }

    /// The inode number of the calling thread's namespace.
    pub fn own_namespace() -> Option<u32> {
        inode(Path::new(OWN)).ok()
    }

    /// The inode number of the namespace that a text names: by name, by inode number, or by the path of a file that
    /// leads to it, which must have a slash.
    ///
    /// # Errors
    ///
    /// If it names none. An inode number is always valid, as that namespace may still come.
    pub fn resolve(&self, text: &str) -> Result<u32, ResolveError> {
        if text.contains('/') {
            return resolve_path(text);
        }
        let called = |namespace: &&Namespace| namespace.name.as_deref() == Some(text.as_bytes());
        self.iter()
            .find(called)
            .map(|namespace| namespace.inode)
            .or_else(|| named(text))
            .or_else(|| processes::digits(text.as_bytes()))
            .ok_or_else(|| ResolveError::Unknown(text.into()))
    }

    /// Notes their names.
    pub fn teach(&self, names: &mut Names) {
        for namespace in self.iter() {
            if let Some(name) = &namespace.name {
                names.name_namespace(namespace.inode, name);
            }
        }
    }
}

impl Namespace {
    /// Moves the calling thread into it. Returns `false` if it is gone.
    pub fn enter(&self) -> io::Result<bool> {
        let Some(file) = self.open()? else { return Ok(false) };
        setns(file, CloneFlags::CLONE_NEWNET)?;
        Ok(true)
    }

    /// The same, but only by the known path, as a search takes long.
    pub(super) fn enter_directly(&self) -> io::Result<bool> {
        match open(&self.path) {
            Ok(Some((file, inode))) if inode == self.inode => {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(&self) -> io::Result<Option<File>> {
        match open(&self.path) {
            Ok(Some((file, inode))) if inode == self.inode => Ok(Some(file)),
            // The process has ended, and another one may have its id. It may not have been the last process of the
            // namespace.
            Ok(_) => Ok(self.search()),
            Err(error) if is_gone(&error) => Ok(self.search()),
            Err(error) => Err(about(self.path.display())(error)),
        }
    }

    fn search(&self) -> Option<File> {
        processes::ids().ok()?.into_iter().flat_map(of_process).find_map(|path| {
            inode(&path).ok().filter(|inode| *inode == self.inode)?;
            let (file, inode) = open(&path).ok()??;
            (inode == self.inode).then_some(file)
        })
    }
}

/// Files that lead to the namespace of a process, and to those of its other threads.
fn of_process(pid: u32) -> impl Iterator<Item = PathBuf> {
    let others = processes::threads(pid).into_iter().filter(move |tid| *tid != pid);
    let paths = others.map(move |tid| format!("/proc/{pid}/task/{tid}/ns/net").into());
    std::iter::once(format!("/proc/{pid}/ns/net").into()).chain(paths)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn inode(path: &Path) -> io::Result<u32> {
    number(&fs::metadata(path)?)
}

fn number(metadata: &fs::Metadata) -> io::Result<u32> {
    u32::try_from(metadata.ino()).map_err(io::Error::other)
}

/// Opens a network namespace, and returns its number. `None` if the path leads to something else, which is not even
/// opened: opening can have side effects.
fn open(path: &Path) -> io::Result<Option<(File, u32)>> {
    if statfs(path)?.filesystem_type() != NSFS_MAGIC {
        return Ok(None);
    }
    let file = File::open(path)?;
    if !is_network(&file) {
        return Ok(None);
    }
    let inode = number(&file.metadata()?)?;
    Ok(Some((file, inode)))
}

fn is_network(namespace: &File) -> bool {
    // SAFETY: the descriptor is open, and this request takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// By a second name, or by one that was given later.
fn named(name: &str) -> Option<u32> {
    NAMED.iter().find_map(|directory| open(&Path::new(directory).join(name)).ok()?).map(|(_, inode)| inode)
}

fn resolve_path(text: &str) -> Result<u32, ResolveError> {
    match open(Path::new(text)) {
        Ok(Some((_, inode))) => Ok(inode),
        Ok(None) => Err(ResolveError::SomethingElse(text.into())),
        Err(reason) => Err(ResolveError::Unreadable { path: text.into(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};

    #[tcptrace_tests::test]
    fn the_own_one_comes_first() {
        let (own, first, count) = in_new_namespace(|| {
            let own = Namespaces::own_namespace().expect("its inode");
            let found = Namespaces::find();
            let first = found.iter().next().expect("one at least").inode;
            (own, first, found.iter().filter(|namespace| namespace.inode == own).count())
        });
        assert_eq!((first, count), (own, 1));
        assert_ne!(Some(own), Namespaces::own_namespace());
    }

    #[tcptrace_tests::test]
    fn one_with_a_name_is_found_and_resolved() {
        let named = Named::new("find");
        let found = Namespaces::find();
        let inode = named.inode();
        let one = found.iter().find(|namespace| namespace.inode == inode).expect("it is found");
        assert_eq!(one.name.as_deref(), Some(named.0.as_bytes()));
        assert_eq!(found.resolve(&named.0).ok(), Some(inode));
        assert_eq!(found.resolve(&inode.to_string()).ok(), Some(inode));
        assert_eq!(found.resolve(&named.path()).ok(), Some(inode));
        let mut names = Names::default();
        found.teach(&mut names);
        assert_eq!(names.namespace(inode), Some(named.0.as_bytes()));
    }

    #[tcptrace_tests::test]
    fn one_that_has_come_since_is_resolved() {
        let found = Namespaces::find();
        let named = Named::new("since");
        assert_eq!(found.resolve(&named.0).ok(), Some(named.inode()));
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        let found = Namespaces::find();
        let complaint = |text| found.resolve(text).expect_err("it is none").to_string();
        assert_eq!(complaint("no-such"), "no network namespace is called 'no-such' (see ip netns)");
        assert_eq!(complaint(""), "no network namespace is called '' (see ip netns)");
        assert_eq!(complaint("/dev/null"), "'/dev/null' is not a network namespace");
        assert_eq!(complaint("/proc/self/ns/uts"), "'/proc/self/ns/uts' is not a network namespace");
        assert!(complaint("/no/such").starts_with("cannot look at '/no/such': No such file"));
    }

    #[tcptrace_tests::test]
    fn one_can_be_entered_even_by_another_way_than_it_was_found() {
        let named = Named::new("enter");
        let inode = named.inode();
        let entered = |path: &str| {
            let namespace = Namespace { inode, name: None, path: path.into() };
            let inside = || namespace.enter().map(|entered| entered.then(Namespaces::own_namespace).flatten());
            thread::scope(|scope| scope.spawn(inside).join().expect("no panic")).expect("enter it")
        };
        // Before anything enters it: a thread that has ended may still show for a moment.
        assert_eq!(entered("/proc/self/ns/net"), None, "no process is in it");
        let mut process = std::process::Command::new("ip")
            .args(["netns", "exec", &named.0, "sleep", "100"])
            .spawn()
            .expect("start a process in it");
        let by_process = (0..500).find_map(|_| {
            thread::sleep(std::time::Duration::from_millis(10));
            entered("/proc/0/ns/net")
        });
        process.kill().and_then(|()| process.wait()).expect("end it");
        assert_eq!(by_process, Some(inode));
        assert_eq!(entered(&named.path()), Some(inode));
    }
}
