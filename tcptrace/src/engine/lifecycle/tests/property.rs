//! In any order, and with anything missing, the engine invents nothing.

use std::collections::HashMap;

use proptest::prelude::*;

use super::script::{task, tuple};
use crate::engine::lifecycle::{Config, Engine};
use crate::model::event::{Birth, Cause, Change, EndFacts, Event, Flags, Found, Id, Kept, KilledBy, Mini, MiniEvent};
use crate::model::row::{Connection, Held, Row, Transition};
use crate::model::tcp::{Closer, State};

const START: u64 = 1_000_000;
const TIME_WAIT_NS: u64 = 60_000;

/// The lives that a socket can have, short of the opening.
const PATHS: &[&[State]] = &[
    &[State::Established, State::FinWait1, State::FinWait2, State::TimeWait],
    &[State::Established, State::FinWait1, State::Closing, State::TimeWait],
    &[State::Established, State::CloseWait, State::LastAck],
    &[State::Established, State::CloseWait],
    &[State::Established],
    &[State::Established, State::FinWait1],
    &[],
];

/// A life as it really was.
#[derive(Clone, Debug)]
struct Life {
    id: Id,
    /// States in order, each with the time of its beginning.
    states: Vec<(State, u64)>,
    ended: u64,
}

impl Life {
    fn length(&self, state: State) -> Option<u64> {
        let index = self.states.iter().position(|(visited, _)| *visited == state)?;
        let end = self.states.get(index + 1).map_or(self.ended, |(_, at)| *at);
        Some(end - self.states[index].1)
    }

    fn closer(&self) -> Option<Closer> {
        self.states.iter().rev().find_map(|(state, _)| match state {
            State::Closing => Some(Closer::Simultaneous),
            State::CloseWait => Some(Closer::Passive),
            State::FinWait1 if !self.states.iter().any(|(state, _)| *state == State::Closing) => Some(Closer::Active),
            _ => None,
        })
    }

    /// What the kernel would report.
    fn events(&self) -> Vec<Event> {
        let first = if self.states[0].0 == State::SynRecv { State::Listen } else { State::Closed };
        let mut old = first;
        let mut events = Vec::new();
        for &(new, at) in &self.states {
            // The full socket is closed when its TIME_WAIT begins.
            let new = if new == State::TimeWait { State::Closed } else { new };
            events.push(Event::Change(self.change(at, old, new)));
            old = new;
        }
        if old == State::Closed {
            events.push(Event::Mini(Mini {
                at: self.ended,
                id: self.id,
                tuple: tuple(),
                netns: Some(1),
                substate: State::TimeWait,
                due_ns: 0,
                what: MiniEvent::Expired,
            }));
        } else {
            events.push(Event::Change(self.change(self.ended, old, State::Closed)));
        }
        events
    }

    /// What the kernel would answer at that time.
    fn found(&self, at: u64) -> Option<Found> {
        let (state, _) = *self.states.iter().rev().find(|(_, since)| *since <= at).filter(|_| at < self.ended)?;
        let kept = match state {
            State::TimeWait => Kept::Mini { due_ns: self.ended - at },
            _ => Kept::Held,
        };
        let (id, tuple) = (self.id, tuple());
        Some(Found { at, id, tuple, netns: Some(1), uid: Some(0), cgroup: None, interface: 0, state, kept })
    }

    fn change(&self, at: u64, old: State, new: State) -> Change {
        let to_mini = new == State::Closed && self.states.last().is_some_and(|(state, _)| *state == State::TimeWait);
        let mini = if to_mini { Birth::Made { substate: State::TimeWait, due_ns: TIME_WAIT_NS } } else { Birth::None };
        let flags =
            Flags { has_socket: true, rcv_shutdown: true, send_shutdown: new == State::Closed, ..Flags::default() };
        Change {
            at,
            id: self.id,
            address: None,
            tuple: tuple(),
            netns: Some(1),
            uid: Some(0),
            cgroup: None,
            interface: 0,
            old,
            new,
            flags: Some(flags),
            idle: None,
            task: Some(task(1)),
            end: (new == State::Closed).then(|| EndFacts { all_acked: true, mini, ..EndFacts::default() }),
        }
    }
}

prop_compose! {
    fn life(cookie: u64)(
        path in prop::sample::select(PATHS),
        is_client in any::<bool>(),
        begin in START..START + 1_000,
        lengths in prop::collection::vec(1_u64..5_000, 7),
    ) -> Life {
        let opening = if is_client { State::SynSent } else { State::SynRecv };
        let mut at = begin;
        let mut states = Vec::new();
        for (state, length) in std::iter::once(&opening).chain(path).zip(lengths) {
            states.push((*state, at));
            // The kernel's timers are late, never early.
            at += if *state == State::TimeWait { TIME_WAIT_NS + length } else { length };
        }
        Life { id: Id::Cookie(cookie), states, ended: at }
    }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    (1_u64..12).prop_flat_map(|count| (1..=count).map(life).collect::<Vec<_>>())
}

