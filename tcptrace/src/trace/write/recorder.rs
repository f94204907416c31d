//! Packs items into blocks, and passes the blocks to files or memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;

use super::full::Attempts;
use super::memory::{Memory, Written};
use super::names::Names;
use super::unanswered::Unanswered;
use super::unowned::Unowned;
use super::{End, Failure, Missing, Packed, Say, Store};
use crate::model;
use crate::model::criteria::Criteria;
use crate::model::event::{Cause, Event, Losses};
use crate::model::finding::Finding;
use crate::model::fired::Fired;
use crate::model::newest::Newest;
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::{Clocks, Ended, Head, Item, Lost, Reason};
use crate::model::transition::Transition;
use crate::trace::Encoder;

/// Events are handed to the kernel after this time at the latest, and so survive a crash of tcptrace.
const FLUSH_NS: u64 = 60_000_000;
/// Events are also handed over once there are this many bytes.
const FLUSH_BYTES: usize = 64 << 10;
/// How often a trace records that time has passed: after events, and while there are none.
const PASSED_NS: u64 = 1_000_000_000;
const IDLE_NS: u64 = 10_000_000_000;
/// Room for the last block of a file, which says that the file ends.
const END_BYTES: u64 = 1024;

/// Where blocks go.
pub enum Target {
    /// Into files, or to standard output.
    Files {
        store: Store,
        /// When to begin the next file.
        rotate: Option<Rotate>,
        /// When to end the recording.
        most_bytes: Option<u64>,
    },
    /// Only on request.
    Memory(Memory),
}

/// When to begin a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotate {
    /// After this many bytes.
    Bytes(u64),
    /// After this many ns.
    Ns(u64),
}

/// Progress of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events of sockets that were received.
    pub events: u64,
    /// Bytes that were written, or are in memory.
    pub bytes: u64,
    /// Events lost.
    pub lost: u64,
}

/// The result of a recording.
#[derive(Debug)]
pub struct Recorded {
    /// What the trace contains.
    pub written: Written,
    /// How many events the recording received in all, if the trace keeps only the last of them; else `None`.
    pub of_all: Option<u64>,
    /// The recording ended because it reached its size limit.
    pub is_full: bool,
    /// Some events could not be written.
    pub has_failed: bool,
    /// What was lost.
    pub losses: Losses,
    /// What the audit found.
    pub findings: Vec<Finding>,
}

impl Recorded {
    /// Missing events by cause.
    pub fn lost(&self) -> Vec<Lost> {
        let unaccounted = self.findings.iter().map(|finding| match finding {
            Finding::Verdict(verdict) => verdict.unexplained,
            _ => 0,
        });
        let unaccounted = Some((Cause::Unaccounted, unaccounted.sum())).filter(|(_, events)| *events > 0);
        let all = self.losses.by_cause().chain(unaccounted);
        all.map(|(cause, events)| Lost { cause, events, at_least: false }).collect()
    }
}

/// Records events into files or memory.
pub struct Recorder {
    say: Say,
    target: Target,
    encoder: Encoder,
    head: Head,
    clocks: Clocks,
    /// With `unwritten`: events that could not be written, except those that only the [`Store`] knows of.
    losses: Losses,
    names: Names,
    newest: Newest,
    /// It is to be told again, or is being told.
    wants_newest: bool,
    is_telling_newest: bool,
    /// Number of the current file, from 0, or of the current part of the memory.
    file: u32,
    file_bytes: u64,
    file_since: Option<u64>,
    /// When the oldest event was received that has not been handed over.
    waiting_since: Option<u64>,
    /// When the trace last recorded that time has passed, and whether an event came since.
    passed_at: u64,
    is_stirred: bool,
    wants_survey: bool,
    unowned: Unowned,
    unanswered: Unanswered,
    /// Events of sockets that were received, and how many of them came after the trace had ended.
    events: u64,
    late: u64,
    bytes: u64,
    /// Events that could not be written since the last successful write.
    gap: Option<u64>,
    /// Whether the user was warned that the disk is too slow.
    was_slow: bool,
    /// Why nothing is being written now. The user knows of it.
    failure: Option<Failure>,
    /// When it is a full disk.
    attempts: Attempts,
    findings: Vec<Finding>,
    /// The size limit is reached.
    is_full: bool,
    /// No more events follow, and no other file is begun.
    is_ending: bool,
    written: Written,
    /// Why the next file is written, and why the one that is being written is.
    fired: Option<Box<Fired>>,
    writing: Option<Box<Fired>>,
    /// Files that are complete, each with why it was written, until they are asked for.
    fired_files: VecDeque<(PathBuf, Fired)>,
}

