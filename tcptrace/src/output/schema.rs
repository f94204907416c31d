//! Every field of every output: a table for people, a JSON Schema and CSV for programs.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::Format;
use super::columns::{Column, PARTITIONS, columns};
use super::fields::{Describe, Described, Shape, Streamed, TABLES};
use crate::model::row::{Connection, Transition};

/// The columns of a data set of `export --format parquet`, besides those in the names of its directories.
struct DataSet {
    command: String,
    columns: Vec<Column>,
}

fn data_sets() -> [DataSet; 2] {
    fn of<R: Streamed>() -> DataSet {
        DataSet { command: format!("export --format parquet --rows {}", R::KIND), columns: columns::<R>() }
    }
    [of::<Connection>(), of::<Transition>()]
}

/// Writes the fields of every output.
///
/// # Errors
/// Errors of the writer.
pub fn schema(mut out: impl Write, format: Format) -> io::Result<()> {
    match format {
        Format::Text => text(&mut out),
        Format::Json => writeln!(out, "{:#}", json_schema()),
        Format::Csv => csv(&mut out),
    }
}

fn text(out: &mut impl Write) -> io::Result<()> {
    let names = TABLES.iter().flat_map(|table| table.describe()).map(|field| field.name.len());
    let width = names.max().unwrap_or(0);
    for (place, table) in TABLES.iter().enumerate() {
        let gap = if place == 0 { "" } else { "\n" };
        writeln!(out, "{gap}tcptrace {}", table.name())?;
        for field in table.describe() {
            let kind = format!("{}{}", word(field.shape), if field.nullable { "?" } else { "" });
            writeln!(out, "  {:<width$}  {kind:<8}  {:<12}  {}", field.name, field.unit, field.doc)?;
        }
    }
    data_sets().iter().try_for_each(|set| text_of(out, set, width))
}

/// Every column may be null.
fn text_of(out: &mut impl Write, set: &DataSet, width: usize) -> io::Result<()> {
    writeln!(out, "\ntcptrace {}", set.command)?;
    for (name, doc) in PARTITIONS {
        writeln!(out, "  {name:<width$}  {:<21}  {:<4}  {doc}", "partition", "")?;
    }
    for column in &set.columns {
        let (kind, unit) = (column.kind.as_str(), column.unit);
        writeln!(out, "  {:<width$}  {kind:<21}  {unit:<4}  {}", column.name, column.doc)?;
    }
    Ok(())
}

fn csv(out: &mut impl Write) -> io::Result<()> {
    let mut out = ::csv::Writer::from_writer(out);
    out.write_record(["command", "name", "type", "nullable", "unit", "meaning"])?;
    for table in TABLES {
        for field in table.describe() {
            let nullable = if field.nullable { "true" } else { "false" };
            out.write_record([table.name(), field.name, word(field.shape), nullable, field.unit, field.doc])?;
        }
    }
    for set in data_sets() {
        let command = set.command.as_str();
        for (name, doc) in PARTITIONS {
            out.write_record([command, name, "partition", "true", "", doc])?;
        }
        for Column { name, kind, unit, doc, .. } in &set.columns {
            out.write_record([command, name, kind.as_str(), "true", unit, doc])?;
        }
    }
    out.flush()
}

fn word(shape: Shape) -> &'static str {
    match shape {
        Shape::Bool => "bool",
        Shape::Number => "number",
        Shape::Real => "real",
        Shape::Word => "word",
        Shape::Name => "name",
        Shape::Time => "time",
        Shape::Address => "address",
        Shape::Hex => "hex",
        Shape::States => "states",
        Shape::Counts => "counts",
        Shape::Text => "text",
        Shape::Texts => "texts",
        Shape::Numbers => "numbers",
        Shape::Figures => "figures",
        Shape::Subject => "subject",
        Shape::Lines => "lines",
        Shape::Examples => "examples",
        Shape::Tally => "tally",
        Shape::Described => "names",
        Shape::Object => "object",
    }
}

