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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lifecycle::Stuck;
    use crate::timeline::glyphs::letter;
    use crate::timeline::samples::whole;

    /// A connection from these times on, in these states (`E5` for 5 ns of ESTABLISHED, `C5+` for 5 or more).
    fn lived(opened: Option<u64>, closed: u64, stays: &str) -> Connection {
        let stay = |text: &str| {
            let state = State::ALL.iter().find(|state| text.starts_with(letter(Some(**state))));
            let ns = |digits: &str| digits.parse().expect("a number");
            let held = match text[1..].strip_suffix('+') {
                Some(digits) => Held::AtLeast(ns(digits)),
                None => Held::Exactly(ns(&text[1..])),
            };
            Stay { state: *state.expect("a letter"), held }
        };
        let stays = stays.split_whitespace().map(stay).collect();
        Connection { opened_ns: opened, closed_ns: closed, complete: false, stays, ..whole(1, 0, &[]) }
    }

    /// `E0-5 ?5-7`, with `<` where it began before and `>` where it is open.
    fn shown(connection: &Connection) -> String {
        let life = Life::of(connection);
        let edges = [life.begin].into_iter().chain(life.spans.iter().map(|span| span.to));
        let froms = life.spans.iter().map(|span| span.from);
        assert!(zip(edges, froms).all(|(before, from)| before == from), "gaps: {life:?}");
        assert_eq!(life.spans.last().map_or(life.begin, |span| span.to), life.end, "{life:?}");
        let spans: Vec<_> =
            life.spans.iter().map(|span| format!("{}{}-{}", letter(span.state), span.from, span.to)).collect();
        let before = if life.begin_seen { "" } else { "<" };
        let after = if life.is_open { ">" } else { "" };
        format!("{before}{}{after}", spans.join(" "))
    }

    #[rstest]
    #[case::all_of_it(Some(10), 30, "S1 E9 C5 L5", "S10-11 E11-20 C20-25 L25-30")]
    #[case::it_began_before(None, 30, "E3+ C5 L5", "<E17-20 C20-25 L25-30")]
    #[case::a_gap_before_what_was_at_least(Some(0), 30, "S1 E3+ C5 L5", "S0-1 ?1-17 E17-20 C20-25 L25-30")]
    #[case::a_state_is_missing(Some(0), 30, "S1 E4 25 T10", "S0-1 E1-5 ?5-15 215-20 T20-30")]
    #[case::nothing_is_known(None, 30, "", "<")]
    #[case::nothing_but_its_length(Some(10), 30, "", "?10-30")]
    #[case::more_than_there_was_time_for(Some(10), 12, "S5 E5 C5 L5", "S10-10 E10-10 C10-10 L10-12")]
    #[case::longer_than_time(None, 30, "E18446744073709551615+ C18446744073709551615 L1", "<E0-0 C0-29 L29-30")]
    fn stays_are_where_they_were(
        #[case] opened: Option<u64>,
        #[case] closed: u64,
        #[case] stays: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(shown(&lived(opened, closed, stays)), expected);
    }

    #[rstest]
    #[case::it_vanished(End::Unknown, None, "E3+ C5", "<?22-30")]
    #[case::its_time_wait_was_not_seen(End::Fin, Some(TimeWaitEnd::Expired), "E3+ 15", "<?22-30")]
    #[case::it_had_no_time_wait(End::Fin, Some(TimeWaitEnd::Refused), "E3+ 15", "<E22-25 125-30")]
    #[case::no_fin_from_there(End::Fin, None, "E3+", "<?27-30")]
    #[case::reset(End::ResetReceived, None, "E3+", "<E27-30")]
    #[case::no_fin_wait2(End::FinWait2Timeout, None, "E3+ 15", "<?22-30")]
    fn the_last_state_that_is_known_may_not_be_the_last(
        #[case] end: End,
        #[case] time_wait_end: Option<TimeWaitEnd>,
        #[case] stays: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(shown(&Connection { end, time_wait_end, ..lived(None, 30, stays) }), expected);
    }

    #[rstest]
    #[case::since_then(State::CloseWait, Held::Exactly(9), "S1 E10 C9+", "S10-11 E11-21 C21-30>")]
    #[case::nobody_knows_since_when(State::CloseWait, Held::Unknown, "S1 E10", "S10-11 E11-21 ?21-30>")]
    fn what_is_open_is_still_in_its_last_state(
        #[case] state: State,
        #[case] age: Held,
        #[case] stays: &str,
        #[case] expected: &str,
    ) {
        let stuck = Stuck {
            state,
            age,
            holder: None,
            holders: None,
            accepted: None,
            listener: None,
            released: false,
            merely_open: true,
            stalled: None,
            multipath: None,
        };
        assert_eq!(shown(&Connection { stuck: Some(Box::new(stuck)), ..lived(Some(10), 30, stays) }), expected);
    }

    /// What is complete has no gaps, even between states that are not known to follow each other.
    #[test]
    fn nothing_is_missing_from_what_is_complete() {
        let complete = Connection { complete: true, ..lived(Some(0), 12, "S1 E2 L6") };
        assert_eq!(shown(&complete), "S0-1 E1-3 L3-9 ?9-12");
        assert_eq!(shown(&Connection { complete: false, ..complete }), "S0-1 E1-3 ?3-6 L6-12");
    }
}
