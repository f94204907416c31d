//! What `diagnose` said, and whether it was expected.

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

/// The rows of one `diagnose`, and what else was measured.
pub(super) struct Said {
    rows: Vec<Value>,
    pub(super) measured: Vec<String>,
}

/// What is expected, in words.
pub(super) fn expected(wants: &[Want]) -> String {
    if wants.is_empty() {
        return "nothing above a note".to_owned();
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
            let expected = wants.iter().any(|want| want.allows(row));
            let is_asked = wanted.iter().any(|id| row["id"] == *id);
            if !expected && (row["severity"] != "note" || is_asked) {
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
    fn is(&self, row: &Value) -> bool {
        row["id"] == self.id && row["severity"] == self.severity && row["because_of"].as_str() == self.because_of
    }

    fn allows(&self, row: &Value) -> bool {
        self.is(row) || self.may_lack && row["id"] == self.id && rank(text(row, "severity")) <= rank(self.severity)
    }
}

fn rank(severity: &str) -> usize {
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
        let wants = [want("a-cause", "critical"), under("a-cause", "an-effect", "warning")];
        assert_eq!(complaints(&wants, &["a-cause", "an-effect"]), [""; 0]);
        let wants = [may("a-cause", "critical"), under("a-cause", "an-effect", "warning"), may("absent", "note")];
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
            "there is no rule unknown",
            "warning an-effect was not expected",
        ];
        assert_eq!(complaints(&wants, &["absent", "unknown"]), expected);
    }

    #[test]
    fn notes_are_allowed_unless_the_rule_is_the_scenarios() {
        let wants = [want("a-cause", "critical"), under("a-cause", "an-effect", "warning")];
        assert_eq!(complaints(&wants, &[]), [""; 0]);
        assert_eq!(complaints(&wants, &["small"]), ["note small was not expected", "there is no rule small"]);
    }
}
