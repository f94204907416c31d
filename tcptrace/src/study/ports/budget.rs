//! The ports of one destination.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::forecast::{Forecast, Load, share};
use super::settings::is_loopback;
use super::usage::PortUse;
use super::{BY_DESIGN_NS, Counts, Key, Measured, Rate, Space, TwReuse};
use crate::model::named;
use crate::model::tcp::Task;

/// How many ports there are for one destination, who takes them, and for how long that goes well.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Whose ports they are.
    pub key: Key,
    /// How many ports the range has.
    pub range: u32,
    /// How many of them are reserved.
    pub reserved: u32,
    /// How many of the others somebody has bound: for connect(), they are not there.
    pub blocked: u32,
    /// How many are left for connect() to choose from.
    pub usable: u32,
    /// Some of those may be bound without anybody having seen it.
    pub usable_at_most: bool,
    /// How many of the usable ones this destination takes: the sum of the next three.
    pub taken: u32,
    /// By sockets of which the connection is not over on this side.
    pub open: u32,
    /// By mini-sockets in FIN_WAIT2, which wait for the peer to close.
    pub fin_wait2: u32,
    /// By TIME_WAITs.
    pub time_wait: u32,
    /// How many of those TIME_WAITs connect() takes over at once, as far as that is known.
    pub reusable: u32,
    /// Whether it takes any over.
    pub reuse: Reuse,
    /// How many ports connect() can have now.
    pub free: u32,
    /// The part of the usable ports that it cannot have.
    pub share: f64,
    /// connect() tries the other half only after every port of this one, which makes it slow.
    pub half_walked: bool,
    /// For how long a closed connection takes its port, in ns.
    pub holds_ns: u64,
    /// Whether that was measured.
    pub is_measured: bool,
    /// How many connections a second can go on for ever.
    pub sustainable: f64,
    /// Where the present rate leads to; `None` when there is none.
    pub forecast: Option<Forecast>,
    /// Of how many connections that rate was measured.
    pub samples: u64,
    /// Whose sockets take ports.
    pub owners: Owners,
}

/// Whose sockets take ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Each process and how many, the one with the most first.
    pub known: Vec<(Task, u32)>,
    /// How many no process is known of: a mini-socket has none, unless tracing has seen who closed it.
    pub unknown: u32,
}

impl Owners {
    pub(super) fn of<'u>(uses: impl Iterator<Item = &'u PortUse>) -> Self {
        let mut owners: HashMap<Task, u32, FixedState> = HashMap::default();
        let mut unknown = 0;
        for it in uses {
            match it.owner {
                // Threads of one process are one owner.
                Some(task) => *owners.entry(Task { tid: task.pid, ..task }).or_default() += 1,
                None => unknown += 1,
            }
        }
        let mut known: Vec<_> = owners.into_iter().collect();
        known.sort_unstable_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid, task.comm.0));
        Self { known, unknown }
    }
}

named! {
    /// Whether connect() takes over TIME_WAITs.
    Reuse {
        /// It does.
        On = "on",
        /// `tcp_tw_reuse` is 0.
        Off = "off",
        /// `tcp_tw_reuse` is 2, and no end is of the loopback.
        LoopbackOnly = "loopback_only",
        /// These connections have no TCP timestamps.
        NoTimestamps = "no_timestamps",
        /// It does if the peer uses TCP timestamps, which nobody has seen.
        Unknown = "unknown",
    }
}

impl Reuse {
    fn of(space: &Space, uses: &[&PortUse]) -> Self {
        let is_of_loopback = uses.iter().all(|it| is_loopback(&it.tuple));
        match space.settings.tw_reuse {
            TwReuse::Off => return Self::Off,
            TwReuse::Loopback if !is_of_loopback => return Self::LoopbackOnly,
            TwReuse::Loopback | TwReuse::On => {}
        }
        let has_any = |wanted| uses.iter().any(|it| it.timestamps == Some(wanted));
        match space.settings.timestamps {
            _ if has_any(true) => Self::On,
            _ if has_any(false) => Self::NoTimestamps,
            Some(false) => Self::NoTimestamps,
            // Both ends are of this namespace.
            Some(true) if is_of_loopback => Self::On,
            _ => Self::Unknown,
        }
    }
}

/// The ports that a destination takes, and when they are free again.
struct Taken {
    open: u32,
    fin_wait2: u32,
    time_wait: u32,
    reusable: u32,
    ends_ns: Vec<u64>,
}

impl Taken {
    fn count(uses: &[&PortUse], reuse: Reuse, delay_ns: u64, time_wait_ns: u64) -> Self {
        let mut taken = Self { open: 0, fin_wait2: 0, time_wait: 0, reusable: 0, ends_ns: Vec::new() };
        for it in uses {
            if !it.is_time_wait() {
                *(if it.is_mini { &mut taken.fin_wait2 } else { &mut taken.open }) += 1;
                continue;
            }
            taken.time_wait += 1;
            let mut left = it.left_ns.unwrap_or(time_wait_ns);
            if reuse == Reuse::On && it.timestamps != Some(false) {
                left = left.min(delay_ns.saturating_sub(it.age_ns.unwrap_or(0)));
                taken.reusable += u32::from(left == 0);
            }
            if left > 0 {
                taken.ends_ns.push(left);
            }
        }
        taken.ends_ns.sort_unstable();
        taken
    }
}

impl Budget {
    /// `uses`: one for each port that the key takes of the usable ones.
    pub(super) fn of(key: Key, space: &Space, uses: &[&PortUse], measured: Measured) -> Self {
        let settings = &space.settings;
        let reuse = Reuse::of(space, uses);
        let delay_ns = settings.tw_reuse_delay_ms.saturating_mul(1_000_000);
        let time_wait_ns = measured.time_wait_ns.unwrap_or(BY_DESIGN_NS);
        let Taken { open, fin_wait2, time_wait, reusable, ends_ns } = Taken::count(uses, reuse, delay_ns, time_wait_ns);
        let Counts { range, reserved, blocked, usable } = space.counts;
        let taken = open + fin_wait2 + time_wait;
        let kept = taken - reusable;
        let is_reused = reuse == Reuse::On;
        let holds_ns = if is_reused { delay_ns } else { time_wait_ns };
        let load = Load { usable, open: open + fin_wait2, ends_ns: &ends_ns, holds_ns };
        let own = uses.iter().filter(|it| it.may_block()).count();
        Self {
            key,
            range,
            reserved,
            blocked,
            usable,
            usable_at_most: space.is_partial || space.unclear as usize > own,
            taken,
            open,
            fin_wait2,
            time_wait,
            reusable,
            reuse,
            free: usable.saturating_sub(kept),
            share: share(kept.into(), usable),
            half_walked: u64::from(kept) * 2 >= u64::from(usable),
            holds_ns,
            is_measured: !is_reused && measured.time_wait_ns.is_some(),
            sustainable: load.sustainable(),
            forecast: measured.rate.and_then(Rate::per_second).map(|rate| load.forecast(rate)),
            samples: measured.rate.map_or(0, |rate| rate.opened),
            owners: Owners::of(uses.iter().copied()),
        }
    }
}