impl Recorder {
    /// Records into `target`. The kernel applies what it can of `filter`; readers apply the rest.
    pub fn new(mut target: Target, head: Head, filter: Criteria, say: Say) -> Result<Self> {
        if let Target::Files { store, .. } = &mut target {
            store.begin()?;
        }
        let mut recorder = Self {
            say,
            target,
            encoder: Encoder::new(random()?)?,
            head: Head { filter, says_end: true, ..head },
            clocks: Clocks::default(),
            losses: Losses::default(),
            names: Names::default(),
            newest: Newest::default(),
            wants_newest: false,
            is_telling_newest: false,
            file: 0,
            file_bytes: 0,
            file_since: None,
            waiting_since: None,
            passed_at: 0,
            is_stirred: false,
            wants_survey: false,
            unowned: Unowned::default(),
            unanswered: Unanswered::default(),
            events: 0,
            late: 0,
            bytes: 0,
            gap: None,
            was_slow: false,
            failure: None,
            attempts: Attempts::default(),
            findings: Vec::new(),
            is_full: false,
            is_ending: false,
            written: Written::default(),
            fired: None,
            writing: None,
            fired_files: VecDeque::new(),
        };
        recorder.push_head().context("cannot write the head of the trace")?;
        Ok(recorder)
    }

    pub fn progress(&self) -> Progress {
        let bytes = match &self.target {
            Target::Memory(memory) => memory.bytes(),
            Target::Files { store, .. } => store.bytes(),
        };
        Progress { events: self.events, bytes, lost: self.losses.total() }
    }

    fn push_head(&mut self) -> io::Result<()> {
        self.encoder.push(&Item::Head(Box::new(self.head.clone())))
    }

    /// Hands the current block over.
    fn flush(&mut self, now: u64) -> Result<()> {
        self.waiting_since = None;
        let events = u64::from(self.encoder.events());
        let bytes = Bytes::from(self.encoder.finish(self.file)?);
        let len = bytes.len() as u64;
        if len == 0 {
            return Ok(());
        }
        let block = Packed { bytes, events, gap: self.gap.unwrap_or(0) };
        let is_turn = match &mut self.target {
            Target::Memory(memory) => memory.keep(block, now),
            Target::Files { store, rotate, most_bytes } => {
                self.is_full |= most_bytes.is_some_and(|most| self.bytes + len + END_BYTES > most);
                if self.is_full || store.is_closed() {
                    // The recording ends before this block, and before any block that would still fit.
                    self.late += events;
                    self.encoder.take_back(1);
                    return Ok(());
                }
                if !(if self.is_ending { store.write_last(block) } else { store.write(block) }) {
                    self.encoder.take_back(1);
                    return self.note_unwritten(events, now);
                }
                if self.gap.take().is_some() {
                    (self.wants_survey, self.wants_newest) = (true, true);
                }
                self.bytes += len;
                self.file_bytes += len;
                let since = *self.file_since.get_or_insert(now);
                let is_due = match *rotate {
                    Some(Rotate::Bytes(most)) => self.file_bytes >= most,
                    Some(Rotate::Ns(longest)) => now.saturating_sub(since) >= longest,
                    None => false,
                };
                is_due || store.wants_turn()
            }
        };
        if self.is_ending || self.is_telling_newest {
            return Ok(());
        }
        if is_turn {
            self.turn(now)?;
        }
        self.tell_newest(now)
    }

    /// Makes the following events readable without the earlier ones.
    fn turn(&mut self, now: u64) -> Result<()> {
        match &mut self.target {
            Target::Memory(memory) => {
                memory.begin_part(now);
                self.file += 1;
            }
            Target::Files { store, .. } => {
                self.encoder.push(&Item::Losses(self.losses))?;
                self.encoder.push(&Item::Ended(Ended { at: now, reason: Reason::Turned }))?;
                let end = Packed { bytes: self.encoder.finish(self.file)?.into(), events: 0, gap: 0 };
                if !store.turn(end) {
                    self.encoder.take_back(1);
                    return Ok(());
                }
                self.file += 1;
                (self.file_bytes, self.file_since) = (0, None);
            }
        }
        (self.wants_survey, self.wants_newest) = (true, true);
        self.begin_again(now)
    }

