//! The rules: how a connection ended, who closed it, and which transitions say something about the current task.
//!
//! They follow the kernel's own order of events (`net/ipv4/tcp.c`, `tcp_input.c`, `tcp_timer.c`, `tcp_minisocks.c`;
//! 5.8 to 6.19): `sk_err` is set before the state changes wherever a reset, a timeout or a kill ends a connection,
//! and is 0 where the process or the FIN exchange did.

use crate::model::event::{Birth, Change, EndFacts, Flags, KilledBy, ResetReason};
use crate::model::row::Ending;
use crate::model::tcp::{Closer, End, State, TimeWaitEnd};

const EPIPE: u16 = 32;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;

/// What the closing of a full socket means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// The connection has ended.
    Ended(Ending),
    /// A mini-socket carries on.
    Mini {
        /// `FIN_WAIT2` or `TIME_WAIT`.
        substate: State,
        /// Time until its timer is due, in ns.
        due_ns: u64,
    },
    /// It depends on whether a reset is sent right after.
    AwaitReset(Alternatives),
}

/// The possible ends, depending on the reset that may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alternatives {
    /// If a reset is sent.
    with_reset: End,
    /// Only a reset for this very reason counts, or one for which the kernel gives no reason (before 6.10).
    only_for: Option<ResetReason>,
    /// If none is sent.
    without: Ending,
    /// A process closes it: the reset is sent before the socket is destroyed.
    by_process: bool,
    /// It may have been shut down in both directions before: then a disconnect looks like a close.
    or_disconnect: Option<Doubt>,
}

/// Why a close would have sent its reset, where it may have been a disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    UnreadData,
    Linger0,
}

/// The fate of a socket that a process had closed or disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was destroyed, and may have been shut down in both directions then.
    Destroyed {
        shut: Option<bool>,
    },
    /// It was not destroyed, for longer than a close takes.
    Kept,
    Unknown,
}

/// Whether a reset was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetSent {
    Yes(ResetReason),
    /// It would have been seen.
    No,
    /// It may have gone unseen.
    Unknown,
}

impl Alternatives {
    /// The ending, once it is known whether a reset was sent.
    pub(super) fn resolve(self, reset: ResetSent) -> Ending {
        match (reset, self.only_for) {
            (ResetSent::Yes(_), None) => self.with_reset.into(),
            (ResetSent::Yes(sent), Some(wanted)) if [wanted, ResetReason::Other].contains(&sent) => {
                self.with_reset.into()
            }
            (ResetSent::Unknown, _) if self.without.end != self.with_reset => {
                let time_wait = self.without.time_wait.map(|_| TimeWaitEnd::Unknown);
                Ending { end: End::Unknown, time_wait }
            }
            _ => self.without,
        }
    }

    /// Whether the fate of the socket says more than the reset.
    pub(super) fn await_fate(self) -> bool {
        self.or_disconnect.is_some()
    }

    /// Tells a disconnect from a close, once the fate of the socket is known.
    pub(super) fn with_fate(self, fate: Fate, reset: Option<ResetReason>) -> Self {
        let Some(doubt) = self.or_disconnect else { return self };
        let is_disconnect = match (doubt, reset, fate) {
            (Doubt::UnreadData, Some(ResetReason::AbortOnClose), _) => Some(false),
            (Doubt::UnreadData, Some(ResetReason::State), _) => Some(true),
            (_, _, Fate::Kept) => Some(true),
            // A close disconnects first, which opens the socket, and another closes that later.
            (Doubt::Linger0, _, Fate::Destroyed { shut }) => shut,
            (Doubt::UnreadData, _, Fate::Destroyed { .. }) | (_, _, Fate::Unknown) => None,
        };
        let with_reset = match (is_disconnect, doubt) {
            // Where the kernel gives no reason for the reset (before 6.10), or the hook shows too little, both look
            // alike.
            (None, _) => End::Unknown,
            (Some(true), _) => End::Disconnected,
            (Some(false), Doubt::UnreadData) => End::ResetUnreadData,
            (Some(false), Doubt::Linger0) => End::ResetLinger0,
        };
        Self { with_reset, ..self }
    }

