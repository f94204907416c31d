//! What the engine keeps of a live connection.

use std::net::Ipv6Addr;

use super::decide::closer_in;
use super::stays::Stays;
use crate::model::event::{Change, Idle, ResetReason, Totals};
use crate::model::role::{Role, role};
use crate::model::row::{Ending, Held, Identity, Owner, Stay};
use crate::model::tcp::{Closer, Comm, OwnerSource, Side, State, Task, Tuple};

/// Marks the key of a mini-socket: the mini-socket of an earlier connection may live beside a new socket with its
/// cookie.
pub(super) const MINI: u64 = 1 << 63;

/// One followed socket, full or mini-socket.
///
/// There can be millions of them. So facts that are rare, or that last a short time only, are in [`More`]. Numbers that
/// may be unknown are a value and a [`Mark`], behind accessors.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    /// The number that rows show.
    pub(super) number: u64,
    pub(super) tuple: Tuple,
    pub(super) side: Side,
    pub(super) closer: Option<Closer>,
    pub(super) state: State,
    /// Number of gaps in the stream when it was last certain that nothing of this socket was missed.
    pub(super) gaps: u32,
    /// The last survey or scan that found it.
    pub(super) found_in: u32,
    /// Whether a process has ever held it; `None` when unknown.
    pub(super) accepted: Option<bool>,
    /// How its connection ended, if it is over and its descriptor is still open.
    pub(super) over: Option<Ending>,
    marks: Marks,
    netns: u32,
    uid: u32,
    cgroup: u64,
    owner: Task,
    owner_source: Option<OwnerSource>,
    opened: u64,
    /// When it entered its state, or the latest time at which it can have, or nothing.
    since: u64,
    /// Duration of the state that its opening began with, once that is over.
    opening_ns: u64,
    opening: Option<State>,
    more: Option<Box<More>>,
}

/// Facts that few connections have, or that last a short time only.
#[derive(Clone, Debug, Default)]
struct More {
    /// Few sockets have link-local addresses.
    interface: u32,
    /// How long no data had moved when the end of the connection began; [`known`] says which values were told.
    idle_ms: [u32; 3],
    idle_known: u8,
    /// All but the first one.
    stays: Stays,
    closed_by: Option<Task>,
    reset: Option<(u64, ResetReason)>,
    totals: Option<Totals>,
    mini: MiniTimes,
}

// Each TIME_WAIT has it for a minute: with the allocator's own word, this is a multiple of 16.
const _: () = assert!(size_of::<More>() <= 184);

/// When a mini-socket ends; [`NEVER`] where that is not known.
#[derive(Clone, Copy, Debug)]
struct MiniTimes {
    maybe_ended_at: u64,
    due_at: u64,
    gives_up_at: u64,
}

/// Stands for a time that is not known.
const NEVER: u64 = u64::MAX;

impl Default for MiniTimes {
    fn default() -> Self {
        Self { maybe_ended_at: NEVER, due_at: NEVER, gives_up_at: NEVER }
    }
}

/// Bits of what is known of [`Idle`].
mod known {
    pub(super) const IDLE: u8 = 1;
    pub(super) const ACKED: u8 = 2;
    pub(super) const RECEIVED: u8 = 4;
    pub(super) const SENT: u8 = 8;
}

/// A property that holds or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing of it was missed so far, apart from gaps in the stream.
    Whole,
    /// Its descriptor was still open when it was closed.
    Lingers,
    /// The engine has reported that it is over and its descriptor still open.
    Reported,
    /// A mini-socket that no process holds.
    Orphan,
    /// It was shut down before it was established: the FIN that follows is not due to the current task.
    ShutEarly,
    /// A process has shut it down in both directions, and still held it: what ends it later may not be a close.
    ShutBoth,
    /// A mini-socket took over from its full socket.
    Mini,
    HasNetns,
    HasUid,
    HasCgroup,
    HasOpened,
    /// The time at which it entered its state is known.
    Since,
    /// The latest time at which it can have entered its state is known.
    SinceAtLeast,
    OpeningAtLeast,
    /// Its bytes can bypass TCP, so the counts of TCP are incomplete.
    Bypassing,
    /// Its peer has sent a reset.
    ResetReceived,
}

/// The marks that hold.
#[derive(Clone, Copy, Debug)]
struct Marks(u16);

