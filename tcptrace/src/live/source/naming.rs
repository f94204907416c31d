//! The names that events mention. Control groups and interfaces are looked up at once; network namespaces are
//! requested.

use std::collections::BTreeSet;

use super::announced::{Announced, Recalled};
use super::lookups::Lookups;
use super::processes::Processes;
use crate::kernel::{LookUp, Namespaces};
use crate::live::queries::{Queries, Question};
use crate::live::way::Way;
use crate::model::event::Event;
use crate::model::labels::Labels;
use crate::model::stream::Item;
use crate::model::transition::Transition;

/// Most interfaces that wait for their namespace.
const MOST_PENDING: usize = 64;

/// Looks up names, and knows which ones were announced.
#[derive(Debug)]
pub(super) struct Naming {
    /// Finds the paths of control groups, if names are wanted, and interfaces.
    lookups: Lookups,
    announced_groups: Announced<u64>,
    announced_namespaces: Announced<u32>,
    /// By namespace and index. Text output shows them, too.
    announced_interfaces: Announced<(u32, u32)>,
    /// Interfaces of namespaces that were not found yet.
    pending: BTreeSet<(u32, u32)>,
    /// The namespaces of the last search, which lead to interfaces.
    namespaces: Namespaces,
    /// The control groups of processes, if wanted.
    processes: Option<Processes>,
    /// How many namespaces had a name at the last search.
    named: usize,
    /// What events have mentioned a moment ago, and when: all of it is announced.
    settled: [(Mention, u64); SETTLED],
}

/// What the names of an event belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mention {
    netns: Option<u32>,
    cgroup: Option<u64>,
    process: Option<u32>,
}

/// Events that mention the same within this time, in ns, are not looked at again: less than anything here is kept.
const SETTLED_NS: u64 = 10_000_000;
/// How many are remembered.
const SETTLED: usize = 64;

impl Mention {
    /// Where it is remembered.
    fn place(self) -> usize {
        let Self { netns, cgroup, process } = self;
        let numbers = u64::from(netns.unwrap_or(0)) ^ cgroup.unwrap_or(1) ^ u64::from(process.unwrap_or(2)) << 20;
        (numbers.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
    }
}

impl Naming {
    /// Without `names`, only the names of interfaces and of found namespaces are announced. With `processes`, the
    /// control groups of processes are announced as well.
    pub(super) fn new(names: bool, processes: bool) -> Self {
        Self {
            lookups: Lookups::new(names),
            announced_groups: Announced::default(),
            announced_namespaces: Announced::default(),
            announced_interfaces: Announced::default(),
            pending: BTreeSet::new(),
            namespaces: Namespaces::default(),
            processes: processes.then(Processes::default),
            named: 0,
            settled: [<_>::default(); SETTLED],
        }
    }

    /// Has the helper look up from now on.
    pub(super) fn send_by(&mut self, way: Way) {
        self.lookups.send_by(way);
    }

    /// Announces the names that an event needs, or requests them.
    pub(super) fn learn(&mut self, event: &Event, queries: &mut Queries, items: &mut Vec<Item>) {
        let interface = event.interface();
        if !self.lookups.has_groups() && interface.is_none() {
            return;
        }
        let (netns, cgroup) = match event {
            Event::Change(change) => (change.netns, change.cgroup),
            Event::Found(found) => (found.netns, found.cgroup),
            Event::Holder(holder) => (holder.found.netns, holder.found.cgroup),
            Event::Mini(mini) => (mini.netns, None),
            Event::FailedCall(call) => (call.netns, None),
            Event::Accepted { .. } => (None, None),
            _ => return,
        };
        let mention = Mention { netns, cgroup, process: event.process() };
        self.learn_unless_settled(mention, event.at(), interface, queries, items);
    }

