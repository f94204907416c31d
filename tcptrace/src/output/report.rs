//! A report as JSON and CSV: rows of several kinds, told apart by `event`.

use std::io::{self, Write};

use super::fields::{
    FiredFields, REPORT, REPORT_BUCKET, REPORT_CHURN, REPORT_COUNT, REPORT_COUNTER, REPORT_DAMAGE, REPORT_FAILURE,
    REPORT_FIRED, REPORT_GROUP, REPORT_HOST, REPORT_LOSS, REPORT_OPEN, REPORT_POINT, REPORT_SLOWEST, REPORT_STATE,
    Table,
};
use super::text::write_report;
use super::{Csv, Json, TextOptions};
use crate::model::stream::Context;
use crate::study::report::{Group, Report};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Aligned columns, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Comma-separated values, with a header.
    Csv,
    /// Markdown, to be pasted into a ticket or a channel.
    Markdown,
}

/// Writes a report.
///
/// # Errors
/// Errors of the writer.
pub fn report<W: Write>(mut out: W, format: ReportFormat, text: &TextOptions, report: &Report) -> io::Result<()> {
    match format {
        ReportFormat::Text => write_report(&mut out, text, report)?,
        ReportFormat::Json => json(&mut out, report)?,
        ReportFormat::Markdown => super::markdown::report::write(&mut out, text, report)?,
        ReportFormat::Csv => {
            let mut columns = Columns::default();
            rows(report, &mut columns)?;
            let mut csv = Csv::new(&mut out);
            csv.columns(&columns.0)?;
            rows(report, &mut Sparse { csv: &mut csv, columns: &columns.0 })?;
            super::Printer::flush(&mut csv)?;
        }
    }
    out.flush()
}

/// Writes one object a line.
pub(super) fn json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    rows(report, &mut Json::new(out))
}

/// Takes rows of any kind.
trait Sink {
    /// Takes the rows of one kind, each with its context.
    fn take<'r, R: 'r>(
        &mut self,
        table: &'static Table<R>,
        rows: impl Iterator<Item = (&'r R, &'r Context)>,
    ) -> io::Result<()>;
}

impl<W: Write> Sink for Json<W> {
    fn take<'r, R: 'r>(
        &mut self,
        table: &'static Table<R>,
        mut rows: impl Iterator<Item = (&'r R, &'r Context)>,
    ) -> io::Result<()> {
        rows.try_for_each(|(row, context)| self.object(table, row, context))
    }
}

/// The columns of all kinds of rows, each once.
#[derive(Default)]
struct Columns(Vec<&'static str>);

impl Sink for Columns {
    fn take<'r, R: 'r>(
        &mut self,
        table: &'static Table<R>,
        _: impl Iterator<Item = (&'r R, &'r Context)>,
    ) -> io::Result<()> {
        for field in table.all() {
            if !self.0.contains(&field.name) {
                self.0.push(field.name);
            }
        }
        Ok(())
    }
}

/// CSV of rows that have some of the columns.
struct Sparse<'a, W: Write> {
    csv: &'a mut Csv<W>,
    columns: &'a [&'static str],
}

impl<W: Write> Sink for Sparse<'_, W> {
    fn take<'r, R: 'r>(
        &mut self,
        table: &'static Table<R>,
        mut rows: impl Iterator<Item = (&'r R, &'r Context)>,
    ) -> io::Result<()> {
        rows.try_for_each(|(row, context)| self.csv.sparse(self.columns, table, row, context))
    }
}

