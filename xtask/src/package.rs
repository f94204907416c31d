//! `cargo xtask package`: a tarball, a Debian package and an RPM, all with the same statically linked program.

mod build;
mod check;
mod crates;
mod debian;
mod notices;
mod parts;
mod rpm;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use self::crates::Crates;
use self::parts::Parts;
use crate::ebpf::sources::sha256;
use crate::setup::{self, PACKAGE_TOOLS};
use crate::vm::image::fresh;
use crate::{command, workspace};

/// The version of all packages: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Options of `cargo xtask package`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Package this program instead of building one
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
    /// Also check the packages (Debian, as root): lintian, rpm, the same bytes when made again; and install, run and purge
    /// the Debian package in a copy of this system that is in memory only
    #[arg(long)]
    check: bool,
    /// With --check: do so in fresh systems of these suites of Debian, too
    #[arg(long, value_name = "SUITE,…", value_delimiter = ',', requires = "check")]
    suites: Vec<String>,
}

/// Makes the packages in `target/packages`, and checks them on request.
///
/// # Errors
/// When a package cannot be made, or a check fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require(&PACKAGE_TOOLS)?;
    let epoch = epoch()?;
    let crates = Crates::of_tcptrace()?;
    let program = match &args.tcptrace {
        Some(program) => std::path::absolute(program)?,
        None => build::build(&crates, &epoch)?,
    };
    let (folder, work) = (workspace::target().join("packages"), workspace::target().join("packages-work"));
    let packages = make(&program, &crates, &epoch, &work, &folder)?;
    for package in &packages {
        let bytes = fs::metadata(package).with_context(|| format!("cannot read {}", package.display()))?.len();
        println!("{bytes:>10} bytes  {}", workspace::shown(package));
    }
    if args.check {
        check::same_again(&packages, |folder| {
            make(&program, &crates, &epoch, &folder.join("work"), &folder.join("packages")).map(drop)
        })?;
        check::run(&packages, &work, &args.suites)?;
    }
    Ok(())
}

/// Makes all packages of a program and a file with their SHA-256 sums in `folder`.
fn make(program: &Path, crates: &Crates, epoch: &str, work: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    fresh(folder)?;
    let parts = Parts::collect(program, crates, &work.join("parts"))?;
    let packages = vec![
        tree::tarball(&parts, epoch, &work.join("tar"), folder)?,
        debian::package(&parts, epoch, &work.join("deb"), folder)?,
        rpm::package(&parts, epoch, &work.join("rpm"), folder)?,
    ];
    let sums = packages.iter().map(|package| {
        let bytes = fs::read(package).with_context(|| format!("cannot read {}", package.display()))?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        // As `sha256sum` writes and checks it.
        Ok(format!("{}  {name}\n", sha256(&bytes)))
    });
    let sums = sums.collect::<Result<String>>()?;
    let path = folder.join("SHA256SUMS");
    fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(packages)
}

/// The time of all files, in seconds since 1970: that of the last commit, unless `SOURCE_DATE_EPOCH` names one.
fn epoch() -> Result<String> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]);
    let epoch = command::output(&mut git).context("set SOURCE_DATE_EPOCH where there is no commit")?;
    Ok(epoch.trim().to_owned())
}
