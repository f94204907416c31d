//! The bodies of records. Their order and types are the format: only append to a body, and never change an existing
//! field.

use std::num::NonZeroU32;

use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};

use crate::model::event::{self, Call, Cause, EndFacts, Flags, KilledBy, MiniEvent, ResetReason, Reuse, Timer};
use crate::model::tcp::State;

/// Maps variants to numbers and back.
macro_rules! numbers {
    ($to:ident, $from:ident, $type:ty, $($value:pat_param => $number:literal = $make:expr),* $(,)?) => {
        pub(super) fn $to(value: $type) -> u8 {
            match value { $($value => $number,)* }
        }
        pub(super) fn $from(number: u8) -> Option<$type> {
            Some(match number { $($number => $make,)* _ => return None })
        }
    };
}

/// The unread rest of a body. The most frequent records are read number by number, which is faster than serde. Both
/// ways read the same bytes and reject the same errors.
pub(super) struct Body<'r>(pub(super) &'r [u8]);

impl Body<'_> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        u16::try_from(self.number(u16::BITS)?).ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(u32::BITS)?).ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.number(u64::BITS)
    }

    /// Zigzag: the sign is the lowest bit.
    fn i64(&mut self) -> Option<i64> {
        let zigzag = self.u64()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// Seven bits a byte, the lowest ones first; the highest bit of a byte says that more bytes follow.
    fn number(&mut self, bits: u32) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        while shift < bits {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            number |= part << shift;
            if byte < 0x80 {
                let room = bits - shift;
                return (room >= 7 || part >> room == 0).then_some(number);
            }
            shift += 7;
        }
        None
    }
}

/// Kinds of records.
pub(super) mod kind {
    /// Not a record: zeros are damage.
    pub(in super::super) const NONE: u8 = 0;
    pub(in super::super) const HEAD: u8 = 1;
    pub(in super::super) const CLOCKS: u8 = 2;
    pub(in super::super) const NAMESPACE: u8 = 3;
    pub(in super::super) const GROUP: u8 = 4;
    pub(in super::super) const LOSSES: u8 = 5;
    /// Describes a socket, or changes its description.
    pub(in super::super) const SOCKET: u8 = 6;
    /// Describes a thread.
    pub(in super::super) const TASK: u8 = 7;
    pub(in super::super) const STARTED: u8 = 8;
    pub(in super::super) const CHANGE: u8 = 9;
    pub(in super::super) const CHANGE_WITH_ADDRESS: u8 = 10;
    pub(in super::super) const CLOSING: u8 = 11;
    pub(in super::super) const DESTROYED: u8 = 12;
    pub(in super::super) const ACCEPTED: u8 = 13;
    pub(in super::super) const RESET_SENT: u8 = 14;
    pub(in super::super) const RESET_RECEIVED: u8 = 15;
    pub(in super::super) const MINI: u8 = 16;
    pub(in super::super) const FOUND: u8 = 17;
    pub(in super::super) const HOLDER: u8 = 18;
    pub(in super::super) const SURVEY_BEGUN: u8 = 19;
    pub(in super::super) const SURVEYED: u8 = 20;
    pub(in super::super) const SURVEY_ENDED: u8 = 21;
    pub(in super::super) const SCAN_BEGUN: u8 = 22;
    pub(in super::super) const SCAN_ENDED: u8 = 23;
    /// The cause follows the mark, except in the first traces.
    pub(in super::super) const LOST: u8 = 24;
    pub(in super::super) const SUSPENDED: u8 = 25;
    pub(in super::super) const PASSED: u8 = 26;
    pub(in super::super) const AUDIT: u8 = 27;
    pub(in super::super) const SETTINGS: u8 = 28;
    pub(in super::super) const ACCEPT_QUEUES: u8 = 29;
    pub(in super::super) const LIMITS: u8 = 30;
    pub(in super::super) const COUNTERS: u8 = 31;
    pub(in super::super) const FAILED_CALL: u8 = 32;
    pub(in super::super) const ENDED: u8 = 33;
    /// Without a body.
    pub(in super::super) const NAMES_ANEW: u8 = 34;
    pub(in super::super) const BYPASSING: u8 = 40;
    pub(in super::super) const FLOW: u8 = 41;
    pub(in super::super) const PROCESS: u8 = 42;
    pub(in super::super) const INTERFACE: u8 = 43;
    pub(in super::super) const SUBFLOW: u8 = 44;
    pub(in super::super) const INSPECTED: u8 = 45;
    /// Events, and where records come between them (see [`columns`](super::super::columns)).
    pub(in super::super) const COLUMNS: u8 = 46;
    pub(in super::super) const ACCEPTS_WATCHED: u8 = 56;
    /// The id of a control group, then JSON.
    pub(in super::super) const CONTAINER: u8 = 60;
    /// Why a flight recorder has written a file by itself: JSON.
    pub(in super::super) const FIRED: u8 = 61;

