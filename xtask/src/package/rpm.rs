//! The RPM.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::VERSION;
use super::parts::Parts;
use super::tree::Tree;
use crate::vm::image::fresh;
use crate::{command, workspace};

/// Settings of rpmbuild. The first four make the same bytes each time; the others keep the files as they are.
const SETTINGS: [(&str, &str); 8] = [
    ("_buildhost", "localhost"),
    ("source_date_epoch_from_changelog", "0"),
    ("use_source_date_epoch_as_buildtime", "1"),
    ("clamp_mtime_to_source_date_epoch", "1"),
    ("_binary_payload", "w19.zstdio"),
    ("_build_id_links", "none"),
    ("debug_package", "%{nil}"),
    ("__os_install_post", "%{nil}"),
];

/// Makes it with rpmbuild.
pub(super) fn package(parts: &Parts, epoch: &str, work: &Path, into: &Path) -> Result<PathBuf> {
    fresh(work)?;
    let tree = Tree::new(&work.join("tree"))?;
    parts.install(&tree, "usr/share/zsh/site-functions/")?;
    parts.add_docs(&tree, "usr/share/doc/tcptrace/")?;
    tree.add("usr/share/doc/tcptrace/CHANGELOG.md", &parts.changelog)?;
    parts.add_licences(&tree, "usr/share/licenses/tcptrace/")?;
    let name = format!("tcptrace-{VERSION}-1.{}.rpm", env::consts::ARCH);
    let (topdir, tree) = (work.join("build").display().to_string(), tree.path().display().to_string());
    let into = into.display().to_string();
    let own = [
        ("tcptrace_version", VERSION),
        ("tree", &tree),
        ("_topdir", &topdir),
        ("_dbpath", &topdir),
        ("_rpmdir", &into),
        ("_rpmfilename", &name),
    ];
    let mut build = Command::new("rpmbuild");
    // Without the user's own settings.
    build.env("HOME", work).env("SOURCE_DATE_EPOCH", epoch).args(["-bb", "--quiet", "--target", env::consts::ARCH]);
    for (name, value) in SETTINGS.iter().chain(&own) {
        build.arg("--define").arg(format!("{name} {value}"));
    }
    command::output(build.arg(workspace::root().join("xtask/packaging/tcptrace.spec")))?;
    Ok(Path::new(&into).join(name))
}
