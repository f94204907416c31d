//! From the bytes of a file to blocks, however damaged the file is.

use crate::model::event::Id;
use crate::model::stream::Item;
use crate::model::tcp::Tuple;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind, Read};

use zstd::bulk::Decompressor;

use super::block::{BlockHead, DATA_FRAME, FRAME, FRAME_HEADER, LONGEST_HEAD, MAGIC, NoHead, SKIPPABLE, frame_header};
use super::decode::{Decoder, InvalidRecord};

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// Part of a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// How many bytes were skipped.
    pub len: u64,
    /// What is wrong.
    pub what: Wrong,
    /// Events that are missing, if known.
    pub events: Option<u32>,
    /// Number of the block in the recording, if known.
    pub block: Option<u64>,
}

/// What is wrong with a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The file ends within a block.
    #[error("the file ends within a block")]
    Cut,
    /// There is no block where one should be.
    #[error(transparent)]
    NoBlock(#[from] NoHead),
    /// The data does not match its checksum.
    #[error("the data of a block is damaged")]
    Data,
    /// The data matches its checksum, and is still invalid.
    #[error(transparent)]
    Record(#[from] InvalidRecord),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, len, what, .. } = self;
        write!(f, "at byte {offset}: {what}; {len} bytes skipped")?;
        match self.events {
            Some(events) => write!(f, ", {events} events missing"),
            None => Ok(()),
        }
    }
}

/// Iterates over the blocks of a file.
pub struct Blocks<R> {
    input: R,
    decompressor: Decompressor<'static>,
    /// Bytes that were read and not used yet.
    window: Vec<u8>,
    /// Offset of the unused bytes in the window.
    start: usize,
    /// Offset of the window in the file.
    base: u64,
    raw: Vec<u8>,
    /// The bytes before the first head were already skipped.
    begun: bool,
}

/// A block, or the damage in its place.
pub type Block<'b> = Result<(BlockHead, &'b [u8]), Damage>;

impl<R: Read> Blocks<R> {
    /// Reads from `input`, which need not be buffered.
    ///
    /// # Errors
    /// When there is no memory for unpacking.
    pub fn new(input: R) -> io::Result<Self> {
        Ok(Self {
            input,
            decompressor: Decompressor::new()?,
            window: Vec::new(),
            start: 0,
            base: 0,
            raw: Vec::new(),
            begun: false,
        })
    }

