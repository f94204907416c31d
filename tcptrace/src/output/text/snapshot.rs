//! Sockets that exist, and tables of their counts.

use std::io::{self, Write};

use anstyle::Style;

use super::column::{Align, Column};
use super::{Text, note, or_dash, remote, style, word};
use crate::model::row::Entry;
use crate::model::stream::Context;
use crate::model::tcp::State;
use crate::output::fields::zone;
use crate::output::{Kind, human, render};
use crate::study::snapshot::{By, Count, Shares};

/// Takes one of them.
type Share = fn(Shares) -> u64;

/// The columns that only these rows have.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) state: Column,
    pub(super) age: Column,
    pub(super) left: Column,
    pub(super) recv_queue: Column,
    pub(super) send_queue: Column,
    pub(super) timer: Column,
    total: Column,
    shares: [(Column, Share); 4],
}

impl Columns {
    pub(super) fn new() -> Self {
        Self {
            state: Column::new("STATE", Align::Left, "ESTABLISHED".len()),
            age: Column::new("AGE", Align::Right, ">12.3ms".len()),
            left: Column::new("LEFT", Align::Right, "60.0s".len()),
            recv_queue: Column::new("RECV-Q", Align::Right, 0),
            send_queue: Column::new("SEND-Q", Align::Right, 0),
            timer: Column::new("TIMER", Align::Left, "keepalive 12.3ms".len()),
            total: Column::new("TOTAL", Align::Right, "1234567".len()),
            shares: [
                (Column::new("HELD", Align::Right, "1234567".len()), |shares| shares.held),
                (Column::new("QUEUED", Align::Right, "1234567".len()), |shares| shares.queued),
                (Column::new("ORPHAN", Align::Right, "1234567".len()), |shares| shares.orphan),
                (Column::new("MINI", Align::Right, "1234567".len()), |shares| shares.mini),
            ],
        }
    }
}

impl<W: Write> Text<W> {
    pub(super) fn write_socket(&mut self, row: &Entry, context: &Context) -> io::Result<()> {
        self.expect_plan(Kind::Socket);
        self.state(row.state);
        self.who(row.identity.owner.as_ref().map(|owner| &owner.task));
        let Self { columns, line, .. } = self;
        for (column, address, no_port) in
            [(&mut columns.local, row.identity.local(), b'-'), (&mut columns.remote, row.identity.remote(), b'*')]
        {
            let zone = zone(&row.identity, address, context);
            column.cell(line, Style::new(), |to| render::address_or(to, address, zone, no_port));
        }
        let Self { columns, snapshot, line, .. } = self;
        snapshot.age.cell(line, Style::new(), |to| super::held(to, row.age));
        snapshot.left.cell(line, Style::new(), |to| or_dash(to, row.time_wait_left_ns, duration));
        snapshot.recv_queue.cell(line, Style::new(), |to| render::decimal(to, row.recv_queue.into()));
        snapshot.send_queue.cell(line, Style::new(), |to| render::decimal(to, row.send_queue.into()));
        snapshot.timer.cell(line, Style::new(), |to| timer(to, row));
        columns.note.cell(line, Style::new(), |to| note::socket(to, row));
        self.end_of_row(false)
    }

    pub(super) fn write_count(&mut self, row: &Count) -> io::Result<()> {
        if self.counted_by != Some(row.by) {
            if self.counted_by.is_some() {
                self.end_of_line()?;
            }
            self.counted_by = Some(row.by);
            self.count_heading(row.by);
            self.end_of_line()?;
        }
        self.state_or_dash(row.state);
        let Self { snapshot, line, .. } = self;
        snapshot.total.cell(line, Style::new(), |to| or_dash(to, row.total, render::decimal));
        match row.by {
            By::State => {
                for (column, share) in &mut snapshot.shares {
                    column.cell(line, Style::new(), |to| {
                        or_dash(to, row.shares, |to, all| render::decimal(to, share(all)));
                    });
                }
            }
            By::Owner => {
                self.who(row.owner.as_ref());
                let Self { columns, line, .. } = self;
                columns.note.cell(line, Style::new(), |to| note::count(to, row));
            }
            By::Remote => {
                self.who(row.owner.as_ref());
                let Self { columns, line, .. } = self;
                columns.local.cell(line, Style::new(), |to| or_dash(to, row.ends, |to, ends| remote(to, ends.local())));
                columns
                    .remote
                    .cell(line, Style::new(), |to| or_dash(to, row.ends, |to, ends| remote(to, ends.remote())));
                columns.note.cell(line, Style::new(), |to| note::count(to, row));
            }
        }
        // Such a row has nothing else.
        self.end_of_row(row.groups.is_some())
    }

    fn state(&mut self, state: State) {
        let style = self.coloured(style::state(state));
        let Self { snapshot, line, .. } = self;
        snapshot.state.cell(line, style, |to| word(to, state.as_str()));
    }

    fn state_or_dash(&mut self, state: Option<State>) {
        match state {
            Some(state) => self.state(state),
            None => self.snapshot.state.cell(&mut self.line, Style::new(), |to| word(to, "-")),
        }
    }

    fn count_heading(&mut self, by: By) {
        let Self { columns: c, snapshot: s, line, colour, .. } = self;
        let rest: Vec<&Column> = match by {
            By::State => s.shares.iter().map(|(column, _)| column).collect(),
            By::Owner => vec![&c.pid, &c.comm, &c.note],
            By::Remote => vec![&c.pid, &c.comm, &c.local, &c.remote, &c.note],
        };
        for column in [&s.state, &s.total].into_iter().chain(rest) {
            column.heading(line, *colour);
        }
        self.plan(Kind::Count);
    }
}

fn duration(to: &mut Vec<u8>, ns: u64) {
    // Writing into a Vec cannot fail, here and below.
    let _ = write!(to, "{}", human::Duration(ns));
}

fn timer(to: &mut Vec<u8>, row: &Entry) {
    // The timer of a TIME_WAIT has its own column.
    let timer = row.timer.as_str().filter(|_| row.time_wait_left_ns.is_none());
    or_dash(to, timer, |to, timer| {
        let _ = write!(to, "{timer} {}", human::Duration(row.timer_left_ns));
        if row.retransmits > 0 {
            let _ = write!(to, " ×{}", row.retransmits);
        }
    });
}
