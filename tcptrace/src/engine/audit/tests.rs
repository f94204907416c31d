use std::net::Ipv6Addr;

use rstest::rstest;

use super::*;
use crate::model::counters::Unseen;
use crate::model::event::{
    Birth, Cause, Change, EndFacts, Event, Flags, Id, KilledBy, Losses, Mini, MiniEvent, ResetReason,
};
use crate::model::finding::{Counter, Finding, MARGIN_NS, Reading, Verdict};
use crate::model::stream::Item;
use crate::model::tcp::{State, Tuple};

const NETNS: u32 = 7;
const MS: u64 = 1_000_000;
/// The first and the last reading of the counters.
const FIRST: u64 = 10_000 * MS;
const LAST: u64 = 20_000 * MS;
/// Well between.
const AT: u64 = 15_000 * MS;

fn tuple(local_port: u16) -> Tuple {
    Tuple { local_ip: Ipv6Addr::LOCALHOST, remote_ip: Ipv6Addr::LOCALHOST, local_port, remote_port: 80 }
}

fn change(at: u64, old: State, new: State) -> Change {
    let end = (new == State::Closed).then(|| EndFacts { mini: Birth::None, ..EndFacts::default() });
    Change {
        at,
        id: Id::Cookie(1),
        address: None,
        tuple: tuple(5),
        netns: Some(NETNS),
        uid: None,
        cgroup: None,
        interface: 0,
        old,
        new,
        flags: Some(Flags::default()),
        idle: None,
        task: None,
        end,
    }
}

fn failed(old: State, err: u16) -> Change {
    let change = change(AT, old, State::Closed);
    Change { end: change.end.map(|end| EndFacts { err, ..end }), ..change }
}

fn closed(old: State, flags: Flags, mini: Birth) -> Change {
    let change = change(AT, old, State::Closed);
    Change { flags: Some(flags), end: change.end.map(|end| EndFacts { mini, all_acked: true, ..end }), ..change }
}

fn mini(at: u64, what: MiniEvent) -> Event {
    let (id, substate) = (Id::Cookie(1), State::TimeWait);
    Event::Mini(Mini { at, id, tuple: tuple(5), netns: Some(NETNS), substate, due_ns: 0, what })
}

fn reading(at: u64, values: [u64; 8]) -> Reading {
    Reading { netns: NETNS, cookie: Some(1), from: at, to: at, values: values.map(Some), ..Reading::default() }
}

fn tally(events: &[Event]) -> Tally {
    let mut tally = Tally::new(&[reading(FIRST, [0; 8])]);
    tally.last_call(LAST - MARGIN_NS);
    events.iter().for_each(|event| tally.take(&Item::Event(*event)));
    tally
}

/// What was seen of which counters, and how much of that is doubtful.
fn counted(events: &[Event]) -> Vec<(&'static str, u64, u64)> {
    let tally = tally(events);
    let counts = tally.counts().get(&NETNS).copied().unwrap_or_default();
    Counter::ALL
        .iter()
        .map(|counter| (counter.as_str(), counts.seen[*counter as usize], counts.doubtful[*counter as usize]))
        .filter(|(_, seen, doubtful)| seen + doubtful > 0)
        .collect()
}

fn retransmitting(change: Change) -> Change {
    Change { end: change.end.map(|end| EndFacts { retransmits: 3, ..end }), ..change }
}

fn no_port(change: Change) -> Change {
    Change { tuple: tuple(0), ..change }
}

fn both_shut(change: Change) -> Change {
    Change { flags: Some(Flags { rcv_shutdown: true, send_shutdown: true, ..Flags::default() }), ..change }
}

