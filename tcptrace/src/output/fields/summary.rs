//! The fields of the last row of `watch`, `connections` and `replay`.

use super::{Field, Shape, Table, Value};
use crate::model::stream::{Closing, Context};

/// What there was in all, and how the command ends.
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
    number("seen", "Changes of state that were seen, whatever the filters.", |row, _| {
        Value::U64(row.summary.transitions)
    }),
    number("events", "Events of sockets that they follow from.", |row, _| Value::U64(row.summary.events)),
    Field {
        name: "lost",
        nullable: false,
        unit: "",
        shape: Shape::Counts,
        doc: "How many events were lost by which cause, as far as that is known: a number for each word of cause in rows of \
              report_loss; of evicted sockets, of filter_full rows. Empty when nothing was lost.",
        value: |row, _| Value::Counts(&row.summary.lost),
    },
    Field {
        name: "lost_at_least",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether more may be lost than that.",
        value: |row, _| Value::Bool(row.summary.lost.iter().any(|lost| lost.at_least)),
    },
    number("damaged", "Damaged places in the traces; 0 for live commands.", |row, _| {
        Value::U64(row.summary.damage.len() as u64)
    }),
    number("followed", "Sockets that are still followed at the end.", |row, _| Value::U64(row.summary.followed)),
    number(
        "filtered",
        "Changes of state and rows that filters kept out, those of the kernel side included.",
        |row, _| Value::U64(row.summary.filtered),
    ),
    number(
        "undecided",
        "Rows that filters could not decide, as something of their connection is unknown.",
        |row, _| {
            let undecided = row.summary.undecided;
            Value::U64(undecided.shown.saturating_add(undecided.left_out))
        },
    ),
    number("undecided_shown", "How many of those are shown; the others are left out.", |row, _| {
        Value::U64(row.summary.undecided.shown)
    }),
    number(
        "exit",
        "The exit status of the command: 0, 1 (a recording beside it failed) or 3 (events were lost, or a trace is damaged).",
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
