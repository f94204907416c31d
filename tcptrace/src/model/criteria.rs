//! What is to be shown, as it was asked for. What it means for a row is decided by the filter.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::tcp::{Closer, State};

/// What is shown. Different criteria must all hold, of the values of one criterion any; an empty one always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criteria {
    /// Local or remote port.
    pub ports: Vec<u16>,
    /// Local port.
    pub local_ports: Vec<u16>,
    /// Remote port.
    pub remote_ports: Vec<u16>,
    /// Networks of the local or remote address. IPv4-mapped IPv6 addresses are in IPv4 networks.
    pub networks: Vec<IpNet>,
    /// Process id of the owner, of who holds it, or of who closed it.
    pub pids: Vec<u32>,
    /// Name of one of them, all of it; longer ones are cut as the kernel cuts them.
    pub comms: Vec<String>,
    /// Ask the owner alone, and of control groups the socket's own.
    pub owner_only: bool,
    /// Inode number of the network namespace.
    pub netns: Vec<u32>,
    /// Control group of the socket, or of one of those processes: its path or that of one above it, the id of its
    /// container, or a systemd unit on its path ([`Group::is`](crate::model::names::Group::is)).
    pub cgroups: Vec<String>,
    /// Of a transition: the state left or entered. Of a connection: a state that it was in.
    pub states: Vec<State>,
    /// Who closed.
    pub closers: Vec<Closer>,
    /// Shortest time in ns: of a transition, in the state that it leaves; of a connection, in one of `states`, or, without
    /// any, from its opening to its end.
    pub min_duration_ns: Option<u64>,
    /// IPv4, IPv4-mapped IPv6 included. Neither family chosen is both.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}
/// What could not be decided, because something is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undecided {
    /// Shown, although the control group of the socket or of a process that had to do with it is unknown.
    pub shown: u64,
    /// Left out, because it is unknown which process had to do with it.
    pub left_out: u64,
}

impl std::ops::AddAssign for Undecided {
    fn add_assign(&mut self, other: Self) {
        self.shown += other.shown;
        self.left_out += other.left_out;
    }
}
