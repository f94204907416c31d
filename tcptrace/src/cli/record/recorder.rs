//! Items in, blocks out, to wherever they are kept.

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use anyhow::Result;
use bytes::Bytes;
use foldhash::fast::FixedState;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::Rotate;
use super::memory::Memory;
use crate::audit::Finding;
use crate::cli::source::Sink;
use crate::cli::{Outcome, say};
use crate::event::{Cause, Event, Id, Losses};
use crate::filter::Criteria;
use crate::follow::UNACCOUNTED;
use crate::names::Names;
use crate::output::audit_lines;
use crate::tcp::State;
use crate::trace::{Clocks, Encoder, Head, Item, Store};

/// What has come is handed to the kernel after this time at the latest, and so survives our own death.
const FLUSH_NS: u64 = 60_000_000;
/// Or when there is so much of it.
const FLUSH_BYTES: usize = 64 << 10;
/// How often a trace says that time has passed: after something has happened, and while nothing happens.
const PASSED_NS: u64 = 1_000_000_000;
const IDLE_NS: u64 = 10_000_000_000;
/// After this time somebody looks who has the connection of a server that nobody is known to have accepted.
const UNOWNED_NS: u64 = 1_000_000_000;
/// How often progress is shown.
const PROGRESS_NS: u64 = 1_000_000_000;

/// Where blocks go.
pub(in super::super) enum Target {
    /// Into files.
    Files {
        /// Writes them.
        store: Store,
        /// When to go on to the next one.
        rotate: Option<Rotate>,
        /// When to end.
        most_bytes: Option<u64>,
    },
    /// Nowhere, until somebody asks.
    Memory(Memory),
}

/// Records.
pub(in super::super) struct Recorder {
    target: Target,
    encoder: Encoder,
    head: Head,
    clocks: Clocks,
    losses: Losses,
    /// Every name that was told.
    names: HashMap<(bool, u64), Item, FixedState>,
    /// Which file, from 0.
    file: u32,
    file_bytes: u64,
    file_since: Option<u64>,
    /// When the first of what was not handed over yet was taken in.
    waiting_since: Option<u64>,
    /// When it was last told that time has passed, and whether something has happened since.
    passed_at: u64,
    is_stirred: bool,
    wants_survey: bool,
    unowned: Unowned,
    events: u64,
    bytes: u64,
    /// Said once.
    failure: Option<String>,
    findings: Vec<Finding>,
    /// There is as much as there may be.
    is_full: bool,
    /// Nothing more comes, and no other file is begun.
    is_ending: bool,
    progress: Option<Progress>,
}

impl Recorder {
    /// Records into `target` what matches, as far as the kernel side leaves out the rest; readers do the rest.
    pub(in super::super) fn new(target: Target, head: Head, filter: Criteria) -> Result<Self> {
        let recording = random()?;
        let mut recorder = Self {
            target,
            encoder: Encoder::new(recording)?,
            head: Head { filter, ..head },
            clocks: Clocks::default(),
            losses: Losses::default(),
            names: HashMap::default(),
            file: 0,
            file_bytes: 0,
            file_since: None,
            waiting_since: None,
            passed_at: 0,
            is_stirred: false,
            wants_survey: false,
            unowned: Unowned::default(),
            events: 0,
            bytes: 0,
            failure: None,
            findings: Vec::new(),
            is_full: false,
            is_ending: false,
            progress: None,
        };
        recorder.push_head()?;
        Ok(recorder)
    }

    /// Shows how it goes, if somebody sits there.
    pub(super) fn show_progress(&mut self) {
        self.progress = io::stderr().is_terminal().then(Progress::new);
    }

    fn push_head(&mut self) -> io::Result<()> {
        self.encoder.push(&Item::Head(Box::new(self.head.clone())))
    }

