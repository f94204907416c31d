//! The paths of control groups, which the kernel names by id.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use foldhash::fast::FixedState;
use nix::errno::Errno;
use nix::libc;

use super::about;
use crate::names::{Group, Names};

/// What is mounted where.
const MOUNTS: &str = "/proc/self/mountinfo";

/// `FILEID_KERNFS`: a handle is the id of a control group.
const KERNFS: i32 = 0xfe;

/// How many directories are looked at where ids cannot be looked up.
const MOST_DIRECTORIES: usize = 100_000;

/// What finds the paths of control groups.
#[derive(Debug)]
pub struct Groups {
    hierarchy: Option<Hierarchy>,
    /// Ids that were looked up, with or without success.
    asked: HashSet<u64, FixedState>,
}

/// The unified hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount: Mount,
    directory: File,
    /// Every group, where ids cannot be looked up.
    walked: Option<HashMap<u64, PathBuf, FixedState>>,
}

/// Where it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// What part of it: `/`, or below that.
    root: Vec<u8>,
}

/// `struct file_handle`.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

impl Groups {
    /// Looks where control groups are mounted. Without them there are no paths.
    pub fn new() -> Self {
        let hierarchy = Hierarchy::find().inspect_err(|error| log::debug!("no paths of control groups: {error}")).ok();
        Self { hierarchy, asked: HashSet::default() }
    }

    /// The path of a group, unless that was asked before.
    pub fn look_up(&mut self, id: u64) -> Option<Vec<u8>> {
        let is_new = self.asked.insert(id);
        self.hierarchy.as_mut().filter(|_| is_new)?.path(id)
    }

    /// Notes the path of a group, unless that was tried before.
    pub fn learn(&mut self, id: u64, names: &mut Names) {
        if let Some(path) = self.look_up(id) {
            names.name_group(id, Group::at(&path));
        }
    }
}

impl Hierarchy {
    fn find() -> io::Result<Self> {
        let table = fs::read(MOUNTS).map_err(about(MOUNTS))?;
        let mount = Mount::among(&table).ok_or(io::ErrorKind::NotFound)?;
        let directory = File::open(&mount.point).map_err(about(mount.point.display()))?;
        Ok(Self { mount, directory, walked: None })
    }

    fn path(&mut self, id: u64) -> Option<Vec<u8>> {
        if let Some(walked) = &self.walked {
            return self.mount.inside(walked.get(&id)?);
        }
        match self.look_up(id) {
            Ok(path) => self.mount.inside(&path),
            // The group is gone.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => None,
            Err(error) => {
                log::debug!("cannot look up control groups, walking through them instead: {error}");
                self.walk(id)
            }
        }
    }

    fn walk(&mut self, id: u64) -> Option<Vec<u8>> {
        let walked = self.walked.insert(walk(&self.mount.point, MOST_DIRECTORIES));
        self.mount.inside(walked.get(&id)?)
    }

    /// By its id, which takes `CAP_DAC_READ_SEARCH`.
    fn look_up(&self, id: u64) -> io::Result<PathBuf> {
        let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: KERNFS, id: id.to_ne_bytes() };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: the handle is laid out as the kernel wants it, and as long as it says.
        let fd = unsafe { libc::open_by_handle_at(self.directory.as_raw_fd(), (&raw mut handle).cast(), flags) };
        let fd = Errno::result(fd)?;
        // SAFETY: the kernel has just opened it, for nobody else.
        let group = unsafe { OwnedFd::from_raw_fd(fd) };
        fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd()))
    }
}

impl Mount {
    /// The best one in the text of `/proc/PID/mountinfo`: one that shows everything, if there is.
    fn among(table: &[u8]) -> Option<Self> {
        let mut mounts: Vec<Self> = table.split(|byte| *byte == b'\n').filter_map(Self::parse).collect();
        let best = mounts.iter().position(|mount| mount.root == b"/").unwrap_or(0);
        (!mounts.is_empty()).then(|| mounts.swap_remove(best))
    }

    /// `31 23 0:28 ROOT POINT options … - TYPE source options`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let mount = || Self { point: std::ffi::OsString::from_vec(unescape(point)).into(), root: unescape(root) };
        (kind == b"cgroup2").then(mount)
    }

    /// The path in the hierarchy of a directory below the mount point.
    fn inside(&self, directory: &Path) -> Option<Vec<u8>> {
        let below = directory.strip_prefix(&self.point).ok()?.as_os_str().as_bytes();
        let mut path = if self.root == b"/" { Vec::new() } else { self.root.clone() };
        if !below.is_empty() || path.is_empty() {
            path.push(b'/');
            path.extend(below);
        }
        Some(path)
    }
}

