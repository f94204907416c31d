//! `cargo xtask ebpf`: the eBPF object, built from source or checked against it.
//!
//! The object is committed with a record of how it was made, so that building tcptrace needs only stable Rust. It is
//! reproducible: the same compiler and linker make the same bytes in any folder.

pub(crate) mod build;
mod check;
mod record;
pub(crate) mod sources;
mod strip;
pub(crate) mod toolchain;

use std::fs;
use std::path::{self, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace;
use record::Record;
use toolchain::Toolchain;

/// Options of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if the committed object does not match its sources; change nothing
    #[arg(long, conflicts_with_all = ["bpf_log", "output"])]
    check: bool,
    /// With --check: only compare digests, and build nothing
    #[arg(long, requires = "check")]
    digest_only: bool,
    /// Build in the programs' debug messages; needs --output
    #[arg(long, requires = "output")]
    bpf_log: bool,
    /// Write the object to this file instead of the committed one
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Builds or checks the object.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check::run(args.digest_only);
    }
    if let Some(path) = &args.output {
        forbid_committed_place(path)?;
    }
    let toolchain = Toolchain::select()?;
    eprintln!("Building the eBPF programs with {toolchain}");
    let object = build::build(&toolchain, args.bpf_log)?;
    match &args.output {
        Some(path) => write(path, &object),
        None => commit(&toolchain, &object),
    }
}

fn commit(toolchain: &Toolchain, object: &[u8]) -> Result<()> {
    let record = Record::new(toolchain, object)?;
    write(&workspace::object(), object)?;
    write(&workspace::record(), record.to_string().as_bytes())
}

/// Forbids to write the committed object without its record.
fn forbid_committed_place(path: &Path) -> Result<()> {
    let folder = |path: &Path| fs::canonicalize(path.parent()?).ok();
    let committed = workspace::object();
    let is_there = folder(&path::absolute(path)?).is_some_and(|path| folder(&committed) == Some(path));
    if is_there && path.file_name() == committed.file_name() {
        bail!("{} is the place of the committed object: leave `--output` out to write it", path.display());
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create folder {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("Wrote {} ({} bytes)", workspace::shown(path), bytes.len());
    Ok(())
}
