//! Emits rows, and knows what is certain enough for them.

use std::iter;

use super::config::{Config, Stats};
use super::conn::{Conn, Mark};
use super::decide;
use crate::model::event::{Cause, Change, EndFacts, Mini, MiniEvent, Totals};
use crate::model::row::{Connection, Ending, Held, Loss, Reason, Report, Row, Status, Stay, Stuck, Transition};
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

/// Reports what becomes of connections.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) config: Config,
    pub(super) stats: Stats,
    /// Changes before this went unseen.
    pub(super) blind_until: Option<u64>,
    /// When the engine last forgot a socket: one that it meets for the first time may have been followed before.
    pub(super) forgot_at: Option<u64>,
    /// Number of gaps in the stream.
    pub(super) gaps: u32,
    /// Since when accepts are seen, if they are.
    pub(super) accepts_seen_since: Option<u64>,
}

impl Teller {
    pub(super) fn new(config: Config) -> Self {
        let accepts_seen_since = config.accepts.then_some(0);
        Self { config, stats: Stats::default(), blind_until: None, forgot_at: None, gaps: 0, accepts_seen_since }
    }

    /// Whether the socket of a server was accepted. One that was not when it entered its state can have been since,
    /// unless accepts are seen.
    pub(super) fn accepted(&self, conn: &Conn) -> Option<bool> {
        let is_sure = self.accepts_seen_since.is_some_and(|seen| seen <= conn.since().unwrap_or(0));
        conn.accepted.filter(|accepted| conn.side != Side::Client && (*accepted || is_sure))
    }

    /// How long a connection has certainly been in its state.
    pub(super) fn held(&self, conn: &Conn, now: u64) -> Held {
        conn.held(now, self.gaps, self.blind_until, self.blind_until.max(self.forgot_at))
    }

    /// What a full socket shows when it is closed.
    pub(super) fn totals(&self, conn: &Conn, end: &EndFacts) -> Totals {
        // A reset from before the socket was followed would not have been noted.
        let is_whole = conn.is(Mark::Whole) && conn.gaps == self.gaps && self.config.received_resets;
        let came = conn.is(Mark::ResetReceived);
        Totals {
            in_flight: end.in_flight,
            retransmits_unanswered: end.retransmits,
            reset_received: (came || is_whole).then_some(came),
            ..end.totals
        }
    }

    /// A part of a trace that is missing can be where accepts were no longer seen.
    pub(super) fn lose_accepts(&mut self, cause: Cause) {
        if !self.config.accepts && matches!(cause, Cause::Disk | Cause::Damage) {
            self.accepts_seen_since = None;
        }
    }

    /// Emits a transition, and moves the connection to its new state.
    pub(super) fn put(
        &mut self,
        conn: &mut Conn,
        at: u64,
        new: State,
        held: Held,
        reason: Option<Reason>,
        out: &mut Vec<Row>,
    ) {
        let old = conn.state;
        conn.record(old, held);
        conn.state = new;
        conn.set_since(at);
        self.stats.transitions += 1;
        if !self.config.transitions {
            return;
        }
        // Rows are large: this one is made in its place.
        out.extend(iter::once_with(|| {
            Row::Transition(Transition {
                boot_ns: at,
                identity: conn.identity(),
                old,
                new,
                held,
                closer: conn.closer,
                reason,
                orphan: conn.is(Mark::Orphan),
                closed_by: conn.closed_by(),
                stuck: None,
            })
        }));
    }

    /// Moves from one state to the next, short of the end.
    pub(super) fn step(&mut self, conn: &mut Conn, change: &Change, out: &mut Vec<Row>) {
        match decide::closer_in(change.new) {
            Some(Closer::Simultaneous) => conn.closer = Some(Closer::Simultaneous),
            closer => conn.closer = conn.closer.or(closer),
        }
        // A life begins with a state that it leaves at once, so that one has no duration.
        let held = match change.old {
            State::Closed => Held::Unknown,
            State::Listen if change.new == State::SynRecv => Held::Unknown,
            _ => self.held(conn, change.at),
        };
        self.put(conn, change.at, change.new, held, None, out);
    }

