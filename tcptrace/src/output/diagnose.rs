//! A diagnosis as text, as rows of JSON, and as Markdown; and what the rules are.

use std::io::{self, Write};

use super::fields::{
    CHECKED, DIAGNOSED, DIAGNOSIS, DiagnosisRow, FINDING, FindingRow, RULE, SETTING, SettingRow, Totals,
};
use super::{Json, TextOptions, markdown, text};
use crate::model::stream::Context;
use crate::study::diagnose::Case;
use crate::study::diagnose::finding::Finding;
use crate::study::diagnose::rule::Rule;

/// How a diagnosis is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DiagnoseFormat {
    /// Findings with their evidence, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Markdown, to be pasted into a ticket or a channel.
    Markdown,
}

/// Writes diagnoses, one for each host, and how the command ends.
///
/// # Errors
/// What the writer returns.
pub fn diagnose<W: Write>(
    mut out: W,
    format: DiagnoseFormat,
    options: &TextOptions,
    cases: &[Case],
    exit: u8,
) -> io::Result<()> {
    match format {
        DiagnoseFormat::Text => text::write_diagnoses(&mut out, options, cases)?,
        DiagnoseFormat::Json => json(&mut out, cases, exit)?,
        DiagnoseFormat::Markdown => markdown::write_diagnoses(&mut out, cases)?,
    }
    out.flush()
}

fn json(out: &mut impl Write, cases: &[Case], exit: u8) -> io::Result<()> {
    let mut json = Json::new(out);
    for case in cases {
        rows(&mut json, case)?;
        setting_rows(&mut json, case)?;
    }
    json.object(&DIAGNOSED, &Totals::of(cases, exit), &Context::default())
}

/// The rows of one host.
pub(super) fn rows<W: Write>(json: &mut Json<W>, case: &Case) -> io::Result<()> {
    let (diagnosis, context) = (&case.diagnosis, &case.context);
    let host = diagnosis.about.host.as_str();
    json.object(&DIAGNOSIS, &DiagnosisRow::new(diagnosis), context)?;
    for finding in &diagnosis.findings {
        json.object(&FINDING, &FindingRow::new(host, finding, context), context)?;
    }
    diagnosis
        .checked
        .iter()
        .try_for_each(|row| json.object(&CHECKED, &super::fields::CheckedRow::new(host, row), context))
}

fn setting_rows<W: Write>(json: &mut Json<W>, case: &Case) -> io::Result<()> {
    let host = case.diagnosis.about.host.as_str();
    case.settings.rows.iter().try_for_each(|row| json.object(&SETTING, &SettingRow::new(host, row), &case.context))
}

/// Writes what hosts are set to.
///
/// # Errors
/// What the writer returns.
pub fn settings<W: Write>(mut out: W, format: DiagnoseFormat, options: &TextOptions, cases: &[Case]) -> io::Result<()> {
    match format {
        DiagnoseFormat::Text => text::write_settings(&mut out, options, cases)?,
        DiagnoseFormat::Json => {
            let mut json = Json::new(&mut out);
            cases.iter().try_for_each(|case| setting_rows(&mut json, case))?;
        }
        DiagnoseFormat::Markdown => markdown::write_settings(&mut out, cases)?,
    }
    out.flush()
}

/// A finding as a row of JSON.
pub fn finding(host: &str, finding: &Finding, context: &Context) -> serde_json::Value {
    let mut line = Vec::new();
    let written = Json::new(&mut line).object(&FINDING, &FindingRow::new(host, finding, context), context);
    written.ok().and_then(|()| serde_json::from_slice(&line).ok()).unwrap_or_default()
}

/// Writes what each rule finds, needs and compares.
///
/// # Errors
/// What the writer returns.
pub fn rules<W: Write>(mut out: W, format: DiagnoseFormat, rules: &[&Rule]) -> io::Result<()> {
    match format {
        DiagnoseFormat::Text => text::write_rules(&mut out, rules)?,
        DiagnoseFormat::Json => {
            let rows: Vec<_> = rules.iter().map(|rule| super::fields::RuleRow::new(rule)).collect();
            Json::new(&mut out).table(&RULE, &rows)?;
        }
        DiagnoseFormat::Markdown => markdown::write_rules(&mut out, rules)?,
    }
    out.flush()
}

/// Writes the page of a rule.
///
/// # Errors
/// What the writer returns.
pub fn explain<W: Write>(mut out: W, format: DiagnoseFormat, options: &TextOptions, rule: &Rule) -> io::Result<()> {
    match format {
        DiagnoseFormat::Text => text::write_page(&mut out, options, rule)?,
        DiagnoseFormat::Json => Json::new(&mut out).table(&RULE, &[super::fields::RuleRow::new(rule)])?,
        DiagnoseFormat::Markdown => markdown::write_page(&mut out, rule)?,
    }
    out.flush()
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
