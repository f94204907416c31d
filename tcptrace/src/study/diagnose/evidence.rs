//! What a diagnosis stands on: the same from the live kernel and from a trace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;

use super::finding::{EXAMPLES, Example, Subject};
use super::need::Need;
use super::say;
use crate::model::counters::Values;
use crate::model::event::{Bound, Call, Idle, Inspected, Kept};
use crate::model::facts::{AcceptQueue, Limit, SettingFiles, Settings};
use crate::model::row::{Held, Owner};
use crate::model::tcp::{Closer, Comm, End, Side, State, Task, TimeWaitEnd, Tuple};
use crate::study::counts::histogram::Histogram;
use crate::study::ports::{Budget, PortSet, SourceBudget};

/// Durations and sizes, to 1.6 %.
pub type Spread = Histogram<5>;

/// Everything that rules look at.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Whose it is, and of when.
    pub about: About,
    /// What is missing, and why.
    pub missing: HashMap<Need, String, FixedState>,
    /// Connections of the window, by process and by the end that repeats.
    pub pairs: Vec<Pair>,
    /// Connections of pairs that are not kept, because there are too many.
    pub unpaired: u64,
    /// The sockets that exist at the end, listeners left out.
    pub sockets: Vec<Standing>,
    /// Who binds a port before it connects, by namespace and source address.
    pub binders: Vec<Binder>,
    /// What the kernel has counted, by network namespace.
    pub counters: BTreeMap<u32, Counted>,
    /// Settings by network namespace; `None`: of the host.
    pub settings: BTreeMap<Option<u32>, Settings>,
    /// Listeners, each with the course of its accept queue.
    pub listeners: Vec<Listener>,
    /// Descriptors of processes.
    pub limits: Vec<Descriptors>,
    /// System calls that failed, alike ones together.
    pub calls: Vec<Failed>,
    /// Sockets that were bound and have neither connected nor listened.
    pub bound: Vec<Bound>,
    /// Whether the connections among `sockets` had a local port before connect(), where that was seen, by their number.
    pub bound_first: HashMap<u64, bool, FixedState>,
    /// The local ports that all these sockets leave.
    pub budgets: Budgets,
    /// Connections that are over, and whose descriptor is open; `None` where nobody looks for them.
    pub over: Option<Vec<Over>>,
    /// The local ports of clients in the window, by network namespace.
    pub client_ports: HashMap<Option<u32>, PortSet, FixedState>,
    /// Ports that the last listener has left in the window, by network namespace.
    pub left_ports: HashSet<(Option<u32>, u16), FixedState>,
    /// What files set at boot; `None` where nobody has read them.
    pub setting_files: Option<SettingFiles>,
}

/// Sockets that stand, by pair.
pub type Standings<'e> = HashMap<PairKey, Vec<&'e Standing>, FixedState>;

/// Whose evidence it is, and of when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Name of the host.
    pub host: String,
    /// Its kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Id of that boot of it.
    pub boot_id: String,
    /// Whether it is from a trace.
    pub is_trace: bool,
    /// When looking began, in ns of `CLOCK_BOOTTIME`.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// How long transitions were traced, in ns; 0 for a single look.
    pub traced_ns: u64,
    /// Connections opened in that time.
    pub opened: u64,
    /// Connections that ended in that time.
    pub ended: u64,
    /// Network namespaces with sockets.
    pub namespaces: Vec<u32>,
    /// Events that were lost.
    pub lost: u64,
}

impl About {
    /// So many in the time that was traced are so many a second; 0 if nothing was traced.
    pub fn per_second(&self, number: u64) -> f64 {
        if self.traced_ns == 0 { 0.0 } else { number as f64 / (self.traced_ns as f64 / 1e9) }
    }

    /// Whether a time is in the last minute before the end.
    pub fn is_recent(&self, at: u64) -> bool {
        self.to.saturating_sub(at) <= 60_000_000_000
    }
}

impl Evidence {
    /// Why a kind of evidence is missing; `None` if it is there.
    pub fn lacks(&self, need: Need) -> Option<String> {
        if let Need::Time(seconds) = need {
            let is_short = self.about.traced_ns < seconds.saturating_mul(1_000_000_000);
            return is_short.then(|| format!("needs time (--duration {seconds}s)"));
        }
        if need == Need::NoLosses {
            return (self.about.lost > 0).then(|| "events were lost".to_owned());
        }
        self.missing.get(&need).cloned()
    }

