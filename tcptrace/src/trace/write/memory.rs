//! The newest part of a recording, kept in memory until a dump is requested.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;

use super::full::Attempts;
use super::{End, Packed, Plan, Say, Store, StoreError};
use crate::model::stream::Item;
use crate::trace::append;

/// The memory is dropped a quarter at a time: each part can be read alone.
const PARTS: u32 = 4;
/// How often to check whether a dump is finished.
const LOOK_NS: u64 = 20_000_000;

/// Blocks of the newest past.
pub struct Memory {
    say: Say,
    plan: Plan,
    last_ns: u64,
    most_bytes: u64,
    parts: VecDeque<Part>,
    /// Number of the next file: 0 is the requested path itself.
    number: u32,
    /// The dump that is being written and its number, and when it was last checked.
    dump: Option<(Store, u32)>,
    looked_at: u64,
    /// Another dump was requested meanwhile.
    is_asked_again: bool,
    /// The last dump has failed; and when to try again, less and less often.
    has_failed: bool,
    attempts: Attempts,
    /// The last file that was written, until it is asked for.
    finished: Option<PathBuf>,
    /// Memory covers less than the requested time, and a warning said so.
    is_short: bool,
}

#[derive(Default)]
struct Part {
    blocks: Vec<Packed>,
    bytes: u64,
    since: u64,
    until: u64,
}

/// What a recording has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Events of sockets.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
    /// The file is not where it was requested.
    pub is_elsewhere: bool,
}

/// Where a recording in memory is written if the requested folder does not take it: the working directory, else the directory
/// for temporary files.
pub fn other_folders() -> [PathBuf; 2] {
    [PathBuf::from("."), std::env::temp_dir()]
}

impl Memory {
    /// Keeps events of this duration, and at most this many bytes.
    ///
    /// # Errors
    /// When the file cannot be created to which the memory will be written.
    pub fn new(plan: Plan, last: Duration, most_bytes: u64, say: Say) -> Result<Self, StoreError> {
        // Creating the file reports its problems now. The empty file is removed again.
        drop(Store::create(&plan)?);
        let last_ns = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
        let parts = VecDeque::from([Part::default()]);
        Ok(Self {
            say,
            plan,
            last_ns,
            most_bytes,
            parts,
            number: 0,
            dump: None,
            looked_at: 0,
            is_asked_again: false,
            has_failed: false,
            attempts: Attempts::default(),
            finished: None,
            is_short: false,
        })
    }

    /// Stores a block. Returns whether the caller should begin a new part.
    pub(super) fn keep(&mut self, block: Packed, now: u64) -> bool {
        let (most_bytes, last_ns) = (self.most_bytes, self.last_ns);
        let Some(part) = self.parts.back_mut() else { return true };
        if part.blocks.is_empty() {
            part.since = now;
        }
        part.bytes += block.bytes.len() as u64;
        part.until = now;
        part.blocks.push(block);
        part.bytes > most_bytes / u64::from(PARTS) || now.saturating_sub(part.since) > last_ns / u64::from(PARTS)
    }