    /// Announces the names that a change needs, or requests them. `process` may have made it.
    pub(super) fn learn_of_change(
        &mut self,
        change: &impl Transition,
        process: Option<u32>,
        queries: &mut Queries,
        items: &mut Vec<Item>,
    ) {
        let (netns, cgroup, at) = (change.netns(), change.cgroup(), change.at());
        let interface = netns.filter(|_| change.interface() != 0).map(|netns| (netns, change.interface()));
        if !self.lookups.has_groups() && interface.is_none() {
            return;
        }
        self.learn_unless_settled(Mention { netns, cgroup, process }, at, interface, queries, items);
    }

    fn learn_unless_settled(
        &mut self,
        mention: Mention,
        at: u64,
        interface: Option<(u32, u32)>,
        queries: &mut Queries,
        items: &mut Vec<Item>,
    ) {
        let place = mention.place();
        let (known, since) = self.settled[place];
        if interface.is_none() && known == mention && at.wrapping_sub(since) < SETTLED_NS {
            return;
        }
        let before = items.len();
        self.learn_all(mention, at, interface, queries, items);
        let is_known = mention.cgroup.is_none_or(|id| matches!(self.announced_groups.recall(id), Recalled::Known));
        if interface.is_none() && is_known && items.len() == before {
            self.settled[place] = (mention, at);
        }
    }

    fn learn_all(
        &mut self,
        Mention { netns, cgroup, process }: Mention,
        at: u64,
        interface: Option<(u32, u32)>,
        queries: &mut Queries,
        items: &mut Vec<Item>,
    ) {
        // This comes before the first name: all names of this event follow it.
        if self.make_room(items) {
            queries.want(Question::Namespaces);
        }
        if let Some((netns, index)) = interface {
            self.learn_interface((netns, index), queries, items);
        }
        if !self.lookups.has_groups() {
            return;
        }
        if let Some(id) = cgroup {
            self.learn_group(id, items);
        }
        if let Some(pid) = process {
            self.learn_process(pid, at, items);
        }
        if let Some(inode) = netns {
            self.learn_namespace(inode, queries, items);
        }
    }

    fn learn_group(&mut self, id: u64, items: &mut Vec<Item>) {
        match self.announced_groups.recall(id) {
            Recalled::Known => {}
            Recalled::Again(path) => {
                let labels = self.lookups.labels(path);
                items.push(Item::Group { id, path: path.into() });
                items.extend(container(id, labels));
            }
            Recalled::Unknown => match self.lookups.group(id) {
                LookUp::Path(path) => {
                    self.announced_groups.note(id, Some(&path));
                    let labels = self.lookups.labels(&path);
                    items.push(Item::Group { id, path: path.into() });
                    items.extend(container(id, labels));
                }
                LookUp::Nameless => {
                    self.announced_groups.note(id, None);
                }
                LookUp::Later => {}
            },
        }
    }

    fn learn_process(&mut self, pid: u32, at: u64, items: &mut Vec<Item>) {
        let Self { processes: Some(processes), lookups, .. } = self else { return };
        if let Some(group) = processes.learn(pid, at, |pid| lookups.group_of_process(pid)) {
            items.push(Item::Process { pid, group });
            if let Some(id) = group {
                self.learn_group(id, items);
            }
        }
    }

    fn learn_namespace(&mut self, inode: u32, queries: &mut Queries, items: &mut Vec<Item>) {
        match self.announced_namespaces.recall(inode) {
            Recalled::Known => {}
            Recalled::Again(name) => items.push(Item::Namespace { inode, name: name.into() }),
            Recalled::Unknown => {
                self.announced_namespaces.note(inode, None);
                queries.want(Question::Namespaces);
            }
        }
    }

    fn learn_interface(&mut self, which: (u32, u32), queries: &mut Queries, items: &mut Vec<Item>) {
        match self.announced_interfaces.recall(which) {
            Recalled::Known => {}
            Recalled::Again(name) => {
                let (netns, index) = which;
                items.push(Item::Interface { netns, index, name: name.into() });
            }
            Recalled::Unknown => {
                if !self.name_interface(which, items) {
                    self.name_later(which, queries);
                }
            }
        }
    }

