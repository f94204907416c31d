//! The lines of the one screen, put together before it is known which of them fit.

use std::io::{self, Write};

use anstyle::Style;

use super::HEADING;
use crate::output::text::wrap::wrapped;
use crate::output::width;

/// Below a fact, past its name.
pub(super) const INDENT: usize = 11;

/// When a line goes, where there are more of them than fit: the first ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goes {
    /// Whose the sockets in FIN_WAIT2 are: they rarely are a problem.
    FinWait2,
    /// Failures, but for the most frequent.
    Failures,
    /// The kernel's counters, but for two.
    Counters,
    /// Local ports.
    Ports,
    /// What the shares are of.
    Legend,
    /// How TIME_WAITs ended.
    Ended,
    /// How many were never accepted, which OPEN says as well.
    NeverAccepted,
    /// The second of the kernel's counters, and the most frequent failure.
    Details,
    /// Empty lines.
    Blank,
    /// How many connections were seen in part.
    Incomplete,
    /// How many connections ended.
    Totals,
    /// Short connections.
    Short,
    /// Where sockets lead.
    Remote,
    /// The groups that were asked for, where these are none of the above.
    By,
    /// What nobody should miss.
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
    /// Lines that fit so many columns.
    pub(super) fn new(colour: bool, width: Option<usize>) -> Self {
        Self { rows: Vec::new(), colour, width }
    }

    /// Adds a line of one style.
    pub(super) fn line(&mut self, goes: Goes, style: Style, text: &str) {
        self.add(goes, String::new(), style, text, 2);
    }

    /// Adds a fact and its name. The lines of a text stay and go together.
    pub(super) fn fact(&mut self, goes: Goes, name: &str, text: &str) {
        let head = if self.colour { format!("{HEADING}{name:10}{HEADING:#} ") } else { format!("{name:10} ") };
        self.add(goes, head, Style::new(), text, INDENT);
    }

    /// Adds a line below a fact, or below what has this title.
    pub(super) fn below(&mut self, goes: Goes, title: &str, text: &str) {
        self.add(goes, format!("{title:INDENT$}"), Style::new(), text, INDENT);
    }

    /// Adds lines that are as they have to be.
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

    /// As many of the items of a list as fit below a fact, past so many columns; at least one.
    pub(super) fn list(&self, past: usize, most: usize, list: impl Fn(usize) -> String) -> String {
        let room = self.width.map_or(usize::MAX, |columns| columns.saturating_sub(INDENT + past));
        let mut lists = (1..=most.max(1)).rev().map(&list);
        lists.find(|list| width(list) <= room).unwrap_or_else(|| list(1))
    }

    /// Columns that are left past so many.
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
