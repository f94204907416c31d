//! Evidence of two times that follow one another.

use super::*;
use crate::model::event::{Mini, ResetReason};

/// A life that begins at a time, in ms, and how it goes.
type Life = (u64, u8);

/// The items of a life, with what else happens then.
fn items(conn: u64, (at_ms, kind): Life) -> Vec<Item> {
    let at = S + at_ms * MS;
    let tuple = outgoing(conn);
    let served = incoming(conn);
    let task = Task { pid: 4711 + u32::from(kind), ..task() };
    let to = |at, tuple, old, new| Change { task: Some(task), ..change(at, conn, tuple, old, new) };
    let born = [
        event(to(at, served, State::Listen, State::SynRecv)),
        event(to(at + 1, served, State::SynRecv, State::Established)),
    ];
    match kind {
        // Closed here after less than a second, and begun anew in TIME_WAIT.
        0..4 => {
            let rearmed = Mini {
                at: at + 6_000 * MS,
                id: Id::Cookie(conn),
                tuple,
                netns: Some(NETNS),
                substate: State::TimeWait,
                due_ns: (60 * S).cast_signed(),
                what: MiniEvent::Rearmed,
            };
            let expired = Mini { at: at + 15_000 * MS, due_ns: 0, what: MiniEvent::Expired, ..rearmed };
            let minis = if kind == 0 { vec![rearmed, expired] } else { vec![expired] };
            let minis = minis.into_iter().map(|mini| Item::Event(Event::Mini(mini)));
            short(at, conn, u64::from(kind) * 300).into_iter().chain(minis).collect()
        }
        // Waits in CLOSE_WAIT for long.
        4 => [
            &born[..],
            &[
                Item::Event(Event::Accepted { at: at + 2, id: Id::Cookie(conn), task }),
                event(to(at + 3, served, State::Established, State::CloseWait)),
                event(to(at + 4_000 * MS, served, State::CloseWait, State::LastAck)),
                event(Change {
                    end: Some(EndFacts { all_acked: true, ..EndFacts::default() }),
                    flags: Some(Flags { dead: true, done: true, ..Flags::default() }),
                    ..to(at + 4_001 * MS, served, State::LastAck, State::Closed)
                }),
            ],
        ]
        .concat(),
        // Reset by the other end, which is here, too, and ends later.
        5 => {
            let other = conn + 1_000;
            let facing = |at, old, new| Change { id: Id::Cookie(other), ..to(at, tuple.reversed(), old, new) };
            let reset = EndFacts { err: 104, ..EndFacts::default() };
            vec![
                event(to(at, tuple, State::Closed, State::SynSent)),
                event(to(at + 1, tuple, State::SynSent, State::Established)),
                event(facing(at + 1, State::Listen, State::SynRecv)),
                event(facing(at + 2, State::SynRecv, State::Established)),
                event(Change { end: Some(reset), ..to(at + 500 * MS, tuple, State::Established, State::Closed) }),
                event(Change { end: Some(reset), ..facing(at + 3_000 * MS, State::Established, State::Closed) }),
                Item::Event(Event::ResetSent {
                    at: at + 3_000 * MS,
                    id: Id::Cookie(other),
                    reason: ResetReason::default(),
                }),
            ]
        }
        // What is not about a connection.
        _ => {
            let call = FailedCall {
                at,
                call: Call::Bind,
                errno: 98,
                task,
                fd: 3,
                netns: Some(NETNS),
                address: Some((ip(1), 80)),
            };
            let counts = [("TcpExt.ListenOverflows".into(), conn)].into();
            let levels = [("conntrack.count".into(), at_ms)].into();
            let sample = Sample { at, netns: NETNS, counts, levels, ..Sample::default() };
            let limit = Limit { pid: task.pid, descriptors: Some(at_ms), soft: Some(1_024), hard: None };
            vec![
                Item::Event(Event::FailedCall(call)),
                Item::Counters(Box::new(sample)),
                queue(at, u32::try_from(conn).expect("few")),
                Item::Limits(Box::new(Limits { at, processes: vec![limit] })),
                event(to(at, Tuple { remote_port: 7, ..tuple }, State::Closed, State::SynSent)),
            ]
        }
    }
}

fn all_items(lives: &[Life]) -> Vec<Item> {
    let mut all: Vec<Item> = (1..).zip(lives).flat_map(|(conn, life)| items(conn, *life)).collect();
    all.sort_by_key(at);
    all
}

fn at(item: &Item) -> u64 {
    match item {
        Item::Event(event) => event.at(),
        Item::Counters(sample) => sample.at,
        Item::AcceptQueues(queues) => queues.at,
        Item::Limits(limits) => limits.at,
        _ => 0,
    }
}

/// Everything that is counted, in order.
fn shown(gatherer: &Gatherer, open: &[Connection]) -> Vec<String> {
    let Evidence { about, pairs, unpaired, binders, counters, listeners, limits, calls, .. } =
        gatherer.evidence(open.to_vec());
    let evidence = gatherer.clone().finish(open.to_vec(), true);
    assert_eq!(format!("{pairs:?}"), format!("{:?}", evidence.pairs), "both ways to evidence");
    let mut left: Vec<_> = evidence.left_ports.iter().collect();
    left.sort_unstable();
    let mut bound: Vec<_> = evidence.bound_first.iter().collect();
    bound.sort_unstable();
    let ports: Vec<_> = evidence.client_ports.iter().map(|(netns, ports)| (netns, ports.count())).collect();
    let mut shown = vec![format!("{about:?}"), format!("{unpaired} {left:?} {bound:?} {ports:?}")];
    shown.extend(pairs.iter().map(|pair| {
        // Which state came first depends on when looking began.
        let mut pair = pair.clone();
        pair.stays.sort_by_key(|(state, _)| *state as u8);
        format!("{pair:?}")
    }));
    shown.extend([format!("{binders:?}"), format!("{counters:?}"), format!("{listeners:?}"), format!("{limits:?}")]);
    shown.push(format!("{calls:?}"));
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Evidence of the time before and of this one is that of both together: nothing counts for an earlier one.
    #[test]
    fn two_times_are_as_good_as_one(
        lives in proptest::collection::vec((0_u64..30_000, 0_u8..7), 1..60),
        turns in (0_u64..20_000, 1_u64..15_000),
    ) {
        let config = Config { at_close: true, ..Config::default() };
        let mut follower = Follower::new(config, [], Origin::default());
        let mut turned = Gatherer::new(false);
        let mut whole = turned.clone();
        let turns = [turns.0, turns.0 + turns.1].map(|ms| S + ms * MS);
        let mut next = turns.iter().peekable();
        for (number, item) in [started()].iter().chain(&all_items(&lives)).enumerate() {
            while next.next_if(|turn| **turn <= at(item)).is_some() {
                turned.renew();
                if next.peek().is_some() {
                    // The one that counts both is as the first turn left it, and has counted nothing.
                    whole = turned.clone();
                    whole.forget();
                }
            }
            turned.item(item);
            whole.item(item);
            let Ok(()) = follower.take::<Infallible>(std::slice::from_ref(item), |row, _| {
                turned.row(row);
                whole.row(row);
                Ok(())
            });
            if next.peek().is_none() && number % 8 == 0 {
                let mut open = Vec::new();
                let Ok(()) = follower.take_open::<Infallible>(|row, _| {
                    open.extend(if let Row::Connection(row) = row { Some(row.clone()) } else { None });
                    Ok(())
                });
                prop_assert_eq!(shown(&turned, &open), shown(&whole, &open));
            }
        }
    }
}
