//! The files of a recording: made with care, written in a thread, and turned over as planned.

mod file;
mod writer;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use self::writer::{Output, Writer, next_free};

/// Blocks that wait to be written at most: some seconds of them, when the disk stands still.
const WAITING: usize = 96;

/// Where a recording goes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The file; with `numbered` a pattern for its names.
    pub path: PathBuf,
    /// Replace a file that exists.
    pub force: bool,
    /// Rename one that exists to `FILE.old`, unless files are numbered.
    pub keep_old: bool,
    /// Put a number before the extension: `trace.0001.tct`.
    pub numbered: bool,
    /// Keep at most so many files, and remove the oldest.
    pub most_files: Option<usize>,
    /// Keep at most so many bytes in all of them, and remove the oldest.
    pub most_bytes: Option<u64>,
}

/// What becomes of a file that exists where one is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// It stays, and there is no new one.
    Refused,
    /// It is gone.
    Replaced,
    /// Its name is `FILE.old` then.
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

    /// The files that earlier recordings have left.
    ///
    /// # Errors
    /// When one of them is still being written.
    fn others(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut others = self.left_over();
        loop {
            if let Some(path) = others.iter().find(|path| file::is_locked(path)) {
                return Err(file::Refused::Locked.at(path));
            }
            // A recorder locks the next file before it lets go of the last one.
            let again = self.left_over();
            if again == others {
                return Ok(others);
            }
            others = again;
        }
    }

    /// The files that are called as those of the recording are.
    fn left_over(&self) -> Vec<PathBuf> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> =
            entries.filter(|entry| self.has(&entry.file_name())).map(|entry| entry.path()).collect();
        paths.sort();
        paths
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
        Self::refused(path, &"it exists already; --force replaces it")
    }

    fn refused(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Create { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// A block as it is written.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The block.
    pub bytes: Bytes,
    /// How many events of sockets are in it.
    pub events: u64,
}

/// What was taken for writing, and could not be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Blocks that have a number.
    pub blocks: u64,
    /// Events of sockets.
    pub events: u64,
}

/// Makes the last block of a recording, in which it says what is missing.
pub(super) type End = Box<dyn FnMut(Missing) -> io::Result<Vec<u8>> + Send>;

/// Writes blocks, in a thread.
#[derive(Debug)]
pub struct Store {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
    path: PathBuf,
}

enum Order {
    Write(Packed),
    /// This is the last block of the file: what comes next goes into another one.
    Turn(Packed),
    /// Nothing more comes but this.
    End(End),
}

#[derive(Debug, Default)]
struct State {
    /// Why nothing is written any more.
    failure: OnceLock<String>,
    /// Whoever read what is written has gone away.
    is_closed: AtomicBool,
    /// What goes on being written ends up nowhere.
    wants_turn: AtomicBool,
    /// What else is to be said.
    notices: Mutex<Vec<String>>,
    /// Bytes in the files that are there.
    bytes: AtomicU64,
    /// Events that were written.
    events: AtomicU64,
    /// Events that could not be written.
    missing: AtomicU64,
}

impl State {
    fn notice(&self, text: String) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

impl Store {
    /// Makes the first file.
    ///
    /// # Errors
    /// When it exists and is not to be replaced, when it is no regular file, or when another process writes it or, where
    /// files are numbered, any of them.
    pub fn create(plan: &Plan) -> Result<Self, StoreError> {
        if plan.numbered {
            let others = plan.others()?;
            if let Some(path) = others.first().filter(|_| !plan.force) {
                return Err(StoreError::exists(path));
            }
        }
        let path = plan.path_of(0);
        let file = file::Owned::create(&path, plan.existing()).map_err(|refused| refused.at(&path))?;
        Self::start(plan, Output::File(file), 0, WAITING)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// When that is a terminal, or closed.
    pub fn stdout() -> Result<Self, StoreError> {
        let path = Path::new("-");
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(StoreError::refused(path, &"standard output is a terminal; redirect it, or give -o a file"));
        }
        let pipe = stdout.as_fd().try_clone_to_owned().map_err(|error| StoreError::refused(path, &error))?;
        Self::start(&Plan { path: path.into(), ..Plan::default() }, Output::Pipe(File::from(pipe)), 0, WAITING)
    }

    /// Writes these blocks, and what `end` makes, into the first file from this number on whose name is not taken. Returns
    /// its number as well.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn of_blocks(plan: &Plan, number: u32, blocks: Vec<Packed>, end: End) -> Result<(Self, u32), StoreError> {
        let (file, number) = next_free(plan, number)?;
        let mut store = Self::start(plan, Output::File(file), number, blocks.len() + 1)?;
        // There is room for all, and a failure is asked for later.
        for order in blocks.into_iter().map(Order::Write).chain([Order::End(end)]) {
            let _ = store.order(order);
        }
        store.orders = None;
        Ok((store, number))
    }

    fn start(plan: &Plan, output: Output, number: u32, room: usize) -> Result<Self, StoreError> {
        let state = Arc::new(State::default());
        let writer = Writer::new(plan, output, number, Arc::clone(&state));
        let (sender, receiver) = sync_channel(room);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(&receiver));
        let thread = Some(thread.map_err(StoreError::Thread)?);
        Ok(Self { orders: Some(sender), thread, state, path: plan.path_of(number) })
    }

    /// The first file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a block written. `false` if it will not be: the disk is full, or so slow that too many blocks wait already.
    pub fn write(&self, block: Packed) -> bool {
        self.order(Order::Write(block))
    }

    /// The same, however long it takes.
    pub fn write_last(&self, block: Packed) -> bool {
        let orders = self.orders.as_ref().filter(|_| self.failure().is_none());
        orders.is_some_and(|orders| orders.send(Order::Write(block)).is_ok())
    }

    /// Ends a file with this block, and goes on to another one. `false` if that is not possible now.
    pub fn turn(&self, end: Packed) -> bool {
        self.order(Order::Turn(end))
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

    /// Whether whoever read what is written has gone away.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed.load(Ordering::Relaxed)
    }

    /// Whether another file should be begun: the one that is being written was deleted.
    pub fn wants_turn(&self) -> bool {
        self.state.wants_turn.load(Ordering::Relaxed)
    }

    /// What has happened since this was asked last that somebody should know.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes in the files that are there.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Events of sockets that were written.
    pub fn events(&self) -> u64 {
        self.state.events.load(Ordering::Relaxed)
    }

    /// Events of sockets that were taken for writing, and could not be written.
    pub fn missing(&self) -> u64 {
        self.state.missing.load(Ordering::Relaxed)
    }

    /// Whether everything is written.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until everything is written, and at last what `end` makes.
    pub fn end(&mut self, end: End) {
        if let Some(orders) = &self.orders {
            // A thread that is gone has said why.
            let _ = orders.send(Order::End(end));
        }
        self.finish();
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
