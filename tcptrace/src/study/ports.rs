//! How many local ports each destination has left, and for how long. Pure: sockets and settings in, budgets out.
//!
//! connect() chooses a local port that is free for its destination: the same port serves other destinations, and other
//! source addresses. So there is a budget for each source address, destination address and destination port. Two things
//! take a port away from all of them: bind(), whatever the address and the family, and a setting that reserves it.
//!
//! A connection takes its port until it is closed, and then for as long as its TIME_WAIT lasts, or until that is old
//! enough to be taken over (`tcp_tw_reuse`). What is left of a connection that the peer closed first takes none, and no
//! more does a TIME_WAIT on a listening port.

mod budget;
mod forecast;
mod rank;
mod set;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

pub use self::budget::{Budget, Owners, Reuse};
pub use self::forecast::Forecast;
pub use self::rank::{Ranked, Rest, rank};
pub use self::set::PortSet;
pub use self::settings::{PortSettings, TwReuse};
pub use self::source::SourceBudget;
pub use self::usage::{Origin, PortUse};
use crate::model::tcp::Tuple;

/// For how long a connection takes its port after this side has closed first, where nobody has measured it: the 60 s of
/// TIME_WAIT, and what the kernel's timers add.
pub const BY_DESIGN_NS: u64 = 61_000_000_000;

/// Whose ports they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Index of the interface, where an address is link-local; otherwise 0.
    pub interface: u32,
    /// The address from which connections come.
    pub source: Ipv6Addr,
    /// The address to which they go.
    pub destination: Ipv6Addr,
    /// The port to which they go.
    pub port: u16,
}

/// Connections that were opened and leave a TIME_WAIT on this side, as they were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub opened: u64,
    /// In how many ns.
    pub window_ns: u64,
}

impl Key {
    /// Its ends; no port stands for any.
    pub fn ends(&self) -> Tuple {
        let Self { source, destination, port, .. } = *self;
        Tuple { local_ip: source, local_port: 0, remote_ip: destination, remote_port: port }
    }
}

impl Rate {
    /// How many a second.
    fn per_second(self) -> Option<f64> {
        (self.window_ns > 0).then(|| self.opened as f64 * 1e9 / self.window_ns as f64)
    }
}

/// What was measured over time; a single look knows none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many connections are opened.
    pub rate: Option<Rate>,
    /// How long a TIME_WAIT lasts, in ns: the median of those that expired.
    pub time_wait_ns: Option<u64>,
}

/// Who uses which port.
#[derive(Debug)]
pub struct Ports {
    uses: Vec<PortUse>,
    spaces: HashMap<Option<u32>, Space, FixedState>,
    keys: HashMap<Key, Vec<u32>, FixedState>,
}

/// A network namespace.
#[derive(Debug)]
struct Space {
    settings: PortSettings,
    /// Of the range: those that are not reserved, and that nobody has bound.
    usable: PortSet,
    /// How many each of these are: there can be a budget for each of many thousand destinations.
    counts: Counts,
    /// Sockets that are bound and never connected may have been left out, or reserved ports are unknown.
    is_partial: bool,
    /// How many of the usable ones have a socket of which nobody knows whether it was bound.
    unclear: u32,
}

/// Ports of the range.
#[derive(Clone, Copy, Debug)]
struct Counts {
    range: u32,
    reserved: u32,
    blocked: u32,
    usable: u32,
}

impl Ports {
    /// Of all sockets of these network namespaces. `knows_bound`: sockets that are bound and neither connected nor listen
    /// are among them, which the kernel shows since 6.8.
    pub fn new(
        settings: impl IntoIterator<Item = (Option<u32>, PortSettings)>,
        uses: Vec<PortUse>,
        knows_bound: bool,
    ) -> Self {
        let mut bound: HashMap<Option<u32>, PortSet, FixedState> = HashMap::default();
        for it in uses.iter().filter(|it| it.blocks()) {
            bound.entry(it.netns).or_default().add(it.tuple.local_port);
        }
        let mut spaces: HashMap<_, _, FixedState> = settings
            .into_iter()
            .map(|(netns, settings)| (netns, Space::new(settings, bound.get(&netns), knows_bound)))
            .collect();
        let mut keys: HashMap<Key, Vec<u32>, FixedState> = HashMap::default();
        let mut unclear: HashMap<Option<u32>, PortSet, FixedState> = HashMap::default();
        for (place, it) in (0..).zip(&uses) {
            // A port that is bound is not usable.
            if !spaces.get(&it.netns).is_some_and(|space| space.usable.has(it.tuple.local_port)) {
                continue;
            }
            if it.may_block() {
                unclear.entry(it.netns).or_default().add(it.tuple.local_port);
            }
            keys.entry(it.key()).or_default().push(place);
        }
        for (netns, ports) in unclear {
            spaces.entry(netns).and_modify(|space| space.unclear = ports.count());
        }
        Self { uses, spaces, keys }
    }

    /// Every key of which a port is taken, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.keys().copied()
    }

    /// Its sockets that take a port.
    pub fn uses(&self, key: &Key) -> impl Iterator<Item = &PortUse> {
        self.keys.get(key).into_iter().flatten().filter_map(|place| self.uses.get(*place as usize))
    }

    /// The budget of a key, if it takes a port.
    pub fn budget(&self, key: &Key, measured: Measured) -> Option<Budget> {
        let space = self.spaces.get(&key.netns)?;
        let mut uses: Vec<&PortUse> = self.uses(key).collect();
        // Of a port that is found twice, what has taken it over counts.
        uses.sort_unstable_by_key(|it| (it.tuple.local_port, it.is_time_wait(), it.left_ns));
        uses.dedup_by_key(|it| it.tuple.local_port);
        (!uses.is_empty()).then(|| Budget::of(*key, space, &uses, measured))
    }

    /// What there is for connections of one source address that are bound before they connect, to all destinations
    /// together. `None` where the settings of the namespace are unknown.
    pub fn source(&self, netns: Option<u32>, source: Ipv6Addr, measured: Measured) -> Option<SourceBudget> {
        let uses = self.uses.iter().filter(|it| it.netns == netns);
        self.spaces.get(&netns).map(|space| SourceBudget::of(source, space, uses, measured))
    }
}

impl Space {
    fn new(settings: PortSettings, bound: Option<&PortSet>, knows_bound: bool) -> Self {
        let none = PortSet::new();
        let (reserved, bound) = (settings.reserved.as_ref().unwrap_or(&none), bound.unwrap_or(&none));
        let free = settings.range.without(reserved);
        let usable = free.without(bound);
        let counts = Counts {
            range: settings.range.count(),
            reserved: settings.range.and(reserved).count(),
            blocked: free.and(bound).count(),
            usable: usable.count(),
        };
        let is_partial = !knows_bound || settings.reserved.is_none();
        Self { settings, usable, counts, is_partial, unclear: 0 }
    }
}
