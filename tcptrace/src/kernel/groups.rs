//! The paths of control groups, which the kernel identifies by number.

mod process;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use nix::errno::Errno;
use nix::libc;

use self::process::Processes;
use super::about;
use super::clock::thread_time;
use super::containers::Containers;
use crate::model::labels::Labels;
use crate::model::names::{Group, Names};

/// The table of mounts.
const MOUNTS: &str = "/proc/self/mountinfo";

/// `FILEID_KERNFS`: a handle is the id of a control group.
const KERNFS: i32 = 0xfe;

/// How many directories to walk through where ids cannot be looked up.
const MOST_DIRECTORIES: usize = 100_000;
/// How long to rest before the next walk, as a multiple of the last one: walks take at most a twentieth of one CPU.
const REST: u32 = 20;
/// The shortest rest.
const REST_AT_LEAST: Duration = Duration::from_secs(1);

/// Finds the paths of control groups.
#[derive(Debug)]
pub struct Groups {
    hierarchy: Option<Hierarchy>,
    processes: Processes,
    lent: Lent,
    containers: Containers,
}

/// Time spent on finding the groups of processes, in the second that began then.
#[derive(Debug)]
struct Lent {
    since: Instant,
    took: Duration,
}

/// The most time spent on that in a second: further groups are unknown.
const MOST_LENT: Duration = Duration::from_millis(50);

/// The result of looking up a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// Its path in the hierarchy.
    Path(Vec<u8>),
    /// It is gone, or its path cannot be found.
    Nameless,
    /// It may have a path: another look-up may find it.
    Later,
}

/// The unified hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount: Mount,
    directory: File,
    /// Every group, where ids cannot be looked up.
    walked: Option<Walked>,
    /// Kinds of errors that were reported.
    reported: HashSet<Option<i32>, FixedState>,
    /// A walk missed some group, too early or too late, and that was reported.
    has_missed: bool,
}

/// The groups that existed at the last walk.
#[derive(Debug)]
struct Walked {
    paths: HashMap<u64, PathBuf, FixedState>,
    /// Earliest time of the next walk.
    rested: Instant,
}

/// Where it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Its root in the hierarchy: `/`, or below that.
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
    /// Looks for the mount of control groups. Without one there are no paths.
    pub fn new() -> Self {
        let hierarchy = Hierarchy::find().inspect_err(|error| log::debug!("cannot find control groups: {error}")).ok();
        let lent = Lent { since: Instant::now(), took: Duration::ZERO };
        Self { hierarchy, processes: Processes::new(), lent, containers: Containers::below("/") }
    }

    /// The path of a group.
    pub fn look_up(&mut self, id: u64) -> LookUp {
        self.hierarchy.as_mut().map_or(LookUp::Nameless, |hierarchy| hierarchy.path(id))
    }

    /// The id of a process's group now; `None` when unknown, or when the time for look-ups is used up.
    pub fn of_process(&mut self, pid: u32) -> Option<u64> {
        let mount = &self.hierarchy.as_ref()?.mount;
        let begun = Instant::now();
        if begun.duration_since(self.lent.since) >= Duration::from_secs(1) {
            self.lent = Lent { since: begun, took: Duration::ZERO };
        }
        if self.lent.took >= MOST_LENT {
            return None;
        }
        let group = self.processes.group(pid, mount);
        self.lent.took += begun.elapsed();
        group
    }

    /// Notes the path of a group, unless it is known.
    pub fn learn(&mut self, id: u64, names: &mut Names) {
        if names.group(id).is_none()
            && let LookUp::Path(path) = self.look_up(id)
        {
            let mut group = Group::at(&path);
            group.labels.complete(self.labels(&group));
            names.name_group(id, group);
        }
    }

    /// The names of the container of a group, as far as files on this host have them.
    pub fn labels(&mut self, group: &Group) -> Labels {
        self.containers.labels(group)
    }

    /// The wanted groups ([`Group::is`]) that do not exist now; `None` without any control groups.
    pub fn missing<'w>(&self, wanted: &'w [String]) -> Option<Vec<&'w str>> {
        let mount = &self.hierarchy.as_ref()?.mount;
        let mut missing: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for (_, directory) in Directories::below(&mount.point).take(MOST_DIRECTORIES) {
            if missing.is_empty() {
                break;
            }
            let group = mount.inside(&directory).map(|path| Group::at(&path));
            missing.retain(|wanted| !group.as_ref().is_some_and(|group| group.is(wanted)));
        }
        Some(missing)
    }
}

