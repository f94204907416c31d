//! What the criteria ask of a connection, and of a row.

use std::net::IpAddr;

use ipnet::IpNet;
use tcptrace_common::FILTER_PORTS;

use super::Verdict;
use crate::model::criteria::Criteria;
use crate::model::event::Kept;
use crate::model::labels::Labels;
use crate::model::names::{Group, Names};
use crate::model::row::{Connection, Entry, Identity, Report, Row, Stuck, Transition};
use crate::model::tcp::{Closer, Comm, End, OwnerSource, State, Task};

impl Criteria {
    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        !self.ask_connections() && self.states.is_empty() && self.min_duration_ns.is_none()
    }

    /// The part that the kernel side can check without hiding anything that may match.
    pub fn kernel(&self) -> tcptrace_common::Filter {
        tcptrace_common::Filter {
            ports: kernel_ports(&self.ports),
            local_ports: kernel_ports(&self.local_ports),
            remote_ports: kernel_ports(&self.remote_ports),
            netns: if let [netns] = self.netns[..] { netns } else { 0 },
            family: match (self.ipv4, self.ipv6) {
                (true, false) => 4,
                (false, true) => 6,
                _ => 0,
            },
        }
    }

    /// Whether any criterion is about connections as a whole.
    pub(super) fn ask_connections(&self) -> bool {
        let ports = [&self.ports, &self.local_ports, &self.remote_ports];
        let by_place = !self.networks.is_empty() || !self.netns.is_empty() || self.ipv4 != self.ipv6;
        let by_owner = !self.pids.is_empty() || !self.comms.is_empty() || self.ask_groups();
        by_place || by_owner || !self.closers.is_empty() || ports.into_iter().any(|ports| !ports.is_empty())
    }

    /// Whether any criterion is about all processes that relate to a connection.
    pub(super) fn ask_processes(&self) -> bool {
        let asks_nobody = self.pids.is_empty() && self.comms.is_empty() && !self.ask_groups();
        !(self.owner_only || asks_nobody)
    }

    /// Whether any criterion is about control groups.
    pub fn ask_groups(&self) -> bool {
        let by_name = [&self.cgroups, &self.pods, &self.pod_namespaces, &self.container_names];
        by_name.into_iter().any(|wanted| !wanted.is_empty())
    }

    /// Whether a control group matches.
    pub fn wants_group(&self, group: &Group) -> bool {
        let Labels { pod, pod_namespace, container_name } = &group.labels;
        let is = |wanted: &[String], name: &Option<Box<str>>| {
            wanted.is_empty() || name.as_deref().is_some_and(|name| wanted.iter().any(|wanted| wanted == name))
        };
        (self.cgroups.is_empty() || self.cgroups.iter().any(|wanted| group.is(wanted)))
            && is(&self.pods, pod)
            && is(&self.pod_namespaces, pod_namespace)
            && is(&self.container_names, container_name)
    }

    /// Whether the connection of a row matches; `None` while that depends on what is not known yet. The last row of a
    /// connection always decides.
    pub(super) fn decide(&self, row: &Row, names: &Names) -> Option<Verdict> {
        let Some(facts) = Facts::of(row) else { return Some(Verdict::Shown) };
        match self.ask(&facts, names) {
            Some(true) => Some(Verdict::Shown),
            Some(false) => Some(Verdict::Hidden),
            None if facts.is_last => Some(self.judge(&facts, names)),
            None => None,
        }
    }

    /// The same for a row that does not say enough, when nothing more will be known of its connection.
    pub(super) fn give_up_on(&self, row: &Row, names: &Names) -> Verdict {
        let Some(facts) = Facts::of(row) else { return Verdict::Shown };
        match self.judge(&facts.at_last(), names) {
            // Nobody has closed it yet, so it is not known to match.
            Verdict::Shown => Verdict::Hidden,
            verdict => verdict,
        }
    }

    /// Whether an existing socket matches, by what is known of it now.
    pub fn judge_socket(&self, socket: &Entry, names: &Names) -> Verdict {
        if self.socket_passes(socket) { self.judge(&Facts::of_socket(socket), names) } else { Verdict::Hidden }
    }

    /// Whether this process is a wanted one.
    pub fn wants_process(&self, task: &Task, names: &Names) -> bool {
        let is_in = || names.is_process_where(task.pid, |group| self.wants_group(group)) == Some(true);
        let is_named = |comm: &String| task.comm.bytes() == Comm::from(comm.as_str()).bytes();
        let is_wanted =
            self.pids.contains(&task.pid) || self.comms.iter().any(is_named) || self.ask_groups() && is_in();
        !self.owner_only && is_wanted
    }

    /// Decides when nothing more will be known.
    fn judge(&self, facts: &Facts<'_>, names: &Names) -> Verdict {
        match self.ask(facts, names) {
            Some(true) => Verdict::Shown,
            Some(false) => Verdict::Hidden,
            None if self.ask_others(facts) == Some(true) => Verdict::Undecided,
            None => Verdict::Unknown,
        }
    }

    fn socket_passes(&self, socket: &Entry) -> bool {
        let in_state = self.states.is_empty() || self.states.contains(&socket.state);
        in_state && self.long_enough(socket.age.known_ns())
    }

    fn ask(&self, facts: &Facts<'_>, names: &Names) -> Option<bool> {
        let group = if self.ask_groups() { self.group(facts, names) } else { Some(true) };
        all([self.ask_others(facts), group])
    }

    /// Checks the control group of the socket, and those of the processes that relate to it.
    fn group(&self, facts: &Facts<'_>, names: &Names) -> Option<bool> {
        let is_in = |pid| names.is_process_where(pid, |group| self.wants_group(group));
        let socket = facts.identity.cgroup.and_then(|id| names.group(id)).map(|group| self.wants_group(group));
        if self.owner_only {
            return socket;
        }
        // Nearly always, its owner has made it: then both are in one group.
        let owner = facts.identity.owner.and_then(|owner| is_in(owner.task.pid)).or(socket);
        let is_other = |task: &Task| facts.identity.owner.is_none_or(|owner| owner.task.pid != task.pid);
        let of = |task: Task| if is_other(&task) { is_in(task.pid) } else { owner };
        any([socket, owner, facts.closed_by.answer(of), facts.holder(of)])
    }

    /// Checks the processes that relate to a socket.
    fn process(&self, facts: &Facts<'_>, matches: impl Fn(&Task) -> bool) -> Option<bool> {
        let owner = facts.owner(&matches);
        if self.owner_only {
            return owner;
        }
        let of = |task: Task| Some(matches(&task));
        any([owner, facts.closed_by.answer(of), facts.holder(of)])
    }

    /// Checks everything but the control group.
    fn ask_others(&self, facts: &Facts<'_>) -> Option<bool> {
        all([
            self.family(facts.identity),
            any_of(&self.netns, |netns| facts.identity.netns.map(|known| known == *netns)),
            self.ports(facts),
            any_of(&self.networks, |network| facts.in_network(network)),
            any_of(&self.pids, |pid| self.process(facts, |task| task.pid == *pid)),
            any_of(&self.comms, |comm| {
                self.process(facts, |task| task.comm.bytes() == Comm::from(comm.as_str()).bytes())
            }),
            any_of(&self.closers, |closer| facts.closer(*closer)),
        ])
    }

    /// Whether a row matches whose connection does.
    pub(super) fn passes(&self, row: &Row) -> bool {
        match row {
            Row::Transition(row) => self.passes_transition(row),
            Row::Connection(row) => self.passes_connection(row),
            Row::Loss(_) | Row::Audit(_) => true,
            Row::Counter(row) => self.netns.is_empty() || self.netns.contains(&row.netns),
        }
    }

    fn passes_transition(&self, row: &Transition) -> bool {
        let in_state = self.states.is_empty() || self.states.contains(&row.old) || self.states.contains(&row.new);
        in_state && self.long_enough(row.held.known_ns())
    }

    fn passes_connection(&self, row: &Connection) -> bool {
        if self.states.is_empty() {
            return self.long_enough(row.lifetime().known_ns());
        }
        let mut stays = row.stays.iter().filter(|stay| self.states.contains(&stay.state));
        stays.any(|stay| self.long_enough(stay.held.known_ns()))
    }

    fn long_enough(&self, known_ns: Option<u64>) -> bool {
        self.min_duration_ns.is_none_or(|least| known_ns.is_some_and(|known| known >= least))
    }

    fn family(&self, identity: &Identity) -> Option<bool> {
        Some(self.ipv4 == self.ipv6 || identity.tuple.is_ipv4() == self.ipv4)
    }

    fn ports(&self, facts: &Facts<'_>) -> Option<bool> {
        let (local, remote) = (facts.identity.tuple.local_port, facts.identity.tuple.remote_port);
        // A connection whose last row has no port never had one.
        let same_port = |wanted: u16, port: u16| same_port(wanted, port).or(facts.is_last.then_some(false));
        let is_local = |port: &u16| same_port(*port, local);
        // A listener never has a remote port.
        let is_remote = |port: &u16| if facts.is_listener { Some(false) } else { same_port(*port, remote) };
        all([
            any_of(&self.local_ports, is_local),
            any_of(&self.remote_ports, is_remote),
            any_of(&self.ports, |port| any([is_local(port), is_remote(port)])),
        ])
    }
}

