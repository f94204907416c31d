//! From the bytes of a record to an [`Event`].

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;

use tcptrace_common::{
    CancelTail, EndTail, Head, HolderTail, IdleTail, TaskTail, UNKNOWN_TICKS, call, end_flag, flag, kind, state,
};
use zerocopy::FromBytes;

use super::layout::ReuseBits;
use super::record::{Record, Told, read};
use super::symbols::{Cancelled, Symbols};
use crate::model::event::{
    Birth, Call, EndFacts, Event, FailedCall, Flags, Found, Holder, Id, Idle, Kept, KilledBy, Mini, MiniEvent,
    ResetReason, Reuse, Totals,
};
use crate::model::tcp::{Comm, State, Task, Tuple};
use crate::model::transition::Transition;

/// What is needed to decode the records of this kernel.
pub(super) struct Decoder {
    /// Length of a kernel tick in ns.
    pub(super) tick_ns: u64,
    /// Whether the creation of mini-sockets is seen: then a record that names none proves that none was made.
    pub(super) minis_watched: bool,
    /// Shows who cancelled a timer.
    pub(super) symbols: Symbols,
    /// Meaning of reset reasons, by number.
    pub(super) reset_reasons: Vec<ResetReason>,
    /// Which bits say whether a socket shares its address and port, where this kernel has them.
    pub(super) reuse: Option<ReuseBits>,
    /// Our own process id, in the initial pid namespace.
    pub(super) own_pid: u32,
    /// Scrambles addresses, which are the kernel's secret.
    pub(super) scrambler: RandomState,
}

impl Decoder {
    /// A process; `None` for kernel threads and for tcptrace itself. During a scan, tcptrace holds each file for a
    /// moment, and closes it if its process lets go just then.
    pub(super) fn task(&self, tail: &TaskTail) -> Option<Task> {
        let is_somebody = tail.pid != 0 && tail.pid != self.own_pid;
        is_somebody.then_some(Task { pid: tail.pid, tid: tail.tid, comm: Comm(tail.comm) })
    }

    /// The event that a record describes; `None` for a record of unknown kind or form.
    pub(super) fn decode(&self, record: &[u8]) -> Option<Event> {
        let (head, tail) = Head::ref_from_prefix(record).ok()?;
        match Record::of(self, head, tail) {
            Some(change) => Some(Event::Change(change.change())),
            None => self.other(head, tail),
        }
    }

    /// What a record tells, with a warning if it is of unknown kind or form.
    pub(super) fn tell<'r>(&'r self, record: &'r [u8]) -> Option<Told<'r>> {
        let told = Head::ref_from_prefix(record).ok().and_then(|(head, tail)| match Record::of(self, head, tail) {
            Some(change) => Some(Told::Change(change)),
            None => self.other(head, tail).map(Told::Other),
        });
        if told.is_none() {
            warn_of(record);
        }
        told
    }

    /// The event of a record that is no change of state.
    fn other(&self, head: &Head, tail: &[u8]) -> Option<Event> {
        let at = head.boot_ns;
        let id = self.id(head);
        Some(match head.kind {
            kind::DESTROY => Event::Destroyed { at, id, shut: both_shut(head.flags) },
            kind::RESET_SENT => Event::ResetSent { at, id, reason: self.reset_reason(head.extra) },
            kind::RESET_RECEIVED => Event::ResetReceived { at, id },
            kind::MINI_EXPIRED => Event::Mini(self.mini(head, id, MiniEvent::Expired)?),
            kind::MINI_FIN => Event::Mini(self.mini(head, id, MiniEvent::Fin)?),
            kind::MINI_CANCELLED => {
                let what = self.cancelled(read(tail)?);
                Event::Mini(self.mini(head, id, what)?)
            }
            kind::ACCEPTED => Event::Accepted { at, id, task: self.task(read(tail)?)? },
            kind::FAILED_CALL => Event::FailedCall(self.failed_call(head, read(tail)?)?),
            kind::HELD => Event::Holder(self.holder(head, id, read(tail)?)?),
            _ => return None,
        })
    }

