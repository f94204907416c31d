//! From counts to the rows that outputs show.

use std::cmp::Reverse;

use super::analysis::Analysis;
use super::rows::{ChurnRow, Count, FailureRow, GroupRow, OpenRow, Overview, Property, Range, Report, StateRow};
use super::series::Moment;
use crate::model::stream::Summary;
use crate::model::tcp::{Side, State};
use crate::study::counts::histogram::Histogram;
use crate::study::counts::{By, Pair, Ranked, STUDIED, Stays, TRACKED, Tally, is_failure};

/// Most points of the course over time.
const POINTS: i64 = 240;

impl Analysis {
    /// The report of all connections.
    pub fn finish(mut self, summary: &Summary) -> Report {
        self.finest.settle(&mut self.counts);
        let overview = self.overview(summary);
        let mut report = Report {
            counts: self.counts(),
            states: self.state_rows(&overview),
            churn: self.churn(),
            counters: self.counts.counters(self.options.top),
            points: self.series.points(overview.from_unix_ns, overview.to_unix_ns, POINTS),
            hosts: summary.hosts.clone(),
            lost: summary.lost.clone(),
            damage: summary.damage.clone(),
            overview,
            ..Report::default()
        };
        By::ALL.into_iter().for_each(|by| self.put_groups(by, &mut report));
        report.options = self.options;
        report.slowest = self.slowest.into_iter().flat_map(super::slowest::Slowest::into_rows).collect();
        report
    }

    fn overview(&self, summary: &Summary) -> Overview {
        let (from, to) = (summary.from_unix_ns, summary.to_unix_ns);
        let figures = self.counts.figures();
        Overview {
            from_unix_ns: from,
            to_unix_ns: to,
            events: summary.events,
            transitions: summary.transitions,
            lost: summary.lost.iter().fold(0, |sum, lost| sum.saturating_add(lost.events)),
            lost_at_least: summary.lost.iter().any(|lost| lost.at_least),
            damaged: summary.damage.len() as u64,
            connections: figures.connections,
            opened: figures.opened,
            ended: figures.ended,
            open: figures.open,
            closer_undecided: figures.closer_undecided,
            incomplete: figures.incomplete,
            failed: figures.failed,
            reset: figures.reset,
            opened_peak: self.series.busiest(Moment::Opened, from, to),
            ended_peak: self.series.busiest(Moment::Ended, from, to),
            bytes_sent: figures.bytes_sent.get(),
            bytes_received: figures.bytes_received.get(),
            retransmits: figures.retransmits.get(),
            counted: figures.counted,
        }
    }

    fn counts(&self) -> Vec<Count> {
        let closers = self.counts.closers().map(|(closer, count)| (Property::Closer(closer), count));
        let ends = self.counts.ends().map(|(end, count)| (Property::End(end), count));
        let time_waits = self.counts.time_wait_ends().map(|(end, count)| (Property::TimeWaitEnd(end), count));
        let open = self.counts.open().map(|(state, count)| (Property::Open(state), count));
        [counted(closers), counted(ends), counted(time_waits), counted(open)].concat()
    }

    fn state_rows(&self, overview: &Overview) -> Vec<StateRow> {
        let row = |((state, counted), unplaced): ((State, &Stays), u64)| StateRow {
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
            unplaced,
            bins: counted.bins.rows(),
        };
        self.counts.states().zip(self.unplaced).map(row).collect()
    }

    fn churn(&self) -> Vec<ChurnRow> {
        self.counts.pairs(self.options.top).into_iter().map(churn_row).collect()
    }

    fn put_groups(&self, by: By, report: &mut Report) {
        let most = self.options.top;
        let all = self.counts.groups(by, most, |tally| tally.connections);
        report.groups.extend(all.iter().map(|row| group_row(None, row, row.share)));
        for state in STUDIED {
            let rows = self.counts.groups(by, most, |tally| tally.weight_in_state(state));
            let all = rows.iter().map(|row| row.counts.in_state(state)).sum();
            report.groups.extend(rows.iter().map(|row| state_group_row(state, row, all)));
        }
        for end in most_first(self.counts.ends()).into_iter().filter(|end| is_failure(*end)) {
            let rows = self.counts.groups(by, most, |tally| tally.ends[end as usize]);
            let row = |Ranked { group, counts, share }: Ranked<Tally>| FailureRow {
                end,
                group,
                connections: counts.ends[end as usize],
                share,
            };
            report.failures.extend(rows.into_iter().map(row));
        }
        for state in TRACKED {
            let rows = self.counts.groups(by, most, |tally| tally.still(state).map_or(0, |still| still.connections));
            report.open.extend(rows.into_iter().filter_map(|row| open_row(state, row)));
        }
    }
}

fn group_row(state: Option<State>, row: &Ranked<Tally>, share: f64) -> GroupRow {
    let tally = &row.counts;
    GroupRow {
        state,
        group: row.group.clone(),
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
        bytes_sent: tally.bytes_sent.get(),
        bytes_received: tally.bytes_received.get(),
    }
}

fn state_group_row(state: State, row: &Ranked<Tally>, all: u64) -> GroupRow {
    let counted = row.counts.state(state).cloned().unwrap_or_default();
    GroupRow {
        connections: row.counts.in_state(state),
        total: Some(counted.times.total_ns.get()),
        total_share: Some(row.share),
        open: counted.open,
        at_least: Some(counted.times.at_least),
        never_accepted: counted.never_accepted,
        p50: counted.times.survival.quantile(50),
        p90: counted.times.survival.quantile(90),
        p99: counted.times.survival.quantile(99),
        longest: counted.times.longest(),
        ..group_row(Some(state), row, share(row.counts.in_state(state), all))
    }
}

fn open_row(state: State, row: Ranked<Tally>) -> Option<OpenRow> {
    let still = row.counts.still(state)?;
    Some(OpenRow {
        state,
        connections: still.connections,
        share: row.share,
        never_accepted: still.never_accepted,
        oldest: still.oldest(),
        group: row.group,
    })
}

fn churn_row(row: Ranked<Pair>) -> ChurnRow {
    let Ranked { group, counts: pair, .. } = row;
    let (bytes_sent, bytes_received) = pair.mean_bytes();
    let side = match (group.others, group.local_port) {
        (Some(_), _) => Side::Unknown,
        (None, Some(_)) => Side::Server,
        (None, None) => Side::Client,
    };
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
