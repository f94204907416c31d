//! What `diagnose` said, and whether it was expected.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A finding that is expected.
pub(super) struct Want {
    pub(super) id: &'static str,
    /// `note`, `warning` or `critical`.
    severity: &'static str,
    /// The rule that explains it.
    because_of: Option<&'static str>,
    /// It need not be there: it depends on chance or on the machine.
    may_lack: bool,
}

/// This finding, on its own.
pub(super) const fn want(id: &'static str, severity: &'static str) -> Want {
    Want { id, severity, because_of: None, may_lack: false }
}

/// A finding that is put under another one.
pub(super) const fn under(cause: &'static str, id: &'static str, severity: &'static str) -> Want {
    Want { id, severity, because_of: Some(cause), may_lack: false }
}

/// A finding that chance decides: with this severity at most.
pub(super) const fn may(id: &'static str, severity: &'static str) -> Want {
    Want { id, severity, because_of: None, may_lack: true }
}

/// Rules about what the whole machine is set to, which a scenario does not choose.
const OF_THE_MACHINE: [&str; 2] = ["stale-setting", "risky-setting"];

/// How many findings there were beside those that were asked for: a rule that fires in a scenario of another one must be
/// expected there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    asked: usize,
    explained: usize,
    allowed: usize,
    unexpected: usize,
}

impl Beside {
    pub(super) fn count(&mut self, said: &Said, wants: &[Want]) {
        for row in said.findings().filter(|row| !is_of_machine(row)) {
            let of = |is_it: fn(&Want) -> bool| wants.iter().any(|want| is_it(want) && want.allows(row));
            let place = match () {
                () if of(|want| !want.may_lack && want.because_of.is_none()) => &mut self.asked,
                () if of(|want| want.because_of.is_some()) => &mut self.explained,
                () if of(|want| want.may_lack) => &mut self.allowed,
                () => &mut self.unexpected,
            };
            *place += 1;
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, explained, allowed, unexpected } = self;
        let all = asked + explained + allowed + unexpected;
        write!(
            f,
            "{all} findings: {asked} asked for, {explained} that those explain, {allowed} that may fire beside them, \
             {unexpected} that were not expected."
        )
    }
}

fn is_of_machine(row: &Value) -> bool {
    OF_THE_MACHINE.iter().any(|id| row["id"] == *id)
}

/// The rows of one `diagnose`, and what else was measured.
pub(super) struct Said {
    rows: Vec<Value>,
    pub(super) measured: Vec<String>,
}

/// What is expected, in words.
pub(super) fn expected(wants: &[Want]) -> String {
    if wants.is_empty() {
        return "nothing".to_owned();
    }
    let words = wants.iter().map(|want| {
        let because_of = want.because_of.map(|cause| format!(" (because of {cause})")).unwrap_or_default();
        let may = if want.may_lack { " (perhaps)" } else { "" };
        format!("{} {}{because_of}{may}", want.severity, want.id)
    });
    words.collect::<Vec<_>>().join(", ")
}

impl Said {
    pub(super) fn read(json: &str) -> Result<Self> {
        let rows = json.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Self { rows: rows.context("not rows of JSON")?, measured: Vec::new() })
    }

    /// Forgets the findings about others.
    pub(super) fn keep(&mut self, is_meant: impl Fn(&Value) -> bool) {
        self.rows.retain(|row| row["event"] != "finding" || is_meant(&row["subject"]));
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().filter(|row| row["event"] == "finding")
    }

    fn checked(&self, id: &str) -> Option<&Value> {
        self.rows.iter().find(|row| row["event"] == "checked" && row["id"] == id)
    }

    /// The findings, a line each, and what was measured.
    pub(super) fn lines(&self) -> Vec<String> {
        let findings = self.findings().map(|row| {
            let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let so = row["because_of"].as_str().map(|cause| format!("(because of {cause}) ")).unwrap_or_default();
            format!("{} {}: {so}{}", word("severity"), word("id"), word("headline"))
        });
        let mut lines: Vec<String> = findings.collect();
        if lines.is_empty() {
            lines.push("no findings".to_owned());
        }
        lines.extend(self.measured.iter().map(|it| format!("({it})")));
        lines
    }

    /// What was expected and not said, and the other way round. `wanted` are the rules of the scenario: each is checked.
    pub(super) fn complaints(&self, wants: &[Want], wanted: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        for want in wants.iter().filter(|want| !want.may_lack) {
            if !self.findings().any(|row| want.is(row)) {
                complaints.push(format!("{} was not found as expected", want.id));
            }
        }
        for row in self.findings() {
            let is_expected = wants.iter().any(|want| want.allows(row));
            let is_asked = wanted.iter().any(|id| row["id"] == *id);
            if !is_expected && (is_asked || !is_of_machine(row)) {
                complaints.push(format!("{} {} was not expected", text(row, "severity"), text(row, "id")));
            }
        }
        for id in wanted {
            match self.checked(id) {
                None => complaints.push(format!("there is no rule {id}")),
                Some(row) if row["outcome"] == "not_checked" => {
                    complaints.push(format!("{id} was not checked: {}", text(row, "reason")));
                }
                Some(_) => {}
            }
        }
        complaints.sort();
        complaints.dedup();
        complaints
    }
}