/// What a row says about its connection.
struct Facts<'r> {
    identity: &'r Identity,
    closer: Option<Closer>,
    /// The process that closed it.
    closed_by: ClosedBy,
    /// A process that holds it now, or listens for it.
    holder: Option<Task>,
    /// Other processes hold it too.
    has_more_holders: bool,
    /// No process has held it since tcptrace first saw it, as far as known.
    is_nobodys: bool,
    /// The peer's FIN may still cross ours, which turns an active close into a simultaneous one.
    may_cross: bool,
    is_listener: bool,
    is_last: bool,
}

/// What is known of the process that closed a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedBy {
    Process(Task),
    /// No process has, and none will.
    Nobody,
    /// A process has, or may yet.
    Unknown,
}

impl ClosedBy {
    /// For a connection that one end has closed.
    fn of(closed_by: Option<Task>, closer: Option<Closer>, is_last: bool) -> Self {
        match closed_by {
            Some(task) => Self::Process(task),
            // If the peer ended it, no process here need have closed it.
            None if is_last && !matches!(closer, Some(Closer::Active | Closer::Simultaneous)) => Self::Nobody,
            None => Self::Unknown,
        }
    }

    fn answer(self, of: impl FnOnce(Task) -> Option<bool>) -> Option<bool> {
        match self {
            Self::Process(task) => of(task),
            Self::Nobody => Some(false),
            Self::Unknown => None,
        }
    }
}