    /// A setting of a network namespace, or of the host where it has none of its own.
    pub fn setting(&self, netns: Option<u32>, name: &str) -> Option<&str> {
        let of = |key: Option<u32>| self.settings.get(&key)?.values.get(name).map(AsRef::as_ref);
        of(netns).or_else(|| of(None))
    }

    /// The same as a number.
    pub fn number(&self, netns: Option<u32>, name: &str) -> Option<i64> {
        self.setting(netns, name)?.split_whitespace().next()?.parse().ok()
    }

    /// By how much a counter has grown in a network namespace, such as `TcpExt.ListenOverflows`.
    pub fn grown(&self, netns: u32, name: &str) -> u64 {
        self.counters.get(&netns).and_then(|counted| counted.grown.get(name)).copied().unwrap_or(0)
    }

    /// The highest that a level was seen in a network namespace, such as `conntrack.count`.
    pub fn peak(&self, netns: u32, name: &str) -> u64 {
        self.counters.get(&netns).and_then(|counted| counted.peaks.get(name)).copied().unwrap_or(0)
    }

    /// The same of the host: each network namespace shows a level that the kernel has once.
    pub fn peak_of_host(&self, name: &str) -> u64 {
        self.counters.keys().map(|netns| self.peak(*netns, name)).max().unwrap_or(0)
    }

    /// The clients' side of a pair of processes' connections: those that this process opened.
    pub fn clients(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| pair.key.side == Side::Client)
    }

    /// The sockets that stand and are wanted, by pair. Most rules that look at sockets do so for each pair, and there may be
    /// many of both.
    pub fn standing(&self, wanted: impl Fn(&Standing) -> bool) -> Standings<'_> {
        let mut by_pair = Standings::default();
        for socket in self.sockets.iter().filter(|socket| wanted(socket)) {
            by_pair.entry(socket.pair).or_default().push(socket);
        }
        by_pair
    }

    /// The connections of listeners.
    pub fn servers(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| pair.key.side == Side::Server)
    }

    /// The listener of a port, if there is one: the first, where there are several.
    pub fn listener(&self, netns: Option<u32>, port: u16) -> Option<&Listener> {
        self.listeners.iter().find(|it| it.netns == netns && it.queue.port == port)
    }
}

/// What connections have in common that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Which end they are: [`Side::Client`] or [`Side::Server`].
    pub side: Side,
    /// Of clients: the process's control group and name; `None` for those of servers, and where nobody knows.
    pub cgroup: Option<u64>,
    /// See `cgroup`.
    pub comm: Option<Comm>,
    /// Of clients: the remote address; of servers: unspecified.
    pub ip: Ipv6Addr,
    /// Of clients: the remote port; of servers: the local one.
    pub port: u16,
}

/// Connections of the window that have something in common.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What they have in common.
    pub key: PairKey,
    /// The processes that own them, the most frequent one first, with how many connections each; 16 at most.
    pub tasks: Vec<(Task, u64)>,
    /// Connections whose owner is none of `tasks`, or unknown.
    pub unowned: u64,
    /// How many different processes, as far as they were counted: 256 at most.
    pub processes: usize,
    /// Connections opened: a SYN sent, or one established by a listener.
    pub opened: u64,
    /// Established ones.
    pub established: u64,
    /// Ended ones by how they ended and who closed.
    pub ends: Vec<(End, Closer, Ended)>,
    /// TIME_WAITs that ended, or never began, by how.
    pub time_waits: Vec<(TimeWaitEnd, u64, Spread)>,
    /// What entered and left each state.
    pub stays: Vec<(State, Stays)>,
    /// Ended ones that were in ESTABLISHED for less than a second.
    pub short: u64,
    /// Ended ones that were in ESTABLISHED for a second or longer.
    pub long: u64,
    /// ESTABLISHED ones that this side closed first.
    pub closed_here: u64,
    /// Of those, the ones that another one was opened for within a second.
    pub reopened: u64,
    /// The fewest that were in ESTABLISHED at once in the window.
    pub least_open: u64,
    /// The most.
    pub most_open: u64,
    /// Round-trip times in µs of ended ones.
    pub srtt_us: Spread,
    /// TIME_WAITs that the kernel began anew, those that still wait among them.
    pub rearmed: u64,
    /// Who had sent the resets that they received, where the other end was seen, too.
    pub senders: Senders,
}

