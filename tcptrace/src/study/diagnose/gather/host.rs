//! What is known of the host: listeners, settings, limits, counters, failed calls; and which end a socket is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::bound_first::BoundFirst;
use super::look::Looks;
use super::{MOST_TASKS, count};
use crate::model::counters::{Sample, Values};
use crate::model::event::{Change, FailedCall, Found, Holder, Kept};
use crate::model::facts::{AcceptQueue, AcceptQueues, Limit, Settings};
use crate::model::role::{Role, role};
use crate::model::row::{Identity, Transition};
use crate::model::stream::Item;
use crate::model::tcp::{Side, State, Task, Tuple};
use crate::study::diagnose::evidence::{Binder, Counted, Descriptors, Evidence, Failed, Listener, PairKey, Standing};
use crate::study::ports::PortSet;

/// How many different failed calls, source addresses that ports are bound of, and destinations of one are counted.
const MOST_CALLS: usize = 256;
const MOST_BINDERS: usize = 1024;
const MOST_DESTINATIONS: usize = 64;
/// Of how many connections that have not ended it is known how they came by their port.
const MOST_CONNECTING: usize = 1 << 20;
/// How many ports are known that a listener has left, and of how many namespaces the ports of clients.
const MOST_LEFT: usize = 1 << 14;
const MOST_NAMESPACES: usize = 1024;
/// How many processes are kept with their limits.
const MOST_PROCESSES: usize = 1 << 16;
/// Ports that the kernel hands out unless it is told otherwise.
const DEFAULT_RANGE: (u16, u16) = (32_768, 60_999);

/// What is known of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    settings: BTreeMap<Option<u32>, Settings>,
    /// The ports that the kernel hands out, by network namespace, where that is known.
    ranges: BTreeMap<Option<u32>, (u16, u16)>,
    listeners: HashMap<u64, Known, FixedState>,
    /// Ports that somebody listens on, by namespace, and how many listeners each has.
    ports: HashMap<(Option<u32>, u16), u32, FixedState>,
    /// Connections that nobody has accepted yet: where they came in.
    queued: HashMap<u64, (Option<u32>, u16), FixedState>,
    limits: HashMap<u32, Descriptors, FixedState>,
    names: HashMap<u32, Task, FixedState>,
    /// Most of the time, the next one is the same.
    named_last: Option<Task>,
    counters: BTreeMap<u32, Counters>,
    binders: HashMap<(Option<u32>, Ipv6Addr), Binding, FixedState>,
    calls: Vec<Failed>,
    has_queues: bool,
    /// Whether connections had a local port before connect().
    bound_first: BoundFirst,
    /// Local ports of clients, by network namespace.
    client_ports: HashMap<Option<u32>, PortSet, FixedState>,
    /// Ports that nobody listens on any more, with the last listener.
    left_ports: HashMap<(Option<u32>, u16), u64, FixedState>,
}

#[derive(Clone, Debug)]
struct Known {
    listener: Listener,
    holders: Vec<Task>,
}

#[derive(Clone, Debug, Default)]
struct Counters {
    first: Option<u64>,
    last: u64,
    counted: Counted,
}

impl Counters {
    fn take(&mut self, sample: &Sample) {
        self.first.get_or_insert(sample.since.unwrap_or(sample.at));
        self.last = self.last.max(sample.at);
        let Counted { grown, levels, peaks, .. } = &mut self.counted;
        let told = || sample.levels.iter().map(|(name, level)| (name.clone(), *level));
        for (name, level) in told() {
            let peak = peaks.entry(name).or_default();
            *peak = level.max(*peak);
        }
        if sample.whole {
            levels.clone_from(&sample.levels);
            return;
        }
        for (name, more) in &sample.counts {
            let grown = grown.entry(name.clone()).or_default();
            *grown = grown.saturating_add(*more);
        }
        levels.extend(told());
    }
}

#[derive(Clone, Debug)]
struct Binding {
    opened: u64,
    destinations: HashSet<(Ipv6Addr, u16), FixedState>,
    tasks: Vec<(Task, u64)>,
    conns: Vec<u64>,
}

impl Host {
    pub(super) fn item(&mut self, item: &Item) {
        match item {
            Item::Settings(settings) => {
                self.ranges.extend(range(settings).map(|range| (settings.netns, range)));
                self.settings.insert(settings.netns, (**settings).clone());
            }
            Item::AcceptQueues(queues) => self.queues(queues),
            Item::Limits(limits) => limits.processes.iter().for_each(|limit| self.limit(limits.at, limit)),
            Item::Counters(sample) => self.counters.entry(sample.netns).or_default().take(sample),
            _ => {}
        }
    }

