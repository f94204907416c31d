//! Settings as text: each with its default, what it does, and what changing it does.

use std::io::{self, Write};

use super::wrap::wrapped;
use crate::model::stream::Context;
use crate::output::{TextOptions, sanitise, sanitise_message, width};
use crate::study::diagnose::settings::{Row, Source};
use crate::study::diagnose::{Case, say};

/// Columns before the words about a setting.
const INDENT: usize = 4;
/// They get so many columns at least, and so many where no terminal says otherwise.
const LEAST: usize = 40;
const PAGE: usize = 100;

/// Writes the settings of hosts.
pub(in crate::output) fn write_settings(out: &mut impl Write, options: &TextOptions, cases: &[Case]) -> io::Result<()> {
    for (place, case) in cases.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        of_host(out, options, case)?;
    }
    Ok(())
}

/// What a part of the table is about.
pub(in crate::output) fn title(case: &Case, netns: u32) -> String {
    let place = place(&case.context, netns);
    let host = match &*case.diagnosis.about.host {
        "" => "unknown host".into(),
        host => sanitise(host.as_bytes()),
    };
    format!("{host}, settings of {place} and of the host")
}

pub(in crate::output) fn place(context: &Context, netns: u32) -> String {
    match context.names.namespace(netns) {
        Some(name) => format!("network namespace {} ({netns})", sanitise(name)),
        None => format!("network namespace {netns}"),
    }
}

fn of_host(out: &mut impl Write, options: &TextOptions, case: &Case) -> io::Result<()> {
    let table = &case.settings;
    let Some((first, others)) = table.places.split_first() else {
        return writeln!(out, "No settings are known.");
    };
    let mut lines = Lines::new(out, options, &table.rows);
    writeln!(lines.out, "{}; * was changed\n", title(case, *first))?;
    lines.head()?;
    for row in table.rows.iter().filter(|row| row.netns.is_none_or(|netns| netns == *first)) {
        lines.row(row)?;
        lines.words(row)?;
    }
    let of = |netns: u32| table.rows.iter().filter(move |row| row.netns == Some(netns));
    let (differ, same): (Vec<u32>, Vec<u32>) = others.iter().partition(|netns| of(**netns).next().is_some());
    for netns in differ {
        writeln!(lines.out, "\n{}: the same, but", place(&case.context, netns))?;
        of(netns).try_for_each(|row| lines.row(row))?;
    }
    if same.is_empty() {
        return Ok(());
    }
    writeln!(lines.out, "\n{}: the same", say::counted(same.len() as u64, "other network namespace"))
}

/// Writes lines of one table.
struct Lines<'a, W> {
    out: &'a mut W,
    names: usize,
    values: usize,
    words: usize,
}

impl<'a, W: Write> Lines<'a, W> {
    /// Longer values, such as a list of ports, go beyond their column.
    fn new(out: &'a mut W, options: &TextOptions, rows: &[Row]) -> Self {
        const WIDEST: usize = 24;
        let names = rows.iter().map(|row| width(row.name)).max().unwrap_or(0);
        let values =
            rows.iter().map(|row| width(shown(row.value.as_deref()))).filter(|columns| *columns <= WIDEST).max();
        let words = options.width.unwrap_or(PAGE).saturating_sub(INDENT).max(LEAST);
        Self { out, names, values: values.unwrap_or(0).max("VALUE".len()), words }
    }

    fn head(&mut self) -> io::Result<()> {
        let Self { names, values, .. } = *self;
        writeln!(self.out, "  {:<names$}  {:<values$}  DEFAULT", "SETTING", "VALUE")
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        let Self { names, values, .. } = *self;
        let mark = if row.source == Source::Changed { '*' } else { ' ' };
        let value = sanitise_message(shown(row.value.as_deref()));
        writeln!(self.out, "{mark} {:<names$}  {value:<values$}  {}", row.name, default(row))
    }

    fn words(&mut self, row: &Row) -> io::Result<()> {
        let change = format!("change: {}", row.risk);
        let lines = [row.effect, &change].into_iter().flat_map(|text| wrapped(text, self.words));
        for line in lines {
            writeln!(self.out, "{:INDENT$}{line}", "")?;
        }
        Ok(())
    }
}

/// `-`, where the kernel has none.
pub(in crate::output) fn shown(value: Option<&str>) -> &str {
    match value {
        None => "-",
        Some("") => "none",
        Some(value) => value,
    }
}

/// The default, or why there is none.
pub(in crate::output) fn default(row: &Row) -> &str {
    match (&row.default, row.source) {
        (Some(default), _) => shown(Some(default)),
        (None, Source::Computed) => "computed",
        (None, _) => "-",
    }
}
