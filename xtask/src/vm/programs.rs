//! The programs for a virtual machine: tcptrace, the tests, and their actor, all statically linked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::image;
use super::kernel::Arch;
use crate::{command, workspace};

/// Builds them for `arch`, and copies them into the folder `into` under their names. Lives need the oracle in place of
/// the tests. tcptrace can be given.
pub(super) fn build(arch: Arch, is_for_lives: bool, given: Option<&Path>, into: &Path) -> Result<()> {
    // It may be where the last run has put it.
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let given = given.map(read).transpose()?;
    image::fresh(into)?;
    let tcptrace = ("tcptrace", "tcptrace", ["--bin", "tcptrace"]);
    let oracle = ("xtask", "xtask", ["--bin", "xtask"]);
    let live = ("live", "tcptrace-tests", ["--test", "live"]);
    let actor = ("actor", "tcptrace-tests", ["--bin", "actor"]);
    let wanted: &[_] = if is_for_lives { &[tcptrace, oracle] } else { &[tcptrace, live, actor] };
    for &(name, package, what) in wanted {
        let bytes = match &given {
            Some(given) if package == "tcptrace" => given.clone(),
            _ => read(&build_one(arch, package, what)?)?,
        };
        image::executable(&into.join(name), &bytes)?;
    }
    Ok(())
}

/// Each start of a tracer takes a second or more on an emulated processor, and three times as long without
/// optimisation.
const OPTIMISED: [&str; 2] = ["--config", "profile.dev.package.tcptrace.opt-level=2"];

/// Builds a program in the profile of `cargo xtask test`, so that its dependencies are not built again.
fn build_one(arch: Arch, package: &str, what: [&str; 2]) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["rustc", "--locked", "--package", package]).args(what).args(OPTIMISED);
    if Arch::host() != Some(arch) {
        // Skip debug information, which would be stripped anyway.
        cargo.args(["--target", arch.target()]).env("CARGO_PROFILE_DEV_DEBUG", "false");
        if arch == Arch::Arm64 {
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        }
    }
    cargo.args([
        "--message-format",
        "json-render-diagnostics",
        "--",
        "-Ctarget-feature=+crt-static",
        "-Cstrip=symbols",
    ]);
    eprintln!("+ {}", command::line(&cargo));
    let output = cargo.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run `{}`", command::line(&cargo)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", command::line(&cargo), output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    executable(&said, what[1]).with_context(|| format!("cargo does not print the path of {}", what[1]))
}

/// The path of this program in Cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        Some(PathBuf::from(message["executable"].as_str().filter(|_| is_it)?))
    })
}

/// The tests in a test program whose names contain one of `filters` (all without filters), in order.
pub(super) fn scenarios(arch: Arch, programs: &Path, filters: &[String]) -> Result<Vec<String>> {
    let mut list = if Arch::host() == Some(arch) {
        Command::new(programs.join("live"))
    } else {
        // The program may be for another architecture; the host's has the same tests.
        let mut cargo = command::cargo();
        cargo.args(["test", "--locked", "--package", "tcptrace-tests", "--test", "live", "--"]);
        cargo
    };
    let names = listed(&command::output(list.current_dir(workspace::root()).arg("--list"))?);
    let is_wanted = |name: &String| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let names: Vec<_> = names.into_iter().filter(is_wanted).collect();
    if names.is_empty() {
        bail!("no scenario has {} in its name", filters.join(" or "));
    }
    Ok(names)
}

/// The names in the `--list` output of a test program.
fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.trim_end().strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_names_of_tests_only() {
        assert_eq!(listed("a::b: test\nc: benchmark\nd: test\n\n2 tests, 1 benchmark\n"), ["a::b", "d"]);
    }

    #[test]
    fn cargo_tells_where_a_program_is() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"live"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"live"},"executable":"/t/live-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "live"), Some(PathBuf::from("/t/live-1")));
        assert_eq!(executable(messages, "none"), None);
    }
}
