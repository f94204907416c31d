//! The fields of `--audit`.

use crate::model::finding::{Compared, Verdict};
use crate::model::stream::Context;

use super::{Field, Shape, Table, Value};

const fn number<R>(
    name: &'static str,
    doc: &'static str,
    value: for<'r> fn(&'r R, &'r Context) -> Value<'r>,
) -> Field<R> {
    Field { name, nullable: false, unit: "", shape: Shape::Number, doc, value }
}

/// A counter.
pub static AUDIT: Table<Compared> = Table::new("watch, connections: audit", AUDIT_FIELDS);

static AUDIT_FIELDS: &[Field<Compared>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `audit`.",
        value: |_, _| Value::Word("audit"),
    },
    Field {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When the counter was read: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.at)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "When the counter was read, as CLOCK_BOOTTIME, which never steps.",
        value: |row, _| Value::U64(row.at),
    },
    number("netns", "Inode number of the network namespace, as in /proc/PID/ns/net.", |row, _| {
        Value::U64(row.netns.into())
    }),
    Field {
        name: "netns_name",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the network namespace, as `ip netns` or a container runtime gave it, escaped as in comm; null when it \
              has none.",
        value: |row, context| Value::name(context.names.namespace(row.netns)),
    },
    Field {
        name: "counter",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "The kernel's counter: ActiveOpens, PassiveOpens, AttemptFails, EstabResets (/proc/net/snmp), TW+TWKilled, \
              TWRecycled, TCPTimeWaitOverflow or TCPAbortOnTimeout (/proc/net/netstat).",
        value: |row, _| Value::Word(row.counter.as_str()),
    },
    number("seen", "Events seen that the counter counts.", |row, _| Value::U64(row.seen)),
    number("expected", "Amount by which the counter has grown while tracing.", |row, _| Value::U64(row.expected)),
    number("difference", "Difference between seen and expected.", |row, _| Value::U64(row.difference())),
    number(
        "within",
        "Tolerance for difference: events at the moment of reading, and events that the kernel may count in another \
         way.",
        |row, _| Value::U64(row.within),
    ),
];

/// The verdict.
pub static AUDITED: Table<Verdict> = Table::new("watch, connections: audited", AUDITED_FIELDS);

static AUDITED_FIELDS: &[Field<Verdict>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `audited`.",
        value: |_, _| Value::Word("audited"),
    },
    Field {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When the audit ended: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.at)),
    },
    Field {
        name: "boot_ns",
        nullable: false,
        unit: "ns",
        shape: Shape::Number,
        doc: "When the audit ended, as CLOCK_BOOTTIME, which never steps.",
        value: |row, _| Value::U64(row.at),
    },
    number("namespaces", "Number of network namespaces compared.", |row, _| Value::U64(row.namespaces)),
    number("gone", "Network namespaces that ended before the audit, or could not be entered.", |row, _| {
        Value::U64(row.gone)
    }),
    number(
        "unclear",
        "Network namespaces not compared, because another one had their inode number before.",
        |row, _| Value::U64(row.unclear),
    ),
    number("transitions", "Changes of state of full sockets seen in the network namespaces compared.", |row, _| {
        Value::U64(row.transitions)
    }),
    number("lost", "Events known to be lost.", |row, _| Value::U64(row.lost)),
    number("lost_transitions", "Changes of state among lost, in any network namespace.", |row, _| {
        Value::U64(row.lost_transitions)
    }),
    number("unexplained", "Sum of all differences beyond within and lost: events missed without notice.", |row, _| {
        Value::U64(row.unexplained)
    }),
];
