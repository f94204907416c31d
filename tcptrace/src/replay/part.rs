//! One file of a recording, and how it ends.

use std::io::{self, Read};

use super::{AT_A_TIME, OpenError};
use crate::model::event::{Cause, Event};
use crate::model::stream::{Ended, Item, Reason};
use crate::trace::block::{BlockHead, NoHead};
use crate::trace::{Content, Damage, Reader, Wrong};

pub(super) struct Part<R> {
    pub(super) name: Box<str>,
    pub(super) reader: Reader<R>,
    /// Whether a recorder is still writing it.
    pub(super) is_written: fn(&R) -> bool,
    pub(super) ending: Ending,
    pub(super) first: BlockHead,
    /// The first items of that block, until they are taken.
    pub(super) items: Vec<Item>,
    pub(super) is_begun: bool,
    pub(super) damage: Vec<Damage>,
    /// It contains blocks of another recording.
    pub(super) is_mixed: bool,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// Unknown: it was recorded before files announced their end.
    #[default]
    Unknown,
    /// It has not ended yet, and will say so when it does.
    Due,
    /// No data is left; one last read shows whether it has ended meanwhile.
    Overdue,
    /// It has ended properly.
    Complete,
    /// It has ended, and another file continues the recording.
    Turned,
}

impl Ending {
    pub(super) fn note(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Head(head) if head.says_end => *self = Self::Due,
                Item::Ended(Ended { reason: Reason::Turned, .. }) => *self = Self::Turned,
                Item::Ended(_) => *self = Self::Complete,
                _ => {}
            }
        }
    }
}

impl<R: Read> Part<R> {
    /// Opens a file. Returns `None` if it is empty.
    pub(super) fn open(name: Box<str>, input: R, is_written: fn(&R) -> bool) -> Result<Option<Self>, OpenError> {
        let unreadable = |reason| OpenError::Unreadable { path: name.to_string(), reason };
        let mut reader = Reader::new(input).map_err(unreadable)?;
        let mut items = Vec::new();
        let mut damage = Vec::new();
        loop {
            match reader.next_part(|_| true, AT_A_TIME, None, &mut items).map_err(unreadable)? {
                Some(Content::Items { head, damage: last, .. }) => {
                    note_invalid(&last, head.last_at.get(), &mut items);
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
                    let Some(Damage { what, .. }) = damage.into_iter().next() else { return Ok(None) };
                    return Err(match what {
                        Wrong::NoBlock(NoHead::Later(_)) => unreadable(io::Error::other(what)),
                        _ => OpenError::NoTrace { path: name.into(), reason: what.to_string() },
                    });
                }
            }
        }
    }

    /// Decodes more of the first block.
    pub(super) fn decode_first(&mut self, most: usize) -> io::Result<()> {
        while self.reader.is_within_block() && self.items.len() < most {
            let part = self.reader.next_part(|_| true, AT_A_TIME, None, &mut self.items)?;
            if let Some(Content::Items { head, damage, .. }) = part {
                note_invalid(&damage, head.last_at.get(), &mut self.items);
                self.damage.extend(damage);
            }
        }
        Ok(())
    }
}

/// Appends the loss that an invalid record has caused, after the items before that record.
pub(super) fn note_invalid(damage: &Option<Damage>, at: u64, items: &mut Vec<Item>) {
    if let Some(events) = damage.as_ref().map(|damage| damage.events.map(u64::from)).filter(|it| *it != Some(0)) {
        items.push(Item::Event(Event::Lost { at, cause: Cause::Damage, events: events.unwrap_or(0) }));
    }
}

pub(super) fn named(name: &str, damage: &Damage) -> Box<str> {
    format!("{name} is damaged {damage}").into()
}
