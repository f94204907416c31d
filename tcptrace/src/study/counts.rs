//! Counts of connections: how many, how they ended, how long they stayed in a state, who owned them, and where they
//! led. Pure, in memory that does not grow with their number.
//!
//! [`Counts`] is a model, not a report. A caller can add and remove connections, ended and open ones alike, and merge
//! counts, even from different hosts. [`Window`] has the counts of the last seconds. A [`report`](crate::study::report)
//! is one way to show counts.
//!
//! Removing a connection restores every figure, with these exceptions:
//!
//! - The smallest and the largest duration are then known only within a bucket, as quantiles are.
//! - A group that once had more than 1024 processes may still say that there are more.
//! - The first and last time of a counter stay.
//! - Beyond 4096 groups, the groups that were folded into the others return only when their connections are counted
//!   again.
//!
//! Groups of equal size are in the order in which their hosts and containers were first seen.

mod change;
mod counters;
mod facts;
mod finest;
mod group;
mod groups;
pub mod histogram;
pub mod levels;
mod pair;
mod processes;
mod rank;
mod sums;
pub mod survival;
mod tally;
mod who;
mod window;

#[cfg(test)]
mod tests;

use crate::model::counters::Increase;
use crate::model::row::Connection;
use crate::model::stream::Origin;
use crate::model::tcp::{Closer, End, State, TimeWaitEnd};

pub use self::change::Sum;
pub use self::counters::CounterRow;
use self::facts::Facts;
pub use self::facts::is_failure;
pub use self::finest::Finest;
pub use self::group::{By, Group};
pub use self::histogram::Bin;
pub use self::pair::Pair;
pub use self::rank::Ranked;
use self::sums::{Counted, Sums};
pub use self::sums::{Figures, Stays};
pub use self::tally::{InState, Still, Tally, Times};
use self::who::{Directory, Translator};
pub use self::window::Window;

/// States whose sockets are counted over time, in stacking order.
pub const TRACKED: [State; 9] = [
    State::TimeWait,
    State::CloseWait,
    State::FinWait2,
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::Closing,
    State::LastAck,
];

/// States that are studied closely: where sockets pile up.
pub const STUDIED: [State; 3] = [State::TimeWait, State::CloseWait, State::FinWait2];

/// A connection that stayed in ESTABLISHED for less than this, in ns, is short-lived.
pub const SHORT_NS: u64 = 1_000_000_000;

/// Counts of connections: any number of them in some tens of MiB at most. Groups beyond a limit are folded into the
/// others, and durations are counted in buckets.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    directory: Directory,
    sums: Sums,
}

/// Records where a connection was counted, so that it can be removed there. Later, its side or its container may be
/// known differently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receipt(Option<Counted>);

impl Counts {
    /// Adds a connection, ended or open. If its side is unknown, earlier connections to the same end decide.
    ///
    /// A connection that had ended earlier, with only its descriptor still open, was counted then. It does not count
    /// again.
    pub fn add(&mut self, connection: &Connection, origin: &Origin) -> Receipt {
        if connection.ended_before() {
            return Receipt::default();
        }
        let Self { directory, sums } = self;
        let identity = &connection.identity;
        let whose = directory.whose(identity, origin, |machine| sums.knows_ends(machine, identity));
        let counted = sums.add(&Facts::of(connection), whose);
        sums.name_netns(directory, origin);
        Receipt(Some(counted))
    }

    /// Removes a connection, with the receipt that these counts gave for it. The caller passes an open connection as it
    /// was when it was added.
    pub fn remove(&mut self, connection: &Connection, receipt: &Receipt) {
        if let Receipt(Some(counted)) = receipt {
            self.sums.remove(&Facts::of(connection), counted);
        }
    }

    /// Adds counter increases that no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        self.sums.counters.add(row, origin, &mut self.directory);
    }

    /// Removes an increase that was added.
    pub fn remove_counter(&mut self, row: &Increase, origin: &Origin) {
        self.sums.counters.remove(row, origin, &mut self.directory);
    }

    /// Adds the counts of another instance. Hosts and containers are the same if their names are. Receipts of the other
    /// instance are not valid here.
    pub fn merge(&mut self, other: &Self) {
        let mut names = Some(Translator::new(&other.directory, &mut self.directory));
        self.sums.merge(&other.sums, &mut names);
    }

    /// Totals of all connections.
    pub fn figures(&self) -> &Figures {
        &self.sums.figures
    }

    /// Closers: of ended connections, and of open ones with a known closer.
    pub fn closers(&self) -> impl Iterator<Item = (Closer, u64)> {
        Closer::ALL.iter().copied().zip(self.sums.closers)
    }

    /// Ends of the ended connections.
    pub fn ends(&self) -> impl Iterator<Item = (End, u64)> {
        End::ALL.iter().copied().zip(self.sums.ends)
    }

    /// Ends of TIME_WAIT, of ended connections that were due one.
    pub fn time_wait_ends(&self) -> impl Iterator<Item = (TimeWaitEnd, u64)> {
        TimeWaitEnd::ALL.iter().copied().zip(self.sums.time_wait_ends)
    }

    /// States of the open connections.
    pub fn open(&self) -> impl Iterator<Item = (State, u64)> {
        State::ALL.iter().copied().zip(self.sums.open)
    }

    /// The stays in each of [`STUDIED`].
    pub fn states(&self) -> impl Iterator<Item = (State, &Stays)> {
        STUDIED.into_iter().zip(&self.sums.states)
    }

    /// The largest groups by `size`, at most `most`, and all others as one.
    pub fn groups(&self, by: By, most: usize, size: impl Fn(&Tally) -> u64) -> Vec<Ranked<Tally>> {
        let Self { directory, sums } = self;
        match by {
            By::Process => rank::groups(by, &sums.processes, directory, most, size),
            By::Remote => rank::groups(by, &sums.remotes, directory, most, size),
            By::Lport => rank::groups(by, &sums.locals, directory, most, size),
            By::Container => rank::groups(by, &sums.places, directory, most, size),
            By::Netns => rank::groups(by, &sums.namespaces, directory, most, size),
        }
    }

    /// The pairs with most short-lived connections, at most `most`, and all others as one.
    pub fn pairs(&self, most: usize) -> Vec<Ranked<Pair>> {
        rank::pairs(&self.sums.pairs, &self.directory, most)
    }

    /// The kernel's counters: for each at most `most` network namespaces, and all others as one.
    pub fn counters(&self, most: usize) -> Vec<CounterRow> {
        self.sums.counters.rows(most, &self.directory)
    }
}
