//! The description of a group of connections.

use std::net::{IpAddr, SocketAddr};

use crate::model::labels::Labels;
use crate::model::tcp::Comm;

/// What connections are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum By {
    /// Name and control group of the owner.
    #[default]
    Process,
    /// Remote end: address and port for clients, address for servers.
    Remote,
    /// Local port of servers.
    Lport,
    /// Container, else systemd unit, else control group.
    Container,
    /// Network namespace.
    Netns,
}

impl By {
    /// All variants, in the order of declaration.
    pub const ALL: [Self; 5] = [Self::Process, Self::Remote, Self::Lport, Self::Container, Self::Netns];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Lport => "lport",
            Self::Container => "container",
            Self::Netns => "netns",
        }
    }
}

/// Describes a group of connections. Properties that do not identify the group are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The property that groups them.
    pub by: By,
    /// How many groups without a row this one stands for; a lower bound if [`Group::is_partial`].
    pub others: Option<u64>,
    /// Some connections of the group may be counted among the others, because there were more groups than are kept.
    pub is_partial: bool,
    /// Name of the host.
    pub host: Option<Box<str>>,
    /// Name of the process.
    pub comm: Option<Comm>,
    /// Its process id, if it is one process.
    pub pid: Option<u32>,
    /// How many processes it has.
    pub processes: Option<u64>,
    /// Whether there may be more of them.
    pub processes_at_least: bool,
    /// Id of the container.
    pub container: Option<Box<str>>,
    /// Names of that container.
    pub labels: Labels,
    /// Systemd unit.
    pub unit: Option<Box<[u8]>>,
    /// Path of the control group.
    pub cgroup: Option<Box<[u8]>>,
    /// Remote address.
    pub remote_ip: Option<IpAddr>,
    /// Remote port, of clients.
    pub remote_port: Option<u16>,
    /// Zone of a link-local remote address, if its interface is known.
    pub remote_zone: Option<Box<str>>,
    /// Local port, of servers.
    pub local_port: Option<u16>,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Name of the network namespace.
    pub netns_name: Option<Box<[u8]>>,
}

impl Group {
    /// Stands for this many groups without a row.
    pub(super) fn others(by: By, others: Option<u64>) -> Self {
        Self { by, others, ..Self::default() }
    }

    /// The remote end, if the group has one.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote_ip.map(|ip| SocketAddr::new(ip, self.remote_port.unwrap_or(0)))
    }
}
