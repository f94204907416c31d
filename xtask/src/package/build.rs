//! Builds the program: statically linked, and with the same bytes in any folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::crates::Crates;
use crate::ebpf::build::{forbid_local_paths, reproducible};
use crate::{command, workspace};

/// The profile of the workspace's `Cargo.toml`, and the folder that Cargo names after it.
const PROFILE: &str = "dist";

/// A program at a random address has a relocation for each pointer in its data: 24 bytes, or a bit where they are packed.
const PACKED: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// What `zstd` leaves out: the compressors of level 2 and above. Traces and Parquet files are written at level 1, which
/// uses the first one alone. Reading needs none of them.
const UNUSED_COMPRESSORS: [&str; 7] = ["DFAST", "GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA"];

/// The target, named so that Cargo does not link build scripts and macros statically, too.
pub(super) fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// Builds it, and returns its path.
pub(super) fn build(crates: &Crates, epoch: &str) -> Result<PathBuf> {
    let target = workspace::target();
    let mut cargo = command::cargo();
    cargo
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(crates, &target).join("\x1f"))
        .env("CFLAGS", c_flags())
        .env("SOURCE_DATE_EPOCH", epoch);
    // The compiler that the user chose.
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    cargo.args(["rustc", "--locked", "--profile", PROFILE, "--target", &triple()]);
    cargo.args(["--package", "tcptrace", "--bin", "tcptrace", "--", PACKED]);
    command::run(&mut reproducible(cargo))?;
    let program = target.join(triple()).join(PROFILE).join("tcptrace");
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    forbid_local_paths(&bytes)?;
    Ok(program)
}

/// Flags of the C compiler. They replace those of the environment.
fn c_flags() -> String {
    UNUSED_COMPRESSORS.map(|it| format!("-DZSTD_EXCLUDE_{it}_BLOCK_COMPRESSOR")).join(" ")
}

/// Of the prefixes, the last match counts.
fn flags(crates: &Crates, target: &Path) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let fixed = ["-Ctarget-feature=+crt-static".to_owned(), remap(&workspace::root(), "."), remap(target, "/target")];
    let crates = crates.registries().into_iter().map(|folder| remap(folder, "/cargo"));
    fixed.into_iter().chain(crates).collect()
}
