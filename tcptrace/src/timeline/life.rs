//! When a connection was in which state, as far as what is known of it tells.

use std::iter::zip;

use crate::lifecycle::{Connection, Held, Stay};
use crate::tcp::{End, State, TimeWaitEnd};

/// A connection's life, from its beginning (or where it was first seen) to its end, in ns of `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it began, or when it had begun at the latest.
    pub begin: u64,
    /// Whether its beginning was seen.
    pub begin_seen: bool,
    /// When it ended, or was seen last.
    pub end: u64,
    /// Whether it had not ended.
    pub is_open: bool,
    /// Without gaps, from begin to end.
    pub spans: Vec<Span>,
}

/// A part of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// In this state; `None`: nobody knows in which.
    pub state: Option<State>,
    /// From when on.
    pub from: u64,
    /// Until when.
    pub to: u64,
}

impl Life {
    /// Puts the stays of a connection where they belong. Those from its beginning on follow one another until one is
    /// not known exactly, those before its end likewise, backwards; what lies between is not known. What is known of a
    /// stay that was at least so long is its end.
    pub fn of(connection: &Connection) -> Self {
        let end = connection.closed_ns;
        let begin = connection.opened_ns.map_or_else(|| end.saturating_sub(known(connection)), |ns| ns.min(end));
        let stays = &connection.stays[..];
        let mut spans = Vec::with_capacity(stays.len() + 1);
        let until = if connection.opened_ns.is_some() { from_begin(connection, begin, &mut spans) } else { begin };
        let mut rest = Vec::new();
        if is_end_seen(connection) {
            from_end(&stays[spans.len()..], until, end, &mut rest);
        }
        let since = rest.last().map_or(end, |span| span.from);
        if until < since {
            spans.push(Span { state: None, from: until, to: since });
        }
        spans.extend(rest.into_iter().rev());
        Self { begin, begin_seen: connection.opened_ns.is_some(), end, is_open: connection.is_open(), spans }
    }

    /// From begin to end, in ns.
    pub fn length(&self) -> u64 {
        self.end - self.begin
    }

    /// From begin to end, as far as it was seen.
    pub fn held(&self) -> Held {
        if self.begin_seen && !self.is_open { Held::Exactly(self.length()) } else { Held::AtLeast(self.length()) }
    }
}

/// How long it is known to have lived, whenever that was.
pub(super) fn known(connection: &Connection) -> u64 {
    match connection.opened_ns {
        Some(opened) => connection.closed_ns.saturating_sub(opened),
        None => connection.stays.iter().filter_map(|stay| stay.held.known_ns()).fold(0, u64::saturating_add),
    }
}

/// Puts out the stays that follow one another from the beginning on; returns the end of the last one.
fn from_begin(connection: &Connection, begin: u64, spans: &mut Vec<Span>) -> u64 {
    let stays = &connection.stays;
    let before = [State::Closed].into_iter().chain(stays.iter().map(|stay| stay.state));
    let mut at = begin;
    for (before, stay) in zip(before, stays) {
        let (Held::Exactly(ns), true) = (stay.held, connection.complete || follows(before, stay.state)) else { break };
        let Some(to) = at.checked_add(ns).filter(|to| *to <= connection.closed_ns) else { break };
        spans.push(Span { state: Some(stay.state), from: at, to });
        at = to;
    }
    at
}

/// Puts out the stays before the end, the last one first.
fn from_end(stays: &[Stay], not_before: u64, end: u64, spans: &mut Vec<Span>) {
    let mut at = end;
    let mut after = None;
    for stay in stays.iter().rev() {
        if after.is_some_and(|after| !follows(stay.state, after)) {
            break;
        }
        let from = at.saturating_sub(stay.held.known_ns().unwrap_or(0)).max(not_before);
        spans.push(Span { state: Some(stay.state), from, to: at });
        (at, after) = (from, Some(stay.state));
        if stay.held.is_at_least() {
            break;
        }
    }
}

/// Whether the last state that is known is the one that it ended in, or is still in.
fn is_end_seen(connection: &Connection) -> bool {
    use State::{Closing, FinWait1, FinWait2, LastAck, TimeWait};
    let Some(last) = connection.stays.last().map(|stay| stay.state) else { return false };
    if let Some(stuck) = connection.stuck.as_ref().filter(|_| connection.is_open()) {
        return stuck.state == last && stuck.age != Held::Unknown;
    }
    match (connection.time_wait_end, connection.end) {
        (Some(end), _) if end != TimeWaitEnd::Refused => last == TimeWait,
        (_, End::Unknown) => false,
        (_, End::Fin) => matches!(last, FinWait1 | FinWait2 | Closing | LastAck | TimeWait),
        (_, End::FinWait2Timeout) => last == FinWait2,
        _ => true,
    }
}

/// Whether a connection goes from one state to the other without one between.
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
