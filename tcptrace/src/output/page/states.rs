//! The charts over time, and the states in which sockets pile up.

use maud::{Markup, html};

use super::Writer;
use super::chart::{Moments, bar, key, rates, stacked};
use super::markup::{Cell, heading, row, table};
use super::parts::{group_key, others, title};
use crate::model::row::Held;
use crate::model::tcp::State;
use crate::output::text::report::longest;
use crate::output::text::report::words::{bound, count, duration, group, number, percent, rate, shown_bins};
use crate::study::report::{By, GroupRow, StateRow, TRACKED};

impl Writer<'_> {
    /// States and rates, over the whole period.
    pub(super) fn over_time(&self) -> Markup {
        let points = &self.report.points;
        if points.is_empty() {
            return html! { (heading("time", "Over time")) p { "The period has no length." } };
        }
        let highest = |place: usize| points.iter().map(|point| point.sockets[place]).fold(0.0, f64::max);
        let shown: Vec<(State, f64)> = TRACKED
            .into_iter()
            .enumerate()
            .map(|(place, state)| (state, highest(place)))
            .filter(|(_, highest)| *highest >= 0.005)
            .collect();
        let states: Vec<State> = shown.iter().map(|(state, _)| *state).collect();
        let (sockets, most) = stacked(points, &states, "Sockets in each state over time, stacked");
        let lines: [(&str, Moments); 3] =
            [("opened", |point| point.opened), ("ended", |point| point.ended), ("failed", |point| point.failed)];
        let (a_second, fastest) = rates(points, &lines, "Connections opened, ended and failed per second");
        html! {
            (heading("time", "Over time"))
            figure {
                figcaption { "Sockets by state, stacked" }
                (self.plot(&sockets, &format!("{} sockets", number(most))))
                ul.legend {
                    @for (state, highest) in shown {
                        li { (key(state)) (state) " " span.soft { "at most " (number(highest)) } }
                    }
                }
            }
            figure.small {
                figcaption { "Connections per second" }
                (self.plot(&a_second, &rate(fastest)))
                ul.legend {
                    @for (class, _) in lines {
                        li { svg viewBox="0 0 22 16" aria-hidden="true" { path.line.(class) d="M0 8L22 8" {} } (class) }
                    }
                }
            }
            (self.legend_of_time())
        }
    }

    fn legend_of_time(&self) -> Markup {
        let unplaced = self.report.states.iter().filter(|row| row.unplaced > 0);
        let parts: Vec<_> = unplaced.map(|row| format!("{} in {}", count(row.unplaced), row.state)).collect();
        html! {
            @if !parts.is_empty() { p.soft { "Not shown, because it is unknown when:  " (parts.join(", ")) "." } }
        }
    }

    /// A drawing with its axes.
    fn plot(&self, drawing: &Markup, top: &str) -> Markup {
        let (Some(first), Some(last)) = (self.report.points.first(), self.report.points.last()) else { return html!() };
        let end = last.from_unix_ns.saturating_add_unsigned(last.width_ns);
        let middle = first.from_unix_ns + (end - first.from_unix_ns) / 2;
        html! {
            span.top { (top) }
            .plot { (drawing) }
            .axis { @for at in [first.from_unix_ns, middle, end] { span { (self.at(at)) } } }
        }
    }

    /// One state: counts, times, owners, peers, and the course over time.
    pub(super) fn state(&self, row: &StateRow) -> Markup {
        let state = row.state;
        let meaning = match state {
            State::TimeWait => {
                "This side closed first; the kernel keeps its address and port reserved, usually for 60 s."
            }
            State::CloseWait => "The peer has closed; the process here has not.",
            _ => "This side has closed; the peer has not.",
        };
        let (drawing, top) = stacked(&self.report.points, &[state], &format!("Sockets in {state} over time"));
        let by = self.by();
        html! {
            h2 id=(state) { (key(state)) (state) ": " (count(row.sockets)) " sockets" }
            p {
                (meaning) " " (count(row.open)) " were still in it at the end."
                @if let Some(peak) = row.peak {
                    " Most at once: " (number(peak.value)) ", at " (self.at(peak.unix_ns)) "."
                }
                @if row.never_accepted > 0 { " " (count(row.never_accepted)) " of them were never accepted." }
            }
            (quantiles(row))
            .pair {
                div { (histogram(row)) }
                figure.small {
                    figcaption { "Over time" }
                    (self.plot(&drawing, &format!("{} sockets", number(top))))
                }
            }
            @if state == State::TimeWait { (self.counts("time_wait_end", "How TIME_WAITs ended")) }
            (self.groups(Some(state), by))
            (self.groups_by_others(Some(state), by))
        }
    }

    /// Tables by every other grouping, folded.
    pub(super) fn groups_by_others(&self, state: Option<State>, by: By) -> Markup {
        html! {
            @for other in By::ALL.into_iter().filter(|other| *other != by) {
                details { summary { "By " (title(other).to_lowercase()) } (self.groups(state, other)) }
            }
        }
    }

    /// A table of groups in a state, or of all connections.
    pub(super) fn groups(&self, state: Option<State>, by: By) -> Markup {
        let report = self.report;
        let columns: &[&str] = if state.is_some() {
            &["share of time", "sockets", "share", "still in it", "median", "90 %", "longest"]
        } else {
            &[
                "connections",
                "share",
                "rate",
                "still open",
                "failed",
                "established, median",
                "longest",
                "sent",
                "received",
            ]
        };
        let columns: Vec<_> =
            [(title(by), true)].into_iter().chain(columns.iter().map(|name| (*name, false))).collect();
        let groups = report.groups.iter().filter(|row| row.state == state && row.group.by == by);
        let rows = groups.enumerate().map(|(place, group_row)| {
            let mut cells = vec![Cell::Name(group(&group_row.group, self.apart()))];
            cells.extend(group_row.total_share.map(|share| Cell::Figure(percent(share))));
            cells.extend([
                Cell::Exact("connections", group_row.connections, count(group_row.connections)),
                Cell::Figure(percent(group_row.share)),
            ]);
            if state.is_none() {
                let mean = report.overview.per_second(group_row.connections);
                cells.push(Cell::Figure(mean.map_or("-".to_owned(), rate)));
            }
            cells.push(Cell::Exact("open", group_row.open, count(group_row.open)));
            cells.extend(times(group_row, state));
            row("report_group", &group_key(by, state.map(State::as_str), place), others(&group_row.group), cells)
        });
        table("", &columns, rows)
    }
}

