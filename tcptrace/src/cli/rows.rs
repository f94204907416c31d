//! Prints rows to standard output. Rows without columns in the format go to standard error.

use std::io;

use jiff::tz::TimeZone;

use super::outlet::Outlet;
use super::select::OutputArgs;
use super::{say, stdout};
use crate::model::finding::Finding;
use crate::model::names::Names;
use crate::model::row::Row;
use crate::model::stream::{Closing, Origin};
use crate::output::{Kind, Printed, Printer, TextOptions, aside, audit_lines};

/// Prints the rows of a stream.
pub(super) struct Rows {
    printer: Box<dyn Printer>,
    /// Columns of the terminal.
    width: Option<usize>,
    /// Findings of audits, and the names for them.
    findings: Vec<Finding>,
    names: Names,
}

impl Rows {
    /// Begins with the header.
    pub(super) fn new(outlet: Outlet, output: &OutputArgs, kind: Kind, states: bool) -> io::Result<Self> {
        let width = stdout::terminal().map(|(columns, _)| columns);
        let colour = output.colour();
        let text = TextOptions { colour, states, zone: TimeZone::system(), width, ..TextOptions::default() };
        let mut printer = output.format.printer(outlet, text);
        printer.header(kind)?;
        Ok(Self { printer, width, findings: Vec::new(), names: Names::default() })
    }

    /// Prints a row, or describes it on standard error.
    pub(super) fn row(&mut self, row: &Row, origin: &Origin) -> io::Result<()> {
        let names = &origin.context.names;
        if let Row::Audit(finding) = row {
            // All findings of a recording come at once, the verdict last.
            if self.findings.is_empty() || matches!(finding, Finding::Verdict(_)) {
                self.names = names.clone();
            }
            self.findings.push(*finding);
        }
        if self.printer.row(row, &origin.context)? == Printed::No {
            aside(row, names).iter().for_each(say);
        }
        Ok(())
    }

    /// Writes the buffered rows. The next ones fit the current size of the terminal.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.width.is_some() {
            self.width = stdout::terminal().map(|(columns, _)| columns).or(self.width);
            self.width.iter().for_each(|columns| self.printer.resize(*columns));
        }
        self.printer.flush()
    }

    /// Prints the last row, if the format has one, and the findings of audits. The caller prints the closing line.
    pub(super) fn finish(&mut self, closing: &Closing) -> io::Result<()> {
        self.printer.closing(closing)?;
        self.printer.flush()?;
        say_audit(&self.findings, &self.names);
        Ok(())
    }
}

/// Prints the findings of an audit, if there was one.
pub(super) fn say_audit(findings: &[Finding], names: &Names) {
    audit_lines(findings, names).iter().for_each(|line| say(format_args!("audit: {line}")));
}
