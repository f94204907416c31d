//! What is kept of a connection that lives.

use super::decide::{Ending, closer_in};
use super::row::{Held, Identity, Owner, Stay, Totals};
use crate::event::{Change, ResetReason};
use crate::tcp::{Closer, OwnerSource, Side, State, Task, Tuple};

/// One socket that is followed, full or mini-socket.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    /// The number that rows show.
    pub(super) number: u64,
    pub(super) tuple: Tuple,
    pub(super) netns: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) cgroup: Option<u64>,
    pub(super) side: Side,
    pub(super) owner: Option<Owner>,
    pub(super) closed_by: Option<Task>,
    pub(super) closer: Option<Closer>,
    pub(super) state: State,
    /// When it entered that state; `None` when that was not seen.
    pub(super) since: Option<u64>,
    /// When it began; `None` when that was not seen.
    pub(super) opened: Option<u64>,
    pub(super) stays: Stays,
    /// Nothing of it was missed so far, gaps in the stream aside.
    pub(super) whole: bool,
    /// How many gaps the stream had when it was last certain that nothing of it was missed.
    pub(super) gaps: u32,
    /// The last survey or scan that found it.
    pub(super) found_in: u32,
    /// Whether a process has ever had it; `None` when unknown.
    pub(super) accepted: Option<bool>,
    /// Its descriptor was still open when it was closed.
    pub(super) lingers: bool,
    /// How its connection ended: it is over, and its descriptor is still open.
    pub(super) over: Option<Ending>,
    /// That was reported.
    pub(super) reported: bool,
    /// A mini-socket that no process holds.
    pub(super) orphan: bool,
    /// It was shut down before it was established: the FIN that follows is not the current task's.
    pub(super) shut_early: bool,
    /// The last reset that it sent, and when.
    pub(super) reset: Option<(u64, ResetReason)>,
    pub(super) totals: Option<Totals>,
    /// A mini-socket took over from its full socket.
    pub(super) is_mini: bool,
    /// When it entered its state at the latest, where that was not seen.
    pub(super) at_least_since: Option<u64>,
    /// Of a mini-socket: when it ended, unless it was given more time then.
    pub(super) maybe_ended_at: Option<u64>,
    /// Of a mini-socket: when its timer is due, in ns without those that the machine slept.
    pub(super) due_at: Option<u64>,
    /// Of a mini-socket: when it is given up, likewise.
    pub(super) gives_up_at: Option<u64>,
}

impl Conn {
    /// A connection first seen in this change, in the state that it leaves.
    pub(super) fn new(number: u64, change: &Change, gaps: u32) -> Self {
        Self {
            number,
            tuple: change.tuple,
            netns: change.netns,
            uid: change.uid,
            cgroup: change.cgroup,
            side: Side::Unknown,
            owner: None,
            closed_by: None,
            closer: None,
            state: change.old,
            since: None,
            opened: None,
            stays: Stays::default(),
            whole: false,
            gaps,
            found_in: 0,
            accepted: None,
            lingers: false,
            over: None,
            reported: false,
            orphan: false,
            shut_early: false,
            reset: None,
            totals: None,
            is_mini: false,
            at_least_since: None,
            maybe_ended_at: None,
            due_at: None,
            gives_up_at: None,
        }
    }

    /// Its beginning was seen.
    pub(super) fn begin(&mut self, side: Side, at: u64) {
        self.side = side;
        self.opened = Some(at);
        self.whole = true;
    }

