//! From items and rows to [`Evidence`]: the same for the live kernel and for a trace.

mod bound_first;
mod host;
mod look;
mod pairs;
mod resets;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod window;

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::FixedState;

use self::host::Host;
use self::look::{Looked, Looks};
use self::pairs::Pairs;
use super::evidence::Budgets;
use super::evidence::{About, Evidence, Over, Standing};
use super::need::Need;
use crate::engine::lifecycle::TIME_WAIT_NS;
use crate::model::accepts::Accepts;
use crate::model::event::{Cause, Event, Kept, MiniEvent};
use crate::model::facts::SettingFiles;
use crate::model::feature::Feature;
use crate::model::row::{Connection, Held, Owner, Row, Status};
use crate::model::stream::{Head, Item};
use crate::model::tcp::{End, OwnerSource, State, Task};

/// How many processes of a pair or a listener are kept with their names.
const MOST_TASKS: usize = 16;

/// A connection was still in the accept queue if a look has shown that within this time.
const FRESH_NS: u64 = 2_000_000_000;

/// What a trace says of a kind of evidence that it does not hold.
const NOT_RECORDED: &str = "the trace does not hold it (recorded with --no-facts, or by a version before this)";

/// Takes in what a source says and what an engine concludes from it.
///
/// The engine is to put out transitions and connections, and connections at their close.
#[derive(Clone, Debug, Default)]
pub struct Gatherer {
    about: About,
    pairs: Pairs,
    looks: Looks,
    host: Host,
    /// What the caller knows to be missing.
    missing: HashMap<Need, String, FixedState>,
    features: Vec<(String, bool, String)>,
    /// When accepts are seen, and since when, where they come and go.
    accepts: Accepts,
    accepts_since: Option<u64>,
    /// Whether the source looks at settings, accept queues and limits.
    has_facts: bool,
    /// What counts is from then on, in ns of `CLOCK_BOOTTIME`; what was before only says how things stood.
    since: u64,
    ends_late: bool,
    setting_files: Option<SettingFiles>,
    sees_unreleased: bool,
}

impl Gatherer {
    /// From a trace, or from the live kernel.
    pub fn new(is_trace: bool) -> Self {
        Self { about: About { is_trace, ..About::default() }, ..Self::default() }
    }

    /// Says that a kind of evidence cannot be had, and why.
    pub fn lacks(&mut self, need: Need, reason: impl Into<String>) {
        self.missing.insert(need, reason.into());
    }

    /// Counts what happens from then on, in ns of `CLOCK_BOOTTIME`. What comes before only says how things stood then.
    pub fn count_from(&mut self, since: u64) {
        self.since = since;
    }

    /// Has connections been put out when they have truly ended, and not at their close: those in TIME_WAIT have ended, too,
    /// when nothing more comes.
    pub fn ends_late(&mut self) {
        self.ends_late = true;
    }

    /// Says what files set at boot.
    pub fn setting_files(&mut self, files: SettingFiles) {
        self.setting_files = Some(files);
    }

    /// The open connections will include those that are over while their descriptor is open.
    pub fn sees_unreleased(&mut self) {
        self.sees_unreleased = true;
    }

    /// Takes in an item of the source, before the rows that follow from it.
    pub fn item(&mut self, item: &Item) {
        match item {
            Item::Head(head) => self.head(head),
            Item::Event(event) => self.event(event),
            Item::Counters(sample) if sample.at < self.since => self.host.stood(sample),
            _ => self.host.item(item),
        }
    }

    fn head(&mut self, head: &Head) {
        self.about.host.clone_from(&head.host);
        self.about.kernel.clone_from(&head.kernel);
        self.about.boot_id.clone_from(&head.boot_id);
        self.has_facts = head.facts;
        self.accepts = head.accepts;
        let features = head.features.iter();
        self.features = features.map(|it| (it.feature.clone(), it.available, it.detail.clone())).collect();
    }

    fn event(&mut self, event: &Event) {
        if let Event::Started { at } = event {
            self.about.from = *at;
        }
        self.about.from = if self.about.from == 0 { event.at() } else { self.about.from }.max(self.since);
        self.about.to = self.about.to.max(event.at());
        match event {
            Event::Change(change) => self.host.change(change),
            Event::FailedCall(call) if call.at >= self.since => self.host.failed(call),
            Event::AcceptsWatched { at, watched } => self.accepts_since = watched.then_some(*at),
            Event::Lost { cause: Cause::Disk | Cause::Damage, .. } => self.accepts_since = None,
            Event::Accepted { at, id, .. } if *at >= self.since => self.host.accepted(*at, id.number()),
            Event::Mini(mini) if (mini.what, mini.substate) == (MiniEvent::Rearmed, State::TimeWait) => {
                self.pairs.rearmed(mini.id.number());
            }
            _ => {}
        }
        if let Event::Found(found) = event {
            self.host.found(found);
        }
        if let Event::Holder(holder) = event {
            self.host.holder(holder);
        }
        self.looks.event(event);
    }

