//! The fields of kernel counters that no event covers.

use crate::model::counters::Increase;
use crate::model::stream::Context;

use super::{Field, Shape, Table, Value, or_null};

type Taker = for<'r> fn(&'r Increase, &'r Context) -> Value<'r>;

const fn number(name: &'static str, unit: &'static str, doc: &'static str, value: Taker) -> Field<Increase> {
    Field { name, nullable: false, unit, shape: Shape::Number, doc, value }
}

const fn word(name: &'static str, doc: &'static str, value: Taker) -> Field<Increase> {
    Field { name, nullable: false, unit: "", shape: Shape::Word, doc, value }
}

impl Field<Increase> {
    const COUNTED_TIME: Self = Self {
        name: "time",
        nullable: false,
        unit: "RFC 3339",
        shape: Shape::Time,
        doc: "When the counter was read: wall-clock time in UTC with 9 digits, converted from boot_ns.",
        value: |row, context| Value::Time(context.clock.unix_ns(row.at)),
    };
    const COUNTED_BOOT_NS: Self =
        number("boot_ns", "ns", "When the counter was read, as CLOCK_BOOTTIME, which never steps.", |row, _| {
            Value::U64(row.at)
        });
    const COUNTED_NETNS: Self =
        number("netns", "", "Inode number of the network namespace, as in /proc/PID/ns/net.", |row, _| {
            Value::U64(row.netns.into())
        });
    const COUNTED_NETNS_NAME: Self = Self {
        name: "netns_name",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the network namespace, as `ip netns` or a container runtime gave it, escaped as in comm; null when it \
              has none.",
        value: |row, context| Value::name(context.names.namespace(row.netns)),
    };
    const COUNTED_COUNTER: Self = word(
        "counter",
        "The kernel's counter: SyncookiesSent, SyncookiesFailed, TCPReqQFullDrop, ListenOverflows, ListenDrops, \
         EmbryonicRsts \
         (/proc/net/netstat), conntrack.drop or conntrack.early_drop (/proc/net/stat/nf_conntrack).",
        |row, _| Value::Word(row.counter.as_str()),
    );
    const COUNTED_OVER_NS: Self = or_null(number(
        "over_ns",
        "ns",
        "Time before boot_ns in which it has grown; null: since the network namespace was created.",
        |row, _| Value::number(row.over_ns),
    ));
    const COUNTED_WHAT: Self = word("what", "What it counts.", |row, _| Value::Word(row.counter.what()));
    const COUNTED_MEANING: Self = word("meaning", "Why it grows.", |row, _| Value::Word(row.counter.why()));
}

/// A counter that has grown.
pub static COUNTER: Table<Increase> = Table::new("watch, connections: counter", COUNTER_FIELDS);

static COUNTER_FIELDS: &[Field<Increase>] = &[
    word("event", "Always `counter`.", |_, _| Value::Word("counter")),
    Field::COUNTED_TIME,
    Field::COUNTED_BOOT_NS,
    Field::COUNTED_NETNS,
    Field::COUNTED_NETNS_NAME,
    Field::COUNTED_COUNTER,
    number("increase", "", "Amount by which it has grown. No events cover these.", |row, _| Value::U64(row.increase)),
    Field::COUNTED_OVER_NS,
    Field::COUNTED_WHAT,
    Field::COUNTED_MEANING,
];

/// A counter that an audit cannot compare.
pub static UNSEEN: Table<Increase> = Table::new("watch, connections: unseen", UNSEEN_FIELDS);

static UNSEEN_FIELDS: &[Field<Increase>] = &[
    word("event", "Always `unseen`.", |_, _| Value::Word("unseen")),
    Field::COUNTED_TIME,
    Field::COUNTED_BOOT_NS,
    Field::COUNTED_NETNS,
    Field::COUNTED_NETNS_NAME,
    Field::COUNTED_COUNTER,
    number(
        "increase",
        "",
        "Amount by which it has grown while tracing. No events cover these, so they do not count as lost.",
        |row, _| Value::U64(row.increase),
    ),
    Field::COUNTED_OVER_NS,
    Field::COUNTED_WHAT,
    Field::COUNTED_MEANING,
];
