//! Aligned columns for people. A column that a longer value has widened stays wide.

mod column;
pub(super) mod diagnose;
mod fit;
mod known;
mod note;
mod ports;
pub(super) mod report;
pub(super) mod settings;
mod snapshot;
mod style;
pub(super) mod wrap;

use std::io::{self, Write};
use std::net::SocketAddr;

use anstyle::Style;

use crate::model::counters::Increase;
use crate::model::row::{Connection, Entry, Held, Identity, Loss, Row, Status, Transition};
use crate::model::stream::{Closing, Context};
use crate::model::tcp::{Closer, End, State, Task, TimeWaitEnd};
use crate::study::ports::Ranked;
use crate::study::snapshot::{By, Count};

pub(crate) use self::column::fitting;
use self::column::{Align, Column, Line};
pub(super) use self::diagnose::{write_diagnoses, write_page, write_rules};
use self::fit::Fit;
use self::known::Known;
pub(super) use self::report::words::count;
pub(super) use self::report::write_report;
pub(super) use self::settings::write_settings;
pub(crate) use self::style::{end as end_style, state as state_style};
use super::fields::zone;
use super::time::TimeOfDay;
use super::{Kind, Lister, Printed, Printer, TextOptions, counter_words, human, render, sanitise, width};

/// The kernel's names are at most 15 bytes; only escaped ones are longer, and those are cut.
const COMM_WIDTH: usize = 15;
/// Any IPv4 address and port.
const IPV4_WIDTH: usize = "255.255.255.255:65535".len();
/// Indents to the column after TIME.
const STATES_INDENT: &[u8] = b"             ";

/// Writes rows as text.
#[derive(Debug)]
pub struct Text<W> {
    out: W,
    colour: bool,
    states: bool,
    headed: bool,
    time_of_day: TimeOfDay,
    line: Line,
    columns: Columns,
    known: Known,
    snapshot: snapshot::Columns,
    ports: ports::Columns,
    counted_by: Option<By>,
    /// Where output is a terminal.
    fit: Option<Fit>,
}

/// The columns of both kinds of rows. Shared columns keep their width.
#[derive(Debug)]
struct Columns {
    time: Column,
    pid: Column,
    comm: Column,
    local: Column,
    remote: Column,
    old: Column,
    new: Column,
    held: Column,
    note: Column,
    side: Column,
    closer: Column,
    end: Column,
    established: Column,
    close_wait: Column,
    time_wait: Column,
    sent: Column,
    received: Column,
}

impl Columns {
    fn new() -> Self {
        // Only IPv6 addresses are longer.
        let address = IPV4_WIDTH;
        let duration = ">12.3ms".len();
        let ends_of_time_wait = longest(TimeWaitEnd::ALL.iter().map(|it| it.as_str()));
        Self {
            time: Column::new("TIME", Align::Left, "HH:MM:SS.mmm".len()),
            pid: Column::new("PID", Align::Right, "4194304".len()),
            comm: Column::new("COMM", Align::Left, COMM_WIDTH),
            local: Column::new("LOCAL", Align::Left, address),
            remote: Column::new("REMOTE", Align::Left, address),
            old: Column::new("OLD", Align::Left, "ESTABLISHED".len()),
            new: Column::new("NEW", Align::Left, "ESTABLISHED".len()),
            held: Column::new("HELD", Align::Right, duration),
            note: Column::new("NOTE", Align::Left, 0),
            side: Column::new("SIDE", Align::Left, "unknown".len()),
            closer: Column::new("CLOSER", Align::Left, longest(Closer::ALL.iter().map(|it| it.as_str()))),
            end: Column::new("END", Align::Left, longest(End::ALL.iter().map(|it| it.as_str()))),
            established: Column::new("ESTAB", Align::Right, duration),
            close_wait: Column::new("CLOSE_WAIT", Align::Right, "CLOSE_WAIT".len()),
            time_wait: Column::new("TIME_WAIT", Align::Left, duration + " ".len() + ends_of_time_wait),
            sent: Column::new("SENT", Align::Right, "1023K".len()),
            received: Column::new("RECV", Align::Right, "1023K".len()),
        }
    }
}

impl Columns {
    /// The widths of PID, COMM, LOCAL and REMOTE.
    fn of_ends(&self) -> [usize; 4] {
        [&self.pid, &self.comm, &self.local, &self.remote].map(Column::width)
    }
}

fn longest<'w>(words: impl Iterator<Item = &'w str>) -> usize {
    words.map(str::len).max().unwrap_or(0)
}