    /// Takes in a row of the engine.
    pub fn row(&mut self, row: &Row) {
        match row {
            Row::Transition(row) if row.stuck.is_none() => {
                self.host.transition(row);
                self.pairs.transition(row, self.about.from, &self.host);
            }
            Row::Connection(row) if matches!(row.status, Status::Ended(_)) => self.pairs.ended(row, &self.host),
            Row::Loss(row) => self.about.lost = self.about.lost.saturating_add(row.count.unwrap_or(1)),
            _ => {}
        }
    }

    /// The evidence, with the connections that are open now, or none where nobody knows them. `traced`: transitions were
    /// traced, and not only looked at once.
    ///
    /// It can be asked for again: what is known stays, and is not copied where it may be as much as there are sockets.
    pub fn finish(&self, open: impl IntoIterator<Item = Connection>, traced: bool) -> Evidence {
        let mut pairs = Cow::Borrowed(&self.pairs);
        let mut sockets: Vec<Standing> = Vec::new();
        let mut over: Vec<Over> = Vec::new();
        for row in open {
            sockets.extend(self.standing(&row));
            over.extend(self.over(&row));
            if self.ends_late && row.status.open().is_some_and(|(state, _)| state == State::TimeWait) {
                let ended = Connection { status: Status::Ended(End::Fin.into()), ..row };
                pairs.to_mut().ended(&ended, &self.host);
            }
        }
        let mut namespaces: Vec<u32> = sockets.iter().filter_map(|socket| socket.netns).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let traced_ns = if traced { self.about.to.saturating_sub(self.about.from) } else { 0 };
        let (opened, ended) = (pairs.opened(), pairs.all_ended());
        let about = About { traced_ns, opened, ended, namespaces, ..self.about.clone() };
        let (pairs, unpaired) = pairs.finish(&sockets);
        let missing = self.missing(traced);
        let mut evidence = Evidence { about, missing, pairs, unpaired, sockets, ..Evidence::default() };
        evidence.over = self.sees_unreleased.then_some(over);
        (evidence.bound, evidence.setting_files) = (self.looks.bound(), self.setting_files.clone());
        self.host.finish(&self.looks, &mut evidence);
        evidence.budgets = Budgets::of(&evidence);
        evidence
    }

    /// Why each kind of evidence is missing that is.
    fn missing(&self, traced: bool) -> HashMap<Need, String, FixedState> {
        let mut missing = self.missing.clone();
        if self.setting_files.is_none() {
            let reason = if self.about.is_trace {
                "a trace does not hold files of the host"
            } else {
                "sysctl files were not read"
            };
            missing.entry(Need::SettingFiles).or_insert_with(|| reason.to_owned());
        }
        let is_trace = self.about.is_trace;
        let mut lacks = |need: Need, is_there: bool, live: &str| {
            if !is_there {
                missing.entry(need).or_insert_with(|| if is_trace { NOT_RECORDED } else { live }.to_owned());
            }
        };
        lacks(Need::Events, traced, "needs time (--duration 10s)");
        lacks(Need::Sockets, self.looks.has_looked() || traced, "sockets could not be listed");
        lacks(Need::Inspections, self.looks.has_inspected(), "sockets could not be inspected");
        lacks(Need::Owners, self.looks.has_scanned() || traced, "needs root");
        lacks(Need::Counters, self.host.has_counters(), "counters could not be read");
        lacks(Need::Settings, self.host.has_settings(), "settings could not be read");
        // Where nobody listens, there is no queue to be told of.
        let has_none = self.has_facts && self.looks.has_looked() && !self.host.has_listeners();
        lacks(Need::AcceptQueues, self.host.has_queues() || has_none, "listeners could not be listed");
        lacks(
            Need::Limits,
            self.host.has_limits(),
            "the limits of no process could be read (root reads those of other users)",
        );
        let calls = self.features.iter().find(|(name, ..)| name == "failed_calls");
        match calls {
            Some((_, true, _)) => {}
            Some((_, false, reason)) if !is_trace => lacks(Need::FailedCalls, false, reason),
            // A flight recorder watches them only when it is told to.
            _ if traced => lacks(Need::FailedCalls, false, "needs --failed-calls"),
            _ => lacks(Need::FailedCalls, false, "needs time (--duration 10s)"),
        }
        missing.extend(self.lacks_accepts().map(|reason| (Need::Accepts, reason)));
        missing
    }

