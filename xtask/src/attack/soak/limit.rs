//! A limit of a process's memory, by a control group of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};

use super::super::cleanup::Base;
use super::super::groups;

/// A control group with a limit.
pub(super) struct Limit {
    group: PathBuf,
    files: Files,
    _base: Base,
}

/// How a hierarchy calls its files: that of version 1 for memory alone, and the unified one.
#[derive(Clone, Copy)]
struct Files {
    now: &'static str,
    most: &'static str,
    /// How often the limit was reached: the file, and what precedes the number.
    reached: (&'static str, &'static str),
}

const FIRST: Files =
    Files { now: "memory.usage_in_bytes", most: "memory.limit_in_bytes", reached: ("memory.failcnt", "") };
const UNIFIED: Files = Files { now: "memory.current", most: "memory.max", reached: ("memory.events", "max ") };

impl Limit {
    /// Makes a group for a process, and moves it there. `None` where no hierarchy limits memory.
    pub(super) fn for_process(pid: u32) -> Result<Option<Self>> {
        let Some((root, files)) = hierarchy() else { return Ok(None) };
        let group = root.join(format!("tcptrace-soak-{}", process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot create {}", group.display()))?;
        let base = Base::new(group.clone());
        let limit = Self { group, files, _base: base };
        if !limit.group.join(files.most).exists() {
            return Ok(None);
        }
        fs::write(limit.group.join("cgroup.procs"), pid.to_string()).context("cannot move it")?;
        Ok(Some(limit))
    }

    /// Allows so many bytes.
    pub(super) fn set(&self, bytes: u64) -> Result<()> {
        fs::write(self.group.join(self.files.most), bytes.to_string()).context("cannot limit its memory")
    }

    /// Bytes that its processes have taken since they moved there, pages of files among them.
    pub(super) fn now(&self) -> Result<u64> {
        number(&self.group.join(self.files.now), "")
    }

    /// How often the limit was reached, and the kernel looked for memory to take away.
    pub(super) fn reached(&self) -> Result<u64> {
        let (file, before) = self.files.reached;
        number(&self.group.join(file), before)
    }
}

/// Where memory can be limited.
fn hierarchy() -> Option<(PathBuf, Files)> {
    let first = Path::new("/sys/fs/cgroup/memory");
    if first.join(FIRST.most).exists() {
        return Some((first.to_owned(), FIRST));
    }
    let unified = groups::hierarchy()?;
    let limits = fs::read_to_string(unified.join("cgroup.subtree_control")).ok()?;
    limits.split_whitespace().any(|it| it == "memory").then_some((unified, UNIFIED))
}

fn number(file: &Path, before: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let number = text.lines().find_map(|line| line.strip_prefix(before)?.trim().parse().ok());
    number.with_context(|| format!("no number in {}", file.display()))
}
