//! What a test program printed, test by test.

use std::collections::BTreeMap;

/// How a scenario went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Pass,
    /// Not, with what it said.
    Fail(String),
    /// This kernel, or this machine, cannot do what it is about, for this reason.
    Cannot(String),
}

impl Outcome {
    /// It in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::Cannot(_) => "cannot",
        }
    }
}

/// What a test says that cannot be made here: see `tcptrace_tests::ability`.
const CANNOT: &str = "cannot: ";

/// How the tests went that `expected` names, out of what their program printed with `--show-output`. One that it does not
/// tell of has failed: the machine or the program ended before.
pub(crate) fn outcomes<'a>(expected: impl IntoIterator<Item = &'a str>, output: &str) -> BTreeMap<String, Outcome> {
    let said = sections(output);
    let results = results(output);
    let outcome = |name: &str| {
        let words = said.get(name).map(String::as_str).unwrap_or_default();
        // A failed test says where it did, and why in the next line.
        let cannot = words.lines().find_map(|line| line.trim().strip_prefix(CANNOT));
        match (results.get(name), cannot) {
            (Some(_), Some(why)) => Outcome::Cannot(why.to_owned()),
            (Some(true), None) => Outcome::Pass,
            (Some(false), None) => Outcome::Fail(words.trim().to_owned()),
            (None, _) => Outcome::Fail("it did not end".to_owned()),
        }
    };
    expected.into_iter().map(|name| (name.to_owned(), outcome(name))).collect()
}

/// The tests that ended, and whether well: `test a::b ... ok`.
fn results(output: &str) -> BTreeMap<&str, bool> {
    output
        .lines()
        .filter_map(|line| {
            let (name, result) = line.trim_end().strip_prefix("test ")?.split_once(" ... ")?;
            match result {
                "ok" => Some((name, true)),
                "FAILED" => Some((name, false)),
                _ => None,
            }
        })
        .collect()
}

/// The names of the tests that failed, in what programs printed one after the other; nothing if one of these did not come to
/// its end.
pub(crate) fn failed(output: &str) -> Option<Vec<String>> {
    let begun = output.lines().filter(|line| line.starts_with("running ") && line.contains(" test")).count();
    let ended = output.lines().filter(|line| line.starts_with("test result: ")).count();
    let names = results(output).into_iter().filter(|(_, is_good)| !is_good).map(|(name, _)| name.to_owned());
    (begun == ended).then(|| names.collect())
}

/// What each test said: `---- a::b stdout ----` and what follows.
fn sections(output: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in output.lines() {
        let line = line.trim_end();
        let title = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = title {
            current = Some(name.to_owned());
        } else if ["successes:", "failures:"].contains(&line) || line.starts_with("test result: ") {
            current = None;
        } else if let Some(name) = &current {
            let section = sections.entry(name.clone()).or_default();
            section.push_str(line);
            section.push('\n');
        }
    }
    sections
}

/// The names in what a test program prints with `--list`.
pub(crate) fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.trim_end().strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests\r
test basic::one ... ok\r
test basic::two has been running for over 60 seconds\r
test basic::two ... FAILED\r
test ring::three ... ok\r
test basic::four ... FAILED\r

successes:

---- ring::three stdout ----
cannot: io_uring is not there

successes:
    basic::one

failures:

---- basic::two stdout ----

thread 'basic::two' (7) panicked at tests/x.rs:1:1:
assertion failed
note: run with `RUST_BACKTRACE=1`

---- basic::four stdout ----

thread 'basic::four' (8) panicked at tests/src/ability.rs:1:1:
cannot: this kernel has no BTF

failures:
    basic::two
    basic::four

test result: FAILED. 2 passed; 2 failed
";

    #[test]
    fn each_test_has_its_outcome_and_its_words() {
        let found = outcomes(["basic::one", "basic::two", "ring::three", "basic::four", "basic::five"], OUTPUT);
        let failure = "thread 'basic::two' (7) panicked at tests/x.rs:1:1:\nassertion failed\nnote: run with \
                       `RUST_BACKTRACE=1`";
        let expected = [
            ("basic::five", Outcome::Fail("it did not end".into())),
            ("basic::four", Outcome::Cannot("this kernel has no BTF".into())),
            ("basic::one", Outcome::Pass),
            ("basic::two", Outcome::Fail(failure.into())),
            ("ring::three", Outcome::Cannot("io_uring is not there".into())),
        ];
        assert_eq!(found, expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }

    #[test]
    fn failures_are_known_where_every_program_ends() {
        let failed = |output: &str| failed(output).map(|names| names.join(" "));
        assert_eq!(failed(OUTPUT).as_deref(), Some("basic::four basic::two"));
        assert_eq!(failed(&OUTPUT.replace("FAILED", "ok")).as_deref(), Some(""));
        assert_eq!(failed(&format!("{OUTPUT}running 1 test\ntest aborts ... \n")), None);
    }

    #[test]
    fn what_nobody_asked_for_is_left_out() {
        assert_eq!(outcomes(["basic::one"], OUTPUT).len(), 1);
    }

    #[test]
    fn a_list_has_names_of_tests_only() {
        assert_eq!(listed("a::b: test\nc: benchmark\nd: test\n\n2 tests, 1 benchmark\n"), ["a::b", "d"]);
    }
}
