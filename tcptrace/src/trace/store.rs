//! The files of a recording: made with care, written in a thread, and turned over as planned.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

/// How often what was written is made to last a loss of power.
const SYNC: Duration = Duration::from_secs(1);

/// Blocks that wait to be written at most: some seconds of them, when the disk stands still.
const WAITING: usize = 96;

/// Where a recording goes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The file; with `numbered` a pattern for its names.
    pub path: PathBuf,
    /// Replace a file that exists.
    pub force: bool,
    /// Put a number before the extension: `trace.0001.tct`.
    pub numbered: bool,
    /// Keep at most so many files, and remove the oldest.
    pub most_files: Option<usize>,
    /// Keep at most so many bytes in all of them, and remove the oldest.
    pub most_bytes: Option<u64>,
}

impl Plan {
    /// The path of a file of the recording, by its number from 0.
    pub fn path_of(&self, number: u32) -> PathBuf {
        if !self.numbered {
            return self.path.clone();
        }
        let mut name = self.path.file_stem().unwrap_or_default().to_owned();
        name.push(format!(".{:04}", number + 1));
        if let Some(extension) = self.path.extension() {
            name.push(".");
            name.push(extension);
        }
        self.path.with_file_name(name)
    }
}

impl Plan {
    /// Whether a file of this name could be one of the recording.
    fn has(&self, name: &OsStr) -> bool {
        let stem = self.path.file_stem().unwrap_or_default().as_bytes();
        let rest = name.as_bytes().strip_prefix(stem).and_then(|rest| rest.strip_prefix(b"."));
        let number = match self.path.extension() {
            Some(extension) => rest.and_then(|rest| rest.strip_suffix(extension.as_bytes())?.strip_suffix(b".")),
            None => rest,
        };
        number.is_some_and(|number| number.len() >= 4 && number.iter().all(u8::is_ascii_digit))
    }

    /// A file that an earlier recording has left, and that this one would come upon when it is too late.
    fn left_over(&self) -> Option<PathBuf> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut entries = fs::read_dir(folder).ok()?.flatten();
        entries.find(|entry| self.has(&entry.file_name())).map(|entry| entry.path())
    }
}

/// Why a trace cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made.
    #[error("cannot create the trace '{path}': {reason}")]
    Create {
        /// Which.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start a thread for writing: {0}")]
    Thread(io::Error),
}

impl StoreError {
    /// There is a file where one is to be made.
    pub fn exists(path: &Path) -> Self {
        Self::Create { path: path.display().to_string(), reason: "it exists already; --force replaces it".into() }
    }
}

/// Writes blocks, in a thread.
#[derive(Debug)]
pub struct Store {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Debug)]
enum Order {
    Write(Bytes),
    /// What comes next goes into another file, with this number.
    Turn(u32),
}

#[derive(Debug, Default)]
struct State {
    /// Why nothing is written any more.
    failure: OnceLock<String>,
    /// Bytes in the files that are there.
    bytes: AtomicU64,
}

impl Store {
    /// Makes the first file.
    ///
    /// # Errors
    /// When it exists and is not to be replaced, when it is no regular file, or when somebody else writes it.
    pub fn create(plan: &Plan) -> Result<Self, StoreError> {
        if plan.numbered
            && !plan.force
            && let Some(path) = plan.left_over()
        {
            return Err(StoreError::exists(&path));
        }
        Self::with_room(plan, 0, WAITING)
    }

