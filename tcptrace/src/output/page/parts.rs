//! How connections ended, what repeats, what is left, and what took longest.

use super::Writer;
use super::chart::{bar, life};
use super::markup::{Cell, escaped};
use crate::model::life::Life;
use crate::model::tcp::End;
use crate::output::fields::address;
use crate::output::sanitise;
use crate::output::text::report::words::{bytes, count, counted, duration, ends, group, meaning, percent, rate};
use crate::study::report::{By, Property, Slow, SlowRow};

impl Writer<'_> {
    /// By closer and by end.
    pub(super) fn ends(&mut self) {
        self.page.heading("ends", "How connections ended");
        self.page.raw("<div class=\"pair\"><div>");
        self.counts("closer", "Who closed first");
        let undecided = self.report.overview.closer_undecided;
        if undecided > 0 {
            self.page.element(
                "p",
                "soft",
                &format!("{} undecided: neither side has closed yet.", counted(undecided, "connection")),
            );
        }
        self.page.raw("</div><div>");
        self.counts("open", "States of those still open");
        self.page.raw("</div></div>");
        self.counts("end", "How they ended");
    }

    /// A table of connections by one property.
    pub(super) fn counts(&mut self, property: &str, caption: &str) {
        let report = self.report;
        let rows: Vec<_> = report.counts.iter().filter(|row| row.property.kind() == property).collect();
        if rows.is_empty() {
            return;
        }
        self.page.table(caption, &[("", true), ("connections", false), ("share", false), ("", true)]);
        for row in rows {
            let what = match row.property {
                Property::End(end) => format!("{} ({})", row.property.word(), meaning(end)),
                _ => row.property.word().to_owned(),
            };
            let cells = [
                Cell::Name(what),
                Cell::Exact("connections", row.connections, count(row.connections)),
                Cell::Figure(percent(row.share)),
                Cell::Markup(bar(row.share, 0.0, "mark")),
            ];
            self.page.row("report_count", &format!("{property}/{}", row.property.word()), "", cells);
        }
        self.page.end_table();
    }

    /// Short-lived connections that repeat.
    pub(super) fn short_lived(&mut self) {
        let report = self.report;
        self.page.heading("short", "Short-lived connections");
        if report.churn.is_empty() {
            self.page.element("p", "", "None was in ESTABLISHED for less than 1 s.");
            return;
        }
        let text = "In ESTABLISHED for less than 1 s. Many from one process to one end are the mark of a missing connection pool.";
        self.page.element("p", "", text);
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
            [("Who, and where to", true)].into_iter().chain(columns.map(|name| (name, false))).collect();
        self.page.table("", &columns);
        for (place, row) in report.churn.iter().enumerate() {
            let class = if row.group.others.is_some() { "others" } else { "" };
            let cells = [
                Cell::Name(ends(row, self.apart())),
                Cell::Exact("connections", row.connections, count(row.connections)),
                Cell::Figure(report.overview.per_second(row.connections).map_or("-".to_owned(), rate)),
                Cell::Exact("longer", row.longer, count(row.longer)),
                Cell::Exact("active", row.active, count(row.active)),
                Cell::Figure(duration(row.p50)),
                Cell::Figure(bytes(row.bytes_sent)),
                Cell::Figure(bytes(row.bytes_received)),
            ];
            self.page.row("report_churn", &place.to_string(), class, cells);
        }
        self.page.end_table();
    }

    /// What no connection shows.
    pub(super) fn dropped(&mut self) {
        let report = self.report;
        if report.counters.is_empty() {
            return;
        }
        self.page.heading("dropped", "Dropped before there was a socket");
        let text = "By the kernel's counters. No connection shows these.";
        self.page.element("p", "", text);
        let columns = [("Counter", true), ("increase", false), ("first", false), ("last", false)];
        let columns: Vec<_> = columns.into_iter().chain([("network namespace", true), ("meaning", true)]).collect();
        self.page.table("", &columns);
        for (place, row) in report.counters.iter().enumerate() {
            let class = if row.group.others.is_some() { "others" } else { "" };
            let cells = [
                Cell::Text(row.counter.as_str().to_owned()),
                Cell::Exact("increase", row.increase, count(row.increase)),
                Cell::Figure(self.at(row.first_unix_ns)),
                Cell::Figure(self.at(row.last_unix_ns)),
                Cell::Name(group(&row.group, self.apart())),
                Cell::Text(format!("{}: {}", row.counter.what(), row.counter.why())),
            ];
            self.page.row("report_counter", &place.to_string(), class, cells);
        }
        self.page.end_table();
    }

    /// Resets and failures, by kind: what could not be reached, and by whom.
    pub(super) fn failures(&mut self) {
        self.page.heading("failures", "Resets and failures");
        if self.report.failures.is_empty() {
            self.page.element("p", "", "None.");
            return;
        }
        self.failures_by(By::Remote);
        if self.by() != By::Remote {
            self.failures_by(self.by());
        }
    }

    fn failures_by(&mut self, by: By) {
        let report = self.report;
        let rows: Vec<_> = report.failures.iter().filter(|row| row.group.by == by).collect();
        self.page.table("", &[("End", true), ("connections", false), ("share", false), (title(by), true)]);
        let mut place = 0;
        for (number, row) in rows.iter().enumerate() {
            place = if number > 0 && rows[number - 1].end == row.end { place + 1 } else { 0 };
            let class = if row.group.others.is_some() { "others" } else { "" };
            let cells = [
                Cell::Text(row.end.as_str().to_owned()),
                Cell::Exact("connections", row.connections, count(row.connections)),
                Cell::Figure(percent(row.share)),
                Cell::Name(group(&row.group, self.apart())),
            ];
            self.page.row("report_failure", &group_key(by, Some(row.end.as_str()), place), class, cells);
        }
        self.page.end_table();
    }

    /// What was still open in the end.
    pub(super) fn open(&mut self) {
        let report = self.report;
        let by = self.by();
        self.page.heading("open", "Still open in the end");
        let rows: Vec<_> = report.open.iter().filter(|row| row.group.by == by).collect();
        if rows.is_empty() {
            self.page.element("p", "", "Nothing.");
            return;
        }
        let columns = [
            ("State", true),
            ("connections", false),
            ("share", false),
            ("oldest", false),
            ("never accepted", false),
            (title(by), true),
        ];
        self.page.table("", &columns);
        let mut place = 0;
        for (number, row) in rows.iter().enumerate() {
            place = if number > 0 && rows[number - 1].state == row.state { place + 1 } else { 0 };
            let class = if row.group.others.is_some() { "others" } else { "" };
            let cells = [
                Cell::Text(row.state.as_str().to_owned()),
                Cell::Exact("connections", row.connections, count(row.connections)),
                Cell::Figure(percent(row.share)),
                Cell::Figure(row.oldest.to_string()),
                Cell::Exact("never_accepted", row.never_accepted, count(row.never_accepted)),
                Cell::Name(group(&row.group, self.apart())),
            ];
            self.page.row("report_open", &group_key(by, Some(row.state.as_str()), place), class, cells);
        }
        self.page.end_table();
    }

    /// All connections, by every way of grouping.
    pub(super) fn all_connections(&mut self) {
        let by = self.by();
        self.page.heading("all", "All connections");
        self.groups(None, by);
        for other in By::ALL.into_iter().filter(|other| *other != by) {
            self.page.raw(&format!("<details><summary>By {}</summary>", title(other).to_lowercase()));
            self.groups(None, other);
            self.page.raw("</details>");
        }
    }

    /// The connections that took longest, drawn.
    pub(super) fn slowest(&mut self) {
        let report = self.report;
        self.page.heading("slowest", "Longest connections");
        for slow in Slow::ALL {
            let rows: Vec<&SlowRow> = report.slowest.iter().filter(|row| row.slow == slow).collect();
            if rows.is_empty() {
                continue;
            }
            self.page.element(
                "h3",
                "",
                match slow {
                    Slow::TimeWait => "Longest in TIME_WAIT",
                    Slow::CloseWait => "Longest in CLOSE_WAIT",
                    Slow::Lifetime => "From opening to end",
                },
            );
            let longest = rows.iter().map(|row| Life::of(&row.connection).length()).max().unwrap_or(0);
            self.page.raw("<ol class=\"lives\">");
            rows.iter().for_each(|row| self.life(row, longest));
            self.page.raw("</ol>");
        }
    }

    fn life(&mut self, row: &SlowRow, longest: u64) {
        let connection = &row.connection;
        let task = connection.identity.owner.map(|owner| owner.task);
        let process =
            task.map_or("unknown process".to_owned(), |task| format!("{}[{}]", sanitise(task.comm.bytes()), task.pid));
        let host = if self.apart().hosts { format!("{}: ", sanitise(row.host.as_bytes())) } else { String::new() };
        let identity = &connection.identity;
        let end = |end| address(identity, end, &row.context);
        let who = format!("{host}{process}, {} to {}", end(identity.local()), end(identity.remote()));
        let stay = |stay: &crate::model::row::Stay| format!("{} {}", stay.state, stay.held);
        let states = connection.stays.iter().map(stay).collect::<Vec<_>>().join(" › ");
        let end = connection.end().map_or("still open", End::as_str);
        self.page.raw(&format!(
            "<li data-event=\"report_slowest\" data-key=\"{}/{:x}\"><div class=\"who\"><span>{}</span>\
             <strong data-name=\"held_ns\" data-value=\"{}\">{}</strong></div>{}<div class=\"states\">{}</div></li>",
            row.slow.as_str(),
            connection.identity.conn,
            escaped(&who),
            row.held.known_ns().unwrap_or(0),
            row.held,
            life(connection, longest, &states),
            escaped(&format!("{states} › {end}")),
        ));
    }
}

/// Which of the rows of one way of grouping, and of one state or end.
pub(super) fn group_key(by: By, within: Option<&str>, place: usize) -> String {
    format!("{}/{}/{place}", by.as_str(), within.unwrap_or(""))
}

/// What is grouped by.
pub(super) fn title(by: By) -> &'static str {
    match by {
        By::Process => "Process",
        By::Remote => "Remote end",
        By::Lport => "Local port",
        By::Container => "Container, unit or control group",
        By::Netns => "Network namespace",
    }
}
