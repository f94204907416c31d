//! One look at what there is, without the stream of events: what sock_diag and `/proc` show, as far as they show it to
//! whoever asks.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::naming::Naming;
use super::{clock, head_of};
use crate::kernel::{self, Answer, Coverage, Multipaths, Namespaces, Queues, Wanted};
use crate::live::clock::boot_ns;
use crate::live::queries::Queries;
use crate::model::counters::History;
use crate::model::event::{Event, Found, Holder, Subflow};
use crate::model::facts::{AcceptQueues, Limits, Settings};
use crate::model::sink::Sink;
use crate::model::socket::Socket;
use crate::model::stream::{Head, Item};

/// Items handed over at a time, and how many times that wait at most.
const CHUNK: usize = 1024;
const CHUNKS: usize = 16;

/// What a look has seen, and what not.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Of network namespaces and their sockets.
    pub coverage: Coverage,
    /// How many processes do not show their descriptors.
    pub unseen_processes: usize,
}

/// Looks once at the sockets of every network namespace (or of those in `only`, if it is not empty), at who has them, and at
/// counters, settings, accept queues and limits. Tells them as a recording does that begins and ends at once. It takes no
/// privileges; without them it sees less, and says so.
///
/// # Errors
/// When the sockets of the own network namespace cannot be listed, `/proc` cannot be read, or the sink takes no more.
pub fn look(only: &[u32], sink: &mut impl Sink) -> Result<Looked> {
    let namespaces = Namespaces::find();
    let mut teller = Teller::begin(&namespaces)?;
    let looked = thread::scope(|scope| {
        let (to, chunks) = sync_channel(CHUNKS);
        let namespaces = &namespaces;
        // Looking changes the network namespace of the thread.
        let eye = scope.spawn(move || Eye { to, chunk: Vec::new() }.look(namespaces, only));
        for chunk in chunks {
            teller.tell(chunk, sink)?;
        }
        eye.join().map_err(|_| anyhow!("internal error: the thread that lists sockets panicked"))?
    })?;
    for (netns, reason) in &looked.coverage.unreadable {
        log::warn!("the sockets of network namespace {netns} are unknown: {reason}");
    }
    let now = boot_ns()?;
    sink.take(&[Item::Event(Event::Passed { at: now })])?;
    sink.settle(now)?;
    Ok(looked)
}

/// What tells a sink, names before what needs them.
struct Teller {
    naming: Naming,
    /// Nobody answers it: all namespaces are known that can be.
    queries: Queries,
    items: Vec<Item>,
}

impl Teller {
    fn begin(namespaces: &Namespaces) -> Result<Self> {
        let partial_scans =
            !kernel::are_all_visible() || kernel::are_processes_hidden() || !kernel::are_descriptors_shown();
        let (knows_cookies, existing, facts) = (true, true, true);
        let head = Head { knows_cookies, existing, partial_scans, facts, ..head_of()? };
        let mut items = vec![Item::Head(Box::new(head)), Item::Clocks(clock::read_all()?)];
        let mut naming = Naming::new(true, true);
        naming.name_namespaces(namespaces, &mut items);
        items.push(Item::Event(Event::Started { at: boot_ns()? }));
        Ok(Self { naming, queries: Queries::new(tcptrace_common::Filter::default()), items })
    }

    fn tell(&mut self, chunk: Vec<Item>, sink: &mut impl Sink) -> Result<()> {
        for item in chunk {
            if let Item::Event(event) = &item {
                self.naming.learn(event, &mut self.queries, &mut self.items);
            }
            self.items.push(item);
        }
        sink.take(&self.items)?;
        self.items.clear();
        Ok(())
    }
}

/// Cookies of listeners by network namespace.
type Autobound = BTreeMap<u32, HashSet<u64>>;

/// What looks.
struct Eye {
    to: SyncSender<Vec<Item>>,
    chunk: Vec<Item>,
}

impl Eye {
    fn look(mut self, namespaces: &Namespaces, only: &[u32]) -> Result<Looked> {
        let autobound = self.read_facts(namespaces, only)?;
        let (coverage, held) = self.survey(namespaces, only, &autobound)?;
        let unseen_processes = self.scan(&held)?;
        self.hand_over();
        Ok(Looked { coverage, unseen_processes })
    }

