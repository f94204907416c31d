//! Lives of connections: which ones to draw, and with which peers.
//!
//! [`Selection`] keeps the connections to draw among all that are read, and [`Peers`] finds the peer of each.

mod pair;
mod select;

#[cfg(test)]
pub(crate) mod samples;

use crate::model::life::Life;
use crate::model::row::Connection;
use crate::model::stream::{Context, Origin};

pub use self::pair::{Group, Peers};
pub use self::select::{Addresses, Selection};

/// Which connections to draw, and in which order.
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

/// A connection to draw.
#[derive(Clone, Debug)]
pub struct Item {
    pub connection: Connection,
    /// Number of its recording.
    pub origin: usize,
    pub host: Box<str>,
    /// The clock at its time, and its names.
    pub context: Context,
    /// Its stays in time.
    pub life: Life,
}

impl Item {
    /// Takes what a drawing needs from the recording of a connection.
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

    /// When it began, as far as seen, in ns of Unix time.
    pub fn begin(&self) -> i64 {
        self.context.clock.unix_ns(self.life.begin)
    }

    /// When it ended, or was last seen, in ns of Unix time.
    pub fn end(&self) -> i64 {
        self.context.clock.unix_ns(self.life.end)
    }
}