impl<'r> Facts<'r> {
    fn of(row: &'r Row) -> Option<Self> {
        Some(match row {
            Row::Transition(row) => Self {
                identity: &row.identity,
                closer: row.closer,
                closed_by: ClosedBy::of(row.closed_by, row.closer, row.new == State::Closed),
                holder: row.stuck.as_ref().and_then(Stuck::report).and_then(holder),
                has_more_holders: row.stuck.as_ref().and_then(Stuck::report).is_some_and(has_more_holders),
                is_nobodys: row.old == State::TimeWait || row.orphan,
                may_cross: row.new == State::FinWait1,
                is_listener: row.new == State::Listen || (row.old, row.new) == (State::Listen, State::Closed),
                is_last: row.new == State::Closed,
            },
            Row::Connection(row) => Self {
                identity: &row.identity,
                closer: Some(row.closer),
                closed_by: ClosedBy::of(row.closed_by, Some(row.closer), true),
                holder: row.status.report().and_then(holder),
                has_more_holders: row.status.report().is_some_and(has_more_holders),
                is_nobodys: row.end() == Some(End::NeverAccepted) || is_only_mini(row),
                may_cross: false,
                is_listener: false,
                is_last: true,
            },
            Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => return None,
        })
    }

    fn of_socket(socket: &'r Entry) -> Self {
        Self {
            identity: &socket.identity,
            closer: socket.closer,
            closed_by: ClosedBy::Nobody,
            // If several hold it, this is a wanted one.
            holder: socket.holding.map(|holding| holding.task).or(socket.listener),
            has_more_holders: false,
            is_nobodys: socket.kept != Kept::Held,
            may_cross: false,
            is_listener: socket.state == State::Listen,
            is_last: true,
        }
    }