    /// Whether a record of this kind yields an item: it is known, and does more than describe what follows.
    pub(in super::super) fn yields_item(kind: u8) -> bool {
        matches!(
            kind,
            HEAD..=LOSSES
                | STARTED..=FAILED_CALL
                | ENDED
                | NAMES_ANEW
                | BYPASSING..=INSPECTED
                | ACCEPTS_WATCHED
                | CONTAINER
                | FIRED
        )
    }
}

/// Later records refer to a socket by `index`. A known index replaces its socket; the next number adds one.
#[derive(Serialize, Deserialize)]
pub(super) struct Socket {
    pub(super) index: u32,
    /// Difference from the id of the previous one.
    pub(super) id: i64,
    pub(super) ports: [u16; 2],
    /// Bits of [`socket_bit`].
    pub(super) bits: u8,
    pub(super) netns: u32,
    pub(super) uid: u32,
    pub(super) cgroup: u64,
    // Its addresses follow: 4 bytes each, or 16; then the index of its interface, if known.
}

/// Bits of [`Socket`].
pub(super) mod socket_bit {
    pub(in super::super) const IPV6: u8 = 1;
    pub(in super::super) const IS_ADDRESS: u8 = 2;
}

#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) index: u32,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) comm: [u8; 16],
}

/// `task` is its index plus 1, or 0 for no task. `states` is the old state plus sixteen times the new one.
#[derive(Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) states: u8,
    /// Bits of [`bit`].
    pub(super) bits: u16,
    pub(super) task: u32,
}

impl Change {
    pub(super) fn read(body: &mut Body<'_>) -> Option<Self> {
        let (after, socket) = (body.i64()?, body.u32()?);
        Some(Self { after, socket, states: body.u8()?, bits: body.u16()?, task: body.u32()? })
    }
}

/// How long data had not moved, at the end of a change: traces of before have none, nor have changes that do not show it. A
/// byte that says which times are known (1: acked, 2: received, 4: sent) and which of them are not 0 (8, 16, 32), and
/// these.
pub(super) struct IdleAtEnd(pub(super) Option<event::Idle>);

impl Serialize for IdleAtEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(event::Idle { acked_ms, received_ms, sent_ms }) = self.0 else { return serializer.serialize_unit() };
        let all = [acked_ms, received_ms, sent_ms];
        let bits = all.iter().enumerate().fold(0_u8, |bits, (place, ms)| {
            bits | u8::from(ms.is_some()) << place | u8::from(ms.is_some_and(|ms| ms != 0)) << (place + 3)
        });
        let mut tuple = serializer.serialize_tuple(1 + (bits >> 3).count_ones() as usize)?;
        tuple.serialize_element(&bits)?;
        for ms in all.into_iter().flatten().filter(|ms| *ms != 0) {
            tuple.serialize_element(&ms)?;
        }
        tuple.end()
    }
}

impl IdleAtEnd {
    pub(super) fn read(body: &mut Body<'_>) -> Option<Self> {
        if body.0.is_empty() {
            return Some(Self(None));
        }
        let bits = body.u8()?;
        let mut next = |place: u8| {
            let is = |bit: u8| bits & bit << place != 0;
            let ms = if is(8) { body.u32()? } else { 0 };
            Some(is(1).then_some(ms))
        };
        Some(Self(Some(event::Idle { acked_ms: next(0)?, received_ms: next(1)?, sent_ms: next(2)? })))
    }
}

