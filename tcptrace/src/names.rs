//! Names for what the kernel only numbers: network namespaces and control groups.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;
use hashlink::LruCache;

/// What is known of them. Whoever finds a name notes it here; outputs look it up.
#[derive(Clone, Debug, Default)]
pub struct Names {
    namespaces: HashMap<u32, Box<[u8]>, FixedState>,
    groups: HashMap<u64, Group, FixedState>,
    /// The control groups of processes, by process id.
    processes: Processes,
}

/// By process id, those that were spoken of last.
#[derive(Clone, Debug)]
struct Processes(LruCache<u32, Membership, FixedState>);

/// So many of them are kept.
const MOST_PROCESSES: usize = 1 << 16;

impl Default for Processes {
    fn default() -> Self {
        Self(LruCache::with_hasher(MOST_PROCESSES, FixedState::default()))
    }
}

/// The control groups that processes with one id have been in. Ids are used again, and processes move: what was said of
/// an earlier moment holds for a later one only where nothing else was said since.
#[derive(Clone, Debug, Default)]
struct Membership {
    groups: Vec<u64>,
    /// There were others, which nobody knows.
    has_others: bool,
}

/// So many groups of one process id are kept. Others are unknown.
const MOST_GROUPS: usize = 4;

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its path below the root of the hierarchy, such as `/system.slice/nginx.service`: any bytes.
    pub path: Box<[u8]>,
    /// The id of the container that it belongs to, where the path tells.
    pub container: Option<Box<str>>,
    /// The systemd unit that it belongs to, where the path tells.
    pub unit: Option<Box<[u8]>>,
}

impl Names {
    /// Notes the name of a network namespace, by its inode number.
    pub fn name_namespace(&mut self, inode: u32, name: &[u8]) {
        self.namespaces.insert(inode, name.into());
    }

    /// Notes what is known of a control group, by its id.
    pub fn name_group(&mut self, id: u64, group: Group) {
        self.groups.insert(id, group);
    }

    /// Notes the control group of a process; `None` where it cannot be found any more.
    pub fn note_process(&mut self, pid: u32, group: Option<u64>) {
        let known = self.processes.0.entry(pid).or_insert_with(Membership::default);
        match group {
            Some(group) if known.groups.contains(&group) => {}
            Some(group) if known.groups.len() < MOST_GROUPS => known.groups.push(group),
            _ => known.has_others = true,
        }
    }

    /// Forgets all names but those of these namespaces and groups, and of groups of processes.
    pub fn retain(&mut self, namespaces: &HashSet<u32, FixedState>, groups: &HashSet<u64, FixedState>) {
        let of_processes: HashSet<u64, FixedState> =
            self.processes.0.iter().flat_map(|(_, known)| &known.groups).copied().collect();
        self.namespaces.retain(|inode, _| namespaces.contains(inode));
        self.groups.retain(|id, _| groups.contains(id) || of_processes.contains(id));
    }

    /// The name of a network namespace.
    pub fn namespace(&self, inode: u32) -> Option<&[u8]> {
        self.namespaces.get(&inode).map(AsRef::as_ref)
    }

    /// What is known of a control group.
    pub fn group(&self, id: u64) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// Whether a process is in the wanted control group ([`Group::is`]); `None` when that is unknown.
    pub fn is_process_in(&self, pid: u32, wanted: &str) -> Option<bool> {
        let known = self.processes.0.peek(&pid).filter(|known| !known.has_others)?;
        let mut answers = known.groups.iter().map(|id| self.group(*id).map(|group| group.is(wanted)));
        let first = answers.next()??;
        answers.all(|answer| answer == Some(first)).then_some(first)
    }
}

/// What systemd appends to the names of units that can have processes.
const UNITS: [&[u8]; 2] = [b".service", b".scope"];

/// Digits of the id of a container.
const ID: usize = 64;

