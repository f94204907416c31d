//! Groups of sockets.

use super::paint::{ALARM, DIM, PLAIN, WARNING, of_state};
use super::table::{Cell, Column, Table};
use crate::model::row::Held;
use crate::model::tcp::State;
use crate::output::text::report::words::{Apart, count, group, number};
use crate::study::counts::By;
use crate::study::counts::levels::Level;
use crate::study::top::{Frame, GroupRow, Sort};

const APART: Apart = Apart { hosts: false, namespaces: true };

pub(super) fn heading(by: By) -> &'static str {
    match by {
        By::Process => "PROCESS",
        By::Remote => "REMOTE END",
        By::Lport => "LISTENING PORT",
        By::Container => "CONTAINER OR UNIT",
        By::Netns => "NETWORK NAMESPACE",
    }
}

pub(super) fn name(of: &crate::study::counts::Group) -> String {
    group(of, APART)
}

pub(super) fn table(frame: &Frame) -> Table {
    let column = |name, sort| Column { name, is_sorted: frame.sort == sort };
    let mut columns = vec![
        Column::new(heading(frame.by)),
        column("ALL", Sort::Sockets),
        column("OPEN/S", Sort::Opened),
        column("FAIL/S", Sort::Failed),
        column("ESTAB", Sort::Established),
        column("TIMEW", Sort::TimeWait),
        column("CLOSEW", Sort::CloseWait),
    ];
    match frame.by {
        By::Lport => columns.push(Column::new("QUEUE")),
        By::Remote => columns.push(Column::new("PORTS LEFT")),
        _ => {}
    }
    columns.extend([column("OLDEST", Sort::Oldest), column("FINW2", Sort::FinWait2), Column::new("OTHER")]);
    let mut rows: Vec<Vec<Cell>> = frame.groups.rows.iter().map(|row| cells(row, frame.by)).collect();
    if frame.others.sockets() > 0 {
        let others = format!("{} others", frame.groups.more.max(1));
        rows.push(level_cells((others, DIM), &frame.others, ["".into(), "".into()], None, None));
    }
    Table {
        title: format!("{} groups by {}", count(frame.groups.rows.len() as u64 + frame.groups.more), frame.by.as_str()),
        columns,
        rows,
        more: 0,
        what: "groups",
        empty: if frame.is_surveyed { "no sockets" } else { "looking for sockets…" },
    }
}

fn cells(row: &GroupRow, by: By) -> Vec<Cell> {
    let extra = match by {
        By::Lport => Some(row.queue.map_or(("-".into(), DIM), |(queued, limit)| {
            (format!("{queued}/{limit}"), if queued > limit { ALARM } else { PLAIN })
        })),
        By::Remote => Some(row.ports.map_or(("-".into(), DIM), |(left, seconds)| match seconds {
            Some(seconds) => (format!("{} ({})", count(left.into()), seconds_left(seconds)), WARNING),
            None => (count(left.into()), if left == 0 { ALARM } else { PLAIN }),
        })),
        _ => None,
    };
    let rates = [number(row.opened), number(row.failed)];
    level_cells((name(&row.group), PLAIN), &row.level, rates, extra, Some(row.oldest))
}

fn level_cells(
    name: Cell,
    level: &Level,
    [opened, failed]: [String; 2],
    extra: Option<Cell>,
    oldest: Option<Held>,
) -> Vec<Cell> {
    let of = |state: State| {
        let sockets = level.of(state);
        (count(sockets), if sockets == 0 { DIM } else { of_state(state) })
    };
    let shown = [State::Established, State::TimeWait, State::CloseWait, State::FinWait2];
    let other = level.sockets() - shown.iter().map(|state| level.of(*state)).sum::<u64>();
    let failed_style = if failed.is_empty() || failed == "0" { DIM } else { ALARM };
    let mut cells = vec![
        name,
        (count(level.sockets()), PLAIN),
        (opened, PLAIN),
        (failed, failed_style),
        of(shown[0]),
        of(shown[1]),
        of(shown[2]),
    ];
    cells.extend(extra);
    cells.extend([(oldest.map(|it| it.to_string()).unwrap_or_default(), PLAIN), of(shown[3]), (count(other), PLAIN)]);
    cells
}

/// `58s`, `3m12s`.
pub(super) fn seconds_left(seconds: f64) -> String {
    crate::study::diagnose::say::seconds(seconds)
}
