//! The fields of a loss, which is a row of its own among those of `watch` and `connections`.

use crate::model::row::Loss;

use super::{Field, Shape, Table, Value};

/// Every cause of a loss.
pub(super) const CAUSES: &str = "Why: ring_full (events came faster than they were read), output_slow (the same, \
                                 because the reader of the output was slow), \
     recursion (the kernel skipped an eBPF program that was already running on that CPU), disk (full or slow), damage \
     (the \
     trace is damaged, or files of it are missing), evicted (more sockets than --max-sockets), unreported (the kernel \
     did not report that a socket closed: later events of the socket, or two surveys in a row without it, prove \
     this), unknown (an older version recorded the trace without causes) or, only in the sums of report_loss and \
     summary, unaccounted (an audit found that the kernel had counted more) or \
     filter_full (too many rows were waiting for a filter to decide).";

/// A place in the stream where events are missing.
pub static LOSS: Table<Loss> = Table::new("watch, connections: lost", LOSS_FIELDS);

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
        doc: "Position among the other rows: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.boot_ns)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "Position among the other rows, as CLOCK_BOOTTIME, which never steps. For recursion, when it was \
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
        doc: "Number of missing events; for evicted, of sockets forgotten in a second. Null when unknown.",
        value: |row, _| Value::number(row.count),
    },
];
