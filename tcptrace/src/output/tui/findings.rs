//! What the rules of a diagnosis say, and the page of a finding.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::paint::{BOLD, DIM, PLAIN, of_severity, put, put_all};
use super::table::{Cell, Column, Table};
use crate::output::sanitise_message;
use crate::output::text::wrap::wrapped;
use crate::study::diagnose::Diagnosis;
use crate::study::diagnose::finding::Finding;
use crate::study::top::Frame;

/// Columns of the names of a page's parts.
const NAME: u16 = 10;

pub(super) fn causes(frame: &Frame) -> Vec<&Finding> {
    frame.diagnosis.causes().collect()
}

pub(super) fn table(frame: &Frame) -> Table {
    let (checked, skipped) = frame.diagnosis.counts();
    let mut columns = vec![Column::new("FINDING"), Column::new("SEVERITY"), Column::new("CONFIDENCE")];
    columns.iter_mut().for_each(|column| column.is_sorted = column.name == "SEVERITY");
    Table {
        title: format!("findings of the last seconds: {checked} rules checked, {skipped} not"),
        columns,
        rows: causes(frame).into_iter().map(cells).collect(),
        more: 0,
        what: "findings",
        empty: if checked == 0 { "rules need some seconds" } else { "no findings" },
    }
}

fn cells(finding: &Finding) -> Vec<Cell> {
    vec![
        (finding.headline.clone(), PLAIN),
        (finding.severity.as_str().to_uppercase(), of_severity(finding.severity)),
        (finding.confidence.as_str().to_owned(), DIM),
    ]
}

/// The most severe ones, a line each, as many as there are lines.
pub(super) fn strip(to: &mut Buffer, area: Rect, diagnosis: &Diagnosis) {
    let causes: Vec<&Finding> = diagnosis.causes().collect();
    for (y, finding) in (area.y..area.bottom()).zip(&causes) {
        let is_last = y + 1 == area.bottom();
        let more = causes.len().saturating_sub(usize::from(area.height));
        let more = if is_last && more > 0 { format!(" (f: {more} more)") } else { String::new() };
        let word = format!("{:<9}", finding.severity.as_str().to_uppercase());
        let line = Rect { width: area.width.saturating_sub(super::paint::width(&more)), ..area };
        put_all(to, line, y, &[(word, of_severity(finding.severity)), (finding.headline.clone(), PLAIN)]);
        put(to, line.right(), y, area.width - line.width, &more, DIM);
    }
}

/// The lines of a finding's page.
pub(super) fn page(finding: &Finding, columns: u16) -> Vec<Vec<(String, Style)>> {
    let mut lines = Vec::new();
    let head = format!("{} ", finding.severity.as_str().to_uppercase());
    lines.push(vec![(head, of_severity(finding.severity)), (finding.id.to_owned(), BOLD)]);
    part(&mut lines, columns, "", &finding.headline);
    lines.push(Vec::new());
    for line in &finding.evidence {
        part(&mut lines, columns, "evidence", &format!("{} ({})", line.text, line.source));
    }
    for (id, headline) in &finding.explains {
        part(&mut lines, columns, "so", &format!("{id}: {headline}"));
    }
    part(&mut lines, columns, "why", &finding.why);
    finding.remedies.iter().for_each(|text| part(&mut lines, columns, "do", text));
    finding.mistakes.iter().for_each(|text| part(&mut lines, columns, "don't", text));
    part(&mut lines, columns, "sure", &finding.sure);
    for example in &finding.examples {
        let holder = example.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let fd = example.fd.map(|fd| format!(", fd {fd}")).unwrap_or_default();
        let (local, remote, state, age) = (example.local, example.remote, example.state, example.age);
        part(&mut lines, columns, "example", &format!("{local} → {remote}, {state} for {age}{holder}{fd}"));
    }
    lines
}

fn part(lines: &mut Vec<Vec<(String, Style)>>, columns: u16, name: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    let text = sanitise_message(text);
    for (place, line) in wrapped(&text, usize::from(columns.saturating_sub(NAME).max(20))).into_iter().enumerate() {
        let name = if place == 0 { name } else { "" };
        lines.push(vec![(format!("{name:<10}"), DIM), (line.to_owned(), PLAIN)]);
    }
}