impl Hierarchy {
    fn find() -> io::Result<Self> {
        let table = fs::read(MOUNTS).map_err(about(MOUNTS))?;
        let mount = Mount::among(&table).ok_or(io::ErrorKind::NotFound)?;
        let directory = File::open(&mount.point).map_err(about(mount.point.display()))?;
        Ok(Self { mount, directory, walked: None, reported: HashSet::default(), has_missed: false })
    }

    fn path(&mut self, id: u64) -> LookUp {
        if self.walked.is_some() {
            return self.find_walked(id);
        }
        match self.look_up(id) {
            Ok(path) => self.mount.inside(&path).map_or(LookUp::Nameless, LookUp::Path),
            Err(error) => self.path_after(id, &error),
        }
    }

    /// Handles a failed look-up.
    fn path_after(&mut self, id: u64, error: &io::Error) -> LookUp {
        let (found, cost) = match Failure::of(error) {
            Failure::Gone => return LookUp::Nameless,
            Failure::Never => {
                log::debug!("cannot look up control groups, walking through them instead: {error}");
                return self.find_walked(id);
            }
            Failure::ThisOne => (LookUp::Nameless, "the sockets of a control group are shown without its path"),
            Failure::Now => (LookUp::Later, "sockets may be shown without the path of their control group"),
        };
        if self.reported.insert(error.raw_os_error()) {
            log::warn!("{cost}: {error}");
        }
        found
    }

    /// The path of a group where ids cannot be looked up. A group that the last walk did not find may be newer.
    fn find_walked(&mut self, id: u64) -> LookUp {
        let find = |mount: &Mount, walked: &Walked| walked.paths.get(&id).and_then(|directory| mount.inside(directory));
        if let Some(walked) = &self.walked {
            if let Some(path) = find(&self.mount, walked) {
                return LookUp::Path(path);
            }
            if Instant::now() < walked.rested {
                self.report_miss();
                return LookUp::Later;
            }
        }
        let walked = self.walk();
        let path = find(&self.mount, &walked);
        self.walked = Some(walked);
        path.map_or(LookUp::Nameless, LookUp::Path)
    }

    fn report_miss(&mut self) {
        if !std::mem::replace(&mut self.has_missed, true) {
            log::warn!(
                "short-lived control groups may have no name: looking them up at once needs CAP_DAC_READ_SEARCH"
            );
        }
    }

    fn walk(&mut self) -> Walked {
        // The last walk is of no more use, and can be large.
        self.walked = None;
        let before = thread_time();
        let mut directories = Directories::below(&self.mount.point);
        let paths = directories.by_ref().take(MOST_DIRECTORIES).collect();
        if directories.next().is_some() && self.reported.insert(None) {
            log::warn!("more than {MOST_DIRECTORIES} control groups: some of them have no name");
        }
        let took = thread_time().saturating_sub(before);
        Walked { paths, rested: Instant::now() + (took * REST).max(REST_AT_LEAST) }
    }

    /// Looks up by id, which needs `CAP_DAC_READ_SEARCH`.
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

/// The meaning of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The group is gone.
    Gone,
    /// Nothing can be looked up, now or later.
    Never,
    /// This group cannot be looked up.
    ThisOne,
    /// Nothing can be looked up now.
    Now,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESTALE | libc::ENOENT) => Self::Gone,
            // It needs `CAP_DAC_READ_SEARCH`, and a kernel with support for it.
            Some(libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::ENOSYS) => Self::Never,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR | libc::EAGAIN) => Self::Now,
            // Such as ENAMETOOLONG: `d_path` in `fs/d_path.c` writes no path that is longer than a page.
            _ => Self::ThisOne,
        }
    }
}

