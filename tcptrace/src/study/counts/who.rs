//! Keys that group connections.

mod translate;

use std::collections::HashMap;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::group::{By, Group};
use crate::model::labels::Labels;
use crate::model::row::Identity;
use crate::model::stream::Origin;
use crate::model::tcp::{Comm, Side};

pub(super) use self::translate::Translator;

/// Most control groups and most names of network namespaces.
const MOST: usize = 1 << 16;

/// A machine: one boot of one host.
pub(super) type Machine = u32;

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) machine: Machine,
    pub(super) comm: Option<[u8; 16]>,
    pub(super) place: Place,
}

/// Index of a container, unit or control group, or `None` if unknown.
pub(super) type Place = Option<u32>;

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Remote {
    /// For loopback and link-local addresses only: other addresses mean the same on every machine.
    pub(super) machine: Option<Machine>,
    /// Network namespace and interface, for link-local addresses only.
    pub(super) link: Option<(Option<u32>, u32)>,
    pub(super) ip: Ipv6Addr,
    /// 0 for servers, whose clients' ports have no meaning, and if the side is unknown.
    pub(super) port: u16,
}

/// The local end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Local {
    pub(super) machine: Machine,
    pub(super) netns: Option<u32>,
    /// `None` for clients, and if the side is unknown.
    pub(super) port: Option<u16>,
}

/// The container of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Within {
    pub(super) machine: Machine,
    pub(super) place: Place,
}

/// The network namespace of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Netns {
    pub(super) machine: Machine,
    pub(super) inode: Option<u32>,
}

/// A process and the remote end it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) process: Process,
    pub(super) remote: Remote,
    /// For servers.
    pub(super) local_port: Option<u16>,
}

/// What decides the group of a connection besides the connection itself, as known when it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) machine: Machine,
    pub(super) place: Place,
    pub(super) side: Side,
}

/// All groups of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) process: Process,
    pub(super) remote: Remote,
    pub(super) local: Local,
    pub(super) within: Within,
    pub(super) netns: Netns,
    /// `None` if the side is unknown.
    pub(super) ends: Option<Ends>,
}

impl Keys {
    pub(super) fn of(identity: &Identity, whose: Whose) -> Self {
        let Whose { machine, place, side } = whose;
        let process = Process { machine, comm: identity.owner.map(|owner| owner.task.comm.0), place };
        let remote = Remote::new(machine, identity, side);
        let local_port = (side == Side::Server).then_some(identity.tuple.local_port);
        let netns = identity.netns.filter(|_| local_port.is_some());
        Self {
            process,
            remote,
            local: Local { machine, netns, port: local_port },
            within: Within { machine, place },
            netns: Netns { machine, inode: identity.netns },
            ends: (side != Side::Unknown).then_some(Ends { process, remote, local_port }),
        }
    }
}

impl Remote {
    pub(super) fn new(machine: Machine, identity: &Identity, side: Side) -> Self {
        let ip = identity.tuple.remote_ip;
        let link = ip.is_unicast_link_local().then_some((identity.netns, identity.interface));
        let is_local = link.is_some() || ip.to_canonical().is_loopback();
        let port = if side == Side::Client { identity.tuple.remote_port } else { 0 };
        Self { machine: is_local.then_some(machine), link, ip, port }
    }
}

/// Names of all keys, as far as they were known while reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    /// By number of the recording.
    machines: Vec<Option<Machine>>,
    /// Host and boot.
    hosts: Vec<(Box<str>, Box<str>)>,
    places: Vec<Named>,
    known: HashMap<Named, u32, FixedState>,
    groups: HashMap<(Machine, u64), u32, FixedState>,
    namespaces: HashMap<(Machine, u32), Box<[u8]>, FixedState>,
    /// By namespace and index.
    interfaces: HashMap<(Machine, Option<u32>, u32), Box<str>, FixedState>,
}

/// A control group by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Named {
    machine: Machine,
    container: Option<Box<str>>,
    /// Names of that container.
    labels: Labels,
    unit: Option<Box<[u8]>>,
    /// Path, if it is neither a container nor a unit.
    path: Option<Box<[u8]>>,
}

impl Directory {
    /// The owner of a connection. If its side is unknown, earlier connections decide: those accepted on its local end,
    /// or those that led to its remote end.
    pub(super) fn whose(
        &mut self,
        identity: &Identity,
        origin: &Origin,
        knows_ends: impl FnOnce(Machine) -> (bool, bool),
    ) -> Whose {
        let machine = self.machine(origin);
        let place = self.place(machine, identity, origin);
        self.name_interface(machine, identity, origin);
        let side = match identity.side {
            Side::Unknown => match knows_ends(machine) {
                (true, false) => Side::Server,
                (false, true) => Side::Client,
                _ => Side::Unknown,
            },
            side => side,
        };
        Whose { machine, place, side }
    }

    pub(super) fn machine(&mut self, origin: &Origin) -> Machine {
        if let Some(Some(machine)) = self.machines.get(origin.number) {
            return *machine;
        }
        let machine = self.boot(&origin.host, &origin.boot_id);
        if origin.number < MOST {
            self.machines.resize(self.machines.len().max(origin.number + 1), None);
            self.machines[origin.number] = Some(machine);
        }
        machine
    }