    fn failed_call(&self, head: &Head, task: &TaskTail) -> Option<FailedCall> {
        Some(FailedCall {
            at: head.boot_ns,
            call: match head.old {
                call::BIND => Call::Bind,
                call::LISTEN => Call::Listen,
                call::ACCEPT => Call::Accept,
                _ => return None,
            },
            errno: head.new.into(),
            task: self.task(task)?,
            fd: head.extra,
            netns: known(head.netns),
            address: (head.flags & flag::BARE == 0).then(|| (Ipv6Addr::from(head.local_addr), head.local_port)),
        })
    }

    fn holder(&self, head: &Head, id: Id, holder: &HolderTail) -> Option<Holder> {
        let found = Found {
            at: head.boot_ns,
            id,
            tuple: tuple(head),
            netns: known(head.netns),
            uid: Some(head.extra),
            cgroup: known(holder.cgroup),
            interface: 0,
            state: State::from_kernel(head.old)?,
            kept: Kept::Held,
        };
        Some(Holder { found, task: self.task(&holder.task)?, fd: holder.fd })
    }

    pub(super) fn id(&self, head: &Head) -> Id {
        if head.flags & flag::ID_IS_ADDRESS != 0 { Id::Address(self.scramble(head.id)) } else { Id::Cookie(head.id) }
    }

    pub(super) fn scramble(&self, address: u64) -> u64 {
        self.scrambler.hash_one(address)
    }

    /// Whether a socket shares its address and port.
    pub(super) fn reuse(&self, byte: u8) -> Option<Reuse> {
        self.reuse.map(|bits| Reuse { address: byte & bits.address != 0, port: byte & bits.port != 0 })
    }

    /// `None` where nothing of it is known.
    pub(super) fn idle(&self, idle: &IdleTail) -> Option<Idle> {
        let ms = |ticks: u32| {
            let ns =
                (ticks != UNKNOWN_TICKS && self.tick_ns != 0).then(|| u64::from(ticks).saturating_mul(self.tick_ns));
            ns.map(|ns| u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX))
        };
        let idle = Idle { acked_ms: ms(idle.acked), received_ms: ms(idle.received), sent_ms: ms(idle.sent) };
        (idle != Idle::default()).then_some(idle)
    }

    fn mini(&self, head: &Head, id: Id, what: MiniEvent) -> Option<Mini> {
        let tick_ns = i64::try_from(self.tick_ns).ok()?;
        Some(Mini {
            at: head.boot_ns,
            id,
            tuple: tuple(head),
            netns: known(head.netns),
            substate: State::from_kernel(head.old)?,
            due_ns: i64::from(head.extra.cast_signed()).saturating_mul(tick_ns),
            what,
        })
    }

    pub(super) fn end_facts(&self, head: &Head, end: &EndTail) -> EndFacts {
        let has = |bit| end.flags & bit != 0;
        // The kernel counts the peer's FIN as a byte (`tcp_rcv_nxt_update`), but nobody sent that byte.
        let fin = u64::from(head.flags & flag::DONE != 0);
        EndFacts {
            totals: Totals {
                bytes_sent: end.bytes_sent,
                bytes_received: end.bytes_received.saturating_sub(fin),
                bytes_unread: end.unread,
                retransmits: end.retransmits,
                srtt_us: (end.srtt_us_8 != 0).then_some(end.srtt_us_8 / 8),
                ..Totals::default()
            },
            err: end.err,
            keepalive: has(end_flag::KEEPALIVE),
            linger0: has(end_flag::LINGER0),
            linger2_negative: has(end_flag::LINGER2_NEGATIVE),
            all_acked: has(end_flag::ALL_ACKED),
            in_flight: has(end_flag::IN_FLIGHT),
            user_timeout: has(end_flag::USER_TIMEOUT),
            retransmits: end.in_flight_retransmits,
            probes: end.probes_out,
            mini: match State::from_kernel(end.mini) {
                Some(substate) => Birth::Made { substate, due_ns: u64::from(end.mini_ticks) * self.tick_ns },
                None if self.minis_watched => Birth::None,
                None => Birth::NotWatched,
            },
        }
    }

    fn cancelled(&self, cancel: &CancelTail) -> MiniEvent {
        match self.symbols.cancelled_by(&cancel.stack) {
            Cancelled::Rearmed => MiniEvent::Rearmed,
            Cancelled::Killed(by) => {
                if by == KilledBy::Unknown {
                    log::debug!("a mini-socket's timer was cancelled from {:x?}", cancel.stack);
                }
                MiniEvent::Killed(by)
            }
        }
    }

    fn reset_reason(&self, number: u32) -> ResetReason {
        usize::try_from(number).ok().and_then(|number| self.reset_reasons.get(number)).copied().unwrap_or_default()
    }
}