/// All events of all lives, by time; those of one life keep their order.
fn stream(lives: &[Life]) -> Vec<Event> {
    let mut events: Vec<_> = lives.iter().flat_map(Life::events).collect();
    events.sort_by_key(Event::at);
    events
}

/// All questions at that time, answered at once.
fn survey(lives: &[Life], at: u64) -> Vec<Event> {
    let found = lives.iter().filter_map(|life| life.found(at)).map(Event::Found);
    let end = [Event::Surveyed { at, netns: 1 }, Event::SurveyEnded { at }];
    std::iter::once(Event::SurveyBegun { at }).chain(found).chain(end).collect()
}

fn run(events: &[Event], config: Config) -> Vec<Row> {
    let mut engine = Engine::new(config);
    let mut rows = Vec::new();
    engine.feed(&Event::Started { at: START - 1 }, &mut rows);
    for event in events {
        engine.feed(event, &mut rows);
    }
    engine.advance(u64::MAX / 2, &mut rows);
    rows
}

fn run_from(start: u64, events: &[Event]) -> Vec<Row> {
    let mut engine = Engine::new(Config::default());
    let mut rows = Vec::new();
    engine.feed(&Event::Started { at: start }, &mut rows);
    events.iter().for_each(|event| engine.feed(event, &mut rows));
    rows
}

/// So that a survey finds sockets that have settled.
const SLOWER: u64 = 1_000_000;

fn slowed_down(life: &Life) -> Life {
    let states = life.states.iter().map(|(state, since)| (*state, since * SLOWER)).collect();
    Life { id: life.id, states, ended: life.ended * SLOWER }
}

fn transitions(rows: &[Row]) -> impl Iterator<Item = &Transition> {
    rows.iter().filter_map(|row| match row {
        Row::Transition(row) => Some(row),
        Row::Connection(_) | Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => None,
    })
}

fn connections(rows: &[Row]) -> impl Iterator<Item = &Connection> {
    rows.iter().filter_map(|row| match row {
        Row::Connection(row) => Some(row),
        Row::Transition(_) | Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => None,
    })
}

fn by_number(lives: &[Life]) -> HashMap<u64, &Life> {
    lives.iter().map(|life| (number(life), life)).collect()
}

fn number(life: &Life) -> u64 {
    match life.id {
        Id::Cookie(number) | Id::Address(number) => number,
    }
}

/// An exact duration is exact, and a lower bound is not too high.
fn is_true(held: Held, truth: Option<u64>) -> bool {
    match (held, truth) {
        (Held::Unknown, _) => true,
        (Held::Exactly(ns), Some(truth)) => ns == truth,
        (Held::AtLeast(ns), Some(truth)) => ns <= truth,
        (_, None) => false,
    }
}

fn assert_nothing_invented(rows: &[Row], by_number: &HashMap<u64, &Life>) -> Result<(), TestCaseError> {
    for row in transitions(rows) {
        let life = by_number[&row.identity.conn];
        prop_assert!(is_true(row.held, life.length(row.old)), "{:?} of {:?}", row, life);
    }
    for connection in connections(rows) {
        let life = by_number[&connection.identity.conn];
        for stay in &connection.stays {
            prop_assert!(is_true(stay.held, life.length(stay.state)), "{:?} of {:?}", stay, life);
        }
    }
    Ok(())
}

/// How a TIME_WAIT ends.
const MINI_ENDS: &[MiniEvent] = &[
    MiniEvent::Expired,
    MiniEvent::Killed(KilledBy::Connect),
    MiniEvent::Killed(KilledBy::Reset),
    MiniEvent::Killed(KilledBy::Netns),
];

