//! Accept queues.

use super::paint::{ALARM, DIM, PLAIN, WARNING};
use super::table::{Cell, Column, Table};
use crate::output::sanitise;
use crate::output::text::report::words::count;
use crate::study::diagnose::say;
use crate::study::top::{Frame, Queue};

pub(super) fn table(frame: &Frame) -> Table {
    Table {
        title: format!(
            "{} accept queues, the fullest first",
            count(frame.queues.rows.len() as u64 + frame.queues.more)
        ),
        columns: ["LISTENER", "WAITING", "LIMIT", "SYN_RECV", "PID", "PROCESS", "NETNS"].map(Column::new).into(),
        rows: frame.queues.rows.iter().map(cells).collect(),
        more: frame.queues.more,
        what: "listeners",
        empty: "no listeners, or they are not known yet",
    }
}

fn cells(row: &Queue) -> Vec<Cell> {
    let queue = &row.queue;
    let style = match (queue.queued, queue.queued > queue.limit) {
        (0, _) => PLAIN,
        (_, true) => ALARM,
        _ => WARNING,
    };
    let unknown = || ("-".to_owned(), DIM);
    vec![
        (say::end(queue.ip, queue.port).to_string(), PLAIN),
        (count(queue.queued.into()), style),
        (count(queue.limit.into()), PLAIN),
        queue.requests.map_or_else(unknown, |requests| (count(requests.into()), PLAIN)),
        row.task.map_or_else(unknown, |task| (task.pid.to_string(), PLAIN)),
        row.task.map_or_else(unknown, |task| (sanitise(task.comm.bytes()).into_owned(), PLAIN)),
        (row.netns.to_string(), DIM),
    ]
}
