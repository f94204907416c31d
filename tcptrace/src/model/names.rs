//! Names for what the kernel only numbers: network namespaces, control groups and interfaces.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;
use hashlink::LruCache;

use super::labels::Labels;

/// The names found so far, for outputs to look up.
#[derive(Clone, Debug, Default)]
pub struct Names {
    namespaces: HashMap<u32, Box<[u8]>, FixedState>,
    groups: HashMap<u64, Group, FixedState>,
    /// By namespace and index.
    interfaces: HashMap<(Option<u32>, u32), Box<str>, FixedState>,
    /// The control groups of processes, by process id.
    processes: Processes,
}

/// The control groups of the processes mentioned last, by process id.
#[derive(Clone, Debug)]
struct Processes(LruCache<u32, Membership, FixedState>);

/// Processes kept at most.
const MOST_PROCESSES: usize = 1 << 16;

impl Default for Processes {
    fn default() -> Self {
        Self(LruCache::with_hasher(MOST_PROCESSES, FixedState::default()))
    }
}

/// The control groups that processes with one id have been in. Ids are used again, and processes move. So an earlier
/// answer holds for a later moment only if no other answer came since.
#[derive(Clone, Debug, Default)]
struct Membership {
    groups: Vec<u64>,
    /// There were other groups, which are unknown.
    has_others: bool,
}

/// Groups of one process id kept at most. Others are unknown.
const MOST_GROUPS: usize = 4;

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its path below the root of the hierarchy, such as `/system.slice/nginx.service`: any bytes.
    pub path: Box<[u8]>,
    /// The id of the container that it belongs to, where the path shows it.
    pub container: Option<Box<str>>,
    /// The innermost systemd unit that it belongs to, where the path shows it; a slice only if there is no other.
    pub unit: Option<Box<[u8]>>,
    /// The names of its container.
    pub labels: Labels,
}

impl Names {
    /// Notes the name of a network namespace, by its inode number.
    pub fn name_namespace(&mut self, inode: u32, name: &[u8]) {
        self.namespaces.insert(inode, name.into());
    }

    /// Notes the name of an interface, by its network namespace and index. A name that would need escaping is not used:
    /// its index says the same (RFC 4007).
    pub fn name_interface(&mut self, netns: Option<u32>, index: u32, name: &[u8]) {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.@:".contains(byte);
        let plain = str::from_utf8(name).ok().filter(|name| !name.is_empty() && name.bytes().all(|it| is_plain(&it)));
        self.interfaces.insert((netns, index), plain.map_or_else(|| index.to_string().into(), Into::into));
    }

    /// Notes what is known of a control group, by its id.
    pub fn name_group(&mut self, id: u64, group: Group) {
        self.groups.insert(id, group);
    }

    /// Notes the names of the container of a control group, which has its path already.
    pub fn name_container(&mut self, group: u64, labels: Labels) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.labels = labels;
        }
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

    /// Forgets all names except those of these namespaces, groups and interfaces, and of groups of processes.
    pub fn retain(
        &mut self,
        namespaces: &HashSet<u32, FixedState>,
        groups: &HashSet<u64, FixedState>,
        interfaces: &HashSet<(Option<u32>, u32), FixedState>,
    ) {
        let of_processes: HashSet<u64, FixedState> =
            self.processes.0.iter().flat_map(|(_, known)| &known.groups).copied().collect();
        self.namespaces.retain(|inode, _| namespaces.contains(inode));
        self.interfaces.retain(|interface, _| interfaces.contains(interface));
        self.groups.retain(|id, _| groups.contains(id) || of_processes.contains(id));
    }

    /// The names of one namespace, group and interface.
    #[must_use]
    pub fn only(&self, netns: Option<u32>, group: Option<u64>, interface: u32) -> Self {
        let mut names = Self::default();
        if let Some((inode, name)) = netns.and_then(|inode| Some((inode, self.namespace(inode)?))) {
            names.name_namespace(inode, name);
        }
        if let Some((id, group)) = group.and_then(|id| Some((id, self.group(id)?))) {
            names.name_group(id, group.clone());
        }
        if let Some(name) = self.interfaces.get(&(netns, interface)) {
            names.interfaces.insert((netns, interface), name.clone());
        }
        names
    }

    /// The name of a network namespace.
    pub fn namespace(&self, inode: u32) -> Option<&[u8]> {
        self.namespaces.get(&inode).map(AsRef::as_ref)
    }

    /// What stands for an interface in an address, after the `%`: ASCII that needs no escaping anywhere.
    pub fn interface(&self, netns: Option<u32>, index: u32) -> Option<&str> {
        self.interfaces.get(&(netns, index)).map(AsRef::as_ref)
    }

    /// What is known of a control group.
    pub fn group(&self, id: u64) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// Whether a process is in the wanted control group ([`Group::is`]); `None` when that is unknown.
    pub fn is_process_in(&self, pid: u32, wanted: &str) -> Option<bool> {
        self.is_process_where(pid, |group| group.is(wanted))
    }

    /// Whether the control group of a process is such a one; `None` when it is unknown.
    pub fn is_process_where(&self, pid: u32, is: impl Fn(&Group) -> bool) -> Option<bool> {
        let known = self.processes.0.peek(&pid).filter(|known| !known.has_others)?;
        let mut answers = known.groups.iter().map(|id| self.group(*id).map(&is));
        let first = answers.next()??;
        answers.all(|answer| answer == Some(first)).then_some(first)
    }
}

