//! Prints the rows of `watch` and `connections` as items arrive.

use std::io;

use anyhow::Result;

use super::outlet::{Blocked, Outlet};
use super::rows::Rows;
use super::select::OutputArgs;
use super::{Outcome, say};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::criteria::{Criteria, Undecided};
use crate::model::sink::Wishes;
use crate::model::stream::{Closing, Item, Origin, Summary};
use crate::output::{Kind, lost};

/// Follows a source and prints its rows.
pub(super) struct View {
    follower: Follower,
    rows: Rows,
    blocked: Blocked,
}

/// The part of a closing line about rows that filters could not decide; empty if there are none.
pub(super) fn undecided(undecided: Undecided, what: &str) -> String {
    let counted = |count: u64| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let Undecided { shown, left_out } = undecided;
    let mut words = String::new();
    if shown > 0 {
        words.push_str(&format!(", {} not decided by --cgroup (control group unknown), shown", counted(shown)));
    }
    if left_out > 0 {
        words.push_str(&format!(", {} not decided (process unknown), left out", counted(left_out)));
    }
    words
}

impl View {
    /// Prints the header; later, the rows that match all criteria.
    pub(super) fn new(
        config: Config,
        criteria: impl IntoIterator<Item = Criteria>,
        output: &OutputArgs,
        kind: Kind,
        states: bool,
    ) -> Result<Self> {
        let blocked = Blocked::default();
        let mut rows = Rows::new(Outlet::timed(blocked.clone()), output, kind, states)?;
        rows.flush()?;
        Ok(Self { follower: Follower::new(config, criteria, Origin::default()), rows, blocked })
    }

    pub(super) fn take(&mut self, items: &[Item]) -> io::Result<()> {
        let Self { follower, rows, .. } = self;
        follower.take(items, |row, origin| rows.row(row, origin))
    }

    /// Whether the engine misses sockets at the end.
    pub(super) fn misses_any(&self) -> bool {
        self.follower.misses_any()
    }

    /// The wishes of the engine, and how long its output has blocked.
    pub(super) fn wishes(&mut self) -> Wishes {
        Wishes { blocked: self.blocked.get(), ..self.follower.wishes() }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.rows.flush()
    }

    /// Prints the closing line. A recording that failed or lost events decides the exit status.
    pub(super) fn finish(&mut self, recorded: Outcome) -> Result<Outcome> {
        let Self { follower, rows, .. } = self;
        follower.finish(|row, origin| rows.row(row, origin))?;
        let mut summary = Summary::default();
        follower.add_to(&mut summary);
        let outcome = if recorded == Outcome::Done { Outcome::of(&summary) } else { recorded };
        let closing = Closing { summary, exit: outcome.code() };
        rows.finish(&closing)?;
        let Summary { transitions, followed, filtered, .. } = closing.summary;
        let (missing, undecided) = (lost(&closing.summary.lost), undecided(closing.summary.undecided, "row"));
        say(format_args!(
            "{transitions} transitions seen, {missing}, {followed} sockets followed, {filtered} filtered out{undecided}"
        ));
        Ok(outcome)
    }
}