/// Hands over all rows, the most important first.
fn rows(report: &Report, sink: &mut impl Sink) -> io::Result<()> {
    let context = Context::default();
    fn plain<'r, R>(rows: &'r [R], context: &'r Context) -> impl Iterator<Item = (&'r R, &'r Context)> {
        rows.iter().map(move |row| (row, context))
    }
    let wanted = |group: &Group| report.options.by.is_none_or(|by| by == group.by);
    let rate = |row: &crate::study::report::ChurnRow| (row.clone(), report.overview.per_second(row.connections));
    let churn: Vec<_> = report.churn.iter().map(rate).collect();
    let bins: Vec<_> = report.states.iter().flat_map(|row| row.bins.iter().map(|bin| (row.state, *bin))).collect();
    let fired: Vec<_> = report.fired.iter().map(FiredFields::new).collect();
    sink.take(&REPORT, std::iter::once((&report.overview, &context)))?;
    sink.take(&REPORT_HOST, plain(&report.hosts, &context))?;
    sink.take(&REPORT_LOSS, plain(&report.lost, &context))?;
    sink.take(&REPORT_DAMAGE, plain(&report.damage, &context))?;
    sink.take(&REPORT_COUNTER, plain(&report.counters, &context))?;
    sink.take(&REPORT_COUNT, plain(&report.counts, &context))?;
    sink.take(&REPORT_STATE, plain(&report.states, &context))?;
    sink.take(&REPORT_BUCKET, plain(&bins, &context))?;
    sink.take(&REPORT_GROUP, plain(&report.groups, &context).filter(|(row, _)| wanted(&row.group)))?;
    sink.take(&REPORT_CHURN, plain(&churn, &context))?;
    sink.take(&REPORT_FAILURE, plain(&report.failures, &context).filter(|(row, _)| wanted(&row.group)))?;
    sink.take(&REPORT_OPEN, plain(&report.open, &context).filter(|(row, _)| wanted(&row.group)))?;
    sink.take(&REPORT_POINT, plain(&report.points, &context))?;
    sink.take(&REPORT_SLOWEST, report.slowest.iter().map(|row| (row, &row.context)))?;
    sink.take(&REPORT_FIRED, plain(&fired, &context))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::study::report::{By, Options, testing};

    fn written(format: ReportFormat, options: Options) -> String {
        let mut out = Vec::new();
        let incident = Report { fired: vec![testing::fired()], ..testing::incident(options) };
        report(&mut out, format, &TextOptions::default(), &incident).expect("a Vec takes everything");
        String::from_utf8(out).expect("UTF-8")
    }

    fn json(options: Options) -> Vec<serde_json::Value> {
        written(ReportFormat::Json, options).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn every_way_of_grouping_is_told_unless_one_is_asked_for() {
        let ways = |by| {
            let rows = json(Options { by, ..Options::default() });
            let told = rows.iter().filter_map(|row| Some(row.get("by")?.as_str()?.to_owned()));
            told.collect::<HashSet<_>>()
        };
        assert_eq!(ways(None), By::ALL.map(|by| by.as_str().to_owned()).into());
        assert_eq!(ways(Some(By::Remote)), ["remote".to_owned()].into());
    }

    /// Causes are words for programs. Sentences are for people, and change.
    #[test]
    fn causes_of_losses_are_words() {
        let rows = json(Options::default());
        let causes: Vec<_> = rows.iter().filter(|row| row["event"] == "report_loss").map(|row| &row["cause"]).collect();
        assert_eq!(causes, ["ring_full", "recursion"]);
    }

    #[test]
    fn every_format_says_why_the_trace_was_written() {
        let rows = json(Options::default());
        let fired: Vec<_> = rows.iter().filter(|row| row["event"] == "report_fired").collect();
        let [row] = fired[..] else { unreachable!("{fired:?}") };
        assert_eq!(row["time"], "2025-01-02T03:03:20.000000000Z");
        assert_eq!((&row["rule"], &row["host"]), (&"close-wait-leak".into(), &"web-1".into()));
        assert_eq!(row["figures"]["CLOSE_WAIT"], 512.0);
        assert_eq!(row["finding"]["headline"], "java[7] holds 40 \\x1b[2J", "nothing from a trace is printed raw");
        for format in [ReportFormat::Text, ReportFormat::Csv, ReportFormat::Markdown] {
            let written = written(format, Options::default());
            assert!(written.contains(" holds 40 ") && !written.contains('\u{1b}'), "{format:?}: {written}");
        }
    }

    #[test]
    fn parts_add_up() {
        let rows = json(Options::default());
        let of = |event: &str| rows.iter().filter(|row| row["event"] == event).collect::<Vec<_>>();
        let sum =
            |rows: &[&serde_json::Value], name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
        let report = of("report")[0];
        for by in By::ALL {
            let all: Vec<_> = of("report_group").into_iter().filter(|row| row["by"] == by.as_str()).collect();
            let without: Vec<_> = all.iter().filter(|row| row["state"].is_null()).copied().collect();
            assert_eq!(sum(&without, "connections"), report["connections"], "{by:?}");
            for state in of("report_state") {
                let within: Vec<_> = all.iter().filter(|row| row["state"] == state["state"]).copied().collect();
                assert_eq!(sum(&within, "connections"), state["sockets"], "{by:?}");
                assert_eq!(sum(&within, "at_least"), state["at_least"], "{by:?}");
                assert_eq!(sum(&within, "open"), state["open"], "{by:?}");
            }
            let failures: Vec<_> = of("report_failure").into_iter().filter(|row| row["by"] == by.as_str()).collect();
            assert_eq!(sum(&failures, "connections"), report["failed"], "{by:?}");
            let open: Vec<_> = of("report_open").into_iter().filter(|row| row["by"] == by.as_str()).collect();
            assert_eq!(sum(&open, "connections"), report["open"], "{by:?}");
        }
        let decided = of("report_count").into_iter().filter(|row| row["property"] == "closer").collect::<Vec<_>>();
        let of_undecided = report["closer_undecided"].as_u64().expect("a number");
        assert_eq!(sum(&decided, "connections") + of_undecided, report["connections"]);
        for (property, of_all) in [("end", "ended"), ("open", "open")] {
            let counts: Vec<_> = of("report_count").into_iter().filter(|row| row["property"] == property).collect();
            assert_eq!(sum(&counts, "connections"), report[of_all], "{property}");
        }
        for state in of("report_state") {
            let bins: Vec<_> = of("report_bucket").into_iter().filter(|row| row["state"] == state["state"]).collect();
            assert_eq!(sum(&bins, "at_least"), state["at_least"]);
            assert_eq!(sum(&bins, "exact") + sum(&bins, "at_least"), state["sockets"]);
        }
        for moment in ["opened", "ended", "failed"] {
            assert_eq!(sum(&of("report_point"), moment), report[moment], "{moment}");
        }
    }

    #[test]
    fn csv_has_the_rows_of_json_below_one_header() {
        let (json, csv) = (json(Options::default()), written(ReportFormat::Csv, Options::default()));
        let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
        let header = reader.headers().expect("a header").clone();
        assert_eq!(header.iter().collect::<HashSet<_>>().len(), header.len(), "each column once");
        let mut number = 0;
        for (record, row) in reader.records().zip(&json) {
            let record = record.expect("as many cells as the header has");
            let cell = |name: &str| header.iter().position(|column| column == name).map(|place| &record[place]);
            for (name, value) in row.as_object().expect("an object") {
                match value {
                    serde_json::Value::Null => assert_eq!(cell(name), Some(""), "{name} in {row}"),
                    serde_json::Value::Number(_) | serde_json::Value::Bool(_) => {
                        assert_eq!(cell(name), Some(value.to_string().as_str()), "{name} in {row}");
                    }
                    _ => assert_ne!(cell(name), Some(""), "{name} in {row}"),
                }
            }
            number += 1;
        }
        assert_eq!(number, json.len());
    }
}
