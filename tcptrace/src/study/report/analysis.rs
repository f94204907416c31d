//! Collects the connections of a report.

use super::rows::{Options, Slow};
use super::series::{Moment, Series};
use super::slowest::Slowest;
use crate::model::counters::Increase;
use crate::model::life::Life;
use crate::model::row::{Connection, Held};
use crate::model::stream::Origin;
use crate::model::tcp::State;
use crate::study::counts::{Counts, Finest, STUDIED, is_failure};

/// Collects connections for a [`super::Report`]: their counts, their course over time, and the longest ones. A million
/// connections take some tens of MiB at most.
#[derive(Clone, Debug)]
pub struct Analysis {
    pub(super) options: Options,
    pub(super) counts: Counts,
    /// Connections whose groups do not have them yet.
    pub(super) finest: Finest,
    pub(super) series: Series,
    /// How many stays in each of [`STUDIED`] are missing from the course over time.
    pub(super) unplaced: [u64; STUDIED.len()],
    pub(super) slowest: [Slowest; Slow::ALL.len()],
}

impl Analysis {
    /// Without connections.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            counts: Counts::default(),
            finest: Finest::default(),
            series: Series::default(),
            unplaced: [0; STUDIED.len()],
            slowest: std::array::from_fn(|_| Slowest::new(options.top)),
        }
    }

    /// Adds an increase that no connection shows.
    pub fn add_counter(&mut self, row: &Increase, origin: &Origin) {
        self.counts.add_counter(row, origin);
    }

    /// Adds a connection. Connections that have not ended come last.
    pub fn add(&mut self, connection: &Connection, origin: &Origin) {
        if connection.ended_before() {
            // It had ended before, and was counted then; only its descriptor is still open.
            return;
        }
        self.finest.add(connection, origin, &mut self.counts);
        self.place(connection, origin);
        for (slow, slowest) in Slow::ALL.into_iter().zip(&mut self.slowest) {
            let held = match slow {
                Slow::TimeWait => connection.held(State::TimeWait),
                Slow::CloseWait => connection.held(State::CloseWait),
                Slow::Lifetime => connection.lifetime(),
            };
            slowest.add(slow, held, connection, origin);
        }
    }

    /// Adds a connection to the course over time.
    fn place(&mut self, connection: &Connection, origin: &Origin) {
        let clock = origin.context.clock;
        let mut unplaced = STUDIED.map(|state| connection.held(state) != Held::Unknown);
        for (state, from_ns, to_ns) in Life::of(connection).known() {
            self.series.add(state, clock.unix_ns(from_ns), clock.unix_ns(to_ns));
            if let Some(place) = STUDIED.iter().position(|studied| *studied == state) {
                unplaced[place] = false;
            }
        }
        self.unplaced.iter_mut().zip(unplaced).for_each(|(count, unplaced)| *count += u64::from(unplaced));
        if let Some(opened) = connection.opened_ns {
            self.series.note(Moment::Opened, clock.unix_ns(opened));
        }
        if let Some(end) = connection.end() {
            self.series.note(Moment::Ended, clock.unix_ns(connection.boot_ns));
            if is_failure(end) {
                self.series.note(Moment::Failed, clock.unix_ns(connection.boot_ns));
            }
        }
    }
}