pub(super) fn warn_of(record: &[u8]) {
    log::warn!("skipping a {}-byte record of unknown kind (do the eBPF object and tcptrace match?)", record.len());
}

pub(super) fn tuple(head: &Head) -> Tuple {
    Tuple {
        local_ip: Ipv6Addr::from(head.local_addr),
        remote_ip: Ipv6Addr::from(head.remote_addr),
        local_port: head.local_port,
        remote_port: head.remote_port,
    }
}

/// Whether a socket is shut down in both directions; `None` where the hook shows no facts.
fn both_shut(flags: u8) -> Option<bool> {
    const BOTH: u8 = flag::RCV_SHUTDOWN | flag::SEND_SHUTDOWN;
    (flags & flag::BARE == 0).then_some(flags & BOTH == BOTH)
}

/// Only link-local addresses need the interface that a socket is bound to.
pub(super) fn interface(head: &Head, index: u32) -> u32 {
    if tuple(head).is_link_local() { index } else { 0 }
}

pub(super) fn flags(head: &Head) -> Flags {
    let has = |bit| head.flags & bit != 0;
    Flags {
        dead: has(flag::DEAD),
        done: has(flag::DONE),
        has_socket: has(flag::HAS_SOCKET),
        rcv_shutdown: has(flag::RCV_SHUTDOWN),
        send_shutdown: has(flag::SEND_SHUTDOWN),
        has_sent: (head.old == state::SYN_SENT).then_some(!has(flag::SILENT)),
        reuse: None,
    }
}

/// A number, where 0 means unknown.
pub(super) fn known<T: PartialEq + Default>(number: T) -> Option<T> {
    (number != T::default()).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn decoder() -> Decoder {
        Decoder {
            tick_ns: 4_000_000,
            minis_watched: true,
            reuse: Some(ReuseBits { address: 0b1111, port: 0b1_0000 }),
            own_pid: 77,
            symbols: Symbols::default(),
            reset_reasons: vec![ResetReason::Other, ResetReason::AbortOnData],
            scrambler: RandomState::new(),
        }
    }

    proptest! {
        #[test]
        fn no_record_makes_it_panic(record in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u8..20) {
            let mut record = record;
            if let Some(byte) = record.get_mut(std::mem::offset_of!(Head, kind)) {
                *byte = kind;
            }
            decoder().decode(&record);
        }
    }

    #[test]
    fn addresses_do_not_get_out() {
        let address = 0xffff_8880_1234_5600;
        assert_ne!(decoder().scramble(address), address);
    }

    #[rstest]
    #[case::all([50, 25, 0], Some([Some(200), Some(100), Some(0)]))]
    #[case::never_sent([50, UNKNOWN_TICKS, 0], Some([Some(200), None, Some(0)]))]
    #[case::longest([UNKNOWN_TICKS - 1, 1, 1], Some([Some(u32::MAX), Some(4), Some(4)]))]
    #[case::never_established([UNKNOWN_TICKS; 3], None)]
    fn ticks_are_told_in_ms(#[case] ticks: [u32; 3], #[case] expected: Option<[Option<u32>; 3]>) {
        let [received, sent, acked] = ticks;
        let idle = decoder().idle(&IdleTail { received, sent, acked, padding: 0 });
        assert_eq!(idle.map(|idle| [idle.received_ms, idle.sent_ms, idle.acked_ms]), expected);
    }

    #[rstest]
    #[case::somebody(5, Some(5))]
    #[case::the_kernel(0, None)]
    #[case::ourselves(77, None)]
    fn who_acts(#[case] pid: u32, #[case] expected: Option<u32>) {
        let task = decoder().task(&TaskTail { pid, tid: pid, comm: [b'x'; 16] });
        assert_eq!(task.map(|task| task.pid), expected);
    }
}