impl Conn {
    /// Placeholder for a vacant slot.
    pub(super) const VACANT: Self = Self {
        number: 0,
        tuple: Tuple {
            local_ip: Ipv6Addr::UNSPECIFIED,
            remote_ip: Ipv6Addr::UNSPECIFIED,
            local_port: 0,
            remote_port: 0,
        },
        side: Side::Unknown,
        closer: None,
        state: State::Closed,
        gaps: 0,
        found_in: 0,
        accepted: None,
        over: None,
        marks: Marks(0),
        netns: 0,
        uid: 0,
        cgroup: 0,
        owner: Task { pid: 0, tid: 0, comm: Comm([0; 16]) },
        owner_source: None,
        opened: 0,
        since: 0,
        opening_ns: 0,
        opening: None,
        more: None,
    };

    /// A connection first seen in this change, in the state that it leaves.
    pub(super) fn new(number: u64, change: &Change, gaps: u32) -> Self {
        let mut conn = Self { number, tuple: change.tuple, state: change.old, gaps, ..Self::VACANT };
        conn.complete_place(change.netns, change.uid, change.cgroup);
        conn.complete_interface(change.interface);
        conn
    }

    /// Its key in the store.
    pub(super) fn key(&self) -> u64 {
        if self.is(Mark::Mini) { self.number | MINI } else { self.number & !MINI }
    }

    pub(super) fn is(&self, mark: Mark) -> bool {
        self.marks.0 & 1 << mark as u16 != 0
    }

    pub(super) fn mark(&mut self, mark: Mark, is_so: bool) {
        let bit = 1 << mark as u16;
        self.marks.0 = if is_so { self.marks.0 | bit } else { self.marks.0 & !bit };
    }

    pub(super) fn netns(&self) -> Option<u32> {
        self.is(Mark::HasNetns).then_some(self.netns)
    }

    fn uid(&self) -> Option<u32> {
        self.is(Mark::HasUid).then_some(self.uid)
    }

    pub(super) fn cgroup(&self) -> Option<u64> {
        self.is(Mark::HasCgroup).then_some(self.cgroup)
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.owner_source.map(|source| Owner { task: self.owner, source })
    }

    /// When it began; `None` when that was not seen.
    pub(super) fn opened(&self) -> Option<u64> {
        self.is(Mark::HasOpened).then_some(self.opened)
    }

    /// When it entered its state; `None` when that was not seen.
    pub(super) fn since(&self) -> Option<u64> {
        self.is(Mark::Since).then_some(self.since)
    }

    /// The latest time at which it can have entered its state, where the exact time was not seen.
    pub(super) fn at_least_since(&self) -> Option<u64> {
        self.is(Mark::SinceAtLeast).then_some(self.since)
    }

    pub(super) fn set_since(&mut self, at: u64) {
        self.since = at;
        self.mark(Mark::Since, true);
        self.mark(Mark::SinceAtLeast, false);
    }

    /// The time at which it entered its state was not seen; `at` is the latest one possible, if known.
    pub(super) fn set_at_least_since(&mut self, at: Option<u64>) {
        self.since = at.unwrap_or(0);
        self.mark(Mark::Since, false);
        self.mark(Mark::SinceAtLeast, at.is_some());
    }

    pub(super) fn closed_by(&self) -> Option<Task> {
        self.more.as_ref()?.closed_by
    }

    /// The last reset that it sent, and when.
    pub(super) fn reset(&self) -> Option<(u64, ResetReason)> {
        self.more.as_ref()?.reset
    }

    pub(super) fn set_reset(&mut self, at: u64, reason: ResetReason) {
        self.more().reset = Some((at, reason));
    }

    /// What it had counted, once it is closed.
    pub(super) fn totals(&self) -> Option<Totals> {
        self.more.as_ref()?.totals
    }

    pub(super) fn set_totals(&mut self, totals: Option<Totals>) {
        if totals.is_some() || self.more.is_some() {
            self.more().totals = totals;
        }
    }

    /// How long data had not moved when its end began.
    pub(super) fn idle(&self) -> Option<Idle> {
        let More { idle_ms: [acked, received, sent], idle_known, .. } = **self.more.as_ref()?;
        let value = |bit: u8, ms: u32| (idle_known & bit != 0).then_some(ms);
        (idle_known & known::IDLE != 0).then(|| Idle {
            acked_ms: value(known::ACKED, acked),
            received_ms: value(known::RECEIVED, received),
            sent_ms: value(known::SENT, sent),
        })
    }

    /// Notes it at the change that begins its end.
    pub(super) fn note_idle(&mut self, change: &Change) {
        let begins_end = change.old == State::Established && change.new != State::Established;
        let Some(Idle { acked_ms, received_ms, sent_ms }) = change.idle.filter(|_| begins_end) else { return };
        let more = self.more();
        more.idle_ms = [acked_ms, received_ms, sent_ms].map(Option::unwrap_or_default);
        let bits = [(known::ACKED, acked_ms), (known::RECEIVED, received_ms), (known::SENT, sent_ms)];
        more.idle_known = bits.iter().filter(|(_, ms)| ms.is_some()).fold(known::IDLE, |all, (bit, _)| all | bit);
    }

