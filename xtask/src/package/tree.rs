//! Folders with the files of a package, and the tarball.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::VERSION;
use super::parts::Parts;
use crate::command;
use crate::vm::image::fresh;

/// A folder that becomes the root of a package.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Begins an empty one.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        fresh(folder)?;
        let tree = Self(folder.to_owned());
        tree.allow(Path::new(""), 0o755)?;
        Ok(tree)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a file that everybody may read.
    pub(super) fn add(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.write(path, bytes, 0o644)
    }

    /// Adds a file that everybody may run.
    pub(super) fn add_program(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.write(path, bytes, 0o755)
    }

    /// Adds a file as `PATH.gz`, without its name and time in it.
    pub(super) fn add_compressed(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.add(path, bytes)?;
        command::output(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(self.0.join(path))).map(drop)
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = Path::new(path);
        let folders: Vec<_> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
        for folder in folders.into_iter().rev().filter(|folder| !self.0.join(folder).exists()) {
            let made = fs::create_dir(self.0.join(folder));
            made.with_context(|| format!("cannot create {}", self.0.join(folder).display()))?;
            self.allow(folder, 0o755)?;
        }
        fs::write(self.0.join(path), bytes).with_context(|| format!("cannot write {}", self.0.join(path).display()))?;
        self.allow(path, mode)
    }

    /// Sets permissions, whatever the umask is.
    fn allow(&self, path: &Path, mode: u32) -> Result<()> {
        let path = self.0.join(path);
        let allowed = fs::set_permissions(&path, Permissions::from_mode(mode));
        allowed.with_context(|| format!("cannot change the mode of {}", path.display()))
    }
}

/// A tarball to unpack anywhere.
pub(super) fn tarball(parts: &Parts, epoch: &str, work: &Path, into: &Path) -> Result<PathBuf> {
    let name = format!("tcptrace-{VERSION}-{}-linux", env::consts::ARCH);
    let tree = Tree::new(work)?;
    let at = |path: &str| format!("{name}/{path}");
    parts.add_program(&tree, &at(""))?;
    parts.add_docs(&tree, &at(""))?;
    parts.add_licences(&tree, &at(""))?;
    parts.add_pages(&tree, &at("man/"), false)?;
    tree.add(&at("CHANGELOG.md"), &parts.changelog)?;
    tree.add(&at("completions/tcptrace.bash"), &parts.bash)?;
    tree.add(&at("completions/_tcptrace"), &parts.zsh)?;
    tree.add(&at("completions/tcptrace.fish"), &parts.fish)?;
    tree.add(&at("systemd/tcptrace-record.service"), &parts.unit)?;
    let path = into.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{epoch}")).args(["--use-compress-program", "gzip -9 --no-name"]);
    command::output(tar.arg("--file").arg(&path).arg("--directory").arg(tree.path()).arg(&name))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(&folder.path().join("tree")).expect("a tree");
        tree.add("a/b/c", b"text").expect("a file");
        tree.add_program("a/d", b"#!").expect("a program");
        tree.add_compressed("a/e", b"text").expect("a file");
        let mode = |path: &str| fs::metadata(tree.path().join(path)).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(["", "a", "a/b", "a/b/c", "a/d", "a/e.gz"].map(mode), [0o755, 0o755, 0o755, 0o644, 0o755, 0o644]);
        assert!(!tree.path().join("a/e").exists());
    }
}
