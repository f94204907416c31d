//! When a connection was in which state.

use crate::model::row::{Connection, Held};
use crate::model::tcp::{End, State, TimeWaitEnd};

/// A state that a connection was in, from and to in ns of `CLOCK_BOOTTIME`: of one that was seen in part, that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which.
    pub state: State,
    /// Since when.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
}

/// Hands over each state of a connection with its time, the last one first, as far back as there is no gap: what was
/// before a state that was seen in part, or was missed, has no certain time.
pub fn placed(connection: &Connection, mut each: impl FnMut(Placed)) {
    let mut to_ns = connection.boot_ns;
    let mut next = None;
    for stay in connection.stays.iter().rev() {
        let adjoins = match next {
            Some(next) => can_follow(stay.state, next),
            None => is_last(connection, stay.state),
        };
        let (Some(ns), true) = (stay.held.known_ns(), adjoins) else { return };
        let Some(from_ns) = to_ns.checked_sub(ns) else { return };
        each(Placed { state: stay.state, from_ns, to_ns });
        // A state that lasts is longer than its row says, but may have begun at a known time.
        let age = connection.status.lasting().filter(|_| next.is_none()).map_or(stay.held, |(_, age)| age);
        if !matches!(age, Held::Exactly(_)) {
            return;
        }
        (to_ns, next) = (from_ns, Some(stay.state));
    }
}

/// Whether the connection was in this state until its row's time.
fn is_last(connection: &Connection, state: State) -> bool {
    if let Some((open, _)) = connection.status.open() {
        return open == state;
    }
    // Where the end was not seen, the row's time is that at which this was noticed.
    let unseen = match state {
        State::TimeWait => connection.time_wait_end() == Some(TimeWaitEnd::Unknown),
        _ => connection.end() == Some(End::Unknown),
    };
    // A descriptor that is still open says nothing of when the connection ended.
    !unseen && !connection.ended_before()
}

/// Whether TCP goes from one state right to the other.
fn can_follow(state: State, next: State) -> bool {
    matches!(
        (state, next),
        (State::SynSent, State::SynRecv | State::Established)
            | (State::SynRecv, State::Established | State::FinWait1)
            | (State::Established, State::FinWait1 | State::CloseWait)
            | (State::FinWait1, State::FinWait2 | State::Closing | State::TimeWait)
            | (State::FinWait2 | State::Closing, State::TimeWait)
            | (State::CloseWait, State::LastAck)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, open};
    use super::*;
    use crate::model::row::{Ending, Status};

    fn places(connection: &Connection) -> Vec<(State, u64, u64)> {
        let mut found = Vec::new();
        placed(connection, |it| found.push((it.state, it.from_ns, it.to_ns)));
        found
    }

    fn connection(stays: &[(State, Held)]) -> Connection {
        Connection { boot_ns: 1_000, ..testing::connection(stays) }
    }

    #[test]
    fn states_are_placed_from_the_end() {
        let stays = [
            (State::SynSent, Held::Exactly(1)),
            (State::Established, Held::Exactly(20)),
            (State::FinWait1, Held::Exactly(3)),
            (State::FinWait2, Held::Exactly(0)),
            (State::TimeWait, Held::Exactly(60)),
        ];
        let expected = [
            (State::TimeWait, 940, 1_000),
            (State::FinWait2, 940, 940),
            (State::FinWait1, 937, 940),
            (State::Established, 917, 937),
            (State::SynSent, 916, 917),
        ];
        assert_eq!(places(&connection(&stays)), expected);
    }

    #[test]
    fn nothing_is_certain_before_what_was_seen_in_part() {
        let stays = [(State::Established, Held::Exactly(20)), (State::CloseWait, Held::AtLeast(5))];
        assert_eq!(places(&connection(&stays)), [(State::CloseWait, 995, 1_000)]);
    }

    #[test]
    fn nothing_is_certain_before_a_state_that_was_missed() {
        let stays = [(State::Established, Held::Exactly(20)), (State::LastAck, Held::Exactly(5))];
        assert_eq!(places(&connection(&stays)), [(State::LastAck, 995, 1_000)]);
    }

    #[test]
    fn an_end_that_was_not_seen_places_nothing() {
        let stays = [(State::Established, Held::Exactly(20))];
        assert_eq!(places(&Connection { status: Status::Ended(End::Unknown.into()), ..connection(&stays) }), []);
        let stays = [(State::TimeWait, Held::AtLeast(20))];
        let unseen = Connection {
            status: Status::Ended(Ending { end: End::Fin, time_wait: Some(TimeWaitEnd::Unknown) }),
            ..connection(&stays)
        };
        assert_eq!(places(&unseen), []);
    }

    #[test]
    fn what_is_open_is_in_its_state_until_now() {
        let stays = [(State::Established, Held::Exactly(20)), (State::CloseWait, Held::AtLeast(5))];
        let since = open(connection(&stays), State::CloseWait, Held::Exactly(5));
        assert_eq!(places(&since), [(State::CloseWait, 995, 1_000), (State::Established, 975, 995)]);
        let since_before = open(connection(&stays), State::CloseWait, Held::AtLeast(5));
        assert_eq!(places(&since_before), [(State::CloseWait, 995, 1_000)]);
        let elsewhere = open(connection(&stays), State::LastAck, Held::Unknown);
        assert_eq!(places(&elsewhere), []);
    }

    #[test]
    fn a_duration_that_is_too_long_is_not_placed() {
        assert_eq!(places(&connection(&[(State::TimeWait, Held::Exactly(1_001))])), []);
    }
}