    /// Whether no reset follows the destruction of the socket.
    pub(super) fn is_settled_by_destruction(self) -> bool {
        self.by_process
    }
}

/// What it means that a full socket was closed, which may have been shut down in both directions before.
pub(super) fn closing(change: &Change, reset_before: Option<ResetReason>, was_shut: bool) -> Conclusion {
    let (Some(flags), Some(facts)) = (change.flags, change.end) else { return unknown(change.old) };
    if facts.err != 0 {
        return by_error(change.old, &facts);
    }
    if let Birth::Made { substate, due_ns } = facts.mini {
        return Conclusion::Mini { substate, due_ns };
    }
    match change.old {
        State::SynSent => ended(connecting(change, flags, &facts)),
        State::FinWait2 if flags.done => no_time_wait(&facts),
        State::Closing if facts.all_acked && facts.totals.bytes_unread == 0 => no_time_wait(&facts),
        State::FinWait2 if flags.dead => orphan_in_fin_wait2(&facts, reset_before),
        State::LastAck if facts.all_acked => ended(End::Fin),
        old => by_process(old, flags, &facts, was_shut),
    }
}

fn ended(end: End) -> Conclusion {
    Conclusion::Ended(end.into())
}

/// For hooks that show no facts.
fn unknown(old: State) -> Conclusion {
    let due = matches!(old, State::FinWait2 | State::Closing);
    Conclusion::Ended(Ending { end: End::Unknown, time_wait: due.then_some(TimeWaitEnd::Unknown) })
}

fn by_error(old: State, facts: &EndFacts) -> Conclusion {
    let connecting = matches!(old, State::SynSent | State::SynRecv);
    ended(match facts.err {
        ECONNABORTED => End::Killed,
        ECONNREFUSED if connecting => End::Refused,
        ETIMEDOUT if connecting => End::ConnectTimeout,
        EPIPE | ECONNRESET => return by_reset(old),
        ETIMEDOUT => by_timeout(facts),
        // ICMP, or an ICMP error that the kernel kept until the timeout.
        _ => End::Unreachable,
    })
}

fn by_reset(old: State) -> Conclusion {
    match old {
        // Data for a socket that accepts none any more: the kernel acts as if a reset had come, and sends one.
        State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => Conclusion::AwaitReset(Alternatives {
            with_reset: End::ResetDataAfterClose,
            only_for: Some(ResetReason::AbortOnData),
            without: End::ResetReceived.into(),
            by_process: false,
            or_disconnect: None,
        }),
        _ => ended(End::ResetReceived),
    }
}

fn by_timeout(facts: &EndFacts) -> End {
    if facts.keepalive && facts.all_acked && facts.probes > 0 {
        End::KeepaliveTimeout
    } else if facts.user_timeout {
        End::UserTimeout
    } else {
        End::RetransmitTimeout
    }
}

/// A connect that ends without an error: a process gave it up, by `close`, `shutdown` or `connect(AF_UNSPEC)`, or the
/// kernel found no port for it. Without a port, the kernel sends no SYN and chooses no sequence number. That tells it
/// from a Fast Open connect that waits for data (`tcp_v4_connect` in `net/ipv4/tcp_ipv4.c`).
fn connecting(change: &Change, flags: Flags, facts: &EndFacts) -> End {
    if change.tuple.local_port == 0 {
        return End::NoLocalPort;
    }
    match flags.has_sent {
        Some(true) => End::ClosedWhileConnecting,
        _ if flags.rcv_shutdown && flags.send_shutdown => End::ClosedWhileConnecting,
        Some(false) if facts.all_acked => End::NoLocalPort,
        _ => End::Unknown,
    }
}

