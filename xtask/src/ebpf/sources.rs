//! The digest of everything that the object is made from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::workspace;

/// The crates whose sources make the object.
const CRATES: [&str; 2] = ["tcptrace-common", workspace::EBPF_PACKAGE];

/// SHA-256 over the sources and manifests of the crates of the object and the versions of aya's eBPF crates, in hex.
pub(super) fn digest() -> Result<String> {
    let root = workspace::root();
    let mut hash = Sha256::new();
    for file in files(&root)? {
        let contents = fs::read(root.join(&file)).with_context(|| format!("cannot read {}", file.display()))?;
        add(&mut hash, file.to_string_lossy().as_bytes());
        add(&mut hash, &contents);
    }
    for version in ebpf_crate_versions(&root.join("Cargo.lock"))? {
        add(&mut hash, version.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of `bytes`, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hashes every part with its length, so that different lists of parts differ.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Relative paths, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in CRATES {
        collect(root, Path::new(name), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(root.join(folder)).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let path = folder.join(entry.file_name());
        if entry.file_type().with_context(failed)?.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") || path.ends_with("Cargo.toml") {
            files.push(path);
        }
    }
    Ok(())
}

/// `name version` of each of aya's eBPF crates in the lock file, in its order (which is sorted).
fn ebpf_crate_versions(lock: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot read {}", lock.display());
    let lock: Table = fs::read_to_string(lock).with_context(failed)?.parse().with_context(failed)?;
    let packages = lock.get("package").and_then(Value::as_array).with_context(|| "Cargo.lock has no packages")?;
    let named = packages.iter().filter_map(|package| {
        let name = package.get("name")?.as_str()?;
        let version = package.get("version")?.as_str()?;
        name.starts_with("aya-ebpf").then(|| format!("{name} {version}"))
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_in_a_fixed_order() {
        let files = files(&workspace::root()).expect("the crates are there");
        assert!(files.is_sorted());
        assert!(files.contains(&PathBuf::from("tcptrace-common/src/lib.rs")));
        assert!(files.contains(&PathBuf::from("tcptrace-ebpf/Cargo.toml")));
    }

    #[test]
    fn the_versions_of_ayas_ebpf_crates_are_read_from_the_lock_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lock = folder.path().join("Cargo.lock");
        let text = "version = 4\n[[package]]\nname = \"aya\"\nversion = \"0.14.0\"\n\
                    [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n";
        fs::write(&lock, text).expect("writable");
        assert_eq!(ebpf_crate_versions(&lock).expect("readable"), ["aya-ebpf 0.2.1"]);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digest = |parts: [&[u8]; 2]| {
            let mut hash = Sha256::new();
            parts.into_iter().for_each(|part| add(&mut hash, part));
            hex(&hash.finalize())
        };
        assert_ne!(digest([b"ab", b"c"]), digest([b"a", b"bc"]));
    }

    #[test]
    fn digests_are_hex() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
