//! The fields of the last row of `watch`, `connections` and `replay`.

use super::{Field, Shape, Table, Value};
use crate::model::stream::{Closing, Context};

/// The totals of a run, and its exit status.
pub static SUMMARY: Table<Closing> = Table::new("watch, connections: summary", SUMMARY_FIELDS);

static SUMMARY_FIELDS: &[Field<Closing>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `summary`: the last row of `watch`, `connections` and `replay`.",
        value: |_, _| Value::Word("summary"),
    },
    number("seen", "Changes of state seen, before filters.", |row, _| Value::U64(row.summary.transitions)),
    number("events", "Kernel events read.", |row, _| Value::U64(row.summary.events)),
    Field {
        name: "lost",
        nullable: false,
        unit: "",
        shape: Shape::Counts,
        doc: "Number of lost events by cause, as far as known. The causes are the words of cause in rows of \
              report_loss; evicted counts sockets, filter_full counts rows. Empty when nothing was lost.",
        value: |row, _| Value::Counts(&row.summary.lost),
    },
    Field {
        name: "lost_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether a number in lost is unknown or a lower bound.",
        value: |row, _| Value::Bool(row.summary.lost.iter().any(|lost| lost.at_least)),
    },
    number("damaged", "Damaged places in the traces; 0 for live commands.", |row, _| {
        Value::U64(row.summary.damage.len() as u64)
    }),
    number("followed", "Sockets that are still followed at the end.", |row, _| Value::U64(row.summary.followed)),
    number("filtered", "Changes of state and rows that filters left out, in the kernel or in tcptrace.", |row, _| {
        Value::U64(row.summary.filtered)
    }),
    number(
        "undecided",
        "Rows that filters could not decide, because something about their connection is unknown.",
        |row, _| {
            let undecided = row.summary.undecided;
            Value::U64(undecided.shown.saturating_add(undecided.left_out))
        },
    ),
    number("undecided_shown", "Number of undecided rows that are shown; the others are left out.", |row, _| {
        Value::U64(row.summary.undecided.shown)
    }),
    number(
        "exit",
        "The exit status of the command: 0, 1 (its recording failed) or 3 (events were lost, or a trace is damaged).",
        |row, _| Value::U64(row.exit.into()),
    ),
];

const fn number(
    name: &'static str,
    doc: &'static str,
    value: for<'r> fn(&'r Closing, &'r Context) -> Value<'r>,
) -> Field<Closing> {
    Field { name, nullable: false, unit: "", shape: Shape::Number, doc, value }
}
