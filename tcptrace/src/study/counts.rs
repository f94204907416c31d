//! What connections come to when they are counted: how many, how they ended, how long they stayed in a state, whose they
//! were and where they led. Pure, and in memory that does not grow with their number.
//!
//! [`Counts`] is a model, not a report: connections are added to it and taken out again, ended and open ones alike, and
//! one can be merged with another one, from another host too. [`Window`] has the counts of the last seconds. A
//! [`report`](crate::study::report) is one way to show them.
//!
//! What is added and taken out again leaves no trace in any figure, within these bounds: the smallest and the largest
//! duration are known only within a bucket then, as quantiles are; of a group of more than 1024 processes it may still be
//! said that there are more; the first and last time of a counter stay; and where more groups than 4096 were counted,
//! those that went to the others come back only when they are counted anew. The order of groups that are equally large
//! is that in which their hosts and containers were met.

mod change;
mod counters;
mod facts;
mod group;
mod groups;
pub mod histogram;
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
pub use self::group::{By, Group};
pub use self::histogram::Bin;
pub use self::pair::Pair;
pub use self::rank::Ranked;
use self::sums::{Counted, Sums};
pub use self::sums::{Figures, Stays};
pub use self::tally::{InState, Still, Tally, Times};
use self::who::{Directory, Translator};
pub use self::window::Window;

/// States whose sockets are counted over time, in the order in which they are stacked.
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

/// States that are looked at closely: where sockets pile up.
pub const STUDIED: [State; 3] = [State::TimeWait, State::CloseWait, State::FinWait2];

/// A connection that was in ESTABLISHED for less than this, in ns, is short-lived.
pub const SHORT_NS: u64 = 1_000_000_000;

/// Counts of connections: any number of them in some tens of MiB at most. Groups beyond a number go to the others, and
/// durations are counted in buckets.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    directory: Directory,
    sums: Sums,
}

/// What tells where a connection was counted in, so that it can be taken out there: what tells which end
/// it is, and in which container, may be known otherwise later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receipt(Option<Counted>);

impl Counts {
    /// Counts a connection in: one that has ended, or one that is open. Where nobody knows which end it is, others tell
    /// that were counted in before.
    ///
    /// One that has ended before was counted then; only its descriptor is still open. It does not count.
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

    /// Takes a connection out, by the receipt that these counts gave for it. It must be the same: of one that goes on,
    /// what it was when it was counted in.
    pub fn remove(&mut self, connection: &Connection, receipt: &Receipt) {
        if let Receipt(Some(counted)) = receipt {
            self.sums.remove(&Facts::of(connection), counted);
        }
    }

    /// Counts in what no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        self.sums.counters.add(row, origin, &mut self.directory);
    }

    /// Takes out what was counted in.
    pub fn remove_counter(&mut self, row: &Increase, origin: &Origin) {
        self.sums.counters.remove(row, origin, &mut self.directory);
    }

    /// Counts in what others have counted. Hosts and containers are the same if their names are. Receipts of the others
    /// are not good here.
    pub fn merge(&mut self, other: &Self) {
        let mut names = Some(Translator::new(&other.directory, &mut self.directory));
        self.sums.merge(&other.sums, &mut names);
    }

    /// Connections, and what all of them come to.
    pub fn figures(&self) -> &Figures {
        &self.sums.figures
    }

    /// Who closed: of those that have ended, and of those still open of which that is decided.
    pub fn closers(&self) -> impl Iterator<Item = (Closer, u64)> {
        Closer::ALL.iter().copied().zip(self.sums.closers)
    }

    /// How they ended: of those that have.
    pub fn ends(&self) -> impl Iterator<Item = (End, u64)> {
        End::ALL.iter().copied().zip(self.sums.ends)
    }

    /// How their TIME_WAITs ended: of those that have ended and were due one.
    pub fn time_wait_ends(&self) -> impl Iterator<Item = (TimeWaitEnd, u64)> {
        TimeWaitEnd::ALL.iter().copied().zip(self.sums.time_wait_ends)
    }

    /// The states of those that are open.
    pub fn open(&self) -> impl Iterator<Item = (State, u64)> {
        State::ALL.iter().copied().zip(self.sums.open)
    }

    /// All that were in each of [`STUDIED`].
    pub fn states(&self) -> impl Iterator<Item = (State, &Stays)> {
        STUDIED.into_iter().zip(&self.sums.states)
    }

    /// The groups of which something counts most, at most so many; and all others as one.
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

    /// Between which two there were most short-lived connections: at most so many; and all others as one.
    pub fn pairs(&self, most: usize) -> Vec<Ranked<Pair>> {
        rank::pairs(&self.sums.pairs, &self.directory, most)
    }

    /// What the kernel has counted: of each counter at most so many network namespaces, and all others as one.
    pub fn counters(&self, most: usize) -> Vec<CounterRow> {
        self.sums.counters.rows(most, &self.directory)
    }
}