/// Who had sent the resets that connections received, as far as their other end is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Senders {
    /// The other end did, and its process did what makes the kernel send one.
    pub process: u64,
    /// The other end did: data came after its process had closed.
    pub after_close: u64,
    /// The other end received one, too, or is still open: something between them did.
    pub nobody: u64,
}

impl Pair {
    /// One of which nothing has been counted yet.
    pub fn new(key: PairKey) -> Self {
        Self {
            key,
            tasks: Vec::new(),
            unowned: 0,
            processes: 0,
            opened: 0,
            established: 0,
            ends: Vec::new(),
            time_waits: Vec::new(),
            stays: Vec::new(),
            short: 0,
            long: 0,
            closed_here: 0,
            reopened: 0,
            least_open: 0,
            most_open: 0,
            srtt_us: Spread::default(),
            rearmed: 0,
            senders: Senders::default(),
        }
    }

    /// The process that owns all of them whose owner is known; `None` if there are several.
    pub fn task(&self) -> Option<Task> {
        self.tasks.first().map(|(task, _)| *task).filter(|_| self.processes == 1)
    }

    /// `api[4711]`, `api (12 processes)`, or what stands for a process that nobody knows.
    pub fn process(&self) -> String {
        match self.tasks.first() {
            None => "an unknown process".to_owned(),
            Some((task, _)) if self.processes == 1 => say::process(*task),
            Some((task, _)) if self.tasks.iter().all(|(other, _)| other.comm == task.comm) => {
                format!("{} ({} processes)", say::comm(task.comm), self.processes)
            }
            Some((task, _)) => format!("{} and {} other processes", say::process(*task), self.processes - 1),
        }
    }

    /// The end that repeats: the remote one of clients, the listening port of servers.
    pub fn end(&self) -> SocketAddr {
        say::end(self.key.ip, self.key.port)
    }

    /// Ended ones.
    pub fn ended(&self) -> u64 {
        self.ends.iter().map(|(_, _, ended)| ended.count).sum()
    }

    /// Ended ones that ended so, whoever closed.
    pub fn ended_by(&self, end: End) -> u64 {
        self.ends.iter().filter(|(of, ..)| *of == end).map(|(_, _, ended)| ended.count).sum()
    }

    /// Ended ones that this one closed.
    pub fn closed_by(&self, closer: Closer) -> u64 {
        self.ends.iter().filter(|(_, of, _)| *of == closer).map(|(_, _, ended)| ended.count).sum()
    }

    /// Ended ones that ended so, by who closed.
    pub fn ended_as(&self, end: End) -> impl Iterator<Item = (Closer, &Ended)> {
        self.ends.iter().filter(move |(of, ..)| *of == end).map(|(_, closer, ended)| (*closer, ended))
    }

    /// What entered and left a state.
    pub fn stay(&self, state: State) -> Option<&Stays> {
        self.stays.iter().find(|(of, _)| *of == state).map(|(_, stays)| stays)
    }

    /// How long those that left a state in the window had been in it.
    pub fn spread(&self, state: State) -> Option<&Spread> {
        self.stay(state).map(|stays| &stays.lasted).filter(|spread| spread.total() > 0)
    }

    /// TIME_WAITs that ended so.
    pub fn time_waits_by(&self, end: TimeWaitEnd) -> u64 {
        self.time_waits.iter().filter(|(of, ..)| *of == end).map(|(_, count, _)| *count).sum()
    }

    /// Some of its ended connections: five at most.
    pub fn examples(&self) -> Vec<Example> {
        self.ends.iter().flat_map(|(.., ended)| ended.examples.iter().cloned()).take(EXAMPLES).collect()
    }

    /// When the first and the last of its connections ended.
    pub fn period(&self) -> (Option<u64>, Option<u64>) {
        let ended = || self.ends.iter().map(|(.., ended)| ended);
        (ended().map(|it| it.first).min(), ended().map(|it| it.last).max())
    }

    /// Whom a finding about it is about.
    pub fn subject(&self) -> Subject {
        let PairKey { netns, side, cgroup, port, .. } = self.key;
        let is_server = side == Side::Server;
        Subject {
            task: self.task(),
            cgroup,
            netns,
            local: None,
            remote: (!is_server).then(|| self.end()),
            lport: is_server.then_some(port),
            side: Some(side),
        }
    }

