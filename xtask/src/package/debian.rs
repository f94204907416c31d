//! The package for Debian.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::VERSION;
use super::parts::{Parts, source};
use super::tree::Tree;
use crate::command;

/// The first package of this version.
const REVISION: &str = "1";

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// Makes it with dpkg-deb, which sorts the files and takes their times from `SOURCE_DATE_EPOCH`.
pub(super) fn package(parts: &Parts, epoch: &str, work: &Path, into: &Path) -> Result<PathBuf> {
    let maintainer = maintainer();
    let tree = Tree::new(work)?;
    parts.install(&tree, "usr/share/zsh/vendor-completions/")?;
    parts.add_docs(&tree, "usr/share/doc/tcptrace/")?;
    tree.add("usr/share/doc/tcptrace/copyright", copyright()?.as_bytes())?;
    tree.add_compressed("usr/share/doc/tcptrace/third-party.txt", &parts.notices)?;
    tree.add_compressed("usr/share/doc/tcptrace/changelog", &parts.changelog)?;
    let date = command::output(Command::new("date").args(["--utc", "--rfc-email", "--date", &format!("@{epoch}")]))?;
    tree.add_compressed("usr/share/doc/tcptrace/changelog.Debian", changelog(&maintainer, date.trim()).as_bytes())?;
    tree.add("usr/share/lintian/overrides/tcptrace", &source("xtask/packaging/debian/lintian-overrides")?)?;
    let sizes =
        command::output(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1K"]).arg(work))?;
    let kibibytes = sizes.split_whitespace().next().context("du prints no size")?;
    let sums = sums(&tree)?;
    let control = filled(
        &String::from_utf8_lossy(&source("xtask/packaging/debian/control")?),
        &[
            ("version", &version()),
            ("architecture", architecture()),
            ("maintainer", &maintainer),
            ("kibibytes", kibibytes),
        ],
    );
    tree.add("DEBIAN/control", control.as_bytes())?;
    tree.add("DEBIAN/md5sums", sums.as_bytes())?;
    for script in SCRIPTS {
        tree.add_program(&format!("DEBIAN/{script}"), &source(&format!("xtask/packaging/debian/{script}"))?)?;
    }
    let path = into.join(format!("tcptrace_{}_{}.deb", version(), architecture()));
    let mut build = Command::new("dpkg-deb");
    build.env("SOURCE_DATE_EPOCH", epoch).args(["--root-owner-group", "-Zxz", "--build"]).arg(tree.path());
    command::output(build.arg(&path))?;
    Ok(path)
}

fn version() -> String {
    format!("{VERSION}-{REVISION}")
}

fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Who makes the package, by Debian's convention: from `DEBFULLNAME` and `DEBEMAIL`.
fn maintainer() -> String {
    let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    format!("{} <{}>", or("DEBFULLNAME", "The tcptrace authors"), or("DEBEMAIL", "tcptrace@example.org"))
}

fn changelog(maintainer: &str, date: &str) -> String {
    let version = version();
    format!(
        "tcptrace ({version}) unstable; urgency=medium\n\n  * tcptrace {VERSION}: changelog.gz says what is new.\n\n -- {maintainer}  {date}\n"
    )
}

fn copyright() -> Result<String> {
    let mit = String::from_utf8_lossy(&source("LICENSE-MIT")?).into_owned();
    let (holder, terms) = parted(&mit).context("LICENSE-MIT names no holder of the copyright")?;
    let template = String::from_utf8_lossy(&source("xtask/packaging/debian/copyright")?).into_owned();
    Ok(filled(&template, &[("holder", holder), ("mit", &indented(terms))]))
}

/// The holder of the copyright, and the text below.
fn parted(mit: &str) -> Option<(&str, &str)> {
    let (_, rest) = mit.split_once("Copyright (c) ")?;
    let (holder, terms) = rest.split_once('\n')?;
    Some((holder, terms.trim()))
}

/// As Debian's files continue a field.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") });
    lines.collect::<Vec<_>>().join("\n")
}

/// A template with a value for each `{name}`.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// The sums with which `dpkg --verify` finds changed files.
fn sums(tree: &Tree) -> Result<String> {
    let mut find = Command::new("find");
    find.current_dir(tree.path()).args([".", "-type", "f", "-printf", "%P\n"]);
    let names = command::output(&mut find)?;
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    command::output(Command::new("md5sum").current_dir(tree.path()).args(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_written_as_debian_wants_it() {
        let (holder, terms) =
            parted("MIT License\n\nCopyright (c) 2026 Somebody\n\nDo it.\n\nOr not.\n").expect("parts");
        assert_eq!(holder, "2026 Somebody");
        assert_eq!(indented(terms), " Do it.\n .\n Or not.");
    }

    #[test]
    fn every_place_of_the_templates_is_filled() {
        let copyright = copyright().expect("a text");
        assert!(copyright.contains("Permission is hereby granted") && !copyright.contains('{'), "{copyright}");
    }

    #[test]
    fn the_changelog_names_the_package() {
        let text = changelog("A <a@example.org>", "Thu, 01 Jan 1970 00:00:00 +0000");
        assert!(text.starts_with(&format!("tcptrace ({VERSION}-1) unstable; ")), "{text}");
        assert!(text.ends_with(" -- A <a@example.org>  Thu, 01 Jan 1970 00:00:00 +0000\n"), "{text}");
    }
}
