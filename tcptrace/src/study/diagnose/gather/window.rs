//! Tests of what counts: from when on, and what has ended.

use super::{Gatherer, Need};
use crate::model::accepts::Accepts;
use crate::model::counters::Sample;
use crate::model::event::{Cause, Event};
use crate::model::row::Held;
use crate::model::stream::{Head, Item};
use crate::model::tcp::{End, State};
use crate::study::report::testing::{connection, open};

/// An engine that puts connections out after their TIME_WAIT leaves those open that are in it.
#[test]
fn what_is_in_time_wait_has_ended() {
    let row = || open(connection(&[]), State::TimeWait, Held::Exactly(1));
    for (ends_late, expected) in [(true, 1), (false, 0)] {
        let mut gatherer = Gatherer::new(true);
        if ends_late {
            gatherer.ends_late();
        }
        let evidence = gatherer.finish([row()], true);
        let by_fin: u64 = evidence.pairs.iter().map(|pair| pair.ended_by(End::Fin)).sum();
        assert_eq!((evidence.about.ended, by_fin), (expected, expected));
        assert_eq!(evidence.sockets.len(), 1, "it still exists");
    }
}

#[test]
fn what_came_before_the_time_that_was_asked_for_does_not_count() {
    const NAME: &str = "TcpExt.ListenOverflows";
    let mut gatherer = Gatherer::new(true);
    gatherer.count_from(10);
    for (at, more) in [(5, 3), (15, 4)] {
        let counts = [(NAME.into(), more)].into();
        gatherer.item(&Item::Counters(Box::new(Sample { at, netns: 1, counts, ..Sample::default() })));
    }
    assert_eq!(gatherer.finish([], true).grown(1, NAME), 4);
}

#[test]
fn the_highest_level_of_the_window_is_kept() {
    const NAME: &str = "conntrack.count";
    let mut gatherer = Gatherer::new(true);
    gatherer.count_from(10);
    for (at, whole, level) in [(3, false, 90), (5, true, 20), (15, false, 70), (20, false, 30), (25, true, 10)] {
        let levels = [(NAME.into(), level)].into();
        gatherer.item(&Item::Counters(Box::new(Sample { at, whole, netns: 1, levels, ..Sample::default() })));
    }
    let evidence = gatherer.finish([], true);
    assert_eq!((evidence.peak(1, NAME), evidence.peak_of_host(NAME), evidence.peak(2, NAME)), (70, 70, 0));
    assert_eq!(evidence.counters[&1].levels[NAME], 10);
}

/// What the head says of accepts, and what came later.
#[test]
fn accepts_are_there_if_they_were_seen_all_the_time() {
    let lacks = |accepts: Accepts, events: &[Event]| {
        let mut gatherer = Gatherer::new(true);
        gatherer.item(&Item::Head(Box::new(Head { accepts, ..Head::default() })));
        events.iter().for_each(|event| gatherer.item(&Item::Event(*event)));
        gatherer.finish([], true).lacks(Need::Accepts)
    };
    let watched = |at, watched| Event::AcceptsWatched { at, watched };
    let started = Event::Started { at: 5 };
    assert_eq!(lacks(Accepts::Always, &[started]), None);
    assert_eq!(lacks(Accepts::Never, &[started]).as_deref(), Some("left out by --accept never"));
    let auto = Some("left out by --accept auto".to_owned());
    assert_eq!(lacks(Accepts::Auto, &[started]), auto);
    assert_eq!(lacks(Accepts::Auto, &[started, watched(6, true)]), auto);
    assert_eq!(lacks(Accepts::Auto, &[watched(4, true), started]), None);
    assert_eq!(lacks(Accepts::Auto, &[watched(4, true), started, watched(6, false)]), auto);
    let damage = Event::Lost { at: 6, cause: Cause::Damage, events: 0 };
    assert_eq!(lacks(Accepts::Auto, &[watched(4, true), started, damage]), auto);
}
