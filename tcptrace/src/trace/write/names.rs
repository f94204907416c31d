//! The names that a file needs so that it can be read alone: pure.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use crate::model::event::Event;
use crate::model::labels::Labels;
use crate::model::stream::Item;

/// Names of network namespaces, control groups and interfaces. A file contains the names that its events mention.
#[derive(Debug, Default)]
pub(super) struct Names {
    namespaces: Known<u32, Box<[u8]>>,
    groups: Known<u64, Box<[u8]>>,
    /// The names of the containers of groups, by group.
    containers: Known<u64, Box<Labels>>,
    /// The groups of processes. There may be thousands, so no whole items are kept.
    processes: Known<u32, Option<u64>>,
    /// By namespace and index.
    interfaces: Known<(u32, u32), Box<[u8]>>,
    /// The last query; the next one is usually the same.
    asked: Needed,
}

/// Network namespace, control group, process and interface of an event.
type Needed = (Option<u32>, Option<u64>, Option<u32>, Option<(u32, u32)>);

#[derive(Debug)]
struct Known<K, N> {
    /// Names in the current file.
    written: HashMap<K, N, FixedState>,
    /// Names in earlier files.
    before: HashMap<K, N, FixedState>,
}

impl<K, N> Default for Known<K, N> {
    fn default() -> Self {
        Self { written: HashMap::default(), before: HashMap::default() }
    }
}

impl<K: Copy + Eq + Hash, N: Clone> Known<K, N> {
    fn learn(&mut self, key: K, name: &N) {
        self.before.remove(&key);
        self.written.insert(key, name.clone());
    }

    fn missing(&mut self, key: Option<K>) -> Option<(K, N)> {
        let key = key?;
        let name = self.before.remove(&key)?;
        self.written.insert(key, name.clone());
        Some((key, name))
    }

    fn turn(&mut self) {
        self.before.extend(self.written.drain());
    }
}

impl Names {
    /// Notes a name that was written into the file.
    pub(super) fn learn(&mut self, item: &Item) {
        match item {
            Item::Namespace { inode, name } => self.namespaces.learn(*inode, name),
            Item::Group { id, path } => self.groups.learn(*id, path),
            Item::Container { group, labels } => self.containers.learn(*group, labels),
            Item::Process { pid, group } => self.processes.learn(*pid, group),
            Item::Interface { netns, index, name } => self.interfaces.learn((*netns, *index), name),
            _ => {}
        }
    }

    /// The names that an event needs and that the file lacks: they belong before the event.
    pub(super) fn missing(&mut self, event: &Event) -> [Option<Item>; 7] {
        const NOTHING: [Option<Item>; 7] = [None, None, None, None, None, None, None];
        if self.is_all_written() {
            return NOTHING;
        }
        let (netns, cgroup) = match event {
            Event::Change(change) => (change.netns, change.cgroup),
            Event::Mini(mini) => (mini.netns, None),
            Event::Found(found) => (found.netns, found.cgroup),
            Event::Holder(holder) => (holder.found.netns, holder.found.cgroup),
            Event::FailedCall(call) => (call.netns, None),
            Event::Accepted { .. } => (None, None),
            _ => return NOTHING,
        };
        let needed = (netns, cgroup, event.process(), event.interface());
        if std::mem::replace(&mut self.asked, needed) == needed {
            return NOTHING;
        }
        let process = self.processes.missing(needed.2);
        let of_process = process.and_then(|(_, group)| group);
        let interface = self.interfaces.missing(needed.3);
        let namespace = self.namespaces.missing(netns);
        let [own, processes] = [cgroup, of_process].map(|id| (self.groups.missing(id), self.containers.missing(id)));
        let group = |(id, path)| Item::Group { id, path };
        let container = |(group, labels)| Item::Container { group, labels };
        [
            namespace.map(|(inode, name)| Item::Namespace { inode, name }),
            own.0.map(group),
            own.1.map(container),
            process.map(|(pid, group)| Item::Process { pid, group }),
            processes.0.map(group),
            processes.1.map(container),
            interface.map(|((netns, index), name)| Item::Interface { netns, index, name }),
        ]
    }

