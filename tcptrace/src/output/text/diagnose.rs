//! A diagnosis as text: findings with their evidence, what was compared, and what was not checked.

use std::io::{self, Write};

use anstyle::{AnsiColor, Color, Effects, Style};

use super::wrap::wrapped;
use crate::output::{TextOptions, sanitise, sanitise_message, width};
use crate::study::diagnose::finding::{Finding, Severity};
use crate::study::diagnose::rule::Rule;
use crate::study::diagnose::{Case, say};

/// Findings in full; the others have a line each.
const IN_FULL: usize = 7;
/// Columns of the names of a finding's parts, and of the figures that were compared.
const INDENT: usize = 12;
const COMPARED: usize = 15;
/// Columns of the severity.
const BESIDE: usize = 10;
/// The column of evidence is at least so wide, however long its sources are.
const LEAST: usize = 40;
/// Where no terminal says otherwise, pages are as wide.
const PAGE: usize = 100;

const BOLD: Style = Style::new().effects(Effects::BOLD);
const DIM: Style = Style::new().effects(Effects::DIMMED);

fn style(severity: Severity) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(Color::Ansi(colour))).effects(Effects::BOLD);
    match severity {
        Severity::Critical => colour(AnsiColor::Red),
        Severity::Warning => colour(AnsiColor::Yellow),
        Severity::Note => BOLD,
    }
}

/// Writes diagnoses, one for each host.
pub(in crate::output) fn write_diagnoses(
    out: &mut impl Write,
    options: &TextOptions,
    cases: &[Case],
) -> io::Result<()> {
    for (place, case) in cases.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        Writer { out, options }.case(case)?;
    }
    Ok(())
}

/// Writes the findings alone, as the head of something else.
pub(in crate::output) fn write_findings(out: &mut impl Write, options: &TextOptions, case: &Case) -> io::Result<()> {
    Writer { out, options }.findings(case)
}

/// Writes a line a rule.
pub(in crate::output) fn write_rules(out: &mut impl Write, rules: &[&Rule]) -> io::Result<()> {
    let of = |column: fn(&Rule) -> &str| rules.iter().map(|rule| width(column(rule))).max().unwrap_or(0);
    let (ids, titles) = (of(|rule| rule.id).max(4), of(|rule| rule.title));
    writeln!(out, "{:<ids$}  {:<titles$}  {:<10}  NEEDS", "RULE", "WHAT", "RECORDED")?;
    for rule in rules {
        let recorded = crate::output::fields::recorded(rule);
        writeln!(out, "{:<ids$}  {:<titles$}  {recorded:<10}  {}", rule.id, rule.title, needs(rule))?;
    }
    Ok(())
}

/// Writes the page of a rule.
pub(in crate::output) fn write_page(out: &mut impl Write, options: &TextOptions, rule: &Rule) -> io::Result<()> {
    let options = TextOptions { width: Some(options.width.unwrap_or(PAGE)), ..options.clone() };
    let mut writer = Writer { out, options: &options };
    writer.styled(BOLD, &format!("{}: {}", rule.id, rule.title))?;
    writeln!(writer.out)?;
    let page = &rule.page;
    let parts = [
        ("sees", page.sees),
        ("fires", page.fires),
        ("silent", page.silent),
        ("do", page.remedy),
        ("needs", &needs(rule)),
        ("sources", page.sources),
    ];
    for (name, text) in parts {
        writer.part(name, text)?;
    }
    writeln!(writer.out)?;
    let names = rule.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    writer.styled(BOLD, "Figures")?;
    rule.figures.iter().try_for_each(|figure| {
        let unit = if figure.unit.is_empty() { String::new() } else { format!(" ({})", figure.unit) };
        writer.aligned(2, names + 2, figure.name, &format!("{}{unit}", figure.doc))
    })
}

