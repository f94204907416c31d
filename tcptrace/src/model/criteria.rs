//! The filters as the user gave them. The engine's filter decides what they mean for a row.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::tcp::{Closer, State};

/// What to show. All criteria must match; one matches if any of its values does, or if it is empty.
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
    /// Process id of the owner, of a holder, or of the process that closed it.
    pub pids: Vec<u32>,
    /// Full name of one of these processes; the kernel's limit cuts longer ones.
    pub comms: Vec<String>,
    /// Look at the owner alone, and for control groups at the socket's own.
    pub owner_only: bool,
    /// Inode number of the network namespace.
    pub netns: Vec<u32>,
    /// Control group of the socket, or of one of these processes: its path or an ancestor's, the id of its container,
    /// or a systemd unit on its path ([`Group::is`](crate::model::names::Group::is)).
    pub cgroups: Vec<String>,
    /// Name of the pod of one of these control groups.
    pub pods: Vec<String>,
    /// Namespace of that pod.
    pub pod_namespaces: Vec<String>,
    /// Name of the container of one of these control groups.
    pub container_names: Vec<String>,
    /// Of a transition: the state left or entered. Of a connection: a state that it was in.
    pub states: Vec<State>,
    pub closers: Vec<Closer>,
    /// Shortest time in ns. For a transition: in the state that it leaves. For a connection: in one of `states`, or
    /// from its opening to its end if `states` is empty.
    pub min_duration_ns: Option<u64>,
    /// IPv4, IPv4-mapped IPv6 included. Choosing neither family means both.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}
/// Rows that the filter could not decide, because something is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undecided {
    /// Shown, although the control group of the socket or of a process involved is unknown.
    pub shown: u64,
    /// Left out, because a process involved is unknown.
    pub left_out: u64,
}

impl std::ops::AddAssign for Undecided {
    fn add_assign(&mut self, other: Self) {
        self.shown += other.shown;
        self.left_out += other.left_out;
    }
}
