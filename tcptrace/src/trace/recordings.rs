//! Several files read as one: those of a recording one after the other, several recordings by time.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::block::{BlockHead, flag};
use super::read::{Content, Damage, Reader, Wrong};
use super::{Ended, Head, Item, Origin, Reason, Summary};
use crate::event::{Cause, Event, Id};
use crate::filter::Criteria;
use crate::follow::Follower;
use crate::lifecycle::{Config, Row};
use crate::output::Clock;
use crate::tcp::Tuple;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read the trace '{path}': {reason}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why not.
        reason: io::Error,
    },
    /// It holds no block.
    #[error("'{path}' holds no trace: {reason}")]
    NoTrace {
        /// Which.
        path: String,
        /// What is there instead.
        reason: String,
    },
}

/// Part of the time of a trace, in ns of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows from before are left out.
    pub from: i64,
    /// What comes after is not read.
    pub to: i64,
}

impl Default for Span {
    fn default() -> Self {
        Self { from: i64::MIN, to: i64::MAX }
    }
}

/// Who is told what is in a trace.
pub trait Audience<E> {
    /// A row, and where it comes from.
    ///
    /// # Errors
    /// Whatever ends the reading.
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<(), E>;

    /// What comes next happened at this time, in ns of Unix time.
    ///
    /// # Errors
    /// Whatever ends the reading.
    fn time(&mut self, _unix_ns: i64) -> Result<(), E> {
        Ok(())
    }

    /// So many bytes of the files have been read.
    fn progress(&mut self, _bytes: u64) {}
}

impl<E, F: FnMut(&Row, &Origin) -> Result<(), E>> Audience<E> for F {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<(), E> {
        self(row, origin)
    }
}

/// Items that are decoded at a time: few enough to be still at hand when they are looked at.
const AT_A_TIME: usize = 512;

/// Items of its first block that a recording is known by, for the names that are among them. More would take memory that
/// a damaged file can ask for.
const MOST_AT_FIRST: usize = 1 << 16;

/// Files that are read together.
pub struct Recordings<R = File> {
    all: Vec<Recording<R>>,
    /// Files that cannot be read.
    damage: Vec<Box<str>>,
    /// Length of the files, where that is known.
    bytes: u64,
}

/// The files of one recording.
struct Recording<R> {
    id: [u8; 16],
    files: VecDeque<Part<R>>,
    head: Head,
    clock: Clock,
    /// Decoded, and where the rest begins.
    items: Vec<Item>,
    next: usize,
    /// The block that is expected.
    block: u64,
    /// Time of the last event.
    at: u64,
    /// Events of other sockets are passed over.
    only: Option<Arc<HashSet<u64>>>,
    /// What is missing before the next block.
    missing: Missing,
    damage: Vec<Box<str>>,
    /// Files that end where nobody meant them to, and the time of the last event before, in ns of Unix time.
    cut_off: Vec<(Box<str>, i64)>,
    /// There is a file in which nothing is, as a recorder leaves it that was killed when it had just begun another one.
    is_begun_only: bool,
    read: u64,
}

/// Events that damage has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// Those of damaged blocks whose heads say how many.
    events: u64,
    /// Those blocks.
    blocks: u64,
    /// Damage of which nothing is known.
    unknown: bool,
}

struct Part<R> {
    name: Box<str>,
    reader: Reader<R>,
    /// Whether somebody writes it still.
    is_written: fn(&R) -> bool,
    ending: Ending,
    /// Its first block.
    first: BlockHead,
    /// The first items of that, until they are taken.
    items: Vec<Item>,
    is_begun: bool,
    damage: Vec<Damage>,
    /// It has blocks of another recording.
    is_mixed: bool,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    /// It does not tell: it is older than that.
    #[default]
    Untold,
    /// It has not ended so far, and will say so when it does.
    Due,
    /// There is nothing more in it; one last look will tell whether it has ended since.
    Overdue,
    /// As it should.
    Told,
    /// As it should, and another file goes on.
    Turned,
}

impl Ending {
    fn note(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Head(head) if head.says_end => *self = Self::Due,
                Item::Ended(Ended { reason: Reason::Turned, .. }) => *self = Self::Turned,
                Item::Ended(_) => *self = Self::Told,
                _ => {}
            }
        }
    }
}