fn needs(rule: &Rule) -> String {
    if rule.needs.is_empty() {
        return "part of its evidence is enough".to_owned();
    }
    rule.needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whose evidence it is, and how much of it.
pub(in crate::output) fn header(case: &Case) -> String {
    let (about, sockets) = (&case.diagnosis.about, case.diagnosis.sockets);
    let host = if about.host.is_empty() { "unknown host".into() } else { sanitise(about.host.as_bytes()) };
    let looked = match (about.traced_ns, about.is_trace) {
        (0, true) => "a trace of a moment".to_owned(),
        (0, false) => "one look".to_owned(),
        (ns, true) => format!("a trace of {}", say::time(ns)),
        (ns, false) => format!("looked for {}", say::time(ns)),
    };
    let places = say::counted(about.namespaces.len() as u64, "network namespace");
    let sockets = say::counted(sockets, "socket");
    let opened = if about.traced_ns == 0 {
        String::new()
    } else {
        let rate = say::rate(about.per_second(about.opened));
        format!(", {} opened ({rate})", say::counted(about.opened, "connection"))
    };
    format!("{host}, {looked}, {places}, {sockets}{opened}")
}

/// `12 events were lost: …`, if some were.
pub(in crate::output) fn losses(case: &Case) -> Option<String> {
    let lost = case.diagnosis.about.lost;
    let are = if lost == 1 { "was" } else { "were" };
    (lost > 0).then(|| {
        format!("{} {are} lost: rates are lower bounds, and absence proves nothing.", say::counted(lost, "event"))
    })
}

/// The rules that were not checked, by reason; then how many were, and how many of those had nothing to say.
pub(in crate::output) fn checked(case: &Case) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    let rows = &case.diagnosis.checked;
    for (reason, id) in rows.iter().filter_map(|row| Some((row.reason.as_deref()?, row.id))) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, ids)) => ids.push(id),
            None => reasons.push((reason, vec![id])),
        }
    }
    let parts: Vec<String> = reasons.iter().map(|(reason, ids)| format!("{} ({reason})", ids.join(", "))).collect();
    let not = if parts.is_empty() { String::new() } else { format!("Not checked: {}. ", parts.join("; ")) };
    let silent = rows.iter().filter(|row| row.outcome == "silent").count() as u64;
    let (checked, _) = case.diagnosis.counts();
    format!("{not}{} checked, {} silent.", say::counted(checked, "rule"), say::count(silent))
}

/// Which findings are shown in full; the others have a line each.
pub(in crate::output) fn shown(case: &Case, all: bool) -> (Vec<&Finding>, Vec<&Finding>) {
    let mut full = 0;
    case.diagnosis.causes().partition(|finding| {
        let is_full = all || finding.severity > Severity::Note && full < IN_FULL;
        full += usize::from(is_full);
        is_full
    })
}

struct Writer<'a, W> {
    out: &'a mut W,
    options: &'a TextOptions,
}