impl<W: Write> Text<W> {
    /// Writes to `out`.
    pub fn new(out: W, options: TextOptions) -> Self {
        Self {
            out,
            colour: options.colour,
            states: options.states,
            headed: false,
            time_of_day: TimeOfDay::new(options.zone),
            line: if options.width.is_some() { Line::collecting() } else { Line::default() },
            columns: Columns::new(),
            known: Known::default(),
            snapshot: snapshot::Columns::new(),
            ports: ports::Columns::new(),
            counted_by: None,
            fit: options.width.map(Fit::new),
        }
    }

    fn coloured(&self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }

    fn heading(&mut self, kind: Kind) {
        let (c, s, p) = (&self.columns, &self.snapshot, &self.ports);
        let columns: &[&Column] = match kind {
            Kind::Transition => &[&c.time, &c.pid, &c.comm, &c.local, &c.remote, &c.old, &c.new, &c.held, &c.note],
            Kind::Connection => &[
                &c.time,
                &c.side,
                &c.closer,
                &c.end,
                &c.pid,
                &c.comm,
                &c.local,
                &c.remote,
                &c.established,
                &c.close_wait,
                &c.time_wait,
                &c.sent,
                &c.received,
                &c.note,
            ],
            Kind::Socket => &[
                &s.state,
                &c.pid,
                &c.comm,
                &c.local,
                &c.remote,
                &s.age,
                &s.left,
                &s.recv_queue,
                &s.send_queue,
                &s.timer,
                &c.note,
            ],
            Kind::Ports => {
                &[&c.local, &c.remote, &p.usable, &p.taken, &p.share, &p.sustainable, &p.left, &c.pid, &c.comm, &c.note]
            }
            // Every table has its own.
            Kind::Count => return,
        };
        for column in columns {
            if column.name == c.new.name {
                self.line.arrow();
            }
            column.heading(&mut self.line, self.colour);
        }
        self.plan(kind);
    }

    /// Where output is a terminal, chooses the columns that fit, and writes their heads.
    fn plan(&mut self, kind: Kind) {
        if let Some(fit) = &mut self.fit {
            fit.begin(kind, self.line.take_cells());
            fit.heading(&mut self.line);
        }
    }

    /// Rows may come without a header.
    fn expect_plan(&mut self, kind: Kind) {
        if self.fit.as_ref().is_some_and(|fit| !fit.is_for(kind)) {
            self.heading(kind);
            self.line.clear();
        }
    }

    fn time(&mut self, unix_ns: i64) {
        let Self { columns, line, time_of_day, .. } = self;
        columns.time.cell(line, Style::new(), |to| time_of_day.write(to, unix_ns));
    }

    /// PID, COMM, LOCAL and REMOTE.
    fn who_and_where(&mut self, identity: &Identity, context: &Context) {
        // Names of interfaces can change.
        if identity.interface != 0 || self.line.is_collecting() {
            return self.write_who_and_where(identity, context);
        }
        if let Some(cells) = self.known.of(identity, self.columns.of_ends()) {
            return self.line.raw(cells);
        }
        let start = self.line.length();
        self.write_who_and_where(identity, context);
        self.known.note(identity, self.columns.of_ends(), self.line.since(start));
    }

    fn write_who_and_where(&mut self, identity: &Identity, context: &Context) {
        self.who(identity.owner.as_ref().map(|owner| &owner.task));
        let Self { columns, line, .. } = self;
        // A listener has no remote port: `*`, as in `ss`.
        for (column, address, no_port) in
            [(&mut columns.local, identity.local(), b'-'), (&mut columns.remote, identity.remote(), b'*')]
        {
            let zone = zone(identity, address, context);
            column.cell(line, Style::new(), |to| render::address_or(to, address, zone, no_port));
        }
    }

    /// PID and COMM.
    fn who(&mut self, task: Option<&Task>) {
        let Self { columns, line, .. } = self;
        let name = task.map(|task| task.comm.bytes()).filter(|name| !name.is_empty());
        columns.pid.cell(line, Style::new(), |to| or_dash(to, task, |to, task| render::decimal(to, task.pid.into())));
        columns.comm.cell(line, Style::new(), |to| or_dash(to, name, comm));
    }

    /// A state that still lasts has no next one.
    fn old_and_new(&mut self, row: &Transition) {
        let (old_style, new_style) = (self.coloured(style::state(row.old)), self.coloured(style::state(row.new)));
        let new = if row.stuck.is_some() { "…" } else { row.new.as_str() };
        let Self { columns, line, .. } = self;
        columns.old.cell(line, old_style, |to| word(to, row.old.as_str()));
        line.arrow();
        columns.new.cell(line, new_style, |to| word(to, new));
    }