/// Whether another process has the lock that recorders have on what they write.
fn is_locked(file: &File) -> bool {
    let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    file.try_clone().is_ok_and(|file| matches!(lock(file), Err((_, Errno::EWOULDBLOCK))))
}

impl Recordings<File> {
    /// Opens files. Those that cannot be read are damage, as long as one of them can. `-` is standard input.
    ///
    /// # Errors
    /// When none of them can be read, or is a trace.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, OpenError> {
        let mut bytes = 0;
        let inputs = paths.iter().map(|path| {
            let path = path.as_ref();
            let opened = open(path).inspect(|(_, len)| bytes += len);
            (path.display().to_string().into(), opened.map(|(file, _)| file))
        });
        let inputs = inputs.collect();
        Ok(Self { bytes, ..Self::of_opened(inputs, is_locked)? })
    }
}

/// A file, and its length.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = if path.as_os_str() == "-" { stdin() } else { File::open(path) }?;
    let metadata = file.metadata()?;
    if metadata.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok((file, metadata.len())) }
}

fn stdin() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

impl<R: Read> Recordings<R> {
    /// Reads from these, each with its name. Those that cannot be read are damage, as long as one of them can.
    ///
    /// # Errors
    /// When none of them can be read, or is a trace.
    pub fn of(inputs: Vec<(Box<str>, R)>) -> Result<Self, OpenError> {
        Self::of_opened(inputs.into_iter().map(|(name, input)| (name, Ok(input))).collect(), |_| false)
    }

    fn of_opened(inputs: Vec<(Box<str>, io::Result<R>)>, is_written: fn(&R) -> bool) -> Result<Self, OpenError> {
        let (mut parts, mut failures) = (Vec::new(), Vec::new());
        let (mut empty, mut is_begun_only) = (None, false);
        for (name, input) in inputs {
            let unreadable = |reason| OpenError::Unreadable { path: name.to_string(), reason };
            let is_abandoned = input.as_ref().is_ok_and(|input| !is_written(input));
            match input.map_err(unreadable).and_then(|input| Part::open(name.clone(), input, is_written)) {
                Ok(Some(part)) => parts.push(part),
                // A recorder that is killed can leave one.
                Ok(None) => {
                    is_begun_only |= is_abandoned;
                    empty = Some(OpenError::NoTrace { path: name.into(), reason: "it is empty".into() });
                }
                Err(error) => failures.push(error),
            }
        }
        let damage = failures.iter().map(OpenError::as_damage).collect();
        if let (Some(error), true) = (failures.into_iter().next().or(empty), parts.is_empty()) {
            return Err(error);
        }
        parts.sort_by_key(|part| part.first.block.get());
        let mut all: Vec<Recording<R>> = Vec::new();
        for part in parts {
            match all.iter_mut().find(|recording| recording.id == part.first.recording) {
                Some(recording) => recording.files.push_back(part),
                None => all.push(Recording::new(part)),
            }
        }
        all.sort_by_key(Recording::starts);
        all.iter_mut().for_each(|recording| recording.is_begun_only = is_begun_only);
        Ok(Self { all, damage, bytes: 0 })
    }

    /// Passes over the events of sockets with other cookies than these: faster than a filter, where there are few.
    #[must_use]
    pub fn only(mut self, ids: HashSet<u64>) -> Self {
        let ids = Arc::new(ids);
        for recording in &mut self.all {
            recording.only = Some(Arc::clone(&ids));
            recording.keep_wanted();
        }
        self
    }

