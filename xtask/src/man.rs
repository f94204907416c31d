//! `cargo xtask man`: the man pages, from the same definitions as `--help`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{command, workspace};

/// Options of `cargo xtask man`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for the pages; `target/man` by default
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Writes one page for the program, and one for each command.
///
/// # Errors
/// When a page cannot be made or written.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = args.folder.clone().unwrap_or_else(|| workspace::root().join("target/man"));
    let folder = std::path::absolute(folder)?;
    write(&folder)?;
    println!("{}: try `man -l {}`", folder.display(), folder.join("tcptrace.1").display());
    Ok(())
}

/// Writes them into a folder, given by its absolute path.
pub(crate) fn write(folder: &Path) -> Result<()> {
    // An example of the package writes them, because xtask builds without the program.
    let mut example = command::cargo();
    example.args(["run", "--quiet", "--locked", "--package", "tcptrace", "--example", "man", "--"]).arg(folder);
    command::run(&mut example)
}