fn quantiles(of: &StateRow) -> Markup {
    let columns = ["sockets", "still in it", "shortest", "median", "90 %", "99 %", "longest"];
    let columns: Vec<_> = [("Time in it", true)].into_iter().chain(columns.map(|name| (name, false))).collect();
    let exact = |name, value: Option<u64>| match value {
        Some(ns) => Cell::Exact(name, ns, duration(value)),
        None => Cell::Figure("-".to_owned()),
    };
    let blank = || Cell::Figure(String::new());
    let row = |cells: [Cell; 8]| row("report_state", of.state.as_str(), None, cells);
    let all = row([
        Cell::Text("all".to_owned()),
        Cell::Exact("sockets", of.sockets, count(of.sockets)),
        Cell::Exact("open", of.open, count(of.open)),
        blank(),
        quantile("p50_ns", of.p50),
        quantile("p90_ns", of.p90),
        quantile("p99_ns", of.p99),
        Cell::Figure(longest(of).to_string()),
    ]);
    let known = row([
        Cell::Text("exact".to_owned()),
        Cell::Figure(count(of.sockets - of.at_least)),
        blank(),
        exact("min_ns", of.exact.min),
        blank(),
        blank(),
        blank(),
        exact("max_ns", of.exact.max),
    ]);
    let part = |ns| format!("≥{}", duration(ns));
    let in_part = (of.at_least > 0).then(|| {
        row([
            Cell::Text("lower bound".to_owned()),
            Cell::Exact("at_least", of.at_least, count(of.at_least)),
            blank(),
            Cell::Figure(part(of.parts.min)),
            blank(),
            blank(),
            blank(),
            Cell::Exact("at_least_max_ns", of.parts.max.unwrap_or(0), part(of.parts.max)),
        ])
    });
    table("", &columns, [all, known].into_iter().chain(in_part))
}

fn histogram(of: &StateRow) -> Markup {
    let highest = of.bins.iter().map(|bin| bin.exact + bin.at_least).max().unwrap_or(0).max(1) as f64;
    let has_parts = of.at_least > 0;
    let mut columns = vec![("from", false), ("below", false), ("sockets", false), ("", true)];
    if has_parts {
        columns.insert(3, ("≥", false));
    }
    let rows = shown_bins(&of.bins).into_iter().map(|bin| {
        let Some(bin) = bin else { return html! { tr { td { "⋮" } } } };
        let part = if bin.at_least > 0 { count(bin.at_least) } else { String::new() };
        let mut cells = vec![
            Cell::Figure(bound(bin.from_ns)),
            Cell::Figure(bin.to_ns.map_or("-".to_owned(), bound)),
            Cell::Exact("exact", bin.exact, count(bin.exact)),
        ];
        if has_parts {
            cells.push(Cell::Exact("at_least", bin.at_least, part));
        }
        let class = of.state.as_str();
        cells.push(Cell::Markup(bar(bin.exact as f64 / highest, bin.at_least as f64 / highest, class)));
        row("report_bucket", &format!("{}/{}", of.state, bin.from_ns), None, cells)
    });
    table("How long", &columns, rows)
}

fn times(row: &GroupRow, state: Option<State>) -> Vec<Cell> {
    let longest = quantile("longest_ns", row.longest);
    if state.is_some() {
        return vec![quantile("p50_ns", row.p50), quantile("p90_ns", row.p90), longest];
    }
    let bytes = |name, value: u64| Cell::Exact(name, value, crate::output::human::Bytes(value).to_string());
    vec![
        Cell::Exact("failed", row.failed, count(row.failed)),
        quantile("p50_ns", row.p50),
        longest,
        bytes("bytes_sent", row.bytes_sent),
        bytes("bytes_received", row.bytes_received),
    ]
}

/// A time that may be a lower bound.
fn quantile(name: &'static str, held: Held) -> Cell {
    match held.known_ns() {
        Some(ns) => Cell::Exact(name, ns, held.to_string()),
        None => Cell::Figure("-".to_owned()),
    }
}