    /// The FIN that an orphan in FIN_WAIT2 waited for has come. `time_wait_ns` is the length of a TIME_WAIT here, if
    /// known.
    pub(super) fn turn_time_wait(
        &mut self,
        conn: &mut Conn,
        mini: &Mini,
        time_wait_ns: Option<u64>,
        out: &mut Vec<Row>,
    ) {
        if matches!(mini.what, MiniEvent::Fin | MiniEvent::Rearmed) {
            let held = self.held(conn, mini.at);
            self.put(conn, mini.at, State::TimeWait, held, None, out);
            return;
        }
        // If no counted loss explains it, the FIN itself was lost.
        if self.config.fins && conn.gaps == self.gaps {
            self.stats.unreported += 1;
            out.push(Row::Loss(Loss { boot_ns: mini.at, cause: Cause::Unreported, count: Some(1) }));
        }
        // It came unseen. It set the timer to the length of a TIME_WAIT, so the timer shows when it came. Later FINs
        // may have set the timer again, so this is the latest possible time.
        conn.mark(Mark::Whole, false);
        let due_at = i128::from(mini.at) + i128::from(mini.due_ns);
        let set_at = time_wait_ns.and_then(|length| u64::try_from(due_at - i128::from(length)).ok());
        let at = set_at.map(|at| at.clamp(conn.since().unwrap_or(0), mini.at));
        self.put(conn, at.unwrap_or(mini.at), State::TimeWait, Held::Unknown, None, out);
        conn.set_at_least_since(at);
    }

    /// Reports that a socket stays as it is, and for how long it has.
    pub(super) fn put_stuck(&self, conn: &Conn, at: u64, age: Held, stuck: Stuck, out: &mut Vec<Row>) {
        if self.config.transitions {
            out.push(Row::Transition(Transition {
                boot_ns: at,
                identity: conn.identity(),
                old: conn.state,
                new: conn.state,
                held: age,
                closer: conn.closer,
                reason: conn.over.map(reason),
                orphan: conn.is(Mark::Orphan),
                closed_by: conn.closed_by(),
                stuck: Some(stuck),
            }));
        }
        if self.config.connections {
            let state = conn.state;
            let status = match (stuck, conn.over) {
                (Stuck::Waiting(report), None) => Status::Waiting { state, age, report: Box::new(report) },
                (Stuck::Waiting(report), Some(ending)) => Status::Unreleased { ending, age, report: Box::new(report) },
                (Stuck::Released { accepted }, over) => {
                    Status::Released { ending: over.unwrap_or(End::Unknown.into()), age, accepted }
                }
            };
            out.push(Row::Connection(self.connection(conn, at, status)));
        }
    }

    /// A row for a connection that is open.
    pub(super) fn open(&self, conn: &Conn, now: u64) -> Row {
        let accepted = self.accepted(conn);
        let status = Status::Open { state: conn.state, age: self.held(conn, now), accepted };
        Row::Connection(self.connection(conn, now, status))
    }

    /// A row for a connection that is over and whose descriptor is open.
    pub(super) fn unreleased(&self, conn: &Conn, now: u64, ending: Ending, report: Report) -> Row {
        let status = Status::Unreleased { ending, age: self.held(conn, now), report: Box::new(report) };
        Row::Connection(self.connection(conn, now, status))
    }

    /// Emits a connection that has ended.
    pub(super) fn conclude(&mut self, conn: &Conn, at: u64, ending: Ending, out: &mut Vec<Row>) {
        self.stats.connections += 1;
        if self.config.connections {
            // Made in its place, like a transition.
            out.extend(iter::once_with(|| Row::Connection(self.connection(conn, at, Status::Ended(ending)))));
        }
    }

    fn connection(&self, conn: &Conn, at: u64, status: Status) -> Connection {
        let mut stays = conn.stays();
        if let Some((state, age)) = status.open()
            && let Some(ns) = age.known_ns()
        {
            stays.push(Stay { state, held: Held::AtLeast(ns) });
        }
        let ending = status.ending().unwrap_or(End::Unknown.into());
        let totals = conn.totals();
        let totals = totals.map(|totals| Totals { reset_received: reset_received(totals, ending), ..totals });
        Connection {
            identity: conn.identity(),
            opened_ns: conn.opened(),
            boot_ns: at,
            status,
            closer: conn.closer.unwrap_or(Closer::Unknown),
            closed_by: conn.closed_by(),
            stays,
            totals,
            idle: conn.idle(),
            complete: conn.is(Mark::Whole) && conn.gaps == self.gaps,
        }
    }
}

/// Whether its peer sent a reset; a mini-socket can receive one, too. The kernel acts as if a reset had come when data
/// arrives for a socket that accepts none any more (`tcp_rcv_state_process` in `net/ipv4/tcp_input.c`).
fn reset_received(totals: Totals, ending: Ending) -> Option<bool> {
    match ending {
        Ending { end: End::ResetReceived, .. } | Ending { time_wait: Some(TimeWaitEnd::Reset), .. } => Some(true),
        Ending { end: End::ResetDataAfterClose, .. } => Some(false),
        Ending { end: End::Unknown, .. } | Ending { time_wait: Some(TimeWaitEnd::Unknown), .. } => {
            totals.reset_received.filter(|came| *came)
        }
        _ => totals.reset_received,
    }
}

/// Why its last transition happened.
pub(super) fn reason(ending: Ending) -> Reason {
    match ending.time_wait {
        Some(time_wait) => Reason::TimeWait(time_wait),
        None => Reason::End(ending.end),
    }
}
