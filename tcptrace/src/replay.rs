//! Reads several files as one: the files of a recording in sequence, several recordings merged by time.

mod followed;
mod input;
mod part;
mod recording;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use self::followed::Followed;
pub use self::input::{Input, Inputs};
use self::part::Part;
use self::recording::Recording;
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::criteria::Criteria;
use crate::model::event::Event;
use crate::model::row::Row;
use crate::model::stream::{Item, Origin, Summary};
use crate::model::tcp::Tuple;

/// Why no trace can be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read the trace '{path}': {reason}")]
    Unreadable { path: String, reason: io::Error },
    /// It contains no block.
    #[error("'{path}' is not a tcptrace trace: {reason}")]
    NoTrace { path: String, reason: String },
}

/// Part of a trace, in ns of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Earlier rows are left out.
    pub from: i64,
    /// Later events are not read.
    pub to: i64,
}

impl Default for Span {
    fn default() -> Self {
        Self { from: i64::MIN, to: i64::MAX }
    }
}

/// Receives the rows of a trace.
pub trait Audience<E> {
    /// A row and its origin.
    ///
    /// # Errors
    /// Any error ends the reading.
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<(), E>;

    /// The time of the next rows, in ns of Unix time.
    ///
    /// # Errors
    /// Any error ends the reading.
    fn time(&mut self, _unix_ns: i64) -> Result<(), E> {
        Ok(())
    }

    /// How many bytes of the files have been read.
    fn progress(&mut self, _bytes: u64) {}

    /// Whether it takes items, too.
    fn takes_items(&self) -> bool {
        false
    }

    /// Whether it takes everything that was recorded, whatever the recording was to show.
    fn takes_all(&self) -> bool {
        false
    }

    /// An item, before the rows that follow from it; one that says who took a connection over, after the connection's.
    /// Those from before the span come, too: they say how things stand when it begins.
    fn item(&mut self, _item: &Item, _origin: &Origin) {}

    /// A survey or a scan has ended: the follower knows more of the connections that are open.
    fn looked(&mut self, _follower: &mut Follower) {}

    /// The part of the time that rows are from, before anything else.
    fn begins(&mut self, _span: Span) {}

    /// Nothing more comes from there.
    fn ends(&mut self, _origin: &Origin) {}
}

impl<E, F: FnMut(&Row, &Origin) -> Result<(), E>> Audience<E> for F {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<(), E> {
        self(row, origin)
    }
}

/// Items that are decoded at a time: few enough to stay in the processor's cache until they are used.
const AT_A_TIME: usize = 64;

/// Tuples that are compared one by one.
const FEW: usize = 8;

/// Files that are read together.
pub struct Recordings<R = Input> {
    all: Vec<Recording<R>>,
    /// Files that could not be read.
    damage: Vec<Box<str>>,
    /// Length of the files, if known.
    bytes: u64,
}

impl Recordings {
    /// Opens files. A file that cannot be read counts as damage if at least one other can. `-` is standard input.
    ///
    /// # Errors
    /// When none of them is a readable trace.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, OpenError> {
        Self::of_inputs(&Inputs::open(paths))
    }

    /// Reads files that were opened before, in the same way.
    ///
    /// # Errors
    /// When none of them is a readable trace.
    pub fn of_inputs(inputs: &Inputs) -> Result<Self, OpenError> {
        Ok(Self { bytes: inputs.bytes, ..Self::of_opened(inputs.all(), Input::is_locked)? })
    }
}

impl<R: Read> Recordings<R> {
    /// Reads from these inputs, each with its name. An input that cannot be read counts as damage if at least one other
    /// can.
    ///
    /// # Errors
    /// When none of them is a readable trace.
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
                // A recorder that is killed can leave an empty file.
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

    /// Skips the events of sockets with other cookies than these. With few cookies, this is faster than a filter.
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
            // A few comparisons are faster than a hash.
            let few: Vec<_> = tuples.iter().take(FEW + 1).collect();
            let is_one = |tuple: &Tuple| {
                if few.len() <= FEW { few.contains(&tuple) } else { tuples.contains(tuple) }
            };
            for mut part in recording.files {
                part.reader.each_socket(|id, tuple| {
                    if is_one(tuple) {
                        ids.insert(id.number());
                    }
                })?;
            }
        }
        Ok(ids)
    }

    /// Length of the files in bytes, if known.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Start of the first recording, in ns of Unix time.
    pub fn starts(&self) -> i64 {
        self.all.first().map_or(0, Recording::starts)
    }

    /// Names of network namespaces in the beginnings of the recordings.
    pub fn namespaces(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.all.iter().flat_map(|recording| &recording.items).filter_map(|item| match item {
            Item::Namespace { inode, name } => Some((*inode, &**name)),
            _ => None,
        })
    }

    /// Passes everything to `audience`: the rows that an engine with this configuration makes, if they match the
    /// criteria and those of the recording. With `open_too`, the connections that are still open follow at the end.
    ///
    /// # Errors
    /// Errors of the audience, and unreadable files.
    pub fn tell<E: From<io::Error>>(
        self,
        config: Config,
        criteria: &Criteria,
        span: Span,
        open_too: bool,
        audience: &mut impl Audience<E>,
    ) -> Result<Summary, E> {
        let mut followed: Vec<_> = Vec::new();
        let is_whole = audience.takes_all();
        for (number, recording) in self.all.into_iter().enumerate() {
            followed.push(Followed::new(number, recording, config, criteria, is_whole));
        }
        audience.begins(span);
        loop {
            let times = followed.iter().enumerate().filter_map(|(index, one)| Some((one.next_time()?, index)));
            let mut times: Vec<(i64, usize)> = times.collect();
            times.sort_unstable();
            let Some(&(time, index)) = times.first() else { break };
            // Until another recording has an older event.
            let until = times.get(1).map_or(i64::MAX, |(time, _)| *time);
            if time > span.to {
                break;
            }
            followed[index].advance(until, span, audience)?;
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

impl OpenError {
    /// How damage reports this file, if others can be read.
    fn as_damage(&self) -> Box<str> {
        match self {
            Self::Unreadable { path, reason } => format!("{path} cannot be read: {reason}").into(),
            Self::NoTrace { path, reason } => format!("{path} is not a tcptrace trace: {reason}").into(),
        }
    }
}