/// So many digits of an id tell it from all others, as container tools show it.
const SHORT_ID: usize = 12;

impl Group {
    /// The group at a path. The container and the unit are the innermost ones.
    pub fn at(path: &[u8]) -> Self {
        let container = components(path).rev().find_map(container).map(Into::into);
        Self { path: path.into(), container, unit: unit(path).map(Into::into) }
    }

    /// Whether it is the wanted one: at this path or below, in the container with this name or id (or the beginning of
    /// it, 12 digits at least), or in this unit (`nginx` stands for `nginx.service`).
    pub fn is(&self, wanted: &str) -> bool {
        self.is_below(wanted.as_bytes()) || self.is_in_container(wanted) || self.is_in_unit(wanted.as_bytes())
    }

    fn is_below(&self, wanted: &[u8]) -> bool {
        let Some(ancestor) = wanted.strip_prefix(b"/") else { return false };
        let mut own = components(&self.path);
        !self.path.is_empty() && components(ancestor).all(|component| own.next() == Some(component))
    }

    fn is_in_container(&self, wanted: &str) -> bool {
        let Some(container) = self.container.as_deref() else { return false };
        let is_short = wanted.len() >= SHORT_ID && is_hex(wanted.as_bytes()) && is_id(container.as_bytes());
        container == wanted || is_short && container.starts_with(wanted)
    }