/// A connection set up without a packet (`TCP_REPAIR`): it began elsewhere, and which end began it is unknown.
pub(super) fn is_restored(change: &Change) -> bool {
    let is_silent = change.flags.is_some_and(|flags| flags.has_sent == Some(false));
    is_silent && (change.old, change.new) == (State::SynSent, State::Established)
}

/// Whether the state that a socket leaves may go on in a mini-socket, which nobody watches: FIN_WAIT2 does, until the peer's
/// FIN comes.
pub(super) fn may_go_on(change: &Change, ending: &Ending) -> bool {
    let has_fin = change.flags.is_some_and(|flags| flags.done);
    change.old == State::FinWait2 && !has_fin && ending.time_wait == Some(TimeWaitEnd::Unknown)
}

/// The closing of a socket that was never seen before. It had no cookie to link it to its mini-socket, so not seeing
/// one proves nothing.
pub(super) fn without_proof(change: &Change) -> Change {
    let unseen = |end: EndFacts| match end.mini {
        Birth::None => EndFacts { mini: Birth::NotWatched, ..end },
        Birth::NotWatched | Birth::Made { .. } => end,
    };
    Change { end: change.end.map(unseen), ..*change }
}

/// How certain it is that a mini-socket was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Certain,
    /// If a reset follows, no mini-socket was due.
    UnlessReset,
}

/// Whether a mini-socket was due when a full socket was closed, and none was made.
pub(crate) fn time_wait_refused(change: &Change) -> Option<Refusal> {
    if change.new != State::Closed || change.flags.is_none() {
        return None;
    }
    let is_refused = |ending: &Ending| ending.time_wait == Some(TimeWaitEnd::Refused);
    match closing(change, None, false) {
        Conclusion::Ended(ending) if is_refused(&ending) => Some(Refusal::Certain),
        Conclusion::AwaitReset(Alternatives { without, .. }) if is_refused(&without) => Some(Refusal::UnlessReset),
        _ => None,
    }
}

/// Both FINs are done, ours first, but no mini-socket was made.
fn no_time_wait(facts: &EndFacts) -> Conclusion {
    let why = if facts.mini == Birth::None { TimeWaitEnd::Refused } else { TimeWaitEnd::Unknown };
    Conclusion::Ended(Ending { end: End::Fin, time_wait: Some(why) })
}

/// An orphan whose peer has not closed yet, without a mini-socket to wait in.
fn orphan_in_fin_wait2(facts: &EndFacts, reset_before: Option<ResetReason>) -> Conclusion {
    if facts.linger2_negative {
        return Conclusion::AwaitReset(Alternatives {
            with_reset: End::ResetOther,
            only_for: None,
            without: End::Unknown.into(),
            by_process: false,
            or_disconnect: None,
        });
    }
    // The timer sends a reset before it gives up a full socket (`tcp_keepalive_timer` in `net/ipv4/tcp_timer.c`).
    match reset_before {
        Some(ResetReason::AbortOnMemory) => return ended(End::OrphanKilled),
        Some(_) => return ended(End::FinWait2Timeout),
        None => {}
    }
    if facts.mini == Birth::NotWatched {
        return Conclusion::Ended(Ending { end: End::Unknown, time_wait: Some(TimeWaitEnd::Unknown) });
    }
    Conclusion::AwaitReset(Alternatives {
        with_reset: End::ResetDataAfterClose,
        only_for: None,
        without: Ending { end: End::Fin, time_wait: Some(TimeWaitEnd::Refused) },
        by_process: false,
        or_disconnect: None,
    })
}