impl Want {
    /// Whether it must be there, and nothing explains it.
    pub(super) fn is_cause(&self) -> bool {
        !self.may_lack && self.because_of.is_none()
    }

    /// Whether nothing explains it.
    pub(super) fn may_be_cause(&self) -> bool {
        self.because_of.is_none()
    }

    pub(super) fn rank(&self) -> usize {
        rank(self.severity)
    }

    fn is(&self, row: &Value) -> bool {
        row["id"] == self.id && row["severity"] == self.severity && row["because_of"].as_str() == self.because_of
    }

    pub(super) fn allows(&self, row: &Value) -> bool {
        self.is(row) || self.may_lack && row["id"] == self.id && rank(text(row, "severity")) <= rank(self.severity)
    }
}

pub(super) fn rank(severity: &str) -> usize {
    ["note", "warning", "critical"].iter().position(|it| *it == severity).unwrap_or(usize::MAX)
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"{"event":"finding","id":"a-cause","severity":"critical","headline":"a","because_of":null}
{"event":"finding","id":"an-effect","severity":"warning","headline":"b","because_of":"a-cause"}
{"event":"finding","id":"small","severity":"note","headline":"c","because_of":null}
{"event":"checked","id":"a-cause","outcome":"fired","reason":null}
{"event":"checked","id":"an-effect","outcome":"fired","reason":null}
{"event":"checked","id":"absent","outcome":"not_checked","reason":"needs time"}
"#;

    fn complaints(wants: &[Want], wanted: &[&str]) -> Vec<String> {
        Said::read(ROWS).expect("rows").complaints(wants, wanted)
    }

    #[test]
    fn what_was_expected_is_no_complaint() {
        let wants = [want("a-cause", "critical"), under("a-cause", "an-effect", "warning"), want("small", "note")];
        assert_eq!(complaints(&wants, &["a-cause", "an-effect"]), [""; 0]);
        let wants = [may("a-cause", "critical"), under("a-cause", "an-effect", "warning"), may("small", "note")];
        assert_eq!(complaints(&wants, &[]), [""; 0]);
    }

    #[test]
    fn everything_else_is_one() {
        let wants = [want("a-cause", "warning"), want("an-effect", "warning")];
        let expected = [
            "a-cause was not found as expected",
            "absent was not checked: needs time",
            "an-effect was not found as expected",
            "critical a-cause was not expected",
            "note small was not expected",
            "there is no rule unknown",
            "warning an-effect was not expected",
        ];
        assert_eq!(complaints(&wants, &["absent", "unknown"]), expected);
    }

    /// A rule that fires in another's scenario is wrong there, unless it is expected.
    #[test]
    fn notes_of_other_rules_are_expected_too() {
        let rest = [want("a-cause", "critical"), under("a-cause", "an-effect", "warning")];
        assert_eq!(complaints(&rest, &[]), ["note small was not expected"]);
        let wants = [want("a-cause", "critical"), under("a-cause", "an-effect", "warning"), may("small", "note")];
        assert_eq!(complaints(&wants, &[]), [""; 0]);
        let mut beside = Beside::default();
        beside.count(&Said::read(ROWS).expect("rows"), &wants);
        let words =
            "3 findings: 1 asked for, 1 that those explain, 1 that may fire beside them, 0 that were not expected.";
        assert_eq!(beside.to_string(), words);
    }
}