    /// Begins a new part, and drops parts that are too old or exceed the limit of bytes.
    pub(super) fn begin_part(&mut self, now: u64) {
        self.parts.push_back(Part::default());
        while let [oldest, _, ..] = self.parts.make_contiguous() {
            let is_old = oldest.until.saturating_add(self.last_ns) < now;
            let is_much = self.bytes() > self.most_bytes / u64::from(PARTS) * u64::from(PARTS - 1);
            if !is_old && !is_much {
                break;
            }
            if !is_old && !self.is_short {
                self.is_short = true;
                (self.say)(&"memory is full: less than --last is kept (raise --max-size to keep more)");
            }
            self.parts.pop_front();
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    fn blocks(&self) -> Vec<Packed> {
        self.parts.iter().flat_map(|part| &part.blocks).cloned().collect()
    }

    /// Starts to write everything in memory, and `end` behind it; `why` is added to the first block. The first dump goes to
    /// the requested path, later ones to numbered files. If a dump is still being written, this one follows it. One that fails is
    /// tried again.
    pub(super) fn dump(&mut self, why: Option<&Item>, end: End) {
        if self.dump.is_some() {
            self.is_asked_again = true;
            return;
        }
        match self.begin(why, end) {
            Ok((store, number)) => {
                let (bytes, path) = (HumanBytes(self.bytes()), store.path().display());
                if !self.has_failed {
                    (self.say)(&format_args!("writing the last {bytes} to '{path}'"));
                }
                self.dump = Some((store, number));
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// A dump has failed. The user hears of the first failure in a row.
    fn fail(&mut self, failure: &str) {
        self.attempts.begin(self.looked_at);
        if !std::mem::replace(&mut self.has_failed, true) {
            let goes_on = "recording continues, memory keeps its events, and writing is tried again";
            (self.say)(&format_args!("{failure}; {goes_on}"));
        }
    }

    fn begin(&self, why: Option<&Item>, end: End) -> Result<(Store, u32), StoreError> {
        let mut blocks = self.blocks();
        if let (Some(first), Some(why)) = (blocks.first_mut(), why) {
            match append(&first.bytes, why) {
                Ok(bytes) => first.bytes = bytes.into(),
                // The last block has it, too.
                Err(error) => log::warn!("the first block cannot say why the file is written: {error}"),
            }
        }
        begin(&self.plan, self.number, blocks, end)
    }

    /// Waits until the dump is written. A failed dump leaves its number for the next one.
    fn outcome(&mut self, (store, number): (Store, u32)) -> Result<Written, String> {
        let path = store.path().to_owned();
        let written = outcome(store)?;
        if std::mem::take(&mut self.has_failed) {
            (self.say)(&format_args!("wrote {} to '{}' now", HumanBytes(written.bytes), path.display()));
        }
        self.number = number + 1;
        self.finished = Some(path);
        Ok(written)
    }

    /// Whether the last dump has failed, and none has succeeded since.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether a dump is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.dump.is_some()
    }

    /// The file that was written last, once.
    pub(super) fn take_finished(&mut self) -> Option<PathBuf> {
        self.finished.take()
    }

    /// Checks whether the dump is finished. Returns whether to begin another one, because it was requested meanwhile or the
    /// last one has failed.
    pub(super) fn look(&mut self, now: u64) -> bool {
        self.looked_at = now;
        if self.dump.as_ref().is_some_and(|(store, _)| store.is_finished())
            && let Some(dump) = self.dump.take()
            && let Err(failure) = self.outcome(dump)
        {
            self.fail(&failure);
        }
        let is_due = self.dump.is_none() && self.attempts.is_due(now);
        if is_due {
            // The pause doubles if this attempt fails.
            self.attempts.end(now);
        }
        self.dump.is_none() && std::mem::take(&mut self.is_asked_again) || is_due
    }

    /// When to check again, in ns of `CLOCK_BOOTTIME`.
    pub(super) fn look_at(&self) -> Option<u64> {
        self.dump.as_ref().map(|_| self.looked_at + LOOK_NS).or(self.attempts.next())
    }

    /// Writes everything in memory and waits: to the requested path, else to the working directory, else to the
    /// directory for temporary files.
    ///
    /// # Errors
    /// When all of them fail: the reasons, joined.
    pub(super) fn write(&mut self, end: &dyn Fn() -> End) -> Result<Written, String> {
        self.finish_dump();
        let mut failures = Vec::new();
        match self.begin(None, end()).map_err(|error| error.to_string()).and_then(|begun| self.outcome(begun)) {
            Ok(written) => return Ok(written),
            Err(failure) => failures.push(failure),
        }
        let name = self.plan.path.file_name().map(PathBuf::from).unwrap_or_default();
        for folder in other_folders() {
            let plan = Plan { path: folder.join(&name), ..Plan::default() };
            let written = begin(&plan, 0, self.blocks(), end()).map_err(|error| error.to_string());
            match written.and_then(|(store, _)| Ok((store.path().display().to_string(), outcome(store)?))) {
                Ok((path, written)) => {
                    (self.say)(&format_args!("{}; wrote it to '{path}' instead", failures.join("; ")));
                    return Ok(Written { is_elsewhere: true, ..written });
                }
                Err(failure) => failures.push(failure),
            }
        }
        Err(failures.join("; "))
    }

    /// Waits for a dump that is being written, and drops the request for another one.
    pub(super) fn finish_dump(&mut self) {
        if let Some((store, _)) = &mut self.dump {
            store.finish();
            self.look(0);
        }
    }
}

/// Creates the requested file if it is the first one and its name is free, or else the first free number.
fn begin(plan: &Plan, number: u32, blocks: Vec<Packed>, end: End) -> Result<(Store, u32), StoreError> {
    let is_first = number == 0 && (plan.force || plan.keep_old || !is_taken(&plan.path));
    let plan = Plan { numbered: !is_first, ..plan.clone() };
    Store::of_blocks(&plan, if is_first { 0 } else { number.max(1) }, blocks, end)
}

fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| !there.is_file() || there.len() > 0)
}

/// Waits until everything is written. Removes a file that could only be written in part.
fn outcome(mut store: Store) -> Result<Written, String> {
    store.finish();
    match store.failure().map(|failure| failure.to_string()) {
        None => Ok(Written { events: store.events(), bytes: store.bytes(), is_elsewhere: false }),
        Some(failure) => {
            // The file would take the space that the next attempt needs.
            let _ = fs::remove_file(store.path());
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// The folder of the file is away for a while.
    #[test]
    fn what_fails_is_tried_again_less_and_less_often() {
        const S: u64 = 1_000_000_000;
        let all = tempfile::tempdir().expect("a folder");
        let (there, away) = (all.path().join("there"), all.path().join("away"));
        fs::create_dir(&there).expect("a folder");
        let plan = Plan { path: there.join("t.tct"), ..Plan::default() };
        let say: Say = |text| SAID.lock().expect("nobody panics").push(text.to_string());
        let mut memory = Memory::new(plan, Duration::from_secs(60), 1 << 20, say).expect("a file");
        let end = || -> End { Box::new(|_| Ok(b"end".to_vec())) };
        fs::rename(&there, &away).expect("it goes away");
        memory.look(100 * S);
        memory.dump(None, end());
        let tries: Vec<u64> = (200..240)
            .filter(|half| {
                memory.look(half * S / 2) && {
                    memory.dump(None, end());
                    true
                }
            })
            .collect();
        assert_eq!(tries, [202, 206, 214, 230], "after 1, 2, 4 and 8 seconds");
        fs::rename(&away, &there).expect("it comes back");
        assert_eq!(memory.look_at(), Some(131 * S));
        assert!(memory.look(131 * S) && memory.has_failed());
        memory.dump(None, end());
        memory.finish_dump();
        assert_eq!(memory.take_finished(), Some(there.join("t.tct")));
        assert!(!memory.has_failed() && !memory.look(500 * S) && memory.look_at().is_none());
        let said = SAID.lock().expect("nobody panics");
        assert!(said.len() == 2 && said[0].contains("tried again") && said[1].starts_with("wrote 3 B to "), "{said:?}");
    }
}
