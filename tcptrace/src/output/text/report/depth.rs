//! Each part of a report in depth.

use std::io::{self, Write};

use super::spark::bar;
use super::table::Table;
use super::words::{
    bound, bytes, count, counted, duration, ends, group, meaning, number, percent, rate, shown_bins, time,
};
use super::{Writer, longest, sparkline, style};
use crate::model::tcp::{End, State};
use crate::output::fields::address;
use crate::output::text::column::Align;
use crate::output::text::diagnose;
use crate::study::report::{By, Group, GroupRow, Point, Property, Slow, StateRow, TRACKED, is_failure};

/// What happened in a part of the time.
type Moments = fn(&Point) -> u64;

/// Columns of a chart over the whole width.
const WIDE: usize = 60;

impl<W: Write> Writer<'_, W> {
    pub(super) fn depth(&mut self) -> io::Result<()> {
        self.findings()?;
        self.over_time()?;
        self.counts()?;
        for row in self.report.states.iter().filter(|row| row.sockets > 0) {
            self.state(row)?;
        }
        self.all_connections()?;
        self.short_lived()?;
        self.failed()?;
        self.dropped()?;
        self.open()?;
        Slow::ALL.into_iter().try_for_each(|slow| self.slowest(slow))
    }

    fn findings(&mut self) -> io::Result<()> {
        for case in self.report.cases.iter().filter(|case| !case.diagnosis.findings.is_empty()) {
            self.heading(&format!("FINDINGS: {}", diagnose::header(case)))?;
            diagnose::write_findings(self.out, self.options, case)?;
        }
        Ok(())
    }

    fn over_time(&mut self) -> io::Result<()> {
        let points = &self.report.points;
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
        let zone = &self.options.zone;
        let end = last.from_unix_ns.saturating_add_unsigned(last.width_ns);
        let heading = format!("OVER TIME, {} to {}", time(zone, first.from_unix_ns), time(zone, end));
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("HIGHEST", Align::Right)]);
        let rates: [(&str, Moments); 3] =
            [("opened", |point| point.opened), ("ended", |point| point.ended), ("failed", |point| point.failed)];
        for (name, of) in rates {
            let values: Vec<f64> =
                points.iter().map(|point| of(point) as f64 * 1e9 / point.width_ns.max(1) as f64).collect();
            let highest = values.iter().copied().fold(0.0, f64::max);
            table.row([name.to_owned(), sparkline(&values, WIDE), rate(highest)]);
        }
        for state in TRACKED {
            let values = self.sockets(state);
            let highest = values.iter().copied().fold(0.0, f64::max);
            // States that always last only some µs would fill the screen.
            if highest >= 0.05 {
                let cells = [state.as_str().to_owned(), sparkline(&values, WIDE), number(highest)];
                table.styled(cells.into_iter().zip([
                    style::state(state),
                    anstyle::Style::new(),
                    anstyle::Style::new(),
                ]));
            }
        }
        self.heading(&heading)?;
        table.write(self.out, 2, self.options.colour)?;
        for row in self.report.states.iter().filter(|row| row.unplaced > 0) {
            writeln!(self.out, "  {} in {} not shown: it is unknown when", count(row.unplaced), row.state)?;
        }
        Ok(())
    }

    fn counts(&mut self) -> io::Result<()> {
        let headings = [
            ("closer", "CLOSER", "WHO CLOSED FIRST"),
            ("end", "END", "HOW CONNECTIONS ENDED"),
            ("time_wait_end", "END", "HOW TIME_WAITS ENDED"),
            ("open", "STATE", "STATES OF CONNECTIONS STILL OPEN"),
        ];
        for (property, title, heading) in headings {
            let mut table = Table::new(&[
                (title, Align::Left),
                ("CONNECTIONS", Align::Right),
                ("SHARE", Align::Right),
                ("", Align::Left),
            ]);
            for row in self.report.counts.iter().filter(|row| row.property.kind() == property) {
                let note = if let Property::End(end) = row.property { meaning(end) } else { "" };
                table.row([
                    row.property.word().to_owned(),
                    count(row.connections),
                    percent(row.share),
                    note.to_owned(),
                ]);
            }
            if !table.is_empty() {
                self.heading(heading)?;
                table.write(self.out, 2, self.options.colour)?;
            }
            let undecided = self.report.overview.closer_undecided;
            if property == "closer" && undecided > 0 {
                writeln!(self.out, "  {} undecided: neither side has closed yet", counted(undecided, "connection"))?;
            }
        }
        Ok(())
    }

    fn state(&mut self, row: &StateRow) -> io::Result<()> {
        self.heading(&format!("{}: {} sockets", row.state, count(row.sockets)))?;
        let exact = row.sockets - row.at_least;
        let mut table = Table::new(&[
            ("TIME IN IT", Align::Left),
            ("SOCKETS", Align::Right),
            ("MIN", Align::Right),
            ("P50", Align::Right),
            ("P90", Align::Right),
            ("P99", Align::Right),
            ("MAX", Align::Right),
        ]);
        let quantiles = [row.p50, row.p90, row.p99].map(|held| held.to_string());
        let all = ["all".to_owned(), count(row.sockets), String::new()];
        table.row(all.into_iter().chain(quantiles).chain([longest(row).to_string()]));
        for (name, sockets, of, mark) in
            [("exact", exact, row.exact, ""), ("lower bound", row.at_least, row.parts, "≥")]
        {
            if sockets > 0 {
                let [min, max] = [of.min, of.max].map(|ns| format!("{mark}{}", duration(ns)));
                let blank = String::new;
                table.row([name.to_owned(), count(sockets), min, blank(), blank(), blank(), max]);
            }
        }
        table.write(self.out, 2, self.options.colour)?;
        self.histogram(row)?;
        self.groups_in(row.state)
    }

    fn histogram(&mut self, row: &StateRow) -> io::Result<()> {
        let highest = row.bins.iter().map(|bin| bin.exact + bin.at_least).max().unwrap_or(0).max(1);
        let mut table = Table::new(&[
            ("FROM", Align::Right),
            ("BELOW", Align::Right),
            ("SOCKETS", Align::Right),
            ("≥", Align::Right),
            ("", Align::Left),
        ]);
        for bin in shown_bins(&row.bins) {
            let Some(bin) = bin else {
                table.row(["⋮".to_owned()]);
                continue;
            };
            let share = (bin.exact + bin.at_least) as f64 / highest as f64;
            let to = bin.to_ns.map_or("-".to_owned(), bound);
            let part = if bin.at_least > 0 { count(bin.at_least) } else { String::new() };
            table.row([bound(bin.from_ns), to, count(bin.exact), part, bar(share, 40)]);
        }
        writeln!(self.out)?;
        table.write(self.out, 2, self.options.colour)
    }

    /// Sockets in a state: a table by the chosen grouping, and a line for each other one.
    fn groups_in(&mut self, state: State) -> io::Result<()> {
        let by = self.by();
        let rows = self.report.groups.iter().filter(|row| row.state == Some(state) && row.group.by == by);
        let mut table = Table::new(&[
            (title(by), Align::Left),
            ("OF TIME", Align::Right),
            ("SOCKETS", Align::Right),
            ("SHARE", Align::Right),
            ("STILL IN", Align::Right),
            ("P50", Align::Right),
            ("P90", Align::Right),
            ("LONGEST", Align::Right),
        ]);
        for row in rows {
            table.row([
                self.named_group(&row.group),
                percent(row.total_share.unwrap_or(0.0)),
                count(row.connections),
                percent(row.share),
                count(row.open),
                row.p50.to_string(),
                row.p90.to_string(),
                row.longest.to_string(),
            ]);
        }
        writeln!(self.out)?;
        table.write(self.out, 2, self.options.colour)?;
        let mut others = By::ALL.into_iter().filter(|other| *other != by).peekable();
        if others.peek().is_some() {
            writeln!(self.out)?;
        }
        for other in others {
            if let Some(named) = self.largest(state, other) {
                writeln!(self.out, "  {:10} {named}", format!("by {}:", other.as_str()))?;
            }
        }
        Ok(())
    }

    fn named_group(&self, of: &Group) -> String {
        group(of, self.apart())
    }

    fn all_connections(&mut self) -> io::Result<()> {
        let by = self.by();
        let rows: Vec<&GroupRow> =
            self.report.groups.iter().filter(|row| row.state.is_none() && row.group.by == by).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(&[
            (title(by), Align::Left),
            ("CONNECTIONS", Align::Right),
            ("SHARE", Align::Right),
            ("RATE", Align::Right),
            ("STILL OPEN", Align::Right),
            ("FAILED", Align::Right),
            ("ESTAB P50", Align::Right),
            ("LONGEST", Align::Right),
            ("SENT", Align::Right),
            ("RECV", Align::Right),
        ]);
        for row in rows {
            table.row([
                self.named_group(&row.group),
                count(row.connections),
                percent(row.share),
                self.report.overview.per_second(row.connections).map_or("-".to_owned(), rate),
                count(row.open),
                count(row.failed),
                row.p50.to_string(),
                row.longest.to_string(),
                bytes(Some(row.bytes_sent)),
                bytes(Some(row.bytes_received)),
            ]);
        }
        self.heading("ALL CONNECTIONS")?;
        table.write(self.out, 2, self.options.colour)
    }

    fn short_lived(&mut self) -> io::Result<()> {
        let mut table = Table::new(&[
            ("PROCESS AND PEER", Align::Left),
            ("SHORT", Align::Right),
            ("RATE", Align::Right),
            ("LONGER", Align::Right),
            ("CLOSED FIRST", Align::Right),
            ("ESTAB P50", Align::Right),
            ("SENT EACH", Align::Right),
            ("RECV EACH", Align::Right),
        ]);
        for row in &self.report.churn {
            table.row([
                ends(row, self.apart()),
                count(row.connections),
                self.report.overview.per_second(row.connections).map_or("-".to_owned(), rate),
                count(row.longer),
                percent(row.active as f64 / row.connections.max(1) as f64),
                duration(row.p50),
                bytes(row.bytes_sent),
                bytes(row.bytes_received),
            ]);
        }
        if table.is_empty() {
            return Ok(());
        }
        self.heading("SHORT-LIVED CONNECTIONS (in ESTABLISHED for less than 1 s)")?;
        table.write(self.out, 2, self.options.colour)
    }

    /// Failures by remote end and by process.
    fn failed(&mut self) -> io::Result<()> {
        if self.report.failures.is_empty() {
            return Ok(());
        }
        self.heading("RESETS AND FAILURES")?;
        self.failed_by(By::Remote)?;
        if self.by() != By::Remote {
            writeln!(self.out)?;
            self.failed_by(self.by())?;
        }
        Ok(())
    }

    fn failed_by(&mut self, by: By) -> io::Result<()> {
        let mut table = Table::new(&[
            ("END", Align::Left),
            ("CONNECTIONS", Align::Right),
            ("SHARE", Align::Right),
            (title(by), Align::Left),
        ]);
        let rows = self.report.failures.iter().filter(|row| row.group.by == by && is_failure(row.end));
        for row in rows {
            let style = if row.end.is_reset() { style::RESET } else { anstyle::Style::new() };
            let cells =
                [row.end.as_str().to_owned(), count(row.connections), percent(row.share), self.named_group(&row.group)];
            table.styled(cells.into_iter().zip([style].into_iter().chain(std::iter::repeat(anstyle::Style::new()))));
        }
        table.write(self.out, 2, self.options.colour)
    }

    fn dropped(&mut self) -> io::Result<()> {
        let mut table = Table::new(&[
            ("COUNTER", Align::Left),
            ("INCREASE", Align::Right),
            ("FIRST", Align::Left),
            ("LAST", Align::Left),
            (title(By::Netns), Align::Left),
        ]);
        for row in &self.report.counters {
            let zone = &self.options.zone;
            table.row([
                row.counter.as_str().to_owned(),
                count(row.increase),
                time(zone, row.first_unix_ns),
                time(zone, row.last_unix_ns),
                self.named_group(&row.group),
            ]);
        }
        if table.is_empty() {
            return Ok(());
        }
        self.heading("DROPPED BEFORE A SOCKET EXISTED (kernel counters)")?;
        table.write(self.out, 2, self.options.colour)
    }

    fn open(&mut self) -> io::Result<()> {
        let by = self.by();
        let mut table = Table::new(&[
            ("STATE", Align::Left),
            ("CONNECTIONS", Align::Right),
            ("SHARE", Align::Right),
            ("OLDEST", Align::Right),
            ("NOT ACCEPTED", Align::Right),
            (title(by), Align::Left),
        ]);
        for row in self.report.open.iter().filter(|row| row.group.by == by) {
            let cells = [
                row.state.as_str().to_owned(),
                count(row.connections),
                percent(row.share),
                row.oldest.to_string(),
                count(row.never_accepted),
                self.named_group(&row.group),
            ];
            let styles = [style::state(row.state)].into_iter().chain(std::iter::repeat(anstyle::Style::new()));
            table.styled(cells.into_iter().zip(styles));
        }
        if table.is_empty() {
            return Ok(());
        }
        self.heading("STILL OPEN AT THE END")?;
        table.write(self.out, 2, self.options.colour)
    }

    fn slowest(&mut self, slow: Slow) -> io::Result<()> {
        let mut table = Table::new(&[
            ("HELD", Align::Right),
            ("END", Align::Left),
            ("PROCESS", Align::Left),
            ("LOCAL", Align::Left),
            ("REMOTE", Align::Left),
            ("STATES", Align::Left),
        ]);
        for row in self.report.slowest.iter().filter(|row| row.slow == slow) {
            let connection = &row.connection;
            let identity = &connection.identity;
            let task = identity.owner.map(|owner| owner.task);
            let process = task
                .map_or("-".to_owned(), |task| format!("{}[{}]", crate::output::sanitise(task.comm.bytes()), task.pid));
            let stay = |stay: &crate::model::row::Stay| format!("{} {}", stay.state, stay.held);
            let states: Vec<_> = connection.stays.iter().map(stay).collect();
            let end = connection.end().map_or("still open", End::as_str);
            table.row([
                row.held.to_string(),
                end.to_owned(),
                process,
                address(identity, identity.local(), &row.context),
                address(identity, identity.remote(), &row.context),
                states.join(" › "),
            ]);
        }
        if table.is_empty() {
            return Ok(());
        }
        self.heading(match slow {
            Slow::TimeWait => "LONGEST IN TIME_WAIT",
            Slow::CloseWait => "LONGEST IN CLOSE_WAIT",
            Slow::Lifetime => "LONGEST LIVES, from opening to end",
        })?;
        table.write(self.out, 2, self.options.colour)
    }
}

/// The heading of a grouping.
fn title(by: By) -> &'static str {
    match by {
        By::Process => "PROCESS",
        By::Remote => "REMOTE",
        By::Lport => "LOCAL PORT",
        By::Container => "CONTAINER, UNIT OR CONTROL GROUP",
        By::Netns => "NETWORK NAMESPACE",
    }
}
