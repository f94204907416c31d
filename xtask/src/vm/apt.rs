//! Debian's packages of any suite and architecture, without touching the system's own package state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::kernel::{Arch, Suite};
use crate::command;

/// The keys of Debian's archive: apt accepts only what they signed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archives that this machine gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Asks apt.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let format = "$(LABEL) $(REPO_URI)";
        let targets = command::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]))?;
        Self::parse(&targets).context("apt knows of no archive of Debian; `apt-get update` may help")
    }

    /// Parses lines with a label and an address.
    fn parse(targets: &str) -> Option<Self> {
        let labelled = |label: &str| {
            let address = targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '))?;
            Some(address.trim_end_matches('/').to_owned())
        };
        let main = labelled("Debian")?;
        // A machine without security updates gets those for the tests from the usual address.
        let security = labelled("Debian-Security").unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }

    /// The address of the main archive.
    pub(crate) fn main(&self) -> &str {
        &self.main
    }

    fn source(&self, suite: Suite) -> String {
        let mirror = if suite.is_security { &self.security } else { &self.main };
        format!("deb [signed-by={KEYRING}] {mirror} {} main\n", suite.name)
    }
}

/// A private apt: other suites, another architecture, and no installed packages.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets it up in a folder, and fetches its package lists, whose signatures apt verifies.
    pub(super) fn new(folder: PathBuf, arch: Arch, mirrors: &Mirrors, suites: &[Suite]) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing, so packages cannot be verified: install Debian's debian-archive-keyring");
        }
        let apt = Self { folder };
        for folder in ["lists/partial", "cache/archives/partial", "none"] {
            let folder = apt.folder.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let sources: String = suites.iter().map(|suite| mirrors.source(*suite)).collect();
        for (name, text) in [("status", ""), ("sources", &sources), ("apt.conf", &apt.settings(arch))] {
            let path = apt.folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        // Without this, apt goes on with an old list when it cannot fetch or verify a new one.
        command::run(apt.command("apt-get").args(["--quiet", "--quiet", "--error-on=any", "update"]))?;
        Ok(apt)
    }

    fn settings(&self, arch: Arch) -> String {
        let (folder, arch) = (self.folder.display(), arch.debian());
        format!(
            "APT::Architecture \"{arch}\";
APT::Architectures {{ \"{arch}\"; }};
APT::Sandbox::User \"root\";
Dir::State \"{folder}\";
Dir::State::status \"{folder}/status\";
Dir::State::lists \"{folder}/lists\";
Dir::Cache \"{folder}/cache\";
Dir::Etc::sourcelist \"{folder}/sources\";
Dir::Etc::sourceparts \"{folder}/none\";
Dir::Etc::preferences \"{folder}/none/preferences\";
Dir::Etc::preferencesparts \"{folder}/none\";
Acquire::Languages \"none\";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";
"
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(&self.folder);
        command
    }

    /// The names of all packages with this prefix, one a line.
    pub(super) fn names(&self, beginning: &str) -> Result<String> {
        command::output(self.command("apt-cache").args(["pkgnames", beginning]))
    }

    /// The version of a package.
    pub(super) fn version(&self, package: &str) -> Result<String> {
        let about = command::output(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let version = about.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).with_context(|| format!("apt does not print the version of {package}"))
    }

    /// Unpacks packages into a folder; on request with all their dependencies.
    pub(super) fn unpack(&self, packages: &[&str], with_dependencies: bool, into: &Path) -> Result<()> {
        let downloads = self.folder.join("cache/archives");
        if with_dependencies {
            const OPTIONS: [&str; 5] = ["--quiet", "--quiet", "--yes", "--download-only", "--no-install-recommends"];
            command::run(self.command("apt-get").args(OPTIONS).arg("install").args(packages))?;
        } else {
            let mut download = self.command("apt-get");
            command::run(download.current_dir(&downloads).args(["--quiet", "--quiet", "download"]).args(packages))?;
        }
        let files = fs::read_dir(&downloads).with_context(|| format!("cannot list {}", downloads.display()))?;
        for file in files {
            let file = file.with_context(|| format!("cannot list {}", downloads.display()))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let is_wanted =
                with_dependencies || packages.iter().any(|package| name.starts_with(&format!("{package}_")));
            if name.ends_with(".deb") && is_wanted {
                command::output(Command::new("dpkg-deb").arg("--extract").arg(file.path()).arg(into))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel::Wanted;

    const TARGETS: &str = "Somebody http://packages.example/apt
Debian http://mirror.example/debian/
Debian http://mirror.example/debian/
Debian-Security http://security.example/debian-security/
Debian Backports http://mirror.example/backports/
";

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let mirrors = Mirrors::parse(TARGETS).expect("mirrors");
        let wanted: Wanted = "6.1".parse().expect("a kernel");
        let sources: String = wanted.suites().iter().map(|suite| mirrors.source(*suite)).collect();
        let signed = format!("deb [signed-by={KEYRING}]");
        let expected = format!(
            "{signed} http://mirror.example/debian bookworm main\n{signed} http://security.example/debian-security \
             bookworm-security main\n"
        );
        assert_eq!(sources, expected);
    }

    #[test]
    fn an_archive_that_is_not_debians_is_none() {
        assert_eq!(Mirrors::parse("Somebody http://packages.example/debian\n"), None);
    }
}
