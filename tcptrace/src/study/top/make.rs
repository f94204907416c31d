//! From the state to a frame.

use std::cmp::Reverse;
use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::frame::{Ask, Detail, Frame, GroupRow, Queue, Rates, Rows, Sort, Waiter};
use super::sockets::{Key, Socket};
use super::{SECOND, Top, WAITING};
use crate::model::facts::AcceptQueue;
use crate::model::row::{Connection, Held};
use crate::model::stream::{Context, Origin};
use crate::model::tcp::{Closer, End, State};
use crate::study::counts::levels::{Level, RATE_SECONDS, Ranked};
use crate::study::counts::{By, Group, is_failure};
use crate::study::ports::{self, Measured, PortUse, Ports, Rate};
use crate::study::timeline::{self, Item, Peers};

/// Ports of this many destinations are counted.
const MOST_BUDGETS: usize = 200;

impl Top {
    pub(super) fn make(&self, ask: &Ask) -> Frame {
        let second = self.second();
        let seconds = self.rate_seconds();
        let oldest = self.oldest_by_group(ask.by);
        let (ranked, others) = self.levels.groups(ask.by);
        let mut rows: Vec<GroupRow> = ranked
            .into_iter()
            .map(|Ranked { id, group, level }| GroupRow {
                opened: level.opened.total(second) as f64 / seconds,
                failed: level.failed.total(second) as f64 / seconds,
                oldest: oldest.get(&id).copied().unwrap_or_default(),
                queue: self.queue_of(&group),
                ports: self.ports_of(&group),
                id,
                group,
                level,
            })
            .collect();
        rows.sort_by(|one, other| order(ask.sort, other).cmp(&order(ask.sort, one)).then(one.id.cmp(&other.id)));
        let rest = rows.split_off(ask.rows.min(rows.len()));
        let mut sum = others.clone();
        rest.iter().for_each(|row| sum.merge(&row.level));
        Frame {
            host: self.host.clone(),
            unix_ns: self.now,
            boot_ns: self.boot_ns(0),
            observed_ns: self.begun.map_or(0, |begun| self.now.abs_diff(begun)),
            is_surveyed: self.is_surveyed,
            states: self.states.map(u64::from),
            seconds: self.series.all().copied().collect(),
            rates: self.rates(),
            lost: self.lost.clone(),
            by: ask.by,
            sort: ask.sort,
            groups: Rows { more: rest.len() as u64, rows },
            others: sum,
            waiters: self.waiters(ask.rows),
            ports: Rows {
                rows: self.budgets.rows.iter().take(ask.rows).cloned().collect(),
                more: self.budgets.more + self.budgets.rows.len().saturating_sub(ask.rows) as u64,
            },
            queues: self.queues(ask.rows),
            diagnosis: self.diagnosis.clone(),
            connections: match ask.detail {
                Detail::Group(by, id) => Some(self.connections(by, id, ask.rows)),
                _ => None,
            },
            connection: match ask.detail {
                Detail::Connection(key) => self.connection(key),
                _ => None,
            },
        }
    }

    /// For how many seconds groups have been counted.
    fn rate_seconds(&self) -> f64 {
        let observed = self.begun.map_or(0, |begun| self.now.abs_diff(begun));
        (observed as f64 / SECOND as f64).clamp(1.0, RATE_SECONDS.into())
    }

    fn rates(&self) -> Rates {
        let (seconds, length) = self.series.recent();
        let (mut opened, mut closers, mut ends) = (0, [0_u32; Closer::ALL.len()], [0_u32; End::ALL.len()]);
        for second in seconds {
            opened += second.opened;
            closers.iter_mut().zip(second.closers).for_each(|(all, its)| *all += its);
            ends.iter_mut().zip(second.ends).for_each(|(all, its)| *all += its);
        }
        let rate = |count: u32| f64::from(count) / f64::from(length);
        let failures = End::ALL.iter().copied().zip(ends).filter(|(end, _)| is_failure(*end));
        let failures = ranked(failures.map(|(end, count)| (end, rate(count))));
        Rates {
            opened: rate(opened),
            ended: rate(ends.iter().sum()),
            failed: failures.iter().map(|(_, rate)| rate).sum(),
            closers: ranked(Closer::ALL.iter().copied().zip(closers.map(rate))),
            failures,
        }
    }

