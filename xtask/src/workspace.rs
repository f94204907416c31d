//! Paths in this workspace.

use std::env;
use std::path::{Path, PathBuf};

/// Name of the package with the eBPF programs.
pub(crate) const EBPF_PACKAGE: &str = "tcptrace-ebpf";

/// Root of the workspace, from Cargo's environment; otherwise where this program was built.
pub(crate) fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target`.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The eBPF object that the tcptrace crate embeds.
pub(crate) fn object() -> PathBuf {
    root().join("tcptrace/bpf/tcptrace.bpf.o")
}

/// The record of how [`object()`] was made.
pub(crate) fn record() -> PathBuf {
    root().join("tcptrace/bpf/tcptrace.bpf.toml")
}

/// `path` as shown to users: relative to the workspace if it is inside.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
