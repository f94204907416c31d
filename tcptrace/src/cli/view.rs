//! Rows on standard output, as items come in: what `watch`, `connections` and `replay` print.

use std::io;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::outlet::{Blocked, Outlet};
use super::select::OutputArgs;
use super::{Outcome, say};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::criteria::{Criteria, Undecided};
use crate::model::finding::Finding;
use crate::model::names::Names;
use crate::model::row::Row;
use crate::model::sink::Wishes;
use crate::model::stream::{Item, Origin};
use crate::output::{Format, Kind, Printer, TextOptions, audit_lines, counter_words, lost};

/// Follows a source, and prints what comes out.
pub(super) struct View {
    pub(super) follower: Follower,
    printer: Box<dyn Printer>,
    format: Format,
    blocked: Blocked,
    findings: Vec<Finding>,
}

fn findings(items: &[Item]) -> impl Iterator<Item = Finding> {
    items.iter().filter_map(|item| if let Item::Audit(finding) = item { Some(*finding) } else { None })
}

/// Says what an audit found, if there was one.
pub(super) fn say_audit(findings: &[Finding], names: &Names) {
    audit_lines(findings, names).iter().for_each(|line| say(format_args!("audit: {line}")));
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

/// Prints a row; on standard error, if the format has no room for it.
pub(super) fn print(printer: &mut dyn Printer, format: Format, row: &Row, origin: &Origin) -> io::Result<()> {
    match row {
        Row::Loss(loss) if format == Format::Csv => say(loss),
        Row::Counter(row) if format == Format::Csv => say(counter_words(row, &origin.context.names)),
        _ => {}
    }
    printer.row(row, &origin.context)
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
        let blocked = Blocked::default();
        let mut printer = output.format.printer(Outlet::timed(blocked.clone()), text);
        printer.header(kind)?;
        printer.flush()?;
        let follower = Follower::new(config, criteria, Origin::default());
        Ok(Self { follower, printer, format: output.format, blocked, findings: Vec::new() })
    }

    pub(super) fn take(&mut self, items: &[Item]) -> io::Result<()> {
        findings(items).for_each(|finding| self.findings.push(finding));
        let Self { follower, printer, format, .. } = self;
        follower.take(items, |row, origin| print(&mut **printer, *format, row, origin))
    }

    /// What the engine would like to know, and how long it has waited until its output was taken.
    pub(super) fn wishes(&mut self) -> Wishes {
        Wishes { blocked: self.blocked.get(), ..self.follower.wishes() }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.printer.flush()
    }

    /// Says what there was.
    pub(super) fn finish(&mut self) -> Result<Outcome> {
        let Self { follower, printer, format, .. } = self;
        follower.finish(|row, origin| print(&mut **printer, *format, row, origin))?;
        self.flush()?;
        say_audit(&self.findings, &self.follower.context().names);
        let stats = self.follower.stats();
        let missing = self.follower.lost();
        say(format_args!(
            "{} transitions seen, {}, {} sockets followed, {} filtered out{}",
            stats.transitions,
            lost(&missing),
            stats.followed,
            self.follower.filtered_out(),
            undecided(self.follower.undecided(), "row"),
        ));
        Ok(if missing.is_empty() { Outcome::Done } else { Outcome::Lost })
    }
}
