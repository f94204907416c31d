//! The ports of one source address, for those who bind before they connect.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::budget::Owners;
use super::forecast::{Forecast, Load, share};
use super::usage::{Origin, PortUse};
use super::{BY_DESIGN_NS, Measured, PortSet, Rate, Space};

/// How many ports bind() has for one source address: for all destinations together, where a budget of connect() is for
/// each.
///
/// bind() refuses a port that any socket of this address has, or a socket of all addresses; of those, one that is bound to
/// `::` counts for IPv4 too, as it does unless it is `IPV6_V6ONLY`. It takes no TIME_WAIT over, and `SO_REUSEADDR` changes
/// that only where `ip_autobind_reuse` is set.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceBudget {
    /// The address.
    pub source: Ipv6Addr,
    /// How many ports of the range are not reserved.
    pub usable: u32,
    /// How many of them bind() refuses for this address.
    pub taken: u32,
    /// How many of those a connection takes that was bound before it connected, its TIME_WAIT included. Nobody else's
    /// connect() can have them.
    pub bound: u32,
    /// To how many destinations those lead.
    pub destinations: u32,
    /// How many bind() has left.
    pub free: u32,
    /// The part that is taken.
    pub share: f64,
    /// How many of the taken ones are in TIME_WAIT.
    pub time_wait: u32,
    /// For how long a closed connection takes its port, in ns.
    pub holds_ns: u64,
    /// How many connections a second can go on for ever, to all destinations together.
    pub sustainable: f64,
    /// Where the present rate leads to; `None` when there is none.
    pub forecast: Option<Forecast>,
    /// Who has bound those that are bound.
    pub owners: Owners,
}

impl SourceBudget {
    pub(super) fn of<'u>(
        source: Ipv6Addr,
        space: &Space,
        uses: impl Iterator<Item = &'u PortUse>,
        measured: Measured,
    ) -> Self {
        let none = PortSet::new();
        let ports = space.settings.range.without(space.settings.reserved.as_ref().unwrap_or(&none));
        let mut uses: Vec<&PortUse> =
            uses.filter(|it| ports.has(it.tuple.local_port) && is_refused(it.tuple.local_ip, source)).collect();
        // What a port has many sockets of is free when the last one ends.
        uses.sort_unstable_by_key(|it| (it.tuple.local_port, it.is_time_wait(), std::cmp::Reverse(it.left_ns)));
        let bound = |it: &&&PortUse| it.origin == Origin::Connected { bound: Some(true) };
        let destination = |it: &&PortUse| (it.tuple.remote_ip, it.tuple.remote_port);
        let destinations: HashSet<_, FixedState> = uses.iter().filter(bound).map(destination).collect();
        let owners = Owners::of(uses.iter().filter(bound).copied());
        let bound = uses.iter().filter(bound).map(|it| it.tuple.local_port).collect::<PortSet>().count();
        uses.dedup_by_key(|it| it.tuple.local_port);

        let holds_ns = measured.time_wait_ns.unwrap_or(BY_DESIGN_NS);
        let mut ends_ns: Vec<u64> =
            uses.iter().filter(|it| it.is_time_wait()).map(|it| it.left_ns.unwrap_or(holds_ns)).collect();
        ends_ns.sort_unstable();
        let (usable, taken, time_wait) = (ports.count(), uses.len() as u32, ends_ns.len() as u32);
        let load = Load { usable, open: taken - time_wait, ends_ns: &ends_ns, holds_ns };
        Self {
            source,
            usable,
            taken,
            bound,
            destinations: destinations.len() as u32,
            free: usable - taken,
            share: share(taken.into(), usable),
            time_wait,
            holds_ns,
            sustainable: load.sustainable(),
            forecast: measured.rate.and_then(Rate::per_second).map(|rate| load.forecast(rate)),
            owners,
        }
    }
}

/// Whether a socket of one address keeps another from being bound to the same port.
fn is_refused(has: Ipv6Addr, wanted: Ipv6Addr) -> bool {
    let is_any_ipv4 = has.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified());
    has == wanted || has.is_unspecified() || is_any_ipv4 && wanted.to_ipv4_mapped().is_some()
}
