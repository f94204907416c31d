//! What only a diagnosis reads, and what is read of it when: settings, accept queues, and limits of processes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::kernel;
use crate::model::facts::Settings;
use crate::model::newest::Newest;
use crate::model::stream::Item;

/// How often settings are read, and the limits of processes that are known already.
const PERIOD: Duration = Duration::from_secs(10);
/// So many processes are looked at.
const MOST_PROCESSES: usize = 1024;
/// Requests are counted with each look, where that takes no longer than this in a network namespace. Otherwise so many times
/// that pass between; only the first look and the last one count them everywhere.
const QUICK: Duration = Duration::from_millis(2);
const REST: u32 = 200;

/// What is to be read. Accept queues are read each time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reading {
    settings: bool,
    /// The processes whose limits are read.
    pids: Vec<u32>,
    /// Everything is told once more, for the last time.
    last: bool,
}

impl Reading {
    /// To begin with, no process is known.
    pub(super) const FIRST: Self = Self { settings: true, pids: Vec::new(), last: false };

    /// Reads of no more processes than are remembered, whatever another process asks.
    pub(super) fn limit(&mut self) {
        self.pids.truncate(MOST_PROCESSES);
    }
}

/// The processes that have sockets, and when to read what.
pub(super) struct Owners {
    known: HashSet<u32, FixedState>,
    /// Those whose limits were not read yet.
    fresh: Vec<u32>,
    /// The last one that was noted: most often it is that one again.
    noted: u32,
    most: usize,
    due: Instant,
}

impl Owners {
    /// `knows_pids`: `/proc` numbers processes as events do.
    pub(super) fn new(now: Instant, knows_pids: bool) -> Self {
        let most = if knows_pids { MOST_PROCESSES } else { 0 };
        Self { known: HashSet::default(), fresh: Vec::new(), noted: 0, most, due: now + PERIOD }
    }

    pub(super) fn note(&mut self, pid: u32) {
        if self.noted == pid {
            return;
        }
        self.noted = pid;
        if self.known.len() < self.most && self.known.insert(pid) {
            self.fresh.push(pid);
        }
    }

    pub(super) fn forget(&mut self, gone: &[u32]) {
        self.known.retain(|pid| !gone.contains(pid));
        self.noted = 0;
    }

    /// What is to be read now.
    pub(super) fn next(&mut self, now: Instant) -> Reading {
        let fresh = std::mem::take(&mut self.fresh);
        let is_due = now >= self.due;
        if is_due {
            self.due = now + PERIOD;
        }
        let pids = if is_due { self.known.iter().copied().collect() } else { fresh };
        Reading { settings: is_due, pids, last: false }
    }

    /// What is to be read in the end.
    pub(super) fn last(&mut self) -> Reading {
        Reading { settings: true, pids: self.known.iter().copied().collect(), last: true }
    }
}

/// Reads them. To be called in the thread that looks, and while it is in a network namespace.
#[derive(Debug, Default)]
pub(super) struct Facts {
    newest: Newest,
    /// Those of the host, as far as they were read in this look; `None` if no settings are to be read.
    host: Option<Settings>,
    /// The network namespaces in which requests are not counted before a time.
    resting: HashMap<u32, Instant, FixedState>,
    is_last: bool,
    items: Vec<Item>,
}

impl Facts {
    /// A look begins.
    pub(super) fn begin(&mut self, reading: &Reading, at: u64) {
        self.host = reading.settings.then(|| Settings { at, ..Settings::default() });
        self.is_last = reading.last;
    }

    /// Looks at the network namespace that the thread is in.
    pub(super) fn look_here(&mut self, netns: u32, now: &dyn Fn() -> u64) {
        if let Some(host) = &mut self.host {
            kernel::add_host_settings(host);
            self.items.extend(self.newest.read_settings(kernel::settings_here(netns, now())));
        }
        let (before, at) = (kernel::thread_time(), now());
        let is_resting = self.resting.get(&netns).is_some_and(|rested| Instant::now() < *rested);
        let with_requests = self.is_last || !is_resting;
        match kernel::accept_queues_here(with_requests) {
            Ok(mut queues) => {
                if self.newest.lacks_any(netns, &queues)
                    && let Err(error) = kernel::note_autobound_here(&mut queues)
                {
                    log::debug!("cannot ask who chose the ports of network namespace {netns}: {error}");
                }
                self.items.extend(self.newest.read_queues(at, netns, queues));
            }
            Err(error) => log::debug!("cannot look at accept queues in network namespace {netns}: {error}"),
        }
        let took = kernel::thread_time().saturating_sub(before);
        if with_requests {
            self.resting.remove(&netns);
            if took > QUICK {
                self.resting.insert(netns, Instant::now() + took * REST);
            }
        }
    }

