//! A Python environment below Cargo's target directory, with the packages that the tests use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{command, workspace};

/// The program that makes the environment.
const PYTHON: &str = "python3";

/// Its folder in Cargo's target directory, where the tests look, too.
const FOLDER: &str = "python";

/// The interpreter of the environment; the tests get its path.
pub(crate) fn interpreter() -> PathBuf {
    workspace::target().join(FOLDER).join("bin/python")
}

/// Whether Python has this module.
pub(super) fn has(module: &str) -> bool {
    let import = format!("import {module}");
    command::find(PYTHON)
        .is_some_and(|python| command::output(Command::new(python).args(["-c", import.as_str()])).is_ok())
}

/// Makes the environment, unless it exists with the required packages. Returns whether it made one. Needs no
/// privileges.
pub(crate) fn require() -> Result<bool> {
    let wanted = workspace::root().join("tests/requirements.txt");
    let requirements = fs::read(&wanted).with_context(|| format!("cannot read {}", workspace::shown(&wanted)))?;
    let folder = workspace::target().join(FOLDER);
    // Written last, so its presence means that all packages are installed.
    let installed = folder.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == requirements) && interpreter().exists() {
        return Ok(false);
    }
    let python = command::find(PYTHON).with_context(|| format!("{PYTHON} is not installed"))?;
    command::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    command::run(Command::new(interpreter()).args(options).arg(&wanted))?;
    fs::write(&installed, requirements).with_context(|| format!("cannot write {}", workspace::shown(&installed)))?;
    Ok(true)
}
