//! Files that appear complete or not at all.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

/// A directory for files. Paths below it are opened relative to it, and never through a symbolic link.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Folder {
    /// Opens a directory, and creates it if missing.
    ///
    /// # Errors
    /// When it cannot be created or opened, or is a symbolic link.
    pub fn make(path: &Path) -> Result<Self> {
        // A trailing slash would make the kernel follow a link.
        let path: PathBuf = path.components().collect();
        Self::make_at(AT_FDCWD, &path, path.clone())
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty());
        let fd = fd.with_context(|| format!("cannot open directory {}", path.display()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The directory of this name in it, created if missing.
    fn below(&self, name: &str) -> Result<Self> {
        Self::make_at(&self.fd, Path::new(name), self.path.join(name))
    }

    fn make_at(parent: impl std::os::fd::AsFd, name: &Path, path: PathBuf) -> Result<Self> {
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create directory {}", path.display())),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&parent, name, flags, Mode::empty());
        let fd = fd.with_context(|| format!("cannot open directory {}", path.display()))?;
        Ok(Self { fd, path })
    }

    fn has(&self, name: &str) -> Result<bool> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look for {}", self.path.join(name).display())),
        }
    }

    fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: self.fd.try_clone().context("cannot keep a directory open")?, path: self.path.clone() })
    }
}

/// The unfinished files.
static DRAFTS: Mutex<Vec<Hidden>> = Mutex::new(Vec::new());

fn drafts() -> MutexGuard<'static, Vec<Hidden>> {
    DRAFTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file under a hidden name.
#[derive(Clone, Debug)]
struct Hidden {
    root: Arc<Folder>,
    /// Directories below the root, outermost first.
    folders: Vec<String>,
    name: String,
}

impl Hidden {
    fn remove(&self) {
        // A file that cannot be removed stays hidden.
        if let Ok(folder) = descend(&self.root, &self.folders) {
            let _ = unlinkat(&folder.fd, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root) && self.folders == other.folders && self.name == other.name
    }
}

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An unfinished file, under a hidden name until it is published. Dropping it before removes it.
#[derive(Debug)]
pub struct Draft {
    name: String,
    hidden: Hidden,
    published: bool,
}

impl Draft {
    /// Starts a file in the directory `folders` below `root`.
    ///
    /// # Errors
    /// When it cannot be created, or a file of that name exists and is not to be replaced.
    pub fn begin(root: &Arc<Folder>, folders: &[String], name: &str, replace: bool) -> Result<(Self, File)> {
        let folder = descend(root, folders)?;
        if !replace && folder.has(name)? {
            return Err(exists(&folder, name));
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let create = |hidden: &str| openat(&folder.fd, hidden, flags, mode);
        // An earlier process with our process id may have left one behind.
        let names = (0..100).map(|attempt| format!(".{name}.{}-{attempt}.tmp", std::process::id()));
        // The lock makes sure that `remove_all` does not miss this file.
        let mut drafts = drafts();
        let mut attempts = names.map(|hidden| (create(&hidden), hidden));
        let (file, hidden) = attempts
            .find(|(file, _)| !matches!(file, Err(Errno::EEXIST)))
            .with_context(|| format!("{} is full of unfinished files", folder.path.display()))?;
        let file = file.with_context(|| format!("cannot create a file in {}", folder.path.display()))?;
        let hidden = Hidden { root: Arc::clone(root), folders: folders.to_vec(), name: hidden };
        drafts.push(hidden.clone());
        Ok((Self { name: name.to_owned(), hidden, published: false }, file.into()))
    }

    /// Whether a file can be started at a path, as far as that can be told before.
    ///
    /// # Errors
    /// When there is no such folder, or a file of that name exists and is not to be replaced.
    pub fn expect_place(path: &Path, replace: bool) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} does not name a file", path.display()))?;
        let folder = Folder::open(folder(path))?;
        if !replace && folder.has(name)? { Err(exists(&folder, name)) } else { Ok(()) }
    }

    /// Starts a file at a path.
    ///
    /// # Errors
    /// As [`Draft::begin`].
    pub fn begin_at(path: &Path, replace: bool) -> Result<(Self, File)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} does not name a file", path.display()))?;
        Self::begin(&Arc::new(Folder::open(folder(path))?), &[], name, replace)
    }

    /// Syncs a file to disk and gives it its final name.
    ///
    /// # Errors
    /// When that fails, or a file of that name exists meanwhile and is not to be replaced.
    pub fn publish(mut self, replace: bool) -> Result<()> {
        let folder = self.folder()?;
        let file = openat(&folder.fd, self.hidden.name.as_str(), OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Mode::empty());
        let saved = file.map_err(std::io::Error::from).and_then(|file| File::from(file).sync_all());
        saved.with_context(|| format!("cannot save {}", folder.path.join(&self.name).display()))?;
        self.name_it(&folder, replace)?;
        self.published = true;
        Ok(())
    }

    fn name_it(&self, folder: &Folder, replace: bool) -> Result<()> {
        let (hidden, name) = (self.hidden.name.as_str(), self.name.as_str());
        let renamed = || {
            renameat(&folder.fd, hidden, &folder.fd, name)
                .with_context(|| format!("cannot name {}", folder.path.join(name).display()))
        };
        if replace {
            return renamed();
        }
        // Unlike a rename, a link never replaces anything.
        match linkat(&folder.fd, hidden, &folder.fd, name, AtFlags::empty()) {
            Ok(()) => unlinkat(&folder.fd, hidden, UnlinkatFlags::NoRemoveDir)
                .with_context(|| format!("cannot remove {}", folder.path.join(hidden).display())),
            Err(Errno::EEXIST) => Err(exists(folder, name)),
            // This file system has no hard links.
            Err(_) if !folder.has(name)? => renamed(),
            Err(_) => Err(exists(folder, name)),
        }
    }

    /// Whether there is a file of that name already.
    #[cfg(feature = "parquet")]
    pub(super) fn is_taken(&self) -> Result<bool> {
        self.folder()?.has(&self.name)
    }

    fn folder(&self) -> Result<Folder> {
        descend(&self.hidden.root, &self.hidden.folders)
    }

    /// Removes all unfinished files, then runs `last`. No other file starts meanwhile.
    pub fn remove_all(last: impl FnOnce()) {
        let drafts = drafts();
        drafts.iter().for_each(Hidden::remove);
        last();
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hidden { root, folders, .. } = &self.hidden;
        let folder = folders.iter().fold(root.path.clone(), |path, name| path.join(name));
        write!(f, "{}", folder.join(&self.name).display())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            self.hidden.remove();
        }
        drafts().retain(|hidden| !hidden.is(&self.hidden));
    }
}

fn descend(root: &Folder, folders: &[String]) -> Result<Folder> {
    folders.iter().try_fold(root.try_clone()?, |folder, name| folder.below(name))
}

fn exists(folder: &Folder, name: &str) -> anyhow::Error {
    anyhow!("{} exists; --force replaces it", folder.path.join(name).display())
}
