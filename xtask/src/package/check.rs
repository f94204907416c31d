//! Checks of the packages: what their tools say of them, and what they do where they are installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup::{self, PACKAGE_CHECK_TOOLS};
use crate::vm::apt::Mirrors;
use crate::vm::image::fresh;
use crate::{command, host, workspace};

/// Makes a copy of a system in memory, and runs the second script in it.
const COPY: &str = include_str!("check/copy.sh");

/// Installs, runs and purges the Debian package.
const INSTALL: &str = include_str!("check/install.sh");

/// Starts systemd in a copy of a system.
const BOOT: &str = include_str!("check/boot.sh");

/// The first process of that.
const INIT: &str = include_str!("check/init.sh");

/// Runs the flight recorder there.
const SERVICE: &str = include_str!("check/service.sh");

/// What a fresh system has besides its essential packages: programs that the script runs.
const INCLUDED: &str = "--include=man-db,systemd";

/// Makes the packages in another folder, and compares.
pub(super) fn same_again(packages: &[PathBuf], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = workspace::target().join("packages-work/again");
    fresh(&folder)?;
    make(&folder)?;
    for package in packages {
        let name = package.file_name().unwrap_or_default();
        let again = folder.join("packages").join(name);
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        ensure!(read(package)? == read(&again)?, "{} and {} differ", package.display(), again.display());
    }
    println!("made twice, the packages have the same bytes");
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Everything else.
pub(super) fn run(packages: &[PathBuf], work: &Path, suites: &[String]) -> Result<()> {
    if !host::is_root() || !host::is_debian() {
        bail!("packages are checked on Debian, as root");
    }
    setup::require(&PACKAGE_CHECK_TOOLS)?;
    let with = |extension: &str| {
        let found = packages.iter().find(|package| package.extension().is_some_and(|is| is == extension));
        found.with_context(|| format!("there is no .{extension}"))
    };
    let (deb, rpm) = (with("deb")?, with("rpm")?);
    command::run(Command::new("lintian").args(["--fail-on", "error", "--tag-display-limit", "0"]).arg(deb))?;
    install_rpm(rpm, &work.join("check-rpm"))?;
    install_deb(deb, Path::new("/"), work)?;
    for suite in suites {
        let system = system(suite, &work.join("systems"))?;
        install_deb(deb, &system, work)?;
        run_service(deb, &system, work)?;
    }
    Ok(())
}

/// Installs an RPM into an empty folder, and removes it. Its program must run there, without any library.
fn install_rpm(package: &Path, root: &Path) -> Result<()> {
    fresh(root)?;
    let rpm = || {
        let mut rpm = Command::new("rpm");
        rpm.args(["--dbpath", "/var/lib/rpm", "--root"]).arg(root);
        rpm
    };
    command::run(Command::new("rpm").args(["-K", "--nosignature"]).arg(package))?;
    command::run(rpm().arg("--initdb"))?;
    // Scripts would need a shell, which an empty folder has not.
    command::run(rpm().args(["--install", "--nodeps", "--noscripts"]).arg(package))?;
    command::run(rpm().args(["--verify", "--nodeps", "--noscripts", "tcptrace"]))?;
    command::run(Command::new("chroot").arg(root).args(["/usr/bin/tcptrace", "--version"]))?;
    command::run(rpm().args(["--erase", "--noscripts", "tcptrace"]))?;
    let mut find = Command::new("find");
    find.current_dir(root).args([".", "-path", "./var/lib/rpm/*", "-o", "-type", "f", "-print"]);
    let left = command::output(&mut find)?;
    ensure!(left.is_empty(), "removing the RPM leaves files:\n{left}");
    fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))
}

/// Installs the Debian package in a copy of a system.
fn install_deb(package: &Path, system: &Path, work: &Path) -> Result<()> {
    println!("\n== {} in {}", package.file_name().unwrap_or_default().to_string_lossy(), system.display());
    let place = work.join("copy");
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-euc", COPY, "copy"]);
    unshare.arg(system).arg(&place).arg(package).arg(INSTALL);
    command::run_named(&mut unshare, "installing the package")
}

/// Runs the Debian package's service under systemd, in a copy of a system.
fn run_service(package: &Path, system: &Path, work: &Path) -> Result<()> {
    println!("\n== the service in {}", system.display());
    let place = work.join("copy");
    let mut boot = Command::new("sh");
    boot.args(["-euc", BOOT, "boot"]).arg(system).arg(&place).arg(package).args([SERVICE, INIT]);
    command::run_named(&mut boot, "running the service")
}

/// A fresh system, which is kept for the next time.
fn system(suite: &str, folder: &Path) -> Result<PathBuf> {
    let system = folder.join(suite);
    if !system.exists() {
        let partial = system.with_extension("partial");
        fresh(&partial)?;
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", INCLUDED, suite]).arg(&partial).arg(Mirrors::of_this_machine()?.main());
        command::run(&mut debootstrap)?;
        fs::rename(&partial, &system).with_context(|| format!("cannot create {}", system.display()))?;
    }
    Ok(system)
}
