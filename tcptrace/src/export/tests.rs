//! What is exported, read back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::lifecycle::{Connection, Held, Identity, Owner, Row, Stay, Transition};
use crate::output::columns::{Kind, columns};
use crate::output::fields::Streamed;
use crate::output::samples::{self, CONTEXT};
use crate::output::{Context, Json, Printer};
use crate::tcp::{Comm, OwnerSource, State, Task};

/// A folder of a test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// Every file below it, hidden ones too.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&self.0).expect("below").to_str().expect("UTF-8").to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn origin() -> Origin {
    Origin {
        number: 0,
        host: "web-1".into(),
        kernel: "6.18.44".into(),
        boot_id: "6ad8fcbd-34df-42d5-bc33-d4b3a4e7d1a9".into(),
        context: CONTEXT.clone(),
    }
}

/// Anything that a trace can hold.
pub(super) fn any_connection() -> impl Strategy<Value = Connection> {
    let held = prop_oneof![any::<u64>().prop_map(Held::AtLeast), (0..1_u64 << 40).prop_map(Held::Exactly)];
    let stay = (0..State::ALL.len(), held).prop_map(|(state, held)| Stay { state: State::ALL[state], held });
    let stays = prop::collection::vec(stay, 0..6);
    let owner = any::<Option<(u32, [u8; 16])>>();
    (any::<(u64, Option<u64>, u64)>(), stays, owner, 0..samples::connections().len()).prop_map(
        |((conn, opened_ns, closed_ns), stays, owner, sample)| {
            let base = samples::connections().swap_remove(sample);
            let owner = owner
                .map(|(pid, comm)| Owner { task: Task { pid, tid: pid, comm: Comm(comm) }, source: OwnerSource::Scan });
            let identity = Identity { conn, owner, ..base.identity };
            Connection { identity, opened_ns, closed_ns, stays, ..base }
        },
    )
}

fn parquet<R: Streamed>(rows: &[R], context: &Context) -> (Exported, Bytes) {
    let mut table = Table::new(Vec::new(), &origin()).expect("a table");
    rows.iter().try_for_each(|row| table.push(row, context)).expect("rows");
    let (written, file) = table.finish().expect("an end");
    (written, file.into())
}

fn read(file: Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .expect("Parquet");
    reader.collect::<Result<_, _>>().expect("rows")
}

/// A row of a table as the printer of JSON has it; columns that JSON has not are left out.
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

fn lines(write: impl FnOnce(&mut Json<&mut Vec<u8>>)) -> Vec<Value> {
    let mut lines = Vec::new();
    write(&mut Json::new(&mut lines));
    let lines = String::from_utf8(lines).expect("UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What Parquet says of a row is what JSON says of it; times are compared to the nanosecond.
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
    let expected = lines(|out| transitions.iter().try_for_each(|row| out.transition(row, &CONTEXT)).expect("written"));
    assert_equal::<Transition>(&expected, &read(parquet(&transitions, &CONTEXT).1));
    let connections = samples::connections();
    let expected = lines(|out| connections.iter().try_for_each(|row| out.connection(row, &CONTEXT)).expect("written"));
    assert_equal::<Connection>(&expected, &read(parquet(&connections, &CONTEXT).1));
}

#[test]
fn an_address_is_taken_apart() {
    let row = json_of::<Connection>(&read(parquet(&samples::connections()[1..2], &CONTEXT).1)[0], 0);
    assert_eq!(row["local"], samples::LONG_LOCAL);
    assert_eq!([&row["local_ip"], &row["remote_ip"]], ["2001:db8:1234:5678:9abc:def0:1234:5678", "::1"]);
    assert_eq!([&row["local_port"], &row["remote_port"]], [45_678, 80]);
}

#[test]
fn many_rows_are_several_row_groups() {
    let rows: Vec<Connection> = std::iter::repeat_n(samples::connection(), table::ROW_GROUP + 5_000).collect();
    let (written, file) = parquet(&rows, &CONTEXT);
    assert_eq!(written.rows, rows.len() as u64);
    let reader = SerializedFileReader::new(file.clone()).expect("Parquet");
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(groups, [table::ROW_GROUP as i64, 5_000]);
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
        let expected = lines(|out| rows.iter().try_for_each(|row| out.connection(row, &CONTEXT)).expect("written"));
        let batches = read(file);
        if written.too_large == 0 {
            assert_equal::<Connection>(&expected, &batches);
        }
        prop_assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows.len());
    }

    /// Whatever is in a trace, the result is JSON, each slice ends, and nothing ends before it begins.
    #[test]
    fn any_row_makes_sound_events(rows in prop::collection::vec(any_connection(), 0..20), host: String) {
        let origin = Origin { host: host.into(), ..origin() };
        let trace = perfetto(&rows, &[origin]);
        assert_sound(&trace);
        prop_assert_eq!(trace["traceEvents"].as_array().expect("events").is_empty(), rows.is_empty());
    }
}

