//! The course of time, and the states in which sockets pile up.

use super::Writer;
use super::chart::{Moments, bar, key, rates, stacked};
use super::markup::{Cell, escaped};
use super::parts::{group_key, title};
use crate::model::row::Held;
use crate::model::tcp::State;
use crate::output::text::report::longest;
use crate::output::text::report::words::{bound, count, duration, group, number, percent, rate, shown_bins};
use crate::study::report::{By, GroupRow, Range, StateRow, TRACKED};

impl Writer<'_> {
    /// States and rates, over the whole period.
    pub(super) fn over_time(&mut self) {
        let report = self.report;
        self.page.heading("time", "Over time");
        if report.points.is_empty() {
            self.page.element("p", "", "The period has no length.");
            return;
        }
        let highest = |place: usize| report.points.iter().map(|point| point.sockets[place]).fold(0.0, f64::max);
        let shown: Vec<(State, f64)> = TRACKED
            .into_iter()
            .enumerate()
            .map(|(place, state)| (state, highest(place)))
            .filter(|(_, highest)| *highest >= 0.005)
            .collect();
        let states: Vec<State> = shown.iter().map(|(state, _)| *state).collect();
        let (drawing, top) = stacked(&report.points, &states, "Sockets in each state over time, stacked");
        self.page.raw("<figure><figcaption>Sockets by state, one on top of the other</figcaption>");
        self.plot(&drawing, &format!("{} sockets", number(top)));
        self.page.raw("<ul class=\"legend\">");
        for (state, highest) in shown {
            self.page.raw(&format!(
                "<li>{}{state} <span class=\"soft\">at most {}</span></li>",
                key(state),
                number(highest)
            ));
        }
        self.page.raw("</ul></figure>");
        let lines: [(&str, Moments); 3] =
            [("opened", |point| point.opened), ("ended", |point| point.ended), ("failed", |point| point.failed)];
        let (drawing, top) = rates(&report.points, &lines, "Connections opened, ended and failed in a second");
        self.page.raw("<figure class=\"small\"><figcaption>Connections a second</figcaption>");
        self.plot(&drawing, &rate(top));
        self.page.raw("<ul class=\"legend\">");
        for (class, _) in lines {
            self.page.raw(&format!(
                "<li><svg viewBox=\"0 0 22 16\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M0 8L22 8\"/></svg>{class}</li>"
            ));
        }
        self.page.raw("</ul></figure>");
        self.legend_of_time();
    }

    fn legend_of_time(&mut self) {
        let unplaced = self.report.states.iter().filter(|row| row.unplaced > 0);
        let parts: Vec<_> = unplaced.map(|row| format!("{} in {}", count(row.unplaced), row.state)).collect();
        if !parts.is_empty() {
            self.page.element("p", "soft", &format!("Left out, since it is not known when: {}.", parts.join(", ")));
        }
    }

    /// A drawing with its axes.
    fn plot(&mut self, drawing: &str, top: &str) {
        let (Some(first), Some(last)) = (self.report.points.first(), self.report.points.last()) else { return };
        let end = last.from_unix_ns.saturating_add_unsigned(last.width_ns);
        let middle = first.from_unix_ns + (end - first.from_unix_ns) / 2;
        let times = [first.from_unix_ns, middle, end].map(|at| format!("<span>{}</span>", escaped(&self.at(at))));
        self.page.raw(&format!("<span class=\"top\">{}</span><div class=\"plot\">{drawing}</div>", escaped(top)));
        self.page.raw(&format!("<div class=\"axis\">{}</div>", times.concat()));
    }

    /// How many, how long, who, to whom, and when.
    pub(super) fn state(&mut self, row: &StateRow) {
        let state = row.state;
        self.page.raw(&format!("<h2 id=\"{state}\">{}{state}: {} sockets</h2>", key(state), count(row.sockets)));
        let meaning = match state {
            State::TimeWait => "This side closed first; the kernel keeps the ports for a while.",
            State::CloseWait => "The peer has closed; the process here has not.",
            _ => "This side has closed; the peer has not.",
        };
        let never = if row.never_accepted > 0 {
            format!(" {} of them no process had even accepted.", count(row.never_accepted))
        } else {
            String::new()
        };
        let most = row.peak.map_or(String::new(), |peak| {
            format!(" Most at once: {}, at {}.", number(peak.value), self.at(peak.unix_ns))
        });
        let text = format!("{meaning} {} were still in it in the end.{most}{never}", count(row.open));
        self.page.element("p", "", &text);
        self.quantiles(row);
        self.page.raw("<div class=\"pair\"><div>");
        self.histogram(row);
        self.page.raw("</div>");
        let (drawing, top) = stacked(&self.report.points, &[state], &format!("Sockets in {state} over time"));
        self.page.raw("<figure class=\"small\"><figcaption>Over time</figcaption>");
        self.plot(&drawing, &format!("{} sockets", number(top)));
        self.page.raw("</figure></div>");
        if state == State::TimeWait {
            self.counts("time_wait_end", "How TIME_WAITs ended");
        }
        let by = self.by();
        self.groups(Some(state), by);
        for other in By::ALL.into_iter().filter(|other| *other != by) {
            self.page.raw(&format!("<details><summary>By {}</summary>", title(other).to_lowercase()));
            self.groups(Some(state), other);
            self.page.raw("</details>");
        }
    }

    fn quantiles(&mut self, row: &StateRow) {
        let columns = ["sockets", "still in it", "shortest", "median", "90 %", "99 %", "longest"];
        let columns: Vec<_> = [("Time in it", true)].into_iter().chain(columns.map(|name| (name, false))).collect();
        self.page.table("", &columns);
        let exact = |name, value: Option<u64>| match value {
            Some(ns) => Cell::Exact(name, ns, duration(value)),
            None => Cell::Figure("-".to_owned()),
        };
        let known = row.sockets - row.at_least;
        self.page.row(
            "report_state",
            row.state.as_str(),
            "",
            [
                Cell::Text("all".to_owned()),
                Cell::Exact("sockets", row.sockets, count(row.sockets)),
                Cell::Exact("open", row.open, count(row.open)),
                Cell::Figure(String::new()),
                quantile("p50_ns", row.p50),
                quantile("p90_ns", row.p90),
                quantile("p99_ns", row.p99),
                Cell::Figure(longest(row).to_string()),
            ],
        );
        let blank = || Cell::Figure(String::new());
        let Range { min, max } = row.exact;
        self.page.row(
            "report_state",
            row.state.as_str(),
            "",
            [
                Cell::Text("known exactly".to_owned()),
                Cell::Figure(count(known)),
                blank(),
                exact("min_ns", min),
                blank(),
                blank(),
                blank(),
                exact("max_ns", max),
            ],
        );
        if row.at_least > 0 {
            let Range { min, max } = row.parts;
            let part = |ns| format!("≥{}", duration(ns));
            let part_of = |name, ns: Option<u64>| Cell::Exact(name, ns.unwrap_or(0), part(ns));
            self.page.row(
                "report_state",
                row.state.as_str(),
                "",
                [
                    Cell::Text("known in part".to_owned()),
                    Cell::Exact("at_least", row.at_least, count(row.at_least)),
                    blank(),
                    Cell::Figure(part(min)),
                    blank(),
                    blank(),
                    blank(),
                    part_of("at_least_max_ns", max),
                ],
            );
        }
        self.page.end_table();
    }

    fn histogram(&mut self, row: &StateRow) {
        let highest = row.bins.iter().map(|bin| bin.exact + bin.at_least).max().unwrap_or(0).max(1) as f64;
        let has_parts = row.at_least > 0;
        let mut columns = vec![("from", false), ("below", false), ("sockets", false), ("", true)];
        if has_parts {
            columns.insert(3, ("≥", false));
        }
        self.page.table("How long", &columns);
        for bin in shown_bins(&row.bins) {
            let Some(bin) = bin else {
                self.page.raw("<tr><td>⋮</td></tr>");
                continue;
            };
            let part = if bin.at_least > 0 { count(bin.at_least) } else { String::new() };
            let mut cells = vec![
                Cell::Figure(bound(bin.from_ns)),
                Cell::Figure(bin.to_ns.map_or("-".to_owned(), bound)),
                Cell::Exact("exact", bin.exact, count(bin.exact)),
            ];
            if has_parts {
                cells.push(Cell::Exact("at_least", bin.at_least, part));
            }
            let class = row.state.as_str();
            cells.push(Cell::Markup(bar(bin.exact as f64 / highest, bin.at_least as f64 / highest, class)));
            self.page.row("report_bucket", &format!("{}/{}", row.state, bin.from_ns), "", cells);
        }
        self.page.end_table();
    }

    /// A table of groups; of those in a state, or of all.
    pub(super) fn groups(&mut self, state: Option<State>, by: By) {
        let report = self.report;
        let rows: Vec<&GroupRow> =
            report.groups.iter().filter(|row| row.state == state && row.group.by == by).collect();
        if state.is_some() {
            let columns = ["of all time", "sockets", "share", "still in it", "median", "90 %", "longest"];
            let columns: Vec<_> = [(title(by), true)].into_iter().chain(columns.map(|name| (name, false))).collect();
            self.page.table("", &columns);
        } else {
            let columns = [
                "connections",
                "share",
                "rate",
                "still open",
                "failed",
                "established, median",
                "longest",
                "sent",
                "received",
            ];
            let columns: Vec<_> = [(title(by), true)].into_iter().chain(columns.map(|name| (name, false))).collect();
            self.page.table("", &columns);
        }
        for (place, row) in rows.into_iter().enumerate() {
            let class = if row.group.others.is_some() { "others" } else { "" };
            let key = group_key(by, state.map(State::as_str), place);
            let mut cells = vec![Cell::Name(group(&row.group, self.apart()))];
            cells.extend(row.total_share.map(|share| Cell::Figure(percent(share))));
            cells.extend([
                Cell::Exact("connections", row.connections, count(row.connections)),
                Cell::Figure(percent(row.share)),
            ]);
            if state.is_none() {
                cells.push(Cell::Figure(report.overview.per_second(row.connections).map_or("-".to_owned(), rate)));
            }
            cells.push(Cell::Exact("open", row.open, count(row.open)));
            cells.extend(self.times(row, state));
            self.page.row("report_group", &key, class, cells);
        }
        self.page.end_table();
    }

    fn times(&self, row: &GroupRow, state: Option<State>) -> Vec<Cell> {
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
}

/// A time of which more may be unknown.
fn quantile(name: &'static str, held: Held) -> Cell {
    match held.known_ns() {
        Some(ns) => Cell::Exact(name, ns, held.to_string()),
        None => Cell::Figure("-".to_owned()),
    }
}
