//! One JSON object a line.

use std::io::{self, Write};

use crate::model::finding::Finding;
use crate::model::row::{Entry, Row, Stay};
use crate::model::stream::{Closing, Context, Lost};
use crate::study::ports::Ranked;
use crate::study::snapshot::Count;

use super::fields::{
    AUDIT, AUDITED, CONNECTION, COUNT, COUNTER, LOSS, PORTS, SOCKET, SUMMARY, TRANSITION, Table, UNSEEN, Value,
};
use super::time::Rfc3339;
use super::{Kind, Lister, Printed, Printer, render, sanitise, sanitise_message};

/// Writes rows as JSON.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    line: Vec<u8>,
    time: Rfc3339,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::with_capacity(1024), time: Rfc3339::default() }
    }

    /// The writer.
    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes rows that are not part of a stream.
    pub(super) fn table<R>(&mut self, table: &Table<R>, rows: &[R]) -> io::Result<()> {
        let context = Context::default();
        rows.iter().try_for_each(|row| self.object(table, row, &context))?;
        self.out.flush()
    }

    /// Writes a row.
    pub(crate) fn object<R>(&mut self, table: &Table<R>, row: &R, context: &Context) -> io::Result<()> {
        self.line.clear();
        let mut before: &[u8] = b"{\"";
        for field in table.of(row) {
            self.line.extend_from_slice(before);
            self.line.extend_from_slice(field.name.as_bytes());
            self.line.extend_from_slice(b"\":");
            self.value((field.value)(row, context))?;
            before = b",\"";
        }
        self.line.extend_from_slice(b"}\n");
        self.out.write_all(&self.line)
    }

    fn value(&mut self, value: Value<'_>) -> io::Result<()> {
        let to = &mut self.line;
        match value {
            Value::Null => to.extend_from_slice(b"null"),
            Value::Bool(true) => to.extend_from_slice(b"true"),
            Value::Bool(false) => to.extend_from_slice(b"false"),
            Value::U64(number) => render::decimal(to, number),
            Value::Real(number) => render::real(to, number),
            Value::Word(word) => quoted(to, |to| to.extend_from_slice(word.as_bytes())),
            Value::Name(name) => serde_json::to_writer(to, &sanitise(name))?,
            Value::Time(ns) => quoted(to, |to| self.time.write(to, ns)),
            Value::Address(address) => quoted(to, |to| render::address(to, address)),
            Value::Zoned(address, zone) => quoted(to, |to| render::zoned(to, address, zone)),
            Value::Hex(number) => quoted(to, |to| render::hex(to, number)),
            Value::States(stays) => states(to, stays),
            Value::Counts(all) => counts(to, all),
            Value::Text(text) => serde_json::to_writer(to, &sanitise_message(text))?,
            Value::Tree(tree) => serde_json::to_writer(to, tree)?,
        }
        Ok(())
    }
}

impl<W: Write> Printer for Json<W> {
    /// JSON has no header.
    fn header(&mut self, _: Kind) -> io::Result<()> {
        Ok(())
    }

    fn row(&mut self, row: &Row, context: &Context) -> io::Result<Printed> {
        match row {
            Row::Transition(row) => self.object(&TRANSITION, row, context),
            Row::Connection(row) => self.object(&CONNECTION, row, context),
            Row::Loss(row) => self.object(&LOSS, row, context),
            Row::Counter(row) => self.object(&COUNTER, row, context),
            Row::Audit(Finding::Counter(row)) => self.object(&AUDIT, row, context),
            Row::Audit(Finding::Unseen(row)) => self.object(&UNSEEN, row, context),
            Row::Audit(Finding::Verdict(row)) => self.object(&AUDITED, row, context),
        }?;
        Ok(Printed::Yes)
    }

    fn closing(&mut self, row: &Closing) -> io::Result<()> {
        self.object(&SUMMARY, row, &Context::default())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Lister for Json<W> {
    fn socket(&mut self, row: &Entry, context: &Context) -> io::Result<()> {
        self.object(&SOCKET, row, context)
    }

    fn count(&mut self, row: &Count, context: &Context) -> io::Result<()> {
        self.object(&COUNT, row, context)
    }

    fn ports(&mut self, row: &Ranked, context: &Context) -> io::Result<()> {
        self.object(&PORTS, row, context)
    }
}

/// For text that needs no escaping.
fn quoted(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    to.push(b'"');
    write(to);
    to.push(b'"');
}

fn states(to: &mut Vec<u8>, stays: &[Stay]) {
    to.push(b'[');
    for (place, stay) in stays.iter().enumerate() {
        to.extend_from_slice(if place == 0 { b"{\"state\":\"" } else { b",{\"state\":\"" });
        to.extend_from_slice(stay.state.as_str().as_bytes());
        to.extend_from_slice(b"\",\"ns\":");
        match stay.held.known_ns() {
            Some(ns) => render::decimal(to, ns),
            None => to.extend_from_slice(b"null"),
        }
        to.extend_from_slice(if stay.held.is_at_least() { b",\"at_least\":true}" } else { b",\"at_least\":false}" });
    }
    to.push(b']');
}

fn counts(to: &mut Vec<u8>, counts: &[Lost]) {
    to.push(b'{');
    for (place, lost) in counts.iter().enumerate() {
        to.extend_from_slice(if place == 0 { b"\"" } else { b",\"" });
        to.extend_from_slice(lost.cause.as_str().as_bytes());
        to.extend_from_slice(b"\":");
        render::decimal(to, lost.events);
    }
    to.push(b'}');
}