    /// Takes in what says only how things stood before the window.
    pub(super) fn stood(&mut self, sample: &Sample) {
        let counters = self.counters.entry(sample.netns).or_default();
        counters.take(&Sample { counts: Values::new(), ..sample.clone() });
        counters.counted.peaks.clone_from(&counters.counted.levels);
    }

    fn queues(&mut self, queues: &AcceptQueues) {
        self.has_queues = true;
        for queue in &queues.queues {
            // This look began before it left the port.
            if self.left_ports.get(&(Some(queues.netns), queue.port)) == Some(&queue.conn) {
                continue;
            }
            // The beginning of one that is new is told, before or after this.
            let listener = self.listen(Some(queues.netns), *queue, true);
            listener.queue = *queue;
            listener.most_queued = listener.most_queued.max(queue.queued);
            listener.most_requests = listener.most_requests.max(queue.requests.unwrap_or(0));
            listener.waiting_since = if queue.queued == 0 { None } else { listener.waiting_since.or(Some(queues.at)) };
        }
        for conn in &queues.gone {
            self.forget_listener(*conn);
        }
    }

    fn listen(&mut self, netns: Option<u32>, queue: AcceptQueue, is_old: bool) -> &mut Listener {
        let Self { listeners, ports, left_ports, .. } = self;
        // The same socket can listen again.
        if left_ports.get(&(netns, queue.port)) == Some(&queue.conn) {
            left_ports.remove(&(netns, queue.port));
        }
        let known = listeners.entry(queue.conn).or_insert_with(|| {
            *ports.entry((netns, queue.port)).or_default() += 1;
            let listener = Listener {
                netns,
                queue,
                task: None,
                most_queued: 0,
                waiting_since: None,
                accepted: 0,
                accepted_at: None,
                is_old,
                most_requests: 0,
            };
            Known { listener, holders: Vec::new() }
        });
        &mut known.listener
    }

