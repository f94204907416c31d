//! File systems to attack.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::command;

/// From here on, no mount of this process is seen by others, and all of them go with it.
pub(super) fn keep_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")
}

/// A file system that is mounted for as long as this lives.
pub(super) struct Mount(PathBuf);

impl Mount {
    /// One in memory, of this size.
    pub(super) fn tmpfs(at: PathBuf, size: &str) -> Result<Self> {
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let options = format!("size={size}");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("cannot mount a tmpfs on {}", at.display()))?;
        Ok(Self(at))
    }

    /// An ext4 in a file beside it. It needs programs and a loop device.
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

    /// Has it stand still, until what this returns goes.
    pub(super) fn freeze(&self) -> Result<Frozen> {
        let fsfreeze = program("fsfreeze")?;
        let mut shell = Command::new("sh");
        // Its input ends when this process does, however that ends.
        shell.args(["-c", r#""$1" -f "$2" && echo frozen; read -r _; "$1" -u "$2""#, "freeze"]);
        shell.arg(fsfreeze).arg(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut frozen = Frozen(shell.spawn().context("cannot start a shell")?);
        let mut said = String::new();
        let stdout = frozen.0.stdout.take().context("the shell has no output")?;
        BufReader::new(stdout).read_line(&mut said).context("cannot hear the shell")?;
        ensure!(said == "frozen\n", "fsfreeze failed");
        Ok(frozen)
    }
}

/// A file system stands still for as long as this lives.
pub(super) struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing can be done about it if that fails.
        let _ = self.0.wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whatever still uses it keeps it no longer than it lives.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn program(name: &str) -> Result<PathBuf> {
    command::find(name).with_context(|| format!("{name} is not installed"))
}
