//! The records of the ring buffer, a batch at a time, read in place.

use std::sync::Arc;

use tcptrace_common::{
    ChildTail, ClosedChildTail, ClosedTail, EndTail, EndedChildTail, Head, IdleTail, IdleTaskTail, OpenTail, TaskTail,
    flag, kind,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Decoder, flags, interface, known, tuple};
use crate::model::event::{EndFacts, Event, Flags, Id, Idle};
use crate::model::tcp::{State, Task, Tuple};
use crate::model::transition::Transition;

/// Records that were taken from the ring buffer.
pub struct Batch {
    decoder: Arc<Decoder>,
    /// Their bytes, each from the beginning of a word.
    words: Vec<u64>,
    /// Where each begins, and its length in bytes.
    places: Vec<(usize, usize)>,
}

/// A record.
#[expect(clippy::large_enum_variant, reason = "it is used at once, and never stored")]
pub enum Told<'r> {
    /// A change of state: the most frequent record.
    Change(Record<'r>),
    /// Something else.
    Other(Event),
}

impl Batch {
    pub(in super::super) fn new(decoder: Arc<Decoder>) -> Self {
        Self { decoder, words: Vec::new(), places: Vec::new() }
    }

    pub(in super::super) fn clear(&mut self) {
        self.words.clear();
        self.places.clear();
    }

    pub(in super::super) fn push(&mut self, record: &[u8]) {
        let begin = self.words.len();
        let (words, rest) = record.as_chunks::<{ size_of::<u64>() }>();
        self.words.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; size_of::<u64>()];
            word[..rest.len()].copy_from_slice(rest);
            self.words.push(u64::from_ne_bytes(word));
        }
        self.places.push((begin, record.len()));
    }

    /// When the first of its events happened.
    pub fn first_at(&self) -> Option<u64> {
        self.bytes().find_map(|record| Head::ref_from_prefix(record).ok()).map(|(head, _)| head.boot_ns)
    }

    /// Its records. One of unknown kind or form is left out, with a warning.
    pub fn records(&self) -> impl Iterator<Item = Told<'_>> {
        self.bytes().filter_map(|record| self.decoder.tell(record))
    }

    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().filter_map(|(begin, len)| self.words.get(*begin..)?.as_bytes().get(..*len))
    }
}

/// A record of a change of state.
#[derive(Clone, Copy)]
pub struct Record<'r> {
    decoder: &'r Decoder,
    head: &'r Head,
    old: State,
    new: State,
    /// Its kind, with the fields that only this kind has.
    tail: Tail<'r>,
}