    fn oldest_by_group(&self, by: By) -> HashMap<u64, Held, FixedState> {
        let mut oldest: HashMap<u64, Held, FixedState> = HashMap::default();
        for (key, socket) in self.waiting().filter(|(_, socket)| socket.state == State::CloseWait) {
            let Some(spot) = socket.spot else { continue };
            let age = socket.age(self.boot_ns(key.origin));
            let known = oldest.entry(self.levels.id(spot, by)).or_default();
            if age.known_ns() > known.known_ns() {
                *known = age;
            }
        }
        oldest
    }

    fn waiting(&self) -> impl Iterator<Item = (&Key, &Socket)> {
        self.waiting.iter().filter_map(|key| Some((key, self.sockets.all.get(key)?)))
    }

    fn waiters(&self, most: usize) -> Rows<Waiter> {
        let of_close_wait = |socket: &Socket| socket.state == State::CloseWait;
        self.list(most, self.waiting(), |socket, age| (age, of_close_wait(socket)))
    }

    fn connections(&self, by: By, id: u64, most: usize) -> (Group, Rows<Waiter>) {
        let (groups, _) = self.levels.groups(by);
        let group =
            groups.into_iter().find(|it| it.id == id).map_or_else(|| Group { by, ..Group::default() }, |it| it.group);
        let is_in = |socket: &Socket| socket.spot.is_some_and(|spot| self.levels.id(spot, by) == id);
        let members = self.sockets.all.iter().filter(|(_, socket)| is_in(socket));
        (group, self.list(most, members, |socket, age| (WAITING.contains(&socket.state), age)))
    }