    /// Whether the file has all names that were ever written.
    pub(super) fn is_all_written(&self) -> bool {
        self.namespaces.before.is_empty()
            && self.groups.before.is_empty()
            && self.containers.before.is_empty()
            && self.processes.before.is_empty()
            && self.interfaces.before.is_empty()
    }

    /// Begins another file, which has no names yet.
    pub(super) fn turn(&mut self) {
        self.namespaces.turn();
        self.groups.turn();
        self.containers.turn();
        self.processes.turn();
        self.interfaces.turn();
        self.asked = Needed::default();
    }

    /// Every name that is needed from here on is written again, so that only recent names are kept.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Names of network namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let Known { written, before } = &self.namespaces;
        written.iter().chain(before).map(|(inode, name)| (*inode, &**name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Found, Id, Kept};
    use crate::model::tcp::{State, Tuple};

    fn group(id: u64) -> Item {
        Item::Group { id, path: format!("/{id}").into_bytes().into() }
    }

    fn speaks_of(group: u64) -> Event {
        let ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let tuple = Tuple { local_ip: ip, remote_ip: ip, local_port: 1, remote_port: 2 };
        let (netns, cgroup) = (Some(1), Some(group));
        let (id, state, kept) = (Id::Cookie(group), State::Established, Kept::Held);
        Event::Found(Found { at: 1, id, tuple, netns, uid: None, cgroup, interface: 0, state, kept })
    }

    fn missing(names: &mut Names, id: u64) -> Option<Item> {
        let [namespace, group, ..] = names.missing(&speaks_of(id));
        assert_eq!(namespace, None);
        group
    }

    #[test]
    fn each_file_has_the_names_that_it_speaks_of_once() {
        let mut names = Names::default();
        (1..=3).for_each(|id| names.learn(&group(id)));
        assert_eq!(missing(&mut names, 1), None, "it is in this file");
        names.turn();
        assert_eq!(missing(&mut names, 1), Some(group(1)));
        assert_eq!([missing(&mut names, 1), missing(&mut names, 4)], [None, None]);
        names.turn();
        assert_eq!([missing(&mut names, 1), missing(&mut names, 2)], [Some(group(1)), Some(group(2))]);
        names.learn(&group(3));
        assert_eq!(missing(&mut names, 3), None, "it was written again");
    }

    /// The names of a container come behind the path of its group.
    #[test]
    fn a_container_keeps_its_names_in_the_next_file() {
        let mut names = Names::default();
        let labels = Labels { container_name: Some("web".into()), ..Labels::default() };
        let container = Item::Container { group: 1, labels: labels.into() };
        names.learn(&group(1));
        names.learn(&container);
        names.turn();
        let [_, path, labels, ..] = names.missing(&speaks_of(1));
        assert_eq!([path, labels], [Some(group(1)), Some(container)]);
        assert_eq!(names.missing(&speaks_of(1)), [const { None }; 7], "they are in the file");
    }

    #[test]
    fn an_interface_is_written_into_the_next_file_when_an_event_needs_it() {
        let mut names = Names::default();
        let eth0 = Item::Interface { netns: 1, index: 2, name: b"eth0"[..].into() };
        names.learn(&eth0);
        names.turn();
        let speaks_of = |interface| match speaks_of(9) {
            Event::Found(found) => Event::Found(Found { interface, ..found }),
            event => event,
        };
        assert_eq!(names.missing(&speaks_of(0)), [const { None }; 7]);
        assert_eq!(names.missing(&speaks_of(3)), [const { None }; 7]);
        assert_eq!(names.missing(&speaks_of(2)), [None, None, None, None, None, None, Some(eth0)]);
        assert_eq!(names.missing(&speaks_of(2)), [const { None }; 7], "it is in the file");
    }

    /// There are up to 16,384 of them before names are announced again, in a table of up to twice that size.
    #[test]
    fn processes_that_come_and_go_take_little_memory() {
        fn entry<K, N>(_: &Known<K, N>) -> usize {
            size_of::<(K, N)>()
        }
        assert!(entry(&Names::default().processes) <= 24);
    }

    #[test]
    fn names_are_forgotten_and_written_again() {
        let mut names = Names::default();
        names.learn(&group(1));
        names.turn();
        names.learn(&group(2));
        names.forget();
        names.turn();
        assert_eq!([missing(&mut names, 1), missing(&mut names, 2)], [None, None]);
    }
}