    /// Repeats the items that readers of the following events need.
    fn begin_again(&mut self, now: u64) -> Result<()> {
        self.push_head()?;
        self.encoder.push(&Item::Clocks(self.clocks))?;
        if let Some(events) = self.gap {
            self.encoder.push(&Item::Event(Event::Lost { at: now, cause: Cause::Disk, events }))?;
        }
        self.encoder.push(&Item::Losses(self.losses))?;
        self.names.turn();
        Ok(())
    }

    /// Says again what the host was set to when that was last told, and what has changed since: here it is not known.
    fn tell_newest(&mut self, now: u64) -> Result<()> {
        if !std::mem::take(&mut self.wants_newest) {
            return Ok(());
        }
        let newest = std::mem::take(&mut self.newest);
        self.is_telling_newest = true;
        let told = newest.items().try_for_each(|item| {
            push(&mut self.encoder, &item)?;
            if self.encoder.len() >= FLUSH_BYTES { self.flush(now) } else { Ok(()) }
        });
        (self.newest, self.is_telling_newest) = (newest, false);
        told
    }

    /// The disk is full or too slow: the next block that it accepts says where the trace has a gap, and how many events
    /// are missing.
    fn note_unwritten(&mut self, events: u64, now: u64) -> Result<()> {
        self.losses.unwritten += events;
        *self.gap.get_or_insert(0) += events;
        if self.say_failure(now) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.was_slow, true)
            && let Target::Files { store, .. } = &self.target
        {
            let path = store.path().display();
            (self.say)(&format_args!(
                "'{path}' cannot be written fast enough: events are lost; the trace reports where, and how many"
            ));
        }
        self.begin_again(now)
    }

    /// Whether writing has failed. Reports the failure once.
    fn say_failure(&mut self, now: u64) -> bool {
        let Target::Files { store, .. } = &self.target else { return false };
        let Some(failure) = store.failure() else { return false };
        if self.failure.as_ref() == Some(&failure) {
            return true;
        }
        if failure.passes && !self.is_ending {
            self.attempts.begin(now);
            (self.say)(&format_args!("{failure}; until there is room again, events are counted as lost"));
        } else {
            self.attempts.give_up();
            (self.say)(&format_args!("{failure}; nothing more is written to the trace"));
        }
        self.failure = Some(failure);
        true
    }

    /// Notices a failure, and goes on when a full disk has room again.
    fn look_at_disk(&mut self, now: u64) -> Result<()> {
        let Target::Files { store, .. } = &self.target else { return Ok(()) };
        if let Some(missing) = store.resumed() {
            return self.resume(missing, now);
        }
        if self.attempts.is_due(now) {
            store.retry();
        }
        if store.has_failed() {
            self.flush(now)?;
            self.say_failure(now);
        }
        Ok(())
    }

    /// The disk has room again. The next block reports what is missing.
    fn resume(&mut self, missing: Missing, now: u64) -> Result<()> {
        self.losses.unwritten += missing.events;
        let gap = self.gap.unwrap_or(0) + missing.events + missing.gap;
        self.gap = Some(gap);
        self.encoder.take_back(missing.blocks);
        self.failure = None;
        self.attempts.end(now);
        if let Target::Files { store, .. } = &self.target {
            self.bytes = store.bytes();
        }
        (self.say)(&format_args!("there is room again: recording continues; {gap} events were lost meanwhile"));
        self.begin_again(now)
    }

    /// Writes everything that is in memory, if the target is memory.
    pub fn dump(&mut self) -> Result<()> {
        let Target::Memory(memory) = &self.target else { return Ok(()) };
        // A file that is asked for while another one is being written comes after it.
        let is_next = !memory.is_writing();
        if is_next {
            self.flush(self.passed_at)?;
        }
        // What was not written because of a failure is in memory still.
        let fired = if is_next { self.fired.take().or_else(|| self.writing.take()) } else { None };
        let ending = Ending { fired: fired.clone(), ..self.ending(Reason::Dumped) };
        let why = fired.clone().map(Item::Fired);
        if let Target::Memory(memory) = &mut self.target {
            memory.dump(why.as_ref(), ending.make());
        }
        if is_next {
            self.writing = fired;
        }
        Ok(())
    }

    /// The same, because a condition holds: the file says so.
    pub fn fire(&mut self, fired: Fired) -> Result<()> {
        self.fired = Some(Box::new(fired));
        self.dump()
    }

    /// The next file that was written because a condition held, once it is complete.
    pub fn take_written(&mut self) -> Option<(PathBuf, Fired)> {
        self.fired_files.pop_front()
    }

    /// Waits for the file that is being written, if the target is memory. What could not be written is tried once more.
    pub fn finish_dump(&mut self) -> Result<()> {
        if matches!(&self.target, Target::Memory(memory) if memory.has_failed()) {
            self.dump()?;
        }
        if let Target::Memory(memory) = &mut self.target {
            memory.finish_dump();
        }
        self.note_written();
        Ok(())
    }

    /// Notes which file is complete, and why it was written, before another one is begun.
    fn note_written(&mut self) {
        let Target::Memory(memory) = &mut self.target else { return };
        if let Some(path) = memory.take_finished()
            && let Some(fired) = self.writing.take()
        {
            self.fired_files.push_back((path, *fired));
        }
    }

    /// Looks after the file that is being written, and begins the next one if there is to be one.
    fn look_at_dump(&mut self, now: u64) -> Result<()> {
        let Target::Memory(memory) = &mut self.target else { return Ok(()) };
        let is_wanted = memory.look(now);
        self.note_written();
        if is_wanted { self.dump() } else { Ok(()) }
    }

    fn ending(&self, reason: Reason) -> Ending {
        let (recording, block) = self.encoder.position();
        let (losses, gap, file) = (self.losses, self.gap.unwrap_or(0), self.file);
        Ending { recording, block, file, losses, gap, ended: Ended { at: self.passed_at, reason }, fired: None }
    }

    /// Ends the recording: writes everything that is left.
    ///
    /// # Errors
    /// When the events in memory cannot be written anywhere. They stay in memory for another attempt.
    pub fn write_all(&mut self) -> Result<()> {
        if !self.is_ending {
            self.look_at_disk(self.passed_at)?;
            self.is_ending = true;
            self.flush(self.passed_at)?;
        }
        let ending = self.ending(if self.is_full { Reason::Full } else { Reason::Stopped });
        match &mut self.target {
            Target::Memory(memory) => {
                self.written = memory.write(&|| ending.clone().make()).map_err(anyhow::Error::msg)?;
            }
            Target::Files { store, .. } => {
                store.end(ending.make());
                self.losses.unwritten += store.missing();
                self.written = Written { events: store.events(), bytes: store.bytes(), is_elsewhere: false };
                self.say_notices();
                self.say_failure(self.passed_at);
            }
        }
        Ok(())
    }

    fn say_notices(&self) {
        if let Target::Files { store, .. } = &self.target {
            store.notices().iter().for_each(|notice| (self.say)(notice));
        }
    }

    /// What the audit found, and the names of network namespaces.
    pub fn audited(&self) -> (&[Finding], model::names::Names) {
        let mut names = model::names::Names::default();
        self.names.namespaces().for_each(|(inode, name)| names.name_namespace(inode, name));
        (&self.findings, names)
    }

    /// The result of the recording.
    pub fn finish(self) -> Recorded {
        Recorded {
            written: self.written,
            of_all: matches!(self.target, Target::Memory(_)).then_some(self.events),
            is_full: self.is_full,
            has_failed: self.failure.is_some(),
            losses: self.losses,
            findings: self.findings,
        }
    }

    fn take_event(&mut self, event: &Event) -> Result<()> {
        if let Event::Passed { at } = event {
            (self.passed_at, self.is_stirred) = (*at, false);
        } else {
            self.events += u64::from(event.id().is_some());
            self.is_stirred = true;
            self.unowned.note(event);
            self.unanswered.note(event);
        }
        if self.failure.is_some() {
            let events = u64::from(event.id().is_some());
            self.losses.unwritten += events;
            *self.gap.get_or_insert(0) += events;
            return Ok(());
        }
        self.push_names(event)
    }

    /// Writes the names that an event needs.
    fn push_names(&mut self, event: &Event) -> Result<()> {
        for name in self.names.missing(event).into_iter().flatten() {
            self.push(&name)?;
        }
        Ok(())
    }

    fn push(&mut self, item: &Item) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        push(&mut self.encoder, item)?;
        if self.encoder.len() >= FLUSH_BYTES {
            let at = if let Item::Event(event) = item { event.at() } else { self.passed_at };
            self.flush(at)?;
        }
        Ok(())
    }
}