    /// The sockets with the greatest rank, by their age in ns among others.
    fn list<'s, R: Ord>(
        &'s self,
        most: usize,
        sockets: impl Iterator<Item = (&'s Key, &'s Socket)>,
        rank: impl Fn(&Socket, Option<u64>) -> R,
    ) -> Rows<Waiter> {
        let age = |key: &Key, socket: &Socket| socket.age(self.boot_ns(key.origin));
        let ranked =
            |(key, socket): (&'s Key, &'s Socket)| (Reverse(rank(socket, age(key, socket).known_ns())), *key, socket);
        let mut all: Vec<_> = sockets.map(ranked).collect();
        let order = |one: &(Reverse<R>, Key, &Socket), other: &(Reverse<R>, Key, &Socket)| {
            (&one.0, one.1).cmp(&(&other.0, other.1))
        };
        let more = all.len().saturating_sub(most);
        if more > 0 && most > 0 {
            all.select_nth_unstable_by(most - 1, order);
        }
        all.truncate(most);
        all.sort_unstable_by(order);
        let row = |(_, key, socket): (Reverse<R>, Key, &Socket)| Waiter {
            key,
            local: socket.identity.local(),
            remote: socket.identity.remote(),
            state: socket.state,
            age: age(&key, socket),
            owner: socket.identity.owner,
            fd: socket.fd,
        };
        Rows { rows: all.into_iter().map(row).collect(), more: more as u64 }
    }

    fn connection(&self, key: Key) -> Option<timeline::Group> {
        let ended = || self.ended.as_ref().filter(|(ended, _)| *ended == key).map(|(_, row)| row.clone());
        let row = self.sockets.all.get(&key).map(|it| it.connection(self.boot_ns(key.origin))).or_else(ended)?;
        let tuple = row.identity.tuple;
        let mut peers = Peers::of(vec![self.drawn(key, &row)]);
        for (key, socket) in self.sockets.all.iter().filter(|(_, it)| it.identity.tuple == tuple.reversed()) {
            peers.offer(&socket.connection(self.boot_ns(key.origin)), &self.origin(*key));
        }
        peers.into_groups().into_iter().next()
    }

    fn drawn(&self, key: Key, row: &Connection) -> Item {
        Item::new(row, &self.origin(key))
    }

    fn origin(&self, key: Key) -> Origin {
        let clock = self.clocks.get(key.origin).copied().unwrap_or_default();
        Origin { number: key.origin, context: Context { clock, ..Context::default() }, ..Origin::default() }
    }

    fn queues(&self, most: usize) -> Rows<Queue> {
        let queue = |(place, queue): (&(u32, u64), &AcceptQueue)| Queue {
            netns: place.0,
            queue: *queue,
            task: self.listeners.get(&queue.conn).copied(),
        };
        let mut rows: Vec<Queue> = self.queues.iter().map(queue).collect();
        rows.sort_by(|one, other| {
            let name = |it: &Queue| (it.netns, it.queue.port, it.queue.ip, it.queue.conn);
            other.share().total_cmp(&one.share()).then_with(|| name(one).cmp(&name(other)))
        });
        let more = rows.len().saturating_sub(most) as u64;
        rows.truncate(most);
        Rows { rows, more }
    }

    /// The accept queues of a port together.
    fn queue_of(&self, group: &Group) -> Option<(u64, u64)> {
        let port = group.local_port.filter(|_| group.by == By::Lport)?;
        let of_port = |(place, queue): &(&(u32, u64), &AcceptQueue)| {
            queue.port == port && group.netns.is_none_or(|netns| netns == place.0)
        };
        let queues = self.queues.iter().filter(of_port).map(|(_, queue)| (queue.queued, queue.limit));
        queues.fold(None, |all: Option<(u64, u64)>, (queued, limit)| {
            let (mine, its) = (all.unwrap_or_default(), (u64::from(queued), u64::from(limit)));
            Some((mine.0 + its.0, mine.1 + its.1))
        })
    }

    /// The fewest ports that are left for a remote end.
    fn ports_of(&self, group: &Group) -> Option<(u32, Option<f64>)> {
        let (ip, port) = (group.remote_ip?, group.remote_port.filter(|_| group.by == By::Remote)?);
        let budgets = self.budgets.rows.iter();
        let of_end = budgets.filter(|it| it.key.port == port && it.key.destination.to_canonical() == ip);
        let fullest = of_end.min_by_key(|budget| budget.free)?;
        Some((fullest.free, fullest.forecast.and_then(|it| it.seconds_left)))
    }

    /// Counts the ports that each destination has left. This looks at every socket, so the caller decides how often.
    pub fn count_ports(&mut self) {
        if self.settings.is_empty() {
            return;
        }
        let uses = self.sockets.all.iter().filter_map(|(key, socket)| {
            let row = socket.connection(self.boot_ns(key.origin));
            PortUse::of_connection(&row, None)
        });
        let ports = Ports::new(self.settings.iter().map(|(netns, it)| (*netns, it.clone())), uses.collect(), false);
        let second = self.second();
        let window_ns = (self.rate_seconds() * SECOND as f64) as u64;
        let measured = |key: &ports::Key| {
            let recent = self.leaving.get(key)?;
            Some(Rate { opened: recent.total(second), window_ns })
        };
        let is_client = |key: &ports::Key| ports.uses(key).any(|it| it.origin != ports::Origin::Accepted);
        let budgets = ports
            .keys()
            .filter(is_client)
            .filter_map(|key| ports.budget(&key, Measured { rate: measured(&key), time_wait_ns: None }));
        let mut rows = Vec::new();
        let mut more = 0;
        for ranked in ports::rank(budgets, MOST_BUDGETS) {
            match ranked {
                ports::Ranked::One(budget) => rows.push(*budget),
                ports::Ranked::Rest(rest) => more = rest.groups,
            }
        }
        self.budgets = Rows { rows, more };
    }
}

/// The most frequent first; those that did not happen are left out.
fn ranked<T: Copy>(all: impl Iterator<Item = (T, f64)>) -> Vec<(T, f64)> {
    let mut all: Vec<_> = all.filter(|(_, rate)| *rate > 0.0).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    all
}

/// The greater, the earlier it comes. Of equals, the larger group comes first.
fn order(sort: Sort, row: &GroupRow) -> (u64, u64) {
    let level: &Level = &row.level;
    let first = match sort {
        Sort::Sockets => level.sockets(),
        // Rates are of the same seconds for all groups.
        Sort::Opened => (row.opened * 1_000.0) as u64,
        Sort::Failed => (row.failed * 1_000.0) as u64,
        Sort::Established => level.of(State::Established),
        Sort::TimeWait => level.of(State::TimeWait),
        Sort::CloseWait => level.of(State::CloseWait),
        Sort::FinWait2 => level.of(State::FinWait2),
        Sort::Oldest => row.oldest.known_ns().map_or(0, |ns| ns + 1),
    };
    (first, level.sockets())
}
