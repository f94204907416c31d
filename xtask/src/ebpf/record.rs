//! The file beside the object that records how it was made.

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use super::sources;
use super::toolchain::Toolchain;
use crate::workspace;

/// How an object was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Digest of the object.
    object: String,
    /// Digest of its sources.
    sources: String,
    /// The compiler and the linker.
    pub(super) makers: Makers,
}

/// The tools that determine the bytes for given sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Makers {
    toolchain: String,
    rustc: String,
    rustc_llvm: String,
    linker: String,
    linker_llvm: String,
}

impl Record {
    /// The record of `object`, which `toolchain` just made from the current sources.
    pub(super) fn new(toolchain: &Toolchain, object: &[u8]) -> Result<Self> {
        Ok(Self { object: sources::sha256(object), sources: sources::digest()?, makers: Makers::of(toolchain) })
    }

    /// Reads the committed record.
    pub(super) fn read() -> Result<Self> {
        let path = workspace::record();
        let read = || Self::from_table(&fs::read_to_string(&path)?.parse()?);
        read().with_context(|| format!("cannot read {}, the record of how it was made", workspace::shown(&path)))
    }

    /// Fails unless `object` is the recorded one.
    pub(super) fn require_object(&self, object: &[u8]) -> Result<()> {
        let actual = sources::sha256(object);
        if actual != self.object {
            bail!("it is not the recorded object: sha256 is {actual}, recorded is {}", self.object);
        }
        Ok(())
    }

    /// Fails unless the sources are still the recorded ones.
    pub(super) fn require_sources(&self) -> Result<()> {
        let actual = sources::digest()?;
        if actual != self.sources {
            bail!("its sources have changed since it was made: their digest is {actual}, recorded is {}", self.sources);
        }
        Ok(())
    }

    fn from_table(table: &Table) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let value = table.get(name).and_then(Value::as_str);
            Ok(value.with_context(|| format!("it has no `{name}`"))?.to_owned())
        };
        let makers = Makers {
            toolchain: text("toolchain")?,
            rustc: text("rustc")?,
            rustc_llvm: text("rustc_llvm")?,
            linker: text("linker")?,
            linker_llvm: text("linker_llvm")?,
        };
        Ok(Self { object: text("object_sha256")?, sources: text("sources_sha256")?, makers })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, sources, makers } = self;
        writeln!(
            f,
            "# How tcptrace.bpf.o was made. Written by `cargo xtask ebpf`, checked by `cargo xtask ebpf --check`."
        )?;
        writeln!(f, "object_sha256 = {object:?}")?;
        writeln!(f, "sources_sha256 = {sources:?}")?;
        writeln!(f, "toolchain = {:?}", makers.toolchain)?;
        writeln!(f, "rustc = {:?}", makers.rustc)?;
        writeln!(f, "rustc_llvm = {:?}", makers.rustc_llvm)?;
        writeln!(f, "linker = {:?}", makers.linker)?;
        writeln!(f, "linker_llvm = {:?}", makers.linker_llvm)
    }
}

impl Makers {
    /// The versions of `toolchain`.
    pub(super) fn of(toolchain: &Toolchain) -> Self {
        Self {
            toolchain: toolchain.origin.name().to_owned(),
            rustc: toolchain.rustc.clone(),
            rustc_llvm: toolchain.rustc_llvm.clone(),
            linker: toolchain.linker.version.clone(),
            linker_llvm: toolchain.linker.llvm.clone(),
        }
    }
}

impl fmt::Display for Makers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, rustc_llvm, linker, linker_llvm, .. } = self;
        write!(f, "{rustc}, LLVM {rustc_llvm}; {linker}, LLVM {linker_llvm}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let makers = Makers {
            toolchain: "debian".to_owned(),
            rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            rustc_llvm: "22.1.8".to_owned(),
            linker: "bpf-linker 0.13.0".to_owned(),
            linker_llvm: "22.1.8".to_owned(),
        };
        Record { object: sources::sha256(b"object"), sources: "00".to_owned(), makers }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let table: Table = record().to_string().parse().expect("TOML");
        assert_eq!(Record::from_table(&table).expect("complete"), record());
    }

    #[test]
    fn a_record_with_a_gap_says_what_is_missing() {
        let text = record().to_string().replace("linker_llvm", "other");
        let table: Table = text.parse().expect("TOML");
        let error = Record::from_table(&table).expect_err("incomplete");
        assert_eq!(error.to_string(), "it has no `linker_llvm`");
    }

    #[test]
    fn another_object_is_noticed() {
        record().require_object(b"object").expect("the same");
        let error = record().require_object(b"other").expect_err("another");
        assert!(error.to_string().starts_with("it is not the recorded object"), "{error}");
    }
}
