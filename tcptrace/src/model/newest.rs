//! What was read last, which is what a reader has to know: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{AcceptQueue, AcceptQueues, Limit, Limits, Settings};
use super::stream::Item;

/// The newest settings, accept queues and limits that were read or told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newest {
    settings: BTreeMap<Option<u32>, Settings>,
    /// By network namespace and listener, and when they were looked at.
    queues: BTreeMap<u32, (u64, BTreeMap<u64, AcceptQueue>)>,
    /// When they were read last.
    limits_at: u64,
    limits: BTreeMap<u32, Limit>,
}

impl Newest {
    /// Notes what somebody tells.
    pub fn take(&mut self, item: &Item) {
        match item {
            Item::Settings(settings) if settings.values.is_empty() => drop(self.settings.remove(&settings.netns)),
            Item::Settings(settings) => drop(self.settings.insert(settings.netns, (**settings).clone())),
            Item::AcceptQueues(told) => {
                let (at, queues) = self.queues.entry(told.netns).or_default();
                *at = told.at;
                queues.extend(told.queues.iter().map(|queue| (queue.conn, *queue)));
                queues.retain(|conn, _| !told.gone.contains(conn));
                if queues.is_empty() {
                    self.queues.remove(&told.netns);
                }
            }
            Item::Limits(told) => {
                self.limits_at = told.at;
                for limit in &told.processes {
                    match limit.is_gone() {
                        true => drop(self.limits.remove(&limit.pid)),
                        false => drop(self.limits.insert(limit.pid, *limit)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Says all of it again.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let settings = self.settings.values().map(|settings| Item::Settings(Box::new(settings.clone())));
        let queues = self.queues.iter().flat_map(|(netns, (at, queues))| {
            let queues = queues.values().copied().collect();
            AcceptQueues { at: *at, netns: *netns, queues, gone: Vec::new() }.into_parts().map(queues_item)
        });
        let processes: Vec<_> = self.limits.values().copied().collect();
        let limits = Limits { at: self.limits_at, processes };
        let limits = (!limits.processes.is_empty()).then(|| Item::Limits(Box::new(limits)));
        settings.chain(queues).chain(limits)
    }

    /// Settings were read. Returns what is to be told of that: if anything has changed, all of it.
    pub fn read_settings(&mut self, settings: Settings) -> Option<Item> {
        let before = self.settings.get(&settings.netns);
        let is_news = before.is_none_or(|before| before.values != settings.values);
        let item = Item::Settings(Box::new(settings));
        is_news.then(|| self.told(item))
    }

    /// Whether some of these are not known yet.
    pub fn lacks_any(&self, netns: u32, all: &[AcceptQueue]) -> bool {
        let known = self.queues.get(&netns).map(|(_, queues)| queues);
        all.iter().any(|queue| known.is_none_or(|known| !known.contains_key(&queue.conn)))
    }

    /// All accept queues of a network namespace were read. Returns what has changed.
    pub fn read_queues(&mut self, at: u64, netns: u32, mut all: Vec<AcceptQueue>) -> Vec<Item> {
        let empty = BTreeMap::new();
        let before = self.queues.get(&netns).map_or(&empty, |(_, queues)| queues);
        // Who chose a port is asked once: it does not change.
        for queue in all.iter_mut().filter(|queue| queue.autobound.is_none()) {
            queue.autobound = before.get(&queue.conn).and_then(|before| before.autobound);
        }
        let there: BTreeSet<_> = all.iter().map(|queue| queue.conn).collect();
        let gone = before.keys().filter(|conn| !there.contains(conn)).copied().collect();
        let is_news = |queue: &AcceptQueue| before.get(&queue.conn).is_none_or(|before| differs(before, queue));
        let told = AcceptQueues { at, netns, queues: all.into_iter().filter(is_news).collect(), gone };
        told.into_parts().map(|part| self.told(queues_item(part))).collect()
    }

    /// The limits of these processes were read, of those that were still there. Returns what has changed.
    pub fn read_limits(&mut self, at: u64, asked: impl Iterator<Item = u32>, read: &[Limit]) -> Option<Item> {
        let there: BTreeSet<_> = read.iter().map(|limit| limit.pid).collect();
        let gone = asked.filter(|pid| !there.contains(pid) && self.limits.contains_key(pid));
        let gone: Vec<_> = gone.map(|pid| Limit { pid, ..Limit::default() }).collect();
        let is_news = |limit: &&Limit| self.limits.get(&limit.pid) != Some(limit);
        let processes: Vec<_> = read.iter().filter(is_news).copied().chain(gone).collect();
        (!processes.is_empty()).then(|| self.told(Item::Limits(Box::new(Limits { at, processes }))))
    }

    /// There are no network namespaces but these. Returns what is to be told of those that are gone.
    pub fn keep(&mut self, at: u64, is_there: impl Fn(u32) -> bool) -> Vec<Item> {
        let gone = |netns: &u32| !is_there(*netns);
        let settings = self.settings.keys().copied().flatten().filter(gone);
        let settings =
            settings.map(|netns| Item::Settings(Box::new(Settings { at, netns: Some(netns), ..Settings::default() })));
        let queues = self.queues.iter().filter(|(netns, _)| gone(netns)).flat_map(|(netns, (_, queues))| {
            let gone = queues.keys().copied().collect();
            AcceptQueues { at, netns: *netns, queues: Vec::new(), gone }.into_parts().map(queues_item)
        });
        let items: Vec<_> = settings.chain(queues).collect();
        items.iter().for_each(|item| self.take(item));
        items
    }

    fn told(&mut self, item: Item) -> Item {
        self.take(&item);
        item
    }
}

fn queues_item(queues: AcceptQueues) -> Item {
    Item::AcceptQueues(Box::new(queues))
}

/// Whether the second says something new. That nobody has counted requests is not.
fn differs(before: &AcceptQueue, now: &AcceptQueue) -> bool {
    *before != AcceptQueue { requests: now.requests.or(before.requests), ..*now }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn queue(conn: u64, queued: u32) -> AcceptQueue {
        AcceptQueue { conn, ip: Ipv6Addr::LOCALHOST, port: 80, queued, limit: 128, requests: Some(0), autobound: None }
    }

    fn settings(at: u64, netns: Option<u32>, value: &str) -> Settings {
        Settings { at, netns, values: [("net.core.somaxconn".into(), value.into())].into() }
    }

    fn queues(at: u64, queues: Vec<AcceptQueue>, gone: Vec<u64>) -> Vec<Item> {
        vec![Item::AcceptQueues(Box::new(AcceptQueues { at, netns: 7, queues, gone }))]
    }

    #[test]
    fn who_chose_a_port_is_told_once() {
        let mut newest = Newest::default();
        let chosen = |queued| AcceptQueue { autobound: Some(true), ..queue(1, queued) };
        assert_eq!(newest.read_queues(1, 7, vec![chosen(0)]), queues(1, vec![chosen(0)], vec![]));
        assert_eq!(newest.read_queues(2, 7, vec![queue(1, 0)]), []);
        assert_eq!(newest.read_queues(3, 7, vec![queue(1, 5)]), queues(3, vec![chosen(5)], vec![]));
    }

    fn limits(at: u64, processes: Vec<Limit>) -> Option<Item> {
        Some(Item::Limits(Box::new(Limits { at, processes })))
    }

    #[test]
    fn settings_are_told_when_they_change() {
        let mut newest = Newest::default();
        let told = |settings: Settings| Some(Item::Settings(Box::new(settings)));
        assert_eq!(newest.read_settings(settings(1, Some(7), "5")), told(settings(1, Some(7), "5")));
        assert_eq!(newest.read_settings(settings(2, Some(7), "5")), None);
        assert_eq!(newest.read_settings(settings(3, None, "5")), told(settings(3, None, "5")));
        assert_eq!(newest.read_settings(settings(4, Some(7), "6")), told(settings(4, Some(7), "6")));
        let gone = Settings { at: 5, netns: Some(7), ..Settings::default() };
        assert_eq!(newest.keep(5, |_| false), [Item::Settings(Box::new(gone))]);
        assert_eq!(newest.items().collect::<Vec<_>>(), Vec::from_iter(told(settings(3, None, "5"))));
    }

    #[test]
    fn queues_are_told_when_they_change() {
        let mut newest = Newest::default();
        assert_eq!(newest.read_queues(1, 7, vec![]), []);
        let (first, second) = (queue(1, 0), queue(2, 3));
        assert_eq!(newest.read_queues(2, 7, vec![first, second]), queues(2, vec![first, second], vec![]));
        assert_eq!(newest.read_queues(3, 7, vec![first, second]), []);
        let uncounted = AcceptQueue { requests: None, ..first };
        assert_eq!(newest.read_queues(4, 7, vec![uncounted, second]), [], "nobody has counted");
        assert!(!newest.lacks_any(7, &[first, second]) && newest.lacks_any(7, &[queue(3, 0)]));
        assert!(newest.lacks_any(8, &[first]) && !newest.lacks_any(8, &[]));
        assert_eq!(newest.read_queues(5, 7, vec![first, queue(2, 4)]), queues(5, vec![queue(2, 4)], vec![]));
        assert_eq!(newest.read_queues(6, 7, vec![queue(2, 4)]), queues(6, vec![], vec![1]));
        assert_eq!(newest.items().collect::<Vec<_>>(), queues(6, vec![queue(2, 4)], vec![]));
        assert_eq!(newest.keep(7, |netns| netns == 7), []);
        assert_eq!(newest.keep(7, |_| false), queues(7, vec![], vec![2]));
        assert_eq!(newest, Newest::default());
    }

    #[test]
    fn many_queues_are_told_in_parts() {
        let mut newest = Newest::default();
        let all: Vec<_> = (1..=2500).map(|conn| queue(conn, 0)).collect();
        let first = newest.read_queues(1, 7, all);
        let last = newest.read_queues(2, 7, vec![]);
        assert_eq!((first.len(), last.len(), newest), (3, 3, Newest::default()));
        let mut heard = Newest::default();
        first.iter().for_each(|item| heard.take(item));
        assert_eq!(heard.queues[&7].1.len(), 2500);
        last.iter().for_each(|item| heard.take(item));
        assert_eq!(heard, Newest::default());
    }

    #[test]
    fn limits_are_told_when_they_change() {
        let mut newest = Newest::default();
        let of = |pid, descriptors| Limit { pid, descriptors: Some(descriptors), soft: Some(1024), hard: None };
        let (all, gone) = ([of(1, 3), of(2, 5)], Limit { pid: 1, ..Limit::default() });
        assert_eq!(newest.read_limits(1, [1, 2, 3].into_iter(), &all), limits(1, all.into()));
        assert_eq!(newest.read_limits(2, [1, 2].into_iter(), &all), None);
        assert_eq!(newest.read_limits(3, [2].into_iter(), &[of(2, 6)]), limits(3, vec![of(2, 6)]));
        assert_eq!(newest.read_limits(4, [1, 2].into_iter(), &[of(2, 6)]), limits(4, vec![gone]));
        assert_eq!(newest.items().next(), limits(4, vec![of(2, 6)]));
    }

    #[test]
    fn what_is_told_again_is_all() {
        let mut told = Newest::default();
        told.read_settings(settings(1, Some(7), "5"));
        told.read_settings(settings(1, None, "5"));
        told.read_queues(2, 7, vec![queue(1, 0), queue(2, 3)]);
        told.read_limits(3, [4].into_iter(), &[Limit { pid: 4, descriptors: Some(1), ..Limit::default() }]);
        let mut heard = Newest::default();
        told.items().for_each(|item| heard.take(&item));
        assert_eq!(heard, told);
        assert_eq!(told.items().count(), 4);
    }
}
