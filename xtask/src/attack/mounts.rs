//! File systems to attack.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::command;

/// Makes the mounts of this process private; they end with it.
pub(super) fn keep_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")
}

/// A file system that is unmounted on drop.
pub(super) struct Mount(PathBuf);

impl Mount {
    /// A tmpfs of this size.
    pub(super) fn tmpfs(at: PathBuf, size: &str) -> Result<Self> {
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let options = format!("size={size}");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("cannot mount a tmpfs on {}", at.display()))?;
        Ok(Self(at))
    }

    /// An ext4 in a file beside it. It needs mkfs and a loop device.
    pub(super) fn ext4(at: PathBuf, size: u64) -> Result<Self> {
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let image = at.with_extension("img");
        let file = File::create(&image).with_context(|| format!("cannot create {}", image.display()))?;
        file.set_len(size).context("cannot make the image as large")?;
        command::output(Command::new(program("mkfs.ext4")?).arg("-q").arg(&image))?;
        command::output(Command::new(program("mount")?).args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self(at))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Freezes it until the returned guard is dropped.
    pub(super) fn freeze(&self) -> Result<Frozen> {
        let fsfreeze = program("fsfreeze")?;
        let mut shell = Command::new("sh");
        // The shell's input ends with this process, so it thaws the file system in any case.
        shell.args(["-c", r#""$1" -f "$2" && echo frozen; read -r _; "$1" -u "$2""#, "freeze"]);
        shell.arg(fsfreeze).arg(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut frozen = Frozen(shell.spawn().context("cannot start a shell")?);
        let mut said = String::new();
        let stdout = frozen.0.stdout.take().context("the shell has no output")?;
        BufReader::new(stdout).read_line(&mut said).context("cannot read the shell's output")?;
        ensure!(said == "frozen\n", "fsfreeze failed");
        Ok(frozen)
    }
}

/// A frozen file system, which thaws on drop.
pub(super) struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // There is no remedy if that fails.
        let _ = self.0.wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Processes that still use it keep it until they end.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn program(name: &str) -> Result<PathBuf> {
    command::find(name).with_context(|| format!("{name} is not installed"))
}
