//! What is wrong, at the head of the page.

use maud::{Markup, html};

use super::Writer;
use crate::output::sanitise_message;
use crate::output::text::diagnose::header;
use crate::study::diagnose::finding::Finding;

impl Writer<'_> {
    pub(super) fn findings(&self) -> Markup {
        let cases = || self.report.cases.iter().filter(|case| !case.diagnosis.findings.is_empty());
        html! {
            @if cases().next().is_some() {
                section #findings {
                    h2 { "Findings" }
                    @for case in cases() {
                        @if self.report.cases.len() > 1 { p.soft { (header(case)) } }
                        @for finding in case.diagnosis.causes() { (in_full(finding)) }
                    }
                }
            }
        }
    }
}

fn in_full(finding: &Finding) -> Markup {
    let safe = |text: &str| sanitise_message(text).into_owned();
    let lists = [("Do", &finding.remedies), ("Don't", &finding.mistakes)];
    html! {
        details.finding data-id=(finding.id) data-severity=(finding.severity.as_str()) open[finding.is_urgent()] {
            summary { strong { (finding.severity.as_str()) } " " (safe(&finding.headline)) " " span.soft { (finding.id) } }
            ul {
                @for line in &finding.evidence { li { (safe(&line.text)) " " span.soft { (line.source) } } }
                @for (id, headline) in &finding.explains { li { "so " (id) ": " (safe(headline)) } }
            }
            @if !finding.why.is_empty() { p { (safe(&finding.why)) } }
            @for (name, lines) in lists {
                @if !lines.is_empty() {
                    p { strong { (name) } }
                    ul { @for line in lines { li { (safe(line)) } } }
                }
            }
            @if !finding.sure.is_empty() { p.soft { "Sure: " (safe(&finding.sure)) } }
        }
    }
}
