//! From the bytes of a record to an [`Event`].

mod record;

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;

use tcptrace_common::{
    CancelTail, EndTail, Head, HolderTail, IdleTail, TaskTail, UNKNOWN_TICKS, call, end_flag, flag, kind, state,
};
use zerocopy::FromBytes;

use self::record::read;
pub use self::record::{Batch, Record, Told};
use super::layout::ReuseBits;
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
    /// Our own process id, in the initial pid namespace, and that of the other process that is tcptrace; 0 without one.
    pub(super) own_pids: [u32; 2],
    /// Scrambles addresses, which are the kernel's secret.
    pub(super) scrambler: RandomState,
}

impl Decoder {
    /// A process; `None` for kernel threads and for tcptrace itself. During a scan, tcptrace holds each file for a
    /// moment, and closes it if its process lets go just then.
    fn task(&self, tail: &TaskTail) -> Option<Task> {
        let is_somebody = tail.pid != 0 && !self.own_pids.contains(&tail.pid);
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
            kind::MINI_EXTENDED => Event::Mini(self.mini(head, id, MiniEvent::Rearmed)?),
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

    fn id(&self, head: &Head) -> Id {
        if head.flags & flag::ID_IS_ADDRESS != 0 { Id::Address(self.scramble(head.id)) } else { Id::Cookie(head.id) }
    }

    fn scramble(&self, address: u64) -> u64 {
        self.scrambler.hash_one(address)
    }

    /// Whether a socket shares its address and port.
    fn reuse(&self, byte: u8) -> Option<Reuse> {
        self.reuse.map(|bits| Reuse { address: byte & bits.address != 0, port: byte & bits.port != 0 })
    }

    /// `None` where nothing of it is known.
    fn idle(&self, idle: &IdleTail) -> Option<Idle> {
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

    fn end_facts(&self, head: &Head, end: &EndTail) -> EndFacts {
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

fn tuple(head: &Head) -> Tuple {
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
fn interface(head: &Head, index: u32) -> u32 {
    if tuple(head).is_link_local() { index } else { 0 }
}

fn flags(head: &Head) -> Flags {
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
fn known<T: PartialEq + Default>(number: T) -> Option<T> {
    (number != T::default()).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rstest::rstest;
    use tcptrace_common::{ChildTail, ClosedChildTail, ClosedTail, EndedChildTail, IdleTaskTail, OpenTail};
    use zerocopy::{Immutable, IntoBytes};

    use super::*;
    use crate::model::event::Change;
    use crate::model::stream::Item;
    use crate::trace::Encoder;

    fn decoder() -> Decoder {
        Decoder {
            tick_ns: 4_000_000,
            minis_watched: true,
            reuse: Some(ReuseBits { address: 0b1111, port: 0b1_0000 }),
            own_pids: [77, 78],
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

    proptest! {
        /// A change that is read in place gets into a trace as the event does that would have been made of it.
        #[test]
        fn both_ways_into_a_trace_agree(
            records in prop::collection::vec((prop::collection::vec(any::<u8>(), 150..300), 1..20_u8, [0..13_u8, 0..13_u8]), 1..9),
        ) {
            let decoder = Arc::new(decoder());
            let mut batch = Batch::new(Arc::clone(&decoder));
            let [mut of_events, mut of_parts] = [(), ()].map(|()| Encoder::new([7; 16]).expect("memory"));
            for (record, kind, [old, new]) in records {
                let mut words = vec![0_u64; record.len() / 8];
                let bytes = words.as_mut_bytes();
                bytes.copy_from_slice(&record[..bytes.len()]);
                (bytes[60], bytes[61], bytes[62]) = (kind, old, new);
                batch.push(bytes);
                if let Some(event) = decoder.decode(bytes) {
                    of_events.push(&Item::Event(event)).expect("it fits");
                }
            }
            for told in batch.records() {
                match told {
                    Told::Change(change) => of_parts.push_change(&change).expect("it fits"),
                    Told::Other(event) => of_parts.push(&Item::Event(event)).expect("it fits"),
                }
            }
            prop_assert_eq!(of_parts.finish(0).expect("it is packed"), of_events.finish(0).expect("it is packed"));
        }
    }

    const TASK: TaskTail = TaskTail { pid: 5, tid: 6, comm: [b'x'; 16] };
    const IDLE: IdleTail = IdleTail { received: 50, sent: UNKNOWN_TICKS, acked: 0, padding: 0 };

    /// The change that a record of these parts tells.
    fn told(kind: u8, tail: &(impl IntoBytes + Immutable)) -> Change {
        let [local_addr, remote_addr] = [1, 2].map(|last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last).octets());
        let head = Head {
            boot_ns: 9,
            id: 8,
            local_addr,
            remote_addr,
            local_port: 1,
            remote_port: 2,
            netns: 3,
            extra: 4,
            kind,
            old: state::ESTABLISHED,
            new: state::CLOSED,
            flags: flag::DONE,
        };
        let mut words = [0_u64; 40];
        let bytes = words.as_mut_bytes();
        bytes[..64].copy_from_slice(head.as_bytes());
        bytes[64..][..tail.as_bytes().len()].copy_from_slice(tail.as_bytes());
        match decoder().decode(bytes) {
            Some(Event::Change(change)) => change,
            other => unreachable!("{other:?}"),
        }
    }

    fn plain() -> Change {
        let [local_ip, remote_ip] = [1, 2].map(|last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last));
        Change {
            at: 9,
            id: Id::Cookie(8),
            address: None,
            tuple: Tuple { local_ip, remote_ip, local_port: 1, remote_port: 2 },
            netns: Some(3),
            uid: Some(4),
            cgroup: None,
            interface: 0,
            old: State::Established,
            new: State::Closed,
            flags: Some(Flags { done: true, ..Flags::default() }),
            idle: None,
            task: None,
            end: None,
        }
    }

    #[test]
    fn every_kind_of_change_has_its_parts() {
        let task = Some(Task { pid: 5, tid: 6, comm: Comm([b'x'; 16]) });
        let idle = Some(Idle { acked_ms: Some(0), received_ms: Some(200), sent_ms: None });
        let reuse = |byte: u8| Some(Flags { reuse: decoder().reuse(byte), ..plain().flags.unwrap_or_default() });
        assert_eq!(told(kind::STATE, &[0_u8; 0]), plain());
        assert_eq!(told(kind::STATE_TASK, &TASK), Change { task, ..plain() });
        assert_eq!(told(kind::STATE_IDLE, &IDLE), Change { idle, ..plain() });
        assert_eq!(
            told(kind::STATE_IDLE_TASK, &IdleTaskTail { task: TASK, idle: IDLE }),
            Change { idle, task, ..plain() }
        );
        let open = OpenTail { task: TASK, cgroup: 7, interface: 6, reuse: 0b1_0000, padding: [0; 3] };
        let flags = reuse(0b1_0000);
        assert_eq!(told(kind::STATE_OPEN, &open), Change { task, cgroup: Some(7), interface: 6, flags, ..plain() });
        let child = ChildTail { address: 5, cgroup: 7, interface: 6, padding: 0 };
        let seen = told(kind::STATE_CHILD, &child);
        let address = seen.address;
        assert_eq!(seen, Change { cgroup: Some(7), interface: 6, address, ..plain() });
        assert!(address.is_some_and(|address| address != 5), "it is scrambled");
        let seen = told(kind::STATE_CHILD_CLOSED, &ClosedChildTail { child, task: TASK });
        assert_eq!(seen, Change { cgroup: Some(7), interface: 6, address: seen.address, task, ..plain() });
        assert!(seen.address.is_some());
        let end = EndTail {
            task: TASK,
            bytes_sent: 1,
            bytes_received: 3,
            retransmits: 4,
            srtt_us_8: 40,
            unread: 5,
            mini_ticks: 15,
            err: 6,
            flags: end_flag::KEEPALIVE,
            mini: state::TIME_WAIT,
            in_flight_retransmits: 7,
            probes_out: 8,
            reuse: 1,
            padding: 0,
        };
        let totals = Totals {
            bytes_sent: 1,
            bytes_received: 2,
            bytes_unread: 5,
            retransmits: 4,
            srtt_us: Some(5),
            ..Totals::default()
        };
        let mini = Birth::Made { substate: State::TimeWait, due_ns: 60_000_000 };
        let end_facts =
            EndFacts { totals, err: 6, keepalive: true, retransmits: 7, probes: 8, mini, ..EndFacts::default() };
        let flags = reuse(1);
        assert_eq!(
            told(kind::STATE_END, &ClosedTail { end, idle: IDLE }),
            Change { task, idle, flags, end: Some(end_facts), ..plain() }
        );
        let seen = told(kind::STATE_CHILD_END, &EndedChildTail { end, address: child.address, unused: 0 });
        assert_eq!(seen, Change { task, flags, end: Some(end_facts), address: seen.address, ..plain() });
        assert!(seen.address.is_some());
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
    #[case::our_other_process(78, None)]
    fn who_acts(#[case] pid: u32, #[case] expected: Option<u32>) {
        let task = decoder().task(&TaskTail { pid, tid: pid, comm: [b'x'; 16] });
        assert_eq!(task.map(|task| task.pid), expected);
    }
}