    /// SIDE, CLOSER and END.
    fn how_it_ended(&mut self, row: &Connection) {
        let style = self.coloured(style::end(row.closer, row.end()));
        let Self { columns, line, .. } = self;
        columns.side.cell(line, Style::new(), |to| word(to, row.identity.side.as_str()));
        columns.closer.cell(line, style, |to| word(to, row.closer.as_str()));
        let end = row.end().map_or("-", End::as_str);
        columns.end.cell(line, style, |to| word(to, end));
    }

    /// ESTAB, CLOSE_WAIT and TIME_WAIT.
    fn how_long(&mut self, row: &Connection) {
        let close_wait_style = self.coloured(style::state(State::CloseWait));
        let time_wait_style = self.coloured(style::state(State::TimeWait));
        let Self { columns, line, .. } = self;
        columns.established.cell(line, Style::new(), |to| held(to, row.held(State::Established)));
        columns.close_wait.cell(line, close_wait_style, |to| held(to, row.held(State::CloseWait)));
        columns.time_wait.cell(line, time_wait_style, |to| time_wait(to, row));
    }

    /// SENT and RECV.
    fn how_much(&mut self, row: &Connection) {
        let Self { columns, line, .. } = self;
        columns.sent.cell(line, Style::new(), |to| or_dash(to, row.totals, |to, totals| bytes(to, totals.bytes_sent)));
        columns
            .received
            .cell(line, Style::new(), |to| or_dash(to, row.totals, |to, totals| bytes(to, totals.bytes_received)));
    }

    /// The line below a connection, or several where the terminal is narrow.
    fn path(&mut self, row: &Connection) -> io::Result<()> {
        const STEP: &str = " › ";
        let limit = self.fit.as_ref().map_or(usize::MAX, Fit::limit);
        let mut end = 0;
        for (place, stay) in row.stays.iter().enumerate() {
            let style = self.coloured(style::state(stay.state));
            let lasted = stay.held.to_string();
            let wanted = width(stay.state.as_str()) + 1 + width(&lasted);
            let is_full = place > 0 && end + width(STEP) + wanted > limit;
            if is_full {
                self.end_of_line()?;
            }
            if place == 0 || is_full {
                self.line.raw(STATES_INDENT);
                end = STATES_INDENT.len();
            }
            if place > 0 {
                let step = if is_full { STEP.trim_start() } else { STEP };
                self.line.raw(step.as_bytes());
                end += width(step);
            }
            self.line.styled(style, |to| word(to, stay.state.as_str()));
            self.line.raw(b" ");
            self.line.styled(Style::new(), |to| word(to, &lasted));
            end += wanted;
        }
        self.end_of_line()
    }

