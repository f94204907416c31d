//! The files of a recording: created safely, written by a thread, and rotated as planned.

mod file;
mod writer;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use self::writer::{Output, Writer, next_free};

/// Most blocks that wait to be written: some seconds of them, while the disk stalls.
const WAITING: usize = 96;

/// Where and how a recording is stored.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The file; with `numbered`, a pattern for the names.
    pub path: PathBuf,
    /// Replace an existing file.
    pub force: bool,
    /// Rename an existing file to `FILE.old`, unless files are numbered.
    pub keep_old: bool,
    /// Put a number before the extension: `trace.0001.tct`.
    pub numbered: bool,
    /// Keep at most this many files, and remove the oldest.
    pub most_files: Option<usize>,
    /// Keep at most this many bytes in all files together, and remove the oldest.
    pub most_bytes: Option<u64>,
    /// User and group that files are given to.
    pub owner: Option<(u32, u32)>,
}

/// What happens to an existing file at the path of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// It stays, and no new file is created.
    Refused,
    /// It is replaced.
    Replaced,
    /// It is renamed to `FILE.old`.
    Renamed,
}

impl Plan {
    fn existing(&self) -> Existing {
        match () {
            () if self.force => Existing::Replaced,
            () if self.keep_old && !self.numbered => Existing::Renamed,
            () => Existing::Refused,
        }
    }

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
    /// Whether a file of this name could belong to the recording.
    fn has(&self, name: &OsStr) -> bool {
        let stem = self.path.file_stem().unwrap_or_default().as_bytes();
        let rest = name.as_bytes().strip_prefix(stem).and_then(|rest| rest.strip_prefix(b"."));
        let number = match self.path.extension() {
            Some(extension) => rest.and_then(|rest| rest.strip_suffix(extension.as_bytes())?.strip_suffix(b".")),
            None => rest,
        };
        number.is_some_and(|number| number.len() >= 4 && number.iter().all(u8::is_ascii_digit))
    }

    /// The files of earlier recordings.
    ///
    /// # Errors
    /// When one of them is still being written.
    fn others(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut others = self.left_over();
        loop {
            if let Some(path) = others.iter().find(|path| file::is_locked(path)) {
                return Err(file::Refused::Locked.at(path));
            }
            // A recorder locks the next file before it unlocks the last one.
            let again = self.left_over();
            if again == others {
                return Ok(others);
            }
            others = again;
        }
    }

    /// The files whose names fit the recording.
    fn left_over(&self) -> Vec<PathBuf> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> =
            entries.filter(|entry| self.has(&entry.file_name())).map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }
}

/// Why a trace cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created.
    #[error("cannot create the trace '{path}': {reason}")]
    Create {
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start a thread to write the trace: {0}")]
    Thread(io::Error),
}

impl StoreError {
    /// An error: a file of this name exists.
    pub fn exists(path: &Path) -> Self {
        Self::refused(path, &"the file exists; --force replaces it")
    }

