//! A change of state, told part by part: whoever needs only some of them need not wait until an
//! [`Event`](super::event::Event) is made of all.

use super::event::{Change, EndFacts, Flags, Id, Idle};
use super::tcp::{State, Task, Tuple};

/// A change of state of a full socket. The parts are those of [`Change`].
pub trait Transition {
    fn at(&self) -> u64;
    fn id(&self) -> Id;
    fn address(&self) -> Option<u64>;
    fn tuple(&self) -> Tuple;
    fn netns(&self) -> Option<u32>;
    fn uid(&self) -> Option<u32>;
    fn cgroup(&self) -> Option<u64>;
    fn interface(&self) -> u32;
    /// The state it leaves.
    fn leaves(&self) -> State;
    /// The state it enters.
    fn enters(&self) -> State;
    fn flags(&self) -> Option<Flags>;
    fn idle(&self) -> Option<Idle>;
    fn task(&self) -> Option<Task>;
    fn end(&self) -> Option<EndFacts>;

    /// All parts.
    fn change(&self) -> Change {
        Change {
            at: self.at(),
            id: self.id(),
            address: self.address(),
            tuple: self.tuple(),
            netns: self.netns(),
            uid: self.uid(),
            cgroup: self.cgroup(),
            interface: self.interface(),
            old: self.leaves(),
            new: self.enters(),
            flags: self.flags(),
            idle: self.idle(),
            task: self.task(),
            end: self.end(),
        }
    }
}

impl Transition for Change {
    #[inline]
    fn at(&self) -> u64 {
        self.at
    }

    #[inline]
    fn id(&self) -> Id {
        self.id
    }

    #[inline]
    fn address(&self) -> Option<u64> {
        self.address
    }

    #[inline]
    fn tuple(&self) -> Tuple {
        self.tuple
    }

    #[inline]
    fn netns(&self) -> Option<u32> {
        self.netns
    }

    #[inline]
    fn uid(&self) -> Option<u32> {
        self.uid
    }

    #[inline]
    fn cgroup(&self) -> Option<u64> {
        self.cgroup
    }

    #[inline]
    fn interface(&self) -> u32 {
        self.interface
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
        self.flags
    }

    #[inline]
    fn idle(&self) -> Option<Idle> {
        self.idle
    }

    #[inline]
    fn task(&self) -> Option<Task> {
        self.task
    }

    #[inline]
    fn end(&self) -> Option<EndFacts> {
        self.end
    }

    fn change(&self) -> Change {
        *self
    }
}
