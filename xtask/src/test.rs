//! `cargo xtask test`: runs every test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::outcome::{self, Outcome, Outcomes};
use crate::setup::{self, TEST_TOOLS};
use crate::{command, host, workspace};

const PACKAGES: [&str; 4] = ["--locked", "--workspace", "--exclude", workspace::EBPF_PACKAGE];

/// Environment variable with the number of tests to run at once.
const AT_ONCE: &str = "RUST_TEST_THREADS";

/// Many, because most tests wait for TIME_WAITs of 60 s, each in its own namespace.
const THREADS: &str = "32";

/// More failures than this are no accident.
const MOST_ACCIDENTS: usize = 6;

/// Fewer when retrying.
const THREADS_AGAIN: &str = "2";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
}

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("the tests trace the live kernel, which needs root: run `cargo xtask test` as root");
    }
    setup::require(&TEST_TOOLS)?;
    setup::python::require()?;
    // End-to-end tests run the binary, which `cargo test` alone might not build. Building the examples, too, gives
    // libraries the features that tests need, so that they are built only once.
    command::run(command::cargo().args(["build", "--bins", "--examples"]).args(PACKAGES))?;
    let record = Record::begin()?;
    let (pure, mut outcomes) = record.of(tests(&["--lib", "--bins", "--examples"]).args(&args.filter))?;
    let documented = command::run(tests(&["--doc"]).args(&args.filter));
    let mut programs = Outcomes::new();
    let of_programs = run_twice(&record, &mut programs, args.filter.as_deref());
    outcomes.extend(programs);
    eprint!("\n{}", outcome::told(&outcomes));
    ensure!(pure, "library tests failed");
    documented.and(of_programs)
}

/// A subset of `cargo test`.
fn tests(of: &[&str]) -> Command {
    let mut tests = command::cargo();
    tests.env("TCPTRACE_BIN", workspace::target().join("debug/tcptrace"));
    tests.env("TCPTRACE_TEST_PYTHON", setup::python::interpreter());
    tests.args(["test", "--no-fail-fast"]).args(PACKAGES).args(of);
    tests
}

/// The file in which tests record their outcomes.
struct Record(PathBuf);

impl Record {
    fn begin() -> Result<Self> {
        let path = workspace::target().join("test-record.jsonl");
        fs::write(&path, "").with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn read(&self) -> Result<String> {
        fs::read_to_string(&self.0).with_context(|| format!("cannot read {}", self.0.display()))
    }

    /// Runs tests. Returns whether all passed, and what they recorded.
    fn of(&self, tests: &mut Command) -> Result<(bool, Outcomes)> {
        let before = self.read()?.len();
        let is_good = command::run(tests.env(outcome::RECORD, &self.0)).is_ok();
        Ok((is_good, outcome::read(&self.read()?[before..])))
    }
}

/// End-to-end tests share one kernel and can disturb each other. So a few failures are retried once, with few tests at
/// a time.
fn run_twice(record: &Record, outcomes: &mut Outcomes, filter: Option<&str>) -> Result<()> {
    let (is_good, first) = record.of(tests(&["--test", "*"]).env(AT_ONCE, THREADS).args(filter))?;
    *outcomes = first;
    if is_good {
        return Ok(());
    }
    ensure!(outcomes.values().all(|outcome| *outcome != Outcome::Unended), "a test program ended before its tests did");
    let failed = outcome::failed(outcomes);
    match failed.len() {
        0 => bail!("the tests could not be built or run"),
        1..=MOST_ACCIDENTS => {}
        many => bail!("{many} tests failed"),
    }
    let again = ["--", "--exact"].into_iter().chain(failed.iter().map(String::as_str));
    let (is_good, second) = record.of(tests(&["--test", "*"]).env(AT_ONCE, THREADS_AGAIN).args(again))?;
    outcome::take_second(outcomes, second);
    ensure!(is_good && outcome::failed(outcomes).is_empty(), "tests failed again when retried");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure that was not recorded would be forgotten when others are retried.
    #[test]
    fn every_test_program_writes_down_how_its_tests_went() {
        let programs = ["tcptrace/tests", "tests/tests", "tests/tests/docs", "tests/tests/export", "tests/tests/live"]
            .map(|folder| {
                let files =
                    fs::read_dir(workspace::root().join(folder)).expect("a folder").flatten().map(|file| file.path());
                let is_main =
                    |path: &PathBuf| path.is_file() && (folder.matches('/').count() == 1 || path.ends_with("main.rs"));
                files.filter(is_main).collect::<Vec<_>>()
            });
        for program in programs.iter().flatten() {
            let text = fs::read_to_string(program).expect("a source");
            let has_ours = text.contains("use tcptrace_tests::test;") || text.contains("#[macro_use(test)]");
            assert!(has_ours, "{} has the standard #[test]", program.display());
        }
    }
}
