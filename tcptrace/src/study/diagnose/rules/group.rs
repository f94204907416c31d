//! Pairs that a rule takes together: all of a process, or all to one remote end.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use crate::model::tcp::{Closer, End, Side, Task};
use crate::study::diagnose::evidence::{Ended, Evidence, Pair, PairKey};
use crate::study::diagnose::finding::{EXAMPLES, Example, Subject};
use crate::study::diagnose::say;

/// Pairs that a rule takes together; at least one.
#[derive(Debug)]
pub(super) struct Group<'e> {
    pub(super) pairs: Vec<&'e Pair>,
}

/// Connections to one remote end, whoever opens them.
pub(super) fn by_remote(evidence: &Evidence) -> Vec<Group<'_>> {
    groups(evidence.clients(), |key| (key.netns, key.ip, key.port))
}

/// Connections that one process opens, whatever the remote end; of servers, connections that came in at one port.
pub(super) fn by_process(evidence: &Evidence) -> Vec<Group<'_>> {
    let pairs = evidence.pairs.iter().filter(|pair| pair.key.side != Side::Unknown);
    groups(pairs, |key| {
        let port = if key.side == Side::Server { key.port } else { 0 };
        (key.netns, key.side, key.cgroup, key.comm, port)
    })
}

fn groups<'e, K: Hash + Eq>(pairs: impl Iterator<Item = &'e Pair>, key: impl Fn(&PairKey) -> K) -> Vec<Group<'e>> {
    let mut places: HashMap<K, usize, FixedState> = HashMap::default();
    let mut groups: Vec<Group<'e>> = Vec::new();
    for pair in pairs {
        let place = *places.entry(key(&pair.key)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.pairs.push(pair),
            None => groups.push(Group { pairs: vec![pair] }),
        }
    }
    groups
}

impl Group<'_> {
    /// A sum over its pairs.
    pub(super) fn sum(&self, of: impl Fn(&Pair) -> u64) -> u64 {
        self.pairs.iter().map(|pair| of(pair)).sum()
    }

    /// Ended connections.
    pub(super) fn ended(&self) -> u64 {
        self.sum(Pair::ended)
    }

    /// Ended connections that ended so.
    pub(super) fn ended_by(&self, end: End) -> u64 {
        self.sum(|pair| pair.ended_by(end))
    }

    /// Ended connections that ended so, by who closed.
    pub(super) fn ended_as(&self, end: End) -> impl Iterator<Item = (Closer, &Ended)> {
        self.pairs.iter().flat_map(move |pair| pair.ended_as(end))
    }

    /// When the first and the last connection ended so.
    pub(super) fn seen(&self, end: End) -> (Option<u64>, Option<u64>) {
        let ended = || self.ended_as(end).map(|(_, ended)| ended);
        (ended().map(|it| it.first).min(), ended().map(|it| it.last).max())
    }

    /// Some connections that ended so.
    pub(super) fn examples(&self, end: End) -> Vec<Example> {
        self.ended_as(end).flat_map(|(_, ended)| ended.examples.iter().cloned()).take(EXAMPLES).collect()
    }

    /// The process, if it is one.
    pub(super) fn task(&self) -> Option<Task> {
        let (tasks, processes) = self.tasks();
        tasks.first().map(|(task, _)| *task).filter(|_| processes == 1)
    }

    /// `api[4711]`, `api (12 processes)`, `api[4711] and 3 other processes`.
    pub(super) fn process(&self) -> String {
        let (tasks, processes) = self.tasks();
        match tasks.first() {
            None => "an unknown process".to_owned(),
            Some((task, _)) if processes == 1 => say::process(*task),
            Some((task, _)) if tasks.iter().all(|(other, _)| other.comm == task.comm) => {
                format!("{} ({processes} processes)", say::comm(task.comm))
            }
            Some((task, _)) if processes == 2 => format!("{} and another process", say::process(*task)),
            Some((task, _)) => format!("{} and {} other processes", say::process(*task), processes - 1),
        }
    }

    /// The processes with how many connections each, the most frequent one first; and how many processes there are at least.
    fn tasks(&self) -> (Vec<(Task, u64)>, usize) {
        let mut tasks: Vec<(Task, u64)> = Vec::new();
        for (task, count) in self.pairs.iter().flat_map(|pair| &pair.tasks) {
            match tasks.iter_mut().find(|(known, _)| known.pid == task.pid) {
                Some((_, known)) => *known += count,
                None => tasks.push((*task, *count)),
            }
        }
        tasks.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.pid));
        let processes = self.pairs.iter().map(|pair| pair.processes).max().unwrap_or(0).max(tasks.len());
        (tasks, processes)
    }

    /// Whom a finding about it is about: what all its pairs have in common.
    pub(super) fn subject(&self) -> Subject {
        let Some(first) = self.pairs.first() else { return Subject::default() };
        let mut subject = first.subject();
        let has_one = |same: fn(&PairKey, &PairKey) -> bool| self.pairs.iter().all(|it| same(&it.key, &first.key));
        subject.task = self.task();
        subject.cgroup = subject.cgroup.filter(|_| has_one(|one, other| one.cgroup == other.cgroup));
        let one_remote = has_one(|one, other| (one.ip, one.port) == (other.ip, other.port));
        subject.remote = subject.remote.filter(|_| one_remote);
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{api, client_key, nothing, pair, server_key};
    use super::*;
    use crate::model::tcp::Comm;

    #[test]
    fn pairs_are_taken_together_by_process_or_by_remote_end() {
        let mut evidence = nothing();
        let other = PairKey { port: 443, ..client_key() };
        let worker = Task { pid: 9, tid: 9, comm: Comm::from("worker") };
        let of_worker = PairKey { comm: Some(worker.comm), ..client_key() };
        evidence.pairs = vec![pair(client_key()), pair(other), pair(server_key())];
        evidence.pairs.push(Pair { tasks: vec![(worker, 3)], ..pair(of_worker) });

        let by_process: Vec<_> = by_process(&evidence).iter().map(|it| (it.process(), it.pairs.len())).collect();
        assert_eq!(by_process, [("api[4711]".into(), 2), ("api[4711]".into(), 1), ("worker[9]".into(), 1)]);
        let groups = by_remote(&evidence);
        let by_remote: Vec<_> = groups.iter().map(|it| (it.process(), it.pairs.len())).collect();
        assert_eq!(by_remote, [("worker[9] and another process".into(), 2), ("api[4711]".into(), 1)]);
        assert_eq!((groups[0].subject().task, groups[1].subject().task), (None, Some(api())));
        assert_eq!(groups[0].subject().remote.map(|it| it.to_string()).as_deref(), Some("10.0.0.9:6379"));
    }
}
