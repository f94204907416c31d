use std::collections::HashSet;

use super::*;
use crate::model::event::Cause;
use crate::model::tcp::{Closer, End, OwnerSource, Side, State, TimeWaitEnd};

fn assert_documented(table: &dyn Describe) {
    let fields = table.describe();
    for field in &fields {
        let name = field.name;
        assert!(field.doc.ends_with('.') && !field.doc.contains("  "), "{name}: {}", field.doc);
        let unit = ["_ns", "_us"].into_iter().find_map(|suffix| name.ends_with(suffix).then(|| &suffix[1..]));
        assert!(unit.is_none_or(|unit| unit == field.unit), "{name} is in {}", field.unit);
        let speaks_of_null = field.doc.to_ascii_lowercase().contains("null");
        assert!(speaks_of_null || !field.nullable, "{name} does not say when it is null");
    }
    let names: HashSet<_> = fields.iter().map(|field| field.name).collect();
    assert_eq!(names.len(), fields.len(), "names of {} are unique", table.name());
}

fn assert_words(table: &dyn Describe, name: &str, words: impl Iterator<Item = &'static str>) {
    let fields = table.describe();
    let field = fields.iter().find(|field| field.name == name).expect("a field");
    let documented: HashSet<&str> =
        field.doc.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')).collect();
    for word in words {
        assert!(documented.contains(word), "the doc of {name} leaves out {word}");
    }
}

#[test]
fn every_field_is_documented() {
    TABLES.iter().for_each(|table| assert_documented(*table));
}

#[test]
fn every_kind_of_row_has_a_name_of_its_own() {
    let names: HashSet<_> = TABLES.iter().map(|table| table.name()).collect();
    assert_eq!(names.len(), TABLES.len());
}

#[test]
fn every_word_is_documented() {
    let closers = || Closer::ALL.iter().map(|word| word.as_str());
    assert_words(&TRANSITION, "old", State::ALL.iter().map(|word| word.as_str()));
    assert_words(&TRANSITION, "closer", closers());
    assert_words(&TRANSITION, "side", Side::ALL.iter().map(|word| word.as_str()));
    assert_words(&TRANSITION, "owner_source", OwnerSource::ALL.iter().map(|word| word.as_str()));
    assert_words(&CONNECTION, "closer", closers());
    assert_words(&LOSS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
    assert_words(&REPORT_LOSS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
    assert_words(&CONNECTION, "end", End::ALL.iter().map(|word| word.as_str()));
    assert_words(&CONNECTION, "time_wait_end", TimeWaitEnd::ALL.iter().map(|word| word.as_str()));
}

/// A line for each kind of row; the fields that only some of its rows have follow the bar.
#[test]
fn names_are_a_contract() {
    let line = |table: &&dyn Describe| {
        let (all, some): (Vec<_>, Vec<_>) = table.describe().into_iter().partition(|field| field.is_required);
        let words = |fields: Vec<Described>| fields.iter().map(|field| field.name).collect::<Vec<_>>().join(" ");
        let bar = if some.is_empty() { "" } else { " | " };
        format!("{}: {}{bar}{}", table.name(), words(all), words(some))
    };
    let lines: Vec<String> = TABLES.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @"");
}