    fn boot(&mut self, host: &str, boot: &str) -> Machine {
        let known = |it: &(Box<str>, Box<str>)| (&*it.0, &*it.1) == (host, boot);
        let place = self.hosts.iter().position(known).unwrap_or_else(|| {
            self.hosts.push((host.into(), boot.into()));
            self.hosts.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// The container, unit or control group of a connection, if its name is already known.
    fn place(&mut self, machine: Machine, identity: &Identity, origin: &Origin) -> Place {
        let id = identity.cgroup?;
        if let Some(place) = self.groups.get(&(machine, id)) {
            return Some(*place);
        }
        let group = origin.context.names.group(id)?;
        let (container, unit) = (group.container.clone(), group.unit.clone());
        let path = if container.is_none() && unit.is_none() { Some(group.path.clone()) } else { None };
        // A container names everything within it.
        let unit = if container.is_none() { unit } else { None };
        let labels = group.labels.clone();
        let named = Named { machine, container, labels, unit, path };
        let place = self.number(named)?;
        if self.groups.len() < MOST {
            self.groups.insert((machine, id), place);
        }
        Some(place)
    }

    fn number(&mut self, named: Named) -> Place {
        if let Some(place) = self.known.get(&named) {
            return Some(*place);
        }
        let place = u32::try_from(self.places.len()).ok().filter(|_| self.places.len() < MOST)?;
        self.places.push(named.clone());
        self.known.insert(named, place);
        Some(place)
    }

    /// Notes the name of a network namespace, if it is already known.
    pub(super) fn name_netns(&mut self, machine: Machine, netns: Option<u32>, origin: &Origin) {
        let Some(netns) = netns.filter(|_| self.namespaces.len() < MOST) else { return };
        if let Some(name) = origin.context.names.namespace(netns) {
            self.namespaces.insert((machine, netns), name.into());
        }
    }

    /// Notes the name of the interface of a connection, if it is already known.
    fn name_interface(&mut self, machine: Machine, identity: &Identity, origin: &Origin) {
        let &Identity { netns, interface, .. } = identity;
        if interface == 0 || self.interfaces.len() >= MOST {
            return;
        }
        if let Some(name) = origin.context.names.interface(netns, interface) {
            self.interfaces.insert((machine, netns, interface), name.into());
        }
    }

    /// Whether there may soon be no room for more names.
    pub(super) fn is_crowded(&self) -> bool {
        let Self { places, groups, namespaces, interfaces, .. } = self;
        [places.len(), groups.len(), namespaces.len(), interfaces.len()].into_iter().any(|names| names >= MOST / 2)
    }

    /// The zone of an address: the name of its interface, or the index.
    fn zone(&self, machine: Machine, netns: Option<u32>, interface: u32) -> Option<Box<str>> {
        let name = self.interfaces.get(&(machine, netns, interface)).cloned();
        name.or_else(|| (interface != 0).then(|| interface.to_string().into()))
    }

    fn host(&self, machine: Machine) -> Option<Box<str>> {
        self.hosts.get(machine as usize).map(|(host, _)| host.clone()).filter(|host| !host.is_empty())
    }

    fn put_place(&self, place: Place, group: &mut Group) {
        if let Some(named) = place.and_then(|place| self.places.get(place as usize)) {
            group.container = named.container.clone();
            group.labels = named.labels.clone();
            group.unit = named.unit.clone();
            group.cgroup = named.path.clone();
        }
    }

    fn put_netns(&self, machine: Machine, netns: Option<u32>, group: &mut Group) {
        group.netns = netns;
        group.netns_name = netns.and_then(|netns| self.namespaces.get(&(machine, netns))).cloned();
    }
}

/// A key of a group of connections.
pub(super) trait Key: Copy {
    /// Fills in the properties of the group.
    fn describe(&self, directory: &Directory, group: &mut Group);

    /// The same key in the numbers of another directory.
    fn translate(self, names: &mut Translator<'_>) -> Self;
}

impl Key for Process {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        group.host = directory.host(self.machine);
        group.comm = self.comm.map(Comm);
        directory.put_place(self.place, group);
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        Self { machine: names.machine(self.machine), place: names.place(self.place), ..self }
    }
}

impl Key for Remote {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        group.host = self.machine.and_then(|machine| directory.host(machine));
        group.remote_ip = Some(self.ip.to_canonical());
        group.remote_port = (self.port != 0).then_some(self.port);
        if let (Some(machine), Some((netns, interface))) = (self.machine, self.link) {
            group.remote_zone = directory.zone(machine, netns, interface);
        }
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        if let (Some(machine), Some((netns, interface))) = (self.machine, self.link) {
            names.copy_interface(machine, netns, interface);
        }
        Self { machine: self.machine.map(|machine| names.machine(machine)), ..self }
    }
}

impl Key for Local {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        group.host = directory.host(self.machine);
        group.local_port = self.port;
        directory.put_netns(self.machine, self.netns, group);
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        names.copy_netns(self.machine, self.netns);
        Self { machine: names.machine(self.machine), ..self }
    }
}

impl Key for Within {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        group.host = directory.host(self.machine);
        directory.put_place(self.place, group);
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        Self { machine: names.machine(self.machine), place: names.place(self.place) }
    }
}

impl Key for Netns {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        group.host = directory.host(self.machine);
        directory.put_netns(self.machine, self.inode, group);
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        names.copy_netns(self.machine, self.inode);
        Self { machine: names.machine(self.machine), ..self }
    }
}

impl Key for Ends {
    fn describe(&self, directory: &Directory, group: &mut Group) {
        self.remote.describe(directory, group);
        self.process.describe(directory, group);
        group.local_port = self.local_port;
    }

    fn translate(self, names: &mut Translator<'_>) -> Self {
        Self { process: self.process.translate(names), remote: self.remote.translate(names), ..self }
    }
}

impl Group {
    /// The group of a key.
    pub(super) fn of(by: By, key: &impl Key, directory: &Directory) -> Self {
        let mut group = Self { by, ..Self::others(by, None) };
        key.describe(directory, &mut group);
        group
    }
}
