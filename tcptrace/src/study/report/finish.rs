//! From counts to the rows that outputs show.

use std::cmp::Reverse;
use std::hash::Hash;

use super::analysis::{Analysis, InState};
use super::facts::is_failure;
use super::groups::{Groups, Kept, Merge, Others, Pair, Tally, Top};
use super::histogram::Histogram;
use super::rows::{
    By, ChurnRow, Count, FailureRow, Group, GroupRow, OpenRow, Overview, Property, Range, Report, STUDIED, StateRow,
    TRACKED,
};
use super::series::Moment;
use super::who::{Directory, Key};
use crate::model::stream::Summary;
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

/// In how many points at most the course of time is shown.
const POINTS: i64 = 240;

impl Analysis {
    /// What all connections come to.
    pub fn finish(self, summary: &Summary) -> Report {
        let overview = self.overview(summary);
        let mut report = Report {
            counts: self.counts(),
            states: self.state_rows(&overview),
            churn: self.churn(),
            counters: self.counters.rows(self.options.top, &self.directory),
            points: self.series.points(overview.from_unix_ns, overview.to_unix_ns, POINTS),
            hosts: summary.hosts.clone(),
            lost: summary.lost.clone(),
            damage: summary.damage.clone(),
            overview,
            ..Report::default()
        };
        self.put_groups(By::Process, &self.processes, &mut report);
        self.put_groups(By::Remote, &self.remotes, &mut report);
        self.put_groups(By::Lport, &self.locals, &mut report);
        self.put_groups(By::Container, &self.places, &mut report);
        self.put_groups(By::Netns, &self.namespaces, &mut report);
        report.options = self.options;
        report.slowest = self.slowest.into_iter().flat_map(super::slowest::Slowest::into_rows).collect();
        report
    }

    fn overview(&self, summary: &Summary) -> Overview {
        let (from, to) = (summary.from_unix_ns, summary.to_unix_ns);
        Overview {
            from_unix_ns: from,
            to_unix_ns: to,
            events: summary.events,
            transitions: summary.transitions,
            lost: summary.lost.iter().fold(0, |sum, lost| sum.saturating_add(lost.events)),
            lost_at_least: summary.lost.iter().any(|lost| lost.at_least),
            damaged: summary.damage.len() as u64,
            opened_peak: self.series.busiest(Moment::Opened, from, to),
            ended_peak: self.series.busiest(Moment::Ended, from, to),
            ..self.overview.clone()
        }
    }

    fn counts(&self) -> Vec<Count> {
        let closers = Closer::ALL.iter().map(|closer| Property::Closer(*closer)).zip(self.closers);
        let ends = End::ALL.iter().map(|end| Property::End(*end)).zip(self.ends);
        let time_waits = TimeWaitEnd::ALL.iter().map(|end| Property::TimeWaitEnd(*end)).zip(self.time_wait_ends);
        let open = State::ALL.iter().map(|state| Property::Open(*state)).zip(self.open);
        [counted(closers), counted(ends), counted(time_waits), counted(open)].concat()
    }

    fn state_rows(&self, overview: &Overview) -> Vec<StateRow> {
        let row = |(state, counted): (State, &InState)| StateRow {
            state,
            sockets: counted.survival.total(),
            at_least: counted.parts.total(),
            open: counted.open,
            never_accepted: counted.never_accepted,
            p50: counted.survival.quantile(50),
            p90: counted.survival.quantile(90),
            p99: counted.survival.quantile(99),
            exact: range(counted.survival.known()),
            parts: range(&counted.parts),
            parts_p50: counted.parts.percentile(50),
            peak: self.series.most_present(state, overview.from_unix_ns, overview.to_unix_ns),
            unplaced: counted.unplaced,
            bins: counted.bins.rows(),
        };
        STUDIED.into_iter().zip(&self.states).map(row).collect()
    }

    fn churn(&self) -> Vec<ChurnRow> {
        let top = self.pairs.top(self.options.top, |pair| pair.short);
        let mut rows = Vec::new();
        for (ends, kept) in &top.rows {
            let mut group = Group::of(By::Process, ends, &self.directory);
            let processes = &kept.tally.processes;
            (group.pid, group.processes) = (processes.only(), Some(processes.count()));
            (group.processes_at_least, group.is_partial) = (processes.has_more, kept.is_partial);
            let side = if ends.local_port.is_some() { Side::Server } else { Side::Client };
            rows.push(churn_row(group, side, &kept.tally));
        }
        if let Some(others) = &top.others {
            rows.push(churn_row(others.group(By::Process), Side::Unknown, &others.tally));
        }
        rows
    }