    fn refused(path: &Path, reason: &dyn fmt::Display) -> Self {
        Self::Create { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// A packed block.
#[derive(Clone, Debug)]
pub struct Packed {
    pub bytes: Bytes,
    /// Events of sockets in it.
    pub events: u64,
    /// Missing events that it reports.
    pub gap: u64,
}

/// Accepted blocks that could not be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Blocks with a number.
    pub blocks: u64,
    /// Events of sockets.
    pub events: u64,
    /// Missing events that these blocks would have reported.
    pub gap: u64,
}

/// Why writing stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    /// The disk is full: writing can go on once there is room.
    pub passes: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Makes the last block of a recording, which reports what is missing.
pub(super) type End = Box<dyn FnMut(Missing) -> io::Result<Vec<u8>> + Send>;

/// Writes blocks in a thread.
#[derive(Debug)]
pub struct Store {
    orders: Option<SyncSender<Order>>,
    /// Until the thread begins.
    waiting: Option<Waiting>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
    path: PathBuf,
}

/// What the thread will do.
struct Waiting(Box<Writer>, Receiver<Order>);

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

enum Order {
    Write(Packed),
    /// The last block of the file: the next one goes into another file.
    Turn(Packed),
    /// Writing goes on, if the disk was full and has room now.
    Retry,
    /// The last order: the end of the recording.
    End(End),
}

#[derive(Debug, Default)]
struct State {
    /// Why writing stopped.
    failure: Mutex<Option<Failure>>,
    /// What went missing before writing went on.
    resumed: Mutex<Option<Missing>>,
    /// The reader of the pipe has closed it.
    is_closed: AtomicBool,
    /// The file was deleted: further blocks would be lost.
    wants_turn: AtomicBool,
    /// Other messages for the user.
    notices: Mutex<Vec<String>>,
    /// Bytes in the existing files.
    bytes: AtomicU64,
    /// Events that were written.
    events: AtomicU64,
    /// Events that could not be written.
    missing: AtomicU64,
}

impl State {
    fn notice(&self, text: String) {
        locked(&self.notices).push(text);
    }

    /// The first failure counts, unless it can pass and another one cannot.
    fn fail(&self, failure: Failure) {
        let mut known = locked(&self.failure);
        if known.as_ref().is_none_or(|known| known.passes && !failure.passes) {
            *known = Some(failure);
        }
    }

    fn has_failed(&self) -> bool {
        locked(&self.failure).is_some()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Creates the first file. Blocks are written once the thread has [begun](Self::begin).
    ///
    /// # Errors
    /// When the file exists and must not be replaced, when it is not a regular file, or when another process is writing
    /// it. With numbered files, also when another process is writing any of them.
    pub fn create(plan: &Plan) -> Result<Self, StoreError> {
        if plan.numbered {
            let others = plan.others()?;
            if let Some(path) = others.first().filter(|_| !plan.force) {
                return Err(StoreError::exists(path));
            }
        }
        let path = plan.path_of(0);
        let file = file::Owned::create(&path, plan.existing(), plan.owner).map_err(|refused| refused.at(&path))?;
        Ok(Self::new(plan, Output::File(file), 0, WAITING))
    }

    /// Writes to standard output, once the thread has [begun](Self::begin).
    ///
    /// # Errors
    /// When standard output is a terminal, or closed.
    pub fn stdout() -> Result<Self, StoreError> {
        let path = Path::new("-");
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(StoreError::refused(
                path,
                &"standard output is a terminal; redirect it, or name a file with -o",
            ));
        }
        let pipe = stdout.as_fd().try_clone_to_owned().map_err(|error| StoreError::refused(path, &error))?;
        Ok(Self::new(&Plan { path: path.into(), ..Plan::default() }, Output::Pipe(File::from(pipe)), 0, WAITING))
    }

    /// Writes these blocks, and the result of `end`, into the first file from this number on whose name is free.
    /// Returns the number of that file as well.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn of_blocks(plan: &Plan, number: u32, blocks: Vec<Packed>, end: End) -> Result<(Self, u32), StoreError> {
        let (file, number) = next_free(plan, number)?;
        let mut store = Self::new(plan, Output::File(file), number, blocks.len() + 1);
        store.begin()?;
        // The queue has room for all, and the caller checks for failures later.
        for order in blocks.into_iter().map(Order::Write).chain([Order::End(end)]) {
            let _ = store.order(order);
        }
        store.orders = None;
        Ok((store, number))
    }

    fn new(plan: &Plan, output: Output, number: u32, room: usize) -> Self {
        let state = Arc::new(State::default());
        let writer = Box::new(Writer::new(plan, output, number, Arc::clone(&state)));
        let (sender, receiver) = sync_channel(room);
        let waiting = Some(Waiting(writer, receiver));
        Self { orders: Some(sender), waiting, thread: None, state, path: plan.path_of(number) }
    }

    /// Starts the thread that writes. It has the privileges that the calling thread has now.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(Waiting(writer, orders)) = self.waiting.take() {
            let thread = std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(&orders));
            self.thread = Some(thread.map_err(StoreError::Thread)?);
        }
        Ok(())
    }

    /// The path of the first file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Queues a block. Returns `false` if it will not be written: the disk is full, or too many blocks are already
    /// waiting.
    pub fn write(&self, block: Packed) -> bool {
        self.order(Order::Write(block))
    }

    /// Like [`write`](Self::write), but waits as long as necessary.
    pub fn write_last(&self, block: Packed) -> bool {
        let orders = self.orders.as_ref().filter(|_| !self.has_failed());
        orders.is_some_and(|orders| orders.send(Order::Write(block)).is_ok())
    }

    /// Ends a file with this block, and goes on to another file. Returns `false` if that is not possible now.
    pub fn turn(&self, end: Packed) -> bool {
        self.order(Order::Turn(end))
    }

    fn order(&self, order: Order) -> bool {
        if self.has_failed() {
            return false;
        }
        self.send(order)
    }

    fn send(&self, order: Order) -> bool {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Why writing stopped, if it did.
    pub fn failure(&self) -> Option<Failure> {
        locked(&self.state.failure).clone()
    }

    /// Whether writing stopped.
    pub fn has_failed(&self) -> bool {
        self.state.has_failed()
    }

    /// Asks whether a full disk has room again. If it has, blocks are accepted from then on, and
    /// [`resumed`](Self::resumed) says so.
    pub fn retry(&self) {
        self.send(Order::Retry);
    }

    /// What went missing before writing went on, once.
    pub fn resumed(&self) -> Option<Missing> {
        locked(&self.state.resumed).take()
    }

    /// Whether the reader of the pipe has closed it.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed.load(Ordering::Relaxed)
    }

    /// Whether to begin another file, because the current one was deleted.
    pub fn wants_turn(&self) -> bool {
        self.state.wants_turn.load(Ordering::Relaxed)
    }

    /// Messages for the user since the last call.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.state.notices))
    }

    /// Bytes in the existing files.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Events of sockets that were written.
    pub fn events(&self) -> u64 {
        self.state.events.load(Ordering::Relaxed)
    }

    /// Events of sockets that were accepted and could not be written.
    pub fn missing(&self) -> u64 {
        self.state.missing.load(Ordering::Relaxed)
    }

    /// Whether everything is written.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Writes the result of `end` last, and waits until everything is written.
    pub fn end(&mut self, end: End) {
        if let Some(orders) = &self.orders {
            // If the thread is gone, it has reported why.
            let _ = orders.send(Order::End(end));
        }
        self.finish();
    }

    /// Waits until everything is written.
    pub fn finish(&mut self) {
        (self.orders, self.waiting) = (None, None);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
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