    /// Rows show the index until then.
    fn name_later(&mut self, which: (u32, u32), queries: &mut Queries) {
        self.announced_interfaces.note(which, None);
        if self.pending.len() < MOST_PENDING {
            self.pending.insert(which);
            queries.want(Question::Namespaces);
        }
    }

    /// Announces the name of an interface, if it can be looked up.
    fn name_interface(&mut self, which: (u32, u32), items: &mut Vec<Item>) -> bool {
        let (netns, index) = which;
        let Some(name) = self.lookups.interface(&self.namespaces, netns, index) else { return false };
        if self.announced_interfaces.note(which, Some(&name)) {
            items.push(Item::Interface { netns, index, name });
        }
        true
    }

    /// Announces the names of found namespaces, and of interfaces in them.
    pub(super) fn name_namespaces(&mut self, found: &Namespaces, items: &mut Vec<Item>) {
        self.namespaces = found.clone();
        self.named = found.iter().filter(|namespace| namespace.name.is_some()).count();
        self.make_room(items);
        for namespace in found.iter() {
            let Some(name) = namespace.name.as_deref() else { continue };
            if self.announced_namespaces.note(namespace.inode, Some(name)) {
                items.push(Item::Namespace { inode: namespace.inode, name: name.into() });
            }
        }
        for which in std::mem::take(&mut self.pending) {
            let is_found = found.iter().any(|namespace| namespace.inode == which.0);
            // A namespace that cannot be entered is not tried again.
            if !self.name_interface(which, items) && !is_found {
                self.pending.insert(which);
            }
        }
    }

