//! When a connection was in which of its states.

use crate::model::row::{Connection, Held, Stay};
use crate::model::tcp::{State, TimeWaitEnd};

/// A connection on the time axis, in ns of `CLOCK_BOOTTIME`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// When it began, as far as it was seen.
    pub(super) begin: u64,
    /// When it ended, or what is known of it does.
    pub(super) end: u64,
    /// What was seen of its states, in order, without overlaps.
    pub(super) stays: Vec<Span>,
}

/// A state, and when that was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) stay: Stay,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// States follow each other. Those before the first gap are placed from its beginning on, those after the last one up to
/// its end: what was not seen stays empty.
pub(super) fn place(row: &Connection) -> Placed {
    let end = row.boot_ns;
    let mut stays = Vec::with_capacity(row.stays.len());
    let mut rest = row.stays.as_slice();
    let mut at = row.opened_ns.map(|opened| opened.min(end));
    while let (Some(begin), [stay, after @ ..]) = (at, rest) {
        if !matches!(stay.held, Held::Exactly(_)) {
            break;
        }
        let until = begin.saturating_add(stay.held.known_ns().unwrap_or(0)).min(end);
        stays.push(Span { stay: *stay, begin, end: until });
        (at, rest) = (Some(until), after);
    }
    let earliest = at.unwrap_or(0);
    if ends_with_its_last_stay(row) {
        let mut until = end;
        let place_before = |stay: &Stay| {
            let begin = until.saturating_sub(stay.held.known_ns().unwrap_or(0)).max(earliest);
            Span { stay: *stay, begin, end: std::mem::replace(&mut until, begin) }
        };
        let mut late: Vec<Span> = rest.iter().rev().map(place_before).collect();
        late.reverse();
        stays.append(&mut late);
    }
    let begin = row.opened_ns.or(stays.first().map(|span| span.begin)).unwrap_or(end).min(end);
    Placed { begin, end, stays }
}

/// Whether the last state that was seen is the one that it was in at the end.
fn ends_with_its_last_stay(row: &Connection) -> bool {
    let last = row.stays.last().map(|stay| stay.state);
    match row.status.lasting() {
        Some((state, _)) => last == Some(state),
        None => match row.time_wait_end() {
            Some(TimeWaitEnd::Refused) | None => true,
            Some(_) => last == Some(State::TimeWait),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::tcp::End;
    use crate::output::export::tests::any_connection;
    use crate::output::samples::{connection, ended};

    fn exactly(state: State, ns: u64) -> Stay {
        Stay { state, held: Held::Exactly(ns) }
    }

    fn at_least(state: State, ns: u64) -> Stay {
        Stay { state, held: Held::AtLeast(ns) }
    }

    #[rstest]
    #[case::all_seen(Some(100), vec![exactly(State::SynSent, 10), exactly(State::Established, 90)], "100-200 100-110 110-200")]
    #[case::began_unseen(None, vec![at_least(State::Established, 10), exactly(State::FinWait1, 5)], "185-200 185-195 195-200")]
    #[case::a_gap(
        Some(100),
        vec![exactly(State::SynSent, 10), at_least(State::Established, 20), exactly(State::FinWait1, 5)],
        "100-200 100-110 175-195 195-200"
    )]
    #[case::nothing_seen(None, vec![], "200-200")]
    #[case::too_much(Some(190), vec![exactly(State::SynSent, u64::MAX), exactly(State::Established, 9)], "190-200 190-200 200-200")]
    #[case::too_much_at_the_end(None, vec![at_least(State::SynSent, u64::MAX), exactly(State::Established, 9)], "0-200 0-191 191-200")]
    fn states_follow_each_other(#[case] opened_ns: Option<u64>, #[case] stays: Vec<Stay>, #[case] expected: &str) {
        let row = Connection { opened_ns, boot_ns: 200, stays, status: ended(End::Fin, None), ..connection() };
        let placed = place(&row);
        let spans = placed.stays.iter().map(|span| (span.begin, span.end));
        let text: Vec<_> =
            [(placed.begin, placed.end)].into_iter().chain(spans).map(|(a, b)| format!("{a}-{b}")).collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn what_came_before_an_unseen_end_is_not_placed_there() {
        let stays = vec![at_least(State::Established, 10)];
        let row = Connection { opened_ns: None, stays, ..connection() };
        assert_eq!(place(&row).stays, []);
    }

    proptest! {
        #[test]
        fn states_never_overlap(row in any_connection()) {
            let placed = place(&row);
            let mut at = placed.begin;
            for span in &placed.stays {
                prop_assert!(at <= span.begin && span.begin <= span.end, "{placed:?}");
                at = span.end;
            }
            prop_assert!(at <= placed.end, "{placed:?}");
        }
    }
}