    /// Whether a standing socket is one of these.
    pub fn has(&self, socket: &Standing) -> bool {
        socket.pair == self.key
    }
}

/// Connections that ended alike.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// How many.
    pub count: u64,
    /// When the first one did, in ns of `CLOCK_BOOTTIME`.
    pub first: u64,
    /// When the last one did.
    pub last: u64,
    /// Time in ESTABLISHED, in ns.
    pub established: Spread,
    /// Time in SYN_SENT, in ns.
    pub syn_sent: Spread,
    /// Payload bytes sent.
    pub bytes_sent: Spread,
    /// Payload bytes received, all together.
    pub bytes_received: u64,
    /// The same of those sent.
    pub bytes_sent_all: u64,
    /// Bytes received that no process has read.
    pub bytes_unread: u64,
    /// How many had sent or received anything.
    pub with_data: u64,
    /// How many had something in flight that was not acknowledged.
    pub in_flight: u64,
    /// How long data had not moved when the end began, in ns.
    pub idle: Spread,
    /// How many ended in CLOSE_WAIT.
    pub in_close_wait: u64,
    /// Some of them.
    pub examples: Vec<Example>,
    /// How many had been in ESTABLISHED for a second or longer.
    pub long: u64,
    /// Of those, the ones that ended in CLOSE_WAIT less than a second after the peer's FIN.
    pub just_closed: u64,
    /// How long nothing had been received when the end began, in ns.
    pub received_idle: Spread,
    /// How many ended in FIN_WAIT1, CLOSING or LAST_ACK.
    pub in_closing: u64,
    /// The remote addresses of those that ended because nobody answered, with how many each; 16 at most.
    pub remotes: Vec<(Ipv6Addr, u64)>,
}

/// What entered and left a state in the window.
#[derive(Clone, Debug, Default)]
pub struct Stays {
    /// How many entered it.
    pub entered: u64,
    /// How many left it.
    pub left: u64,
    /// How many left it that had entered it in the window.
    pub left_new: u64,
    /// How long those that left it had been in it, where that is known exactly, in ns.
    pub lasted: Spread,
    /// The most that were in it at once; counted for CLOSE_WAIT only.
    pub most: u64,
    /// Of `lasted`, those whose process closed; counted for CLOSE_WAIT only.
    pub closed: Spread,
}

/// A connection that is over, and whose descriptor is open.
#[derive(Clone, Debug)]
pub struct Over {
    /// Its socket, which is CLOSED: `ss` does not show it. Its age is the time since the end.
    pub socket: Standing,
    /// How it ended; [`End::Unknown`] where that was before anybody looked.
    pub end: End,
}

/// A socket that exists at the end.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its number.
    pub conn: u64,
    /// The pair that its connection belongs to.
    pub pair: PairKey,
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
    /// Both ends.
    pub tuple: Tuple,
    /// Which end it is, as far as its opening, the listeners and the ports tell.
    pub side: Side,
    /// Its state.
    pub state: State,
    /// Who owns it.
    pub owner: Option<Owner>,
    /// The owner's descriptor of it.
    pub fd: Option<u32>,
    /// Id of its control group.
    pub cgroup: Option<u64>,
    /// Whether the socket of a server was accepted; `None` when unknown, and for clients.
    pub accepted: Option<bool>,
    /// Who closed, as far as that is decided.
    pub closer: Closer,
    /// How long it has been in its state.
    pub age: Held,
    /// What has it, as far as the kernel was asked.
    pub kept: Option<Kept>,
    /// How much of a mini-socket's time is left, in ns.
    pub left_ns: Option<u64>,
    /// What the kernel showed of it at the last look.
    pub seen: Option<Inspected>,
}

impl Standing {
    /// The process that owns it.
    pub fn task(&self) -> Option<Task> {
        self.owner.map(|owner| owner.task)
    }

    /// How long it has been in its state at least, in ns.
    pub fn age_ns(&self) -> u64 {
        self.age.known_ns().unwrap_or(0)
    }

    /// Bytes that its process has not read, a FIN among them; `None` when nobody looked.
    pub fn recv_queue(&self) -> Option<u32> {
        self.seen.map(|seen| seen.recv_queue)
    }