fn perfetto(rows: &[Connection], origins: &[Origin]) -> Value {
    serde_json::from_slice(&perfetto_text(rows, origins)).expect("JSON")
}

fn perfetto_text(rows: &[Connection], origins: &[Origin]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut perfetto = Perfetto::new(&mut out);
    for (row, origin) in rows.iter().zip(origins.iter().cycle()) {
        perfetto.row(&Row::Connection(row.clone()), origin).expect("written");
    }
    let hosts = origins.iter().map(|origin| origin.host.clone()).collect();
    let lost = vec![("ring full".into(), 3)];
    let exported = perfetto.finish(&Summary { hosts, lost, ..Summary::default() }).expect("written");
    assert_eq!(exported.rows, rows.len() as u64);
    out
}

/// What the format asks for, and what a reader makes of it: of each asynchronous track a stack of slices.
fn assert_sound(trace: &Value) {
    let mut stacks: HashMap<(u64, String), Vec<(String, f64)>> = HashMap::new();
    let mut introduced = std::collections::HashSet::new();
    for event in trace["traceEvents"].as_array().expect("events") {
        let pid = event["pid"].as_u64().expect("a process");
        assert!(pid > 0 && u32::try_from(pid).is_ok());
        let name = event["name"].as_str().expect("a name");
        let phase = event["ph"].as_str().expect("a phase");
        assert!(event["args"].is_object());
        if phase == "M" {
            assert_eq!(name, "process_name");
            assert!(event["args"]["name"].is_string());
            assert!(introduced.insert(pid), "introduced twice");
            continue;
        }
        assert!(introduced.contains(&pid), "not introduced");
        assert_eq!(event["cat"], "tcp");
        let ts = event["ts"].as_f64().expect("a time");
        assert!(ts >= 0.0);
        let stack = stacks.entry((pid, event["id"].as_str().expect("an id").to_owned())).or_default();
        match phase {
            "b" => {
                assert!(stack.last().is_none_or(|(_, begin)| *begin <= ts));
                stack.push((name.to_owned(), ts));
            }
            "e" => {
                let (begun, at) = stack.pop().expect("begun");
                assert!(begun == name && at <= ts, "{begun} at {at} ends as {name} at {ts}");
            }
            "n" => assert!(!stack.is_empty()),
            other => unreachable!("phase {other}"),
        }
    }
    assert!(stacks.values().all(Vec::is_empty), "not ended: {stacks:?}");
    assert!(trace["otherData"]["version"].as_str().expect("a version").starts_with("tcptrace "));
}