    /// Nothing more will be known.
    fn at_last(self) -> Self {
        let closed_by = match self.closed_by {
            ClosedBy::Process(task) => ClosedBy::Process(task),
            _ => ClosedBy::of(None, self.closer, true),
        };
        Self { closed_by, is_last: true, ..self }
    }

    fn holder(&self, of: impl FnOnce(Task) -> Option<bool>) -> Option<bool> {
        match self.holder.map_or(Some(false), of) {
            Some(false) if self.has_more_holders => None,
            answer => answer,
        }
    }

    fn in_network(&self, network: &IpNet) -> Option<bool> {
        let tuple = &self.identity.tuple;
        any([tuple.local().ip(), tuple.remote().ip()].map(|ip| self.ip_in_network(ip, network)))
    }

    fn ip_in_network(&self, ip: IpAddr, network: &IpNet) -> Option<bool> {
        // A listener's addresses stay unspecified, a connection's do not.
        let may_come = ip.is_unspecified() && !self.is_listener && !self.is_last;
        if may_come { None } else { Some(network.contains(&ip)) }
    }

    /// Checks the owner. The process that listens may not be the one that accepts, so a listener that does not match
    /// decides nothing yet.
    fn owner(&self, matches: impl Fn(&Task) -> bool) -> Option<bool> {
        let Some(owner) = &self.identity.owner else { return self.is_nobodys.then_some(false) };
        match owner.source {
            _ if matches(&owner.task) => Some(true),
            OwnerSource::Listen if !self.is_listener && !self.is_last => None,
            OwnerSource::Unknown => None,
            _ => Some(false),
        }
    }

    fn closer(&self, wanted: Closer) -> Option<bool> {
        match self.closer {
            None | Some(Closer::Unknown) if self.is_last => Some(wanted == Closer::Unknown),
            None | Some(Closer::Unknown) => None,
            Some(Closer::Active) if self.may_cross => match wanted {
                Closer::Active | Closer::Simultaneous => None,
                _ => Some(false),
            },
            Some(closer) => Some(closer == wanted),
        }
    }
}

/// The process that holds it, or that listens if nobody has accepted it.
fn holder(report: &Report) -> Option<Task> {
    report.holder.map(|(task, _)| task).or(report.listener)
}

fn has_more_holders(report: &Report) -> bool {
    report.holders.is_some_and(|holders| holders > 1)
}

/// Whether tcptrace first saw it when no process held it any more.
fn is_only_mini(row: &Connection) -> bool {
    row.opened_ns.is_none() && row.stays.iter().all(|stay| stay.state == State::TimeWait)
}

/// True if nothing is wanted, or if any wanted value holds.
fn any_of<T>(wanted: &[T], holds: impl Fn(&T) -> Option<bool>) -> Option<bool> {
    if wanted.is_empty() { Some(true) } else { any(wanted.iter().map(holds)) }
}

fn any(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(false);
    for answer in answers {
        match answer {
            Some(true) => return answer,
            Some(false) => {}
            None => result = None,
        }
    }
    result
}

fn all(answers: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    any(answers.into_iter().map(|answer| answer.map(|holds| !holds))).map(|fails| !fails)
}

/// Whether a port is the wanted one; `None` while there is none.
fn same_port(wanted: u16, port: u16) -> Option<bool> {
    (port != 0).then_some(port == wanted)
}

/// All ports, or none if they do not fit: a part of them would hide what the others match. Port 0 means unused.
fn kernel_ports(ports: &[u16]) -> [u16; FILTER_PORTS] {
    let mut slots = [0; FILTER_PORTS];
    if !ports.contains(&0)
        && let Some(slots) = slots.get_mut(..ports.len())
    {
        slots.copy_from_slice(ports);
    }
    slots
}