    /// It turns out to be in another state, since when nobody knows but for the latest time that can be.
    pub(super) fn change_unseen(&mut self, state: State, at_least_since: Option<u64>) {
        self.state = state;
        self.since = None;
        self.at_least_since = at_least_since;
        self.whole = false;
        self.closer = self.closer.or(closer_in(state));
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            conn: self.number,
            tuple: self.tuple,
            netns: self.netns,
            uid: self.uid,
            cgroup: self.cgroup,
            side: self.side,
            owner: self.owner,
        }
    }

    /// Fills in what was not set yet: ports are 0 at both ends of a connection's life.
    pub(super) fn complete_identity(&mut self, change: &Change) {
        self.complete_tuple(&change.tuple);
        self.netns = self.netns.or(change.netns);
        self.uid = change.uid.or(self.uid);
        self.cgroup = self.cgroup.or(change.cgroup);
        if let Some(flags) = change.flags.filter(|flags| !flags.dead) {
            self.accepted = Some(flags.has_socket);
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

    /// Notes who closed it. Where nobody else is known, that is its owner.
    pub(super) fn closed_by(&mut self, task: Task) {
        self.closed_by = Some(task);
        self.own(task, OwnerSource::Close);
    }

    /// Notes an owner, unless a better one is known: who closes it or has it now need not be whose it was.
    pub(super) fn own(&mut self, task: Task, source: OwnerSource) {
        let is_better = |owner: &Owner| {
            matches!(source, OwnerSource::Connect | OwnerSource::Accept)
                && matches!(owner.source, OwnerSource::Close | OwnerSource::Scan)
        };
        if self.owner.as_ref().is_none_or(is_better) {
            self.owner = Some(Owner { task, source });
        }
    }

    /// How long it has been in its state. Where something may have been missed, only the time since `blind_until` is
    /// certain; what was not met before `unmet_until` has had no change since.
    pub(super) fn held(&self, now: u64, gaps: u32, blind_until: Option<u64>, unmet_until: Option<u64>) -> Held {
        match (self.since, self.at_least_since) {
            (Some(since), _) => match blind_until.filter(|blind| since < *blind && self.gaps != gaps) {
                Some(blind) => at_least(now, blind),
                None => Held::Exactly(now.saturating_sub(since)),
            },
            (None, Some(since)) => at_least(now, since),
            (None, None) if self.is_new() => unmet_until.map_or(Held::Unknown, |unmet| at_least(now, unmet)),
            (None, None) => Held::Unknown,
        }
    }

    /// Whether nothing was seen of it before.
    fn is_new(&self) -> bool {
        self.stays.is_empty() && self.opened.is_none() && !self.whole
    }
}

/// What is certain of a stay that had begun by `since`: 0 would say nothing.
fn at_least(now: u64, since: u64) -> Held {
    if now > since { Held::AtLeast(now - since) } else { Held::Unknown }
}

pub(super) fn is_unset(ip: std::net::Ipv6Addr) -> bool {
    ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified())
}

/// How long a connection was in each of its states. A life has at most six: those that exclude each other share a
/// slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stays {
    ns: [u64; 6],
    seen: u16,
    at_least: u16,
}

/// In the order in which a connection can go through them.
const ORDER: [State; 9] = [
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait1,
    State::CloseWait,
    State::FinWait2,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

impl Stays {
    fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Notes a stay that is over.
    pub(super) fn record(&mut self, state: State, held: Held) {
        let (Some(slot), Some(ns)) = (slot(state), held.known_ns()) else { return };
        let bit = 1 << state as u16;
        self.ns[slot] = ns;
        self.seen |= bit;
        self.at_least = if held.is_at_least() { self.at_least | bit } else { self.at_least & !bit };
    }

    pub(super) fn to_vec(self) -> Vec<Stay> {
        let seen = ORDER.into_iter().filter(|state| self.seen & (1 << *state as u16) != 0);
        seen.filter_map(|state| {
            let ns = self.ns[slot(state)?];
            let at_least = self.at_least & (1 << state as u16) != 0;
            Some(Stay { state, held: if at_least { Held::AtLeast(ns) } else { Held::Exactly(ns) } })
        })
        .collect()
    }
}

fn slot(state: State) -> Option<usize> {
    Some(match state {
        State::SynSent => 0,
        State::SynRecv => 1,
        State::Established => 2,
        State::FinWait1 | State::CloseWait => 3,
        State::FinWait2 | State::Closing | State::LastAck => 4,
        State::TimeWait => 5,
        State::Closed | State::Listen => return None,
    })
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