    /// Hands the block over that is being made.
    fn flush(&mut self, now: u64) -> Result<()> {
        self.waiting_since = None;
        let events = u64::from(self.encoder.events());
        let block = Bytes::from(self.encoder.finish(self.file)?);
        let len = block.len() as u64;
        if len == 0 {
            return Ok(());
        }
        let is_turn = match &mut self.target {
            Target::Memory(memory) => memory.keep(block, now),
            Target::Files { store, rotate, most_bytes } => {
                if self.is_full || most_bytes.is_some_and(|most| self.bytes + len > most) {
                    // The recording ends before this block, and before whatever would still fit.
                    self.is_full = true;
                    self.events -= events.min(self.events);
                    return Ok(());
                }
                if !store.write(block) {
                    self.losses.unwritten += events;
                    self.encoder.take_back();
                    return self.note_unwritten(events, now);
                }
                self.bytes += len;
                self.file_bytes += len;
                let since = *self.file_since.get_or_insert(now);
                match *rotate {
                    Some(Rotate::Bytes(most)) => self.file_bytes >= most,
                    Some(Rotate::Ns(longest)) => now.saturating_sub(since) >= longest,
                    None => false,
                }
            }
        };
        if is_turn && !self.is_ending { self.turn(now) } else { Ok(()) }
    }

    /// What follows can be read without what was before.
    fn turn(&mut self, now: u64) -> Result<()> {
        match &mut self.target {
            Target::Memory(memory) => memory.begin_part(now),
            Target::Files { store, .. } => {
                if !store.turn(self.file + 1) {
                    return Ok(());
                }
                self.file += 1;
                (self.file_bytes, self.file_since) = (0, None);
            }
        }
        self.push_head()?;
        self.encoder.push(&Item::Clocks(self.clocks))?;
        self.encoder.push(&Item::Losses(self.losses))?;
        self.names.values().try_for_each(|name| self.encoder.push(name))?;
        self.wants_survey = true;
        Ok(())
    }

    fn note_unwritten(&mut self, events: u64, now: u64) -> Result<()> {
        let Target::Files { store, .. } = &self.target else { return Ok(()) };
        match (store.failure(), &self.failure) {
            (Some(failure), None) => {
                say(format_args!("{failure}; nothing more is written, what is there stays"));
                self.failure = Some(failure.to_owned());
            }
            (None, _) => {
                // The disk does not keep up: the trace says where it has a gap.
                self.encoder.push(&Item::Event(Event::Lost { at: now, cause: Cause::Disk, events }))?;
                self.encoder.push(&Item::Losses(self.losses))?;
            }
            (Some(_), Some(_)) => {}
        }
        Ok(())
    }

    /// What the audit found, in words.
    pub(super) fn audit_lines(&self) -> Vec<String> {
        let mut names = Names::default();
        for item in self.names.values() {
            if let Item::Namespace { inode, name } = item {
                names.name_namespace(*inode, name);
            }
        }
        audit_lines(&self.findings, &names)
    }

    /// Writes what is kept in memory, if it is.
    pub(super) fn dump(&mut self) -> Result<()> {
        if let Target::Memory(_) = self.target {
            self.flush(self.passed_at)?;
        }
        if let Target::Memory(memory) = &mut self.target { memory.dump() } else { Ok(()) }
    }

    /// Has everything written, and says what there was.
    pub(in super::super) fn finish(mut self) -> Result<Outcome> {
        self.is_ending = true;
        self.flush(self.passed_at)?;
        drop(self.progress.take());
        let (failure, bytes) = match &mut self.target {
            Target::Memory(memory) => {
                memory.dump()?;
                (memory.finish(), memory.bytes())
            }
            Target::Files { store, .. } => {
                store.finish();
                (store.failure().map(str::to_owned), store.bytes())
            }
        };
        if let (Some(failure), None) = (&failure, &self.failure) {
            say(failure);
        }
        let unaccounted: u64 = self.findings.iter().map(unexplained).sum();
        let causes = self.losses.by_cause().map(|(cause, count)| (cause.words(), count));
        let causes = causes.chain((unaccounted > 0).then_some((UNACCOUNTED, unaccounted)));
        let causes: Vec<_> = causes.map(|(cause, count)| format!("{count} {cause}")).collect();
        let lost = self.losses.total() + unaccounted;
        let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) };
        say(format_args!(
            "{} events recorded, {lost} lost{causes}, {}{}",
            self.events - self.losses.unwritten.min(self.events),
            HumanBytes(bytes),
            if self.is_full { ", all that --max-size allows" } else { "" },
        ));
        Ok(if failure.is_some() || lost > 0 { Outcome::Lost } else { Outcome::Done })
    }
}

fn unexplained(finding: &Finding) -> u64 {
    if let Finding::Verdict(verdict) = finding { verdict.unexplained } else { 0 }
}

