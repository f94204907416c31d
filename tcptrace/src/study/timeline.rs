//! Lives of connections: which of them are shown, and with which other ends.
//!
//! [`Selection`] keeps the few that are shown of the many that are read, and [`Peers`] finds the other end of each.

mod pair;
mod select;

#[cfg(test)]
pub(crate) mod samples;

use crate::model::life::Life;
use crate::model::row::Connection;
use crate::model::stream::{Context, Origin};

pub use self::pair::{Group, Peers};
pub use self::select::{Addresses, Selection};

/// Which connections are shown, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Longest time in TIME_WAIT first; connections without TIME_WAIT are left out.
    TimeWait,
    /// Longest time in CLOSE_WAIT first; connections without CLOSE_WAIT are left out.
    CloseWait,
    /// Longest lifetime first.
    #[default]
    Lifetime,
    /// Earliest start first.
    Opened,
}

/// A connection that is shown.
#[derive(Clone, Debug)]
pub struct Item {
    /// As it was read.
    pub connection: Connection,
    /// Which recording it is from.
    pub origin: usize,
    /// Of which host.
    pub host: Box<str>,
    /// The clock at its time, and the names that it needs.
    pub context: Context,
    /// When it was in which state.
    pub life: Life,
}

impl Item {
    /// Takes what is needed of a connection's recording.
    pub fn new(connection: &Connection, origin: &Origin) -> Self {
        let identity = &connection.identity;
        let names = origin.context.names.only(identity.netns, identity.cgroup, identity.interface);
        Self {
            connection: connection.clone(),
            origin: origin.number,
            host: origin.host.clone(),
            context: Context { clock: origin.context.clock, names },
            life: Life::of(connection),
        }
    }

    /// When it began, as far as that was seen, in ns of Unix time.
    pub fn begin(&self) -> i64 {
        self.context.clock.unix_ns(self.life.begin)
    }

    /// When it ended, or was seen last.
    pub fn end(&self) -> i64 {
        self.context.clock.unix_ns(self.life.end)
    }
}
