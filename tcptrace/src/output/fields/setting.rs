//! The fields of a setting, as `diagnose` shows it.

use super::{Field, Shape, Table, Value, or_null};
use crate::model::stream::Context;
use crate::study::diagnose::settings::Row;

/// A setting of a network namespace, or of a host.
pub static SETTING: Table<SettingRow> = Table::new("diagnose: setting", FIELDS);

/// A setting, with the host that has it.
pub struct SettingRow {
    host: String,
    row: Row,
}

impl SettingRow {
    pub(in crate::output) fn new(host: &str, row: &Row) -> Self {
        Self { host: host.to_owned(), row: row.clone() }
    }
}

const fn field(
    name: &'static str,
    shape: Shape,
    doc: &'static str,
    value: for<'r> fn(&'r SettingRow, &'r Context) -> Value<'r>,
) -> Field<SettingRow> {
    Field { name, nullable: false, unit: "", shape, doc, value }
}

static FIELDS: &[Field<SettingRow>] = &[
    field(
        "event",
        Shape::Word,
        "Always `setting`: all of the first network namespace and of the host, and of others those that differ.",
        |_, _| Value::Word("setting"),
    ),
    field("host", Shape::Name, "Name of the host.", |row, _| Value::Name(row.host.as_bytes())),
    or_null(field(
        "netns",
        Shape::Number,
        "Inode number of the network namespace; null: of the host as a whole.",
        |row, _| row.row.netns.map_or(Value::Null, |netns| Value::U64(netns.into())),
    )),
    field(
        "name",
        Shape::Word,
        "Its name, as `sysctl` has it; or RLIMIT_NOFILE or TIME_WAIT, which are none of those.",
        |row, _| Value::Word(row.row.name),
    ),
    or_null(field(
        "value",
        Shape::Text,
        "Its value; null: the kernel does not have it, or does not show it there.",
        |row, _| row.row.value.as_deref().map_or(Value::Null, Value::Text),
    )),
    or_null(field(
        "default",
        Shape::Text,
        "What it is unless somebody changes it; null when that is computed, or there is none.",
        |row, _| row.row.default.as_deref().map_or(Value::Null, Value::Text),
    )),
    field(
        "source",
        Shape::Word,
        "default, changed, missing (the kernel does not have it, or does not show it there) or computed (from the memory at boot: \
         nobody knows whether it was changed since).",
        |row, _| Value::Word(row.row.source.as_str()),
    ),
    field("effect", Shape::Text, "What it really does.", |row, _| Value::Text(row.row.effect)),
    field("risk", Shape::Text, "What changing it does.", |row, _| Value::Text(row.row.risk)),
];