#[derive(Clone, Copy)]
enum Tail<'r> {
    Nothing,
    Child(&'r ChildTail),
    ClosedChild(&'r ClosedChildTail),
    Task(&'r TaskTail),
    Open(&'r OpenTail),
    Idle(&'r IdleTail),
    IdleTask(&'r IdleTaskTail),
    End(&'r ClosedTail),
    EndedChild(&'r EndedChildTail),
}

impl<'r> Record<'r> {
    /// The change that a record describes; `None` for another kind or form.
    pub(super) fn of(decoder: &'r Decoder, head: &'r Head, tail: &'r [u8]) -> Option<Self> {
        let tail = match head.kind {
            kind::STATE => Tail::Nothing,
            kind::STATE_CHILD => Tail::Child(read(tail)?),
            kind::STATE_CHILD_CLOSED => Tail::ClosedChild(read(tail)?),
            kind::STATE_TASK => Tail::Task(read(tail)?),
            kind::STATE_OPEN => Tail::Open(read(tail)?),
            kind::STATE_IDLE => Tail::Idle(read(tail)?),
            kind::STATE_IDLE_TASK => Tail::IdleTask(read(tail)?),
            kind::STATE_END => Tail::End(read(tail)?),
            kind::STATE_CHILD_END => Tail::EndedChild(read(tail)?),
            _ => return None,
        };
        Some(Self { decoder, head, old: State::from_kernel(head.old)?, new: State::from_kernel(head.new)?, tail })
    }

    fn child(&self) -> Option<&'r ChildTail> {
        match self.tail {
            Tail::Child(child) | Tail::ClosedChild(ClosedChildTail { child, .. }) => Some(child),
            _ => None,
        }
    }

    fn end_tail(&self) -> Option<&'r EndTail> {
        match self.tail {
            Tail::End(ClosedTail { end, .. }) | Tail::EndedChild(EndedChildTail { end, .. }) => Some(end),
            _ => None,
        }
    }

    fn is_bare(&self) -> bool {
        self.head.flags & flag::BARE != 0
    }
}

impl Transition for Record<'_> {
    #[inline]
    fn at(&self) -> u64 {
        self.head.boot_ns
    }

    #[inline]
    fn id(&self) -> Id {
        self.decoder.id(self.head)
    }

    #[inline]
    fn address(&self) -> Option<u64> {
        let address = match self.tail {
            Tail::EndedChild(ended) => Some(ended.address),
            _ => self.child().map(|child| child.address),
        };
        address.map(|address| self.decoder.scramble(address))
    }

    #[inline]
    fn tuple(&self) -> Tuple {
        tuple(self.head)
    }

    #[inline]
    fn netns(&self) -> Option<u32> {
        known(self.head.netns)
    }

    #[inline]
    fn uid(&self) -> Option<u32> {
        (!self.is_bare()).then_some(self.head.extra)
    }

    #[inline]
    fn cgroup(&self) -> Option<u64> {
        match self.tail {
            Tail::Open(open) => known(open.cgroup),
            _ => self.child().and_then(|child| known(child.cgroup)),
        }
    }

    #[inline]
    fn interface(&self) -> u32 {
        match self.tail {
            Tail::Open(open) => interface(self.head, open.interface),
            _ => self.child().map_or(0, |child| interface(self.head, child.interface)),
        }
    }

    #[inline]
    fn leaves(&self) -> State {
        self.old
    }

    #[inline]
    fn enters(&self) -> State {
        self.new
    }

    #[inline]
    fn flags(&self) -> Option<Flags> {
        let reuse = match self.tail {
            Tail::Open(OpenTail { reuse, .. }) => Some(reuse),
            _ => self.end_tail().map(|end| &end.reuse),
        };
        let reuse = reuse.and_then(|reuse| self.decoder.reuse(*reuse));
        (!self.is_bare()).then(|| Flags { reuse, ..flags(self.head) })
    }

    #[inline]
    fn idle(&self) -> Option<Idle> {
        match self.tail {
            Tail::Idle(idle) | Tail::IdleTask(IdleTaskTail { idle, .. }) | Tail::End(ClosedTail { idle, .. }) => {
                self.decoder.idle(idle)
            }
            _ => None,
        }
    }

    #[inline]
    fn task(&self) -> Option<Task> {
        match self.tail {
            Tail::Task(task)
            | Tail::ClosedChild(ClosedChildTail { task, .. })
            | Tail::Open(OpenTail { task, .. })
            | Tail::IdleTask(IdleTaskTail { task, .. })
            | Tail::End(ClosedTail { end: EndTail { task, .. }, .. })
            | Tail::EndedChild(EndedChildTail { end: EndTail { task, .. }, .. }) => self.decoder.task(task),
            Tail::Nothing | Tail::Child(_) | Tail::Idle(_) => None,
        }
    }

    #[inline]
    fn end(&self) -> Option<EndFacts> {
        self.end_tail().map(|end| self.decoder.end_facts(self.head, end))
    }
}

pub(super) fn read<T: FromBytes + KnownLayout + Immutable>(tail: &[u8]) -> Option<&T> {
    T::ref_from_prefix(tail).ok().map(|(value, _)| value)
}
