//! The thread that writes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::file::{Owned, Refused};
use super::{Failure, Missing, Order, Packed, Plan, State, StoreError, locked};

/// How often data is synced, so that it survives a loss of power.
const SYNC: Duration = Duration::from_secs(1);

/// How many names in a row may be taken before the writer gives up.
const TAKEN: u32 = 10_000;

/// How many of the last blocks can be removed to make room for the end.
const RECENT: usize = 16;

/// Writing to a full disk goes on when there is room for this many bytes.
const ROOM: i64 = 1 << 20;

pub(super) struct Writer {
    plan: Plan,
    output: Output,
    /// The existing files; the last one is being written.
    files: VecDeque<Kept>,
    /// Length of the last blocks of the current file, their events, and the missing events that they report.
    recent: VecDeque<(u64, u64, u64)>,
    /// Number of the current file.
    number: u32,
    missing: Missing,
    state: Arc<State>,
    unsynced_since: Option<Instant>,
}

/// Where blocks are written.
#[derive(Debug)]
pub(super) enum Output {
    File(Owned),
    /// The reader of a pipe can close it.
    Pipe(File),
}

struct Kept {
    path: PathBuf,
    len: u64,
    events: u64,
}

impl Writer {
    pub(super) fn new(plan: &Plan, output: Output, number: u32, state: Arc<State>) -> Self {
        let path = match &output {
            Output::File(file) => file.path.clone(),
            Output::Pipe(_) => "standard output".into(),
        };
        Self {
            plan: plan.clone(),
            output,
            files: VecDeque::from([Kept { path, len: 0, events: 0 }]),
            recent: VecDeque::new(),
            number,
            missing: Missing::default(),
            state,
            unsynced_since: None,
        }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let wait = self.unsynced_since.map_or(Duration::MAX, |since| SYNC.saturating_sub(since.elapsed()));
            let order = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let done = match order {
                Some(Order::Write(block)) => self.write(&block),
                Some(Order::Turn(end)) => self.turn(&end),
                Some(Order::End(end)) => self.end(end),
                Some(Order::Retry) => {
                    self.retry();
                    Ok(())
                }
                None => Ok(()),
            };
            let due = self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNC);
            self.note(done);
            if due {
                let synced = self.sync();
                self.note(synced);
            }
        }
        let synced = self.sync();
        self.note(synced);
    }

    /// Stores a failure until it is reported.
    fn note(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            self.state.fail(failure);
        }
    }

    fn has_failed(&self) -> bool {
        self.state.has_failed() || self.state.is_closed.load(Ordering::Relaxed)
    }

    fn miss(&mut self, missing: Missing) {
        self.missing.blocks += missing.blocks;
        self.missing.events += missing.events;
        self.missing.gap += missing.gap;
        self.state.missing.store(self.missing.events, Ordering::Relaxed);
    }

    /// Goes on, if the disk was full and has room now. What is missing is for the caller to report.
    fn retry(&mut self) {
        self.look_for_file();
        let passes = locked(&self.state.failure).as_ref().is_some_and(|failure| failure.passes);
        if !passes || !self.has_room() {
            return;
        }
        *locked(&self.state.resumed) = Some(std::mem::take(&mut self.missing));
        self.state.missing.store(0, Ordering::Relaxed);
        *locked(&self.state.failure) = None;
    }

    /// Whether there is room for some blocks, which are not written yet.
    fn has_room(&mut self) -> bool {
        let (Output::File(file), Some(kept)) = (&mut self.output, self.files.back()) else { return false };
        let (Ok(file), Ok(len)) = (file.begin(), i64::try_from(kept.len)) else { return false };
        match fallocate(&*file, FallocateFlags::FALLOC_FL_KEEP_SIZE, len, ROOM) {
            // Some file systems cannot reserve room: the next block finds out.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => cut(file, kept.len).is_ok(),
            Err(_) => false,
        }
    }

    fn write(&mut self, block: &Packed) -> Result<(), Failure> {
        let missing = Missing { blocks: 1, events: block.events, gap: block.gap };
        if self.has_failed() {
            self.miss(missing);
            return Ok(());
        }
        let written = self.append(block);
        if written.is_err() {
            self.miss(missing);
        }
        match written {
            Err(error) if matches!(self.output, Output::Pipe(_)) && error.kind() == ErrorKind::BrokenPipe => {
                self.state.is_closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            written => written.map_err(|error| self.failure(&error)),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        // From a pipe, what was written in part cannot be removed.
        Failure { passes: is_full && matches!(self.output, Output::File(_)), ..self.final_failure(error) }
    }

    fn final_failure(&self, error: &io::Error) -> Failure {
        Failure { text: format!("cannot write '{}': {error}", self.path().display()), passes: false }
    }

    /// A block that was only written in part is removed.
    fn append(&mut self, block: &Packed) -> io::Result<()> {
        let Some(kept) = self.files.back_mut() else { return Ok(()) };
        match &mut self.output {
            Output::File(file) => {
                let file = file.begin()?;
                file.write_all(&block.bytes).inspect_err(|_| drop(cut(file, kept.len)))?;
            }
            Output::Pipe(pipe) => pipe.write_all(&block.bytes)?,
        }
        kept.len += block.bytes.len() as u64;
        kept.events += block.events;
        self.state.events.fetch_add(block.events, Ordering::Relaxed);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((block.bytes.len() as u64, block.events, block.gap));
        self.unsynced_since.get_or_insert_with(Instant::now);
        self.remove_oldest();
        Ok(())
    }

    /// Ends the last file. If the disk is full, the writer removes the last blocks to make room for the end.
    fn end(&mut self, mut end: super::End) -> Result<(), Failure> {
        let unreported = locked(&self.state.resumed).take();
        self.miss(unreported.unwrap_or_default());
        if self.look_for_file() {
            return Ok(());
        }
        while !self.state.is_closed.load(Ordering::Relaxed) {
            let unpacked =
                |error| Failure { text: format!("cannot pack the end of the trace: {error}"), passes: false };
            let last = end(self.missing).map_err(unpacked)?;
            let Err(error) = self.append(&Packed { bytes: last.into(), events: 0, gap: 0 }) else { break };
            let failure = Err(self.failure(&error));
            if !self.take_back() {
                return failure;
            }
            self.note(failure);
        }
        Ok(())
    }

    /// Removes the last block from the file.
    fn take_back(&mut self) -> bool {
        let (Output::File(file), Some(kept)) = (&mut self.output, self.files.back_mut()) else { return false };
        let Some((len, events, gap)) = self.recent.pop_back() else { return false };
        let (shorter, fewer) = (kept.len - len, kept.events - events);
        if file.begin().and_then(|file| cut(file, shorter)).is_err() {
            return false;
        }
        (kept.len, kept.events) = (shorter, fewer);
        self.state.events.fetch_sub(events, Ordering::Relaxed);
        self.miss(Missing { blocks: 1, events, gap });
        true
    }

    /// Ends the file with this block, and goes on to another file. If that cannot be created, recording continues in the
    /// current one.
    fn turn(&mut self, end: &Packed) -> Result<(), Failure> {
        // It is there before the end says that the recording goes on: whoever is killed in between leaves it empty, which
        // shows that more was to come.
        let next = (!self.has_failed()).then(|| next_free(&self.plan, self.number + 1));
        self.write(end)?;
        let Some(next) = next.filter(|_| !self.has_failed()) else { return Ok(()) };
        self.sync()?;
        self.state.wants_turn.store(false, Ordering::Relaxed);
        match next {
            Ok((file, number)) => {
                let path = file.path.clone();
                self.output = Output::File(file);
                self.files.push_back(Kept { path, len: 0, events: 0 });
                self.recent.clear();
                self.number = number;
                self.remove_oldest();
            }
            Err(error) => self.state.notice(format!("{error}; recording continues in '{}'", self.path().display())),
        }
        Ok(())
    }

    /// Removes the oldest files until the planned number of files and bytes is left.
    fn remove_oldest(&mut self) {
        let mut bytes: u64 = self.files.iter().map(|kept| kept.len).sum();
        let (most_files, most_bytes) =
            (self.plan.most_files.unwrap_or(usize::MAX), self.plan.most_bytes.unwrap_or(u64::MAX));
        while self.files.len() > 1
            && (self.files.len() > most_files || bytes > most_bytes)
            && let Some(oldest) = self.files.pop_front()
        {
            bytes -= oldest.len;
            if let Err(error) = fs::remove_file(&oldest.path)
                && error.kind() != ErrorKind::NotFound
            {
                self.state.notice(format!("cannot remove the old trace '{}': {error}", oldest.path.display()));
            }
        }
        self.state.bytes.store(bytes, Ordering::Relaxed);
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let Some(_) = self.unsynced_since.take() else { return Ok(()) };
        self.look_for_file();
        let Output::File(file) = &mut self.output else { return Ok(()) };
        let synced = file.begin().and_then(|file| file.sync_data());
        // What the disk has accepted before is lost, be there room again or not.
        synced.map_err(|error| self.final_failure(&error))
    }

    /// Data that is written into a deleted file is lost. Returns whether the file was deleted.
    fn look_for_file(&mut self) -> bool {
        let (Output::File(file), Some(kept)) = (&self.output, self.files.back_mut()) else { return false };
        if !file.is_deleted() {
            return false;
        }
        if kept.len == 0 {
            return true;
        }
        let events = std::mem::take(&mut kept.events);
        kept.len = 0;
        let failure = format!("'{}' was deleted while it was being written", kept.path.display());
        self.recent.clear();
        self.state.events.fetch_sub(events, Ordering::Relaxed);
        self.miss(Missing { events, ..Missing::default() });
        if self.plan.numbered {
            self.state.wants_turn.store(true, Ordering::Relaxed);
            self.state.notice(format!("{failure}: {events} events are lost"));
        } else {
            self.state.fail(Failure { text: failure, passes: false });
        }
        self.state.bytes.store(self.files.iter().map(|kept| kept.len).sum(), Ordering::Relaxed);
        true
    }

    fn path(&self) -> &Path {
        self.files.back().map_or(Path::new(""), |kept| &kept.path)
    }
}

/// Truncates a file; the next write begins there.
fn cut(mut file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.seek(SeekFrom::Start(len)).map(|_| ())
}

/// Creates the first file of a plan from this number on whose name is free, and returns its number.
pub(super) fn next_free(plan: &Plan, first: u32) -> Result<(Owned, u32), StoreError> {
    let mut number = first;
    loop {
        let path = plan.path_of(number);
        match Owned::create(&path, plan.existing(), plan.owner) {
            Ok(file) => return Ok((file, number)),
            Err(Refused::Exists | Refused::Locked) if plan.numbered && number - first < TAKEN => number += 1,
            Err(refused) => return Err(refused.at(&path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::ffi::OsStrExt;

    use nix::libc;

    use super::super::Store;
    use super::*;

    /// What happens in a folder: whether a file was made or written, and its name.
    fn watch(folder: &Path) -> File {
        let folder = CString::new(folder.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: it returns a new descriptor, which nothing else owns.
        let watch = unsafe { File::from_raw_fd(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC)) };
        let what = libc::IN_CREATE | libc::IN_MODIFY;
        // SAFETY: the descriptor is open, and the path ends with a NUL.
        let added = unsafe { libc::inotify_add_watch(watch.as_raw_fd(), folder.as_ptr(), what) };
        assert!(added >= 0, "{}", io::Error::last_os_error());
        watch
    }

    fn seen(mut watch: &File) -> Vec<(u32, String)> {
        /// Bytes of `struct inotify_event` before the name.
        const HEAD: usize = 16;
        let mut bytes = vec![0; 64 << 10];
        let len = watch.read(&mut bytes).expect("something has happened");
        let mut rest = &bytes[..len];
        let mut seen = Vec::new();
        while rest.len() >= HEAD {
            let number = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
            let (mask, end) = (number(4), HEAD + number(12) as usize);
            let name = String::from_utf8_lossy(&rest[HEAD..end]).trim_end_matches('\0').to_owned();
            rest = &rest[end..];
            seen.push((mask, name));
        }
        seen
    }

    /// A recorder that is killed in between has left an empty file, by which readers see that more was to come.
    #[test]
    fn the_next_file_is_there_before_the_end_announces_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = Plan { path: folder.path().join("t.tct"), numbered: true, ..Plan::default() };
        let block = |bytes: &'static [u8]| Packed { bytes: bytes.into(), events: 1, gap: 0 };
        let mut store = Store::create(&plan).expect("it is created");
        let watch = watch(folder.path());
        store.begin().expect("a thread");
        assert!(store.write(block(b"first")) && store.turn(block(b"end")) && store.write(block(b"second")));
        store.finish();
        assert_eq!(fs::read(plan.path_of(0)).expect("it is there"), b"firstend");
        assert_eq!(fs::read(plan.path_of(1)).expect("it is there"), b"second");
        let seen = seen(&watch);
        let made = seen.iter().position(|it| *it == (libc::IN_CREATE, "t.0002.tct".to_owned()));
        let ended = seen.iter().rposition(|it| *it == (libc::IN_MODIFY, "t.0001.tct".to_owned()));
        assert!(made.is_some() && made < ended, "{seen:?}");
    }
}
