//! The largest groups, each with its description.

use std::hash::Hash;

use super::group::{By, Group};
use super::groups::{Groups, KeptGroup, Merge, Others};
use super::pair::Pair;
use super::processes::Processes;
use super::tally::Tally;
use super::who::{Directory, Ends, Key};

/// A group, or all others as one.
#[derive(Clone, Debug)]
pub struct Ranked<T> {
    pub group: Group,
    pub counts: T,
    /// Its share of the figure that ranks the groups, from 0 to 1.
    pub share: f64,
}

/// The largest groups by `size`, at most `most`, and all others as one.
pub(super) fn groups<K: Key + Copy + Eq + Hash + Ord>(
    by: By,
    groups: &Groups<K, Tally>,
    directory: &Directory,
    most: usize,
    size: impl Fn(&Tally) -> u64,
) -> Vec<Ranked<Tally>> {
    ranked(by, groups, directory, most, size, |tally| {
        Some(&tally.processes).filter(|processes| by == By::Process && processes.count() > 0)
    })
}

/// The pairs with most short-lived connections, likewise.
pub(super) fn pairs(pairs: &Groups<Ends, Pair>, directory: &Directory, most: usize) -> Vec<Ranked<Pair>> {
    ranked(By::Process, pairs, directory, most, |pair| pair.short, |pair| Some(&pair.processes))
}

fn ranked<K: Key + Copy + Eq + Hash + Ord, T: Merge + Clone>(
    by: By,
    groups: &Groups<K, T>,
    directory: &Directory,
    most: usize,
    size: impl Fn(&T) -> u64,
    processes: impl Fn(&T) -> Option<&Processes>,
) -> Vec<Ranked<T>> {
    let top = groups.top(most, &size);
    let named = |(key, kept): &(K, KeptGroup<T>)| {
        let group = Group { is_partial: kept.is_partial, ..Group::of(by, key, directory) };
        (with_processes(group, processes(&kept.tally)), kept.tally.clone())
    };
    let mut made: Vec<_> = top.rows.into_iter().map(named).collect();
    made.extend(top.others.map(|others| (of_others(by, &others), others.tally)));
    let all: u64 = made.iter().map(|(_, counts)| size(counts)).sum();
    let share = |counts: &T| if all == 0 { 0.0 } else { size(counts) as f64 / all as f64 };
    made.into_iter().map(|(group, counts)| Ranked { share: share(&counts), group, counts }).collect()
}

/// Adds the processes to the description.
fn with_processes(group: Group, processes: Option<&Processes>) -> Group {
    let Some(processes) = processes else { return group };
    Group {
        pid: processes.only(),
        processes: Some(processes.count()),
        processes_at_least: processes.has_more(),
        ..group
    }
}

fn of_others<T>(by: By, others: &Others<T>) -> Group {
    Group { is_partial: others.has_folded, ..Group::others(by, Some(others.groups)) }
}
