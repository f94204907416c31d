//! Columns for formats in which every column has one type, such as Parquet.
//!
//! Most fields are one column of the same name. A time is two, because readers that keep microseconds only (Spark, up to
//! 4.3 at least) refuse a timestamp in ns: the timestamp, cut to µs, and the whole number of ns. An address is three, so
//! that one can group by the IP address or the port.

use std::borrow::Cow;

use super::fields::{Field, Shape, Streamed};
use crate::model::named;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The type of its values. Any may be null.
    pub kind: Kind,
    /// Their unit or notation; empty for words, names and plain numbers.
    pub unit: &'static str,
    /// What they mean.
    pub doc: Cow<'static, str>,
    /// How much its values repeat.
    pub spread: Spread,
}

named! {
    /// The type of a column.
    Kind {
        /// True or false.
        Bool = "BOOLEAN",
        /// A whole number of 64 bits with a sign, which every reader has.
        Int = "INT64",
        /// A number with a fraction, of 64 bits.
        Real = "DOUBLE",
        /// UTF-8.
        Text = "STRING",
        /// Microseconds since the Unix epoch, as a time in UTC.
        Time = "TIMESTAMP(MICROS,UTC)",
        /// A list of structs of `state`, `ns` and `at_least`.
        States = "LIST<STRUCT<state STRING, ns INT64, at_least BOOLEAN>>",
    }
}

/// How much the values of a column repeat, which decides how to store them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Few values that repeat.
    Few,
    /// Numbers that rarely repeat, often near the one before.
    Near,
    /// Values that rarely repeat.
    Many,
}

/// The first column. Ids of connections are only unique within one boot.
pub const BOOT_ID: Column = Column {
    name: Cow::Borrowed("boot_id"),
    kind: Kind::Text,
    unit: "",
    doc: Cow::Borrowed("Id of the boot, as in /proc/sys/kernel/random/boot_id. conn is unique within one boot."),
    spread: Spread::Few,
};

/// The columns that a reader takes from the folders of a data set.
pub const PARTITIONS: [(&str, &str); 3] = [
    ("kind", "Kind of rows: connections or transitions."),
    ("date", "Day of boot_ns in UTC."),
    ("host", "Name of the host, escaped as in comm."),
];

/// All columns of a kind of rows, in order.
pub fn columns<R: Streamed>() -> Vec<Column> {
    let fields = R::fields().into_iter().flatten();
    std::iter::once(BOOT_ID).chain(fields.flat_map(columns_of)).collect()
}

/// The columns of a field.
pub fn columns_of<R>(field: &Field<R>) -> Vec<Column> {
    let &Field { name, unit, doc, shape, .. } = field;
    let column = |kind, spread| Column { name: name.into(), kind, unit, doc: doc.into(), spread };
    let part = |suffix: &str, kind, unit, doc: &str, spread| Column {
        name: format!("{name}_{suffix}").into(),
        kind,
        unit,
        doc: format!("{doc} {name}.").into(),
        spread,
    };
    match shape {
        Shape::Bool => vec![column(Kind::Bool, Spread::Few)],
        Shape::Number if unit == "ns" => vec![column(Kind::Int, Spread::Near)],
        Shape::Number => vec![column(Kind::Int, Spread::Few)],
        Shape::Real => vec![column(Kind::Real, Spread::Many)],
        Shape::Text
        | Shape::Texts
        | Shape::Numbers
        | Shape::Figures
        | Shape::Subject
        | Shape::Lines
        | Shape::Examples
        | Shape::Tally
        | Shape::Described
        | Shape::Object => vec![column(Kind::Text, Spread::Many)],
        Shape::Word | Shape::Name | Shape::Counts => vec![column(Kind::Text, Spread::Few)],
        Shape::Hex => vec![column(Kind::Text, Spread::Many)],
        Shape::States => vec![column(Kind::States, Spread::Few)],
        Shape::Time => vec![
            Column { unit: "us", ..column(Kind::Time, Spread::Near) },
            part("unix_ns", Kind::Int, "ns", "Nanoseconds since the Unix epoch:", Spread::Near),
        ],
        Shape::Address => vec![
            column(Kind::Text, Spread::Few),
            part("ip", Kind::Text, "", "The address of", Spread::Few),
            part("port", Kind::Int, "", "The port of", Spread::Few),
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::row::{Connection, Transition};

    fn assert_sound<R: Streamed>() {
        let columns = columns::<R>();
        let names: HashSet<&str> = columns.iter().map(|column| column.name.as_ref()).collect();
        assert_eq!(names.len(), columns.len(), "names are unique");
        assert!(PARTITIONS.iter().all(|(name, _)| !names.contains(name)), "a partition has the name of a column");
        assert!(columns.iter().all(|column| column.doc.ends_with('.')));
        for field in R::fields().into_iter().flatten() {
            assert!(names.contains(field.name), "{} is no column", field.name);
        }
    }

    #[test]
    fn every_field_is_a_column() {
        assert_sound::<Transition>();
        assert_sound::<Connection>();
    }

    #[test]
    fn names_and_types_are_a_contract() {
        let line = |column: &Column| format!("{} {}", column.name, column.kind.as_str());
        let lines: Vec<String> = columns::<Connection>().iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        boot_id STRING
        event STRING
        opened TIMESTAMP(MICROS,UTC)
        opened_unix_ns INT64
        closed TIMESTAMP(MICROS,UTC)
        closed_unix_ns INT64
        boot_ns INT64
        conn STRING
        protocol STRING
        family STRING
        local STRING
        local_ip STRING
        local_port INT64
        remote STRING
        remote_ip STRING
        remote_port INT64
        netns INT64
        pid INT64
        tid INT64
        comm STRING
        uid INT64
        cgroup STRING
        owner_source STRING
        side STRING
        closer STRING
        end STRING
        states LIST<STRUCT<state STRING, ns INT64, at_least BOOLEAN>>
        established_ns INT64
        close_wait_ns INT64
        time_wait_ns INT64
        time_wait_end STRING
        bytes_sent INT64
        bytes_received INT64
        bytes_unread INT64
        retransmits INT64
        srtt_us INT64
        close_pid INT64
        close_tid INT64
        close_comm STRING
        complete BOOLEAN
        netns_name STRING
        cgroup_id INT64
        container STRING
        unit STRING
        in_flight BOOLEAN
        retransmits_unanswered INT64
        reset_received BOOLEAN
        idle_before_close_ns INT64
        pod STRING
        pod_namespace STRING
        container_name STRING
        state STRING
        age_ns INT64
        age_at_least BOOLEAN
        holder_pid INT64
        holder_comm STRING
        fd INT64
        holders INT64
        accepted BOOLEAN
        listener_pid INT64
        listener_comm STRING
        bytes_unacked INT64
        bytes_since INT64
        mptcp_subflow BOOLEAN
        mptcp_token STRING
        mptcp_state STRING
        ");
    }
}