    fn forget_listener(&mut self, conn: u64) {
        let Some(known) = self.listeners.remove(&conn) else { return };
        let place = (known.listener.netns, known.listener.queue.port);
        if let Some(count) = self.ports.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.ports.remove(&place);
                if self.left_ports.len() < MOST_LEFT {
                    self.left_ports.insert(place, conn);
                }
            }
        }
    }

    fn limit(&mut self, at: u64, limit: &Limit) {
        if self.limits.len() >= MOST_PROCESSES && !self.limits.contains_key(&limit.pid) {
            return;
        }
        let first = (at, *limit);
        let of = |pid| Descriptors { pid, task: None, first, last: first };
        self.limits.entry(limit.pid).or_insert_with(|| of(limit.pid)).last = (at, *limit);
    }

    pub(super) fn change(&mut self, change: &Change) {
        if role(change, false) == Role::Bystander {
            return;
        }
        if let Some(task) = change.task {
            self.name(task);
        }
        let port = change.tuple.local_port;
        if (change.old, change.new) != (State::Closed, State::SynSent) {
            return;
        }
        if self.bound_first.len() < MOST_CONNECTING {
            self.bound_first.note(change.id.number(), port != 0);
        }
        if !self.is_in_range(change.netns, port) {
            return;
        }
        let key = (change.netns, change.tuple.local_ip);
        if self.binders.len() >= MOST_BINDERS && !self.binders.contains_key(&key) {
            return;
        }
        let nothing = || Binding { opened: 0, destinations: HashSet::default(), tasks: Vec::new(), conns: Vec::new() };
        let binding = self.binders.entry(key).or_insert_with(nothing);
        binding.opened += 1;
        if binding.destinations.len() < MOST_DESTINATIONS {
            binding.destinations.insert((change.tuple.remote_ip, change.tuple.remote_port));
        }
        if binding.conns.len() < MOST_CALLS {
            binding.conns.push(change.id.number());
        }
        if let Some(task) = change.task {
            count(&mut binding.tasks, task);
        }
    }

    /// Whether a port is one of those that the kernel hands out in a network namespace.
    fn is_in_range(&self, netns: Option<u32>, port: u16) -> bool {
        let (first, last) = self.ranges.get(&netns).copied().unwrap_or(DEFAULT_RANGE);
        (first..=last).contains(&port)
    }

    fn name(&mut self, task: Task) {
        if self.named_last == Some(task) {
            return;
        }
        self.named_last = Some(task);
        if self.names.len() < MOST_PROCESSES || self.names.contains_key(&task.pid) {
            self.names.insert(task.pid, task);
        }
    }

    pub(super) fn failed(&mut self, call: &FailedCall) {
        self.name(call.task);
        let alike = |known: &&mut Failed| {
            (known.call, known.errno, known.netns, known.address) == (call.call, call.errno, call.netns, call.address)
                && known.task.comm == call.task.comm
        };
        if let Some(known) = self.calls.iter_mut().find(alike) {
            known.count += 1;
            (known.task, known.last) = (call.task, call.at);
        } else if self.calls.len() < MOST_CALLS {
            let FailedCall { at, call, errno, task, netns, address, .. } = *call;
            self.calls.push(Failed { call, errno, task, netns, address, count: 1, first: at, last: at });
        }
    }

    pub(super) fn found(&mut self, found: &Found) {
        let conn = found.id.number();
        if found.state == State::Listen {
            let (ip, port) = (found.tuple.local_ip, found.tuple.local_port);
            // Its queue is seen beside.
            let queue = AcceptQueue { conn, ip, port, queued: 0, limit: 0, requests: None, autobound: None };
            self.listen(found.netns, queue, true);
        }
        if found.kept == Kept::Queued {
            self.queued.insert(conn, (found.netns, found.tuple.local_port));
        }
    }

    pub(super) fn holder(&mut self, holder: &Holder) {
        self.name(holder.task);
        self.queued.remove(&holder.found.id.number());
        if let Some(known) = self.listeners.get_mut(&holder.found.id.number())
            && known.holders.len() < MOST_TASKS
            && !known.holders.iter().any(|task| task.pid == holder.task.pid)
        {
            known.holders.push(holder.task);
        }
    }

    pub(super) fn transition(&mut self, row: &Transition) {
        let identity = &row.identity;
        let place = (identity.netns, identity.tuple.local_port);
        if identity.side == Side::Client && row.old == State::SynSent && place.1 != 0 {
            self.note_client_port(place);
        }
        match (row.old, row.new) {
            (_, State::Listen) => {
                let (ip, port) = (identity.tuple.local_ip, identity.tuple.local_port);
                let queue =
                    AcceptQueue { conn: identity.conn, ip, port, queued: 0, limit: 0, requests: None, autobound: None };
                self.listen(identity.netns, queue, false).is_old = false;
                if let (Some(owner), Some(known)) = (identity.owner, self.listeners.get_mut(&identity.conn)) {
                    known.holders.push(owner.task);
                }
            }
            (State::Listen, State::Closed) => self.forget_listener(identity.conn),
            (_, State::Established) if identity.side == Side::Server => {
                self.queued.insert(identity.conn, place);
            }
            (_, State::Closed) => {
                self.queued.remove(&identity.conn);
                if identity.side != Side::Server {
                    self.bound_first.forget(identity.conn);
                }
            }
            _ => {}
        }
    }

    fn note_client_port(&mut self, (netns, port): (Option<u32>, u16)) {
        if self.client_ports.len() < MOST_NAMESPACES || self.client_ports.contains_key(&netns) {
            self.client_ports.entry(netns).or_default().add(port);
        }
    }

    pub(super) fn accepted(&mut self, at: u64, conn: u64) {
        let Some((netns, port)) = self.queued.remove(&conn) else { return };
        let at_port = |known: &&mut Known| known.listener.netns == netns && known.listener.queue.port == port;
        for known in self.listeners.values_mut().filter(|known| at_port(known)) {
            known.listener.accepted += 1;
            known.listener.accepted_at = Some(at);
        }
    }

    /// How things stand, without what was counted.
    pub(super) fn renewed(self) -> Self {
        let mut host = Self {
            binders: HashMap::default(),
            calls: Vec::new(),
            client_ports: HashMap::default(),
            left_ports: HashMap::default(),
            ..self
        };
        for counters in host.counters.values_mut() {
            (counters.first, counters.counted.grown) = (Some(counters.last), BTreeMap::default());
            counters.counted.peaks.clone_from(&counters.counted.levels);
        }
        for Known { listener, .. } in host.listeners.values_mut() {
            (listener.accepted, listener.is_old, listener.most_queued) = (0, true, listener.queue.queued);
            listener.most_requests = listener.queue.requests.unwrap_or(0);
        }
        host.limits.values_mut().for_each(|it| it.first = it.last);
        host
    }

    pub(super) fn has_counters(&self) -> bool {
        !self.counters.is_empty()
    }

    pub(super) fn has_settings(&self) -> bool {
        !self.settings.is_empty()
    }

    pub(super) fn has_queues(&self) -> bool {
        self.has_queues
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    pub(super) fn has_limits(&self) -> bool {
        !self.limits.is_empty()
    }

    /// What a connection is counted under.
    pub(super) fn key(&self, identity: &Identity) -> PairKey {
        let side = self.side(identity);
        let nobody =
            PairKey { netns: identity.netns, side, cgroup: None, comm: None, ip: Ipv6Addr::UNSPECIFIED, port: 0 };
        match side {
            Side::Server => PairKey { port: identity.tuple.local_port, ..nobody },
            Side::Client => PairKey {
                cgroup: identity.cgroup.filter(|_| identity.owner.is_some()),
                comm: identity.owner.map(|owner| owner.task.comm),
                ip: identity.tuple.remote_ip,
                port: identity.tuple.remote_port,
                ..nobody
            },
            Side::Unknown => PairKey { ip: identity.tuple.remote_ip, ..nobody },
        }
    }

    /// Which end a socket is: by its opening, else by who listens, be it at the other end on this host, else by its ports.
    fn side(&self, identity: &Identity) -> Side {
        if identity.side != Side::Unknown {
            return identity.side;
        }
        let (local, remote) = (identity.tuple.local_port, identity.tuple.remote_port);
        let listens = |port| self.ports.contains_key(&(identity.netns, port));
        if listens(local) {
            return Side::Server;
        }
        let is_here = |it: Tuple| it.local_ip == it.remote_ip || it.remote_ip.to_canonical().is_loopback();
        if listens(remote) && is_here(identity.tuple) {
            return Side::Client;
        }
        match (self.is_in_range(identity.netns, local), self.is_in_range(identity.netns, remote)) {
            (true, false) => Side::Client,
            (false, true) => Side::Server,
            _ => Side::Unknown,
        }
    }

    pub(super) fn finish(&self, looks: &Looks, evidence: &mut Evidence) {
        let of_standing = evidence.sockets.iter().map(|it| it.conn);
        evidence.bound_first = of_standing.filter_map(|conn| Some((conn, self.bound_first.of(conn)?))).collect();
        evidence.client_ports.clone_from(&self.client_ports);
        evidence.left_ports = self.left_ports.keys().copied().collect();
        evidence.settings.clone_from(&self.settings);
        evidence.calls.clone_from(&self.calls);
        let counted = |of: &Counters| {
            let over_ns = of.last.saturating_sub(of.first.unwrap_or(of.last));
            Counted { over_ns, ..of.counted.clone() }
        };
        evidence.counters = self.counters.iter().map(|(netns, of)| (*netns, counted(of))).collect();
        evidence.listeners = self.listeners.values().map(Known::finish).collect();
        evidence.listeners.sort_by_key(|it| (it.netns, it.queue.port, it.queue.ip));
        let owners = evidence.sockets.iter().filter_map(Standing::task);
        let owners: HashMap<u32, Task, FixedState> = owners.map(|task| (task.pid, task)).collect();
        let named = |it: &Descriptors| {
            let task = owners.get(&it.pid).or_else(|| self.names.get(&it.pid)).copied();
            Descriptors { task, ..it.clone() }
        };
        evidence.limits = self.limits.values().map(named).collect();
        evidence.limits.sort_by_key(|it| it.pid);
        let binder = |((netns, ip), of): (&(Option<u32>, Ipv6Addr), &Binding)| {
            let shown = of.conns.iter().filter_map(|conn| looks.of(*conn)?.seen()?.bind_no_port);
            let lacks_no_port = shown.reduce(|all, has| all && has).map(|has| !has);
            let (opened, destinations) = (of.opened, of.destinations.len());
            Binder { netns: *netns, ip: *ip, opened, destinations, tasks: of.tasks.clone(), lacks_no_port }
        };
        evidence.binders = self.binders.iter().map(binder).collect();
        evidence
            .binders
            .iter_mut()
            .for_each(|it| it.tasks.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid)));
        evidence.binders.sort_by_key(|it| (std::cmp::Reverse(it.opened), it.netns, it.ip));
    }
}

/// The ports that the kernel hands out by these settings.
fn range(settings: &Settings) -> Option<(u16, u16)> {
    let mut ends = settings.values.get("net.ipv4.ip_local_port_range")?.split_whitespace().map(str::parse);
    Some((ends.next()?.ok()?, ends.next()?.ok()?))
}

impl Known {
    /// With who listens: the process with the lowest id, if all that hold it have one name.
    fn finish(&self) -> Listener {
        let first = self.holders.iter().min_by_key(|task| task.pid).copied();
        let task = first.filter(|first| self.holders.iter().all(|task| task.comm == first.comm));
        Listener { task, ..self.listener.clone() }
    }
}