    fn is_in_unit(&self, wanted: &[u8]) -> bool {
        let Some(unit) = self.unit.as_deref() else { return false };
        !wanted.is_empty() && (unit == wanted || unit.strip_suffix(b".service") == Some(wanted))
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// The container that a directory is made for.
fn container(component: &[u8]) -> Option<&str> {
    let name = component.strip_prefix(b"lxc.payload.").or_else(|| nspawn(component)).or_else(|| engine(component))?;
    std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// `systemd-nspawn@NAME.service`. What `machine-NAME.scope` is for can as well be a virtual machine.
fn nspawn(component: &[u8]) -> Option<&[u8]> {
    component.strip_prefix(b"systemd-nspawn@")?.strip_suffix(b".service")
}

/// The id in `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-payload-ID` and the like.
/// `crio-conmon-ID.scope` is not the container, but what looks after it.
fn engine(component: &[u8]) -> Option<&[u8]> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    let (prefix, id) = name.split_at(name.len().checked_sub(ID)?);
    let is_apart = prefix.last().is_none_or(|byte| matches!(byte, b'-' | b':'));
    (is_id(id) && is_apart && !prefix.ends_with(b"conmon-")).then_some(id)
}

fn is_id(text: &[u8]) -> bool {
    text.len() == ID && is_hex(text)
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A slice only groups units, and stands for them where there is none.
fn unit(path: &[u8]) -> Option<&[u8]> {
    let innermost = |suffixes: &[&[u8]]| {
        let is_one = |name: &&[u8]| suffixes.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
        components(path).rfind(is_one)
    };
    innermost(&UNITS).or_else(|| innermost(&[b".slice"]))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[rstest]
    #[case("/", None, None)]
    #[case("/docker/HEX", Some("HEX"), None)]
    #[case("/system.slice/docker-HEX.scope", Some("HEX"), Some("docker-HEX.scope"))]
    #[case("/kubepods/burstable/pod1234-5678/HEX", Some("HEX"), None)]
    #[case(
        "/kubepods.slice/kubepods-pod12.slice/cri-containerd-HEX.scope",
        Some("HEX"),
        Some("cri-containerd-HEX.scope")
    )]
    #[case(
        "/system.slice/containerd.service/kubepods-pod1:cri-containerd:HEX",
        Some("HEX"),
        Some("containerd.service")
    )]
    #[case("/kubepods.slice/crio-HEX.scope/container", Some("HEX"), Some("crio-HEX.scope"))]
    #[case("/kubepods.slice/crio-conmon-HEX.scope", None, Some("crio-conmon-HEX.scope"))]
    #[case("/machine.slice/libpod-HEX.scope/container", Some("HEX"), Some("libpod-HEX.scope"))]
    #[case("/machine.slice/libpod-conmon-HEX.scope", None, Some("libpod-conmon-HEX.scope"))]
    #[case("/user.slice/user@1000.service/user.slice/libpod-payload-HEX", Some("HEX"), Some("user@1000.service"))]
    #[case("/docker/HEX/system.slice/nginx.service", Some("HEX"), Some("nginx.service"))]
    #[case("/lxc.payload.web/system.slice/nginx.service", Some("web"), Some("nginx.service"))]
    #[case("/lxc.monitor.web", None, None)]
    #[case("/lxc.payload.", None, None)]
    #[case("/machine.slice/systemd-nspawn@web.service/payload", Some("web"), Some("systemd-nspawn@web.service"))]
    #[case(r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", None, Some(r"machine-qemu\x2d1\x2dvm.scope"))]
    #[case("/system.slice/nginx.service", None, Some("nginx.service"))]
    #[case("/user.slice/user-0.slice/session-1.scope", None, Some("session-1.scope"))]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", None, Some("foo.service"))]
    #[case("/user.slice/user-1000.slice", None, Some("user-1000.slice"))]
    #[case("/x/.service", None, None)]
    #[case("/xHEX", None, None)]
    #[case("/HEX0", None, None)]
    fn a_path_tells_container_and_unit(
        #[case] path: &str,
        #[case] container: Option<&str>,
        #[case] unit: Option<&str>,
    ) {
        let spelt = |text: &str| text.replace("HEX", HEX);
        let group = Group::at(spelt(path).as_bytes());
        assert_eq!(group.container.as_deref(), container.map(spelt).as_deref());
        assert_eq!(group.unit.as_deref(), unit.map(spelt).as_deref().map(str::as_bytes));
    }

    #[test]
    fn a_path_is_any_bytes() {
        let group = Group::at(b"/lxc.payload.\xff/a\xff.service");
        assert_eq!(group.container, None);
        assert_eq!(group.unit.as_deref(), Some(&b"a\xff.service"[..]));
    }

    #[rstest]
    #[case("/system.slice/nginx.service", "/system.slice/nginx.service", true)]
    #[case("/system.slice/nginx.service", "/system.slice", true)]
    #[case("/system.slice/nginx.service", "/system.slice/", true)]
    #[case("/system.slice/nginx.service", "/system.sli", false)]
    #[case("/system.slice/nginx.service", "/system.slice/nginx.service/worker", false)]
    #[case("/system.slice/nginx.service", "/", true)]
    #[case("/", "/", true)]
    #[case("", "/", false)]
    #[case("/system.slice/nginx.service", "nginx.service", true)]
    #[case("/system.slice/nginx.service", "nginx", true)]
    #[case("/system.slice/nginx.service", "ngin", false)]
    #[case("/system.slice/nginx.service", "system.slice", false)]
    #[case("/system.slice/nginx.service", "", false)]
    #[case("/user.slice/session-1.scope", "session-1", false)]
    #[case("/user.slice/session-1.scope", "session-1.scope", true)]
    #[case("/docker/HEX", "HEX", true)]
    #[case("/docker/HEX", "0123456789ab", true)]
    #[case("/docker/HEX", "0123456789a", false)]
    #[case("/docker/HEX", "123456789abc", false)]
    #[case("/lxc.payload.web", "web", true)]
    #[case("/lxc.payload.abcdefabcdef0", "abcdefabcdef", false)]
    fn a_group_is_wanted_by_path_container_or_unit(#[case] path: &str, #[case] wanted: &str, #[case] expected: bool) {
        let spelt = |text: &str| text.replace("HEX", HEX);
        assert_eq!(Group::at(spelt(path).as_bytes()).is(&spelt(wanted)), expected);
    }
}
