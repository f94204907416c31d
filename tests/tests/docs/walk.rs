//! Types the commands of a page into one shell, from the first block to the last.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tcptrace_tests::program::binary;
use tempfile::TempDir;

use crate::page::{Block, Page, Step};
use crate::shape;

/// Time limit for a page, in seconds.
const TOO_LONG: &str = "170";

/// Runs before the first block: files that a page makes in `/run` end with the mount namespace, and the host has the
/// name on the pages. Each command must succeed. Beside other tests, events can be lost (3), and `diagnose` can find what
/// those do (4).
const BEGIN: &str = r#"
set -o pipefail
mount -t tmpfs tmpfs /run
echo vm >/proc/sys/kernel/hostname
trap 'status=$?; [[ $status == [34] ]] || { echo "$at: status $status: $BASH_COMMAND" >"$SAID/failed"; exit 1; }' ERR
"#;

/// Runs after the last block: a page must end what it started.
const END: &str = r#"
at="the end of the page"
wait
! ls -A /run/netns 2>/dev/null | grep . >"$SAID/left"
"#;

/// A page or a part of it, after its commands have run.
pub(crate) struct Walk {
    page: String,
    steps: Vec<Step>,
    folder: TempDir,
}

/// Kills processes that a page left running when a test fails.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Without leftovers, the list is empty.
        let _nobody = killpg(self.0, Signal::SIGKILL);
    }
}

impl Walk {
    /// Runs the blocks in order. Fails when a command fails.
    pub(crate) fn through(page: &Page, blocks: &[&Block]) -> Self {
        let steps = blocks.iter().flat_map(|block| block.steps()).collect();
        let walk = Self { page: page.name.clone(), steps, folder: tempfile::tempdir().expect("a folder") };
        walk.lay_out();
        let mut command = walk.command();
        let mut shell = command.spawn().expect("run timeout");
        let group = Group(Pid::from_raw(shell.id().cast_signed()));
        let status = shell.wait().expect("wait for a shell");
        drop(group);
        assert!(status.success(), "{status}: {}", walk.story());
        walk
    }

    fn lay_out(&self) {
        for folder in ["bin", "said", "here"] {
            fs::create_dir(self.path(folder)).expect("make a folder");
        }
        symlink(binary(), self.path("bin/tcptrace")).expect("put the program on the path");
        fs::write(self.path("script"), self.script()).expect("write a script");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self) -> String {
        let mut script = BEGIN.to_owned();
        for (number, step) in self.steps.iter().enumerate() {
            let Step { line, typed, .. } = step;
            let at = format!("{}:{line}", self.page);
            let out = format!(r#">"$SAID/{number}.out" 2>"$SAID/{number}.err""#);
            write!(script, "at={at}\n{{\n{typed}\n}} {out}\n").expect("room in memory");
        }
        script + END
    }

    /// Runs in a process group, a mount, a network and a UTS namespace of its own.
    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", TOO_LONG, "unshare", "--mount", "--net", "--uts", "bash"])
            .arg(self.path("script"));
        let path = std::env::var("PATH").expect("a path");
        command.env("PATH", format!("{}:{path}", self.path("bin").display())).env("LC_ALL", "C.UTF-8");
        command.env("SAID", self.path("said")).current_dir(self.path("here")).process_group(0);
        command.stdin(Stdio::null());
        command
    }

    /// A report of the failure.
    fn story(&self) -> String {
        let read = |name: &Path| fs::read_to_string(name).unwrap_or_default();
        let said = self.path("said");
        let mut story = [read(&said.join("failed")), read(&said.join("left"))].concat();
        for (number, step) in self.steps.iter().enumerate() {
            let [out, err] = ["out", "err"].map(|kind| read(&said.join(format!("{number}.{kind}"))));
            let _ = write!(story, "{}:{}\n{}\n{out}{err}", self.page, step.line, step.typed);
        }
        story
    }

    /// The standard output of a command.
    fn output(&self, number: usize) -> String {
        fs::read_to_string(self.path(&format!("said/{number}.out"))).expect("read what was printed")
    }

    /// Fails when a command's output differs from the page.
    pub(crate) fn looks_as_shown(&self) {
        for (number, step) in self.steps.iter().enumerate() {
            let Some(shown) = &step.shown else { continue };
            let printed = self.output(number);
            // Beside other tests, events can be lost. A row about that pushes the last row out of a `head`.
            let has_room = !printed.contains("\nLOST EVENTS") || !step.typed.contains("| head");
            let shown = &shown[..shown.len() - usize::from(!has_room)];
            if let Some(line) = shape::missing(shown, &printed) {
                panic!("{}:{}: nothing like `{line}` is printed\n{}", self.page, step.line, self.story());
            }
        }
    }

    /// The output of the commands that begin like this.
    pub(crate) fn printed(&self, command: &str) -> Vec<String> {
        let is_it = |(_, step): &(usize, &Step)| step.typed.starts_with(command);
        self.steps.iter().enumerate().filter(is_it).map(|(number, _)| self.output(number)).collect()
    }
}