    fn put_groups<K: Key + Copy + Eq + Hash + Ord>(&self, by: By, groups: &Groups<K, Tally>, report: &mut Report) {
        let maker = Maker { by, top: self.options.top, directory: &self.directory };
        let all = maker.rows(groups, |tally| tally.connections);
        report.groups.extend(all.iter().map(|(group, tally, share)| group_row(None, group, tally, *share)));
        for (place, state) in STUDIED.into_iter().enumerate() {
            let rows = maker.rows(groups, |tally| tally.weight_in_state(place));
            let all = rows.iter().map(|(_, tally, _)| tally.in_state(place)).sum();
            let row =
                |(group, tally, share): &(Group, Tally, f64)| state_group_row(state, place, group, tally, all, *share);
            report.groups.extend(rows.iter().map(row));
        }
        for end in most_first(End::ALL.iter().copied().zip(self.ends)).into_iter().filter(|end| is_failure(*end)) {
            let rows = maker.rows(groups, |tally| tally.ends[end as usize]);
            let row = |(group, tally, share): (Group, Tally, f64)| FailureRow {
                end,
                group,
                connections: tally.ends[end as usize],
                share,
            };
            report.failures.extend(rows.into_iter().map(row));
        }
        for (place, state) in TRACKED.into_iter().enumerate() {
            let rows = maker.rows(groups, |tally| tally.still(place).connections);
            report.open.extend(rows.into_iter().map(|(group, tally, share)| {
                let still = tally.still(place);
                OpenRow {
                    state,
                    group,
                    connections: still.connections,
                    share,
                    never_accepted: still.never_accepted,
                    oldest: still.oldest,
                }
            }));
        }
    }
}

/// Makes rows of groups.
struct Maker<'a> {
    by: By,
    top: usize,
    directory: &'a Directory,
}

impl Maker<'_> {
    /// The largest groups and the others, each with its share.
    fn rows<K: Key + Copy + Eq + Hash + Ord>(
        &self,
        groups: &Groups<K, Tally>,
        size: impl Fn(&Tally) -> u64,
    ) -> Vec<(Group, Tally, f64)> {
        let Top { rows, others } = groups.top(self.top, &size);
        let mut made: Vec<_> =
            rows.into_iter().map(|(key, kept)| (self.group(key, kept), kept.tally.clone())).collect();
        made.extend(others.map(|others| (others.group(self.by), others.tally)));
        let all: u64 = made.iter().map(|(_, tally)| size(tally)).sum();
        made.into_iter()
            .map(|(group, tally)| {
                let share = share(size(&tally), all);
                (group, tally, share)
            })
            .collect()
    }

    fn group(&self, key: &impl Key, kept: &Kept<Tally>) -> Group {
        let processes = &kept.tally.processes;
        let counts = self.by == By::Process && processes.count() > 0;
        Group {
            is_partial: kept.is_partial,
            pid: processes.only().filter(|_| counts),
            processes: counts.then_some(processes.count()),
            processes_at_least: counts && processes.has_more,
            ..Group::of(self.by, key, self.directory)
        }
    }
}

impl<T: Merge> Others<T> {
    fn group(&self, by: By) -> Group {
        Group { is_partial: self.has_folded, ..Group::others(by, Some(self.groups)) }
    }
}

fn group_row(state: Option<State>, group: &Group, tally: &Tally, share: f64) -> GroupRow {
    GroupRow {
        state,
        group: group.clone(),
        connections: tally.connections,
        share,
        total: None,
        total_share: None,
        open: tally.open,
        failed: tally.failed,
        at_least: None,
        never_accepted: 0,
        p50: tally.established.survival.quantile(50),
        p90: tally.established.survival.quantile(90),
        p99: tally.established.survival.quantile(99),
        longest: tally.established.longest(),
        bytes_sent: tally.bytes_sent,
        bytes_received: tally.bytes_received,
    }
}

fn state_group_row(state: State, place: usize, group: &Group, tally: &Tally, all: u64, total_share: f64) -> GroupRow {
    let counted = tally.states[place].as_deref().cloned().unwrap_or_default();
    GroupRow {
        connections: tally.in_state(place),
        total: Some(counted.times.total_ns),
        total_share: Some(total_share),
        open: counted.open,
        at_least: Some(counted.times.at_least),
        never_accepted: counted.never_accepted,
        p50: counted.times.survival.quantile(50),
        p90: counted.times.survival.quantile(90),
        p99: counted.times.survival.quantile(99),
        longest: counted.times.longest(),
        ..group_row(Some(state), group, tally, share(tally.in_state(place), all))
    }
}

fn churn_row(group: Group, side: Side, pair: &Pair) -> ChurnRow {
    let (bytes_sent, bytes_received) = pair.mean_bytes();
    ChurnRow {
        group,
        side,
        connections: pair.short,
        longer: pair.longer,
        active: pair.active,
        p50: pair.established.percentile(50),
        bytes_sent,
        bytes_received,
    }
}

fn range(histogram: &Histogram<7>) -> Range {
    Range { min: histogram.min(), max: histogram.max() }
}

fn counted(counts: impl Iterator<Item = (Property, u64)>) -> Vec<Count> {
    let counts: Vec<_> = counts.filter(|(_, connections)| *connections > 0).collect();
    let all = counts.iter().map(|(_, connections)| connections).sum();
    let mut rows: Vec<_> = counts
        .into_iter()
        .map(|(property, connections)| Count { property, connections, share: share(connections, all) })
        .collect();
    rows.sort_by_key(|row| Reverse(row.connections));
    rows
}

fn most_first<T>(counts: impl Iterator<Item = (T, u64)>) -> Vec<T> {
    let mut counts: Vec<_> = counts.filter(|(_, connections)| *connections > 0).collect();
    counts.sort_by_key(|(_, connections)| Reverse(*connections));
    counts.into_iter().map(|(value, _)| value).collect()
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}
