//! What every format makes of the same diagnoses.

use insta::assert_snapshot;
use rstest::rstest;

use super::testing::{ill, well};
use super::*;
use crate::output::width;
use crate::study::diagnose::RULES;
use crate::study::diagnose::finding::{Confidence, Finding, Severity};

fn written(format: DiagnoseFormat, options: &TextOptions, cases: &[Case]) -> String {
    let mut out = Vec::new();
    diagnose(&mut out, format, options, cases, 4).expect("a Vec takes everything");
    String::from_utf8(out).expect("UTF-8")
}

fn text(columns: Option<usize>, full: bool, cases: &[Case]) -> String {
    written(DiagnoseFormat::Text, &TextOptions { width: columns, full, ..TextOptions::default() }, cases)
}

#[rstest]
#[case::none(None)]
#[case::narrow(Some(80))]
fn findings_are_shown_with_their_evidence(#[case] columns: Option<usize>) {
    let text = text(columns, false, &[ill()]);
    let widest = text.lines().map(width).max().expect("lines");
    assert!(columns.is_none_or(|columns| widest <= columns), "{widest}: {text}");
    insta::with_settings!({ snapshot_suffix => columns.map_or("none".into(), |it| it.to_string()) }, {
        assert_snapshot!(text);
    });
}

#[test]
fn notes_are_shown_in_full_if_asked_for() {
    let text = text(None, true, &[ill()]);
    assert!(text.contains("NOTE      server-closes-first\n  nginx[812] closes first"), "{text}");
    assert!(!text.contains("--all"), "{text}");
}

#[test]
fn nothing_wrong_is_what_was_compared() {
    assert_snapshot!(text(Some(80), false, &[well()]));
}

#[test]
fn others_than_the_filters_choose_are_counted() {
    let case = Case { hidden: 2, ..well() };
    let text = text(None, false, &[case]);
    assert!(text.contains("No findings about what the filters choose; 2 findings about others.\n"), "{text}");
}

#[test]
fn at_most_seven_are_shown_in_full() {
    let mut case = ill();
    case.diagnosis.findings = (0..9)
        .map(|number| Finding::new("x", Severity::Warning, Confidence::Certain, format!("headline {number}")))
        .collect();
    let text = text(None, false, &[case]);
    assert_eq!(text.matches("WARNING   x\n").count(), 7, "{text}");
    assert_eq!(text.matches("WARNING   x: headline").count(), 2, "{text}");
}

#[test]
fn markdown() {
    assert_snapshot!(written(DiagnoseFormat::Markdown, &TextOptions::default(), &[ill(), well()]));
}

#[test]
fn json() {
    assert_snapshot!(written(DiagnoseFormat::Json, &TextOptions::default(), &[ill(), well()]));
}

#[rstest]
#[case::text(DiagnoseFormat::Text)]
#[case::json(DiagnoseFormat::Json)]
#[case::markdown(DiagnoseFormat::Markdown)]
fn what_hosts_are_set_to(#[case] format: DiagnoseFormat) {
    let options = TextOptions { width: Some(60), ..TextOptions::default() };
    let mut out = Vec::new();
    settings(&mut out, format, &options, &[ill(), well()]).expect("a Vec takes everything");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    insta::with_settings!({ snapshot_suffix => format!("{format:?}").to_lowercase() }, {
        assert_snapshot!(text);
    });
}

/// Headlines are made of safe names; whatever slips through cannot steer a terminal.
#[rstest]
#[case(DiagnoseFormat::Text)]
#[case(DiagnoseFormat::Json)]
#[case(DiagnoseFormat::Markdown)]
fn nothing_steers_a_terminal(#[case] format: DiagnoseFormat) {
    let mut case = ill();
    case.diagnosis.about.host = "vm\u{1b}[31m\u{202e}".into();
    for finding in &mut case.diagnosis.findings {
        finding.headline.push_str("\u{1b}[31m\u{202e}");
        finding.why.push_str("\u{1b}\n");
        finding.remedies.push("\u{202e}".into());
        finding.line("seen", "\u{1b}[31m");
    }
    case.compared.iter_mut().for_each(|line| line.text.push('\u{1b}'));
    case.diagnosis.checked[2].reason = Some("\u{1b}".into());
    let text = written(format, &TextOptions::default(), &[case]);
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}

/// Every rule has a page, and every figure of it a meaning.
#[test]
fn every_rule_is_explained() {
    for rule in RULES {
        for format in [DiagnoseFormat::Text, DiagnoseFormat::Json, DiagnoseFormat::Markdown] {
            let mut out = Vec::new();
            explain(&mut out, format, &TextOptions::default(), rule).expect("a Vec takes everything");
            let out = String::from_utf8(out).expect("UTF-8");
            assert!(out.contains(rule.id), "{out}");
        }
        let page = &rule.page;
        let parts = [rule.title, page.sees, page.fires, page.silent, page.remedy, page.sources];
        assert!(parts.iter().all(|part| !part.is_empty()), "{}", rule.id);
        assert!(rule.figures.iter().all(|figure| !figure.doc.is_empty()), "{}", rule.id);
    }
}
