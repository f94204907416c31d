//! The fields of every row in order: name, unit, meaning and value.
//!
//! These tables are the only definition of JSON and CSV. Fields may be added; none is ever renamed, dropped or given
//! another meaning. The fields of a stuck or open socket follow those of its row: always in CSV, in JSON only on such
//! rows.

mod audit;
mod connection;
mod counter;
mod diagnose;
mod feature;
mod identity;
mod loss;
mod ports;
mod privilege;
mod report;
mod setting;
mod snapshot;
mod stuck;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod transition;

use std::net::SocketAddr;

use crate::model::row::Stay;
use crate::model::stream::{Context, Lost};
use crate::model::tcp::Task;

pub use self::audit::{AUDIT, AUDITED};
pub use self::connection::CONNECTION;
pub use self::counter::{COUNTER, UNSEEN};
pub(super) use self::diagnose::recorded;
pub use self::diagnose::{
    CHECKED, CheckedRow, DIAGNOSED, DIAGNOSIS, DiagnosisRow, FINDING, FindingRow, RULE, RuleRow, Totals,
};
pub use self::feature::FEATURE;
pub use self::identity::Identified;
pub(crate) use self::identity::address;
pub(super) use self::identity::{zone, zone_in};
pub use self::loss::LOSS;
pub use self::ports::PORTS;
pub use self::privilege::PRIVILEGE;
pub use self::report::{
    FiredFields, REPORT, REPORT_BUCKET, REPORT_CHURN, REPORT_COUNT, REPORT_COUNTER, REPORT_DAMAGE, REPORT_FAILURE,
    REPORT_FIRED, REPORT_GROUP, REPORT_HOST, REPORT_LOSS, REPORT_OPEN, REPORT_POINT, REPORT_SLOWEST, REPORT_STATE,
};
pub use self::setting::{SETTING, SettingRow};
pub use self::snapshot::{COUNT, SOCKET};
pub use self::stuck::MayBeStuck;
pub use self::summary::SUMMARY;
pub use self::table::{Describe, Described, Table};
pub use self::top::{TOP, TOP_FINDING, TOP_GROUP, TOP_QUEUE, TOP_RATE, TOP_STATE, TOP_WAITER};
pub use self::transition::TRANSITION;

/// Every kind of row that is printed. The schema is made from this list.
pub static TABLES: &[&dyn Describe] = &[
    &TRANSITION,
    &CONNECTION,
    &LOSS,
    &COUNTER,
    &AUDIT,
    &UNSEEN,
    &AUDITED,
    &SUMMARY,
    &COUNT,
    &SOCKET,
    &PORTS,
    &FEATURE,
    &PRIVILEGE,
    &REPORT,
    &REPORT_HOST,
    &REPORT_LOSS,
    &REPORT_DAMAGE,
    &REPORT_COUNTER,
    &REPORT_COUNT,
    &REPORT_STATE,
    &REPORT_BUCKET,
    &REPORT_GROUP,
    &REPORT_CHURN,
    &REPORT_FAILURE,
    &REPORT_OPEN,
    &REPORT_POINT,
    &REPORT_SLOWEST,
    &REPORT_FIRED,
    &DIAGNOSIS,
    &FINDING,
    &CHECKED,
    &SETTING,
    &DIAGNOSED,
    &RULE,
    &TOP,
    &TOP_STATE,
    &TOP_RATE,
    &TOP_GROUP,
    &TOP_WAITER,
    &TOP_QUEUE,
    &TOP_FINDING,
];

/// One field of a row.
pub struct Field<R> {
    /// Its name in JSON and CSV.
    pub name: &'static str,
    /// Whether it may be null: its meaning says when it is.
    pub nullable: bool,
    /// The unit or notation of its value; empty for words, names and plain numbers.
    pub unit: &'static str,
    pub shape: Shape,
    /// What it means, and when it is null.
    pub doc: &'static str,
    /// Takes the value from a row.
    pub value: for<'r> fn(&'r R, &'r Context) -> Value<'r>,
}

/// The kind of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// True or false.
    Bool,
    /// A whole number, not negative.
    Number,
    /// A number with at most 4 decimal places, not negative.
    Real,
    /// A word from a fixed list.
    Word,
    /// A name from outside, escaped.
    Name,
    /// Wall-clock time.
    Time,
    /// An address and a port.
    Address,
    /// A hexadecimal number.
    Hex,
    /// States in order, each with how long it lasted.
    States,
    /// Numbers by word.
    Counts,
    /// A sentence: text that is safe to print.
    Text,
    /// Several of them.
    Texts,
    /// Several whole numbers.
    Numbers,
    /// What a rule compares, by name: numbers, truths and nulls.
    Figures,
    /// Whom a finding is about.
    Subject,
    /// Lines of evidence, each with where it is from.
    Lines,
    /// Connections that show what a finding says.
    Examples,
    /// Whole numbers by word.
    Tally,
    /// Names with unit and meaning.
    Described,
    /// A row of another kind.
    Object,
}

/// The same field, but nullable.
#[expect(clippy::needless_pass_by_value, reason = "the one that is given is used up: there is no other of this name")]
const fn or_null<R>(field: Field<R>) -> Field<R> {
    Field { nullable: true, ..field }
}

/// The value of a field, before a format writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'r> {
    /// Unknown, or there is none.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    U64(u64),
    /// A number, written with 4 decimal places.
    Real(f64),
    /// A word from a fixed list: printable ASCII without quotes, backslashes, commas or semicolons.
    Word(&'static str),
    /// A name that a process chose for itself: any bytes.
    Name(&'r [u8]),
    /// A time, in ns since the Unix epoch.
    Time(i64),
    /// An address and a port; a link-local address with the index of its interface, if that is known.
    Address(SocketAddr),
    /// The same with the name of that interface: ASCII that needs no escaping.
    Zoned(SocketAddr, &'r str),
    /// A number written in lower-case hexadecimal without a prefix.
    Hex(u64),
    /// States in order, each with how long it lasted.
    States(&'r [Stay]),
    /// Numbers of lost events by cause.
    Counts(&'r [Lost]),
    /// Text that is safe to print.
    Text(&'r str),
    /// An array or an object; in CSV, its JSON.
    Tree(&'r serde_json::Value),
}

impl Value<'_> {
    fn number(value: Option<impl Into<u64>>) -> Self {
        value.map_or(Self::Null, |number| Self::U64(number.into()))
    }

    fn real(value: Option<f64>) -> Self {
        value.map_or(Self::Null, Self::Real)
    }

    fn word(word: Option<&'static str>) -> Self {
        word.map_or(Self::Null, Self::Word)
    }
}

impl<'r> Value<'r> {
    fn name(name: Option<&'r [u8]>) -> Self {
        name.map_or(Self::Null, Self::Name)
    }
}

/// A row of a stream: of `watch` or of `connections`.
pub trait Streamed: Identified + Sized + 'static {
    /// The name of such rows.
    const KIND: &'static str;

    /// The fields of every row, and those of stuck or open sockets.
    fn fields() -> [&'static [Field<Self>]; 2];

    /// When it happened, in ns of `CLOCK_BOOTTIME`.
    fn boot_ns(&self) -> u64;
}

/// An empty name means that it is unknown.
fn name(task: Option<&Task>) -> Value<'_> {
    Value::name(task.map(|task| task.comm.bytes()).filter(|name| !name.is_empty()))
}
