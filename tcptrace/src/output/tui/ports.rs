//! How many local ports each destination has left.

use super::groups::seconds_left;
use super::paint::{ALARM, DIM, PLAIN, WARNING};
use super::table::{Cell, Column, Table};
use crate::output::text::report::words::{count, number, percent};
use crate::study::diagnose::say;
use crate::study::ports::Budget;
use crate::study::top::Frame;

/// A larger part of all ports is worth a warning: connect() then tries every port of one half first.
const MUCH: f64 = 0.5;

pub(super) fn table(frame: &Frame) -> Table {
    Table {
        title: "local ports by destination, the fullest first".to_owned(),
        columns: ["FROM → TO", "USABLE", "TAKEN", "SHARE", "FREE", "TIMEW", "TIMEW/S", "LEFT"].map(Column::new).into(),
        rows: frame.ports.rows.iter().map(cells).collect(),
        more: frame.ports.more,
        what: "destinations",
        empty: "no destination takes local ports, or the settings are not known yet",
    }
}

fn cells(row: &Budget) -> Vec<Cell> {
    let key = &row.key;
    let style = match row.free {
        0 => ALARM,
        _ if row.share >= MUCH => WARNING,
        _ => PLAIN,
    };
    let at_most = if row.usable_at_most { "≤" } else { "" };
    let left = row.forecast.and_then(|it| it.seconds_left);
    vec![
        (format!("{} → {}", say::address(key.source), say::end(key.destination, key.port)), PLAIN),
        (format!("{at_most}{}", count(row.usable.into())), PLAIN),
        (count(row.taken.into()), PLAIN),
        (percent(row.share), style),
        (count(row.free.into()), style),
        (count(row.time_wait.into()), PLAIN),
        row.forecast.map_or(("-".into(), DIM), |it| (number(it.rate), PLAIN)),
        left.map_or(("-".into(), DIM), |seconds| (seconds_left(seconds), ALARM)),
    ]
}
