//! Parquet files, read by the library that wrote them.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use super::super::table::ROW_GROUP;
use super::*;
use crate::model::row::Transition;
use crate::model::stream::Context;
use crate::output::columns::{Kind, columns};
use crate::output::fields::{CONNECTION, Streamed, TRANSITION};

fn parquet<R: Streamed>(rows: &[R], context: &Context) -> (Exported, Bytes) {
    let mut table = Table::new(Vec::new(), &origin()).expect("a table");
    rows.iter().try_for_each(|row| table.push(row, context)).expect("rows");
    let (written, file) = table.finish().expect("an end");
    (written, file.into())
}

pub(super) fn read(file: Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .expect("Parquet");
    reader.collect::<Result<_, _>>().expect("rows")
}

/// A row of a table in the form of its JSON row, without the columns that JSON does not have.
fn json_of<R: Streamed>(batch: &RecordBatch, row: usize) -> BTreeMap<String, Value> {
    let columns = columns::<R>();
    let values = columns.iter().zip(batch.columns()).map(|(column, cells)| {
        (
            column.name.to_string(),
            if cells.is_null(row) { Value::Null } else { value(column.kind, cells.as_ref(), row) },
        )
    });
    values.collect()
}

fn value(kind: Kind, cells: &dyn Array, row: usize) -> Value {
    match kind {
        Kind::Bool => json!(cells.as_boolean().value(row)),
        Kind::Int => json!(cells.as_primitive::<Int64Type>().value(row)),
        Kind::Real => json!(cells.as_primitive::<Float64Type>().value(row)),
        Kind::Text => json!(cells.as_string::<i32>().value(row)),
        Kind::Time => json!(cells.as_primitive::<TimestampMicrosecondType>().value(row)),
        Kind::States => {
            let states = cells.as_list::<i32>().value(row);
            let states = states.as_struct();
            let part = |part: usize, kind, row| match states.column(part) {
                cells if cells.is_null(row) => Value::Null,
                cells => value(kind, cells.as_ref(), row),
            };
            let stay = |row| json!({ "state": part(0, Kind::Text, row), "ns": part(1, Kind::Int, row), "at_least": part(2, Kind::Bool, row) });
            (0..states.len()).map(stay).collect()
        }
    }
}

/// A row has the same values in Parquet and in JSON, times to the nanosecond.
fn assert_equal<R: Streamed>(lines: &[Value], batches: &[RecordBatch]) {
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| json_of::<R>(batch, row)));
    let mut compared = 0;
    for (line, row) in lines.iter().zip(rows) {
        let line = line.as_object().expect("an object");
        for (name, expected) in line {
            match row.get(&format!("{name}_unix_ns")) {
                Some(Value::Null) => assert_eq!(*expected, Value::Null, "{name}"),
                Some(ns) => {
                    let ns = ns.as_i64().expect("a number");
                    let time: jiff::Timestamp = expected.as_str().expect("a time").parse().expect("RFC 3339");
                    assert_eq!(i128::from(ns), time.as_nanosecond(), "{name}");
                    assert_eq!(row[name], json!(ns.div_euclid(1_000)), "{name}");
                }
                None => assert_eq!(row[name], *expected, "{name}"),
            }
        }
        let unknown = row.iter().filter(|(name, _)| !line.contains_key(*name)).filter(|(name, value)| {
            !value.is_null()
                && *name != "boot_id"
                && !["_unix_ns", "_ip", "_port"].iter().any(|end| name.ends_with(end))
        });
        assert_eq!(unknown.count(), 0, "{row:?}");
        compared += 1;
    }
    assert_eq!(compared, lines.len());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), lines.len());
}

#[test]
fn parquet_says_what_json_says() {
    let transitions = samples::transitions();
    let expected =
        lines(|out| transitions.iter().try_for_each(|row| out.object(&TRANSITION, row, &CONTEXT)).expect("written"));
    assert_equal::<Transition>(&expected, &read(parquet(&transitions, &CONTEXT).1));
    let connections = samples::connections();
    let expected =
        lines(|out| connections.iter().try_for_each(|row| out.object(&CONNECTION, row, &CONTEXT)).expect("written"));
    assert_equal::<Connection>(&expected, &read(parquet(&connections, &CONTEXT).1));
}

#[test]
fn an_address_is_taken_apart() {
    let row = json_of::<Connection>(&read(parquet(&samples::connections()[1..2], &CONTEXT).1)[0], 0);
    assert_eq!(row["local"], samples::LONG_LOCAL);
    assert_eq!([&row["local_ip"], &row["remote_ip"]], ["2001:db8:1234:5678:9abc:def0:1234:5678", "::1"]);
    assert_eq!([&row["local_port"], &row["remote_port"]], [45_678, 80]);
}