    /// A note that must be read goes below the row if it does not fit beside it.
    fn end_of_row(&mut self, must_note: bool) -> io::Result<()> {
        let Some(fit) = &mut self.fit else { return self.end_of_line() };
        let cells = self.line.take_cells();
        if fit.widen(&cells) {
            fit.heading(&mut self.line);
            self.out.write_all(self.line.end())?;
            self.line.clear();
        }
        let note = fit.row(&cells, must_note, &mut self.line);
        self.out.write_all(self.line.end())?;
        self.line.clear();
        for part in note.map(|note| fit.below(note)).into_iter().flatten() {
            self.line.raw(STATES_INDENT);
            self.line.styled(note.map_or(Style::new(), |note| note.style), |to| word(to, part));
            self.out.write_all(self.line.end())?;
            self.line.clear();
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> io::Result<()> {
        self.out.write_all(self.line.end())?;
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Text<W> {
    fn transition(&mut self, row: &Transition, context: &Context) -> io::Result<()> {
        self.expect_plan(Kind::Transition);
        self.time(context.clock.unix_ns(row.boot_ns));
        self.who_and_where(&row.identity, context);
        self.old_and_new(row);
        let style = self.coloured(style::note(row));
        let Self { columns, line, .. } = self;
        columns.held.cell(line, Style::new(), |to| held(to, row.held));
        columns.note.cell(line, style, |to| note::transition(to, row));
        self.end_of_row(row.stuck.is_some())
    }

    fn connection(&mut self, row: &Connection, context: &Context) -> io::Result<()> {
        self.expect_plan(Kind::Connection);
        self.time(context.clock.unix_ns(row.boot_ns));
        self.how_it_ended(row);
        self.who_and_where(&row.identity, context);
        self.how_long(row);
        self.how_much(row);
        let Self { columns, line, .. } = self;
        columns.note.cell(line, Style::new(), |to| note::connection(to, row));
        self.end_of_row(!matches!(row.status, Status::Ended(_) | Status::Open { .. }))?;
        if self.states && !row.stays.is_empty() { self.path(row) } else { Ok(()) }
    }

    fn loss(&mut self, row: &Loss, context: &Context) -> io::Result<()> {
        self.across(context.clock.unix_ns(row.boot_ns), &row.to_string())
    }

    fn counter(&mut self, row: &Increase, context: &Context) -> io::Result<()> {
        self.across(context.clock.unix_ns(row.at), &counter_words(row, &context.names))
    }

    /// The time, and then words across the columns.
    fn across(&mut self, unix_ns: i64, words: &str) -> io::Result<()> {
        let style = self.coloured(style::RESET);
        let lines = self.fit.as_ref().map_or_else(|| vec![words], |fit| fit.beside_time(words));
        for (place, part) in lines.into_iter().enumerate() {
            if place == 0 {
                self.line.styled(Style::new(), |to| self.time_of_day.write(to, unix_ns));
                self.line.raw(b" ");
            } else {
                self.line.raw(STATES_INDENT);
            }
            self.line.styled(style, |to| word(to, part));
            self.end_of_line()?;
        }
        Ok(())
    }
}

impl<W: Write> Printer for Text<W> {
    fn header(&mut self, kind: Kind) -> io::Result<()> {
        if std::mem::replace(&mut self.headed, true) {
            return Ok(());
        }
        self.heading(kind);
        if kind == Kind::Count { Ok(()) } else { self.end_of_line() }
    }

    fn row(&mut self, row: &Row, context: &Context) -> io::Result<Printed> {
        match row {
            Row::Transition(row) => self.transition(row, context)?,
            Row::Connection(row) => self.connection(row, context)?,
            Row::Loss(row) => self.loss(row, context)?,
            Row::Counter(row) => self.counter(row, context)?,
            // A table of its own ([`audit_lines`](super::audit_lines)).
            Row::Audit(_) => return Ok(Printed::No),
        }
        Ok(Printed::Yes)
    }

    fn closing(&mut self, _: &Closing) -> io::Result<()> {
        Ok(())
    }

    fn resize(&mut self, width: usize) {
        if let Some(fit) = &mut self.fit {
            fit.resize(width);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Lister for Text<W> {
    fn socket(&mut self, row: &Entry, context: &Context) -> io::Result<()> {
        self.write_socket(row, context)
    }

    fn count(&mut self, row: &Count, _: &Context) -> io::Result<()> {
        self.write_count(row)
    }

    fn ports(&mut self, row: &Ranked, context: &Context) -> io::Result<()> {
        self.write_ports(row, context)
    }
}

fn word(to: &mut Vec<u8>, word: &str) {
    to.extend_from_slice(word.as_bytes());
}

fn or_dash<T>(to: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(to, value),
        None => to.push(b'-'),
    }
}

fn comm(to: &mut Vec<u8>, name: &[u8]) {
    let name = sanitise(name);
    let fitting = fitting(&name, COMM_WIDTH);
    word(to, fitting);
    if fitting.len() < name.len() {
        word(to, "…");
    }
}

/// A listener has no remote port: `*`, as in `ss`.
fn remote(to: &mut Vec<u8>, address: SocketAddr) {
    render::address_or(to, address, None, b'*');
}

fn held(to: &mut Vec<u8>, held: Held) {
    held.write_to(to);
}

fn bytes(to: &mut Vec<u8>, bytes: u64) {
    // Writing into a Vec cannot fail.
    let _ = write!(to, "{}", human::Bytes(bytes));
}

/// How long it was and, unless it just ran out, why it ended; or why there was none.
fn time_wait(to: &mut Vec<u8>, row: &Connection) {
    let why = row.time_wait_end().filter(|end| !matches!(end, TimeWaitEnd::Expired | TimeWaitEnd::Unknown));
    let lasted = row.held(State::TimeWait);
    if lasted != Held::Unknown || why.is_none() {
        held(to, lasted);
    }
    if let Some(why) = why {
        let space = if lasted == Held::Unknown { "" } else { " " };
        word(to, space);
        word(to, why.as_str());
    }
}