proptest! {
    #[test]
    fn with_nothing_missing_everything_is_told(lives in lives()) {
        let rows = run(&stream(&lives), Config::default());
        let by_number = by_number(&lives);
        prop_assert_eq!(connections(&rows).count(), lives.len());
        for connection in connections(&rows) {
            let life = by_number[&connection.identity.conn];
            prop_assert!(connection.complete, "{:?}", connection);
            let known: u64 = connection.stays.iter().filter_map(|stay| stay.held.known_ns()).sum();
            prop_assert_eq!(Some(known), connection.opened_ns.map(|opened| connection.boot_ns - opened));
            prop_assert_eq!(connection.boot_ns, life.ended);
            if let Some(closer) = life.closer() {
                prop_assert_eq!(connection.closer, closer);
            }
        }
        let changes: usize = lives.iter().map(|life| life.states.len() + 1).sum();
        prop_assert_eq!(transitions(&rows).count(), changes);
    }

    #[test]
    fn with_anything_missing_nothing_is_invented(
        lives in lives(),
        keep in prop::collection::vec(prop::bool::weighted(0.7), 120),
        max_sockets in prop::sample::select(vec![1_usize, 3, 1_000]),
    ) {
        let mut events = Vec::new();
        let mut missing = false;
        for (event, keep) in stream(&lives).into_iter().zip(keep) {
            // A loss is noticed before the next event and again after it, as by the reader.
            if keep && missing {
                events.push(Event::Lost { at: event.at(), cause: Cause::RingFull, events: 1 });
                missing = false;
            }
            if keep { events.push(event) } else { missing = true }
        }
        let rows = run(&events, Config { sockets: max_sockets, ..Config::default() });
        let by_number = by_number(&lives);
        assert_nothing_invented(&rows, &by_number)?;
        for connection in connections(&rows) {
            let life = by_number[&connection.identity.conn];
            if let Some(opened) = connection.opened_ns {
                let known: u64 = connection.stays.iter().filter_map(|stay| stay.held.known_ns()).sum();
                prop_assert!(known <= connection.boot_ns - opened);
                prop_assert_eq!(opened, life.states[0].1);
            }
        }
        let mut ended: Vec<_> = connections(&rows).map(|row| (row.identity.conn, row.opened_ns)).collect();
        ended.sort_unstable();
        ended.dedup();
        if max_sockets > lives.len() {
            prop_assert_eq!(ended.len(), connections(&rows).count(), "each life ends once");
        }
    }

    /// Whatever a mini-socket does first, whether that overtakes the closing, or the closing is missing.
    #[test]
    fn closings_that_are_missing_are_noticed_and_counted(
        lives in lives(),
        missing in prop::collection::vec(any::<bool>(), 12),
        ends in prop::collection::vec(prop::sample::select(MINI_ENDS), 12),
        rearmed in prop::collection::vec(any::<bool>(), 12),
        shuffle in prop::collection::vec(any::<bool>(), 12),
    ) {
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        for (index, life) in lives.iter().enumerate() {
            let mut own = life.events();
            if let Some(Event::Mini(end)) = own.pop_if(|last| matches!(last, Event::Mini(_)))
                && let Some(closing) = own.pop()
            {
                let early = Event::Mini(Mini { at: closing.at(), what: MiniEvent::Rearmed, ..end });
                let end = Event::Mini(Mini { what: ends[index], ..end });
                let mut rest = if rearmed[index] { vec![closing, early, end] } else { vec![closing, end] };
                if missing[index] {
                    rest.remove(0);
                    lost.push(number(life));
                } else if shuffle[index] {
                    // Whatever the clock says. A timer never overtakes it.
                    let overtaking = rest.len() - 1 - usize::from(ends[index] == MiniEvent::Expired);
                    rest[..=overtaking].rotate_left(1);
                }
                own.extend(rest);
            }
            events.push(own);
        }
        // In turn, each in its own order.
        let mut stream = Vec::new();
        let mut queues: Vec<_> = events.into_iter().map(std::collections::VecDeque::from).collect();
        while let Some(queue) = queues.iter_mut().filter(|queue| !queue.is_empty()).min_by_key(|queue| queue[0].at()) {
            stream.extend(queue.pop_front());
        }
        let rows = run(&stream, Config::default());
        let by_number = by_number(&lives);
        assert_nothing_invented(&rows, &by_number)?;
        prop_assert_eq!(connections(&rows).count(), lives.len(), "each life ends once");
        for connection in connections(&rows) {
            prop_assert_eq!(connection.complete, !lost.contains(&connection.identity.conn), "{:?}", connection);
        }
        let losses = rows.iter().filter(|row| matches!(row, Row::Loss(loss) if loss.cause == Cause::Unreported));
        prop_assert_eq!(losses.count(), lost.len());
    }

    #[test]
    fn surveys_invent_nothing_and_miss_nothing(
        lives in lives(),
        keep in prop::collection::vec(prop::bool::weighted(0.7), 120),
        first in START..START + 5_000,
        times in prop::collection::btree_set(START..START + 80_000, 0..4),
    ) {
        // Tracing begins with a survey; what was before is not seen. Later ones follow losses.
        let mut asked = vec![first];
        asked.extend(times.into_iter().filter(|at| *at > first));
        let mut rest = stream(&lives).into_iter().filter(|event| event.at() > first).zip(keep).peekable();
        let (mut events, mut missing) = (vec![Event::Started { at: first }], false);
        for (index, at) in asked.iter().enumerate() {
            if missing {
                events.push(Event::Lost { at: *at, cause: Cause::RingFull, events: 1 });
                missing = false;
            }
            events.extend(survey(&lives, *at));
            let until = asked.get(index + 1).copied().unwrap_or(u64::MAX);
            while let Some((event, keep)) = rest.next_if(|(event, _)| event.at() <= until) {
                if keep && missing {
                    events.push(Event::Lost { at: event.at(), cause: Cause::RingFull, events: 1 });
                    missing = false;
                }
                if keep { events.push(event) } else { missing = true }
            }
        }
        let end = START + 1_000_000_000;
        events.push(Event::Lost { at: end, cause: Cause::RingFull, events: 1 });
        events.extend(survey(&lives, end));
        let rows = run(&events, Config::default());
        let by_number = by_number(&lives);
        assert_nothing_invented(&rows, &by_number)?;
        for connection in connections(&rows) {
            let life = by_number[&connection.identity.conn];
            prop_assert!(!connection.complete || life.states[0].1 > first, "{:?} of {:?}", connection, life);
        }
        let mut ended: Vec<_> = connections(&rows).map(|row| row.identity.conn).collect();
        let told = ended.len();
        ended.sort_unstable();
        ended.dedup();
        prop_assert_eq!(ended.len(), told, "each life ends once");
        for life in lives.iter().filter(|life| life.found(first).is_some()) {
            prop_assert!(ended.contains(&number(life)), "{:?} was found, and never ended", life);
        }
    }

    /// The kernel reports neither the end nor the destruction of some, nor a loss; and a survey can skip a socket.
    #[test]
    fn what_two_surveys_do_not_find_has_ended_and_nothing_else(
        lives in lives(),
        missing in prop::collection::vec(any::<bool>(), 12),
        times in prop::collection::btree_set(START..START + 40_000, 0..12),
        passed_over in prop::collection::vec(0_usize..24, 12),
    ) {
        // Mini-sockets end by their timer.
        let lives: Vec<_> = lives.iter().filter(|it| it.length(State::TimeWait).is_none()).map(slowed_down).collect();
        let is_missing = |life: &Life| missing[number(life) as usize - 1];
        let mut events: Vec<_> = lives.iter().flat_map(|life| {
            let mut own = life.events();
            own.truncate(own.len() - usize::from(is_missing(life)));
            own
        }).collect();
        let end = (START + 60_000) * SLOWER;
        let asked = times.into_iter().map(|at| at * SLOWER).chain([end, end + SLOWER]);
        for (index, at) in asked.enumerate() {
            // Never the same one twice in a row: one survey skips even ones, the next odd ones.
            let passed_over = Some(passed_over[index % 12]).filter(|number| number % 2 == index % 2);
            let is_answer = |event: &Event| match event {
                Event::Found(found) => Some(found.id.number() as usize) != passed_over,
                _ => true,
            };
            events.extend(survey(&lives, at).into_iter().filter(is_answer));
        }
        events.sort_by_key(Event::at);
        let rows = run_from(START * SLOWER - 1, &events);
        let by_number = by_number(&lives);
        assert_nothing_invented(&rows, &by_number)?;
        let mut ended: Vec<_> = connections(&rows).map(|row| row.identity.conn).collect();
        ended.sort_unstable();
        prop_assert_eq!(ended, lives.iter().map(number).collect::<Vec<_>>(), "each life ends once");
        for connection in connections(&rows) {
            let life = by_number[&connection.identity.conn];
            prop_assert_eq!(connection.complete, !is_missing(life), "{:?} of {:?}", connection, life);
            prop_assert!(connection.boot_ns >= life.ended, "{:?} of {:?}", connection, life);
        }
        let losses = rows.iter().filter(|row| matches!(row, Row::Loss(loss) if loss.cause == Cause::Unreported));
        prop_assert_eq!(losses.count(), lives.iter().filter(|life| is_missing(life)).count());
    }

    #[test]
    fn disorder_and_addresses_used_again_do_no_harm(
        lives in lives(),
        shuffle in prop::collection::vec(any::<prop::sample::Index>(), 40),
        addresses in 1_u64..4,
    ) {
        let lives: Vec<_> = lives
            .into_iter()
            .map(|life| Life { id: Id::Address(number(&life) % addresses), ..life })
            .collect();
        let mut events = stream(&lives);
        for pair in shuffle.chunks_exact(2) {
            let (one, other) = (pair[0].index(events.len()), pair[1].index(events.len()));
            events.swap(one, other);
        }
        for connection in connections(&run(&events, Config::default())) {
            let known: u64 = connection.stays.iter().filter_map(|stay| stay.held.known_ns()).sum();
            prop_assert!(known < 10_000_000, "{:?}", connection);
        }
    }
}