impl Mount {
    /// The best one in the text of `/proc/PID/mountinfo`: one that shows the whole hierarchy, if possible.
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

/// Where a directory lies in the hierarchy that any table of mounts shows.
#[cfg(feature = "fuzz")]
pub(super) fn read_any(mounts: &[u8], directory: &Path) -> Option<Vec<u8>> {
    Mount::among(mounts)?.inside(directory)
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

/// A directory and every one below it, by inode number, which is the id of a control group.
struct Directories {
    todo: Vec<(u64, PathBuf)>,
}

impl Directories {
    fn below(top: &Path) -> Self {
        let top = fs::metadata(top).map(|metadata| (metadata.ino(), top.to_path_buf()));
        Self { todo: top.into_iter().collect() }
    }
}

impl Iterator for Directories {
    type Item = (u64, PathBuf);

    fn next(&mut self) -> Option<Self::Item> {
        let (id, path) = self.todo.pop()?;
        // A directory that is gone, or too deep for a path, has nothing below it that could be named.
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        self.todo.extend(directories.map(|entry| (entry.ino(), entry.path())));
        Some((id, path))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rstest::rstest;
    use tcptrace_tests::ability::need_root;

    use super::*;

    /// A control group, until dropped.
    pub(in super::super) struct Made(pub(in super::super) PathBuf);

    impl Made {
        pub(in super::super) fn new(name: &str) -> Self {
            need_root();
            let mount = Hierarchy::find().expect("a unified hierarchy").mount.point;
            let directory = mount.join(format!("{name}-{}", std::process::id()));
            fs::create_dir(&directory).expect("make a control group");
            Self(directory)
        }

        pub(in super::super) fn id(&self) -> u64 {
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

    /// A control group so deep that its path is longer than `PATH_MAX`, until dropped.
    struct Deep {
        top: Made,
        /// Each within the one before it.
        below: Vec<File>,
    }

    /// A name nearly as long as they come.
    const LONG: [u8; 250] = [b'd'; 250];

    impl Deep {
        fn new(name: &str) -> Self {
            let top = Made::new(name);
            let mut deep = Self { below: vec![File::open(&top.0).expect("open it")], top };
            while (deep.below.len() - 1) * LONG.len() <= libc::PATH_MAX as usize {
                let next = deep.within_last();
                fs::create_dir(&next).expect("make a control group");
                deep.below.push(File::open(&next).expect("open it"));
            }
            deep
        }

        /// No path leads to it from the root.
        fn within_last(&self) -> PathBuf {
            let last = self.below.last().expect("the top one").as_raw_fd();
            Path::new("/proc/self/fd").join(last.to_string()).join(std::ffi::OsStr::from_bytes(&LONG))
        }

        fn id(&self) -> u64 {
            self.below.last().and_then(|last| last.metadata().ok()).expect("look at it").ino()
        }
    }

    impl Drop for Deep {
        fn drop(&mut self) {
            while self.below.len() > 1 {
                self.below.pop();
                fs::remove_dir(self.within_last()).ok();
            }
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

    #[tcptrace_tests::test]
    fn a_group_is_looked_up_by_its_id() {
        let made = Made::new("tcptrace-looked-up");
        let mut groups = Groups::new();
        assert_eq!(learnt(&mut groups, made.id()), Some(made.path()));
        assert!(groups.hierarchy.as_ref().is_some_and(|hierarchy| hierarchy.walked.is_none()));
    }

    #[tcptrace_tests::test]
    fn a_name_that_is_known_is_not_looked_up() {
        let made = Made::new("tcptrace-known");
        let mut names = Names::default();
        names.name_group(made.id(), Group::at(b"/known"));
        Groups::new().learn(made.id(), &mut names);
        assert_eq!(names.group(made.id()), Some(&Group::at(b"/known")));
    }

    /// A group whose path is too long once cost all later groups their names.
    #[tcptrace_tests::test]
    fn a_path_that_is_too_long_costs_its_own_name_only() {
        let deep = Deep::new("tcptrace-deep");
        let mut groups = Groups::new();
        assert_eq!(groups.look_up(deep.id()), LookUp::Nameless);
        let later = Made::new("tcptrace-later");
        assert_eq!(groups.look_up(later.id()), LookUp::Path(later.path()));
        assert_eq!(groups.look_up(deep.top.id()), LookUp::Path(deep.top.path()));
    }

    /// Such a descriptor once hid all higher descriptors of its process.
    #[tcptrace_tests::test]
    fn a_descriptor_of_a_path_that_is_too_long_hides_no_other() {
        let deep = Deep::new("tcptrace-deep-opened");
        let deepest = deep.below.last().expect("the top one").as_raw_fd();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        // Lower numbers may have become free.
        let copy =
            nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(deepest + 1)).expect("duplicate it");
        // SAFETY: it was made just now, for nobody else.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        drop(socket);
        let inode = nix::sys::stat::fstat(&copy).expect("look at it").st_ino;
        let holders = crate::kernel::holders(|wanted| u64::from(wanted) == inode, |_| false).expect("read /proc");
        let holding = holders.of(u32::try_from(inode).expect("32 bits"));
        assert_eq!(holding.map(|holding| holding.task.pid), Some(std::process::id()));
    }

    #[tcptrace_tests::test]
    fn a_path_that_is_too_long_does_not_end_a_walk() {
        let deep = Deep::new("tcptrace-deep-walked");
        let others = ["tcptrace-a", "tcptrace-z"].map(Made::new);
        let mut hierarchy = Hierarchy::find().expect("a unified hierarchy");
        hierarchy.walked = Some(hierarchy.walk());
        for other in others.iter().chain([&deep.top]) {
            assert_eq!(hierarchy.path(other.id()), LookUp::Path(other.path()));
        }
    }

    /// tcptrace walks to a group that it cannot look up, and walks again after the rest.
    #[tcptrace_tests::test]
    fn walking_finds_groups_made_later() {
        let mut hierarchy = Hierarchy::find().expect("a unified hierarchy");
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(hierarchy.path_after(0, &refused), LookUp::Nameless);
        let made = Made::new("tcptrace-made-later");
        let rest = |hierarchy: &mut Hierarchy, until| hierarchy.walked.as_mut().expect("it has walked").rested = until;
        rest(&mut hierarchy, Instant::now() + Duration::from_secs(3600));
        assert_eq!(hierarchy.path(made.id()), LookUp::Later);
        rest(&mut hierarchy, Instant::now());
        assert_eq!(hierarchy.path(made.id()), LookUp::Path(made.path()));
        let walked = hierarchy.walked.as_ref().expect("it has walked");
        assert!(walked.rested > Instant::now(), "it rests again");
        assert_eq!(hierarchy.path(0), LookUp::Later);
    }

    #[rstest]
    #[case::removed(libc::ESTALE, Failure::Gone, false)]
    #[case::no_capability(libc::EPERM, Failure::Never, true)]
    #[case::no_handles(libc::EOPNOTSUPP, Failure::Never, true)]
    #[case::too_deep(libc::ENAMETOOLONG, Failure::ThisOne, false)]
    #[case::unforeseen(libc::EIO, Failure::ThisOne, false)]
    #[case::descriptors(libc::EMFILE, Failure::Now, false)]
    #[case::memory(libc::ENOMEM, Failure::Now, false)]
    #[tcptrace_tests::test]
    fn errors_cost_what_they_must(#[case] errno: i32, #[case] expected: Failure, #[case] walks: bool) {
        let error = io::Error::from_raw_os_error(errno);
        assert_eq!(Failure::of(&error), expected);
        let made = Made::new(&format!("tcptrace-errno-{errno}"));
        let mut hierarchy = Hierarchy::find().expect("a unified hierarchy");
        let found = hierarchy.path_after(made.id(), &error);
        assert_eq!(found == LookUp::Path(made.path()), walks, "{found:?}");
        assert_eq!(found == LookUp::Later, expected == Failure::Now);
        // The next one has its name in any case.
        assert_eq!(hierarchy.path(made.id()), LookUp::Path(made.path()));
    }

    #[tcptrace_tests::test]
    fn what_is_missing_is_known() {
        let made = Made::new("tcptrace-present");
        let path = String::from_utf8(made.path()).expect("UTF-8");
        let wanted = ["/", &path, &format!("{path}/below"), "/tcptrace-absent", "absent.service"].map(str::to_owned);
        let groups = Groups::new();
        assert_eq!(groups.missing(&wanted), Some(vec![wanted[2].as_str(), "/tcptrace-absent", "absent.service"]));
        assert_eq!(groups.missing(&wanted[..2]), Some(vec![]));
        let nowhere = Groups { hierarchy: None, ..Groups::new() };
        assert_eq!(nowhere.missing(&wanted), None);
    }

    #[tcptrace_tests::test]
    fn a_group_that_is_gone_has_no_path() {
        let made = Made::new("tcptrace-gone");
        let id = made.id();
        drop(made);
        assert_eq!(learnt(&mut Groups::new(), id), None);
        assert_eq!(learnt(&mut Groups::new(), 0), None);
        assert_eq!(learnt(&mut Groups::new(), u64::MAX), None);
    }

    #[tcptrace_tests::test]
    fn walking_finds_the_same() {
        let made = Made::new("tcptrace-walked");
        let mut hierarchy = Hierarchy::find().expect("a unified hierarchy");
        assert_eq!(hierarchy.path(made.id()), LookUp::Path(made.path()));
        hierarchy.walked = Some(hierarchy.walk());
        assert_eq!(hierarchy.path(made.id()), LookUp::Path(made.path()));
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