    /// Begins a new generation of names if this one is full: later events announce their names again.
    fn make_room(&mut self, items: &mut Vec<Item>) -> bool {
        let too_many = self.processes.as_ref().is_some_and(Processes::is_full);
        let is_full = too_many
            || self.announced_groups.is_full(0)
            || self.announced_interfaces.is_full(0)
            || self.announced_namespaces.is_full(self.named);
        if is_full {
            self.announced_groups.advance();
            self.announced_namespaces.advance();
            self.announced_interfaces.advance();
            self.pending.clear();
            self.settled.fill(<_>::default());
            self.processes.iter_mut().for_each(Processes::advance);
            items.push(Item::NamesAnew);
        }
        is_full
    }
}

/// Announces the names of the container of a group.
fn container(group: u64, labels: Labels) -> Option<Item> {
    (!labels.is_empty()).then(|| Item::Container { group, labels: Box::new(labels) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::event::{Change, Id};
    use crate::model::tcp::{State, Tuple};

    fn change(netns: u32, cgroup: u64) -> Event {
        let ip = std::net::Ipv6Addr::LOCALHOST;
        Event::Change(Change {
            at: 1,
            id: Id::Cookie(cgroup),
            address: None,
            tuple: Tuple { local_ip: ip, remote_ip: ip, local_port: 1, remote_port: 2 },
            netns: Some(netns),
            uid: None,
            cgroup: Some(cgroup),
            interface: 0,
            old: State::Closed,
            new: State::SynSent,
            flags: None,
            task: None,
            idle: None,
            end: None,
        })
    }

    /// The id of the root group, which every system with control groups has.
    fn root() -> u64 {
        use std::os::unix::fs::MetadataExt;
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("read it");
        let line = table.lines().find(|line| line.contains(" - cgroup2 ")).expect("a unified hierarchy");
        let point = line.split(' ').nth(4).expect("a mount point");
        std::fs::metadata(point).expect("look at it").ino()
    }

    /// The names that an event mentions precede it, even if names are forgotten as soon as allowed.
    #[tcptrace_tests::test]
    fn every_name_precedes_its_event() {
        tcptrace_tests::ability::need_root();
        let root = root();
        let found = Namespaces::recorded([(7, &b"web"[..]), (8, b"db")].into_iter());
        let mut naming = Naming::new(true, false);
        let mut queries = Queries::new(tcptrace_common::Filter::default());
        let mut items = Vec::new();
        naming.name_namespaces(&found, &mut items);
        let (mut groups, mut namespaces, mut anew) = (HashSet::new(), HashSet::new(), 0);
        for gone in 0..20_000 {
            let id = u64::MAX - gone;
            for event in [change(7, id), change(7, root)] {
                naming.learn(&event, &mut queries, &mut items);
                for item in items.drain(..) {
                    match item {
                        Item::NamesAnew => {
                            groups.clear();
                            namespaces.clear();
                            anew += 1;
                        }
                        Item::Group { id, .. } => assert!(groups.insert(id), "announced twice"),
                        Item::Namespace { inode, .. } => assert!(namespaces.insert(inode), "announced twice"),
                        _ => unreachable!("no other item"),
                    }
                }
                assert!(namespaces.contains(&7), "{gone}");
            }
            assert!(groups.contains(&root), "{gone}");
        }
        assert_eq!(anew, 4);
        // Names that no event has mentioned since are announced again at the next search.
        naming.name_namespaces(&found, &mut items);
        assert_eq!(items, [Item::Namespace { inode: 8, name: b"db"[..].into() }]);
    }

    /// An interface has its name before the first event that mentions it if its namespace is known, and soon after
    /// otherwise.
    #[test]
    fn an_interface_is_named_once() {
        // The loopback is the first one of every namespace.
        let inode = Namespaces::own_namespace().expect("its inode");
        let event = |index| match change(inode, 1) {
            Event::Change(change) => Event::Change(Change { interface: index, ..change }),
            event => event,
        };
        // Text output needs names of interfaces, too.
        let mut naming = Naming::new(false, false);
        let mut queries = Queries::new(tcptrace_common::Filter::default());
        let (mut items, named) = (Vec::new(), Item::Interface { netns: inode, index: 1, name: b"lo"[..].into() });
        naming.learn(&event(1), &mut queries, &mut items);
        assert_eq!(items, [], "no search for namespaces has run");
        naming.name_namespaces(&Namespaces::find(), &mut items);
        assert!(items.contains(&named), "{items:?}");
        items.clear();
        naming.learn(&event(1), &mut queries, &mut items);
        assert_eq!(items, []);

        let mut naming = Naming::new(false, false);
        naming.name_namespaces(&Namespaces::find(), &mut Vec::new());
        naming.learn(&event(1), &mut queries, &mut items);
        naming.learn(&event(4_000), &mut queries, &mut items);
        naming.name_namespaces(&Namespaces::find(), &mut Vec::new());
        assert_eq!((items, naming.pending.len()), (vec![named], 0));
    }

    /// All namespaces are announced once, however many exist.
    #[test]
    fn existing_namespaces_do_not_begin_a_generation() {
        let names: Vec<(u32, Vec<u8>)> = (0..10_000).map(|inode| (inode, format!("n{inode}").into_bytes())).collect();
        let found = Namespaces::recorded(names.iter().map(|(inode, name)| (*inode, &name[..])));
        let mut naming = Naming::new(true, false);
        let mut items = Vec::new();
        naming.name_namespaces(&found, &mut items);
        assert_eq!(items.len(), 10_000);
        naming.name_namespaces(&found, &mut items);
        naming.learn(&change(3, u64::MAX), &mut Queries::new(tcptrace_common::Filter::default()), &mut items);
        assert_eq!(items.len(), 10_000);
        // Names of short-lived namespaces are not kept forever.
        let fewer = Namespaces::recorded(names.iter().take(10).map(|(inode, name)| (*inode, &name[..])));
        naming.name_namespaces(&fewer, &mut items);
        assert_eq!(items[10_000], Item::NamesAnew);
    }
}
