//! The compiler and the linker for BPF.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// The target that the eBPF programs are compiled for.
pub(super) const TARGET: &str = "bpfel-unknown-none";

/// Environment variable that selects the toolchain: `debian` or `nightly`.
const CHOICE: &str = "TCPTRACE_BPF_TOOLCHAIN";

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where the compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Debian's packages, which have the core library for BPF, compiled.
    Debian,
    /// rustup's nightly, which compiles the core library from its `rust-src` component.
    Nightly,
}

/// A matching compiler and linker.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// Where the compiler comes from.
    pub(super) origin: Origin,
    /// First line of `rustc -vV`.
    pub(super) rustc: String,
    /// Version of the compiler's LLVM.
    pub(super) rustc_llvm: String,
    /// The compiler's own folder.
    pub(super) sysroot: PathBuf,
    /// The linker.
    pub(super) linker: Linker,
}

/// An installed bpf-linker.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    /// Its path.
    pub(super) path: PathBuf,
    /// The output of `bpf-linker --version`.
    pub(crate) version: String,
    /// Version of its LLVM.
    pub(super) llvm: String,
}

impl Toolchain {
    /// The toolchain that the environment asks for, otherwise the first complete one.
    pub(super) fn select() -> Result<Self> {
        let mut missing = Vec::new();
        for origin in wanted()? {
            match Self::of(origin) {
                Ok(toolchain) => return Ok(toolchain),
                Err(why) => missing.push(format!("  {}: {why:#}", origin.name())),
            }
        }
        bail!(
            "cannot build the eBPF programs, because no toolchain for them is complete:\n{}\n\
             `cargo xtask setup` installs Debian's (as root)",
            missing.join("\n")
        )
    }

    fn of(origin: Origin) -> Result<Self> {
        origin.require_programs()?;
        let about = command::output(origin.rustc().arg("-vV"))?;
        let sysroot = PathBuf::from(command::output(origin.rustc().args(["--print", "sysroot"]))?.trim());
        origin.require_core(&sysroot)?;
        let linker = Linker::find()?;
        let rustc = about.lines().next().unwrap_or_default().to_owned();
        let Some(rustc_llvm) = about.lines().find_map(|line| line.strip_prefix("LLVM version: ")) else {
            bail!("`rustc -vV` names no LLVM version");
        };
        if major(rustc_llvm) != linker.llvm_major() {
            bail!(
                "{rustc} writes code of LLVM {rustc_llvm}, but {} is built with LLVM {}, and both must be of the same \
                 major version: install a bpf-linker built with LLVM {}",
                linker.path.display(),
                linker.llvm,
                major(rustc_llvm)
            );
        }
        Ok(Self { origin, rustc_llvm: rustc_llvm.to_owned(), rustc, sysroot, linker })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, rustc, rustc_llvm, linker, .. } = self;
        let Linker { version, llvm, .. } = linker;
        write!(f, "{}: {rustc}, LLVM {rustc_llvm}; {version}, LLVM {llvm}", origin.description())
    }
}

impl Origin {
    /// Its name in the environment and in the record.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Debian => "Debian's toolchain",
            Self::Nightly => "rustup's nightly toolchain",
        }
    }

    /// This toolchain's Cargo, set to use this toolchain's compiler.
    pub(super) fn cargo(self) -> Command {
        match self {
            Self::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                // aya-ebpf uses BPF inline assembly, which only this variable unlocks on a stable compiler.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "aya_ebpf");
                command
            }
            Self::Nightly => nightly("cargo"),
        }
    }

    fn rustc(self) -> Command {
        match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => nightly("rustc"),
        }
    }

    fn require_programs(self) -> Result<()> {
        match self {
            Self::Debian => {
                for (file, package) in [(DEBIAN_RUSTC, "rustc-web"), (DEBIAN_CARGO, "cargo-web")] {
                    if !Path::new(file).is_file() {
                        bail!("{file} is missing (Debian package {package})");
                    }
                }
            }
            Self::Nightly => {
                if command::find("rustup").is_none() {
                    bail!("rustup is missing (see rustup.rs)");
                }
                if command::output(nightly("rustc").arg("-V")).is_err() {
                    bail!("rustup has no nightly (rustup toolchain install nightly --component rust-src)");
                }
            }
        }
        Ok(())
    }

    fn require_core(self, sysroot: &Path) -> Result<()> {
        let rustlib = sysroot.join("lib/rustlib");
        let (needed, remedy) = match self {
            Self::Debian => (rustlib.join(TARGET), "Debian package libstd-rust-web-dev-bpf"),
            Self::Nightly => (rustlib.join("src/rust/library"), "rustup component add rust-src --toolchain nightly"),
        };
        if !needed.is_dir() {
            bail!("the core library for BPF is missing: there is no {} ({remedy})", needed.display());
        }
        Ok(())
    }
}

impl Linker {
    /// The bpf-linker that is found in `PATH` or where Cargo installs programs.
    pub(crate) fn find() -> Result<Self> {
        let Some(path) = command::find("bpf-linker") else {
            bail!("bpf-linker is missing (`cargo install bpf-linker`, for the LLVM of the compiler)");
        };
        let version = command::output(Command::new(&path).arg("--version"))?.trim().to_owned();
        // An option of LLVM itself: it prints LLVM's version and exits before it reads any input.
        let about =
            command::output(Command::new(&path).args(["--llvm-args=--version", "-o", "/dev/null", "/dev/null"]))?;
        match llvm_version(&about) {
            Some(llvm) => Ok(Self { llvm: llvm.to_owned(), path, version }),
            None => bail!("{} does not say which LLVM it is built with", path.display()),
        }
    }

    /// Major version of its LLVM.
    pub(crate) fn llvm_major(&self) -> &str {
        major(&self.llvm)
    }
}

/// Major version, of a version such as `22.1.8`.
fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

fn llvm_version(about: &str) -> Option<&str> {
    about.lines().find_map(|line| Some(line.split_once("LLVM version ")?.1.trim()))
}

fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
}

fn wanted() -> Result<Vec<Origin>> {
    match env::var(CHOICE).ok().as_deref() {
        None | Some("") => Ok(vec![Origin::Debian, Origin::Nightly]),
        Some("debian") => Ok(vec![Origin::Debian]),
        Some("nightly") => Ok(vec![Origin::Nightly]),
        Some(other) => bail!("{CHOICE} is `{other}`: set it to `debian` or `nightly`, or not at all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_llvm_is_read_from_what_llvm_says() {
        let about = "Debian LLVM version 22.1.8\n  Optimized build.\n";
        assert_eq!(llvm_version(about), Some("22.1.8"));
        assert_eq!(llvm_version("LLVM (http://llvm.org/):\n  LLVM version 21.1.0-rust\n"), Some("21.1.0-rust"));
        assert_eq!(llvm_version("no idea"), None);
    }

    #[test]
    fn major_versions() {
        assert_eq!(major("22.1.8"), "22");
        assert_eq!(major("22"), "22");
    }
}
