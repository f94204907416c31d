//! The contents of a virtual machine: a file tree that the kernel unpacks into memory.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernel::Release;
use crate::command;

/// Debian packages of the programs that the tests run.
pub(super) const PROGRAMS: [&str; 7] = ["bash", "coreutils", "iproute2", "nftables", "kmod", "mount", "util-linux"];

/// Folders of packages that no test needs.
const NOT_NEEDED: [&str; 5] = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var"];

/// Modules that a virtual machine may load: those for networking, with their dependencies. Others would only take
/// memory.
const MODULES: [&str; 7] = [
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/drivers/net/veth",
    "kernel/drivers/net/dummy",
    "kernel/drivers/net/tun",
    "modules.",
];

/// The first program that the kernel starts.
const INIT: &str = include_str!("init");

/// An unpacked kernel.
pub(super) struct Kernel {
    pub(super) release: Release,
    /// Debian's version of the package.
    pub(super) version: String,
    pub(super) folder: PathBuf,
}

impl Kernel {
    /// Its image, whose path depends on the version.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let places =
            [format!("boot/vmlinuz-{}", self.release.0), format!("usr/lib/modules/{}/vmlinuz", self.release.0)];
        let found = places.iter().map(|place| self.folder.join(place)).find(|path| path.exists());
        found.with_context(|| format!("the packages of {} have no kernel in them", self.release.0))
    }

    fn modules(&self) -> Result<PathBuf> {
        let places = ["lib/modules", "usr/lib/modules"].map(|place| self.folder.join(place).join(&self.release.0));
        let found = places.into_iter().find(|path| path.join("kernel").exists());
        found.with_context(|| format!("the packages of {} have no modules in them", self.release.0))
    }
}

/// Starts an empty tree.
pub(crate) fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Adds to the programs' tree what every virtual machine needs.
pub(super) fn furnish(tree: &Path) -> Result<()> {
    for folder in NOT_NEEDED.map(|folder| tree.join(folder)).iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "tests"] {
        let folder = tree.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Packages make these links in scripts, which do not run here.
    let sh = tree.join("bin/sh");
    if sh.symlink_metadata().is_err() {
        symlink("bash", &sh).with_context(|| format!("cannot create {}", sh.display()))?;
    }
    executable(&tree.join("init"), INIT.as_bytes())
}

/// Writes an executable file.
pub(super) fn executable(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Copies the required modules of a kernel into a tree.
pub(super) fn take_modules(kernel: &Kernel, tree: &Path) -> Result<()> {
    let from = kernel.modules()?;
    let to = tree.join("lib/modules").join(&kernel.release.0);
    for file in files_below(&from)? {
        let name = file.strip_prefix(&from).context("a file outside its folder")?;
        if !is_needed(&name.to_string_lossy()) {
            continue;
        }
        let copy = to.join(name);
        let parent = copy.parent().context("a file in no folder")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&file, &copy))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn is_needed(module: &str) -> bool {
    MODULES.iter().any(|beginning| module.starts_with(beginning))
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
            let kind = entry.file_type().with_context(|| format!("cannot look at {}", entry.path().display()))?;
            if kind.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}

/// Appends trees, one after the other, to an archive that the kernel can unpack.
pub(super) fn pack(trees: &[&Path], archive: &Path) -> Result<()> {
    let mut file = File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    for tree in trees {
        let mut list = Command::new("find");
        let mut list = list.current_dir(tree).args([".", "-print0"]).stdout(Stdio::piped()).spawn()?;
        let names = list.stdout.take().context("a pipe")?;
        let mut cpio = Command::new("cpio");
        cpio.current_dir(tree).args(["--create", "--null", "--format=newc", "--owner=0:0", "--quiet"]);
        let packed = cpio.stdin(names).stderr(Stdio::piped()).stdout(file.try_clone()?).output();
        let packed = packed.with_context(|| format!("cannot run `{}`", command::line(&cpio)))?;
        if !packed.status.success() || !list.wait()?.success() {
            bail!("cannot pack {}: {}", tree.display(), String::from_utf8_lossy(&packed.stderr).trim());
        }
    }
    std::io::Write::flush(&mut file).with_context(|| format!("cannot write {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_of_the_network_are_taken() {
        assert!(is_needed("kernel/net/ipv4/tcp_diag.ko.xz"));
        assert!(is_needed("kernel/drivers/net/veth.ko"));
        assert!(is_needed("kernel/drivers/net/tun.ko.xz"));
        assert!(is_needed("modules.builtin"));
        assert!(!is_needed("kernel/drivers/net/wireless/ath.ko"));
        assert!(!is_needed("kernel/fs/xfs/xfs.ko"));
        assert!(!is_needed("vmlinuz"));
    }

    #[test]
    fn a_kernel_is_found_where_its_packages_put_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let release = Release("7.3.4-cloud".to_owned());
        let kernel = Kernel { release, version: String::new(), folder: folder.path().to_owned() };
        assert!(kernel.image().is_err());
        let place = folder.path().join("usr/lib/modules/7.3.4-cloud");
        fs::create_dir_all(place.join("kernel")).expect("a folder");
        fs::write(place.join("vmlinuz"), "").expect("a kernel");
        assert_eq!(kernel.image().expect("a kernel"), place.join("vmlinuz"));
        assert_eq!(kernel.modules().expect("modules"), place);
    }
}
