//! Rows on standard output, as items come in: what `watch`, `connections` and `replay` print.

use std::io;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::outlet::Outlet;
use super::select::OutputArgs;
use super::{Outcome, say};
use crate::filter::Criteria;
use crate::follow::Follower;
use crate::lifecycle::Config;
use crate::output::{Kind, Printer, TextOptions};
use crate::trace::{Item, Origin};

/// Follows a source, and prints what comes out.
pub(super) struct View {
    pub(super) follower: Follower,
    printer: Box<dyn Printer>,
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
        let text = TextOptions { colour: output.colour(), states, zone: TimeZone::system() };
        let mut printer = output.format.printer(Outlet::default(), text);
        printer.header(kind)?;
        printer.flush()?;
        Ok(Self { follower: Follower::new(config, criteria, Origin::default()), printer })
    }

    pub(super) fn take(&mut self, items: &[Item]) -> io::Result<()> {
        let Self { follower, printer } = self;
        follower.take(items, |row, origin| printer.row(row, &origin.context))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.printer.flush()
    }

    /// Says what there was.
    pub(super) fn finish(&mut self) -> Result<Outcome> {
        self.follower.finish();
        self.flush()?;
        let stats = self.follower.stats();
        let (lost, causes) = self.follower.missing();
        say(format_args!(
            "{} transitions seen, {lost} lost{causes}, {} sockets followed, {} filtered out",
            stats.transitions,
            stats.followed,
            self.follower.filtered_out(),
        ));
        Ok(if lost > 0 { Outcome::Lost } else { Outcome::Done })
    }
}
