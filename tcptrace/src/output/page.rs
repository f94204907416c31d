//! A report as one HTML page, without scripts and without anything to load.
//!
//! Whatever is not markup by its type is escaped, and the page forbids itself to load or to run anything. Its figures
//! stand in tables, whose rows name the rows of JSON that they show, and as JSON in an element with the id `report`.

mod chart;
mod findings;
mod markup;
mod parts;
mod states;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::markup::embedded;
use super::lost::bound;
use super::text::report::longest;
use super::text::report::words::{
    Apart, count, counted, duration, ends, fired, group, hosts, number, percent, period, rate, time,
};
use crate::study::report::{By, ChurnRow, Peak, Report, StateRow};

/// The page may load and run nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("page/style.css");

/// Writes a report as a page.
///
/// # Errors
/// Errors of the writer.
pub fn page(mut out: impl Write, zone: &TimeZone, report: &Report) -> io::Result<()> {
    let page = Writer { zone, report }.page()?;
    out.write_all(page.into_string().as_bytes())?;
    out.flush()
}

/// Makes parts of a page.
struct Writer<'a> {
    zone: &'a TimeZone,
    report: &'a Report,
}

impl Writer<'_> {
    fn page(&self) -> io::Result<Markup> {
        let title = format!("{}: TCP connections", hosts(self.report));
        let rows = self.rows()?;
        Ok(html! {
            (DOCTYPE) "\n"
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="referrer" content="no-referrer";
                    title { (title) }
                    style { "\n" (PreEscaped(STYLE)) }
                }
                body {
                    (chart::patterns())
                    header {
                        h1 { (title) }
                        p.soft { (period(self.zone, self.report)) }
                    }
                    main {
                        (self.fired())
                        (self.missing())
                        (self.findings())
                        (self.cards())
                        (self.in_short())
                        (self.contents())
                        (self.over_time())
                        @for row in self.report.states.iter().filter(|row| row.sockets > 0) { (self.state(row)) }
                        (self.ends())
                        (self.short_lived())
                        (self.failures())
                        (self.dropped())
                        (self.open())
                        (self.all_connections())
                        (self.slowest())
                    }
                    (footer())
                    script type="application/json" id="report" { "[\n" (PreEscaped(embedded(&rows))) "\n]" }
                }
            }
        })
    }

    /// The rows of JSON, as elements of an array.
    fn rows(&self) -> io::Result<String> {
        let mut rows = Vec::new();
        super::report::json(&mut rows, self.report)?;
        Ok(String::from_utf8_lossy(&rows).trim_end().replace('\n', ",\n"))
    }

    /// The first grouping of its tables.
    fn by(&self) -> By {
        self.report.options.by.unwrap_or_default()
    }

    /// What groups must be distinguished by.
    fn apart(&self) -> Apart {
        Apart::of(self.report)
    }

    fn at(&self, unix_ns: i64) -> String {
        time(self.zone, unix_ns)
    }

    /// Why flight recorders have written the traces.
    fn fired(&self) -> Markup {
        html! {
            @for line in fired(self.zone, self.report) { p.fired { strong { (line) } } }
        }
    }

    /// Losses and damage that the figures do not include.
    fn missing(&self) -> Markup {
        let lost = self.report.lost.iter().filter(|lost| lost.events > 0 || lost.at_least);
        html! {
            @for lost in lost {
                p.alarm role="alert" {
                    (bound(counted(lost.events, "event"), lost.at_least)) " lost (" (lost.cause.words()) "). "
                    "The figures do not include them."
                }
            }
            @for damage in &self.report.damage {
                p.alarm role="alert" { "Damaged: " (super::sanitise(damage.as_bytes())) }
            }
        }
    }

    fn cards(&self) -> Markup {
        let overview = &self.report.overview;
        let most = |peak: Option<Peak>| {
            let peak = peak.filter(|peak| peak.value > 0.0);
            peak.map_or(String::new(), |peak| format!(", most {} at {}", rate(peak.value), self.at(peak.unix_ns)))
        };
        let mean = |count: u64| overview.per_second(count).map_or("-".to_owned(), rate);
        let share = |part: u64, all: u64| percent(if all == 0 { 0.0 } else { part as f64 / all as f64 });
        let cards = [
            ("connections", "Connections", overview.connections, format!("{} incomplete", count(overview.incomplete))),
            ("opened", "Opened", overview.opened, format!("{}{}", mean(overview.opened), most(overview.opened_peak))),
            ("ended", "Ended", overview.ended, format!("{}{}", mean(overview.ended), most(overview.ended_peak))),
            ("open", "Still open", overview.open, share(overview.open, overview.connections)),
            (
                "failed",
                "Failed",
                overview.failed,
                format!(
                    "{} of ended ones; {} by a reset",
                    share(overview.failed, overview.ended),
                    count(overview.reset)
                ),
            ),
        ];
        html! {
            dl.cards data-event="report" data-key="" {
                @for (name, title, value, note) in cards {
                    .card {
                        dt { (title) }
                        dd data-name=(name) data-value=(value) { (count(value)) }
                        dd.note { (note) }
                    }
                }
            }
        }
    }

    /// A sentence for each finding.
    fn in_short(&self) -> Markup {
        let report = self.report;
        let first = |row: &StateRow, by: By| {
            let mut rows = report.groups.iter().filter(|group| group.state == Some(row.state) && group.group.by == by);
            let first = rows.next()?;
            let share = percent(first.total_share.unwrap_or(first.share));
            Some(format!("{share} {}", group(&first.group, self.apart())))
        };
        let most = |row: &StateRow| {
            row.peak.map_or(String::new(), |peak| {
                format!(" at most {} at once, at {};", number(peak.value), self.at(peak.unix_ns))
            })
        };
        let parts = |row: &StateRow| {
            let parts: Vec<_> = [By::Process, By::Remote].into_iter().filter_map(|by| first(row, by)).collect();
            parts.join("; with ")
        };
        let all: u64 = report.churn.iter().map(|row| row.connections).sum();
        let mean = |row: &ChurnRow| report.overview.per_second(row.connections).map_or("-".to_owned(), rate);
        html! {
            ul.short {
                @for row in report.states.iter().filter(|row| row.sockets > 0) {
                    li {
                        strong { (chart::key(row.state)) (row.state) }
                        (most(row)) " longest " (longest(row)) "; " (parts(row)) "."
                    }
                }
                @if let Some(most) = report.busiest_pair() {
                    li {
                        strong { "Short-lived" }
                        " " (counted(all, "connection")) " in ESTABLISHED for less than 1 s; most: "
                        (ends(most, self.apart())) ", " (count(most.connections)) " (" (mean(most)) "), median "
                        (duration(most.p50)) "."
                    }
                }
            }
        }
    }

    fn contents(&self) -> Markup {
        let states = self.report.states.iter().filter(|row| row.sockets > 0).map(|row| row.state.as_str());
        let parts = [
            ("ends", "How they ended"),
            ("short", "Short-lived"),
            ("failures", "Failures"),
            ("dropped", "Dropped"),
            ("open", "Still open"),
            ("all", "All connections"),
            ("slowest", "Longest"),
        ];
        let links = [("time", "Over time")].into_iter().chain(states.map(|name| (name, name))).chain(parts);
        let links = links.filter(|(id, _)| *id != "dropped" || !self.report.counters.is_empty());
        let found = (!self.report.causes().is_empty()).then_some(("findings", "Findings"));
        let links = found.into_iter().chain(links);
        html! { nav aria-label="Contents" { @for (id, name) in links { a href={ "#" (id) } { (name) } } } }
    }
}

fn footer() -> Markup {
    html! {
        footer {
            p.soft {
                "Each end of a connection on a machine that was recorded counts. ≥ is a lower bound, - is unknown. "
                "Medians and percentiles are estimates (Kaplan-Meier) that count stays that are not over, or were seen in "
                "part."
            }
            p.soft { "Made by tcptrace " (env!("CARGO_PKG_VERSION")) "." }
        }
    }
}
