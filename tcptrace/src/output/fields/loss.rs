//! The fields of a loss, which is a row of its own among those of `watch` and `connections`.

use crate::model::row::Loss;

use super::{Field, Shape, Table, Value};

/// Every cause, in words of data.
pub(super) const CAUSES: &str = "Why: ring_full (events came faster than they were read), output_slow (the same, because nobody took the output), \
     recursion (the kernel did not run a program that was running already on that CPU), disk (full or slow), damage (the \
     trace is damaged, or files of it are missing), evicted (more sockets than --max-sockets), unreported (the kernel did not \
     report the closing of a socket, as later events of the socket prove, or two \
     surveys in a row that did not find it), unknown (the trace is of a version that did not \
     say) or, only in the sums of report_loss and summary, unaccounted (an audit found that the kernel had counted more) or \
     filter_full (more rows waited for a filter to decide than are held back).";

/// A place where something is missing.
pub static LOSS: Table<Loss> = Table::new("watch, connections: lost", LOSS_FIELDS);

/// The fields of a place where something is missing.
static LOSS_FIELDS: &[Field<Loss>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `lost`.",
        value: |_, _| Value::Word("lost"),
    },
    Field {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "Where it belongs among the other rows: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "Where it belongs among the other rows, as CLOCK_BOOTTIME, which never steps. Of recursion it is where it was \
              noticed, up to a second later.",
        value: |row, _| Value::U64(row.boot_ns),
    },
    Field {
        name: "cause",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: CAUSES,
        value: |row, _| Value::Word(row.cause.as_str()),
    },
    Field {
        name: "count",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many events are missing; of evicted, how many sockets were forgotten in a second. Null when unknown.",
        value: |row, _| Value::number(row.count),
    },
];
