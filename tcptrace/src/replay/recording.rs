//! The files of one recording, read in sequence.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;

use super::AT_A_TIME;
use super::part::{Ending, Part, named, note_invalid};
use crate::model::event::{Cause, Event, Id};
use crate::model::stream::{Clock, Clocks, Head, Item};
use crate::trace::block::{BlockHead, flag};
use crate::trace::{Content, Damage, Wrong};

/// The files of one recording.
pub(super) struct Recording<R> {
    pub(super) id: [u8; 16],
    pub(super) files: VecDeque<Part<R>>,
    pub(super) head: Head,
    pub(super) clock: Clock,
    /// Decoded items, and the index of the next one.
    pub(super) items: Vec<Item>,
    pub(super) next: usize,
    /// Number of the next block.
    block: u64,
    /// Time of the last event.
    pub(super) at: u64,
    /// Only events of these sockets are read.
    pub(super) only: Option<Arc<HashSet<u64>>>,
    /// Time of the last event that was left out for that.
    skipped_at: u64,
    /// Losses before the next block.
    missing: Missing,
    pub(super) damage: Vec<Box<str>>,
    /// Files that were cut off, and the time of their last event, in ns of Unix time.
    pub(super) cut_off: Vec<(Box<str>, i64)>,
    /// There is an empty file: a recorder was killed when it had just begun that file.
    pub(super) is_begun_only: bool,
    pub(super) read: u64,
}

/// How many items of its first block describe a recording, with the names among them. A damaged file could make a
/// higher limit take too much memory.
const MOST_AT_FIRST: usize = 1 << 16;

/// Room for items that is kept between blocks: much more is only needed for that first one.
const MOST_KEPT: usize = 8 * AT_A_TIME;

/// Events that damage has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// Events in damaged blocks whose heads state a number.
    events: u64,
    /// How many blocks that is.
    blocks: u64,
    /// Damage of unknown extent.
    unknown: bool,
}

impl Missing {
    /// Notes damage. Blocks before the `next` one have been read from other files.
    fn note(&mut self, damage: &Damage, next: u64) {
        match (damage.block, damage.events) {
            // The block was read up to the invalid record.
            _ if matches!(damage.what, Wrong::Record(_)) => {}
            (Some(block), _) if block < next => {}
            (Some(_), Some(events)) => {
                self.events = self.events.saturating_add(events.into());
                self.blocks += 1;
            }
            _ => self.unknown = true,
        }
    }

    /// The losses, as items.
    fn events(self, at: u64) -> impl DoubleEndedIterator<Item = Item> {
        let lost = move |events| Item::Event(Event::Lost { at, cause: Cause::Damage, events });
        let known = (self.events > 0).then(|| lost(self.events));
        known.into_iter().chain(self.unknown.then(|| lost(0)))
    }
}

impl<R: Read> Recording<R> {
    pub(super) fn new(mut part: Part<R>) -> Self {
        // The block is in memory, so this cannot fail.
        let _ = part.decode_first(MOST_AT_FIRST);
        part.is_begun = true;
        part.ending.note(&part.items);
        let mut items = std::mem::take(&mut part.items);
        let head =
            items.iter().find_map(|item| if let Item::Head(head) = item { Some((**head).clone()) } else { None });
        let clocks = items.iter().find_map(|item| if let Item::Clocks(clocks) = item { Some(clocks) } else { None });
        let clock = clocks.map(Clocks::clock).unwrap_or_default();
        let first = part.first;
        let (block, at) = (first.block.get(), first.first_at.get());
        let mut damage: Vec<_> = part.damage.iter().map(|damage| named(&part.name, damage)).collect();
        if block > 0 {
            let mut missing = Missing::default();
            part.damage.iter().for_each(|damage| missing.note(damage, 0));
            // The first file contains the first block, unless it was recorded before files announced their end.
            let is_whole = first.file.get() == 0 && head.as_ref().is_none_or(|head| head.says_end);
            let unaccounted = block.saturating_sub(missing.blocks);
            if is_whole && unaccounted > 0 {
                if !missing.unknown {
                    damage.push(missing_blocks(unaccounted, block));
                }
                missing.unknown = true;
            }
            // Earlier events are missing: this is a file of a longer recording, or the trace is damaged.
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
            skipped_at: 0,
            missing: Missing::default(),
            damage,
            read: part.reader.offset(),
            cut_off: Vec::new(),
            is_begun_only: false,
            files: VecDeque::from([part]),
        }
    }

    pub(super) fn starts(&self) -> i64 {
        self.clock.unix_ns(self.at)
    }

    /// Decodes more items. Returns `false` at the end.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.items.capacity() > MOST_KEPT {
            self.items = Vec::new();
        } else {
            self.items.clear();
        }
        self.next = 0;
        while self.items.is_empty() {
            self.at = self.at.max(self.skipped_at);
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
                    // This block was already read from another file.
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
                    // Unwanted blocks still show whether blocks before them are missing.
                    is_wanted || *block != head.block.get() + 1
                };
                let content = part.reader.next_part(is_wanted, AT_A_TIME, only.as_deref(), &mut self.items)?;
                self.skipped_at = self.skipped_at.max(part.reader.skipped_at());
                content
            };
            self.read += part.reader.offset() - before;
            match content {
                Some(Content::Items { head, begins, damage }) => {
                    note_invalid(&damage, head.last_at.get(), &mut self.items);
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

    /// Begins the next file, whose first items were decoded when it was opened.
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
            // This block was already read from another file.
            part.reader.leave_block();
            return;
        }
        self.items = items;
        self.note_gap(&first);
        self.keep_wanted();
    }

    /// Ends a file. Losses at its end are known once the next file has begun, or if there is none.
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
                format!("{} is damaged: it contains blocks of another recording, which were skipped", part.name).into(),
            );
        }
        if is_last {
            self.items.extend(std::mem::take(&mut self.missing).events(self.at));
        }
    }

    /// Keeps the wanted ones of the decoded items.
    pub(super) fn keep_wanted(&mut self) {
        let Some(ids) = &self.only else { return };
        let last =
            self.items.iter().rev().find_map(|item| if let Item::Event(it) = item { Some(it.at()) } else { None });
        self.items.retain(|item| match item {
            Item::Event(event) => match event.id() {
                Some(Id::Cookie(id)) => ids.contains(&id),
                // A later record may still give its cookie.
                Some(Id::Address(_)) | None => true,
            },
            _ => true,
        });
        if self.items.is_empty() {
            self.at = self.at.max(last.unwrap_or(0));
        }
    }

    /// Missing blocks hide events.
    fn note_gap(&mut self, head: &BlockHead) {
        if head.flags.get() & flag::BESIDE != 0 {
            return;
        }
        let (block, at) = (head.block.get(), head.first_at.get());
        let mut missing = std::mem::take(&mut self.missing);
        if let Some(blocks) = block.checked_sub(self.block).filter(|blocks| *blocks > 0) {
            let unaccounted = blocks.saturating_sub(missing.blocks);
            if unaccounted > 0 && !missing.unknown {
                self.damage.push(missing_blocks(unaccounted, block));
            }
            missing.unknown = unaccounted > 0;
            self.items.splice(0..0, missing.events(at));
        }
        self.block = self.block.max(block + 1);
    }
}

fn missing_blocks(blocks: u64, before: u64) -> Box<str> {
    let are = if blocks == 1 { "block is" } else { "blocks are" };
    format!("the recording is damaged: {blocks} {are} missing before block {before}").into()
}
