//! The table of kernels and scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::outcome::{Outcome, Outcomes};

/// The results for one kernel.
#[derive(Debug)]
pub(super) struct Column {
    /// Its release as the virtual machine reports it.
    pub(super) kernel: String,
    /// Version of the Debian package, if it is Debian's.
    pub(super) version: Option<String>,
    /// How it ran: `QEMU, TCG`.
    pub(super) machine: String,
    /// The output of `tcptrace check`.
    pub(super) check: String,
    /// The outcome of each scenario.
    pub(super) outcomes: Outcomes,
}

impl Column {
    /// Whether nothing needs a fix.
    pub(super) fn is_good(&self) -> bool {
        !self.outcomes.values().any(Outcome::is_failure)
    }

    fn of_group(&self, group: &str) -> impl Iterator<Item = &Outcome> {
        let is_in = move |name: &str| group_of(name) == group;
        self.outcomes.iter().filter(move |(name, _)| is_in(name)).map(|(_, outcome)| outcome)
    }
}

/// Scenarios are grouped by module: `live::time_wait::ended_by_a_reset` is in `time_wait`.
fn group_of(scenario: &str) -> &str {
    short_name(scenario).split("::").next().unwrap_or(scenario)
}

/// `time_wait::ended_by_a_reset`: the program's name is the same for all.
fn short_name(scenario: &str) -> &str {
    scenario.split_once("::").map_or(scenario, |(_, name)| name)
}

/// The Markdown table: how many scenarios of each group passed, and details of the others.
pub(super) fn markdown(columns: &[Column]) -> String {
    let mut text = summary(columns);
    for column in columns {
        let version = column.version.as_ref().map(|version| format!(" (Debian {version})")).unwrap_or_default();
        let _ = write!(text, "\n{}{version}, {}.\n", column.kernel, column.machine);
    }
    text += &exceptions("Skipped there:", columns, "skipped");
    text += &exceptions("Passed only when retried:", columns, "flaky");
    text + &exceptions("Failed:", columns, "FAIL")
}

fn summary(columns: &[Column]) -> String {
    let groups: BTreeSet<&str> =
        columns.iter().flat_map(|column| column.outcomes.keys()).map(|name| group_of(name)).collect();
    let heads: String = columns.iter().map(|column| format!(" {} |", short(&column.kernel))).collect();
    let mut text = format!("| scenarios |{heads}\n| --- |{}\n", " --- |".repeat(columns.len()));
    for group in groups {
        let cells: String = columns.iter().map(|column| format!(" {} |", cell(column.of_group(group)))).collect();
        let _ = writeln!(text, "| {group} |{cells}");
    }
    let cells: String = columns.iter().map(|column| format!(" {} |", cell(column.outcomes.values()))).collect();
    text + &format!("| all |{cells}\n")
}

/// The numbers of a release: `6.1.0-56` of `6.1.0-56-cloud-amd64`.
fn short(kernel: &str) -> &str {
    kernel.split("-cloud-").next().unwrap_or(kernel)
}

fn cell<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let words: Vec<_> = outcomes.map(Outcome::word).collect();
    let part = |word, shown| {
        let count = words.iter().filter(|other| **other == word).count();
        (count > 0).then(|| format!("{count} {shown}"))
    };
    let parts = [("pass", "pass"), ("flaky", "flaky"), ("FAIL", "**FAIL**"), ("skipped", "skipped")];
    let parts: Vec<_> = parts.into_iter().filter_map(|(word, shown)| part(word, shown)).collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// A list of scenarios with this outcome, by kernel and reason.
fn exceptions(title: &str, columns: &[Column], word: &str) -> String {
    let mut text = String::new();
    for column in columns {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, outcome) in column.outcomes.iter().filter(|(_, outcome)| outcome.word() == word) {
            by_reason.entry(outcome.why().unwrap_or_default()).or_default().push(short_name(name));
        }
        for (why, names) in by_reason {
            let all = if names.len() == column.outcomes.len() { vec!["everything"] } else { names };
            let _ = writeln!(text, "- {}: {} – {}", short(&column.kernel), all.join(", "), indented(why));
        }
    }
    if text.is_empty() { text } else { format!("\n{title}\n\n{text}") }
}

fn indented(text: &str) -> String {
    text.trim().replace('\n', "\n  ")
}

/// All results as JSON.
pub(super) fn json(columns: &[Column]) -> Value {
    let column = |column: &Column| {
        let scenarios: serde_json::Map<String, Value> = column
            .outcomes
            .iter()
            .map(|(name, outcome)| {
                let mut told = json!({"outcome": outcome.word().to_lowercase()});
                if let Some(why) = outcome.why() {
                    told["why"] = why.into();
                }
                (short_name(name).to_owned(), told)
            })
            .collect();
        json!({
            "kernel": column.kernel,
            "version": column.version,
            "machine": column.machine,
            "check": column.check,
            "scenarios": scenarios,
        })
    };
    Value::Array(columns.iter().map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let outcomes = |of_two: Outcome| {
            BTreeMap::from([
                ("live::time_wait::one".to_owned(), Outcome::Pass),
                ("live::time_wait::two".to_owned(), of_two),
                ("live::witness".to_owned(), Outcome::Skipped("no kprobes".to_owned())),
            ])
        };
        let debian = Column {
            kernel: "6.1.0-56-cloud-amd64".to_owned(),
            version: Some("6.1.192-2".to_owned()),
            machine: "QEMU, TCG".to_owned(),
            check: String::new(),
            outcomes: outcomes(Outcome::Fail("first\nsecond\n".to_owned())),
        };
        let host = Column {
            kernel: "6.18".to_owned(),
            version: None,
            machine: "this machine".to_owned(),
            check: String::new(),
            outcomes: outcomes(Outcome::Flaky("third".to_owned())),
        };
        vec![debian, host]
    }

    #[test]
    fn a_table_has_a_column_for_each_kernel_and_tells_every_exception() {
        let expected = "\
| scenarios | 6.1.0-56 | 6.18 |
| --- | --- | --- |
| time_wait | 1 pass, 1 **FAIL** | 1 pass, 1 flaky |
| witness | 1 skipped | 1 skipped |
| all | 1 pass, 1 **FAIL**, 1 skipped | 1 pass, 1 flaky, 1 skipped |

6.1.0-56-cloud-amd64 (Debian 6.1.192-2), QEMU, TCG.

6.18, this machine.

Skipped there:

- 6.1.0-56: witness – no kprobes
- 6.18: witness – no kprobes

Passed only when retried:

- 6.18: time_wait::two – third

Failed:

- 6.1.0-56: time_wait::two – first
  second
";
        assert_eq!(markdown(&columns()), expected);
    }

    #[test]
    fn a_kernel_is_good_unless_something_failed() {
        assert_eq!(columns().iter().map(Column::is_good).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn programs_get_every_outcome_with_its_reason() {
        let told = json(&columns());
        assert_eq!(told[0]["scenarios"]["time_wait::two"], json!({"outcome": "fail", "why": "first\nsecond\n"}));
        assert_eq!(told[1]["scenarios"]["witness"], json!({"outcome": "skipped", "why": "no kprobes"}));
        assert_eq!(told[1]["version"], Value::Null);
    }
}