/// Undoes `\040` and the like.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| byte == b'\\').and_then(octal);
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Every directory below `top`, by inode number, which is the id of a control group.
fn walk(top: &Path, at_most: usize) -> HashMap<u64, PathBuf, FixedState> {
    let mut found = HashMap::default();
    let mut todo = Vec::new();
    if let Ok(metadata) = fs::metadata(top) {
        todo.push((metadata.ino(), top.to_path_buf()));
    }
    while let Some((id, path)) = todo.pop() {
        if found.len() == at_most {
            log::warn!("more than {at_most} control groups: not all of them have names");
            break;
        }
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        todo.extend(directories.map(|entry| (entry.ino(), entry.path())));
        found.insert(id, path);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control group, until dropped.
    struct Made(PathBuf);

    impl Made {
        fn new(name: &str) -> Self {
            let mount = Hierarchy::find().expect("a unified hierarchy").mount.point;
            let directory = mount.join(format!("{name}-{}", std::process::id()));
            fs::create_dir(&directory).expect("make a control group: this test needs root");
            Self(directory)
        }

        fn id(&self) -> u64 {
            fs::metadata(&self.0).expect("look at it").ino()
        }

        fn path(&self) -> Vec<u8> {
            [b"/", self.0.file_name().expect("it has a name").as_bytes()].concat()
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).ok();
        }
    }

    fn learnt(groups: &mut Groups, id: u64) -> Option<Vec<u8>> {
        let mut names = Names::default();
        groups.learn(id, &mut names);
        names.group(id).map(|group| group.path.to_vec())
    }

    #[test]
    fn the_group_of_this_process_has_the_path_that_the_kernel_says() {
        let table = fs::read_to_string("/proc/self/cgroup").expect("read it");
        let own = table.lines().find_map(|line| line.strip_prefix("0::")).expect("a unified hierarchy");
        let mount = Hierarchy::find().expect("a unified hierarchy").mount.point;
        let id = fs::metadata(mount.join(own.trim_start_matches('/'))).expect("look at it").ino();
        assert_eq!(learnt(&mut Groups::new(), id).as_deref(), Some(own.as_bytes()));
    }

    #[test]
    fn a_group_is_looked_up_once() {
        let made = Made::new("tcptrace-looked-up");
        let mut groups = Groups::new();
        assert_eq!(learnt(&mut groups, made.id()), Some(made.path()));
        assert!(groups.hierarchy.as_ref().is_some_and(|hierarchy| hierarchy.walked.is_none()), "these tests need root");
        assert_eq!(learnt(&mut groups, made.id()), None);
    }

    #[test]
    fn a_group_that_is_gone_has_no_path() {
        let made = Made::new("tcptrace-gone");
        let id = made.id();
        drop(made);
        assert_eq!(learnt(&mut Groups::new(), id), None);
        assert_eq!(learnt(&mut Groups::new(), 0), None);
        assert_eq!(learnt(&mut Groups::new(), u64::MAX), None);
    }

    #[test]
    fn walking_finds_the_same() {
        let made = Made::new("tcptrace-walked");
        let mut hierarchy = Hierarchy::find().expect("a unified hierarchy");
        assert_eq!(hierarchy.walk(made.id()), Some(made.path()));
        assert_eq!(hierarchy.path(made.id()), Some(made.path()));
        assert_eq!(walk(&hierarchy.mount.point, 1).len(), 1);
    }

    #[test]
    fn the_mount_that_shows_everything_is_preferred() {
        let table = b"\
            31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            40 31 0:41 /docker/x /part rw shared:1 master:2 - cgroup2 cgroup2 rw\n\
            41 31 0:41 / /a\\040b rw,relatime shared:3 - cgroup2 cgroup2 rw\n";
        let everything = Mount { point: "/a b".into(), root: b"/".to_vec() };
        assert_eq!(Mount::among(table), Some(everything));
        assert_eq!(Mount::among(b"31 23 0:28 / /x rw - tmpfs - cgroup2\n\n31 23\n"), None);
    }

    #[test]
    fn a_path_is_that_in_the_hierarchy() {
        let inside = |root: &str, directory: &str| {
            let mount = Mount { point: "/sys/fs/cgroup".into(), root: root.into() };
            mount.inside(Path::new(directory)).map(|path| String::from_utf8(path).expect("UTF-8"))
        };
        assert_eq!(inside("/", "/sys/fs/cgroup").as_deref(), Some("/"));
        assert_eq!(inside("/", "/sys/fs/cgroup/a/b").as_deref(), Some("/a/b"));
        assert_eq!(inside("/docker/x", "/sys/fs/cgroup").as_deref(), Some("/docker/x"));
        assert_eq!(inside("/docker/x", "/sys/fs/cgroup/a").as_deref(), Some("/docker/x/a"));
        assert_eq!(inside("/", "/elsewhere"), None);
        assert_eq!(inside("/", "/sys/fs/cgroups"), None);
    }

    #[test]
    fn only_octal_escapes_are_undone() {
        assert_eq!(unescape(br"a\040b\\x\9\777\"), br"a b\\x\9\777\");
        assert_eq!(unescape(br"\134"), br"\");
    }
}
