//! What all packages contain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::crates::Crates;
use super::notices;
use super::tree::Tree;
use crate::vm::image::fresh;
use crate::{command, man, workspace};

/// The files, in memory.
pub(super) struct Parts {
    program: Vec<u8>,
    /// Name and text of each man page.
    pages: Vec<(String, Vec<u8>)>,
    pub(super) bash: Vec<u8>,
    pub(super) zsh: Vec<u8>,
    pub(super) fish: Vec<u8>,
    pub(super) unit: Vec<u8>,
    /// Name and text of each page of the documentation.
    docs: Vec<(String, Vec<u8>)>,
    readme: Vec<u8>,
    pub(super) changelog: Vec<u8>,
    /// Notices of others whose code is in the program.
    pub(super) notices: Vec<u8>,
}

/// The licences of the project's own code.
pub(super) const LICENCES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-GPL", "LICENSE-MIT"];

impl Parts {
    /// Reads or makes them; `work` is a folder for the man pages.
    pub(super) fn collect(program: &Path, crates: &Crates, work: &Path) -> Result<Self> {
        fresh(work)?;
        man::write(work)?;
        let completions = |shell: &str| {
            let script = command::output(Command::new(program).args(["completions", shell]));
            script.map(String::into_bytes)
        };
        let readme = String::from_utf8_lossy(&source("README.md")?).replace("(tcptrace/docs/", "(docs/");
        Ok(Self {
            program: read(program)?,
            pages: files(work)?,
            bash: completions("bash")?,
            zsh: completions("zsh")?,
            fish: completions("fish")?,
            unit: source("xtask/packaging/tcptrace-record.service")?,
            docs: files(&workspace::root().join("tcptrace/docs"))?,
            readme: readme.into_bytes(),
            changelog: source("CHANGELOG.md")?,
            notices: notices::collect(crates)?.into_bytes(),
        })
    }

    /// Adds the program to a folder of a tree.
    pub(super) fn add_program(&self, tree: &Tree, folder: &str) -> Result<()> {
        tree.add_program(&format!("{folder}tcptrace"), &self.program)
    }

    /// Adds README and documentation.
    pub(super) fn add_docs(&self, tree: &Tree, folder: &str) -> Result<()> {
        tree.add(&format!("{folder}README.md"), &self.readme)?;
        self.docs.iter().try_for_each(|(name, text)| tree.add(&format!("{folder}docs/{name}"), text))
    }

    /// Adds the man pages.
    pub(super) fn add_pages(&self, tree: &Tree, folder: &str, is_compressed: bool) -> Result<()> {
        self.pages.iter().try_for_each(|(name, page)| {
            let path = format!("{folder}{name}");
            if is_compressed { tree.add_compressed(&path, page) } else { tree.add(&path, page) }
        })
    }

    /// Adds the texts of the licences.
    pub(super) fn add_licences(&self, tree: &Tree, folder: &str) -> Result<()> {
        LICENCES.iter().try_for_each(|name| tree.add(&format!("{folder}{name}"), &source(name)?))?;
        tree.add(&format!("{folder}third-party.txt"), &self.notices)
    }

    /// Adds what every distribution has in the same place; the folder of completions for zsh differs.
    pub(super) fn install(&self, tree: &Tree, zsh: &str) -> Result<()> {
        self.add_program(tree, "usr/bin/")?;
        self.add_pages(tree, "usr/share/man/man1/", true)?;
        tree.add("usr/share/bash-completion/completions/tcptrace", &self.bash)?;
        tree.add("usr/share/fish/vendor_completions.d/tcptrace.fish", &self.fish)?;
        tree.add(&format!("{zsh}_tcptrace"), &self.zsh)?;
        tree.add("usr/lib/systemd/system/tcptrace-record.service", &self.unit)
    }
}

/// A file of the repository.
pub(super) fn source(path: &str) -> Result<Vec<u8>> {
    read(&workspace::root().join(path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", workspace::shown(path)))
}

/// Names and contents of the files in a folder, sorted.
fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| Ok((name(path), read(path)?))).collect()
}