    /// The ids of the sockets with one of these tuples.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn ids_of(self, tuples: &HashSet<Tuple>) -> io::Result<HashSet<u64>> {
        let mut ids = HashSet::new();
        for recording in self.all {
            let items = recording.files.iter().flat_map(|part| &part.items).chain(&recording.items);
            let changes =
                items.filter_map(|item| if let Item::Event(Event::Change(it)) = item { Some(it) } else { None });
            ids.extend(changes.filter(|change| tuples.contains(&change.tuple)).map(|change| change.id.number()));
            for mut part in recording.files {
                part.reader.each_socket(|socket| {
                    if tuples.contains(&socket.tuple) {
                        ids.insert(socket.id.number());
                    }
                })?;
            }
        }
        Ok(ids)
    }

    /// Length of the files in bytes, where that is known.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first recording begins, in ns of Unix time.
    pub fn starts(&self) -> i64 {
        self.all.first().map_or(0, Recording::starts)
    }

    /// Names of network namespaces that the beginnings of the recordings tell.
    pub fn namespaces(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.all.iter().flat_map(|recording| &recording.items).filter_map(|item| match item {
            Item::Namespace { inode, name } => Some((*inode, &**name)),
            _ => None,
        })
    }

    /// Tells everything that is in them: the rows that an engine of this kind puts out, and that match the criteria and
    /// those of the recording; at last, if wanted, the connections that are still open.
    ///
    /// # Errors
    /// What the audience returns, and when a file cannot be read.
    pub fn tell<E: From<io::Error>>(
        self,
        config: Config,
        criteria: &Criteria,
        span: Span,
        open_too: bool,
        audience: &mut impl Audience<E>,
    ) -> Result<Summary, E> {
        let mut followed: Vec<_> = Vec::new();
        for (number, recording) in self.all.into_iter().enumerate() {
            followed.push(Followed::new(number, recording, config, criteria));
        }
        loop {
            let times = followed.iter().enumerate().filter_map(|(index, one)| Some((one.next_time()?, index)));
            let mut times: Vec<(i64, usize)> = times.collect();
            times.sort_unstable();
            let Some(&(time, index)) = times.first() else { break };
            // As long as nobody else has something older.
            let until = times.get(1).map_or(i64::MAX, |(time, _)| *time);
            if time > span.to {
                break;
            }
            followed[index].tell(until, span, audience)?;
            audience.progress(followed.iter().map(|one| one.recording.read).sum());
        }
        let (from_unix_ns, to_unix_ns) = (i64::MAX, i64::MIN);
        let mut summary = Summary { from_unix_ns, to_unix_ns, damage: self.damage, ..Summary::default() };
        for one in followed {
            one.finish(span, open_too, audience, &mut summary)?;
        }
        summary.from_unix_ns = summary.from_unix_ns.min(summary.to_unix_ns);
        Ok(summary)
    }
}

impl<R: Read> Part<R> {
    /// Nothing, if there is nothing in it.
    fn open(name: Box<str>, input: R, is_written: fn(&R) -> bool) -> Result<Option<Self>, OpenError> {
        let unreadable = |reason| OpenError::Unreadable { path: name.to_string(), reason };
        let mut reader = Reader::new(input).map_err(unreadable)?;
        let mut items = Vec::new();
        let mut damage = Vec::new();
        loop {
            match reader.next_part(|_| true, AT_A_TIME, &mut items).map_err(unreadable)? {
                Some(Content::Items { head, damage: last, .. }) => {
                    note_senseless(&last, head.last_at.get(), &mut items);
                    damage.extend(last);
                    return Ok(Some(Self {
                        name,
                        reader,
                        is_written,
                        ending: Ending::default(),
                        first: head,
                        items,
                        is_begun: false,
                        damage,
                        is_mixed: false,
                    }));
                }
                Some(Content::Damage(found)) => damage.push(found),
                None => {
                    let Some(reason) = damage.into_iter().next() else { return Ok(None) };
                    let reason = format!("damaged {reason}");
                    return Err(OpenError::NoTrace { path: name.into(), reason });
                }
            }
        }
    }

    /// Decodes more of the first block.
    fn decode_first(&mut self, most: usize) -> io::Result<()> {
        while self.reader.is_within_block() && self.items.len() < most {
            let part = self.reader.next_part(|_| true, AT_A_TIME, &mut self.items)?;
            if let Some(Content::Items { head, damage, .. }) = part {
                note_senseless(&damage, head.last_at.get(), &mut self.items);
                self.damage.extend(damage);
            }
        }
        Ok(())
    }
}

/// Says after the items before it what a record that makes no sense has cost.
fn note_senseless(damage: &Option<Damage>, at: u64, items: &mut Vec<Item>) {
    if let Some(events) = damage.as_ref().map(|damage| damage.events.map(u64::from)).filter(|it| *it != Some(0)) {
        items.push(Item::Event(Event::Lost { at, cause: Cause::Damage, events: events.unwrap_or(0) }));
    }
}

