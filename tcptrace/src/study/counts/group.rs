//! What stands for connections that belong together.

use std::net::{IpAddr, SocketAddr};

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
    /// Every way, in the order of declaration.
    pub const ALL: [Self; 5] = [Self::Process, Self::Remote, Self::Lport, Self::Container, Self::Netns];

    /// The word for it.
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

/// Which connections belong together. What does not tell a group from others is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// What they are grouped by.
    pub by: By,
    /// It stands for so many groups that have no row of their own; at least, if [`Group::is_partial`].
    pub others: Option<u64>,
    /// Other connections of it may be counted among the others: there were more groups than are kept.
    pub is_partial: bool,
    /// Name of the host.
    pub host: Option<Box<str>>,
    /// Name of the process.
    pub comm: Option<Comm>,
    /// Its id, if it is one.
    pub pid: Option<u32>,
    /// How many processes it is.
    pub processes: Option<u64>,
    /// Whether there may be more of them.
    pub processes_at_least: bool,
    /// Id of the container.
    pub container: Option<Box<str>>,
    /// Systemd unit.
    pub unit: Option<Box<[u8]>>,
    /// Path of the control group.
    pub cgroup: Option<Box<[u8]>>,
    /// Remote address.
    pub remote_ip: Option<IpAddr>,
    /// Remote port, of clients.
    pub remote_port: Option<u16>,
    /// What stands for the interface of a link-local remote address, where it is known.
    pub remote_zone: Option<Box<str>>,
    /// Local port, of servers.
    pub local_port: Option<u16>,
    /// Network namespace, by inode number.
    pub netns: Option<u32>,
    /// Its name.
    pub netns_name: Option<Box<[u8]>>,
}

impl Group {
    /// So many groups that have no row of their own.
    pub(super) fn others(by: By, others: Option<u64>) -> Self {
        Self { by, others, ..Self::default() }
    }

    /// The remote end, as far as the group has one.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote_ip.map(|ip| SocketAddr::new(ip, self.remote_port.unwrap_or(0)))
    }
}
