//! One file of a recording. Only its owner can read it, no other process writes it, and its creation destroys no data.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use super::{Existing, StoreError};

/// User and group that a file is given to.
type Owner = Option<(u32, u32)>;

/// A file that only this process writes. A file that stayed empty is removed again.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) path: PathBuf,
    file: Flock<File>,
    /// The file that it replaces, and its temporary name until then.
    replaces: Option<Replaced>,
    is_used: bool,
}

#[derive(Debug)]
struct Replaced {
    hidden: PathBuf,
    /// The replaced file is renamed, not removed.
    is_kept: bool,
    /// Also locked, so that no other process replaces it meanwhile.
    _old: Flock<File>,
}

/// Why the file cannot be created.
#[derive(Debug)]
pub(super) enum Refused {
    /// A file exists and must not be replaced.
    Exists,
    /// Another process is writing the file.
    Locked,
    Other(io::Error),
}

impl Refused {
    /// Converts to an error about this path.
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Exists => StoreError::exists(path),
            Self::Locked => StoreError::refused(path, &"another process is writing it"),
            Self::Other(error) => StoreError::refused(path, &error),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::AlreadyExists { Self::Exists } else { Self::Other(error) }
    }
}

impl Owned {
    /// Creates a file. An existing file is left alone unless it is empty or may be replaced. The new file then takes
    /// its place when it is [begun](Self::begin).
    pub(super) fn create(path: &Path, existing: Existing, owner: Owner) -> Result<Self, Refused> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = lock(create_new(path, owner)?)?;
                Ok(Self { path: path.to_owned(), file, replaces: None, is_used: false })
            }
            Err(error) => Err(error.into()),
            // A recorder that failed to start may have left an empty file.
            Ok(old) if old.is_file() && old.len() == 0 => Self::replace(path, &old, false, owner),
            Ok(old) if existing != Existing::Refused => Self::replace(path, &old, existing == Existing::Renamed, owner),
            Ok(_) => Err(Refused::Exists),
        }
    }

    /// Replaces the file with a new one. Writing into the old one would give the data to its owner, or to its other
    /// hard links.
    fn replace(path: &Path, old: &fs::Metadata, is_kept: bool, owner: Owner) -> Result<Self, Refused> {
        let no = |reason: &str| Refused::Other(io::Error::other(reason));
        if old.is_symlink() {
            return Err(no("it is a symbolic link"));
        }
        if old.is_dir() {
            return Err(Refused::Other(ErrorKind::IsADirectory.into()));
        }
        if !old.is_file() {
            return Err(no("it is not a regular file"));
        }
        let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let old = lock(old)?;
        let name = path.file_name().unwrap_or_default();
        // An earlier process with the same process id may have left such a file.
        let hidden = |attempt: u32| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
            path.with_file_name(hidden)
        };
        for hidden in (0..100).map(hidden) {
            match create_new(&hidden, owner) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    let file = lock(created?)?;
                    let replaces = Some(Replaced { hidden, is_kept, _old: old });
                    return Ok(Self { path: path.to_owned(), file, replaces, is_used: false });
                }
            }
        }
        Err(no("its directory is full of unfinished files"))
    }

    /// Moves the file to its path. From now on it stays.
    pub(super) fn begin(&mut self) -> io::Result<&mut File> {
        if let Some(Replaced { hidden, is_kept, .. }) = &self.replaces {
            if *is_kept {
                keep(&self.path)?;
            }
            fs::rename(hidden, &self.path)?;
            self.replaces = None;
        }
        self.is_used = true;
        Ok(&mut self.file)
    }

    /// Whether its last name is gone.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let unused = match &self.replaces {
            Some(Replaced { hidden, .. }) => hidden,
            None if self.is_used => return,
            None => &self.path,
        };
        let same = |there: fs::Metadata| self.file.metadata().is_ok_and(|ours| ours.ino() == there.ino());
        if unused.symlink_metadata().is_ok_and(same) {
            // A file that cannot be removed is empty.
            let _ = fs::remove_file(unused);
        }
    }
}

/// Renames a file that is about to be replaced to `FILE.old`, by way of a hard link. If the path were free meanwhile,
/// another process could create a file there, and the new file would replace it.
fn keep(path: &Path) -> io::Result<()> {
    let mut old = path.to_owned().into_os_string();
    old.push(".old");
    let old = PathBuf::from(old);
    match fs::remove_file(&old) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Some file systems have no hard links.
    match fs::hard_link(path, &old).or_else(|_| fs::rename(path, &old)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        kept => kept,
    }
}

fn create_new(path: &Path, owner: Owner) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((user, group)) = owner
        && let Err(error) = fchown(&file, Some(user), Some(group))
    {
        // Some file systems have no owners.
        log::debug!("cannot give {} to user {user}: {error}", path.display());
    }
    Ok(file)
}

/// Whether another process is writing this file.
pub(super) fn is_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    file.is_ok_and(|file| matches!(lock(file), Err(Refused::Locked)))
}

/// Readers lock a trace for a moment to see whether it is being written; recorders must not fail because of that.
fn lock(mut file: File) -> Result<Flock<File>, Refused> {
    const ATTEMPTS: u32 = 5;
    for attempt in 1.. {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((_, Errno::EWOULDBLOCK)) if attempt == ATTEMPTS => break,
            Err((unlocked, Errno::EWOULDBLOCK)) => {
                file = unlocked;
                sleep(Duration::from_millis(5));
            }
            Err((_, errno)) => return Err(Refused::Other(errno.into())),
        }
    }
    Err(Refused::Locked)
}