impl Sink for Recorder {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        for item in items {
            match item {
                Item::Event(event) => {
                    if let Event::Passed { at } = event {
                        (self.passed_at, self.is_stirred) = (*at, false);
                    } else {
                        self.events += 1;
                        self.is_stirred = true;
                        self.unowned.note(event);
                    }
                    if self.failure.is_some() {
                        self.losses.unwritten += 1;
                        continue;
                    }
                }
                Item::Clocks(clocks) => {
                    self.clocks = *clocks;
                    self.push_head()?;
                }
                Item::Losses(losses) => self.losses = Losses { unwritten: self.losses.unwritten, ..*losses },
                Item::Namespace { inode, .. } => {
                    self.names.insert((false, u64::from(*inode)), item.clone());
                }
                Item::Group { id, .. } => {
                    self.names.insert((true, *id), item.clone());
                }
                Item::Audit(finding) => self.findings.push(*finding),
                Item::Counters(_) | Item::Head(_) => {}
            }
            if self.failure.is_none() {
                self.encoder.push(item)?;
                if self.encoder.len() >= FLUSH_BYTES {
                    let at = if let Item::Event(event) = item { event.at() } else { self.passed_at };
                    self.flush(at)?;
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        if !self.encoder.is_empty() {
            let since = *self.waiting_since.get_or_insert(now);
            if now >= since + FLUSH_NS {
                self.flush(now)?;
            }
        }
        self.unowned.sift(now);
        if let Some(progress) = &mut self.progress {
            let bytes = match &self.target {
                Target::Memory(memory) => memory.bytes(),
                Target::Files { store, .. } => store.bytes(),
            };
            progress.show(now, self.events, bytes, self.losses.total());
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<u64> {
        Some(self.passed_at + if self.is_stirred { PASSED_NS } else { IDLE_NS })
    }

    fn settles_by(&self) -> Option<u64> {
        let flush = self.waiting_since.map(|since| since + FLUSH_NS);
        let progress = self.progress.as_ref().map(|progress| progress.shown_at + PROGRESS_NS);
        [flush, progress, self.unowned.sift_at].into_iter().flatten().min()
    }

    fn wants_survey(&mut self) -> bool {
        std::mem::take(&mut self.wants_survey)
    }

    fn wants_scan(&mut self) -> bool {
        std::mem::take(&mut self.unowned.scan_wanted)
    }

    fn is_over(&self) -> bool {
        self.is_full
    }
}

/// Connections of servers that nobody is known to have accepted.
#[derive(Default)]
struct Unowned {
    since: HashMap<Id, u64, FixedState>,
    sift_at: Option<u64>,
    scan_wanted: bool,
}

impl Unowned {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Change(change) if (change.old, change.new) == (State::SynRecv, State::Established) => {
                self.since.insert(change.id, change.at);
                self.sift_at.get_or_insert(change.at + UNOWNED_NS);
            }
            Event::Change(change) if change.old == State::Established => {
                self.since.remove(&change.id);
            }
            Event::Accepted { id, .. } => {
                self.since.remove(id);
            }
            _ => {}
        }
    }

    /// Those that are there for some time are worth a look, one.
    fn sift(&mut self, now: u64) {
        if self.sift_at.is_some_and(|at| at <= now) {
            let before = self.since.len();
            self.since.retain(|_, since| now < *since + UNOWNED_NS);
            self.scan_wanted |= self.since.len() < before;
            self.sift_at = (!self.since.is_empty()).then_some(now + UNOWNED_NS);
        }
    }
}

/// One line that says how it goes.
struct Progress {
    bar: ProgressBar,
    begun_at: Option<u64>,
    shown_at: u64,
    events: u64,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, begun_at: None, shown_at: 0, events: 0 }
    }

    fn show(&mut self, now: u64, events: u64, bytes: u64, lost: u64) {
        let elapsed_ns = now.saturating_sub(self.shown_at);
        if elapsed_ns < PROGRESS_NS {
            return;
        }
        let begun_at = *self.begun_at.get_or_insert(now);
        let rate = u128::from(events - self.events) * 1_000_000_000 / u128::from(elapsed_ns);
        let rate = HumanCount(u64::try_from(rate).unwrap_or(u64::MAX));
        let seconds = (now - begun_at) / 1_000_000_000;
        self.bar.set_message(format!(
            "{:02}:{:02}:{:02}  {rate} events/s  {}  {} lost",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            HumanBytes(bytes),
            HumanCount(lost),
        ));
        (self.shown_at, self.events) = (now, events);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// From the kernel.
fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}