#[rstest]
#[case::connect(&[change(AT, State::Closed, State::SynSent)], &[("ActiveOpens", 1, 0)])]
#[case::connect_without_a_port(
    &[no_port(change(AT, State::Closed, State::SynSent)), no_port(failed(State::SynSent, 0))], &[]
)]
#[case::closed_while_connecting(
    &[change(AT, State::Closed, State::SynSent), both_shut(failed(State::SynSent, 0))], &[("ActiveOpens", 1, 0)]
)]
#[case::given_up_with_a_port(
    &[change(AT, State::Closed, State::SynSent), failed(State::SynSent, 0)], &[("ActiveOpens", 1, 1)]
)]
#[case::refused(
    &[change(AT, State::Closed, State::SynSent), failed(State::SynSent, 111)],
    &[("ActiveOpens", 1, 0), ("AttemptFails", 1, 0)]
)]
#[case::a_child(&[change(AT, State::Listen, State::SynRecv)], &[("PassiveOpens", 1, 0)])]
#[case::a_child_reset(&[failed(State::SynRecv, 104)], &[("AttemptFails", 1, 0)])]
#[case::a_child_dropped(&[failed(State::SynRecv, 0)], &[("AttemptFails", 0, 1)])]
#[case::reset(&[failed(State::Established, 104)], &[("EstabResets", 1, 0)])]
#[case::reset_in_close_wait(&[failed(State::CloseWait, 32)], &[("EstabResets", 1, 0)])]
#[case::last_ack(&[failed(State::LastAck, 0)], &[])]
#[case::an_orphan_given_up(&[failed(State::LastAck, 110)], &[("TCPAbortOnTimeout", 1, 0)])]
#[case::given_up_while_connecting(
    &[failed(State::SynSent, 110)], &[("AttemptFails", 1, 0), ("TCPAbortOnTimeout", 1, 0)]
)]
#[case::unreachable_at_once_or_in_the_end(&[failed(State::FinWait1, 113)], &[("TCPAbortOnTimeout", 0, 1)])]
#[case::error_fetched(&[retransmitting(failed(State::FinWait1, 0))], &[("TCPAbortOnTimeout", 0, 1)])]
#[case::refused_after_retransmissions(
    &[retransmitting(failed(State::SynSent, 111))], &[("AttemptFails", 1, 0), ("TCPAbortOnTimeout", 0, 1)]
)]
#[case::time_wait(
    &[closed(State::FinWait2, Flags { done: true, ..Flags::default() }, Birth::Made { substate: State::TimeWait, due_ns: 60_000 * MS })],
    &[("TW+TWKilled", 1, 0)]
)]
#[case::refused_by_the_limit(
    &[closed(State::FinWait2, Flags { done: true, ..Flags::default() }, Birth::None)], &[("TCPTimeWaitOverflow", 1, 0)]
)]
#[case::an_orphan_refused_by_the_limit(
    &[closed(State::FinWait2, Flags { dead: true, ..Flags::default() }, Birth::None)], &[("TCPTimeWaitOverflow", 1, 0)]
)]
#[case::nobody_looked(&[closed(State::FinWait2, Flags { done: true, ..Flags::default() }, Birth::NotWatched)], &[])]
fn one_event_counts_once(#[case] changes: &[Change], #[case] expected: &[(&str, u64, u64)]) {
    let events: Vec<Event> = changes.iter().copied().map(Event::Change).collect();
    assert_eq!(counted(&events), expected);
}

#[test]
fn an_orphan_that_answers_data_with_a_reset_was_not_refused() {
    let change = closed(State::FinWait2, Flags { dead: true, ..Flags::default() }, Birth::None);
    let reset = Event::ResetSent { at: AT + 1, id: change.id, reason: ResetReason::AbortOnData };
    assert_eq!(counted(&[Event::Change(change), reset]), []);
    assert_eq!(counted(&[Event::Change(change), reset, reset]), [], "once only");
}

/// It may be the first that is seen of that socket.
#[test]
fn refusals_are_doubtful_once_events_were_lost() {
    let mut tally = tally(&[]);
    tally.take(&Item::Losses(Losses { ring_full: 1, ..Losses::default() }));
    let change = closed(State::FinWait2, Flags { done: true, ..Flags::default() }, Birth::None);
    tally.take(&Item::Event(Event::Change(change)));
    let counts = tally.counts()[&NETNS];
    let place = Counter::TwOverflow as usize;
    assert_eq!((counts.seen[place], counts.doubtful[place]), (1, 1));
}

#[rstest]
#[case(KilledBy::Connect, &[("TWRecycled", 1, 0)])]
#[case(KilledBy::Segment, &[])]
#[case(KilledBy::Unknown, &[("TWRecycled", 0, 1)])]
fn mini_sockets(#[case] by: KilledBy, #[case] expected: &[(&str, u64, u64)]) {
    assert_eq!(counted(&[mini(AT, MiniEvent::Killed(by))]), expected);
}

