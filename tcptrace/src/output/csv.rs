//! Comma-separated values as in RFC 4180, with a header.

use std::fmt;
use std::io::{self, Write};

use crate::model::row::{Entry, Row, Stay};
use crate::model::stream::{Closing, Context};
use crate::study::ports::Ranked;
use crate::study::snapshot::Count;

use super::fields::{CONNECTION, COUNT, PORTS, SOCKET, TRANSITION, Table, Value};
use super::time::Rfc3339;
use super::{Kind, Lister, Printed, Printer, render, sanitise, sanitise_message};

/// Bytes to buffer before writing: some hundred rows.
const BUFFER: usize = 64 * 1024;

/// Writes rows as CSV. Null is an empty field.
pub struct Csv<W: Write> {
    out: csv::Writer<W>,
    record: csv::ByteRecord,
    field: Vec<u8>,
    time: Rfc3339,
    headed: bool,
}

impl<W: Write> Csv<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        // A caller may write rows of both kinds, which have different fields.
        let out = csv::WriterBuilder::new().flexible(true).has_headers(false).buffer_capacity(BUFFER).from_writer(out);
        let (record, field) = (csv::ByteRecord::with_capacity(512, 40), Vec::with_capacity(256));
        Self { out, record, field, time: Rfc3339::default(), headed: false }
    }

    /// Writes rows that are not part of a stream.
    pub(super) fn table<R>(&mut self, table: &Table<R>, rows: &[R]) -> io::Result<()> {
        let context = Context::default();
        self.names(table)?;
        rows.iter().try_for_each(|row| self.write(table, row, &context))?;
        self.out.flush()
    }

    fn names<R>(&mut self, table: &Table<R>) -> io::Result<()> {
        self.out.write_record(table.all().map(|field| field.name)).map_err(io_error)
    }

    fn write<R>(&mut self, table: &Table<R>, row: &R, context: &Context) -> io::Result<()> {
        self.record.clear();
        for field in table.all() {
            self.field.clear();
            self.value((field.value)(row, context));
            self.record.push_field(&self.field);
        }
        self.out.write_byte_record(&self.record).map_err(io_error)
    }

    /// Writes a header of these columns.
    pub(super) fn columns(&mut self, columns: &[&str]) -> io::Result<()> {
        self.out.write_record(columns).map_err(io_error)
    }

    /// Writes a row with some of these columns; the others are empty.
    pub(super) fn sparse<R>(
        &mut self,
        columns: &[&str],
        table: &Table<R>,
        row: &R,
        context: &Context,
    ) -> io::Result<()> {
        self.record.clear();
        for column in columns {
            self.field.clear();
            if let Some(field) = table.all().find(|field| field.name == *column) {
                self.value((field.value)(row, context));
            }
            self.record.push_field(&self.field);
        }
        self.out.write_byte_record(&self.record).map_err(io_error)
    }

    fn value(&mut self, value: Value<'_>) {
        let to = &mut self.field;
        match value {
            Value::Null => {}
            Value::Bool(true) => to.extend_from_slice(b"true"),
            Value::Bool(false) => to.extend_from_slice(b"false"),
            Value::U64(number) => render::decimal(to, number),
            Value::Real(number) => render::real(to, number),
            Value::Word(word) => to.extend_from_slice(word.as_bytes()),
            Value::Name(name) => text(to, &sanitise(name)),
            Value::Time(ns) => self.time.write(to, ns),
            Value::Address(address) => render::address(to, address),
            Value::Zoned(address, zone) => render::zoned(to, address, zone),
            Value::Hex(number) => render::hex(to, number),
            Value::States(stays) => states(to, stays),
            Value::Counts(counts) => render::counts(to, counts),
            Value::Text(sentence) => text(to, &sanitise_message(sentence)),
            Value::Tree(tree) => text(to, &tree.to_string()),
        }
    }
}

impl<W: Write> Printer for Csv<W> {
    fn header(&mut self, kind: Kind) -> io::Result<()> {
        if std::mem::replace(&mut self.headed, true) {
            return Ok(());
        }
        match kind {
            Kind::Transition => self.names(&TRANSITION),
            Kind::Connection => self.names(&CONNECTION),
            Kind::Socket => self.names(&SOCKET),
            Kind::Count => self.names(&COUNT),
            Kind::Ports => self.names(&PORTS),
        }
    }

    /// Rows with other columns than transitions and connections cannot be written.
    fn row(&mut self, row: &Row, context: &Context) -> io::Result<Printed> {
        match row {
            Row::Transition(row) => self.write(&TRANSITION, row, context)?,
            Row::Connection(row) => self.write(&CONNECTION, row, context)?,
            Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => return Ok(Printed::No),
        }
        Ok(Printed::Yes)
    }

    fn closing(&mut self, _: &Closing) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Lister for Csv<W> {
    fn socket(&mut self, row: &Entry, context: &Context) -> io::Result<()> {
        self.write(&SOCKET, row, context)
    }

    fn count(&mut self, row: &Count, context: &Context) -> io::Result<()> {
        self.write(&COUNT, row, context)
    }

    fn ports(&mut self, row: &Ranked, context: &Context) -> io::Result<()> {
        self.write(&PORTS, row, context)
    }
}

impl<W: Write> fmt::Debug for Csv<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csv").field("headed", &self.headed).finish_non_exhaustive()
    }
}

/// Spreadsheets run a cell that starts with one of these as a formula. A single quote makes it text.
fn text(to: &mut Vec<u8>, text: &str) {
    if text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) {
        to.push(b'\'');
    }
    to.extend_from_slice(text.as_bytes());
}

fn states(to: &mut Vec<u8>, stays: &[Stay]) {
    for (place, stay) in stays.iter().enumerate() {
        if place > 0 {
            to.push(b';');
        }
        to.extend_from_slice(stay.state.as_str().as_bytes());
        to.push(b':');
        if let Some(ns) = stay.held.known_ns() {
            render::decimal(to, ns);
        }
        if stay.held.is_at_least() {
            to.push(b'+');
        }
    }
}

/// Keeps the kind of the error, so that the caller recognises a closed pipe.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