    /// Why accepts were not seen all the time, if they were not.
    fn lacks_accepts(&self) -> Option<String> {
        match self.accepts {
            Accepts::Always => {
                let accepts = self.features.iter().find(|(name, ..)| name == Feature::Accept.as_str());
                accepts.filter(|(_, is_there, _)| !is_there).map(|(.., reason)| reason.clone())
            }
            Accepts::Auto if self.accepts_since.is_some_and(|since| since <= self.about.from) => None,
            when => Some(format!("left out by --accept {when}")),
        }
    }

    /// A connection that is open, with what the last look showed of it.
    fn standing(&self, row: &Connection) -> Option<Standing> {
        let (state, age) = row.status.open()?;
        let identity = &row.identity;
        let looked = self.looks.of(identity.conn);
        let kept = looked.and_then(|looked| looked.kept(state));
        let seen = looked.and_then(Looked::seen);
        let now = row.boot_ns;
        let left_ns = match kept {
            Some(Kept::Mini { due_ns }) => looked.map(|it| (it.at() + due_ns).saturating_sub(now)),
            _ if state == State::TimeWait => age.known_ns().map(|age| TIME_WAIT_NS.saturating_sub(age)),
            _ => None,
        };
        let key = self.host.key(identity);
        // Where accepts are not seen, the last look tells.
        let is_fresh = looked.is_some_and(|it| self.about.to.saturating_sub(it.at()) <= FRESH_NS);
        let is_queued = kept == Some(Kept::Queued) && is_fresh;
        Some(Standing {
            conn: identity.conn,
            pair: key,
            netns: identity.netns,
            tuple: identity.tuple,
            side: key.side,
            state,
            owner: identity.owner,
            // A descriptor that was seen before may have been closed by now.
            fd: self.looks.fd(identity.conn).filter(|_| state.is_unclosed() || kept == Some(Kept::Held)),
            cgroup: identity.cgroup,
            accepted: row.status.accepted().or(is_queued.then_some(false)),
            closer: row.closer,
            age: looked.map_or(age, |looked| looked.age(state, age, now)),
            kept,
            left_ns,
            seen,
        })
    }

    /// A connection that is over, and whose descriptor is open.
    fn over(&self, row: &Connection) -> Option<Over> {
        let Status::Unreleased { ending, age, report } = &row.status else { return None };
        let identity = &row.identity;
        let key = self.host.key(identity);
        let held_by = report.holder.map(|(task, _)| Owner { task, source: OwnerSource::Scan });
        let socket = Standing {
            conn: identity.conn,
            pair: key,
            netns: identity.netns,
            tuple: identity.tuple,
            side: key.side,
            state: State::Closed,
            owner: held_by.or(identity.owner),
            fd: report.holder.map(|(_, fd)| fd).or_else(|| self.looks.fd(identity.conn)),
            cgroup: identity.cgroup,
            accepted: row.status.accepted(),
            closer: row.closer,
            age: *age,
            kept: None,
            left_ns: None,
            seen: None,
        };
        Some(Over { socket, end: ending.end })
    }

    /// A gatherer for the time from now on: it knows how things stand, and has counted nothing.
    #[must_use]
    pub fn renewed(self) -> Self {
        let about = About { from: self.about.to, opened: 0, ended: 0, lost: 0, ..self.about };
        Self { about, pairs: Pairs::default(), host: self.host.renewed(), since: 0, ..self }
    }
}

/// Counts a process. Whether it is one of those that are kept.
fn count(tasks: &mut Vec<(Task, u64)>, task: Task) -> bool {
    let place = tasks.iter().position(|(known, _)| known.pid == task.pid);
    match place {
        Some(place) => tasks[place].1 += 1,
        None if tasks.len() < MOST_TASKS => tasks.push((task, 1)),
        None => return false,
    }
    true
}

/// The longer of two lower bounds, unless one is exact.
fn at_least(age: Held, ns: u64) -> Held {
    match age {
        Held::Exactly(_) => age,
        Held::AtLeast(known) if known >= ns => age,
        _ => Held::AtLeast(ns),
    }
}