/// A process, or a closing listener, drops the connection. The kernel then sends a reset, except for a socket in
/// `TCP_REPAIR` and for one whose FIN is out after the peer's (`tcp_disconnect` in `net/ipv4/tcp.c`). A close sends one
/// only for unread data, or with a linger time of 0; it shuts down both directions first. That may have happened
/// before, unseen if the FIN was out already.
fn by_process(old: State, flags: Flags, facts: &EndFacts, was_shut: bool) -> Conclusion {
    if flags.dead {
        return ended(End::OrphanKilled);
    }
    let with_reset = if !flags.has_socket {
        End::NeverAccepted
    } else if !(flags.rcv_shutdown && flags.send_shutdown) || facts.totals.bytes_unread == 0 && !facts.linger0 {
        End::Disconnected
    } else if was_shut {
        End::Unknown
    } else if facts.totals.bytes_unread > 0 {
        End::ResetUnreadData
    } else {
        End::ResetLinger0
    };
    let without = if flags.has_socket { End::Disconnected } else { End::NeverAccepted };
    let was_half_shut = matches!(old, State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck);
    let or_disconnect = match with_reset {
        End::NeverAccepted | End::Disconnected => None,
        _ if !was_shut && !was_half_shut => None,
        _ if facts.totals.bytes_unread > 0 => Some(Doubt::UnreadData),
        _ => Some(Doubt::Linger0),
    };
    Conclusion::AwaitReset(Alternatives {
        with_reset,
        only_for: None,
        without: without.into(),
        by_process: true,
        or_disconnect,
    })
}

/// What it means that a mini-socket was killed in FIN_WAIT2.
pub(super) fn fin_wait2_killed(by: KilledBy) -> End {
    match by {
        KilledBy::Segment => End::ResetDataAfterClose,
        KilledBy::Reset => End::ResetReceived,
        KilledBy::Admin => End::Killed,
        KilledBy::Netns => End::OrphanKilled,
        KilledBy::Connect | KilledBy::Unknown => End::Unknown,
    }
}

/// What it means that a mini-socket was killed in TIME_WAIT.
pub(super) fn time_wait_killed(by: KilledBy) -> TimeWaitEnd {
    match by {
        KilledBy::Connect => TimeWaitEnd::Reused,
        KilledBy::Segment => TimeWaitEnd::NewSyn,
        KilledBy::Reset => TimeWaitEnd::Reset,
        KilledBy::Admin => TimeWaitEnd::Killed,
        KilledBy::Netns => TimeWaitEnd::NetnsGone,
        KilledBy::Unknown => TimeWaitEnd::Unknown,
    }
}

/// Who closed first, as far as a state alone shows.
pub(crate) fn closer_in(state: State) -> Option<Closer> {
    match state {
        State::FinWait1 | State::FinWait2 => Some(Closer::Active),
        State::CloseWait | State::LastAck => Some(Closer::Passive),
        State::Closing => Some(Closer::Simultaneous),
        _ => None,
    }
}

/// Who ended a connection that ended before any FIN.
pub(super) fn closer_by(end: End, old: State) -> Closer {
    if matches!(old, State::SynSent | State::SynRecv) {
        return Closer::NeverEstablished;
    }
    match end {
        End::ConnectTimeout | End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout | End::Unreachable => {
            Closer::Timeout
        }
        End::ResetReceived => Closer::ResetRemote,
        End::ResetUnreadData | End::ResetLinger0 | End::ResetDataAfterClose | End::ResetOther => Closer::ResetLocal,
        End::OrphanKilled | End::Killed => Closer::Killed,
        End::Refused | End::NoLocalPort | End::ClosedWhileConnecting => Closer::NeverEstablished,
        // If a reset was sent, its sender is known before.
        End::Disconnected | End::NeverAccepted | End::Fin | End::FinWait2Timeout | End::Unknown => Closer::Unknown,
    }
}

/// Who ended a connection by a reset that followed its closing.
pub(super) fn closer_by_reset(end: End, old: State) -> Closer {
    match end {
        End::Disconnected | End::NeverAccepted if !matches!(old, State::SynSent | State::SynRecv) => Closer::ResetLocal,
        _ => closer_by(end, old),
    }
}