/// Leaves out what is too large for any reader.
fn push(encoder: &mut Encoder, item: &Item) -> io::Result<()> {
    match encoder.push(item) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => {
            log::warn!("item left out of the trace: {error}");
            Ok(())
        }
        pushed => pushed,
    }
}

/// Content of the last block of a file.
#[derive(Clone)]
struct Ending {
    recording: [u8; 16],
    block: u64,
    file: u32,
    losses: Losses,
    /// Missing events that the trace has not reported yet.
    gap: u64,
    ended: Ended,
    /// Why the file is written.
    fired: Option<Box<Fired>>,
}

impl Ending {
    fn make(mut self) -> End {
        Box::new(move |missing| {
            let encoder = Encoder::resume(self.recording, self.block.saturating_sub(missing.blocks))?;
            let mut encoder = if self.ended.reason == Reason::Dumped { encoder.beside() } else { encoder };
            let events = self.gap + missing.events;
            if events > 0 {
                let at = self.ended.at;
                encoder.push(&Item::Event(Event::Lost { at, cause: Cause::Disk, events }))?;
                self.ended.reason = Reason::Failed;
            }
            let unwritten = self.losses.unwritten + missing.events;
            encoder.push(&Item::Losses(Losses { unwritten, ..self.losses }))?;
            if let Some(fired) = &self.fired {
                push(&mut encoder, &Item::Fired(fired.clone()))?;
            }
            encoder.push(&Item::Ended(self.ended))?;
            encoder.finish(self.file)
        })
    }
}