/// The text of both has the interface of a link-local address; the column of the IP address has not.
#[test]
fn an_address_with_an_interface_is_taken_apart() {
    let rows: Vec<Connection> = samples::connections().into_iter().filter(|row| row.identity.interface != 0).collect();
    let rows = read(parquet(&rows, &CONTEXT).1);
    let ends = [0, 1].map(|place| json_of::<Connection>(&rows[0], place));
    assert_eq!(ends.each_ref().map(|row| &row["local"]), ["[fe80::1%eth0]:45678", "[fe80::1%3]:45678"]);
    for row in ends {
        assert_eq!((&row["local_ip"], &row["remote_port"]), (&"fe80::1".into(), &443.into()));
    }
}

#[test]
fn many_rows_are_several_row_groups() {
    let rows: Vec<Connection> = std::iter::repeat_n(samples::connection(), ROW_GROUP + 5_000).collect();
    let (written, file) = parquet(&rows, &CONTEXT);
    assert_eq!(written.rows, rows.len() as u64);
    let reader = SerializedFileReader::new(file.clone()).expect("Parquet");
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(groups, [ROW_GROUP as i64, 5_000]);
    assert_eq!(read(file).iter().map(RecordBatch::num_rows).sum::<usize>(), rows.len());
}

#[test]
fn a_file_describes_itself() {
    let (_, file) = parquet(&samples::connections(), &CONTEXT);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("Parquet");
    let field = reader.schema().field_with_name("time_wait_ns").expect("a column");
    assert_eq!(field.metadata()["unit"], "ns");
    assert!(field.metadata()["description"].starts_with("Time in TIME_WAIT"));
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let entries = reader.metadata().file_metadata().key_value_metadata().expect("metadata");
    let entries: HashMap<&str, &str> =
        entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_deref().expect("a value"))).collect();
    assert_eq!(entries["tcptrace.host"], "web-1");
    assert_eq!(entries["tcptrace.kernel"], "6.18.44");
    assert_eq!(entries["tcptrace.rows"], "connections");
    assert_eq!(entries["tcptrace.version"], env!("CARGO_PKG_VERSION"));
    let columns: Vec<Value> = serde_json::from_str(entries["tcptrace.columns"]).expect("JSON");
    assert_eq!(columns.len(), reader.metadata().file_metadata().schema_descr().root_schema().get_fields().len());
}

/// Words and names are stored once, times as differences.
#[test]
fn columns_are_stored_compactly() {
    let (_, file) = parquet(&samples::connections(), &CONTEXT);
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let group = reader.metadata().row_group(0);
    let has = |name: &str, encoding: Encoding| {
        let column = group.columns().iter().find(|column| column.column_path().string() == name).expect("a column");
        column.encodings().any(|found| found == encoding)
    };
    for name in ["closer", "end", "comm", "remote_ip", "states.list.element.state"] {
        assert!(has(name, Encoding::RLE_DICTIONARY), "{name}");
    }
    for name in ["boot_ns", "closed", "closed_unix_ns", "time_wait_ns", "states.list.element.ns"] {
        assert!(has(name, Encoding::DELTA_BINARY_PACKED), "{name}");
    }
    assert!(!has("conn", Encoding::RLE_DICTIONARY));
}

#[test]
fn what_does_not_fit_is_left_out_and_counted() {
    let stays = vec![Stay { state: State::Established, held: Held::Exactly(u64::MAX) }];
    let rows = [Connection { stays, ..samples::connection() }];
    let (written, file) = parquet(&rows, &CONTEXT);
    // Among the states, and as established_ns.
    assert_eq!(written.too_large, 2);
    let row = json_of::<Connection>(&read(file)[0], 0);
    assert_eq!(row["established_ns"], Value::Null);
    assert_eq!(row["states"], json!([{ "state": "ESTABLISHED", "ns": null, "at_least": false }]));
}

proptest! {
    #[test]
    fn any_row_comes_back(rows in prop::collection::vec(any_connection(), 1..20)) {
        let (written, file) = parquet(&rows, &CONTEXT);
        let expected = lines(|out| rows.iter().try_for_each(|row| out.object(&CONNECTION, row, &CONTEXT)).expect("written"));
        let batches = read(file);
        if written.too_large == 0 {
            assert_equal::<Connection>(&expected, &batches);
        }
        prop_assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows.len());
    }
}