    /// The look is over. `all` are the network namespaces that there are, if they were searched for. Returns what is to be
    /// told, and which processes are gone.
    pub(super) fn end(
        &mut self,
        reading: &Reading,
        now: &dyn Fn() -> u64,
        all: Option<&HashSet<u32, FixedState>>,
    ) -> (Vec<Item>, Vec<u32>) {
        let Self { newest, items, .. } = self;
        if let Some(mut host) = self.host.take() {
            if let Err(error) = kernel::complete_host_settings(&mut host) {
                log::warn!("cannot come back from the first network namespace: {error}");
            }
            items.extend(newest.read_settings(host));
        }
        if let Some(all) = all {
            self.resting.retain(|netns, _| all.contains(netns));
            items.extend(newest.keep(now(), |netns| all.contains(&netns)));
        }
        let limits = kernel::limits(reading.pids.iter().copied());
        items.extend(newest.read_limits(now(), reading.pids.iter().copied(), &limits));
        let there: HashSet<u32, FixedState> = limits.iter().map(|limit| limit.pid).collect();
        let gone = reading.pids.iter().copied().filter(|pid| !there.contains(pid)).collect();
        if reading.last {
            items.clear();
            items.extend(newest.items());
        }
        (std::mem::take(items), gone)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn each_process_is_looked_at_soon_and_then_seldom() {
        let now = Instant::now();
        let mut owners = Owners::new(now, true);
        [7, 7, 8, 7].into_iter().for_each(|pid| owners.note(pid));
        let next = owners.next(now);
        assert_eq!((next.pids, next.settings, next.last), (vec![7, 8], false, false));
        assert!(owners.next(now).pids.is_empty());
        owners.note(9);
        owners.forget(&[7]);
        let next = owners.next(now + PERIOD);
        assert_eq!((next.pids.len(), next.settings), (2, true), "{next:?}");
        owners.note(7);
        assert_eq!(owners.next(now + PERIOD).pids, [7], "it can be another one");
        let last = owners.last();
        assert_eq!((last.pids.len(), last.settings, last.last), (3, true, true));
        (0..2000).for_each(|pid| owners.note(pid));
        assert_eq!(owners.known.len(), MOST_PROCESSES);
    }

    #[tcptrace_tests::test]
    fn a_large_namespace_does_not_keep_requests_of_others_from_being_counted() {
        let own = kernel::Namespaces::own_namespace().expect("its number");
        let _listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let mut facts = Facts::default();
        let later = Instant::now() + Duration::from_secs(3600);
        let mut counts = |resting, last| {
            facts.resting = HashMap::from_iter([(resting, later)]);
            facts.newest = Newest::default();
            facts.begin(&Reading { last, ..Reading::default() }, 1);
            facts.look_here(own, &|| 2);
            facts.items.drain(..).any(|item| match item {
                Item::AcceptQueues(told) => told.queues.iter().any(|queue| queue.requests.is_some()),
                _ => false,
            })
        };
        assert!(counts(own + 1, false));
        assert!(!counts(own, false));
        assert!(counts(own, true), "the last look counts everywhere");
    }

    #[tcptrace_tests::test]
    fn what_has_changed_is_told_and_everything_in_the_end() {
        let own = kernel::Namespaces::own_namespace().expect("its number");
        let pid = std::process::id();
        let mut facts = Facts::default();
        let mut look = |reading: &Reading| {
            facts.begin(reading, 1);
            facts.look_here(own, &|| 2);
            facts.end(reading, &|| 3, None)
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("its address");
        let queued = |items: &[Item]| {
            let queues = items.iter().find_map(|item| match item {
                Item::AcceptQueues(told) if told.netns == own => Some(told),
                _ => None,
            })?;
            let queue = queues.queues.iter().find(|queue| queue.port == address.port())?;
            Some((queues.at, queue.queued, queue.requests))
        };
        let settings = |items: &[Item]| {
            let netns = items.iter().filter_map(|item| match item {
                Item::Settings(settings) => Some(settings.netns),
                _ => None,
            });
            netns.collect::<Vec<_>>()
        };
        let (first, _) = look(&Reading::FIRST);
        assert_eq!(settings(&first), [Some(own), None]);
        assert!(matches!(queued(&first), Some((2, 0, _))), "{first:?}");
        let (second, gone) = look(&Reading { pids: vec![pid, 0], ..Reading::default() });
        assert_eq!((queued(&second), settings(&second), gone), (None, vec![], vec![0]));
        let is_ours = |item: &Item| matches!(item, Item::Limits(told) if told.processes.iter().any(|it| it.pid == pid));
        assert!(second.iter().any(is_ours));
        let _clients = [(); 3].map(|()| TcpStream::connect(address).expect("connect"));
        let (third, _) = look(&Reading::default());
        assert!(matches!(queued(&third), Some((2, 3, _))), "{third:?}");
        let (last, _) = look(&Reading { settings: true, pids: vec![pid], last: true });
        assert_eq!(settings(&last).len(), 2);
        assert!(matches!(queued(&last), Some((2, 3, _))) && last.iter().any(is_ours), "{last:?}");
    }
}