/// What systemd appends to the names of units that can have processes. Those of a socket unit prepare its sockets, which
/// keep that control group whichever service accepts from them.
const UNITS: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

/// Groups units.
const SLICE: &[u8] = b".slice";

/// Digits of the id of a container.
const ID: usize = 64;

/// Container tools show this many digits of an id.
const SHORT_ID: usize = 12;

impl Group {
    /// The group at a path. The container and the unit are the innermost ones.
    pub fn at(path: &[u8]) -> Self {
        let container: Option<Box<str>> = components(path).rev().find_map(container).map(Into::into);
        // That of LXC and nspawn is a name already.
        let container_name = container.clone().filter(|container| !is_id(container.as_bytes()));
        let labels = Labels { container_name, ..Labels::default() };
        Self { path: path.into(), container, unit: unit(path).map(Into::into), labels }
    }

    /// Whether its container has an id, and not a name only.
    pub fn has_container_id(&self) -> bool {
        self.container.as_deref().is_some_and(|container| is_id(container.as_bytes()))
    }

    /// Whether it is the wanted one: at this path or below, in the container with this name or id (or the beginning of
    /// it, 12 digits at least), or in this unit (`nginx` stands for `nginx.service`). A unit can be in slices, and in
    /// units whose managers are nested: that of a user (`user@1000.service`), that of a container. Each of them counts.
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
        let is_wanted = |unit: &[u8]| unit == wanted || unit.strip_suffix(b".service") == Some(wanted);
        let mut units = components(&self.path).map(unescaped).filter(|name| is_one_of(name, &UNITS) || is_slice(name));
        !wanted.is_empty() && units.any(is_wanted)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
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
    let mut names = components(path).map(unescaped);
    let innermost = names.clone().rfind(|name| is_one_of(name, &UNITS));
    innermost.or_else(|| names.rfind(|name| is_slice(name)))
}

/// The name of a unit. systemd puts `_` before those that the kernel or it itself could take for something else, such as
/// `memory.service`, and before those that begin with `_` (`cg_escape` in its `cgroup-util.c`).
fn unescaped(component: &[u8]) -> &[u8] {
    component.strip_prefix(b"_").unwrap_or(component)
}

fn is_one_of(name: &[u8], suffixes: &[&[u8]]) -> bool {
    suffixes.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

fn is_slice(name: &[u8]) -> bool {
    is_one_of(name, &[SLICE])
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
    #[case("/system.slice/web.socket", None, Some("web.socket"))]
    #[case("/system.slice/srv-data.mount", None, Some("srv-data.mount"))]
    #[case("/system.slice/dev-sda2.swap", None, Some("dev-sda2.swap"))]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/web.socket", None, Some("web.socket"))]
    #[case("/user.slice/user-1000.slice/user@1000.service/init.scope", None, Some("init.scope"))]
    #[case("/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.socket", Some("web"), Some("a.socket"))]
    #[case("/system.slice/_memory.service", None, Some("memory.service"))]
    #[case("/system.slice/__x.service", None, Some("_x.service"))]
    #[case("/system.slice/a.target", None, Some("system.slice"))]
    #[case("/x/.socket", None, None)]
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

    #[rstest]
    #[case(b"eth0.7", "eth0.7")]
    #[case(b"veth1@if2", "veth1@if2")]
    #[case(b"a\"b", "5")]
    #[case(b"a,b", "5")]
    #[case(b"\x1b[2J", "5")]
    #[case(b"\xff", "5")]
    #[case(b"", "5")]
    fn an_interface_has_a_harmless_name(#[case] name: &[u8], #[case] expected: &str) {
        let mut names = Names::default();
        names.name_interface(Some(1), 5, name);
        assert_eq!((names.interface(Some(1), 5), names.interface(Some(2), 5)), (Some(expected), None));
    }

    #[test]
    fn interfaces_of_live_sockets_are_kept() {
        let mut names = Names::default();
        names.name_interface(Some(1), 5, b"eth0");
        names.name_interface(Some(2), 5, b"eth1");
        names.retain(&HashSet::default(), &HashSet::default(), &HashSet::from_iter([(Some(2), 5)]));
        assert_eq!([names.interface(Some(1), 5), names.interface(Some(2), 5)], [None, Some("eth1")]);
        assert_eq!(names.only(Some(2), None, 5).interface(Some(2), 5), Some("eth1"));
        assert_eq!(names.only(Some(2), None, 4).interface(Some(2), 5), None);
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
    #[case("/system.slice/nginx.service", "system.slice", true)]
    #[case("/system.slice/nginx.service", "system", false)]
    #[case("/system.slice/web.socket", "web.socket", true)]
    #[case("/system.slice/web.socket", "web", false)]
    #[case("/system.slice/srv-data.mount", "srv-data.mount", true)]
    #[case("/system.slice/dev-sda2.swap", "dev-sda2.swap", true)]
    #[case("/system.slice/_memory.service", "memory", true)]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user@1000.service", true)]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user@1000", true)]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user-1000.slice", true)]
    #[case("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "foo", true)]
    #[case("/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service", "systemd-nspawn@web", true)]
    #[case("/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service", "a.service", true)]
    #[case("/docker/HEX/system.slice/nginx.service", "nginx", true)]
    #[case("/docker/nginx", "nginx", false)]
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