impl<W: Write> Writer<'_, W> {
    fn case(&mut self, case: &Case) -> io::Result<()> {
        self.wrapped(0, &header(case))?;
        if let Some(losses) = losses(case) {
            self.wrapped(0, &losses)?;
        }
        writeln!(self.out)?;
        self.findings(case)?;
        if case.diagnosis.findings.is_empty() {
            self.compared(case)?;
        }
        self.wrapped(0, &checked(case))
    }

    fn findings(&mut self, case: &Case) -> io::Result<()> {
        let (full, short) = shown(case, self.options.full);
        for finding in &full {
            self.finding(finding)?;
            writeln!(self.out)?;
        }
        for finding in &short {
            self.head(finding)?;
            self.aligned_rest(BESIDE, &format!("{}: {}", finding.id, finding.headline))?;
        }
        if !short.is_empty() {
            self.wrapped(0, "`--all` shows them in full.")?;
            writeln!(self.out)?;
        }
        match (case.hidden, case.diagnosis.findings.is_empty()) {
            (0, _) => Ok(()),
            (hidden, false) => {
                let others = say::counted(hidden, "finding");
                self.wrapped(0, &format!("{others} about others than the filters choose."))
            }
            (hidden, true) => {
                let others = say::counted(hidden, "finding");
                self.wrapped(0, &format!("No findings about what the filters choose; {others} about others."))
            }
        }
    }

    fn compared(&mut self, case: &Case) -> io::Result<()> {
        let lead = if case.hidden > 0 { "What was compared:" } else { "No findings. What was compared:" };
        self.wrapped(0, lead)?;
        case.compared.iter().try_for_each(|line| self.aligned(2, COMPARED, line.name, &line.text))
    }

    /// The severity, in a column of its own.
    fn head(&mut self, finding: &Finding) -> io::Result<()> {
        let word = format!("{:<8}", finding.severity.as_str().to_uppercase());
        if self.options.colour {
            let style = style(finding.severity);
            write!(self.out, "{style}{word}{style:#}  ")
        } else {
            write!(self.out, "{word}  ")
        }
    }

    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        self.head(finding)?;
        self.styled(BOLD, finding.id)?;
        self.wrapped(2, &finding.headline)?;
        self.evidence(finding)?;
        for (id, headline) in &finding.explains {
            self.part("so:", &format!("{id}: {headline}"))?;
        }
        let (remedies, mistakes) = (finding.remedies.iter(), finding.mistakes.iter());
        let parts = std::iter::once(("why", &finding.why)).chain(named("do", remedies));
        for (name, text) in parts.chain(named("don't", mistakes)).chain([("sure", &finding.sure)]) {
            if !text.is_empty() {
                self.part(name, text)?;
            }
        }
        Ok(())
    }

    /// Each line with where it is from, in a column of their own.
    fn evidence(&mut self, finding: &Finding) -> io::Result<()> {
        let texts = || finding.evidence.iter().map(|line| sanitise_message(&line.text));
        let longest = texts().map(|text| width(&text)).max().unwrap_or(0);
        let sources = finding.evidence.iter().map(|line| width(line.source)).max().unwrap_or(0);
        let room =
            self.options.width.map_or(longest, |columns| columns.saturating_sub(INDENT + 2 + sources).max(LEAST));
        let column = longest.min(room);
        for (place, (line, text)) in finding.evidence.iter().zip(texts()).enumerate() {
            let name = if place == 0 { "evidence" } else { "" };
            let source =
                if self.options.colour { format!("{DIM}{}{DIM:#}", line.source) } else { line.source.to_owned() };
            for (part, words) in wrapped(&text, column).into_iter().enumerate() {
                let pad = " ".repeat(column.saturating_sub(width(words)));
                match part {
                    0 => writeln!(self.out, "  {name:<10}{words}{pad}  {source}")?,
                    _ => writeln!(self.out, "{:INDENT$}{words}", "")?,
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.aligned(2, INDENT - 2, name, text)
    }

    /// A name in a column, and text beside it.
    fn aligned(&mut self, indent: usize, columns: usize, name: &str, text: &str) -> io::Result<()> {
        write!(self.out, "{:indent$}{name:<columns$}", "")?;
        self.aligned_rest(indent + columns, text)
    }

    /// The rest of a line that has so many columns already.
    fn aligned_rest(&mut self, indent: usize, text: &str) -> io::Result<()> {
        let text = sanitise_message(text);
        for (place, line) in wrapped(&text, self.room(indent)).into_iter().enumerate() {
            if place > 0 {
                write!(self.out, "{:indent$}", "")?;
            }
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    fn wrapped(&mut self, indent: usize, text: &str) -> io::Result<()> {
        write!(self.out, "{:indent$}", "")?;
        self.aligned_rest(indent, text)
    }

    fn room(&self, indent: usize) -> usize {
        self.options.width.map_or(usize::MAX, |columns| columns.saturating_sub(indent).max(LEAST))
    }

    fn styled(&mut self, style: Style, text: &str) -> io::Result<()> {
        if self.options.colour { writeln!(self.out, "{style}{text}{style:#}") } else { writeln!(self.out, "{text}") }
    }
}

/// The first one has the name.
fn named<'t>(
    name: &'static str,
    texts: impl Iterator<Item = &'t String>,
) -> impl Iterator<Item = (&'static str, &'t String)> {
    texts.enumerate().map(move |(place, text)| (if place == 0 { name } else { "" }, text))
}