fn named(name: &str, damage: &Damage) -> Box<str> {
    format!("{name} is damaged {damage}").into()
}

fn missing_blocks(blocks: u64, before: u64) -> Box<str> {
    let are = if blocks == 1 { "block is" } else { "blocks are" };
    format!("the recording is damaged: {blocks} {are} missing before block {before}").into()
}

impl OpenError {
    /// What it says of a file, beside others that can be read.
    fn as_damage(&self) -> Box<str> {
        match self {
            Self::Unreadable { path, reason } => format!("{path} cannot be read: {reason}").into(),
            Self::NoTrace { path, reason } => format!("{path} is not a trace: {reason}").into(),
        }
    }
}

impl Missing {
    /// Something is damaged; blocks before the `next` one have been read elsewhere.
    fn note(&mut self, damage: &Damage, next: u64) {
        match (damage.block, damage.events) {
            // The block was read up to there.
            _ if matches!(damage.what, Wrong::Record(_)) => {}
            (Some(block), _) if block < next => {}
            (Some(_), Some(events)) => {
                self.events = self.events.saturating_add(events.into());
                self.blocks += 1;
            }
            _ => self.unknown = true,
        }
    }

    /// What is told of it.
    fn events(self, at: u64) -> impl DoubleEndedIterator<Item = Item> {
        let lost = move |events| Item::Event(Event::Lost { at, cause: Cause::Damage, events });
        let known = (self.events > 0).then(|| lost(self.events));
        known.into_iter().chain(self.unknown.then(|| lost(0)))
    }
}

impl<R: Read> Recording<R> {
    fn new(mut part: Part<R>) -> Self {
        // The block is in memory: nothing can fail.
        let _ = part.decode_first(MOST_AT_FIRST);
        part.is_begun = true;
        part.ending.note(&part.items);
        let mut items = std::mem::take(&mut part.items);
        let head =
            items.iter().find_map(|item| if let Item::Head(head) = item { Some((**head).clone()) } else { None });
        let clocks = items.iter().find_map(|item| if let Item::Clocks(clocks) = item { Some(clocks) } else { None });
        let clock = clocks.map(super::Clocks::clock).unwrap_or_default();
        let first = part.first;
        let (block, at) = (first.block.get(), first.first_at.get());
        let mut damage: Vec<_> = part.damage.iter().map(|damage| named(&part.name, damage)).collect();
        if block > 0 {
            let mut missing = Missing::default();
            part.damage.iter().for_each(|damage| missing.note(damage, 0));
            // Its first file has its first block, unless that is from before it said how it ends.
            let is_whole = first.file.get() == 0 && head.as_ref().is_none_or(|head| head.says_end);
            let untold = block.saturating_sub(missing.blocks);
            if is_whole && untold > 0 {
                if !missing.unknown {
                    damage.push(missing_blocks(untold, block));
                }
                missing.unknown = true;
            }
            // What was before is not there: a file of a longer recording, or damage.
            let begins = std::iter::once(Item::Event(Event::Started { at })).chain(missing.events(at));
            items.splice(0..0, begins);
        }
        Self {
            id: first.recording,
            head: head.unwrap_or_default(),
            clock,
            items,
            next: 0,
            block: block + 1,
            at,
            only: None,
            missing: Missing::default(),
            damage,
            read: part.reader.offset(),
            cut_off: Vec::new(),
            is_begun_only: false,
            files: VecDeque::from([part]),
        }
    }

    fn starts(&self) -> i64 {
        self.clock.unix_ns(self.at)
    }

