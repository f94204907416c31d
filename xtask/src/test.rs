//! `cargo xtask test`: every test.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, TEST_TOOLS};
use crate::{command, host, libtest, workspace};

/// Tells test programs how many tests to run at once.
const AT_ONCE: &str = "RUST_TEST_THREADS";

/// As many as that, as they mostly wait for TIME_WAITs of 60 s, each in its own namespace.
const THREADS: &str = "48";

/// More tests than that do not fail by accident.
const MOST_ACCIDENTS: usize = 4;

/// As many as that at a second try.
const THREADS_AGAIN: &str = "2";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("the tests trace the live kernel, which is for root: run `cargo xtask test` as root");
    }
    setup::require(&TEST_TOOLS)?;
    setup::python::require()?;
    let packages = ["--locked", "--workspace", "--exclude", workspace::EBPF_PACKAGE];
    // The tests of whole programs run the binary, which `cargo test` alone might not build. With the examples, libraries have
    // the features that tests need, and are not built twice.
    command::run(command::cargo().args(["build", "--bins", "--examples"]).args(packages))?;
    let tests = |of: &[&str]| {
        let mut tests = command::cargo();
        tests.env("TCPTRACE_BIN", workspace::target().join("debug/tcptrace"));
        tests.env("TCPTRACE_TEST_PYTHON", setup::python::interpreter());
        tests.args(["test", "--no-fail-fast"]).args(packages).args(of);
        tests
    };
    let pure =
        [&["--lib", "--bins", "--examples"][..], &["--doc"]].map(|of| command::run(tests(of).args(&args.filter)));
    let of_programs = run_twice(|| tests(&["--test", "*"]), args.filter.as_deref());
    pure.into_iter().chain([of_programs]).collect()
}

/// Other tests, and other programs, shake the one kernel that these are about. So what fails runs once more, with little beside
/// it, unless that is too much for an accident; what does well only then is named.
fn run_twice(tests: impl Fn() -> Command, filter: Option<&str>) -> Result<()> {
    let (is_good, printed) = command::show(tests().env(AT_ONCE, THREADS).args(filter))?;
    if is_good {
        return Ok(());
    }
    let failed = libtest::failed(&printed).context("a test program did not come to its end")?;
    match failed.len() {
        0 => bail!("the tests could not be built, or not be run"),
        1..=MOST_ACCIDENTS => {}
        many => bail!("{many} tests have failed"),
    }
    let again = ["--", "--exact"].into_iter().chain(failed.iter().map(String::as_str));
    command::run(tests().env(AT_ONCE, THREADS_AGAIN).args(again)).context("at the second try, too")?;
    eprintln!("Passed at the second try only: {}", failed.join(", "));
    Ok(())
}
