//! Answers as messages: of all events, those only that answer a question.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::live::way::Listed;
use crate::model::event::{Event, Flow, Found, Holder, Inspected, Subflow};

/// A part of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Part {
    Events(Vec<Told>),
    Namespaces(Listed),
    InSockmaps(Vec<u64>),
    Listeners(u64, Vec<Told>),
    Took {
        ns: u64,
    },
    /// Nothing more comes.
    End,
}

/// What an answer tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    Found(Found),
    Inspected(Inspected),
    Holder(Holder),
    Flow(Flow),
    Subflow(Subflow),
    Surveyed { at: u64, netns: u32 },
    SurveyEnded { at: u64 },
    ScanEnded { at: u64 },
}

impl Told {
    fn of(event: &Event) -> Option<Self> {
        Some(match *event {
            Event::Found(found) => Self::Found(found),
            Event::Inspected(inspected) => Self::Inspected(inspected),
            Event::Holder(holder) => Self::Holder(holder),
            Event::Flow(flow) => Self::Flow(flow),
            Event::Subflow(subflow) => Self::Subflow(subflow),
            Event::Surveyed { at, netns } => Self::Surveyed { at, netns },
            Event::SurveyEnded { at } => Self::SurveyEnded { at },
            Event::ScanEnded { at } => Self::ScanEnded { at },
            _ => return None,
        })
    }
}

impl From<Told> for Event {
    fn from(told: Told) -> Self {
        match told {
            Told::Found(found) => Self::Found(found),
            Told::Inspected(inspected) => Self::Inspected(inspected),
            Told::Holder(holder) => Self::Holder(holder),
            Told::Flow(flow) => Self::Flow(flow),
            Told::Subflow(subflow) => Self::Subflow(subflow),
            Told::Surveyed { at, netns } => Self::Surveyed { at, netns },
            Told::SurveyEnded { at } => Self::SurveyEnded { at },
            Told::ScanEnded { at } => Self::ScanEnded { at },
        }
    }
}

impl Part {
    pub(super) fn of(answer: Answer) -> Self {
        let told = |events: &[Event]| events.iter().filter_map(Told::of).collect();
        match answer {
            Answer::Events(events) => Self::Events(told(&events)),
            Answer::Namespaces(namespaces) => Self::Namespaces((&namespaces).into()),
            Answer::InSockmaps(cookies) => Self::InSockmaps(cookies.into_iter().collect()),
            Answer::Listeners(begun, holders) => Self::Listeners(begun, told(&holders)),
            Answer::Took(time) => Self::Took { ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) },
        }
    }
}

impl Answer {
    /// `None` at the end.
    pub(super) fn from_part(part: Part) -> Option<Self> {
        let events = |told: Vec<Told>| told.into_iter().map(Event::from).collect();
        Some(match part {
            Part::Events(told) => Self::Events(events(told)),
            Part::Namespaces(listed) => Self::Namespaces(listed.into()),
            Part::InSockmaps(cookies) => Self::InSockmaps(cookies.into_iter().collect()),
            Part::Listeners(begun, told) => Self::Listeners(begun, events(told)),
            Part::Took { ns } => Self::Took(Duration::from_nanos(ns)),
            Part::End => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::num::NonZeroU32;

    use super::*;
    use crate::model::event::{Bound, Id, Idle, Kept, Multipath, Timer};
    use crate::model::tcp::{Comm, State, Task, Tuple};

    /// One of each kind, with every part that can be missing.
    fn events() -> Vec<Event> {
        let ip = Ipv6Addr::LOCALHOST;
        let found = Found {
            at: 1,
            id: Id::Cookie(u64::MAX),
            tuple: Tuple { local_ip: ip, remote_ip: ip, local_port: 80, remote_port: 5000 },
            netns: Some(7),
            uid: None,
            cgroup: Some(1 << 40),
            interface: 2,
            state: State::FinWait2,
            kept: Kept::Mini { due_ns: 3 },
        };
        let task = Task { pid: 5, tid: 6, comm: Comm::from("web") };
        let inspected = Inspected {
            at: 2,
            id: Id::Address(9),
            recv_queue: 1,
            send_queue: 2,
            timer: Timer::Probe,
            timer_left_ns: 4,
            retransmits: 5,
            idle: Some(Idle { acked_ms: None, received_ms: Some(1), sent_ms: Some(2) }),
            timestamps: Some(true),
            bind_no_port: None,
            bound: Some(Bound { ip, port: 9, netns: None }),
        };
        let of = Multipath { token: NonZeroU32::new(8), state: Some(State::Listen) };
        vec![
            Event::Found(found),
            Event::Found(Found { kept: Kept::Queued, netns: None, ..found }),
            Event::Inspected(inspected),
            Event::Holder(Holder { found, task, fd: 3 }),
            Event::Flow(Flow { at: 3, id: found.id, acked: 1, received: 2, unacked: 3 }),
            Event::Subflow(Subflow { at: 4, id: found.id, of }),
            Event::Surveyed { at: 5, netns: 7 },
            Event::SurveyEnded { at: 6 },
            Event::ScanEnded { at: 7 },
        ]
    }

    #[test]
    fn an_answer_arrives_as_it_was_given() {
        let sent = |answer| {
            let bytes = postcard::to_stdvec(&Part::of(answer)).expect("a message");
            Answer::from_part(postcard::from_bytes(&bytes).expect("a part"))
        };
        assert!(matches!(sent(Answer::Events(events())), Some(Answer::Events(told)) if told == events()));
        let holders = vec![events()[3]];
        assert!(
            matches!(sent(Answer::Listeners(9, holders.clone())), Some(Answer::Listeners(9, told)) if told == holders)
        );
        let cookies = std::collections::BTreeSet::from([1, u64::MAX]);
        assert!(matches!(sent(Answer::InSockmaps(cookies.clone())), Some(Answer::InSockmaps(told)) if told == cookies));
        let took = Duration::from_micros(1_234);
        assert!(matches!(sent(Answer::Took(took)), Some(Answer::Took(time)) if time == took));
        assert!(Answer::from_part(Part::End).is_none());
    }

    #[test]
    fn no_other_event_is_an_answer() {
        assert!(Told::of(&Event::Started { at: 1 }).is_none());
        assert!(Told::of(&Event::AcceptsWatched { at: 1, watched: true }).is_none());
    }
}