#[test]
fn a_connection_is_a_stack_of_slices() {
    let rows = [samples::connection()];
    let text = String::from_utf8(perfetto_text(&rows, &[origin()])).expect("UTF-8");
    assert_sound(&serde_json::from_str(&text).expect("JSON"));
    let arguments = String::from_utf8({
        let mut line = Vec::new();
        Json::new(&mut line).connection(&rows[0], &CONTEXT).expect("written");
        line
    });
    let text = text.replace(arguments.expect("UTF-8").trim_end(), "{…}");
    insta::assert_snapshot!(text, @r#"
    {"traceEvents":[
    {"name":"process_name","ph":"M","pid":1,"args":{"name":"curl[4242] on web-1"}},
    {"name":"client of 10.0.0.2:443","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651046000000.000,"args":{…}},
    {"name":"SYN_SENT","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651046000000.000,"args":{"at_least":false,"ns":400000}},
    {"name":"SYN_SENT","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651046000400.000,"args":{}},
    {"name":"ESTABLISHED","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651046000400.000,"args":{"at_least":false,"ns":1200000000}},
    {"name":"ESTABLISHED","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651047200400.000,"args":{}},
    {"name":"FIN_WAIT1","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651047200400.000,"args":{"at_least":false,"ns":100000}},
    {"name":"FIN_WAIT1","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651047200500.000,"args":{}},
    {"name":"FIN_WAIT2","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651047200500.000,"args":{"at_least":false,"ns":2000000000}},
    {"name":"FIN_WAIT2","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651049200500.000,"args":{}},
    {"name":"TIME_WAIT","cat":"tcp","ph":"b","id":"0-a1b2","pid":1,"tid":1,"ts":8651049200500.000,"args":{"at_least":false,"ns":61300000000}},
    {"name":"TIME_WAIT","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651110500500.000,"args":{}},
    {"name":"client of 10.0.0.2:443","cat":"tcp","ph":"e","id":"0-a1b2","pid":1,"tid":1,"ts":8651110500500.000,"args":{}}
    ],"otherData":{"damaged_places":0,"events_lost":{"ring full":3},"hosts":["web-1"],"version":"tcptrace 0.1.0","zero_unix_ns":1727136000000000000}}
    "#);
}

#[test]
fn a_reset_is_an_instant() {
    let rows = samples::connections();
    let trace = perfetto(&rows, &[origin()]);
    let instants = trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "n");
    assert_eq!(
        instants.map(|event| event["name"].as_str()).collect::<Vec<_>>(),
        [Some("reset_unread_data"), Some("reset_received")]
    );
}

#[test]
fn hosts_and_processes_do_not_clash() {
    let other = Origin { number: 1, host: "web-2".into(), ..origin() };
    let unknown = Connection { identity: samples::strange_identity(), ..samples::connection() };
    let rows = [samples::connection(), samples::connection(), unknown.clone(), unknown, samples::connection()];
    let trace = perfetto(&rows, &[origin(), other]);
    assert_sound(&trace);
    let named = trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "M");
    let named: Vec<_> =
        named.map(|event| (event["pid"].as_u64(), event["args"]["name"].as_str().expect("a name"))).collect();
    let expected = [
        (Some(1), "curl[4242] on web-1"),
        (Some(2), "curl[4242] on web-2"),
        (Some(3), "no owner on web-1"),
        (Some(4), "no owner on web-2"),
    ];
    assert_eq!(named, expected);
}

const DAY: u64 = 86_400 * 1_000_000_000;

fn closed_at(closed_ns: u64) -> Connection {
    Connection { closed_ns, opened_ns: None, ..samples::connection() }
}

/// 2025-01-02T03:04:05Z at boot.
fn export(to: &Path, rows: &[Connection], origins: &[Origin], replace: bool) -> Result<Exported> {
    let mut dataset = Dataset::<Connection>::new(to, replace)?;
    for (row, origin) in rows.iter().zip(origins.iter().cycle()) {
        dataset.row(&Row::Connection(row.clone()), origin)?;
    }
    dataset.finish(&Summary::default())
}

#[test]
fn a_data_set_has_a_file_for_each_day_and_host() {
    let scratch = Scratch::new("days");
    let other = Origin { number: 1, host: "a/b=c".into(), ..origin() };
    let rows = [closed_at(1), closed_at(2), closed_at(DAY), closed_at(DAY + 1), closed_at(DAY + 2)];
    let exported = export(&scratch.0, &rows, &[origin(), other], false).expect("exported");
    assert_eq!((exported.rows, exported.files), (5, 4));
    let expected = [
        "kind=connections/date=2025-01-02/host=a%2Fb%3Dc/part-6ad8fcbd-2-a1b2.parquet",
        "kind=connections/date=2025-01-02/host=web-1/part-6ad8fcbd-1-a1b2.parquet",
        "kind=connections/date=2025-01-03/host=a%2Fb%3Dc/part-6ad8fcbd-86400000000001-a1b2.parquet",
        "kind=connections/date=2025-01-03/host=web-1/part-6ad8fcbd-86400000000000-a1b2.parquet",
    ];
    assert_eq!(scratch.files(), expected);
    let file = scratch.0.join(expected[3]);
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let batches = read(fs::read(file).expect("a file").into());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[test]
fn a_second_trace_adds_and_the_same_one_does_not() {
    let scratch = Scratch::new("second");
    let first = [closed_at(1), closed_at(DAY)];
    export(&scratch.0, &first, &[origin()], false).expect("exported");
    let error = export(&scratch.0, &first, &[origin()], false).expect_err("it is there");
    assert!(format!("{error:#}").contains("--force"), "{error:#}");
    assert_eq!(scratch.files().len(), 2);
    // The first file would be new, the second is not: neither is written.
    export(&scratch.0, &[closed_at(0), closed_at(DAY)], &[origin()], false).expect_err("it is there");
    assert_eq!(scratch.files().len(), 2, "{:?}", scratch.files());
    let before = fs::metadata(scratch.0.join(&scratch.files()[0])).expect("a file");
    export(&scratch.0, &first, &[origin()], true).expect("replaced");
    let after = fs::metadata(scratch.0.join(&scratch.files()[0])).expect("a file");
    assert_ne!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
    export(&scratch.0, &[closed_at(2), closed_at(3)], &[origin()], false).expect("added");
    assert_eq!(scratch.files().len(), 3, "{:?}", scratch.files());
}

#[test]
fn what_is_not_finished_is_not_there() {
    let scratch = Scratch::new("unfinished");
    let mut dataset = Dataset::<Connection>::new(&scratch.0, false).expect("a folder");
    dataset.push(&closed_at(1), &origin()).expect("a row");
    dataset.push(&closed_at(DAY), &origin()).expect("a row");
    let files = scratch.files();
    let hidden =
        |file: &String| file.rsplit('/').next().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
    assert!(files.len() == 2 && files.iter().all(hidden), "{files:?}");
    drop(dataset);
    assert_eq!(scratch.files(), [""; 0]);
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new("links");
    let (elsewhere, data) = (scratch.0.join("elsewhere"), scratch.0.join("data"));
    fs::create_dir(&elsewhere).expect("a folder");
    symlink(&elsewhere, &data).expect("a link");
    export(&data, &[closed_at(1)], &[origin()], true).expect_err("a link");
    export(&data.join(""), &[closed_at(1)], &[origin()], true).expect_err("a link, with a slash");
    fs::remove_file(&data).expect("removed");
    fs::create_dir_all(data.join("kind=connections")).expect("folders");
    symlink(&elsewhere, data.join("kind=connections/date=2025-01-02")).expect("a link");
    export(&data, &[closed_at(1)], &[origin()], true).expect_err("a link below");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 0);
}

#[test]
fn a_file_is_replaced_only_when_told_to() {
    use std::io::Write;
    let scratch = Scratch::new("file");
    let path = scratch.0.join("trace.json");
    let write = |text: &str, replace| -> Result<()> {
        let (draft, mut file) = Draft::begin_at(&path, replace)?;
        file.write_all(text.as_bytes())?;
        draft.publish(replace)
    };
    write("one", false).expect("written");
    write("two", false).expect_err("it exists");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "one");
    write("three", true).expect("replaced");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "three");
    // Somebody else makes one while it is written.
    fs::remove_file(&path).expect("removed");
    let (draft, _) = Draft::begin_at(&path, false).expect("begun");
    fs::write(&path, "theirs").expect("written");
    draft.publish(false).expect_err("it exists");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "theirs");
    // What a link leads to is left alone.
    let target = scratch.0.join("target");
    fs::write(&target, "target").expect("written");
    fs::remove_file(&path).expect("removed");
    symlink(&target, &path).expect("a link");
    write("four", false).expect_err("it exists");
    write("four", true).expect("replaced");
    assert_eq!([&target, &path].map(|path| fs::read_to_string(path).expect("a file")), ["target", "four"]);
    assert_eq!(scratch.files(), ["target", "trace.json"]);
}
