//! Items in, rows out: the one way from a source to what is shown, live and from a trace.

use std::collections::HashSet;

use foldhash::fast::FixedState;

use crate::engine::filter::Filter;
use crate::engine::lifecycle::{Config, Engine, Stats};
use crate::model::criteria::{Criteria, Undecided};
use crate::model::event::{Cause, Event, Losses};
use crate::model::finding::Finding;
use crate::model::labels::Labels;
use crate::model::names::{Group, Names};
use crate::model::row::{Connection, Row};
use crate::model::sink::Wishes;
use crate::model::stream::{Context, Item, Lost, Origin, Summary};

/// How many open connections are passed on at a time.
const AT_A_TIME: usize = 512;

/// Follows a source.
///
/// Its rows depend only on the items and their order, not on how many come at a time.
#[derive(Debug)]
pub struct Follower {
    engine: Engine,
    /// A row is shown if it passes all of them.
    filters: Vec<Filter>,
    origin: Origin,
    losses: Losses,
    /// Kernel counts that audits could not account for.
    unaccounted: u64,
    /// Events lost to damage of a trace, and whether there may be more.
    damaged: (u64, bool),
    events: u64,
    rows: Vec<Row>,
    passed: Vec<Row>,
}

impl Follower {
    /// Hands over the rows that match all of these.
    pub fn new(config: Config, criteria: impl IntoIterator<Item = Criteria>, origin: Origin) -> Self {
        let filters = criteria.into_iter().map(Filter::new).filter(|filter| !filter.is_open());
        Self {
            engine: Engine::new(config),
            filters: filters.collect(),
            origin,
            losses: Losses::default(),
            unaccounted: 0,
            damaged: (0, false),
            events: 0,
            rows: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes items, and hands over the rows that follow from them, each with its origin.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn take<E>(&mut self, items: &[Item], mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        for item in items {
            if let Item::Event(event) = item {
                self.count(event);
                self.engine.feed(event, &mut self.rows);
                continue;
            }
            // Clock and names apply to the items after them.
            self.hand_over(&mut each)?;
            match item {
                Item::Clocks(clocks) => self.origin.context.clock = clocks.clock(),
                Item::Namespace { inode, name } => self.origin.context.names.name_namespace(*inode, name),
                Item::Interface { netns, index, name } => {
                    self.origin.context.names.name_interface(Some(*netns), *index, name);
                }
                Item::Group { id, path } => self.origin.context.names.name_group(*id, Group::at(path)),
                Item::Container { group, labels } => {
                    self.origin.context.names.name_container(*group, Labels::clone(labels));
                }
                Item::Process { pid, group } => self.origin.context.names.note_process(*pid, *group),
                Item::NamesAnew => self.forget_names(),
                Item::Losses(losses) => self.losses = *losses,
                Item::Audit(finding) => {
                    if let Finding::Verdict(verdict) = finding {
                        self.unaccounted = self.unaccounted.saturating_add(verdict.unexplained);
                    }
                    each(&Row::Audit(*finding), &self.origin)?;
                }
                Item::Counters(sample) => self.rows.extend(sample.increases().map(Row::Counter)),
                // What only a diagnosis reads.
                Item::Settings(_) | Item::AcceptQueues(_) | Item::Limits(_) | Item::Fired(_) => {}
                Item::Head(_) | Item::Ended(_) | Item::Event(_) => {}
            }
        }
        self.hand_over(&mut each)
    }

    /// These items come next. Nothing follows from that: it only takes less time then.
    pub fn prepare(&self, items: &[Item]) {
        self.engine
            .prepare(items.iter().filter_map(|item| if let Item::Event(event) = item { Some(event) } else { None }));
    }

    fn count(&mut self, event: &Event) {
        self.events += u64::from(event.id().is_some());
        // The reader of a trace reports this, not the trace.
        if let Event::Lost { cause: Cause::Damage, events, .. } = *event {
            self.damaged.0 = self.damaged.0.saturating_add(events);
            self.damaged.1 |= events == 0;
        }
    }

    /// The connections that are open now, including those that filters leave out.
    pub fn open(&self) -> impl Iterator<Item = Connection> {
        self.engine.open().filter_map(|row| if let Row::Connection(row) = row { Some(row) } else { None })
    }

    /// Hands over the connections that are open now.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn take_open<E>(&mut self, mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        // A few at a time: there can be as many as live sockets.
        let Self { engine, filters, origin, rows, passed, .. } = self;
        let mut open = engine.open().peekable();
        while open.peek().is_some() {
            rows.extend(open.by_ref().take(AT_A_TIME));
            hand_over(filters, origin, rows, passed, &mut each)?;
        }
        Ok(())
    }

    /// The stream has ended. Hands over pending rows that match, or that the filter cannot decide.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn finish<E>(&mut self, mut each: impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        self.engine.finish(&mut self.rows);
        self.hand_over(&mut each)?;
        for index in 0..self.filters.len() {
            let Some((filter, others)) = self.filters.get_mut(index..).and_then(<[Filter]>::split_first_mut) else {
                break;
            };
            filter.finish(&self.origin.context.names, &mut self.rows);
            pass(others, &self.origin.context.names, &mut self.rows, &mut self.passed);
        }
        let given = self.rows.iter().try_for_each(|row| each(row, &self.origin));
        self.rows.clear();
        given
    }

