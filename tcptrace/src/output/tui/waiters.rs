//! Sockets in a list: those that wait for somebody to close, or the connections of a group.

use super::paint::{DIM, PLAIN, of_state};
use super::table::{Cell, Column, Table};
use crate::output::sanitise;
use crate::output::text::report::words::count;
use crate::study::counts::Group;
use crate::study::top::{Frame, Rows, Waiter};

pub(super) fn table(frame: &Frame) -> Table {
    let title = format!("{} sockets in CLOSE_WAIT or FIN_WAIT2, the oldest first", all(&frame.waiters));
    sockets(title, &frame.waiters, "no socket waits in CLOSE_WAIT or FIN_WAIT2")
}

pub(super) fn of_group(group: &Group, rows: &Rows<Waiter>) -> Table {
    sockets(format!("{} connections of {}", all(rows), super::groups::name(group)), rows, "no connections now")
}

fn all(rows: &Rows<Waiter>) -> String {
    count(rows.rows.len() as u64 + rows.more)
}

fn sockets(title: String, rows: &Rows<Waiter>, empty: &'static str) -> Table {
    Table {
        title,
        columns: ["LOCAL → REMOTE", "STATE", "AGE", "PID", "PROCESS", "FD"].map(Column::new).into(),
        rows: rows.rows.iter().map(cells).collect(),
        more: rows.more,
        what: "sockets",
        empty,
    }
}

fn cells(row: &Waiter) -> Vec<Cell> {
    let unknown = || ("-".to_owned(), DIM);
    let task = row.owner.map(|owner| owner.task);
    vec![
        (format!("{} → {}", row.local, row.remote), PLAIN),
        (row.state.as_str().to_owned(), of_state(row.state)),
        (row.age.to_string(), PLAIN),
        task.map_or_else(unknown, |task| (task.pid.to_string(), PLAIN)),
        task.map_or_else(unknown, |task| (sanitise(task.comm.bytes()).into_owned(), PLAIN)),
        row.fd.map_or_else(unknown, |fd| (fd.to_string(), PLAIN)),
    ]
}