/// By the margin around each reading: whether an event counts as seen or as doubtful.
#[rstest]
#[case::long_before(FIRST - MARGIN_NS - 1, 0, 0)]
#[case::just_before(FIRST, 0, 1)]
#[case::just_after(FIRST + 1, 1, 1)]
#[case::after(FIRST + MARGIN_NS + 1, 1, 0)]
#[case::before_the_last(LAST - MARGIN_NS, 1, 0)]
#[case::just_before_the_last(LAST, 1, 1)]
#[case::just_after_the_last(LAST + 1, 0, 1)]
fn events_at_the_moment_of_reading(#[case] at: u64, #[case] seen: u64, #[case] doubtful: u64) {
    let events = [Event::Change(change(at, State::Closed, State::SynSent)), mini(at, MiniEvent::Expired)];
    let tally = tally(&events);
    let counts = tally.counts().get(&NETNS).copied().unwrap_or_default();
    assert_eq!((counts.seen[0], counts.doubtful[0]), (seen, doubtful));
    assert_eq!((counts.expired, counts.expired_doubtful), (seen, doubtful));
}

fn scope() -> Scope {
    Scope { namespaces: Vec::new(), counters: Counter::ALL.to_vec(), counts_made: true }
}

fn opens(count: usize) -> Vec<Event> {
    vec![Event::Change(change(AT, State::Closed, State::SynSent)); count]
}

