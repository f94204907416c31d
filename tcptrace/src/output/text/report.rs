//! A report as text: the incident on one screen and, with `--full`, each part in depth.

mod depth;
mod lines;
mod screen;
mod spark;
mod table;
pub(in crate::output) mod words;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anstyle::{Effects, Style};

pub(in crate::output) use self::screen::longest;
use self::spark::sparkline;
use self::words::Apart;
use super::style;
use crate::output::TextOptions;
use crate::study::report::{By, Report};

const HEADING: Style = Style::new().effects(Effects::BOLD);

/// Writes a report as text.
pub(in crate::output) fn write_report(out: &mut impl Write, options: &TextOptions, report: &Report) -> io::Result<()> {
    let mut writer = Writer { out, options, report };
    writer.screen()?;
    if options.full { writer.depth() } else { Ok(()) }
}

/// Writes parts of a report.
struct Writer<'a, W> {
    out: &'a mut W,
    options: &'a TextOptions,
    report: &'a Report,
}

impl<W: Write> Writer<'_, W> {
    /// The grouping of its tables.
    fn by(&self) -> By {
        self.report.options.by.unwrap_or_default()
    }

    /// What groups must be distinguished by.
    fn apart(&self) -> Apart {
        Apart::of(self.report)
    }

    fn line(&mut self, style: Style, text: &str) -> io::Result<()> {
        if self.options.colour && !style.is_plain() {
            writeln!(self.out, "{style}{text}{style:#}")
        } else {
            writeln!(self.out, "{text}")
        }
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out)?;
        self.line(HEADING, text)
    }
}