    /// Decodes more. `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.items.clear();
        self.next = 0;
        while self.items.is_empty() {
            let Some(part) = self.files.front_mut() else { return Ok(false) };
            if !part.is_begun {
                self.begin_file();
                continue;
            }
            let before = part.reader.offset();
            let content = {
                let (only, block, at, id) = (&self.only, &mut self.block, &mut self.at, &self.id);
                let is_mixed = &mut part.is_mixed;
                let is_wanted = |head: &BlockHead| {
                    if head.recording != *id {
                        *is_mixed = true;
                        return false;
                    }
                    // It was read from another file.
                    if head.block.get() < *block && head.flags.get() & flag::BESIDE == 0 {
                        return false;
                    }
                    let Some(ids) = only else { return true };
                    let between = head.min_id.get()..=head.max_id.get();
                    let is_wanted = head.flags.get() & flag::MORE != 0 || ids.iter().any(|id| between.contains(id));
                    if !is_wanted && *block == head.block.get() {
                        *block += 1;
                        *at = (*at).max(head.last_at.get());
                    }
                    // What is missing before it has to be noticed.
                    is_wanted || *block != head.block.get() + 1
                };
                part.reader.next_part(is_wanted, AT_A_TIME, &mut self.items)?
            };
            self.read += part.reader.offset() - before;
            match content {
                Some(Content::Items { head, begins, damage }) => {
                    note_senseless(&damage, head.last_at.get(), &mut self.items);
                    self.damage.extend(damage.map(|damage| named(&part.name, &damage)));
                    if head.flags.get() & flag::MORE != 0 {
                        part.ending.note(&self.items);
                    }
                    if begins {
                        self.note_gap(&head);
                    }
                    self.keep_wanted();
                }
                Some(Content::Damage(damage)) => {
                    self.missing.note(&damage, self.block);
                    self.damage.push(named(&part.name, &damage));
                }
                None => self.end_file(),
            }
        }
        Ok(true)
    }

    /// Turns to a further file, whose first items were decoded when it was opened.
    fn begin_file(&mut self) {
        let Some(part) = self.files.front_mut() else { return };
        part.is_begun = true;
        self.read += part.reader.offset();
        for damage in std::mem::take(&mut part.damage) {
            self.missing.note(&damage, self.block);
            self.damage.push(named(&part.name, &damage));
        }
        let (first, items) = (part.first, std::mem::take(&mut part.items));
        part.ending.note(&items);
        if first.block.get() < self.block {
            // It was read from another file.
            part.reader.leave_block();
            return;
        }
        self.items = items;
        self.note_gap(&first);
        self.keep_wanted();
    }

    /// A file is read. What is missing at its end is known when the next one has begun, unless there is none.
    fn end_file(&mut self) {
        if let Some(part) = self.files.front_mut()
            && part.ending == Ending::Due
            && !(part.is_written)(part.reader.input())
        {
            part.ending = Ending::Overdue;
            return;
        }
        let Some(part) = self.files.pop_front() else { return };
        let is_last = self.files.is_empty();
        if part.ending == Ending::Overdue || part.ending == Ending::Turned && is_last && self.is_begun_only {
            self.cut_off.push((part.name.clone(), self.clock.unix_ns(self.at)));
        }
        if part.is_mixed {
            self.damage.push(
                format!("{} is damaged: it holds blocks of another recording, which were skipped", part.name).into(),
            );
        }
        if is_last {
            self.items.extend(std::mem::take(&mut self.missing).events(self.at));
        }
    }

    /// Of what was decoded, keeps what is wanted.
    fn keep_wanted(&mut self) {
        let Some(ids) = &self.only else { return };
        let last =
            self.items.iter().rev().find_map(|item| if let Item::Event(it) = item { Some(it.at()) } else { None });
        self.items.retain(|item| match item {
            Item::Event(event) => match event.id() {
                Some(Id::Cookie(id)) => ids.contains(&id),
                // A cookie may follow it.
                Some(Id::Address(_)) | None => true,
            },
            _ => true,
        });
        if self.items.is_empty() {
            self.at = self.at.max(last.unwrap_or(0));
        }
    }

    /// Blocks that are not there hide events.
    fn note_gap(&mut self, head: &BlockHead) {
        if head.flags.get() & flag::BESIDE != 0 {
            return;
        }
        let (block, at) = (head.block.get(), head.first_at.get());
        let mut missing = std::mem::take(&mut self.missing);
        if let Some(blocks) = block.checked_sub(self.block).filter(|blocks| *blocks > 0) {
            let untold = blocks.saturating_sub(missing.blocks);
            if untold > 0 && !missing.unknown {
                self.damage.push(missing_blocks(untold, block));
            }
            missing.unknown = untold > 0;
            self.items.splice(0..0, missing.events(at));
        }
        self.block = self.block.max(block + 1);
    }
}

/// A recording, and what becomes of it.
struct Followed<R> {
    recording: Recording<R>,
    follower: Follower,
    /// Everything was told, or what is left is not wanted.
    is_over: bool,
    begins: i64,
}