    /// The current offset in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The data that was unpacked last.
    fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The next block that `wanted` accepts, unpacked. Each damaged place is reported once; damage within a block that
    /// is not wanted goes unnoticed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, mut wanted: impl FnMut(&BlockHead) -> bool) -> io::Result<Option<Block<'_>>> {
        loop {
            let at = self.offset();
            if self.fill(FRAME_HEADER)? == 0 {
                return Ok(None);
            }
            let wrong = match self.head()? {
                Ok(Some((head, head_len))) => {
                    self.begun = true;
                    if let Err(wrong) = head.check_length() {
                        self.start += head_len;
                        self.search()?;
                        return Ok(Some(Err(damage(at, self.offset() - at, wrong.into(), Some(&head)))));
                    }
                    let data_len = head.data_len.get() as usize;
                    if self.fill(head_len + data_len)? < head_len + data_len {
                        let len = self.rest().len() as u64;
                        self.start = self.window.len();
                        let damage = damage(at, len, Wrong::Cut, Some(&head));
                        return Ok(Some(Err(damage)));
                    }
                    if !wanted(&head) {
                        self.start += head_len + data_len;
                        continue;
                    }
                    if self.unpack(&head, head_len).is_some() {
                        self.start += head_len + data_len;
                        return Ok(Some(Ok((head, &self.raw))));
                    }
                    // The bytes that should have been its data may contain a whole head.
                    self.start += head_len;
                    self.search()?;
                    let damage = damage(at, self.offset() - at, Wrong::Data, Some(&head));
                    return Ok(Some(Err(damage)));
                }
                // A frame that this version does not know.
                Ok(None) => continue,
                Err(wrong) => wrong,
            };
            if wrong == Wrong::NoBlock(NoHead::SomethingElse) || wrong == Wrong::Cut {
                self.start = (self.start + 1).min(self.window.len());
                self.search()?;
            } else {
                // A later version wrote this block and everything behind it.
                self.start = self.window.len();
                while self.fill(1)? > 0 {
                    self.start = self.window.len();
                }
            }
            return Ok(Some(Err(damage(at, self.offset() - at, wrong, None))));
        }
    }

    /// The head that begins here, and the length of its frame; `None` after another skippable frame was skipped.
    fn head(&mut self) -> io::Result<Result<Option<(BlockHead, usize)>, Wrong>> {
        let Some(header) = self.rest().first_chunk::<FRAME_HEADER>() else { return Ok(Err(Wrong::Cut)) };
        let (magic, len) = frame_header(*header);
        let len = len as usize;
        if magic == FRAME && len <= LONGEST_HEAD {
            if self.fill(FRAME_HEADER + len)? < FRAME_HEADER + len {
                return Ok(Err(Wrong::Cut));
            }
            let content = &self.rest()[FRAME_HEADER..FRAME_HEADER + len];
            return Ok(match BlockHead::parse(content) {
                Ok(head) => Ok(Some((head, FRAME_HEADER + len))),
                Err(wrong) => Err(wrong.into()),
            });
        }
        let is_other = (SKIPPABLE..SKIPPABLE + 16).contains(&magic) && magic != FRAME;
        // Its length cannot be checked, so only a short one is accepted.
        if is_other && self.begun && len <= CHUNK && self.fill(FRAME_HEADER + len)? >= FRAME_HEADER + len {
            self.start += FRAME_HEADER + len;
            return Ok(Ok(None));
        }
        Ok(Err(NoHead::SomethingElse.into()))
    }

    fn unpack(&mut self, head: &BlockHead, head_len: usize) -> Option<()> {
        let data_len = head.data_len.get() as usize;
        let raw_len = head.raw_len.get() as usize;
        let data = self.window.get(self.start + head_len..)?.get(..data_len)?;
        if !data.starts_with(&DATA_FRAME.to_le_bytes()) {
            return None;
        }
        self.raw.clear();
        self.raw.reserve(raw_len);
        let unpacked = self.decompressor.decompress_to_buffer(data, &mut self.raw).ok()?;
        (unpacked == raw_len && self.raw.len() == raw_len).then_some(())
    }

    /// Goes on to the next head.
    fn search(&mut self) -> io::Result<()> {
        loop {
            let here = self.rest().windows(FRAME_HEADER + MAGIC.len()).position(is_head);
            if let Some(position) = here {
                self.start += position;
                let head = self.head()?;
                if !matches!(head, Err(Wrong::NoBlock(NoHead::SomethingElse))) {
                    return Ok(());
                }
                self.start += 1;
                continue;
            }
            let rest = self.rest().len();
            self.start += rest.saturating_sub(FRAME_HEADER + MAGIC.len() - 1);
            if self.fill(CHUNK)? < FRAME_HEADER + MAGIC.len() {
                self.start = self.window.len();
                return Ok(());
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.window[self.start..]
    }

    /// Reads until this many bytes are available, or the file ends. Returns how many are available.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        if self.window.len() - self.start < wanted {
            self.window.drain(..self.start);
            self.base += self.start as u64;
            self.start = 0;
        }
        while self.window.len() < self.start + wanted {
            let len = self.window.len();
            self.window.resize(len.max(self.start + wanted).next_multiple_of(CHUNK).max(len + CHUNK), 0);
            let read = self.input.read(&mut self.window[len..]);
            self.window.truncate(len + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.window.len() - self.start)
    }
}

fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(&FRAME.to_le_bytes()) && bytes[FRAME_HEADER..].starts_with(&MAGIC)
}

