//! How connections ended, short-lived ones, those still open, and the longest.

use maud::{Markup, html};

use super::Writer;
use super::chart::{bar, life};
use super::markup::{Cell, heading, row, table};
use crate::model::life::Life;
use crate::model::tcp::End;
use crate::output::fields::address;
use crate::output::sanitise;
use crate::output::text::report::words::{bytes, count, counted, duration, ends, group, meaning, percent, rate};
use crate::study::report::{By, Group, Property, Slow, SlowRow};

impl Writer<'_> {
    /// By closer and by end.
    pub(super) fn ends(&self) -> Markup {
        let undecided = self.report.overview.closer_undecided;
        html! {
            (heading("ends", "How connections ended"))
            .pair {
                div {
                    (self.counts("closer", "Who closed first"))
                    @if undecided > 0 {
                        p.soft { (counted(undecided, "connection")) " undecided: neither side has closed yet." }
                    }
                }
                div { (self.counts("open", "States of those still open")) }
            }
            (self.counts("end", "How they ended"))
        }
    }

    /// A table of connections by one property.
    pub(super) fn counts(&self, property: &str, caption: &str) -> Markup {
        let counts: Vec<_> = self.report.counts.iter().filter(|count| count.property.kind() == property).collect();
        let rows = counts.iter().map(|of| {
            let word = of.property.word();
            let what = match of.property {
                Property::End(end) => format!("{word} ({})", meaning(end)),
                _ => word.to_owned(),
            };
            let cells = [
                Cell::Name(what),
                Cell::Exact("connections", of.connections, count(of.connections)),
                Cell::Figure(percent(of.share)),
                Cell::Markup(bar(of.share, 0.0, "mark")),
            ];
            row("report_count", &format!("{property}/{word}"), None, cells)
        });
        let columns = [("", true), ("connections", false), ("share", false), ("", true)];
        html! { @if !counts.is_empty() { (table(caption, &columns, rows)) } }
    }

    /// Short-lived connections that repeat.
    pub(super) fn short_lived(&self) -> Markup {
        let report = self.report;
        let columns = [
            "short-lived",
            "rate",
            "longer ones",
            "closed here first",
            "established, median",
            "sent each",
            "received each",
        ];
        let columns: Vec<_> =
            [("Process and peer", true)].into_iter().chain(columns.map(|name| (name, false))).collect();
        let rows = report.churn.iter().enumerate().map(|(place, of)| {
            let cells = [
                Cell::Name(ends(of, self.apart())),
                Cell::Exact("connections", of.connections, count(of.connections)),
                Cell::Figure(report.overview.per_second(of.connections).map_or("-".to_owned(), rate)),
                Cell::Exact("longer", of.longer, count(of.longer)),
                Cell::Exact("active", of.active, count(of.active)),
                Cell::Figure(duration(of.p50)),
                Cell::Figure(bytes(of.bytes_sent)),
                Cell::Figure(bytes(of.bytes_received)),
            ];
            row("report_churn", &place.to_string(), others(&of.group), cells)
        });
        html! {
            (heading("short", "Short-lived connections"))
            @if report.churn.is_empty() {
                p { "None was in ESTABLISHED for less than 1 s." }
            } @else {
                p {
                    "In ESTABLISHED for less than 1 s. Many from one process to one end are the mark of a missing "
                    "connection pool."
                }
                (table("", &columns, rows))
            }
        }
    }

    /// Kernel counters that no connection shows.
    pub(super) fn dropped(&self) -> Markup {
        let counters = &self.report.counters;
        let columns = [("Counter", true), ("increase", false), ("first", false), ("last", false)];
        let columns: Vec<_> = columns.into_iter().chain([("network namespace", true), ("meaning", true)]).collect();
        let rows = counters.iter().enumerate().map(|(place, of)| {
            let cells = [
                Cell::Text(of.counter.as_str().to_owned()),
                Cell::Exact("increase", of.increase, count(of.increase)),
                Cell::Figure(self.at(of.first_unix_ns)),
                Cell::Figure(self.at(of.last_unix_ns)),
                Cell::Name(group(&of.group, self.apart())),
                Cell::Text(format!("{}: {}", of.counter.what(), of.counter.why())),
            ];
            row("report_counter", &place.to_string(), others(&of.group), cells)
        });
        html! {
            @if !counters.is_empty() {
                (heading("dropped", "Dropped before a socket existed"))
                p { "These are counters of the kernel. The drops belong to no connection." }
                (table("", &columns, rows))
            }
        }
    }

    /// Resets and failures, by remote end and by process.
    pub(super) fn failures(&self) -> Markup {
        html! {
            (heading("failures", "Resets and failures"))
            @if self.report.failures.is_empty() {
                p { "None." }
            } @else {
                (self.failures_by(By::Remote))
                @if self.by() != By::Remote { (self.failures_by(self.by())) }
            }
        }
    }

    fn failures_by(&self, by: By) -> Markup {
        let failures: Vec<_> = self.report.failures.iter().filter(|of| of.group.by == by).collect();
        let places = failures.chunk_by(|a, b| a.end == b.end).flat_map(|same| same.iter().enumerate());
        let rows = places.map(|(place, of)| {
            let cells = [
                Cell::Text(of.end.as_str().to_owned()),
                Cell::Exact("connections", of.connections, count(of.connections)),
                Cell::Figure(percent(of.share)),
                Cell::Name(group(&of.group, self.apart())),
            ];
            row("report_failure", &group_key(by, Some(of.end.as_str()), place), others(&of.group), cells)
        });
        table("", &[("End", true), ("connections", false), ("share", false), (title(by), true)], rows)
    }

    /// Connections that were still open at the end.
    pub(super) fn open(&self) -> Markup {
        let by = self.by();
        let open: Vec<_> = self.report.open.iter().filter(|of| of.group.by == by).collect();
        let columns = [
            ("State", true),
            ("connections", false),
            ("share", false),
            ("oldest", false),
            ("never accepted", false),
            (title(by), true),
        ];
        let places = open.chunk_by(|a, b| a.state == b.state).flat_map(|same| same.iter().enumerate());
        let rows = places.map(|(place, of)| {
            let cells = [
                Cell::Text(of.state.as_str().to_owned()),
                Cell::Exact("connections", of.connections, count(of.connections)),
                Cell::Figure(percent(of.share)),
                Cell::Figure(of.oldest.to_string()),
                Cell::Exact("never_accepted", of.never_accepted, count(of.never_accepted)),
                Cell::Name(group(&of.group, self.apart())),
            ];
            row("report_open", &group_key(by, Some(of.state.as_str()), place), others(&of.group), cells)
        });
        html! {
            (heading("open", "Still open at the end"))
            @if open.is_empty() { p { "None." } } @else { (table("", &columns, rows)) }
        }
    }

    /// All connections, by every way of grouping.
    pub(super) fn all_connections(&self) -> Markup {
        let by = self.by();
        html! { (heading("all", "All connections")) (self.groups(None, by)) (self.groups_by_others(None, by)) }
    }

    /// Drawings of the longest connections.
    pub(super) fn slowest(&self) -> Markup {
        html! { (heading("slowest", "Longest connections")) @for slow in Slow::ALL { (self.slowest_in(slow)) } }
    }

    fn slowest_in(&self, slow: Slow) -> Markup {
        let rows: Vec<&SlowRow> = self.report.slowest.iter().filter(|row| row.slow == slow).collect();
        let longest = rows.iter().map(|row| Life::of(&row.connection).length()).max().unwrap_or(0);
        let title = match slow {
            Slow::TimeWait => "Longest in TIME_WAIT",
            Slow::CloseWait => "Longest in CLOSE_WAIT",
            Slow::Lifetime => "From opening to end",
        };
        html! {
            @if !rows.is_empty() {
                h3 { (title) }
                ol.lives { @for row in rows { (self.life(row, longest)) } }
            }
        }
    }

    fn life(&self, row: &SlowRow, longest: u64) -> Markup {
        let connection = &row.connection;
        let task = connection.identity.owner.map(|owner| owner.task);
        let process =
            task.map_or("unknown process".to_owned(), |task| format!("{}[{}]", sanitise(task.comm.bytes()), task.pid));
        let host = if self.apart().hosts { format!("{}: ", sanitise(row.host.as_bytes())) } else { String::new() };
        let identity = &connection.identity;
        let end = |end| address(identity, end, &row.context);
        let stay = |stay: &crate::model::row::Stay| format!("{} {}", stay.state, stay.held);
        let states = connection.stays.iter().map(stay).collect::<Vec<_>>().join(" › ");
        let key = format!("{}/{:x}", row.slow.as_str(), identity.conn);
        html! {
            li data-event="report_slowest" data-key=(key) {
                .who {
                    span { (host) (process) ", " (end(identity.local())) " to " (end(identity.remote())) }
                    strong data-name="held_ns" data-value=(row.held.known_ns().unwrap_or(0)) { (row.held) }
                }
                (life(connection, longest, &states))
                .states { (states) " › " (connection.end().map_or("still open", End::as_str)) }
            }
        }
    }
}

/// The class of a row that sums up other groups.
pub(super) fn others(group: &Group) -> Option<&'static str> {
    group.others.is_some().then_some("others")
}

/// The key of a row within one grouping and one state or end.
pub(super) fn group_key(by: By, within: Option<&str>, place: usize) -> String {
    format!("{}/{}/{place}", by.as_str(), within.unwrap_or(""))
}

/// The title of a grouping.
pub(super) fn title(by: By) -> &'static str {
    match by {
        By::Process => "Process",
        By::Remote => "Remote end",
        By::Lport => "Local port",
        By::Container => "Container, unit or control group",
        By::Netns => "Network namespace",
    }
}
