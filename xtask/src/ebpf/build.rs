//! Compiles the eBPF programs, so that the same sources make the same bytes everywhere.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::strip;
use super::toolchain::{Origin, TARGET, Toolchain};
use crate::{command, host, workspace};

/// The profile of the workspace's `Cargo.toml`, and the folder that Cargo names after it.
const PROFILE: &str = "bpf";

/// Environment variables of Cargo and rustc that a build inherits.
const KEPT: [&str; 7] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_", "CARGO_TERM_"];

/// Prefixes of variables that would change the result.
const CLEARED: [&str; 6] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUST_TARGET_PATH", "AYA_"];

/// Compiles and links the programs, and returns the object without its debug sections.
pub(super) fn build(toolchain: &Toolchain, bpf_log: bool) -> Result<Vec<u8>> {
    let target_dir = target_dir();
    let mut cargo = reproducible(toolchain.origin.cargo());
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?.join("\x1f"))
        .env("CARGO_TARGET_DIR", &target_dir)
        // The programs read no registers, so one object serves every architecture; aya's bindings require a choice
        // nevertheless.
        .env("AYA_BPF_TARGET_ARCH", "x86_64")
        .args(["build", "--locked", "--profile", PROFILE, "--target", TARGET, "--package", workspace::EBPF_PACKAGE]);
    if toolchain.origin == Origin::Nightly {
        cargo.args(["-Z", "build-std=core"]);
    }
    if bpf_log {
        cargo.args(["--features", "bpf-log"]);
    }
    command::run(&mut cargo)?;
    let linked = target_dir.join(TARGET).join(PROFILE).join(workspace::EBPF_PACKAGE);
    let object = fs::read(&linked).with_context(|| format!("cannot read {}, the linked object", linked.display()))?;
    let object = strip::without_debug_sections(&object)?;
    forbid_local_paths(&object)?;
    Ok(object)
}

/// A target folder of its own, because compiler and flags differ from the rest.
pub(super) fn target_dir() -> PathBuf {
    workspace::target().join("bpf")
}

pub(crate) fn reproducible(mut cargo: Command) -> Command {
    let set: BTreeSet<_> = cargo.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in env::vars_os() {
        if !set.contains(&name) && is_cleared(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(workspace::root());
    cargo
}

fn is_cleared(name: &str) -> bool {
    CLEARED.iter().any(|begin| name.starts_with(begin)) && !KEPT.iter().any(|begin| name.starts_with(begin))
}

fn rustflags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let linker = format!("-Clinker={}", toolchain.linker.path.display());
    let mut flags = vec![linker, "-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    for (local, neutral) in path_prefixes(toolchain)? {
        flags.push(format!("--remap-path-prefix={}={neutral}", local.display()));
    }
    Ok(flags)
}

/// Folders of this machine that the compiler would write into the object, each with its replacement. The last match
/// counts, so the workspace's subfolders come after it.
fn path_prefixes(toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    // Relative paths, so that the linker finds the sources and adds their lines to the BTF, for the verifier's log.
    let mut prefixes = vec![(workspace::root(), ".")];
    prefixes.push((target_dir(), "/target"));
    prefixes.extend(crate_folders(toolchain)?.into_iter().map(|folder| (folder, "/cargo")));
    prefixes.push((toolchain.sysroot.join("lib/rustlib/src/rust"), "/rustc"));
    Ok(prefixes)
}

/// The source folders of dependencies: one for each registry.
fn crate_folders(toolchain: &Toolchain) -> Result<BTreeSet<PathBuf>> {
    let mut cargo = reproducible(toolchain.origin.cargo());
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]);
    let metadata: Value =
        serde_json::from_str(&command::output(&mut cargo)?).context("cannot read Cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("Cargo's metadata has no packages")?;
    let foreign = packages.iter().filter(|package| !package["source"].is_null());
    let manifests = foreign.filter_map(|package| package["manifest_path"].as_str());
    Ok(manifests.filter_map(|manifest| Some(Path::new(manifest).parent()?.parent()?.to_owned())).collect())
}

pub(crate) fn forbid_local_paths(object: &[u8]) -> Result<()> {
    let folders = [Some(workspace::root()), Some(target_dir()), host::cargo_home(), env::home_dir()];
    for folder in folders.into_iter().flatten().filter(|folder| folder.parent().is_some()) {
        let needle = format!("{}/", folder.display()).into_bytes();
        if object.windows(needle.len()).any(|window| window == needle) {
            bail!("the result names {}, a folder of this machine, so that it is not reproducible", folder.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_bytes_is_cleared() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_LTO", "RUSTC_WRAPPER", "RUSTC"] {
            assert!(is_cleared(name), "{name}");
        }
    }

    #[test]
    fn what_cargo_needs_to_fetch_crates_is_kept() {
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "PATH", "HOME", "RUSTUP_HOME"] {
            assert!(!is_cleared(name), "{name}");
        }
    }

    #[test]
    fn an_object_that_names_the_workspace_is_refused() {
        let path = format!("\0{}/tcptrace-ebpf/src/main.rs\0", workspace::root().display());
        let error = forbid_local_paths(path.as_bytes()).expect_err("the path is there");
        assert!(error.to_string().contains("not reproducible"), "{error}");
        forbid_local_paths(b"\0./tcptrace-ebpf/src/main.rs\0").expect("a relative path is no folder of this machine");
    }
}
