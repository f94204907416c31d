//! The rules of a condition: an engine beside the recorder, and the evidence of the last seconds.

use std::collections::HashSet;
use std::convert::Infallible;
use std::slice;

use crate::cli::say;
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::criteria::Criteria;
use crate::model::sink::Wishes;
use crate::model::stream::{Context, Item, Origin};
use crate::study::diagnose::finding::{Finding, Id};
use crate::study::diagnose::{Case, Selection, diagnose};
use crate::study::top::Findings;

/// How often to ask for a look at all sockets, in ns: some rules need what only a look shows.
const LOOK_NS: u64 = 30_000_000_000;
/// How long after the beginning a rule can be told to lack its evidence, in ns: by then, the first looks are over.
const BEGUN_NS: u64 = 15_000_000_000;

/// What the engine of a condition puts out.
pub(super) fn rows() -> Config {
    Config { at_close: true, transitions: true, connections: true, unreleased: true, ..Config::default() }
}

/// Follows connections, and has the rules decide.
pub(super) struct Rules {
    ids: Vec<Id>,
    criteria: Criteria,
    follower: Follower,
    findings: Findings,
    /// When it first decided, and when it last asked for a look, in ns of `CLOCK_BOOTTIME`.
    begun: Option<u64>,
    looked: u64,
    wants_look: bool,
    /// Rules that cannot be checked, and were named.
    told: HashSet<Id>,
}

impl Rules {
    /// `config` is to put out [`rows`].
    pub(super) fn new(ids: Vec<Id>, criteria: Criteria, config: Config) -> Self {
        let follower = Follower::new(Config { existing: true, ..config }, [], Origin::default());
        let findings = Findings::new(false).with_unreleased();
        let (begun, looked, wants_look, told) = (None, 0, false, HashSet::new());
        Self { ids, criteria, follower, findings, begun, looked, wants_look, told }
    }

    pub(super) fn context(&self) -> &Context {
        self.follower.context()
    }

    /// One by one: what an item leads to may decide what the next one means.
    pub(super) fn take(&mut self, items: &[Item]) {
        let Self { follower, findings, .. } = self;
        for item in items {
            findings.item(item);
            let Ok(()) = follower.take::<Infallible>(slice::from_ref(item), |row, _| {
                findings.row(row);
                Ok(())
            });
        }
    }

    /// What the rules find now, about connections that match the filters.
    pub(super) fn diagnose(&mut self, now: u64) -> Vec<Finding> {
        let begun = *self.begun.get_or_insert(now);
        self.findings.turn(now);
        let selection = Selection { only: self.ids.clone(), skip: Vec::new() };
        let diagnosis = diagnose(&self.findings.evidence(self.follower.open()), &selection);
        let case = Case { diagnosis, context: self.follower.context().clone(), ..Case::default() };
        if now >= begun.saturating_add(BEGUN_NS) {
            for checked in &case.diagnosis.checked {
                if let Some(reason) = &checked.reason
                    && self.told.insert(checked.id)
                {
                    say(format_args!("{} is not checked: {reason}", checked.id));
                }
            }
        }
        if now >= self.looked.saturating_add(LOOK_NS) {
            (self.wants_look, self.looked) = (self.looked != 0, now);
        }
        case.only_about(&self.criteria).diagnosis.findings
    }

    pub(super) fn misses_any(&mut self) -> bool {
        self.follower.misses_any()
    }

    pub(super) fn wishes(&mut self) -> Wishes {
        self.follower.wishes().and(Wishes { survey: std::mem::take(&mut self.wants_look), ..Wishes::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::model::event::{Birth, Change, EndFacts, Event, Flags, Id};
    use crate::model::tcp::{Comm, State, Task, Tuple};

    const S: u64 = 1_000_000_000;

    /// A reset ends this connection of `api[4711]`, which keeps its descriptor.
    fn reset(conn: u64) -> Vec<Item> {
        const ECONNRESET: u16 = 104;
        let (ip, local_port) = (Ipv6Addr::LOCALHOST, 40_000 + u16::try_from(conn).expect("few"));
        let change = |at, old, new| Change {
            at,
            id: Id::Cookie(conn),
            address: None,
            tuple: Tuple { local_ip: ip, remote_ip: ip, local_port, remote_port: 6379 },
            netns: Some(7),
            uid: None,
            cgroup: None,
            interface: 0,
            old,
            new,
            flags: Some(Flags { has_socket: true, ..Flags::default() }),
            task: Some(Task { pid: 4711, tid: 4711, comm: Comm::from("api") }),
            idle: None,
            end: None,
        };
        let end = EndFacts { err: ECONNRESET, mini: Birth::None, ..EndFacts::default() };
        let changes = [
            change(S, State::Closed, State::SynSent),
            change(2 * S, State::SynSent, State::Established),
            Change { end: Some(end), ..change(3 * S, State::Established, State::Closed) },
        ];
        changes.into_iter().map(|change| Item::Event(Event::Change(change))).collect()
    }

    /// A connection that is over is none of the open ones, and its descriptor may be open for longer than findings look back.
    #[test]
    fn descriptors_of_what_is_over_are_found() {
        let config = Config { scans: true, ..rows() };
        let mut rules = Rules::new(vec!["closed-not-released"], Criteria::default(), config);
        (1..=10).for_each(|conn| rules.take(&reset(conn)));
        let mut found = Vec::new();
        for second in (5..=70).step_by(5) {
            rules.take(&[Item::Event(Event::Passed { at: second * S })]);
            found.push(rules.diagnose(second * S).len());
        }
        // From a minute after the end on.
        assert_eq!(found, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