    /// When a mini-socket ended, unless it got more time then.
    pub(super) fn maybe_ended_at(&self) -> Option<u64> {
        self.mini_time(|mini| mini.maybe_ended_at)
    }

    pub(super) fn set_maybe_ended_at(&mut self, at: u64) {
        self.more().mini.maybe_ended_at = at;
    }

    /// When the timer of a mini-socket is due, in ns without the sleep of the machine.
    pub(super) fn due_at(&self) -> Option<u64> {
        self.mini_time(|mini| mini.due_at)
    }

    /// When the engine gives it up, likewise.
    pub(super) fn gives_up_at(&self) -> Option<u64> {
        self.mini_time(|mini| mini.gives_up_at)
    }

    pub(super) fn set_due_at(&mut self, due_at: u64, gives_up_at: u64) {
        let mini = &mut self.more().mini;
        (mini.due_at, mini.gives_up_at) = (due_at, gives_up_at);
    }

    fn mini_time(&self, of: impl Fn(&MiniTimes) -> u64) -> Option<u64> {
        self.more.as_ref().map(|more| of(&more.mini)).filter(|at| *at != NEVER)
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Notes a finished stay.
    pub(super) fn record(&mut self, state: State, held: Held) {
        let Some(ns) = held.known_ns() else { return };
        let is_opening = matches!(state, State::SynSent | State::SynRecv);
        if is_opening && self.opening.is_none_or(|opening| opening == state) {
            (self.opening, self.opening_ns) = (Some(state), ns);
            self.mark(Mark::OpeningAtLeast, held.is_at_least());
        } else if state != State::Closed && state != State::Listen {
            self.more().stays.record(state, held);
        }
    }

    /// Its finished stays, in order.
    pub(super) fn stays(&self) -> Vec<Stay> {
        let mut all = self.more.as_ref().map_or(Stays::default(), |more| more.stays);
        if let Some(opening) = self.opening {
            let ns = self.opening_ns;
            let is_part = self.is(Mark::OpeningAtLeast);
            all.record(opening, if is_part { Held::AtLeast(ns) } else { Held::Exactly(ns) });
        }
        all.to_vec()
    }

    /// Reads a part of each line of memory.
    pub(super) fn touch_memory(&self) -> u64 {
        let more = self.more.as_ref().map_or(0, |more| {
            let bytes = more.totals.map_or(0, |totals| totals.bytes_sent);
            let task = more.closed_by.map_or(0, |task| u64::from(task.pid));
            more.stays.touch_memory() ^ more.mini.due_at ^ bytes ^ task
        });
        self.opened ^ u64::from(self.netns) ^ more
    }

    /// Its beginning was seen.
    pub(super) fn begin(&mut self, side: Side, at: u64) {
        self.side = side;
        self.opened = at;
        self.mark(Mark::HasOpened, true);
        self.mark(Mark::Whole, true);
    }

    /// It is in another state, which it entered unseen, at `at_least_since` at the latest.
    pub(super) fn change_unseen(&mut self, state: State, at_least_since: Option<u64>) {
        self.state = state;
        self.set_at_least_since(at_least_since);
        self.mark(Mark::Whole, false);
        self.closer = self.closer.or(closer_in(state));
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            conn: self.number,
            tuple: self.tuple,
            netns: self.netns(),
            uid: self.uid(),
            cgroup: self.cgroup(),
            interface: self.interface(),
            side: self.side,
            owner: self.owner(),
        }
    }

    /// Fills in what was unset: ports are 0 at both ends of a connection's life.
    pub(super) fn complete_identity(&mut self, change: &Change) {
        self.complete_tuple(&change.tuple);
        if change.uid.is_some() {
            self.mark(Mark::HasUid, false);
        }
        self.complete_place(change.netns, change.uid, change.cgroup);
        self.complete_interface(change.interface);
        if let Some(flags) = change.flags.filter(|flags| !flags.dead) {
            self.accepted = Some(flags.has_socket);
        }
    }

    /// Fills in what was not known yet.
    pub(super) fn complete_place(&mut self, netns: Option<u32>, uid: Option<u32>, cgroup: Option<u64>) {
        if let (Some(netns), false) = (netns, self.is(Mark::HasNetns)) {
            self.netns = netns;
            self.mark(Mark::HasNetns, true);
        }
        if let (Some(uid), false) = (uid, self.is(Mark::HasUid)) {
            self.uid = uid;
            self.mark(Mark::HasUid, true);
        }
        if let (Some(cgroup), false) = (cgroup, self.is(Mark::HasCgroup)) {
            self.cgroup = cgroup;
            self.mark(Mark::HasCgroup, true);
        }
    }

