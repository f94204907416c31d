//! `cargo xtask test`: every test, in one run.

use anyhow::{Result, bail};

use crate::setup::{self, TEST_TOOLS};
use crate::{command, host, workspace};

/// How many tests run at once. Those of the live kernel mostly wait for TIME_WAITs of 60 s, each in its own namespace.
const THREADS: &str = "48";

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
    // The tests of whole programs run the binary, which `cargo test` alone would not build.
    command::run(command::cargo().arg("build").args(packages))?;
    let mut tests = command::cargo();
    tests.env("TCPTRACE_BIN", workspace::target().join("debug/tcptrace")).env("RUST_TEST_THREADS", THREADS);
    tests.env("TCPTRACE_TEST_PYTHON", setup::python::interpreter());
    command::run(tests.args(["test", "--no-fail-fast"]).args(packages).args(&args.filter))
}
