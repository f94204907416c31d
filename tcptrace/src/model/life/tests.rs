//! When connections were in which states.

use std::net::Ipv6Addr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::model::row::{Ending, Identity};
use crate::model::tcp::{Closer, Side, Tuple};
use crate::output::timeline::glyphs::letter;

/// A connection that has ended in order, with these times and states (`E5` for 5 ns of ESTABLISHED, `C5+` for 5 or
/// more).
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
    let tuple =
        Tuple { local_ip: Ipv6Addr::LOCALHOST, remote_ip: Ipv6Addr::LOCALHOST, local_port: 40_000, remote_port: 80 };
    Connection {
        identity: Identity {
            conn: 1,
            tuple,
            netns: None,
            uid: None,
            cgroup: None,
            interface: 0,
            side: Side::Client,
            owner: None,
        },
        opened_ns: opened,
        boot_ns: closed,
        status: Status::Ended(End::Fin.into()),
        closer: Closer::Unknown,
        closed_by: None,
        stays: stays.split_whitespace().map(stay).collect(),
        totals: None,
        idle: None,
        complete: false,
    }
}

fn open(state: State, age: Held, connection: Connection) -> Connection {
    Connection { status: Status::Open { state, age, accepted: None }, ..connection }
}

/// `E0-5 ?5-7`, with `<` where it began before, and `>` where it is open.
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
#[case::nothing_is_certain_before_what_was_seen_in_part(None, 30, "E3 C5+ L5", "<?17-20 C20-25 L25-30")]
#[case::nothing_is_certain_before_a_state_that_was_missed(None, 30, "E3 L5", "<?22-25 L25-30")]
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
#[case::its_time_wait_lasted_until_then_or_longer(End::Fin, Some(TimeWaitEnd::Unknown), "25 T5+", "<?20-25 T25-30")]
#[case::no_fin_from_there(End::Fin, None, "E3+", "<?27-30")]
#[case::reset(End::ResetReceived, None, "E3+", "<E27-30")]
#[case::no_fin_wait2(End::FinWait2Timeout, None, "E3+ 15", "<?22-30")]
fn the_last_state_that_is_known_may_not_be_the_last(
    #[case] end: End,
    #[case] time_wait: Option<TimeWaitEnd>,
    #[case] stays: &str,
    #[case] expected: &str,
) {
    assert_eq!(
        shown(&Connection { status: Status::Ended(Ending { end, time_wait }), ..lived(None, 30, stays) }),
        expected
    );
}

#[rstest]
#[case::since_then(Some(10), Held::Exactly(9), "S1 E10 C9+", "S10-11 E11-21 C21-30>")]
#[case::nobody_knows_since_when(Some(10), Held::Unknown, "S1 E10", "S10-11 E11-21 ?21-30>")]
#[case::since_then_and_what_was_before(None, Held::Exactly(9), "E3+ C9+", "<E18-21 C21-30>")]
#[case::since_before_then(None, Held::AtLeast(9), "E3 C9+", "<?18-21 C21-30>")]
fn what_is_open_is_still_in_its_last_state(
    #[case] opened: Option<u64>,
    #[case] age: Held,
    #[case] stays: &str,
    #[case] expected: &str,
) {
    assert_eq!(shown(&open(State::CloseWait, age, lived(opened, 30, stays))), expected);
}

/// An orphan whose timer ran out, and whose end was not seen.
#[test]
fn what_takes_up_all_the_time_needs_no_end() {
    let vanished = |stays| Connection { status: Status::Ended(End::Unknown.into()), ..lived(Some(10), 30, stays) };
    assert_eq!(shown(&vanished("S1 E9 11 29+")), "S10-11 E11-20 120-21 221-30");
    assert_eq!(shown(&vanished("S1 E9 11 28+")), "S10-11 E11-20 120-21 ?21-30");
}

/// A descriptor that is still open says nothing of when the connection ended.
#[test]
fn a_leftover_descriptor_is_no_state() {
    let status =
        Status::Unreleased { ending: End::ResetReceived.into(), age: Held::AtLeast(5), report: Box::default() };
    assert_eq!(shown(&Connection { status, ..lived(None, 30, "E3+") }), "<?27-30");
}

/// What is complete has no gaps, even between states that are not known to follow each other.
#[test]
fn nothing_is_missing_from_what_is_complete() {
    let complete = Connection { complete: true, ..lived(Some(0), 12, "S1 E2 L6") };
    assert_eq!(shown(&complete), "S0-1 E1-3 L3-9 ?9-12");
    assert_eq!(shown(&Connection { complete: false, ..complete }), "S0-1 E1-3 ?3-6 L6-12");
}

#[rstest]
#[case::from_beginning_to_end(lived(Some(10), 30, "E9"), Held::Exactly(20))]
#[case::it_began_before(lived(None, 30, "E9+ C5"), Held::AtLeast(14))]
#[case::nothing_was_seen(lived(None, 30, ""), Held::Unknown)]
#[case::its_end_was_not_seen(
    Connection { status: Status::Ended(End::Unknown.into()), ..lived(Some(10), 30, "E9") },
    Held::AtLeast(9)
)]
#[case::nobody_knows_how_it_ended(
    Connection { status: Status::Ended(End::Unknown.into()), complete: true, ..lived(Some(10), 30, "E20") },
    Held::Exactly(20)
)]
#[case::it_is_open(open(State::Established, Held::Exactly(9), lived(Some(10), 30, "E9+")), Held::AtLeast(20))]
fn it_lived_so_long(#[case] connection: Connection, #[case] expected: Held) {
    assert_eq!(connection.lifetime(), expected);
}

prop_compose! {
    /// Any connection that a trace can contain.
    fn any_connection()(
        opened in any::<Option<u64>>(),
        closed in any::<u64>(),
        stays in prop::collection::vec((0..State::ALL.len(), any::<u64>(), 0..64_u32, any::<bool>()), 0..6),
        status in 0..5_usize,
        complete in any::<bool>(),
    ) -> Connection {
        let stays: Vec<Stay> = stays
            .into_iter()
            .map(|(state, ns, bits, is_exact)| {
                let held = if is_exact { Held::Exactly(ns >> bits) } else { Held::AtLeast(ns >> bits) };
                Stay { state: State::ALL[state], held }
            })
            .collect();
        let last = stays.last().map_or(State::Established, |stay| stay.state);
        let status = match status {
            0 => Status::Open { state: last, age: Held::Exactly(closed / 2), accepted: None },
            1 => Status::Waiting { state: last, age: Held::AtLeast(1), report: Box::default() },
            2 => Status::Unreleased { ending: End::Fin.into(), age: Held::Unknown, report: Box::default() },
            3 => Status::Ended(Ending { end: End::Fin, time_wait: Some(TimeWaitEnd::Expired) }),
            _ => Status::Ended(End::ResetReceived.into()),
        };
        Connection { stays, status, complete, ..lived(opened, closed, "") }
    }
}

proptest! {
    /// Spans follow each other from beginning to end, and nothing lived longer than there was time.
    #[test]
    fn a_life_is_whole(connection in any_connection()) {
        shown(&connection);
        let life = Life::of(&connection);
        prop_assert!(life.spans.iter().all(|span| span.from <= span.to), "{life:?}");
        prop_assert_eq!((life.begin, life.end), (connection.begin_ns(), connection.boot_ns));
        prop_assert!(life.known().count() <= connection.stays.len());
    }
}
