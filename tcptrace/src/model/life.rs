//! When a connection was in which state, as far as that is known. Every report and drawing uses this.

#[cfg(test)]
mod tests;

use std::iter::zip;

use crate::model::row::{Connection, Held, Status, Stay};
use crate::model::tcp::{End, State, TimeWaitEnd};

/// A connection's life, from its beginning (or where it was first seen) to its end, in ns of `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it began, or the latest time at which it can have begun.
    pub begin: u64,
    /// Whether its beginning was seen.
    pub begin_seen: bool,
    /// When it ended, or when tcptrace looked at it while it was open.
    pub end: u64,
    pub is_open: bool,
    /// Without gaps, from `begin` to `end`.
    pub spans: Vec<Span>,
}

/// A part of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// `None` when unknown.
    pub state: Option<State>,
    pub from: u64,
    pub to: u64,
}

impl Life {
    /// Places the stays of a connection in time. Those from its beginning follow one another, up to the first one that
    /// is not known exactly. Those before its end do likewise, backwards. The time between is unknown. Of a stay that
    /// is a lower bound, only the end is placed.
    pub fn of(connection: &Connection) -> Self {
        let (begin, end) = (connection.begin_ns(), connection.boot_ns);
        let stays = &connection.stays[..];
        let mut spans = Vec::with_capacity(stays.len() + 1);
        let until = if connection.opened_ns.is_some() { from_begin(connection, begin, &mut spans) } else { begin };
        let followed = spans.len();
        if is_end_seen(connection) || is_all_seen(connection) {
            from_end(connection, &stays[followed..], until, &mut spans);
        }
        let since = spans[followed..].last().map_or(end, |span| span.from);
        if until < since {
            spans.push(Span { state: None, from: until, to: since });
        }
        spans[followed..].reverse();
        Self { begin, begin_seen: connection.opened_ns.is_some(), end, is_open: connection.is_open(), spans }
    }

    /// From begin to end, in ns.
    pub fn length(&self) -> u64 {
        self.end - self.begin
    }

    /// The states whose time is known, each with its begin and end.
    pub fn known(&self) -> impl Iterator<Item = (State, u64, u64)> {
        self.spans.iter().filter_map(|span| Some((span.state?, span.from, span.to)))
    }
}

impl Connection {
    /// When it began, or the latest time at which it can have begun, in ns of `CLOCK_BOOTTIME`.
    pub fn begin_ns(&self) -> u64 {
        let opened = self.opened_ns.map(|opened| opened.min(self.boot_ns));
        opened.unwrap_or_else(|| self.boot_ns.saturating_sub(self.seen_ns()))
    }

    /// How long it lived, or has lived so far if its socket still exists.
    pub fn lifetime(&self) -> Held {
        let seen = self.seen_ns();
        let since = |opened: u64| self.boot_ns.saturating_sub(opened);
        match (self.opened_ns, &self.status) {
            (Some(opened), Status::Ended(_)) if self.is_end_timed() => Held::Exactly(since(opened)),
            (Some(opened), status) if !matches!(status, Status::Ended(_)) => Held::AtLeast(since(opened)),
            _ if seen > 0 => Held::AtLeast(seen),
            _ => Held::Unknown,
        }
    }

    /// The total of its known times.
    fn seen_ns(&self) -> u64 {
        self.stays.iter().filter_map(|stay| stay.held.known_ns()).fold(0, u64::saturating_add)
    }

    /// Whether it ended at the time of its row. If its end was not seen, the row has the time at which that was
    /// noticed.
    fn is_end_timed(&self) -> bool {
        self.complete || self.end() != Some(End::Unknown) && self.time_wait_end() != Some(TimeWaitEnd::Unknown)
    }
}

/// Adds the stays that follow one another from the beginning; returns the end of the last one.
fn from_begin(connection: &Connection, begin: u64, spans: &mut Vec<Span>) -> u64 {
    let stays = &connection.stays;
    let before = [State::Closed].into_iter().chain(stays.iter().map(|stay| stay.state));
    let mut at = begin;
    for (before, stay) in zip(before, stays) {
        let (Held::Exactly(ns), true) = (stay.held, connection.complete || follows(before, stay.state)) else { break };
        let Some(to) = at.checked_add(ns).filter(|to| *to <= connection.boot_ns) else { break };
        spans.push(Span { state: Some(stay.state), from: at, to });
        at = to;
    }
    at
}

/// Adds the stays before the end, the last one first.
fn from_end(connection: &Connection, stays: &[Stay], not_before: u64, spans: &mut Vec<Span>) {
    let mut at = connection.boot_ns;
    let mut after = None;
    for stay in stays.iter().rev() {
        if after.is_some_and(|after| !follows(stay.state, after)) {
            break;
        }
        let from = at.saturating_sub(stay.held.known_ns().unwrap_or(0)).max(not_before);
        spans.push(Span { state: Some(stay.state), from, to: at });
        // A state that lasts will be longer than its stay says, but may have begun at a known time.
        let age = connection.status.open().filter(|_| after.is_none()).map_or(stay.held, |(_, age)| age);
        if !matches!(age, Held::Exactly(_)) {
            break;
        }
        (at, after) = (from, Some(stay.state));
    }
}

/// Whether the last known state is the one that it ended in, or is still in.
fn is_end_seen(connection: &Connection) -> bool {
    use State::{Closing, FinWait1, FinWait2, LastAck, TimeWait};
    let Some(last) = connection.stays.last().map(|stay| stay.state) else { return false };
    let ending = match &connection.status {
        Status::Ended(ending) => ending,
        Status::Open { state, age, .. } | Status::Waiting { state, age, .. } => {
            return *state == last && *age != Held::Unknown;
        }
        // It ended before.
        Status::Unreleased { .. } | Status::Released { .. } => return false,
    };
    match (ending.time_wait, ending.end) {
        (Some(end), _) if end != TimeWaitEnd::Refused => last == TimeWait,
        (_, End::Unknown) => false,
        (_, End::Fin) => matches!(last, FinWait1 | FinWait2 | Closing | LastAck | TimeWait),
        (_, End::FinWait2Timeout) => last == FinWait2,
        _ => true,
    }
}

/// Whether its known states take up all the time since its beginning. A state that is a lower bound lasted until then
/// at least.
fn is_all_seen(connection: &Connection) -> bool {
    let seen = connection.opened_ns.and_then(|opened| opened.checked_add(connection.seen_ns()));
    seen == Some(connection.boot_ns) && !connection.ended_before()
}

/// Whether a connection can go from one state directly to the other.
fn follows(before: State, after: State) -> bool {
    use State::{CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent, TimeWait};
    matches!(
        (before, after),
        (Closed, SynSent | SynRecv)
            | (SynSent, SynRecv | Established)
            | (SynRecv, Established | FinWait1)
            | (Established, FinWait1 | CloseWait)
            | (FinWait1, FinWait2 | Closing | TimeWait)
            | (FinWait2 | Closing, TimeWait)
            | (CloseWait, LastAck)
    )
}
