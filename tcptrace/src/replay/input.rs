//! Files that are opened once, and read as often as is needed: once privileges are given up, some could not be opened
//! again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::OpenError;

/// Traces that were opened, or why they were not.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    all: Vec<(Box<str>, Result<Input, Refused>)>,
    /// Length of the files.
    pub(super) bytes: u64,
}

/// A file, and where to read on. Copies read on by themselves, unless it is a pipe.
#[derive(Clone, Debug)]
pub struct Input {
    file: Arc<File>,
    /// `None`: it can only be read from where it is.
    at: Option<u64>,
}

/// An error that can be told several times.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Os(i32),
    Kind(io::ErrorKind),
}

impl Inputs {
    /// Opens files. `-` is standard input.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Self {
        let mut inputs = Self::default();
        paths.iter().for_each(|path| inputs.add(path.as_ref()));
        inputs
    }

    /// Opens another file.
    pub fn add(&mut self, path: &Path) {
        let opened = if path.as_os_str() == "-" { stdin() } else { File::open(path).and_then(Input::new) };
        self.push(path, opened);
    }

    /// Reads standard input from this copy.
    pub fn add_copy(&mut self, path: &Path, copy: File) {
        self.push(path, Input::new(copy));
    }

    fn push(&mut self, path: &Path, opened: io::Result<(Input, u64)>) {
        let opened = opened.map(|(input, len)| {
            self.bytes += len;
            input
        });
        self.all.push((path.display().to_string().into(), opened.map_err(|error| Refused::of(&error))));
    }

    /// All of them, from their beginnings.
    pub(super) fn all(&self) -> Vec<(Box<str>, io::Result<Input>)> {
        let again = |opened: &Result<Input, Refused>| opened.clone().map_err(Refused::error);
        self.all.iter().map(|(name, opened)| (name.clone(), again(opened))).collect()
    }

    /// # Errors
    /// When none of them can be read.
    pub fn expect_any(&self) -> Result<(), OpenError> {
        match self.all.first() {
            Some((path, Err(reason))) if self.all.iter().all(|(_, opened)| opened.is_err()) => {
                Err(OpenError::Unreadable { path: path.to_string(), reason: reason.error() })
            }
            _ => Ok(()),
        }
    }
}

impl Input {
    /// A file from its beginning, and its length.
    fn new(file: File) -> io::Result<(Self, u64)> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let at = metadata.is_file().then_some(0);
        Ok((Self { file: Arc::new(file), at }, metadata.len()))
    }

    /// Whether another process holds the lock that recorders take on the files they write.
    pub(super) fn is_locked(&self) -> bool {
        let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
        self.file.try_clone().is_ok_and(|file| matches!(lock(file), Err((_, Errno::EWOULDBLOCK))))
    }
}

/// It is read from where it is, and other programs can read on.
fn stdin() -> io::Result<(Input, u64)> {
    let (input, len) = Input::new(io::stdin().as_fd().try_clone_to_owned()?.into())?;
    Ok((Input { at: None, ..input }, len))
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(at) = &mut self.at else { return (&*self.file).read(buffer) };
        let read = self.file.read_at(buffer, *at)?;
        *at += read as u64;
        Ok(read)
    }
}

impl Refused {
    fn of(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::Kind(error.kind()), Self::Os)
    }

    fn error(self) -> io::Error {
        match self {
            Self::Os(code) => io::Error::from_raw_os_error(code),
            Self::Kind(kind) => kind.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_again_from_its_beginning_although_its_name_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t");
        fs::write(&path, "text").expect("write it");
        let inputs = Inputs::open(&[&path]);
        fs::remove_file(&path).expect("remove it");
        assert_eq!(inputs.bytes, 4);
        let read = || {
            let (_, input) = inputs.all().pop().expect("one");
            io::read_to_string(input.expect("opened"))
        };
        assert_eq!([read(), read()].map(|text| text.expect("read it")), ["text", "text"]);
    }

    #[test]
    fn why_a_file_was_not_opened_is_told_as_often_as_it_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let inputs = Inputs::open(&[folder.path(), Path::new("/no/such/file")]);
        for _ in 0..2 {
            let errors = inputs.all().into_iter().map(|(_, opened)| opened.err().map(|error| error.kind()));
            assert_eq!(errors.collect::<Vec<_>>(), [io::ErrorKind::IsADirectory, io::ErrorKind::NotFound].map(Some));
        }
        assert!(inputs.expect_any().is_err());
    }
}
