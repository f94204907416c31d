//! The names that a file needs so that it can be read alone: pure.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use crate::model::event::Event;
use crate::model::stream::Item;

/// Names of network namespaces, control groups and interfaces. A file contains the names that its events mention.
#[derive(Debug, Default)]
pub(super) struct Names {
    namespaces: Known<u32>,
    groups: Known<u64>,
    /// The names of the containers of groups, by group.
    containers: Known<u64>,
    processes: Known<u32>,
    /// By namespace and index.
    interfaces: Known<(u32, u32)>,
    /// The last query; the next one is usually the same.
    asked: Needed,
}

/// Network namespace, control group, process and interface of an event.
type Needed = (Option<u32>, Option<u64>, Option<u32>, Option<(u32, u32)>);

#[derive(Debug)]
struct Known<K> {
    /// Names in the current file, as items.
    written: HashMap<K, Item, FixedState>,
    /// Names in earlier files.
    before: HashMap<K, Item, FixedState>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { written: HashMap::default(), before: HashMap::default() }
    }
}

impl<K: Copy + Eq + Hash> Known<K> {
    fn learn(&mut self, key: K, item: &Item) {
        self.before.remove(&key);
        self.written.insert(key, item.clone());
    }

    fn missing(&mut self, key: Option<K>) -> Option<Item> {
        let key = key?;
        let item = self.before.remove(&key)?;
        self.written.insert(key, item.clone());
        Some(item)
    }

    fn turn(&mut self) {
        self.before.extend(self.written.drain());
    }
}

impl Names {
    /// Notes a name that was written into the file.
    pub(super) fn learn(&mut self, item: &Item) {
        match item {
            Item::Namespace { inode, .. } => self.namespaces.learn(*inode, item),
            Item::Group { id, .. } => self.groups.learn(*id, item),
            Item::Container { group, .. } => self.containers.learn(*group, item),
            Item::Process { pid, .. } => self.processes.learn(*pid, item),
            Item::Interface { netns, index, .. } => self.interfaces.learn((*netns, *index), item),
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
        let of_process = if let Some(Item::Process { group, .. }) = process { group } else { None };
        let interface = self.interfaces.missing(needed.3);
        let namespace = self.namespaces.missing(netns);
        let [own, processes] = [cgroup, of_process].map(|id| (self.groups.missing(id), self.containers.missing(id)));
        [namespace, own.0, own.1, process, processes.0, processes.1, interface]
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
        self.namespaces.written.values().chain(self.namespaces.before.values()).filter_map(|item| match item {
            Item::Namespace { inode, name } => Some((*inode, &**name)),
            _ => None,
        })
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
        use crate::model::labels::Labels;
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
