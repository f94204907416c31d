//! What every row consists of: name, unit, meaning and value of each field, in order.
//!
//! These tables are the only definition of JSON and CSV. Fields may be added; none is ever renamed, moved in meaning or
//! dropped. The fields of a socket that stays as it is follow those of its row: always in CSV, in JSON on such rows only.

mod audit;
mod connection;
mod counter;
mod feature;
mod identity;
mod loss;
mod report;
mod snapshot;
mod stuck;
#[cfg(test)]
mod tests;
mod transition;

use std::net::SocketAddr;

use crate::model::row::Stay;
use crate::model::stream::Context;
use crate::model::tcp::Task;

pub use self::audit::{AUDIT_FIELDS, AUDITED_FIELDS};
pub use self::connection::{CONNECTION_FIELDS, STUCK_CONNECTION_FIELDS};
pub use self::counter::{COUNTER_FIELDS, UNSEEN_FIELDS};
pub use self::feature::FEATURE_FIELDS;
pub use self::identity::Identified;
pub(crate) use self::identity::address;
pub(super) use self::identity::zone;
pub use self::loss::LOSS_FIELDS;
pub use self::report::{
    REPORT_BUCKET_FIELDS, REPORT_CHURN_FIELDS, REPORT_COUNT_FIELDS, REPORT_COUNTER_FIELDS, REPORT_DAMAGE_FIELDS,
    REPORT_FAILURE_FIELDS, REPORT_FIELDS, REPORT_GROUP_FIELDS, REPORT_HOST_FIELDS, REPORT_LOSS_FIELDS,
    REPORT_OPEN_FIELDS, REPORT_POINT_FIELDS, REPORT_SLOWEST_FIELDS, REPORT_STATE_FIELDS,
};
pub use self::snapshot::{COUNT_FIELDS, SOCKET_FIELDS};
pub use self::stuck::MayBeStuck;
pub use self::transition::{STUCK_TRANSITION_FIELDS, TRANSITION_FIELDS};

/// One field of a row.
pub struct Field<R> {
    /// Its name in JSON and CSV.
    pub name: &'static str,
    /// The unit or notation of its value; empty for words, names and plain numbers.
    pub unit: &'static str,
    /// What kind of value it has.
    pub shape: Shape,
    /// What it means, and when it is null: one that never is does not speak of it.
    pub doc: &'static str,
    /// Takes it from a row.
    pub value: for<'r> fn(&'r R, &'r Context) -> Value<'r>,
}

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// True or false.
    Bool,
    /// A whole number, not negative.
    Number,
    /// A number with at most 4 decimal places, not negative.
    Real,
    /// One of our own words.
    Word,
    /// A name that somebody else chose, escaped.
    Name,
    /// Wall-clock time.
    Time,
    /// An address and a port.
    Address,
    /// A hexadecimal number.
    Hex,
    /// States in order, each with how long it lasted.
    States,
}

impl<R> Field<R> {
    /// Whether it may be null.
    pub fn is_nullable(&self) -> bool {
        self.doc.to_ascii_lowercase().contains("null")
    }
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
    /// A number of which 4 decimal places are written.
    Real(f64),
    /// One of our own words: printable ASCII without quotes, backslashes, commas or semicolons.
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
    /// What such rows are called.
    const KIND: &'static str;

    /// Its fields, and those that only a socket has that stays as it is.
    fn fields() -> [&'static [Field<Self>]; 2];

    /// When it happened, in ns of `CLOCK_BOOTTIME`.
    fn boot_ns(&self) -> u64;
}

/// A name that is empty is one that was not known.
fn name(task: Option<&Task>) -> Value<'_> {
    Value::name(task.map(|task| task.comm.bytes()).filter(|name| !name.is_empty()))
}