impl Sink for Recorder {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        for item in items {
            match item {
                Item::Event(event) => self.take_event(event)?,
                Item::Clocks(clocks) => {
                    self.clocks = *clocks;
                    let head = Item::Head(Box::new(self.head.clone()));
                    self.push(&head)?;
                }
                Item::Losses(losses) => {
                    // The source does not know of unwritten events.
                    self.losses = Losses { unwritten: self.losses.unwritten, ..*losses };
                    self.push(&Item::Losses(self.losses))?;
                    continue;
                }
                Item::Namespace { .. }
                | Item::Group { .. }
                | Item::Container { .. }
                | Item::Process { .. }
                | Item::Interface { .. } => {
                    self.names.learn(item);
                }
                Item::Audit(finding) => self.findings.push(*finding),
                Item::NamesAnew => self.names.forget(),
                Item::Settings(_) | Item::AcceptQueues(_) | Item::Limits(_) => self.newest.take(item),
                Item::Counters(_) | Item::Head(_) | Item::Ended(_) | Item::Fired(_) => {}
            }
            self.push(item)?;
        }
        Ok(())
    }

    fn wants_changes(&self) -> bool {
        true
    }

    fn take_change(&mut self, change: &impl Transition) -> Result<()> {
        self.events += 1;
        self.is_stirred = true;
        self.unowned.note_change(change);
        self.unanswered.note_change(change);
        if self.failure.is_some() {
            self.losses.unwritten += 1;
            *self.gap.get_or_insert(0) += 1;
            return Ok(());
        }
        if !self.names.is_all_written() {
            self.push_names(&Event::Change(change.change()))?;
        }
        self.encoder.push_change(change)?;
        if self.encoder.len() >= FLUSH_BYTES { self.flush(change.at()) } else { Ok(()) }
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        self.look_at_disk(now)?;
        if !self.encoder.is_empty() {
            let since = *self.waiting_since.get_or_insert(now);
            if now >= since + FLUSH_NS {
                self.flush(now)?;
            }
        }
        self.unowned.sift(now);
        self.unanswered.look(now);
        self.say_notices();
        self.look_at_dump(now)
    }

    fn misses_any(&mut self) -> bool {
        self.unanswered.wants_last_survey()
    }

    fn wishes(&mut self) -> Wishes {
        let flush = self.waiting_since.map(|since| since + FLUSH_NS);
        let look = if let Target::Memory(memory) = &self.target { memory.look_at() } else { None };
        let is_closed = matches!(&self.target, Target::Files { store, .. } if store.is_closed());
        Wishes {
            deadline: Some(self.passed_at + if self.is_stirred { PASSED_NS } else { IDLE_NS }),
            settle_by: [flush, look, self.attempts.next(), self.unowned.sift_at, self.unanswered.look_at]
                .into_iter()
                .flatten()
                .min(),
            survey: std::mem::take(&mut self.wants_survey),
            missing: self.unanswered.wants_survey(),
            scan: self.unowned.wants_scan(),
            stop: self.is_full || is_closed,
            ..Wishes::default()
        }
    }
}

/// Random bytes from the kernel.
fn random() -> Result<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    // SAFETY: there is room for as many bytes as the kernel may write.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    Errno::result(got).context("cannot get random bytes from the kernel (getrandom)")?;
    Ok(bytes)
}
