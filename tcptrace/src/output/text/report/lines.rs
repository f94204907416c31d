//! Collects the lines of the one screen, then chooses those that fit.

use std::io::{self, Write};

use anstyle::Style;

use super::HEADING;
use crate::output::text::wrap::wrapped;
use crate::output::width;

/// The indent of lines below a fact.
pub(super) const INDENT: usize = 11;

/// Importance of a line. Where not all fit, the first variants go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goes {
    /// Owners of sockets in FIN_WAIT2, which are rarely a problem.
    FinWait2,
    /// All but the most frequent failure.
    Failures,
    /// All but two of the kernel's counters.
    Counters,
    /// Local ports.
    Ports,
    /// The legend of the shares.
    Legend,
    /// How TIME_WAITs ended.
    Ended,
    /// Connections never accepted, which OPEN also shows.
    NeverAccepted,
    /// The second of the kernel's counters, and the most frequent failure.
    Details,
    /// Empty lines.
    Blank,
    /// Incomplete connections.
    Incomplete,
    /// Rate of ended connections.
    Totals,
    /// Short connections.
    Short,
    /// Remote ends.
    Remote,
    /// The groups of `--by`, if not among those above.
    By,
    /// Must never go.
    Never,
}

/// Lines so far.
pub(super) struct Lines {
    rows: Vec<Row>,
    colour: bool,
    width: Option<usize>,
}

struct Row {
    goes: Goes,
    head: String,
    style: Style,
    parts: Vec<String>,
    indent: usize,
}

impl Lines {
    /// Lines of at most this width.
    pub(super) fn new(colour: bool, width: Option<usize>) -> Self {
        Self { rows: Vec::new(), colour, width }
    }

    /// Adds a line of one style.
    pub(super) fn line(&mut self, goes: Goes, style: Style, text: &str) {
        self.add(goes, String::new(), style, text, 2);
    }

    /// Adds a fact and its name. The lines of a text stay or go together.
    pub(super) fn fact(&mut self, goes: Goes, name: &str, text: &str) {
        let head = if self.colour { format!("{HEADING}{name:10}{HEADING:#} ") } else { format!("{name:10} ") };
        self.add(goes, head, Style::new(), text, INDENT);
    }

    /// Adds a line below a fact, or below what has this title.
    pub(super) fn below(&mut self, goes: Goes, title: &str, text: &str) {
        self.add(goes, format!("{title:INDENT$}"), Style::new(), text, INDENT);
    }

    /// Adds lines as they are.
    pub(super) fn ready(&mut self, lines: &[u8]) {
        for line in String::from_utf8_lossy(lines).lines() {
            let parts = vec![line.to_owned()];
            self.rows.push(Row { goes: Goes::Never, head: String::new(), style: Style::new(), parts, indent: 0 });
        }
    }

    /// Adds an empty line.
    pub(super) fn blank(&mut self) {
        self.line(Goes::Blank, Style::new(), "");
    }

    /// As many items of a list as fit below a fact, after the columns already taken; at least one.
    pub(super) fn list(&self, past: usize, most: usize, list: impl Fn(usize) -> String) -> String {
        let room = self.width.map_or(usize::MAX, |columns| columns.saturating_sub(INDENT + past));
        let mut lists = (1..=most.max(1)).rev().map(&list);
        lists.find(|list| width(list) <= room).unwrap_or_else(|| list(1))
    }

    /// Columns left after those taken.
    pub(super) fn room(&self, past: usize) -> Option<usize> {
        self.width.map(|columns| columns.saturating_sub(past))
    }

    /// Writes all lines, or the most important ones if there are more than fit.
    pub(super) fn write(mut self, out: &mut impl Write, most: Option<usize>) -> io::Result<()> {
        while most.is_some_and(|most| self.count() > most) {
            let Some(goes) = self.rows.iter().map(|row| row.goes).min().filter(|goes| *goes < Goes::Never) else {
                break;
            };
            if let Some(last) = self.rows.iter().rposition(|row| row.goes == goes) {
                self.rows.remove(last);
            }
        }
        self.rows.iter().try_for_each(|row| row.write(out, self.colour))
    }

    fn count(&self) -> usize {
        self.rows.iter().map(|row| row.parts.len()).sum()
    }

    fn add(&mut self, goes: Goes, head: String, style: Style, text: &str, indent: usize) {
        let room = self.width.map_or(usize::MAX, |columns| columns.saturating_sub(indent));
        let parts = text.split('\n').flat_map(|line| wrapped(line, room)).map(str::to_owned).collect();
        self.rows.push(Row { goes, head, style, parts, indent });
    }
}

impl Row {
    fn write(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        for (place, part) in self.parts.iter().enumerate() {
            if place == 0 {
                write!(out, "{}", self.head)?;
            } else {
                write!(out, "{:indent$}", "", indent = self.indent)?;
            }
            if colour && !self.style.is_plain() {
                writeln!(out, "{style}{part}{style:#}", style = self.style)?;
            } else {
                writeln!(out, "{part}")?;
            }
        }
        Ok(())
    }
}