    /// Returns which listeners have a port that the kernel chose, by network namespace.
    fn read_facts(&mut self, namespaces: &Namespaces, only: &[u32]) -> Result<Autobound> {
        let mut autobound = Autobound::new();
        let mut host = Settings { at: now(), ..Settings::default() };
        let (mut history, mut samples) = (History::default(), Vec::new());
        let closed = kernel::visit(namespaces, only, |netns| {
            kernel::add_host_settings(&mut host);
            self.say(Item::Settings(Box::new(kernel::settings_here(netns, now()))));
            match kernel::autobound_here() {
                Ok(chosen) => drop(autobound.insert(netns, chosen)),
                Err(error) => log::debug!("cannot ask who chose the ports of network namespace {netns}: {error}"),
            }
            match kernel::counters_here(netns, &now) {
                Ok(counters) => history.take(counters, true, &mut samples),
                Err(error) => log::warn!("cannot read the counters of network namespace {netns}: {error}"),
            }
        });
        for (netns, error) in closed.context("cannot look into other network namespaces")? {
            log::warn!("the settings and counters of network namespace {netns} are unknown: {error}");
        }
        kernel::complete_host_settings(&mut host).context("cannot come back from the first network namespace")?;
        self.say(Item::Settings(Box::new(host)));
        samples.into_iter().for_each(|sample| self.say(Item::Counters(Box::new(sample))));
        Ok(autobound)
    }

    /// Returns the sockets that can have descriptors, by inode number, too.
    fn survey(
        &mut self,
        namespaces: &Namespaces,
        only: &[u32],
        autobound: &Autobound,
    ) -> Result<(Coverage, Vec<(u32, Found)>)> {
        self.event(Event::SurveyBegun { at: now() });
        let (mut queues, mut held) = (BTreeMap::<u32, Queues>::new(), Vec::new());
        let mut multipaths = Multipaths::default();
        let mut subflows = Vec::new();
        // IPv4-mapped addresses are in the dump of IPv6.
        let coverage =
            kernel::survey(namespaces, only, Wanted::AllAndBoundAndPaths, true, true, &mut |answer| match answer {
                Answer::Socket(socket) => {
                    let Socket { found, inode, is_request, .. } = socket;
                    if let Some(netns) = found.netns {
                        queues.entry(netns).or_default().note(&socket);
                    }
                    // Its child inherits the cookie of a request that has become a connection in the meantime.
                    if !is_request {
                        self.event(Event::Found(found));
                    }
                    if let Some(of) = multipaths.of(&socket) {
                        subflows.push(Event::Subflow(Subflow { at: found.at, id: found.id, of }));
                    }
                    if inode != 0 {
                        held.push((inode, found));
                    }
                }
                Answer::Inspected(socket) => self.event(Event::Inspected(socket.inspected())),
                Answer::Multipath(socket) => multipaths.note(&socket),
                Answer::Namespace(netns) => self.event(Event::Surveyed { at: now(), netns }),
            })?;
        let at = now();
        self.event(Event::SurveyEnded { at });
        for (netns, queues) in queues {
            let mut queues = queues.finish(true);
            if let Some(chosen) = autobound.get(&netns) {
                queues.iter_mut().for_each(|queue| queue.autobound = Some(chosen.contains(&queue.conn)));
            }
            let queues = AcceptQueues { at, netns, queues, gone: Vec::new() };
            queues.into_parts().for_each(|part| self.say(Item::AcceptQueues(Box::new(part))));
        }
        subflows.into_iter().for_each(|subflow| self.event(subflow));
        Ok((coverage, held))
    }

    /// Says who has which socket, and how many descriptors they have. Returns how many processes do not show theirs.
    fn scan(&mut self, held: &[(u32, Found)]) -> Result<usize> {
        self.event(Event::ScanBegun { at: now() });
        let mut inodes: Vec<u32> = held.iter().map(|(inode, _)| *inode).collect();
        inodes.sort_unstable();
        let holders = kernel::holders(|inode| inodes.binary_search(&inode).is_ok(), |_| false)
            .context("cannot read socket owners from /proc")?;
        let mut owners = BTreeSet::new();
        for (inode, found) in held {
            let Some(holding) = holders.of(*inode) else { continue };
            owners.insert(holding.task.pid);
            let holder = Holder { found: *found, task: holding.task, fd: holding.fd };
            (0..holding.count).for_each(|_| self.event(Event::Holder(holder)));
        }
        self.event(Event::ScanEnded { at: now() });
        let at = now();
        let processes = kernel::limits(owners);
        if !processes.is_empty() {
            self.say(Item::Limits(Box::new(Limits { at, processes })));
        }
        Ok(holders.unseen_processes)
    }

    fn event(&mut self, event: Event) {
        self.say(Item::Event(event));
    }

    fn say(&mut self, item: Item) {
        self.chunk.push(item);
        if self.chunk.len() >= CHUNK {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        // Nobody listens any more when the sink takes no more.
        let _ = self.to.send(std::mem::take(&mut self.chunk));
    }
}

fn now() -> u64 {
    boot_ns().unwrap_or(0)
}