    /// Keeps only the names that rows can still show without hearing them again.
    fn forget_names(&mut self) {
        let (mut namespaces, mut groups) = (HashSet::<_, FixedState>::default(), HashSet::<_, FixedState>::default());
        let mut interfaces = HashSet::<_, FixedState>::default();
        let pending = self.filters.iter().flat_map(Filter::pending);
        let pending = pending.map(|identity| (identity.netns, identity.cgroup, identity.interface));
        for (netns, cgroup, interface) in self.engine.places().chain(pending) {
            namespaces.extend(netns);
            groups.extend(cgroup);
            if interface != 0 {
                interfaces.insert((netns, interface));
            }
        }
        self.origin.context.names.retain(&namespaces, &groups, &interfaces);
    }

    fn hand_over<E>(&mut self, each: &mut impl FnMut(&Row, &Origin) -> Result<(), E>) -> Result<(), E> {
        hand_over(&mut self.filters, &self.origin, &mut self.rows, &mut self.passed, each)
    }

    /// Whether the engine misses sockets, now that nothing more comes. It looks at every socket.
    pub fn misses_any(&self) -> bool {
        self.engine.wants_last_survey()
    }

    /// What the engine asks for.
    pub fn wishes(&self) -> Wishes {
        let engine = &self.engine;
        Wishes {
            deadline: engine.next_deadline(),
            missing: engine.wants_survey(),
            scan: engine.wants_scan(),
            ..Wishes::default()
        }
    }

    /// Where its rows come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What rows leave open.
    pub fn context(&self) -> &Context {
        &self.origin.context
    }

    /// Events of sockets that were taken.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The engine's statistics.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Transitions and rows that filters left out, in the kernel and here.
    pub fn filtered_out(&self) -> u64 {
        self.losses.filtered + self.filters.iter().map(Filter::filtered_out).sum::<u64>()
    }

    /// Rows that filters could not decide.
    pub fn undecided(&self) -> Undecided {
        let mut all = Undecided::default();
        self.filters.iter().for_each(|filter| all += filter.undecided());
        all
    }

    /// Adds its results.
    pub fn add_to(&self, summary: &mut Summary) {
        let stats = self.stats();
        summary.events += self.events;
        summary.transitions += stats.transitions;
        summary.followed += stats.followed as u64;
        summary.filtered += self.filtered_out();
        summary.undecided += self.undecided();
        for lost in self.lost() {
            match summary.lost.iter_mut().find(|known| known.cause == lost.cause) {
                Some(known) => {
                    known.events = known.events.saturating_add(lost.events);
                    known.at_least |= lost.at_least;
                }
                None => summary.lost.push(lost),
            }
        }
    }

    /// Losses by cause.
    pub fn lost(&self) -> Vec<Lost> {
        let dropped = self.filters.iter().map(Filter::dropped).sum();
        let (damaged, at_least) = self.damaged;
        let stats = self.stats();
        let theirs = self.losses.by_cause().map(|(cause, count)| (cause, count, false));
        let ours = [
            (Cause::Damage, damaged, at_least),
            (Cause::Evicted, stats.evicted, false),
            (Cause::Unreported, stats.unreported, false),
            (Cause::Unaccounted, self.unaccounted, false),
            (Cause::FilterFull, dropped, false),
        ];
        let all = theirs.chain(ours).filter(|(_, events, at_least)| *events > 0 || *at_least);
        all.map(|(cause, events, at_least)| Lost { cause, events, at_least }).collect()
    }
}

/// Hands over the rows that pass all filters.
fn hand_over<E>(
    filters: &mut [Filter],
    origin: &Origin,
    rows: &mut Vec<Row>,
    passed: &mut Vec<Row>,
    each: &mut impl FnMut(&Row, &Origin) -> Result<(), E>,
) -> Result<(), E> {
    pass(filters, &origin.context.names, rows, passed);
    let given = rows.iter().try_for_each(|row| each(row, origin));
    rows.clear();
    given
}

