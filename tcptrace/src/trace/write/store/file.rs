//! One file of a recording: made so that only its owner can read it, nobody else writes it, and nothing is lost for it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use super::{Existing, StoreError};

/// A file that this process alone writes. One into which nothing was written is removed again.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) path: PathBuf,
    file: Flock<File>,
    /// What it replaces, and under which name it waits for that.
    replaces: Option<Replaced>,
    is_used: bool,
}

#[derive(Debug)]
struct Replaced {
    hidden: PathBuf,
    /// What is replaced gets another name.
    is_kept: bool,
    /// Locked as well, so that nobody else replaces it meanwhile.
    _old: Flock<File>,
}

/// Why there is no such file.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is one, and it must not be replaced.
    Exists,
    /// Another process writes it.
    Locked,
    /// Anything else.
    Other(io::Error),
}

impl Refused {
    /// As an error about this path.
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
    /// Makes one. What is there already is left alone, unless it is empty or to be replaced: then the new file takes its
    /// place when it is [begun](Self::begin).
    pub(super) fn create(path: &Path, existing: Existing) -> Result<Self, Refused> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = lock(create_new(path)?)?;
                Ok(Self { path: path.to_owned(), file, replaces: None, is_used: false })
            }
            Err(error) => Err(error.into()),
            // A recorder that could not begin may have left an empty one.
            Ok(old) if old.is_file() && old.len() == 0 => Self::replace(path, &old, false),
            Ok(old) if existing != Existing::Refused => Self::replace(path, &old, existing == Existing::Renamed),
            Ok(_) => Err(Refused::Exists),
        }
    }

    /// What is written into the file of somebody else, or under a second name of it, would be his: so it is a new one.
    fn replace(path: &Path, old: &fs::Metadata, is_kept: bool) -> Result<Self, Refused> {
        let no = |reason: &str| Refused::Other(io::Error::other(reason));
        if old.is_symlink() {
            return Err(no("it is a symbolic link"));
        }
        if old.is_dir() {
            return Err(Refused::Other(ErrorKind::IsADirectory.into()));
        }
        if !old.is_file() {
            return Err(no("it is no regular file"));
        }
        let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let old = lock(old)?;
        let name = path.file_name().unwrap_or_default();
        // Somebody with our process id may have left one behind.
        let hidden = |attempt: u32| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
            path.with_file_name(hidden)
        };
        for hidden in (0..100).map(hidden) {
            match create_new(&hidden) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    let file = lock(created?)?;
                    let replaces = Some(Replaced { hidden, is_kept, _old: old });
                    return Ok(Self { path: path.to_owned(), file, replaces, is_used: false });
                }
            }
        }
        Err(no("its folder is full of unfinished files"))
    }

    /// Has it take its place: from now on it stays.
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
            // What cannot be removed is empty.
            let _ = fs::remove_file(unused);
        }
    }
}

/// Gives a file that is about to be replaced the name `FILE.old`. As a second name: without the first one, another process
/// could make a file there, which would be replaced then.
fn keep(path: &Path) -> io::Result<()> {
    let mut old = path.to_owned().into_os_string();
    old.push(".old");
    let old = PathBuf::from(old);
    match fs::remove_file(&old) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Some file systems know no second names.
    match fs::hard_link(path, &old).or_else(|_| fs::rename(path, &old)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        kept => kept,
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Whether another process writes this file.
pub(super) fn is_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    file.is_ok_and(|file| matches!(lock(file), Err(Refused::Locked)))
}

/// Whoever reads a trace looks for a moment whether it is locked, which keeps nobody from writing it.
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
