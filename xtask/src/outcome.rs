//! The outcomes of tests, as the tests record them: see `tcptrace_tests::attempt`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Environment variable with the file that tests write to.
pub(crate) const RECORD: &str = "TCPTRACE_TEST_RECORD";

/// The beginning of a line, which may stand anywhere on a console.
const LINE: &str = "{\"outcome\":";

/// Names of tests with their program (`live::basic::reset`), and their outcomes.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// The outcome of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pass,
    /// Passed only when retried; has the reason of the first failure.
    Flaky(String),
    /// Failed, with this message.
    Fail(String),
    /// Began, but the program or the machine ended first.
    Unended,
    /// Skipped: this kernel, machine or user lacks what the test needs.
    Skipped(String),
}

impl Outcome {
    /// Its name.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Flaky(_) => "flaky",
            Self::Fail(_) | Self::Unended => "FAIL",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The message or the reason.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Pass => None,
            Self::Unended => Some("it did not end"),
            Self::Flaky(why) | Self::Fail(why) | Self::Skipped(why) => Some(why),
        }
    }

    /// Whether it needs a fix.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Fail(_) | Self::Unended)
    }
}

/// The outcomes in the text of the record or of a console.
pub(crate) fn read(text: &str) -> Outcomes {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(&line[line.find(LINE)?..]).ok());
    let outcome = |line: &Value| {
        let why = line["why"].as_str().unwrap_or_default().to_owned();
        Some(match line["outcome"].as_str()? {
            "begun" => Outcome::Unended,
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail(why),
            "skipped" => Outcome::Skipped(why),
            _ => return None,
        })
    };
    lines.filter_map(|line| Some((line["test"].as_str()?.to_owned(), outcome(&line)?))).collect()
}

/// The tests that failed, by their names in the program.
pub(crate) fn failed(outcomes: &Outcomes) -> Vec<String> {
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_failure());
    failed.map(|(name, _)| name.split_once("::").map_or(&**name, |(_, name)| name).to_owned()).collect()
}

/// Adds the outcomes of retried tests.
pub(crate) fn take_second(outcomes: &mut Outcomes, again: Outcomes) {
    for (name, second) in again {
        let Some(first) = outcomes.get_mut(&name).filter(|first| first.is_failure()) else { continue };
        *first = match second {
            Outcome::Pass => Outcome::Flaky(first.why().unwrap_or_default().to_owned()),
            second => second,
        };
    }
}

/// The outcomes other than a plain pass, by kind.
pub(crate) fn told(outcomes: &Outcomes) -> String {
    let of = |title: &str, word: &str| {
        let those: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.word() == word).collect();
        let lines = those.iter().map(|(name, outcome)| {
            let why = outcome.why().unwrap_or_default().trim().replace('\n', "\n    ");
            format!("  {name}: {why}\n")
        });
        if those.is_empty() {
            String::new()
        } else {
            format!("{title}: {}\n{}", those.len(), lines.collect::<String>())
        }
    };
    of("Skipped", "skipped") + &of("Passed only when retried", "flaky") + &of("Failed", "FAIL")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"outcome":"begun","test":"live::basic::one","why":null}
{"outcome":"begun","test":"live::basic::two","why":null}
{"outcome":"pass","test":"live::basic::one","why":null}
Booting{"outcome":"fail","test":"live::basic::two","why":"panicked at x.rs:1:1:\nno"}
{"outcome":"begun","test":"live::ring","why":null}
test ring ... ok
{"outcome":"skipped","test":"live::ring","why":"no io_uring"}
{"outcome":"begun","test":"flood::many","why":null}
{"outcome":"pa
"#;

    fn outcomes() -> Outcomes {
        let expected = [
            ("flood::many", Outcome::Unended),
            ("live::basic::one", Outcome::Pass),
            ("live::basic::two", Outcome::Fail("panicked at x.rs:1:1:\nno".to_owned())),
            ("live::ring", Outcome::Skipped("no io_uring".to_owned())),
        ];
        expected.map(|(name, outcome)| (name.to_owned(), outcome)).into()
    }

    #[test]
    fn each_test_has_its_outcome() {
        assert_eq!(read(RECORD), outcomes());
        assert_eq!(failed(&outcomes()), ["many", "basic::two"]);
    }

    #[test]
    fn a_second_try_changes_what_failed() {
        let mut outcomes = outcomes();
        let again = ["live::basic::one", "live::basic::two", "other::basic::two"];
        take_second(&mut outcomes, again.map(|name| (name.to_owned(), Outcome::Pass)).into());
        let expected = "\
Skipped: 1
  live::ring: no io_uring
Passed only when retried: 1
  live::basic::two: panicked at x.rs:1:1:
    no
Failed: 1
  flood::many: it did not end
";
        assert_eq!(told(&outcomes), expected);
        assert_eq!(failed(&outcomes), ["many"]);
    }
}
