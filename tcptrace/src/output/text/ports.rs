//! The ports of destinations.

use std::io::{self, Write};
use std::net::SocketAddr;

use anstyle::Style;

use super::column::{Align, Column};
use super::{Text, note, or_dash, word};
use crate::model::stream::Context;
use crate::model::tcp::{Tuple, scoped};
use crate::output::fields::zone_in;
use crate::output::{Kind, human, render};
use crate::study::ports::{Budget, Forecast, Ranked};

/// Takes one of both ends.
type End = fn(&Tuple) -> SocketAddr;

/// The columns that only these rows have.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) usable: Column,
    pub(super) taken: Column,
    pub(super) share: Column,
    pub(super) sustainable: Column,
    pub(super) left: Column,
}

impl Columns {
    pub(super) fn new() -> Self {
        Self {
            usable: Column::new("USABLE", Align::Right, ">28232".len()),
            taken: Column::new("TAKEN", Align::Right, "28232".len()),
            share: Column::new("SHARE", Align::Right, "100.0%".len()),
            sustainable: Column::new("MAX/S", Align::Right, "462.8".len()),
            left: Column::new("LEFT", Align::Right, "at 99.9%".len()),
        }
    }
}

impl<W: Write> Text<W> {
    pub(super) fn write_ports(&mut self, row: &Ranked, context: &Context) -> io::Result<()> {
        self.expect_plan(Kind::Ports);
        let (one, taken) = match row {
            Ranked::One(budget) => (Some(&**budget), budget.taken.into()),
            Ranked::Rest(rest) => (None, rest.taken),
        };
        let Self { columns, ports, line, .. } = self;
        let ends: [(_, End); 2] = [(&mut columns.local, Tuple::local), (&mut columns.remote, Tuple::remote)];
        for (column, end) in ends {
            column.cell(line, Style::new(), |to| or_dash(to, one, |to, it| address(to, it, end, context)));
        }
        ports.usable.cell(line, Style::new(), |to| or_dash(to, one, usable));
        ports.taken.cell(line, Style::new(), |to| render::decimal(to, taken));
        ports.share.cell(line, Style::new(), |to| or_dash(to, one, |to, it| percent(to, it.share)));
        ports.sustainable.cell(line, Style::new(), |to| or_dash(to, one, |to, it| tenths(to, it.sustainable)));
        ports.left.cell(line, Style::new(), |to| or_dash(to, one.and_then(|it| it.forecast), left));
        self.who(one.and_then(|it| it.owners.known.first()).map(|(task, _)| task));
        let Self { columns, line, .. } = self;
        columns.note.cell(line, Style::new(), |to| note::ports(to, row));
        // It is all that such a row says.
        self.end_of_row(one.is_none())
    }
}

fn address(to: &mut Vec<u8>, budget: &Budget, end: End, context: &Context) {
    let key = &budget.key;
    let address = scoped(end(&key.ends()), key.interface);
    render::address_or(to, address, zone_in(key.netns, address, context), b'*');
}

fn usable(to: &mut Vec<u8>, budget: &Budget) {
    if budget.usable_at_most {
        word(to, "≤");
    }
    render::decimal(to, budget.usable.into());
}

/// In how long the last port is taken, or where the rate levels off.
fn left(to: &mut Vec<u8>, forecast: Forecast) {
    match (forecast.seconds_left, forecast.levels_off_at) {
        (Some(seconds), _) if seconds <= 0.0 => word(to, "now"),
        (Some(seconds), _) => {
            // Writing into a Vec cannot fail, here and below.
            let _ = write!(to, "{}", human::Duration((seconds * 1e9) as u64));
        }
        (None, Some(share)) => {
            word(to, "at ");
            percent(to, share);
        }
        (None, None) => to.push(b'-'),
    }
}

/// Cut, not rounded, so that 100 % is all.
fn percent(to: &mut Vec<u8>, share: f64) {
    tenths(to, share * 100.0);
    to.push(b'%');
}

fn tenths(to: &mut Vec<u8>, number: f64) {
    let tenths = (number * 10.0 + 1e-6) as u64;
    let _ = write!(to, "{}.{}", tenths / 10, tenths % 10);
}
