//! `cargo xtask ebpf --check`: whether the committed object matches its sources.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::build;
use super::record::{Makers, Record};
use super::toolchain::Toolchain;
use crate::{command, host, workspace};

/// Fails if the committed object is stale; prints how it was checked.
pub(super) fn run(digest_only: bool) -> Result<()> {
    let (record, object) = committed().with_context(stale)?;
    println!("Compared digests: the object and its sources match the record.");
    if digest_only {
        println!("Did not rebuild it, as --digest-only says.");
        return Ok(());
    }
    let toolchain = Toolchain::select()
        .context("cannot check by rebuilding (the digests agree; --digest-only checks no more than that)")?;
    eprintln!("Rebuilding the eBPF programs with {toolchain}");
    let fresh = build::build(&toolchain, false)?;
    let makers = Makers::of(&toolchain);
    if makers == record.makers {
        compare(&object, &fresh).with_context(stale)
    } else {
        println!("Could not compare bytes: the object was made by {}; this machine has {makers}.", record.makers);
        load(&fresh)
    }
}

fn committed() -> Result<(Record, Vec<u8>)> {
    let record = Record::read()?;
    let object = fs::read(workspace::object()).context("cannot read it")?;
    record.require_object(&object)?;
    record.require_sources()?;
    Ok((record, object))
}

fn stale() -> String {
    format!("{} is stale (`cargo xtask ebpf` makes it anew)", workspace::shown(&workspace::object()))
}

fn compare(committed: &[u8], fresh: &[u8]) -> Result<()> {
    if committed != fresh {
        let kept = build::target_dir().join("tcptrace.bpf.o");
        fs::write(&kept, fresh).with_context(|| format!("cannot write {}", kept.display()))?;
        bail!(
            "the same toolchain makes other bytes now: {} committed, {} fresh, kept as {}",
            committed.len(),
            fresh.len(),
            workspace::shown(&kept)
        );
    }
    println!("Compared bytes: the same toolchain makes the same {} bytes.", fresh.len());
    Ok(())
}

/// The best check where bytes cannot be compared: the kernel accepts the programs.
fn load(fresh: &[u8]) -> Result<()> {
    if !host::is_root() {
        println!("Did not load the fresh build into the kernel: that needs root.");
        return Ok(());
    }
    let path = build::target_dir().join("tcptrace.bpf.o");
    fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
    load_file(&path).context("the kernel rejects the fresh build")?;
    println!("Loaded the fresh build into the kernel ({}): it accepts the programs.", host::kernel_release());
    Ok(())
}

fn load_file(object: &Path) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "tcptrace", "--bin", "tcptrace", "--", "check", "--object"]);
    command::run(cargo.arg(object))
}