/// Passes rows through filters, one after the other.
fn pass(filters: &mut [Filter], names: &Names, rows: &mut Vec<Row>, passed: &mut Vec<Row>) {
    for filter in filters {
        for row in rows.drain(..) {
            filter.push(row, names, passed);
        }
        std::mem::swap(rows, passed);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv6Addr;

    use super::*;
    use crate::model::event::{Birth, Change, EndFacts, Flags, Id, Totals};
    use crate::model::tcp::{State, Tuple};

    /// A change of the connection with this number, which is that of its control group and its namespace as well.
    fn change(number: u32, old: State, new: State) -> Change {
        let ip = Ipv6Addr::LOCALHOST;
        Change {
            at: 1,
            id: Id::Cookie(number.into()),
            address: None,
            tuple: Tuple { local_ip: ip, remote_ip: ip, local_port: 1, remote_port: 2 },
            netns: Some(number),
            uid: None,
            cgroup: Some(number.into()),
            interface: 0,
            old,
            new,
            flags: None,
            task: None,
            idle: None,
            end: None,
        }
    }

    /// By a reset, or by data that came too late: a reset of ours would show which.
    fn reset(number: u32) -> Change {
        const ECONNRESET: u16 = 104;
        let end = EndFacts {
            totals: Totals::default(),
            err: ECONNRESET,
            keepalive: false,
            linger0: false,
            linger2_negative: false,
            all_acked: true,
            in_flight: false,
            user_timeout: false,
            retransmits: 0,
            probes: 0,
            mini: Birth::None,
        };
        let flags = Some(Flags { dead: true, ..Flags::default() });
        Change { flags, end: Some(end), ..change(number, State::FinWait2, State::Closed) }
    }

    fn item(change: Change) -> Item {
        Item::Event(Event::Change(change))
    }

    fn named(number: u32) -> [Item; 2] {
        let name: Box<[u8]> = format!("/{number}").into_bytes().into();
        [Item::Group { id: number.into(), path: name.clone() }, Item::Namespace { inode: number, name }]
    }

    fn opened(number: u32) -> Vec<Item> {
        let opening = change(number, State::Closed, State::SynSent);
        named(number).into_iter().chain([item(opening)]).collect()
    }

    /// For each row, its connection and the path of its control group.
    fn take(follower: &mut Follower, items: &[Item]) -> Vec<(u64, Option<String>)> {
        let mut rows = Vec::new();
        let mut each = |row: &Row, origin: &Origin| -> Result<(), Infallible> {
            let identity = row.identity().expect("no loss");
            let group = identity.cgroup.and_then(|id| origin.context.names.group(id));
            let path = group.map(|group| String::from_utf8_lossy(&group.path).into_owned());
            rows.push((identity.conn, path));
            Ok(())
        };
        let Ok(()) = follower.take(items, &mut each);
        rows
    }

    /// The groups from 1 to 4, and the namespaces from 1 to 4, that have names.
    fn known(follower: &Follower) -> (Vec<u32>, Vec<u32>) {
        let names = &follower.context().names;
        let groups = (1..5).filter(|number| names.group((*number).into()).is_some());
        let namespaces = (1..5).filter(|number| names.namespace(*number).is_some());
        (groups.collect(), namespaces.collect())
    }

    fn path(number: u64) -> (u64, Option<String>) {
        (number, Some(format!("/{number}")))
    }

    #[test]
    fn names_are_kept_as_long_as_their_sockets_live() {
        let mut follower = Follower::new(Config::default(), [], Origin::default());
        let begun = [opened(1), opened(2), vec![item(reset(2))], named(3).to_vec()].concat();
        take(&mut follower, &begun);
        assert_eq!(known(&follower).0, [1, 2, 3]);
        // The second one has not ended until it is certain that no reset follows.
        take(&mut follower, &[Item::NamesAnew]);
        assert_eq!(known(&follower), (vec![1, 2], vec![1, 2]));
        let later = Item::Event(Event::Passed { at: 60_000_000_000 });
        assert_eq!(take(&mut follower, &[later, Item::NamesAnew]), [path(2), path(2)]);
        assert_eq!(known(&follower), (vec![1], vec![1]));
        let established = item(change(1, State::SynSent, State::Established));
        assert_eq!(take(&mut follower, &[established]), [path(1)]);
    }

    /// Rows that come before are shown with their names.
    #[test]
    fn forgotten_names_come_back() {
        let mut follower = Follower::new(Config::default(), [], Origin::default());
        let closed = item(change(2, State::LastAck, State::Closed));
        let once = [named(2).to_vec(), vec![closed]].concat();
        let anew = [once.clone(), vec![Item::NamesAnew], once].concat();
        let rows = take(&mut follower, &anew);
        assert!(rows.len() >= 2 && rows.iter().all(|row| *row == path(2)), "{rows:?}");
    }

    #[test]
    fn names_of_rows_that_a_filter_holds_back_are_kept() {
        let criteria = Criteria { pids: vec![7], ..Criteria::default() };
        // The engine forgets a socket for each new one.
        let config = Config { sockets: 1, ..Config::default() };
        let mut follower = Follower::new(config, [criteria], Origin::default());
        take(&mut follower, &[opened(1), opened(2), named(3).to_vec(), vec![Item::NamesAnew]].concat());
        assert_eq!(known(&follower), (vec![1, 2], vec![1, 2]));
    }
}
