//! A report as Markdown: what was found, and the figures of its first screen.

use std::io::{self, Write};

use super::text;
use crate::output::TextOptions;
use crate::output::lost::bound;
use crate::output::text::report::longest;
use crate::output::text::report::words::{
    Apart, count, counted, duration, ends, fired, group, hosts, number, percent, period, rate, time,
};
use crate::study::report::{By, Count, Property, Report, StateRow};

/// Rows of a table.
const ROWS: usize = 5;

/// Writes a report.
pub(in crate::output) fn write(out: &mut impl Write, options: &TextOptions, report: &Report) -> io::Result<()> {
    let overview = &report.overview;
    writeln!(out, "# {}\n\n{}\n", text(&hosts(report)), text(&period(&options.zone, report)))?;
    for fired in fired(&options.zone, report) {
        writeln!(out, "**{}**\n", text(&fired))?;
    }
    for lost in report.lost.iter().filter(|lost| lost.events > 0 || lost.at_least) {
        let events = bound(counted(lost.events, "event"), lost.at_least);
        writeln!(
            out,
            "**{events} lost ({}).** The figures leave out what they would have told.\n",
            lost.cause.words()
        )?;
    }
    for damage in &report.damage {
        writeln!(out, "**Damaged:** {}\n", text(&crate::output::sanitise(damage.as_bytes())))?;
    }
    report.cases.iter().try_for_each(|case| super::findings(out, case))?;
    let per_second = |count: u64| overview.per_second(count).map_or("-".to_owned(), rate);
    writeln!(
        out,
        "{}, {} still open; opened {} ({}), ended {} ({}), failed {}.\n",
        counted(overview.connections, "connection"),
        count(overview.open),
        count(overview.opened),
        per_second(overview.opened),
        count(overview.ended),
        per_second(overview.ended),
        count(overview.failed),
    )?;
    states(out, options, report)?;
    for (property, name) in [("closer", "Closed by"), ("end", "Ended by")] {
        properties(out, report, property, name)?;
    }
    pairs(out, report)
}

fn states(out: &mut impl Write, options: &TextOptions, report: &Report) -> io::Result<()> {
    writeln!(out, "| state | sockets | still in | most | at | p50 | longest | of | with |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- | --- |")?;
    for row in report.states.iter().filter(|row| row.sockets > 0) {
        let (most, at) = row
            .peak
            .map_or(("-".to_owned(), "-".to_owned()), |peak| (number(peak.value), time(&options.zone, peak.unix_ns)));
        let (state, sockets, open) = (text(row.state.as_str()), count(row.sockets), count(row.open));
        let (of, with) = (first(report, row, By::Process), first(report, row, By::Remote));
        let (p50, longest) = (row.p50, longest(row));
        writeln!(
            out,
            "| {state} | {sockets} | {open} | {most} | {at} | {p50} | {longest} | {} | {} |",
            text(&of),
            text(&with)
        )?;
    }
    writeln!(out)
}

/// Who has most of those in a state.
fn first(report: &Report, row: &StateRow, by: By) -> String {
    let mut rows = report.groups.iter().filter(|group| group.state == Some(row.state) && group.group.by == by);
    rows.next().map_or_else(
        || "-".to_owned(),
        |first| {
            let share = percent(first.total_share.unwrap_or(first.share));
            format!("{} {share}", group(&first.group, Apart::of(report)))
        },
    )
}

fn properties(out: &mut impl Write, report: &Report, property: &str, name: &str) -> io::Result<()> {
    let rows = report.counts.iter().filter(|row| Property::kind(row.property) == property).take(ROWS);
    let part = |row: &Count| format!("{} {}", row.property.word(), count(row.connections));
    let parts: Vec<String> = rows.map(part).collect();
    if parts.is_empty() { Ok(()) } else { writeln!(out, "{name}: {}.\n", text(&parts.join(", "))) }
}

/// Short-lived connections that repeat.
fn pairs(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let rows: Vec<_> = report.churn.iter().filter(|row| row.group.others.is_none()).take(ROWS).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "In ESTABLISHED for less than 1 s, most:\n\n| ends | connections | a second | median |")?;
    writeln!(out, "| --- | ---: | ---: | ---: |")?;
    for row in rows {
        let rate = report.overview.per_second(row.connections).map_or("-".to_owned(), rate);
        let ends = ends(row, Apart::of(report));
        writeln!(out, "| {} | {} | {rate} | {} |", text(&ends), count(row.connections), duration(row.p50))?;
    }
    writeln!(out)
}