    /// Writes these blocks into the file with this number.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn of_blocks(plan: &Plan, number: u32, blocks: &[Bytes]) -> Result<Self, StoreError> {
        let store = Self::with_room(plan, number, blocks.len())?;
        for block in blocks {
            // There is room for all, and a failure is asked for later.
            let _ = store.write(block.clone());
        }
        Ok(store)
    }

    fn with_room(plan: &Plan, number: u32, room: usize) -> Result<Self, StoreError> {
        let path = plan.path_of(number);
        let file = create(&path, plan.force)?;
        let state = Arc::new(State::default());
        let writer = Writer {
            files: VecDeque::from([Kept { path, len: 0 }]),
            file,
            plan: plan.clone(),
            state: Arc::clone(&state),
            unsynced_since: None,
        };
        let (sender, receiver) = sync_channel(room);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(&receiver));
        Ok(Self { orders: Some(sender), thread: Some(thread.map_err(StoreError::Thread)?), state })
    }

    /// Has a block written. `false` if it will not be: the disk is full, or so slow that too many blocks wait already.
    pub fn write(&self, block: Bytes) -> bool {
        self.order(Order::Write(block))
    }

    /// Goes on to another file. `false` if that is not possible now.
    pub fn turn(&self, number: u32) -> bool {
        self.order(Order::Turn(number))
    }

    fn order(&self, order: Order) -> bool {
        if self.failure().is_some() {
            return false;
        }
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Why nothing is written any more.
    pub fn failure(&self) -> Option<&str> {
        self.state.failure.get().map(String::as_str)
    }

    /// Bytes in the files that are there.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Waits until everything is written.
    pub fn finish(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its was shown already.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Kept {
    path: PathBuf,
    len: u64,
}

/// What writes.
struct Writer {
    plan: Plan,
    file: Flock<File>,
    /// The files that are there, the one that is being written last.
    files: VecDeque<Kept>,
    state: Arc<State>,
    unsynced_since: Option<Instant>,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let wait = self.unsynced_since.map_or(Duration::MAX, |since| SYNC.saturating_sub(since.elapsed()));
            let order = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if self.state.failure.get().is_some() {
                continue;
            }
            let done = match order {
                Some(Order::Write(block)) => self.write(&block),
                Some(Order::Turn(number)) => self.turn(number),
                None => Ok(()),
            };
            let due = self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNC);
            if let Err(failure) = done.and_then(|()| if due { self.sync() } else { Ok(()) }) {
                // Said once, by whoever asks.
                let _ = self.state.failure.set(failure);
            }
        }
        if self.state.failure.get().is_none()
            && let Err(failure) = self.sync()
        {
            let _ = self.state.failure.set(failure);
        }
    }

    fn write(&mut self, block: &[u8]) -> Result<(), String> {
        let Some(kept) = self.files.back_mut() else { return Ok(()) };
        if let Err(error) = self.file.write_all(block) {
            // What was written last stays as it is: the part of a block that is there goes.
            let _ = self.file.set_len(kept.len);
            return Err(format!("cannot write '{}': {error}", kept.path.display()));
        }
        kept.len += block.len() as u64;
        self.unsynced_since.get_or_insert_with(Instant::now);
        self.remove_oldest();
        Ok(())
    }

    fn turn(&mut self, number: u32) -> Result<(), String> {
        self.sync()?;
        let path = self.plan.path_of(number);
        self.file = create(&path, self.plan.force).map_err(|error| error.to_string())?;
        self.files.push_back(Kept { path, len: 0 });
        self.remove_oldest();
        Ok(())
    }

    /// Keeps as many files as planned, and as many bytes.
    fn remove_oldest(&mut self) {
        let mut bytes: u64 = self.files.iter().map(|kept| kept.len).sum();
        let (most_files, most_bytes) =
            (self.plan.most_files.unwrap_or(usize::MAX), self.plan.most_bytes.unwrap_or(u64::MAX));
        while self.files.len() > 1
            && (self.files.len() > most_files || bytes > most_bytes)
            && let Some(oldest) = self.files.pop_front()
        {
            bytes -= oldest.len;
            if let Err(error) = fs::remove_file(&oldest.path) {
                log::warn!("cannot remove the old trace '{}': {error}", oldest.path.display());
            }
        }
        self.state.bytes.store(bytes, Ordering::Relaxed);
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(_) = self.unsynced_since.take() else { return Ok(()) };
        let path = self.files.back().map(|kept| kept.path.display().to_string());
        self.file.sync_data().map_err(|error| format!("cannot write '{}': {error}", path.unwrap_or_default()))
    }
}

/// Makes a file that only its owner can read, and that nobody else writes.
fn create(path: &Path, force: bool) -> Result<Flock<File>, StoreError> {
    let failed = |reason: String| StoreError::Create { path: path.display().to_string(), reason };
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    if force {
        options.create(true)
    } else {
        options.create_new(true)
    };
    let file = options.open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return StoreError::exists(path);
        }
        failed(match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => "it is a symbolic link".into(),
            Some(Errno::ENXIO) => "it is no regular file".into(),
            _ => error.to_string(),
        })
    })?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".into()));
    }
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        failed(if errno == Errno::EWOULDBLOCK { "another process is writing it".into() } else { errno.to_string() })
    })?;
    let emptied = file.set_permissions(Permissions::from_mode(0o600)).and_then(|()| file.set_len(0));
    emptied.map_err(|error| failed(error.to_string()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("trace.tct", "trace.0001.tct", true)]
    #[case("trace.tct", "trace.12345.tct", true)]
    #[case("trace.tct", "trace.tct", false)]
    #[case("trace.tct", "trace.0001", false)]
    #[case("trace.tct", "trace.1.tct", false)]
    #[case("trace.tct", "trace.000x.tct", false)]
    #[case("trace.tct", "other.0001.tct", false)]
    #[case("trace", "trace.0001", true)]
    #[case("trace", "trace.0001.tct", false)]
    fn files_of_a_recording(#[case] path: &str, #[case] name: &str, #[case] expected: bool) {
        let plan = Plan { path: path.into(), numbered: true, ..Plan::default() };
        assert_eq!(plan.has(name.as_ref()), expected);
        assert!(plan.has(plan.path_of(8).as_os_str()));
    }
}