impl<R: Read> Followed<R> {
    fn new(number: usize, recording: Recording<R>, config: Config, criteria: &Criteria) -> Self {
        let head = &recording.head;
        let Head { existing, knows_cookies: scans, partial_scans, .. } = recording.head;
        let config = Config { existing, scans, partial_scans, ..config };
        let mut origin = Origin {
            number,
            host: head.host.as_str().into(),
            kernel: head.kernel.as_str().into(),
            boot_id: head.boot_id.as_str().into(),
            ..Origin::default()
        };
        origin.context.clock = recording.clock;
        let follower = Follower::new(config, [head.filter.clone(), criteria.clone()], origin);
        Self { begins: recording.starts(), recording, follower, is_over: false }
    }

    /// When what comes next happened.
    fn next_time(&self) -> Option<i64> {
        (!self.is_over).then(|| self.recording.clock.unix_ns(self.recording.at))
    }

    /// Tells what has happened until then, and one thing at least.
    fn tell<E: From<io::Error>>(&mut self, until: i64, span: Span, audience: &mut impl Audience<E>) -> Result<(), E> {
        let Self { recording, follower, is_over, .. } = self;
        if recording.next >= recording.items.len() && !recording.fill()? {
            *is_over = true;
            return Ok(());
        }
        let rest = &recording.items[recording.next..];
        let mut clock = recording.clock;
        let mut taken = 0;
        for item in rest {
            match item {
                Item::Event(event) => {
                    let time = clock.unix_ns(event.at());
                    if time > span.to || time > until && taken > 0 {
                        break;
                    }
                    recording.at = recording.at.max(event.at());
                }
                Item::Clocks(clocks) => clock = clocks.clock(),
                _ => {}
            }
            taken += 1;
        }
        recording.clock = clock;
        if taken == 0 {
            // All that is left is too late.
            *is_over = true;
            return Ok(());
        }
        audience.time(clock.unix_ns(recording.at))?;
        let items = &rest[..taken];
        recording.next += taken;
        follower.take(items, |row, origin| told(row, origin, span, audience))?;
        if let Some(Item::Event(next)) = recording.items.get(recording.next) {
            recording.at = recording.at.max(next.at());
        }
        Ok(())
    }

    fn finish<E: From<io::Error>>(
        mut self,
        span: Span,
        open_too: bool,
        audience: &mut impl Audience<E>,
        summary: &mut Summary,
    ) -> Result<(), E> {
        let ends = self.recording.clock.unix_ns(self.recording.at);
        let at = ends.min(span.to).saturating_sub(self.recording.clock.boot_to_unix_ns);
        let passed = Item::Event(Event::Passed { at: u64::try_from(at).unwrap_or(0) });
        self.follower.take(&[passed], |row, origin| told(row, origin, span, audience))?;
        if open_too {
            self.follower.take_open(|row, origin| audience.row(row, origin))?;
        }
        self.follower.finish(|row, origin| told(row, origin, span, audience))?;
        let host = &self.recording.head.host;
        if !summary.hosts.iter().any(|known| **known == **host) {
            summary.hosts.push(host.as_str().into());
        }
        summary.from_unix_ns = summary.from_unix_ns.min(self.begins.max(span.from));
        summary.to_unix_ns = summary.to_unix_ns.max(ends.min(span.to));
        summary.events += self.follower.events();
        summary.undecided += self.follower.undecided();
        summary.transitions += self.follower.stats().transitions;
        summary.damage.append(&mut self.recording.damage);
        summary.cut_off.append(&mut self.recording.cut_off);
        for lost in self.follower.lost() {
            match summary.lost.iter_mut().find(|known| known.cause == lost.cause) {
                Some(known) => {
                    known.events = known.events.saturating_add(lost.events);
                    known.at_least |= lost.at_least;
                }
                None => summary.lost.push(lost),
            }
        }
        Ok(())
    }
}

/// Tells a row, if it is of this time.
fn told<E>(row: &Row, origin: &Origin, span: Span, audience: &mut impl Audience<E>) -> Result<(), E> {
    let is_wanted = (span.from..=span.to).contains(&origin.context.clock.unix_ns(row.boot_ns()));
    if is_wanted { audience.row(row, origin) } else { Ok(()) }
}
