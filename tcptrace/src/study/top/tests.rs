#![expect(clippy::panic, reason = "a panic is how a test fails")]

use super::samples::{API, S, WEB, closes, connects, held, play, story};
use super::*;
use crate::model::row::Held;
use crate::model::tcp::{Closer, End};
use crate::study::counts::By;

fn top() -> Top {
    play(&story(), Ask::default())
}

fn pid(row: &GroupRow) -> Option<u32> {
    row.group.pid
}

#[test]
fn sockets_by_state_are_those_that_exist() {
    let frame = top().frame();
    let of = |state: State| frame.sockets(state);
    assert_eq!((of(State::Established), of(State::TimeWait), of(State::CloseWait), frame.total()), (5, 3, 2, 10));
    assert!(frame.is_surveyed);
    assert_eq!(frame.lost_events(), 12);
}

#[test]
fn groups_add_up_whatever_they_are_grouped_by() {
    for by in By::ALL {
        let frame = play(&story(), Ask { by, ..Ask::default() }).frame();
        let sum: u64 = frame.groups.rows.iter().map(|row| row.level.sockets()).sum();
        assert_eq!(sum + frame.others.sockets(), frame.total(), "{by:?}");
    }
}

#[test]
fn groups_have_their_states_and_oldest() {
    let frame = top().frame();
    let [api, web] = &frame.groups.rows[..] else { panic!("{:?}", frame.groups.rows) };
    assert_eq!((pid(api), api.level.of(State::Established), api.level.of(State::TimeWait)), (Some(API), 5, 3));
    assert_eq!((pid(web), web.level.of(State::CloseWait)), (Some(WEB), 2));
    assert_eq!(web.oldest, Held::AtLeast(20 * S));
    assert!(api.failed > 0.0 && web.failed == 0.0);
}

#[test]
fn the_order_is_that_of_the_column() {
    let frame = play(&story(), Ask { sort: Sort::CloseWait, ..Ask::default() }).frame();
    assert_eq!(frame.groups.rows.iter().map(pid).collect::<Vec<_>>(), [Some(WEB), Some(API)]);
}

#[test]
fn what_has_no_row_is_summed_up() {
    let frame = play(&story(), Ask { rows: 1, ..Ask::default() }).frame();
    assert_eq!((frame.groups.rows.len(), frame.groups.more, frame.others.of(State::CloseWait)), (1, 1, 2));
    assert_eq!((frame.waiters.rows.len(), frame.waiters.more), (1, 1));
}

#[test]
fn the_oldest_waiter_comes_first_with_its_holder() {
    let frame = top().frame();
    let seen = frame.waiters.rows.iter().map(|row| (row.age, row.owner.map(|it| it.task.pid), row.fd));
    let (old, new) = (Held::AtLeast(20 * S), Held::Exactly(6 * S));
    assert_eq!(seen.collect::<Vec<_>>(), [(old, Some(WEB), Some(57)), (new, Some(WEB), None)]);
}

/// A closed descriptor is none that a process has.
#[test]
fn a_waiter_that_was_closed_has_no_descriptor() {
    let mut items = story();
    items.extend(held(120 * S, 5, 58));
    items.extend(closes(121 * S, 5).into_iter().take(2));
    let frame = play(&items, Ask::default()).frame();
    let closed = frame.waiters.rows.iter().find(|row| row.state == State::FinWait2).expect("it waits");
    assert_eq!((closed.owner.map(|it| it.task.pid), closed.fd), (Some(API), None));
}

#[test]
fn rates_are_of_the_last_seconds() {
    let frame = top().frame();
    assert_eq!(frame.rates.failures, [(End::Refused, 0.1)]);
    assert!(frame.rates.closers.contains(&(Closer::NeverEstablished, 0.1)), "{:?}", frame.rates);
    assert_eq!(frame.seconds.len(), 21);
}

#[test]
fn ports_and_queues_are_counted() {
    let frame = play(&story(), Ask { by: By::Remote, ..Ask::default() }).frame();
    let [budget] = &frame.ports.rows[..] else { panic!("{:?}", frame.ports.rows) };
    assert_eq!((budget.usable, budget.taken, budget.free, budget.time_wait), (20, 8, 12, 3));
    let remote = frame.groups.rows.iter().find(|row| row.group.remote_port == Some(6379)).expect("the cache");
    assert_eq!(remote.ports.map(|ports| ports.0), Some(12));
    let frame = play(&story(), Ask { by: By::Lport, ..Ask::default() }).frame();
    let port = frame.groups.rows.iter().find(|row| row.group.local_port == Some(443)).expect("the port");
    assert_eq!(port.queue, Some((129, 128)));
    assert_eq!(frame.queues.rows.len(), 1);
}

#[test]
fn a_filter_counts_what_matches_and_is_undone() {
    let mut top = top();
    let names = Names::default();
    top.ask(
        Ask { criteria: vec![Criteria { states: vec![State::CloseWait], ..Criteria::default() }], ..Ask::default() },
        &names,
    );
    assert_eq!((top.frame().total(), top.frame().groups.rows.len()), (2, 1));
    top.ask(Ask::default(), &names);
    assert_eq!(top.frame().total(), 10);
}

#[test]
fn a_group_has_its_connections_and_a_connection_its_life() {
    let mut top = top();
    let web = top.frame().groups.rows[1].id;
    top.ask(Ask { detail: Detail::Group(By::Process, web), ..Ask::default() }, &Names::default());
    let (group, rows) = top.frame().connections.expect("the group");
    assert_eq!((group.pid, rows.rows.len(), rows.more), (Some(WEB), 2, 0));
    top.ask(Ask { detail: Detail::Connection(Key { origin: 0, conn: 50 }), ..Ask::default() }, &Names::default());
    let life = top.frame().connection.expect("the connection").first.life;
    let states: Vec<_> = life.known().map(|(state, from, to)| (state, to - from)).collect();
    assert_eq!(states, [(State::SynRecv, 1), (State::Established, S - 1), (State::CloseWait, 6 * S)]);
}

#[test]
fn a_connection_that_has_ended_is_still_shown() {
    let key = Key { origin: 0, conn: 4 };
    let ask = Ask { detail: Detail::Connection(key), ..Ask::default() };
    let end = 120 * S;
    let items = [story(), closes(end, 4), vec![Item::Event(Event::Passed { at: end + 200 * S })]].concat();
    let frame = play(&items, ask).frame();
    assert_eq!(frame.sockets(State::TimeWait), 0);
    assert!(frame.connection.is_some());
}

#[test]
fn the_past_is_as_it_was() {
    let top = top();
    let begun = top.oldest().expect("something is remembered");
    let frame = top.back(begun + 5 * SECOND).expect("it is remembered");
    assert_eq!(
        (frame.sockets(State::Established), frame.sockets(State::SynSent), frame.sockets(State::TimeWait)),
        (5, 1, 0)
    );
    assert!(frame.seconds.len() < 10);
}

#[test]
fn memory_is_bounded() {
    let many = (0..2_000_u64).flat_map(|at| connects((100 + at) * S, at % 100)).collect::<Vec<_>>();
    let top = play(&many, Ask::default());
    assert_eq!((top.history.len(), top.series.all().len()), (600, 600));
}