    /// When data last moved; `None` when nobody looked.
    pub fn idle(&self) -> Option<Idle> {
        self.seen.and_then(|seen| seen.idle)
    }

    /// An example of a finding.
    pub fn example(&self) -> Example {
        Example {
            conn: self.conn,
            local: self.tuple.local(),
            remote: self.tuple.remote(),
            state: self.state,
            age: self.age,
            pid: self.task().map(|task| task.pid),
            fd: self.fd,
        }
    }
}

/// Who binds a port before it connects.
#[derive(Clone, Debug)]
pub struct Binder {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// The source address.
    pub ip: Ipv6Addr,
    /// Connections that were opened so in the window.
    pub opened: u64,
    /// Different destinations (address and port), as far as they were counted: 64 at most.
    pub destinations: usize,
    /// Their processes, the most frequent one first; 16 at most.
    pub tasks: Vec<(Task, u64)>,
    /// Whether one of their sockets shows that `IP_BIND_ADDRESS_NO_PORT` is not set; `None` when none was looked at.
    pub lacks_no_port: Option<bool>,
}

/// What the kernel has counted in a network namespace.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// By how much each counter has grown since looking began.
    pub grown: Values,
    /// What goes up and down, at the end.
    pub levels: Values,
    /// How long that is, in ns.
    pub over_ns: u64,
    /// The highest that each of `levels` was seen.
    pub peaks: Values,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Inode number of its network namespace.
    pub netns: Option<u32>,
    /// Its accept queue at the end.
    pub queue: AcceptQueue,
    /// Who listens, where that is one process.
    pub task: Option<Task>,
    /// The longest that it was seen.
    pub most_queued: u32,
    /// Since when every look has found somebody waiting, in ns of `CLOCK_BOOTTIME`; `None` if the last one did not.
    pub waiting_since: Option<u64>,
    /// Connections that were accepted from it in the window, as far as accepts are seen.
    pub accepted: u64,
    /// When the last one was, in ns of `CLOCK_BOOTTIME`.
    pub accepted_at: Option<u64>,
    /// Whether it was there before the window.
    pub is_old: bool,
    /// The most connection requests (SYN_RECV) that it was seen with; 0 where nobody counted them, too.
    pub most_requests: u32,
}

/// Descriptors of a process.
#[derive(Clone, Debug)]
pub struct Descriptors {
    /// The process; its name where a socket tells it.
    pub pid: u32,
    /// See `pid`.
    pub task: Option<Task>,
    /// At the first look, and when that was.
    pub first: (u64, Limit),
    /// At the last one.
    pub last: (u64, Limit),
}

impl Descriptors {
    /// So many more a second, between both looks; `None` if there was one only.
    pub fn growth(&self) -> Option<f64> {
        let seconds = self.last.0.saturating_sub(self.first.0) as f64 / 1e9;
        let (first, last) = (self.first.1.descriptors?, self.last.1.descriptors?);
        (seconds >= 1.0).then(|| (last as f64 - first as f64) / seconds)
    }
}

/// System calls that failed alike.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Which call.
    pub call: Call,
    /// The errno.
    pub errno: u16,
    /// Who called, at last.
    pub task: Task,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// What was to be bound.
    pub address: Option<(Ipv6Addr, u16)>,
    /// How often.
    pub count: u64,
    /// When first, in ns of `CLOCK_BOOTTIME`.
    pub first: u64,
    /// When last.
    pub last: u64,
}

/// The local ports of the window.
#[derive(Debug, Default)]
pub struct Budgets {
    /// Of each destination, the fullest first; 256 at most.
    pub keys: Vec<KeyBudget>,
    /// Of each source address that is bound before connect().
    pub sources: Vec<SourceOf>,
}

/// The ports of one destination.
#[derive(Clone, Debug)]
pub struct KeyBudget {
    /// Its ports.
    pub budget: Budget,
    /// How many of its TIME_WAITs are older than `tcp_tw_reuse_delay`.
    pub old_time_waits: u32,
    /// Whether both ends use TCP timestamps; `None` when nobody has seen it.
    pub timestamps: Option<bool>,
}

/// The ports of one source address.
#[derive(Clone, Debug)]
pub struct SourceOf {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Its ports.
    pub budget: SourceBudget,
}
