//! Rows on standard output, as items come in: what `watch` and `connections` print.

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

/// Follows a source, and prints what comes out.
pub(super) struct View {
    follower: Follower,
    rows: Rows,
    blocked: Blocked,
}

/// What filters could not decide, for a closing line; nothing if they could decide everything.
pub(super) fn undecided(undecided: Undecided, what: &str) -> String {
    let counted = |count: u64| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let Undecided { shown, left_out } = undecided;
    let mut words = String::new();
    if shown > 0 {
        words.push_str(&format!(", {} not decided by --cgroup and shown: a control group is unknown", counted(shown)));
    }
    if left_out > 0 {
        words.push_str(&format!(", {} not decided and left out: the process is unknown", counted(left_out)));
    }
    words
}

impl View {
    /// Prints rows that match all of these, and begins with the header.
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

    /// What the engine would like to know, and how long it has waited until its output was taken.
    pub(super) fn wishes(&mut self) -> Wishes {
        Wishes { blocked: self.blocked.get(), ..self.follower.wishes() }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.rows.flush()
    }

    /// Says what there was. What was recorded beside it ends the command, unless that went well.
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