/// The verdict, and the differences that it is drawn from.
fn verdict(tally: &Tally, first: &[Reading], last: &[Reading]) -> (Verdict, Vec<(&'static str, u64, u64)>) {
    let mut findings = compare(tally, first, last, &scope(), 0);
    let Some(Finding::Verdict(verdict)) = findings.pop() else { unreachable!("it comes last") };
    let compared = findings.iter().map(|finding| match finding {
        Finding::Counter(row) => (row.counter.as_str(), row.seen, row.expected),
        Finding::Unseen(row) => (row.counter.as_str(), 0, row.increase),
        Finding::Verdict(_) => unreachable!("there is one"),
    });
    (verdict, compared.collect())
}

#[test]
fn what_agrees_is_shown_with_no_difference() {
    let (first, last) = (reading(FIRST, [4, 1, 0, 0, 0, 0, 0, 0]), reading(LAST, [7, 1, 0, 0, 0, 0, 0, 0]));
    let (verdict, compared) = verdict(&tally(&opens(3)), &[first], &[last]);
    assert_eq!(compared, [("ActiveOpens", 3, 3)]);
    assert_eq!(verdict, Verdict { namespaces: 1, transitions: 3, ..Verdict::default() });
}

#[test]
fn what_no_event_tells_is_shown_and_not_missing() {
    let mut readings = [reading(FIRST, [0; 8]), reading(LAST, [0; 8])];
    readings[0].unseen[Unseen::ListenDrops as usize] = 5;
    readings[1].unseen[Unseen::ListenDrops as usize] = 12;
    let [first, last] = readings;
    let (found, compared) = verdict(&tally(&[]), &[first], std::slice::from_ref(&last));
    assert_eq!(compared, [("ListenDrops", 0, 7)]);
    assert_eq!(found, Verdict { namespaces: 1, ..Verdict::default() });
    let (_, compared) = verdict(&tally(&[]), &[], std::slice::from_ref(&last));
    assert_eq!(compared, [("ListenDrops", 0, 12)], "the namespace is new");
    let another = Reading { cookie: Some(2), ..reading(FIRST, [0; 8]) };
    let (found, compared) = verdict(&tally(&[]), &[another], &[last]);
    assert_eq!((found.unclear, compared.len()), (1, 0), "the number was another's");
}

#[test]
fn what_losses_do_not_explain_is_missing() {
    let last = reading(LAST, [9, 0, 0, 2, 0, 0, 0, 0]);
    let mut tally = tally(&opens(3));
    let first = [reading(FIRST, [0; 8])];
    assert_eq!(verdict(&tally, &first, std::slice::from_ref(&last)).0.unexplained, 8);
    tally.take(&Item::Losses(Losses { ring_full: 4, recursion: 1, unwritten: 100, ..Losses::default() }));
    let (verdict, compared) = verdict(&tally, &first, &[last]);
    assert_eq!((verdict.lost, verdict.unexplained), (5, 3), "what was not written was seen");
    assert_eq!(compared, [("ActiveOpens", 3, 9), ("EstabResets", 0, 2)]);
}

#[test]
fn events_at_the_moment_of_reading_explain_a_difference() {
    let mut events = opens(3);
    events.extend([Event::Change(change(LAST, State::Closed, State::SynSent)); 2]);
    let first = [reading(FIRST, [0; 8])];
    let of = |value| verdict(&tally(&events), &first, &[reading(LAST, [value, 0, 0, 0, 0, 0, 0, 0])]).0.unexplained;
    assert_eq!([3, 5, 7, 8].map(of), [0, 0, 0, 1]);
}

/// Requests that were reset before they became sockets count too.
#[test]
fn attempts_that_no_event_tells_of() {
    let last = Reading { embryonic_resets: 2, ..reading(LAST, [0, 0, 3, 0, 0, 0, 0, 0]) };
    let (verdict, compared) = verdict(&tally(&[]), &[reading(FIRST, [0; 8])], &[last]);
    assert_eq!((compared, verdict.unexplained), (vec![("AttemptFails", 0, 3)], 1));
}

#[test]
fn more_than_the_kernel_has_counted_is_no_less_wrong() {
    let (verdict, _) =
        verdict(&tally(&opens(3)), &[reading(FIRST, [0; 8])], &[reading(LAST, [1, 0, 0, 0, 0, 0, 0, 0])]);
    assert_eq!(verdict.unexplained, 2);
}

#[test]
fn namespaces_come_and_go() {
    let of = |first: &[Reading], last: &[Reading]| {
        let mut tally = Tally::new(first);
        opens(2).into_iter().for_each(|event| tally.take(&Item::Event(event)));
        verdict(&tally, first, last).0
    };
    let (two, one) = (reading(LAST, [2, 0, 0, 0, 0, 0, 0, 0]), reading(LAST, [1, 0, 0, 0, 0, 0, 0, 0]));
    let first = reading(FIRST, [0; 8]);
    assert_eq!(
        of(&[], std::slice::from_ref(&two)),
        Verdict { namespaces: 1, transitions: 2, ..Verdict::default() },
        "a new one began with 0"
    );
    assert_eq!(of(std::slice::from_ref(&first), &[]), Verdict { gone: 1, ..Verdict::default() });
    assert_eq!(of(&[], &[]), Verdict { gone: 1, ..Verdict::default() }, "it came and went");
    assert_eq!(of(&[], &[one]), Verdict { unclear: 1, ..Verdict::default() }, "another had its number");
    let another = Reading { cookie: Some(2), ..two };
    assert_eq!(of(&[first], &[another]), Verdict { unclear: 1, ..Verdict::default() });
}

#[test]
fn only_what_is_in_scope_is_compared() {
    let scope = |namespaces: &[u32], counters: &[Counter]| Scope {
        namespaces: namespaces.to_vec(),
        counters: counters.to_vec(),
        counts_made: false,
    };
    let mut events = opens(1);
    events.push(mini(AT, MiniEvent::Expired));
    let last = reading(LAST, [1, 0, 0, 0, 1, 0, 0, 0]);
    let findings = |scope: &Scope| compare(&tally(&events), &[], std::slice::from_ref(&last), scope, 0).len() - 1;
    assert_eq!(findings(&scope(&[], &Counter::ALL)), 2, "connections begun, and timers that fired");
    assert_eq!(findings(&scope(&[NETNS], &[Counter::Tw])), 1);
    assert_eq!(findings(&scope(&[NETNS + 1], &Counter::ALL)), 0);
}

#[test]
fn events_without_a_namespace_are_nobodys() {
    let change = Change { netns: None, ..change(AT, State::Closed, State::SynSent) };
    assert_eq!(counted(&[Event::Change(change), Event::Lost { at: AT, cause: Cause::RingFull, events: 3 }]), []);
}

/// Orphans that a timer closes end in no state that another counter counts.
#[test]
fn orphans_whose_end_was_not_seen_are_missed() {
    let events = [Event::Change(failed(State::LastAck, 110))];
    let first = [reading(FIRST, [0; 8])];
    let last = [reading(LAST, [0, 0, 0, 0, 0, 0, 0, 3])];
    assert_eq!(verdict(&tally(&events), &first, &last).0.unexplained, 2);
}