    /// Index of the only interface that it uses; 0 where that is not known.
    pub(super) fn interface(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.interface)
    }

    /// The later value is right: a child socket has its listener's interface at first, if that has one.
    pub(super) fn complete_interface(&mut self, interface: u32) {
        if interface != 0 {
            self.more().interface = interface;
        }
    }

    pub(super) fn complete_tuple(&mut self, known: &Tuple) {
        let tuple = &mut self.tuple;
        if tuple.local_port == 0 {
            tuple.local_port = known.local_port;
        }
        if tuple.remote_port == 0 {
            tuple.remote_port = known.remote_port;
        }
        if is_unset(tuple.local_ip) {
            tuple.local_ip = known.local_ip;
        }
        if is_unset(tuple.remote_ip) {
            tuple.remote_ip = known.remote_ip;
        }
    }

    /// Notes how the current task of a change relates to it.
    pub(super) fn note_task(&mut self, change: &Change) {
        if change.new == State::Established {
            self.mark(Mark::ShutEarly, change.flags.is_some_and(|flags| flags.send_shutdown));
        }
        if (change.old, change.new) == (State::Established, State::FinWait1) {
            self.mark(Mark::ShutBoth, change.flags.is_some_and(|flags| flags.rcv_shutdown && flags.send_shutdown));
        }
        let Some(task) = change.task else { return };
        match role(change, self.is(Mark::ShutEarly)) {
            Role::Connects => self.own(task, OwnerSource::Connect),
            Role::Listens => self.own(task, OwnerSource::Listen),
            Role::Closes => {
                self.more().closed_by = Some(task);
                // Without another known process, this one is its owner.
                self.own(task, OwnerSource::Close);
            }
            Role::Kills => self.more().closed_by = Some(task),
            Role::Bystander => {}
        }
    }

    /// Notes an owner, unless a better one is known: a process that closes or holds it now may not be its owner.
    pub(super) fn own(&mut self, task: Task, source: OwnerSource) {
        let is_better = matches!(source, OwnerSource::Connect | OwnerSource::Accept)
            && matches!(self.owner_source, Some(OwnerSource::Close | OwnerSource::Scan));
        if self.owner_source.is_none() || is_better {
            (self.owner, self.owner_source) = (task, Some(source));
        }
    }

    /// How long it has been in its state. Where something may have been missed, only the time since `blind_until` is
    /// certain. A socket that was not met before `unmet_until` has not changed since.
    pub(super) fn held(&self, now: u64, gaps: u32, blind_until: Option<u64>, unmet_until: Option<u64>) -> Held {
        match (self.since(), self.at_least_since()) {
            (Some(since), _) => match blind_until.filter(|blind| since < *blind && self.gaps != gaps) {
                Some(blind) => at_least(now, blind),
                None => Held::Exactly(now.saturating_sub(since)),
            },
            (None, Some(since)) => at_least(now, since),
            (None, None) if self.is_new() => unmet_until.map_or(Held::Unknown, |unmet| at_least(now, unmet)),
            (None, None) => Held::Unknown,
        }
    }

    /// Whether it was never seen before.
    fn is_new(&self) -> bool {
        let has_stayed = self.opening.is_some() || self.more.as_ref().is_some_and(|more| !more.stays.is_empty());
        !has_stayed && !self.is(Mark::HasOpened) && !self.is(Mark::Whole)
    }
}

/// The lower bound for a stay that had begun by `since`: 0 would say nothing.
fn at_least(now: u64, since: u64) -> Held {
    if now > since { Held::AtLeast(now - since) } else { Held::Unknown }
}

pub(super) fn is_unset(ip: Ipv6Addr) -> bool {
    ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified())
}

/// How far along its life a connection in this state is. It never goes back: a smaller number means another life.
pub(super) fn progress(state: State) -> u8 {
    match state {
        State::Closed | State::Listen => 0,
        State::SynSent => 1,
        State::SynRecv => 2,
        State::Established => 3,
        State::FinWait1 | State::CloseWait => 4,
        State::FinWait2 | State::Closing | State::LastAck => 5,
        State::TimeWait => 6,
    }
}

#[cfg(test)]
impl Conn {
    /// A connection of which only the number is known.
    pub(super) fn numbered(number: u64) -> Self {
        Self { number, ..Self::VACANT }
    }
}
