//! Who uses a port.

use std::net::Ipv6Addr;

use super::{BY_DESIGN_NS, Key};
use crate::model::event::{Bound, Kept};
use crate::model::row::{Connection, Entry};
use crate::model::tcp::{Side, State, Task, Tuple};

/// A socket that has a local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Index of the interface, where an address is link-local; otherwise 0.
    pub interface: u32,
    /// Both ends.
    pub tuple: Tuple,
    /// Its state; for a mini-socket its substate.
    pub state: State,
    /// It is a mini-socket.
    pub is_mini: bool,
    /// How it has come by its port.
    pub origin: Origin,
    /// Whose it is.
    pub owner: Option<Task>,
    /// In how many ns its TIME_WAIT ends; `None` when unknown.
    pub left_ns: Option<u64>,
    /// For how many ns it has been in TIME_WAIT, or longer; `None` when unknown.
    pub age_ns: Option<u64>,
    /// Whether both ends use TCP timestamps; `None` when unknown.
    pub timestamps: Option<bool>,
}

/// How a socket has come by its local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It listens there.
    Listener,
    /// It has done no more than bind().
    BoundOnly,
    /// From its listener, which need not be there any more.
    Accepted,
    /// By connect(), or by a bind() before that.
    Connected {
        /// Whether bind() chose it; `None` when unknown.
        bound: Option<bool>,
    },
    /// Nobody has seen that.
    Unknown,
}

impl PortUse {
    /// A socket that is bound and nothing else.
    pub fn of_bound(bound: &Bound, owner: Option<Task>) -> Self {
        let (nowhere, Bound { ip, port, netns }) = (Ipv6Addr::UNSPECIFIED, *bound);
        Self {
            netns,
            interface: 0,
            tuple: Tuple { local_ip: ip, local_port: port, remote_ip: nowhere, remote_port: 0 },
            state: State::Closed,
            is_mini: false,
            origin: Origin::BoundOnly,
            owner,
            left_ns: None,
            age_ns: None,
            timestamps: None,
        }
    }

    /// A connection that is open at the time of its row, its TIME_WAIT included. `bound`: whether a client's port was
    /// bound before it connected. A mini-socket in FIN_WAIT2 cannot be told there from a full one.
    pub fn of_connection(row: &Connection, bound: Option<bool>) -> Option<Self> {
        let (state, age) = row.status.open()?;
        let identity = &row.identity;
        let age_ns = age.known_ns().filter(|_| state == State::TimeWait);
        let origin = match identity.side {
            Side::Client => Origin::Connected { bound },
            side => origin(state, Kept::Held, side),
        };
        Some(Self {
            netns: identity.netns,
            interface: if identity.tuple.is_link_local() { identity.interface } else { 0 },
            tuple: identity.tuple,
            state,
            is_mini: state == State::TimeWait,
            origin,
            owner: identity.owner.map(|owner| owner.task),
            left_ns: age_ns.map(|age| BY_DESIGN_NS.saturating_sub(age)),
            age_ns,
            timestamps: None,
        })
    }

    /// Whether connect() chooses its port for nobody else.
    pub(super) fn blocks(&self) -> bool {
        match self.origin {
            Origin::Listener | Origin::BoundOnly | Origin::Accepted => true,
            Origin::Connected { bound } => bound == Some(true),
            Origin::Unknown => false,
        }
    }

    /// Whether it might do so.
    pub(super) fn may_block(&self) -> bool {
        matches!(self.origin, Origin::Unknown | Origin::Connected { bound: None })
    }

    pub(super) fn is_time_wait(&self) -> bool {
        self.state == State::TimeWait
    }

    /// Whose budget it counts for, if it takes a port.
    pub fn key(&self) -> Key {
        let Tuple { local_ip, remote_ip, remote_port, .. } = self.tuple;
        let Self { netns, interface, .. } = *self;
        Key { netns, interface, source: local_ip, destination: remote_ip, port: remote_port }
    }
}

/// What a snapshot shows.
impl From<&Entry> for PortUse {
    fn from(entry: &Entry) -> Self {
        let identity = &entry.identity;
        Self {
            netns: identity.netns,
            interface: identity.interface,
            tuple: identity.tuple,
            state: entry.state,
            is_mini: matches!(entry.kept, Kept::Mini { .. }),
            origin: origin(entry.state, entry.kept, identity.side),
            owner: identity.owner.map(|owner| owner.task),
            left_ns: entry.time_wait_left_ns,
            age_ns: entry.age.known_ns().filter(|_| entry.state == State::TimeWait),
            timestamps: entry.timestamps.filter(|_| entry.state != State::Listen),
        }
    }
}

/// What has a port and no peer is bound.
pub(super) fn origin(state: State, kept: Kept, side: Side) -> Origin {
    match (state, side) {
        (State::Listen, _) => Origin::Listener,
        (State::Closed, _) => Origin::BoundOnly,
        (State::SynRecv, _) | (_, Side::Server) => Origin::Accepted,
        _ if kept == Kept::Queued => Origin::Accepted,
        (State::SynSent, _) | (_, Side::Client) => Origin::Connected { bound: None },
        _ => Origin::Unknown,
    }
}