fn damage(offset: u64, len: u64, what: Wrong, head: Option<&BlockHead>) -> Damage {
    let (events, block) = (head.map(|head| head.events.get()), head.map(|head| head.block.get()));
    Damage { offset, len, what, events, block }
}

/// Decodes the items of a file.
pub struct Reader<R> {
    blocks: Blocks<R>,
    decoder: Decoder,
    skipped_at: u64,
    /// The block that was read in part.
    open: Option<Open>,
}

struct Open {
    head: BlockHead,
    offset: u64,
    /// Events so far.
    events: u32,
}

/// One step through a file.
#[derive(Debug)]
pub enum Content {
    /// Items, in order.
    Items {
        head: BlockHead,
        /// They are the first ones of their block.
        begins: bool,
        /// Damage at the last of the block's records.
        damage: Option<Damage>,
    },
    /// Damage where a block should be.
    Damage(Damage),
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which need not be buffered.
    ///
    /// # Errors
    /// When there is no memory for unpacking.
    pub fn new(input: R) -> io::Result<Self> {
        Ok(Self { blocks: Blocks::new(input)?, decoder: Decoder::default(), skipped_at: 0, open: None })
    }

    /// The current offset in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.blocks.offset()
    }

    /// The underlying input.
    pub(crate) fn input(&self) -> &R {
        &self.blocks.input
    }

    /// Calls `each` for the sockets that the rest of the file describes, for some of them repeatedly. Skips damage.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn each_socket(&mut self, mut each: impl FnMut(Id, &Tuple)) -> io::Result<()> {
        if self.open.take().is_some() {
            self.decoder.each_socket(self.blocks.raw(), &mut each);
        }
        while let Some(block) = self.blocks.next(|_| true)? {
            if let Ok((_, raw)) = block {
                self.decoder.restart();
                self.decoder.each_socket(raw, &mut each);
            }
        }
        Ok(())
    }

    /// Time of the last event that was left out.
    pub(crate) fn skipped_at(&self) -> u64 {
        self.skipped_at
    }

    /// Whether a block was read in part.
    pub(crate) fn is_within_block(&self) -> bool {
        self.open.is_some()
    }

    /// Skips the rest of a block that was read in part.
    pub(crate) fn leave_block(&mut self) {
        self.open = None;
    }

    /// Appends the items of the next block that `wanted` accepts to `items`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(
        &mut self,
        wanted: impl FnMut(&BlockHead) -> bool,
        items: &mut Vec<Item>,
    ) -> io::Result<Option<Content>> {
        self.next_part(wanted, usize::MAX, None, items)
    }

    /// Like [`next`](Self::next), but appends at most `most` items: the next call goes on with the same block. If cookies
    /// are named, events of other sockets may be left out; then the time of the last one of them is known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn next_part(
        &mut self,
        wanted: impl FnMut(&BlockHead) -> bool,
        most: usize,
        only: Option<&HashSet<u64>>,
        items: &mut Vec<Item>,
    ) -> io::Result<Option<Content>> {
        let begins = self.open.is_none();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let offset = self.blocks.offset();
                match self.blocks.next(wanted)? {
                    None => return Ok(None),
                    Some(Err(damage)) => return Ok(Some(Content::Damage(damage))),
                    Some(Ok((head, _))) => Open { head, offset, events: 0 },
                }
            }
        };
        if begins {
            self.decoder.restart();
        }
        let last = self.decoder.next(self.blocks.raw(), most, only, items);
        let head = open.head;
        let skipped = self.decoder.skipped();
        self.skipped_at = self.skipped_at.max(skipped.at);
        let events = self.decoder.events().saturating_add(skipped.events);
        open.events = open.events.saturating_add(events);
        let damage = last.err().map(|invalid| Damage {
            offset: open.offset,
            len: 0,
            what: invalid.into(),
            events: head.events.get().checked_sub(open.events),
            block: Some(head.block.get()),
        });
        if last == Ok(true) {
            self.open = Some(open);
        }
        Ok(Some(Content::Items { head, begins, damage }))
    }
}