/// Which facts about its socket an event has, and the flags of the socket.
pub(super) mod bit {
    pub(in super::super) const NETNS: u16 = 1;
    pub(in super::super) const UID: u16 = 2;
    pub(in super::super) const CGROUP: u16 = 4;
    pub(in super::super) const FLAGS: u16 = 8;
    pub(in super::super) const DEAD: u16 = 16;
    pub(in super::super) const DONE: u16 = 32;
    pub(in super::super) const HAS_SOCKET: u16 = 64;
    pub(in super::super) const RCV_SHUTDOWN: u16 = 128;
    pub(in super::super) const SEND_SHUTDOWN: u16 = 256;
    /// Whether the socket has sent anything is known.
    pub(in super::super) const KNOWS_SENT: u16 = 512;
    pub(in super::super) const HAS_SENT: u16 = 1024;
    pub(in super::super) const INTERFACE: u16 = 2048;
    /// With whom it shares its address and port is known.
    pub(in super::super) const KNOWS_REUSE: u16 = 4096;
    pub(in super::super) const REUSES_ADDRESS: u16 = 8192;
    pub(in super::super) const REUSES_PORT: u16 = 16384;
}

#[derive(Serialize, Deserialize)]
pub(super) struct End {
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_unread: u32,
    pub(super) all_retransmits: u32,
    pub(super) srtt_us: Option<u32>,
    pub(super) err: u16,
    /// Bits of [`end_bit`].
    pub(super) bits: u8,
    pub(super) retransmits: u8,
    pub(super) probes: u8,
    /// 0: not looked up, 1: none, else the state plus 16.
    pub(super) mini: u8,
    pub(super) due_ns: u64,
}

/// Bits of [`End`].
pub(super) mod end_bit {
    pub(in super::super) const KEEPALIVE: u8 = 1;
    pub(in super::super) const LINGER0: u8 = 2;
    pub(in super::super) const LINGER2_NEGATIVE: u8 = 4;
    pub(in super::super) const ALL_ACKED: u8 = 8;
    pub(in super::super) const IN_FLIGHT: u8 = 16;
    pub(in super::super) const USER_TIMEOUT: u8 = 32;
}

/// An event about a socket, a task, and a number whose meaning depends on the kind, such as a reason. Earlier versions
/// recorded the task that destroyed a socket, and the descriptor of an accepted socket.
#[derive(Serialize, Deserialize)]
pub(super) struct Act {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) task: u32,
    pub(super) number: u32,
}

impl Act {
    pub(super) fn read(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { after: body.i64()?, socket: body.u32()?, task: body.u32()?, number: body.u32()? })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Mini {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) substate: u8,
    /// Bits of [`bit`].
    pub(super) bits: u16,
    pub(super) due_ns: i64,
    pub(super) what: u8,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) state: u8,
    /// Bits of [`bit`].
    pub(super) bits: u16,
    /// 0: held by a process, 1: in an accept queue, 2: orphan, 3: mini-socket.
    pub(super) kept: u8,
    pub(super) due_ns: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) found: Found,
    pub(super) task: u32,
    pub(super) fd: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) acked: u64,
    pub(super) received: u64,
    pub(super) unacked: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Subflow {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) token: Option<NonZeroU32>,
    pub(super) state: Option<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Inspected {
    pub(super) after: i64,
    pub(super) socket: u32,
    pub(super) recv_queue: u32,
    pub(super) send_queue: u32,
    pub(super) timer: u8,
    pub(super) timer_left_ns: u64,
    pub(super) retransmits: u8,
    pub(super) idle: Option<Idle>,
    pub(super) timestamps: Option<bool>,
    pub(super) bind_no_port: Option<bool>,
    pub(super) bound: Option<Bound>,
}

/// [`event::Bound`] as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Bound {
    pub(super) ip: [u8; 16],
    pub(super) port: u16,
    pub(super) netns: Option<u32>,
}

impl From<event::Bound> for Bound {
    fn from(event::Bound { ip, port, netns }: event::Bound) -> Self {
        Self { ip: ip.octets(), port, netns }
    }
}

