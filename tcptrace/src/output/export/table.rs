//! Rows of one kind and one recording, as one Parquet file.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::Exported;
use super::cells::{Cells, data_type};
use crate::model::stream::{Context, Origin};
use crate::output::columns::{Column, Kind, Spread, columns, columns_of};
use crate::output::fields::{Field, Streamed, Value};
use crate::output::{render, sanitise};

/// Rows per call of the encoder.
const BATCH: usize = 4096;

/// Rows per row group, which a reader can skip or read alone.
pub(super) const ROW_GROUP: usize = 64 * 1024;

/// Writes rows to a Parquet file. Its memory is that of a row group.
pub struct Table<R: Streamed, W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    boot_id: Box<str>,
    fields: Vec<Filled<R>>,
    cells: Vec<Cells>,
    /// Rows in `cells`.
    pending: usize,
    scratch: Vec<u8>,
    written: Exported,
}

/// A field, and which columns it fills.
struct Filled<R: 'static> {
    field: &'static Field<R>,
    columns: std::ops::Range<usize>,
}

impl<R: Streamed, W: Write + Send> Table<R, W> {
    /// Starts a file for the rows of a recording.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn new(out: W, origin: &Origin) -> Result<Self> {
        let columns = columns::<R>();
        let schema = Arc::new(schema(&columns));
        let options = ArrowWriterOptions::new().with_properties(properties::<R>(&columns, origin));
        let writer = ArrowWriter::try_new_with_options(out, Arc::clone(&schema), options);
        Ok(Self {
            writer: writer.context("cannot start a Parquet file")?,
            schema,
            boot_id: origin.boot_id.clone(),
            fields: filled(),
            cells: columns.iter().map(|column| Cells::new(column.kind, BATCH)).collect(),
            pending: 0,
            scratch: Vec::new(),
            written: Exported::default(),
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn push(&mut self, row: &R, context: &Context) -> Result<()> {
        if let Some(boot_id) = self.cells.first_mut() {
            boot_id.text(&sanitise(self.boot_id.as_bytes()));
        }
        for Filled { field, columns } in &self.fields {
            if let Some(cells) = self.cells.get_mut(columns.clone()) {
                self.written.too_large += fill(cells, (field.value)(row, context), &mut self.scratch);
            }
        }
        self.written.rows += 1;
        self.pending += 1;
        if self.pending == BATCH { self.encode() } else { Ok(()) }
    }

    /// Rows in memory that wait for the rest of their row group.
    pub(super) fn buffered(&self) -> usize {
        self.pending + self.writer.in_progress_rows()
    }

    /// Ends a row group before it is full.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.encode()?;
        self.writer.flush().context("cannot write a row group")
    }

    /// Writes the rest; returns what was written, and the writer.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn finish(mut self) -> Result<(Exported, W)> {
        self.encode()?;
        let out = self.writer.into_inner().context("cannot end a Parquet file")?;
        Ok((self.written, out))
    }

    fn encode(&mut self) -> Result<()> {
        if std::mem::take(&mut self.pending) == 0 {
            return Ok(());
        }
        let arrays = self.cells.iter_mut().map(Cells::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).context("rows do not fit their schema")?;
        self.writer.write(&batch).context("cannot write rows")
    }
}

fn filled<R: Streamed>() -> Vec<Filled<R>> {
    // The first column is the boot.
    let mut next = 1;
    let place = |field| {
        let first = next;
        next += columns_of(field).len();
        Filled { field, columns: first..next }
    };
    R::fields().into_iter().flatten().map(place).collect()
}

/// Appends the value of a field to its columns. Returns how many of its numbers were too large.
fn fill(cells: &mut [Cells], value: Value<'_>, scratch: &mut Vec<u8>) -> u64 {
    let [first, more @ ..] = cells else { return 0 };
    match value {
        Value::Null => {
            first.null();
            more.iter_mut().for_each(Cells::null);
        }
        Value::Bool(value) => first.bool(value),
        Value::U64(number) => match i64::try_from(number) {
            Ok(number) => first.int(number),
            Err(_) => {
                first.null();
                return 1;
            }
        },
        Value::Real(number) => first.real(number),
        Value::Word(word) => first.text(word),
        Value::Name(name) => first.text(&sanitise(name)),
        Value::Hex(number) => first.text(rendered(scratch, |to| render::hex(to, number))),
        Value::States(stays) => return first.states(stays),
        Value::Text(text) => first.text(text),
        Value::Tree(tree) => first.text(&tree.to_string()),
        Value::Counts(counts) => first.text(rendered(scratch, |to| render::counts(to, counts))),
        Value::Time(ns) => {
            first.micros(ns.div_euclid(1_000));
            more.iter_mut().for_each(|cells| cells.int(ns));
        }
        Value::Zoned(address, zone) => {
            first.text(rendered(scratch, |to| render::zoned(to, address, zone)));
            ip_and_port(more, address, scratch);
        }
        Value::Address(address) => {
            first.text(rendered(scratch, |to| render::address(to, address)));
            ip_and_port(more, address, scratch);
        }
    }
    0
}

/// The column of the IP address leaves out the interface.
fn ip_and_port(cells: &mut [Cells], address: SocketAddr, scratch: &mut Vec<u8>) {
    if let [ip, port] = cells {
        ip.text(rendered(scratch, |to| render::bare_ip(to, address.ip())));
        port.int(address.port().into());
    }
}

fn rendered(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> &str {
    scratch.clear();
    write(scratch);
    str::from_utf8(scratch).unwrap_or_default()
}

/// Every column may be null, as in SQL: an older trace may not know a value that is never null today.
fn schema(columns: &[Column]) -> Schema {
    let field = |column: &Column| {
        let metadata = [("description", column.doc.as_ref()), ("unit", column.unit)];
        let metadata = metadata.into_iter().filter(|(_, text)| !text.is_empty());
        arrow_schema::Field::new(column.name.as_ref(), data_type(column.kind), true)
            .with_metadata(metadata.map(|(key, text)| (key.to_owned(), text.to_owned())).collect::<HashMap<_, _>>())
    };
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

fn properties<R: Streamed>(columns: &[Column], origin: &Origin) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tcptrace ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_key_value_metadata(Some(metadata::<R>(columns, origin)));
    for column in columns {
        let path = ColumnPath::from(column.name.as_ref());
        properties = match column.spread {
            Spread::Few => properties,
            Spread::Many => properties.set_column_dictionary_enabled(path, false),
            Spread::Near => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
        };
    }
    for column in columns.iter().filter(|column| column.kind == Kind::States) {
        let path = ["list", "element", "ns"].map(str::to_owned);
        let path = ColumnPath::new([vec![column.name.to_string()], path.into()].concat());
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// Metadata of the file, besides the meaning of its columns.
fn metadata<R: Streamed>(columns: &[Column], origin: &Origin) -> Vec<KeyValue> {
    let describe = |column: &Column| serde_json::json!({ "name": column.name, "type": column.kind.as_str(), "unit": column.unit, "meaning": column.doc });
    let columns = serde_json::Value::from_iter(columns.iter().map(describe));
    let entries = [
        ("tcptrace.version", env!("CARGO_PKG_VERSION").into()),
        ("tcptrace.rows", R::KIND.into()),
        ("tcptrace.host", sanitise(origin.host.as_bytes())),
        ("tcptrace.kernel", sanitise(origin.kernel.as_bytes())),
        ("tcptrace.boot_id", sanitise(origin.boot_id.as_bytes())),
        ("tcptrace.columns", columns.to_string().into()),
    ];
    entries.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value.into_owned())).collect()
}