/// The schema of a row, which is a line of JSON. Later versions may add fields.
fn json_schema() -> Value {
    let definition = |table: &&dyn Describe| (table.name().to_owned(), definition(&table.describe()));
    let definitions: Map<String, Value> = TABLES.iter().map(definition).collect();
    let reference = |table: &&dyn Describe| json!({ "$ref": format!("#/$defs/{}", table.name().replace(' ', "%20")) });
    let rows: Vec<Value> = TABLES.iter().map(reference).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A row of tcptrace's JSON output",
        "anyOf": rows,
        "$defs": definitions,
    })
}

fn definition(fields: &[Described]) -> Value {
    let required: Vec<&str> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// What an example of a finding consists of.
const EXAMPLE: &[Member] = &[
    ("conn", &["string"]),
    ("local", &["string"]),
    ("remote", &["string"]),
    ("state", &["string"]),
    ("age_ns", &["integer", "null"]),
    ("age_at_least", &["boolean"]),
    ("pid", &["integer", "null"]),
    ("fd", &["integer", "null"]),
];

/// What says whom a finding is about.
const SUBJECT: &[Member] = &[
    ("pid", &["integer", "null"]),
    ("comm", &["string", "null"]),
    ("container", &["string", "null"]),
    ("unit", &["string", "null"]),
    ("cgroup", &["string", "null"]),
    ("netns", &["integer", "null"]),
    ("netns_name", &["string", "null"]),
    ("local", &["string", "null"]),
    ("remote", &["string", "null"]),
    ("lport", &["integer", "null"]),
    ("side", &["string", "null"]),
];

/// The name of a member of an object, and its types.
type Member = (&'static str, &'static [&'static str]);

fn object(members: &[Member]) -> Value {
    let properties: Map<String, Value> =
        members.iter().map(|(name, types)| ((*name).to_owned(), json!({ "type": types }))).collect();
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn objects(members: &[Member]) -> Value {
    json!({ "type": "array", "items": object(members) })
}

fn property(field: &Described) -> Value {
    let mut schema = match field.shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "integer", "minimum": 0 }),
        Shape::Real => json!({ "type": "number", "minimum": 0 }),
        Shape::Word | Shape::Name | Shape::Address | Shape::Text => json!({ "type": "string" }),
        Shape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Shape::Numbers => json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } }),
        Shape::Tally => json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } }),
        Shape::Figures => json!({
            "type": "object",
            "additionalProperties": { "type": ["number", "boolean", "null"] },
        }),
        Shape::Lines => objects(&[("text", &["string"]), ("source", &["string"])]),
        Shape::Described => objects(&[("name", &["string"]), ("unit", &["string"]), ("doc", &["string"])]),
        Shape::Examples => objects(EXAMPLE),
        Shape::Subject => object(SUBJECT),
        Shape::Object => json!({ "type": "object" }),
        Shape::Time => json!({ "type": "string", "format": "date-time" }),
        Shape::Counts => json!({
            "type": "object",
            "additionalProperties": { "type": "integer", "minimum": 0 },
        }),
        Shape::Hex => json!({ "type": "string", "pattern": "^[0-9a-f]+$" }),
        Shape::States => json!({
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "state": { "type": "string" },
                    "ns": { "type": "integer", "minimum": 0 },
                    "at_least": { "type": "boolean" },
                },
                "required": ["state", "ns", "at_least"],
            },
        }),
    };
    if field.nullable {
        schema["type"] = json!([schema["type"], "null"]);
    }
    schema["description"] = json!(field.doc);
    if !field.unit.is_empty() {
        schema["x-unit"] = json!(field.unit);
    }
    schema
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;

    use super::*;
    use crate::model::row::Row;
    use crate::output::samples::{self, CONTEXT};
    use crate::output::{Json, Lister as _, Printed, Printer as _, TextOptions};
    use crate::study::report::{Options, testing};

    /// Every sample printed as JSON matches the schema, and has every required field.
    #[test]
    fn rows_are_as_the_schema_says() {
        let mut lines = Vec::new();
        let mut printer = Json::new(&mut lines);
        let rows = samples::transitions().into_iter().map(Row::Transition);
        let rows = rows.chain(samples::connections().into_iter().map(Row::Connection));
        let rows = rows.chain(samples::losses().into_iter().map(Row::Loss));
        let rows = rows.chain(samples::findings().into_iter().map(Row::Audit));
        for row in rows.chain(samples::increases().into_iter().map(Row::Counter)) {
            assert_eq!(printer.row(&row, &CONTEXT).expect("written"), Printed::Yes);
        }
        samples::closings().iter().try_for_each(|row| printer.closing(row)).expect("written");
        samples::sockets().iter().try_for_each(|row| printer.socket(row, &CONTEXT)).expect("written");
        samples::counts().iter().try_for_each(|row| printer.count(row, &CONTEXT)).expect("written");
        let report =
            crate::study::report::Report { fired: vec![testing::fired()], ..testing::incident(Options::default()) };
        crate::output::report(&mut lines, crate::output::ReportFormat::Json, &TextOptions::default(), &report)
            .expect("written");
        let cases = [crate::output::diagnose::testing::ill(), crate::output::diagnose::testing::well()];
        let (format, text) = (crate::output::DiagnoseFormat::Json, TextOptions::default());
        crate::output::diagnose(&mut lines, format, &text, &cases, 4).expect("written");
        crate::output::rules(&mut lines, format, crate::study::diagnose::RULES).expect("written");
        let schema = json_schema();
        let validators = schema["$defs"].as_object().expect("definitions").iter().map(|(command, definition)| {
            let mut definition = definition.clone();
            // The schema allows unknown fields, but samples have none.
            definition["additionalProperties"] = json!(false);
            (command.as_str(), jsonschema::validator_for(&definition).expect("a schema"))
        });
        let validators: std::collections::HashMap<&str, Validator> = validators.collect();
        let lines = String::from_utf8(lines).expect("UTF-8");
        let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut checked = 0;
        for row in rows {
            let command = match row["event"].as_str().expect("a word") {
                "socket" => "snapshot --list",
                "count" => "snapshot",
                "ports" => "snapshot --ports",
                event @ ("diagnosis" | "finding" | "checked" | "setting") => &format!("diagnose: {event}"),
                "summary" if row.get("not_checked").is_some() => "diagnose: summary",
                "rule" => "diagnose --rules: rule",
                event @ ("lost" | "counter" | "audit" | "unseen" | "audited" | "summary") => {
                    &format!("watch, connections: {event}")
                }
                event if event.starts_with("report") => &format!("report: {event}"),
                _ if row.get("old").is_some() => "watch",
                _ => "connections",
            };
            let errors: Vec<String> = validators[command].iter_errors(&row).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:#?} in {row:#}");
            checked += 1;
        }
        assert!(checked > 30, "only {checked} rows");
        assert!(jsonschema::meta::is_valid(&schema));
    }

    #[test]
    fn every_column_of_parquet_is_described() {
        for format in [Format::Text, Format::Csv] {
            let mut out = Vec::new();
            schema(&mut out, format).expect("written");
            let out = String::from_utf8(out).expect("UTF-8");
            for column in data_sets().iter().flat_map(|set| &set.columns) {
                let described = |line: &str| line.contains(column.name.as_ref()) && line.contains(column.kind.as_str());
                assert!(out.lines().any(described), "{format:?} has no {}", column.name);
            }
        }
    }

    #[test]
    fn every_format_names_every_field() {
        for format in [Format::Text, Format::Json, Format::Csv] {
            let mut out = Vec::new();
            schema(&mut out, format).expect("written");
            let out = String::from_utf8(out).expect("UTF-8");
            for field in TABLES.iter().flat_map(|table| table.describe()) {
                assert!(out.contains(field.name), "{format:?} has no {}", field.name);
            }
        }
    }
}
