//! Installs QEMU even if apt would have to remove a package for it, such as newer QEMU tools: it then unpacks QEMU's
//! packages below Cargo's target directory. QEMU finds its data and modules beside its program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Tool, apt_get};
use crate::{command, workspace};

/// The path of a QEMU program: in `PATH`, otherwise the unpacked one.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let unpacked = || Some(folder(program).join("usr/bin").join(program));
    // A cached target directory on a new machine may have QEMU without its libraries.
    command::find(program).or_else(|| unpacked().filter(|program| runs(program)))
}

fn runs(program: &Path) -> bool {
    command::output(Command::new(program).arg("--version")).is_ok()
}

fn folder(program: &str) -> PathBuf {
    workspace::target().join("qemu").join(program)
}

/// Runs `install` if that removes no package; otherwise unpacks the packages, and installs only the libraries they
/// need.
pub(super) fn install(qemu: Tool, install: &mut Command) -> Result<()> {
    let removed = removed_to_install(qemu.package)?;
    if removed.is_empty() {
        return command::run(install);
    }
    let folder = folder(qemu.file);
    eprintln!(
        "apt cannot install {} without removing {}. So it is unpacked into {}, and only its libraries are installed.",
        qemu.package,
        removed.join(", "),
        workspace::shown(&folder)
    );
    let needed = Needed::of(qemu.package)?;
    command::run(&mut apt_get("satisfy", &[&needed.libraries]).command())?;
    unpack(&needed.packages, &folder)?;
    ensure!(find(qemu.file).is_some(), "{} does not run from {}", qemu.file, folder.display());
    Ok(())
}

/// The packages that apt would remove to install `package`.
fn removed_to_install(package: &str) -> Result<Vec<String>> {
    let mut simulation = Command::new("apt-get");
    simulation.env("LC_ALL", "C").args(["install", "--simulate", "--no-install-recommends", package]);
    Ok(removed(&command::output(&mut simulation)?))
}

fn removed(simulation: &str) -> Vec<String> {
    let names = simulation.lines().filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// The packages that QEMU needs.
#[derive(Debug, PartialEq, Eq)]
struct Needed {
    /// Packages to unpack: QEMU's own, and the firmware that it looks for beside itself.
    packages: Vec<String>,
    /// Other dependencies, in Debian's syntax.
    libraries: String,
}

impl Needed {
    fn of(package: &str) -> Result<Self> {
        let about = command::output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
        Self::parse(package, &about).with_context(|| format!("apt does not print the dependencies of {package}"))
    }

    fn parse(package: &str, about: &str) -> Option<Self> {
        let depends = about.lines().find_map(|line| line.strip_prefix("Depends: "))?;
        let name = |dependency: &str| dependency.split(' ').next().unwrap_or_default().to_owned();
        let is_own = |dependency: &&str| ["qemu", "seabios"].iter().any(|own| name(dependency).contains(own));
        let (own, libraries): (Vec<_>, Vec<_>) = depends.split(", ").partition(is_own);
        let packages = [package].into_iter().chain(own).map(name).collect();
        Some(Self { packages, libraries: libraries.join(", ") })
    }
}

fn unpack(packages: &[String], into: &Path) -> Result<()> {
    let partial = into.with_extension("partial");
    for folder in [&partial, into].into_iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let downloads = partial.join("packages");
    fs::create_dir_all(&downloads).with_context(|| format!("cannot create {}", downloads.display()))?;
    // apt downloads as its own user, who cannot write into a folder of root's.
    let options = ["download", "--option", "APT::Sandbox::User=root"];
    command::run(Command::new("apt-get").current_dir(&downloads).args(options).args(packages))?;
    for file in fs::read_dir(&downloads).with_context(|| format!("cannot list {}", downloads.display()))? {
        let file = file.with_context(|| format!("cannot list {}", downloads.display()))?.path();
        command::output(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&partial))?;
    }
    // Renamed last, so that a folder of this name is complete.
    fs::rename(&partial, into).with_context(|| format!("cannot create {}", into.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_tells_what_would_be_removed() {
        let simulation = "Reading package lists...
The following packages will be REMOVED:
  qemu-utils
Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]
Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])
Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])
";
        assert_eq!(removed(simulation), ["qemu-utils"]);
        assert!(removed("Inst qemu-system-x86 (1:7.2 Debian:12.15/oldstable [amd64])\n").is_empty());
    }

    #[test]
    fn qemus_own_packages_are_unpacked_and_libraries_installed() {
        let about = "Package: qemu-system-x86
Depends: libaio1 (>= 0.3.93), libhogweed6, zlib1g (>= 1:1.2.0), qemu-system-common (= 1:7.2+dfsg-7), seabios, ipxe-qemu
Recommends: qemu-utils
";
        let needed = Needed::parse("qemu-system-x86", about).expect("dependencies");
        assert_eq!(needed.packages, ["qemu-system-x86", "qemu-system-common", "seabios", "ipxe-qemu"]);
        assert_eq!(needed.libraries, "libaio1 (>= 0.3.93), libhogweed6, zlib1g (>= 1:1.2.0)");
        assert_eq!(Needed::parse("nothing", "Package: nothing\n"), None);
    }
}