impl From<Bound> for event::Bound {
    fn from(Bound { ip, port, netns }: Bound) -> Self {
        Self { ip: ip.into(), port, netns }
    }
}

/// [`event::Idle`] as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Idle {
    pub(super) acked_ms: Option<u32>,
    pub(super) received_ms: Option<u32>,
    pub(super) sent_ms: Option<u32>,
}

impl From<event::Idle> for Idle {
    fn from(event::Idle { acked_ms, received_ms, sent_ms }: event::Idle) -> Self {
        Self { acked_ms, received_ms, sent_ms }
    }
}

impl From<Idle> for event::Idle {
    fn from(Idle { acked_ms, received_ms, sent_ms }: Idle) -> Self {
        Self { acked_ms, received_ms, sent_ms }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct FailedCall {
    pub(super) after: i64,
    pub(super) call: u8,
    pub(super) errno: u16,
    pub(super) task: u32,
    pub(super) fd: u32,
    pub(super) netns: Option<u32>,
    pub(super) address: Option<([u8; 16], u16)>,
}

/// An event without a socket, and a number whose meaning depends on the kind.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) after: i64,
    pub(super) number: u64,
}

/// Whether a socket was shut down when it was destroyed, as the number of [`Act`]; earlier traces have 0.
pub(in super::super) fn shut_to(shut: Option<bool>) -> u32 {
    match shut {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

pub(in super::super) fn shut_from(number: u32) -> Option<bool> {
    match number {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}

numbers!(state_to, state_from, State,
    State::Closed => 0 = State::Closed,
    State::Listen => 1 = State::Listen,
    State::SynSent => 2 = State::SynSent,
    State::SynRecv => 3 = State::SynRecv,
    State::Established => 4 = State::Established,
    State::FinWait1 => 5 = State::FinWait1,
    State::FinWait2 => 6 = State::FinWait2,
    State::CloseWait => 7 = State::CloseWait,
    State::Closing => 8 = State::Closing,
    State::LastAck => 9 = State::LastAck,
    State::TimeWait => 10 = State::TimeWait,
);

numbers!(reason_to, reason_from, ResetReason,
    ResetReason::Other => 0 = ResetReason::Other,
    ResetReason::AbortOnData => 1 = ResetReason::AbortOnData,
    ResetReason::AbortOnClose => 2 = ResetReason::AbortOnClose,
    ResetReason::AbortOnLinger => 3 = ResetReason::AbortOnLinger,
    ResetReason::AbortOnMemory => 4 = ResetReason::AbortOnMemory,
    ResetReason::KeepaliveTimeout => 5 = ResetReason::KeepaliveTimeout,
    ResetReason::State => 6 = ResetReason::State,
);

numbers!(cause_to, cause_from, Cause,
    Cause::Unknown => 0 = Cause::Unknown,
    Cause::RingFull => 1 = Cause::RingFull,
    Cause::OutputSlow => 2 = Cause::OutputSlow,
    Cause::Recursion => 3 = Cause::Recursion,
    Cause::Disk => 4 = Cause::Disk,
    Cause::Damage => 5 = Cause::Damage,
    Cause::Evicted => 6 = Cause::Evicted,
    Cause::Unreported => 7 = Cause::Unreported,
    Cause::Unaccounted => 8 = Cause::Unaccounted,
    Cause::FilterFull => 9 = Cause::FilterFull,
);

numbers!(timer_to, timer_from, Timer,
    Timer::None => 0 = Timer::None,
    Timer::Retransmit => 1 = Timer::Retransmit,
    Timer::Keepalive => 2 = Timer::Keepalive,
    Timer::TimeWait => 3 = Timer::TimeWait,
    Timer::Probe => 4 = Timer::Probe,
);

numbers!(call_to, call_from, Call,
    Call::Bind => 0 = Call::Bind,
    Call::Listen => 1 = Call::Listen,
    Call::Accept => 2 = Call::Accept,
);

numbers!(mini_to, mini_from, MiniEvent,
    MiniEvent::Expired => 0 = MiniEvent::Expired,
    MiniEvent::Fin => 1 = MiniEvent::Fin,
    MiniEvent::Rearmed => 2 = MiniEvent::Rearmed,
    MiniEvent::Killed(KilledBy::Connect) => 3 = MiniEvent::Killed(KilledBy::Connect),
    MiniEvent::Killed(KilledBy::Segment) => 4 = MiniEvent::Killed(KilledBy::Segment),
    MiniEvent::Killed(KilledBy::Reset) => 5 = MiniEvent::Killed(KilledBy::Reset),
    MiniEvent::Killed(KilledBy::Admin) => 6 = MiniEvent::Killed(KilledBy::Admin),
    MiniEvent::Killed(KilledBy::Netns) => 7 = MiniEvent::Killed(KilledBy::Netns),
    MiniEvent::Killed(KilledBy::Unknown) => 8 = MiniEvent::Killed(KilledBy::Unknown),
);

pub(super) fn flag_bits(flags: Option<Flags>) -> u16 {
    let Some(flags) = flags else { return 0 };
    let all = [
        (flags.dead, bit::DEAD),
        (flags.done, bit::DONE),
        (flags.has_socket, bit::HAS_SOCKET),
        (flags.rcv_shutdown, bit::RCV_SHUTDOWN),
        (flags.send_shutdown, bit::SEND_SHUTDOWN),
        (flags.has_sent.is_some(), bit::KNOWS_SENT),
        (flags.has_sent == Some(true), bit::HAS_SENT),
        (flags.reuse.is_some(), bit::KNOWS_REUSE),
        (flags.reuse.is_some_and(|reuse| reuse.address), bit::REUSES_ADDRESS),
        (flags.reuse.is_some_and(|reuse| reuse.port), bit::REUSES_PORT),
    ];
    all.into_iter().filter(|(is_set, _)| *is_set).fold(bit::FLAGS, |bits, (_, bit)| bits | bit)
}

pub(super) fn flags(bits: u16) -> Option<Flags> {
    let has = |bit| bits & bit != 0;
    has(bit::FLAGS).then(|| Flags {
        dead: has(bit::DEAD),
        done: has(bit::DONE),
        has_socket: has(bit::HAS_SOCKET),
        rcv_shutdown: has(bit::RCV_SHUTDOWN),
        send_shutdown: has(bit::SEND_SHUTDOWN),
        has_sent: has(bit::KNOWS_SENT).then_some(has(bit::HAS_SENT)),
        reuse: has(bit::KNOWS_REUSE).then(|| Reuse { address: has(bit::REUSES_ADDRESS), port: has(bit::REUSES_PORT) }),
    })
}

pub(super) fn end_bits(end: &EndFacts) -> u8 {
    let all = [
        (end.keepalive, end_bit::KEEPALIVE),
        (end.linger0, end_bit::LINGER0),
        (end.linger2_negative, end_bit::LINGER2_NEGATIVE),
        (end.all_acked, end_bit::ALL_ACKED),
        (end.in_flight, end_bit::IN_FLIGHT),
        (end.user_timeout, end_bit::USER_TIMEOUT),
    ];
    all.into_iter().filter(|(is_set, _)| *is_set).fold(0, |bits, (_, bit)| bits | bit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that often form numbers of many bytes.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), 0x80..=0xff_u8, Just(0xff), 0..4_u8];
        proptest::collection::vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn it_is_read_as_postcard_would(bytes in bytes()) {
            let expected = postcard::take_from_bytes::<Change>(&bytes).ok();
            let mut body = Body(&bytes);
            let read = Change::read(&mut body);
            let numbers = |it: &Change| (it.after, it.socket, it.states, it.bits, it.task);
            prop_assert_eq!(read.as_ref().map(numbers), expected.as_ref().map(|(it, _)| numbers(it)));
            if let Some((_, rest)) = expected {
                prop_assert_eq!(body.0, rest);
            }
            let expected = postcard::take_from_bytes::<Act>(&bytes).ok();
            let numbers = |it: &Act| (it.after, it.socket, it.task, it.number);
            let read = Act::read(&mut Body(&bytes));
            prop_assert_eq!(read.as_ref().map(numbers), expected.as_ref().map(|(it, _)| numbers(it)));
        }
    }
}
