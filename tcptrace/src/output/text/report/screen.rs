//! The incident on one screen.

use std::io::{self, Write};

use anstyle::Style;

use super::table::Table;
use super::words::{bytes, count, counted, duration, ends, group, hosts, number, percent, period, rate, time};
use super::{HEADING, Writer, sparkline, style, words};
use crate::model::counters::Unseen;
use crate::model::row::Held;
use crate::model::stream::Lost;
use crate::model::tcp::{End, State};
use crate::output::lost::bound;
use crate::output::text::column::Align;
use crate::study::report::{By, Count, Group, Property, StateRow, TRACKED};

/// How many are named where there is a table of all further down.
const NAMED: usize = 3;

/// Columns of a sparkline.
const SPARK: usize = 24;

impl<W: Write> Writer<'_, W> {
    /// Some thirty lines.
    pub(super) fn screen(&mut self) -> io::Result<()> {
        let report = self.report;
        self.line(HEADING, &format!("{}, {}", hosts(report), period(&self.options.zone, report)))?;
        self.totals()?;
        self.what_is_missing()?;
        writeln!(self.out)?;
        self.pile_ups()?;
        writeln!(self.out, "{:11}shares of the sockets that were there at any moment, on average:", "")?;
        for row in report.states.iter().filter(|row| row.sockets > 0) {
            self.pile_up(row)?;
        }
        writeln!(self.out)?;
        self.fact("CLOSED BY", &format!("{}{}", self.words_of("closer", 5), self.undecided()))?;
        self.fact("ENDED BY", &self.words_of("end", 5))?;
        self.failures()?;
        self.dropped_in_short()?;
        self.churn_in_short()?;
        self.still_open()
    }

    fn totals(&mut self) -> io::Result<()> {
        let overview = &self.report.overview;
        let rates = |count: u64, peak: Option<crate::study::report::Peak>| {
            let mean = overview.per_second(count).map_or("-".to_owned(), rate);
            let most = peak.filter(|peak| peak.value > 0.0);
            let most =
                most.map(|peak| format!(", most {} at {}", rate(peak.value), time(&self.options.zone, peak.unix_ns)));
            format!("{} ({mean}{})", words::count(count), most.unwrap_or_default())
        };
        let lines = [
            format!("{}, {} still open", counted(overview.connections, "connection"), count(overview.open)),
            format!("opened {}", rates(overview.opened, overview.opened_peak)),
            format!("ended  {}", rates(overview.ended, overview.ended_peak)),
        ];
        lines.iter().try_for_each(|line| self.line(Style::new(), line))
    }

    /// What is not in the figures, if anything.
    fn what_is_missing(&mut self) -> io::Result<()> {
        let report = self.report;
        if report.overview.lost > 0 || report.overview.lost_at_least {
            let causes = report.lost.iter().filter(|lost| lost.events > 0 || lost.at_least);
            let cause = |lost: &Lost| format!("{} ({})", bound(count(lost.events), lost.at_least), lost.cause.words());
            let causes = causes.map(cause).collect::<Vec<_>>().join(", ");
            self.line(
                style::RESET,
                &format!("LOST EVENTS: {causes}. Figures below leave out what they would have told."),
            )?;
        }
        if let Some(first) = report.damage.first() {
            let more = report.damage.len() - 1;
            let more = if more > 0 { format!("; and {}", counted(more as u64, "more place")) } else { String::new() };
            self.line(style::RESET, &format!("DAMAGED: {}{more}", crate::output::sanitise(first.as_bytes())))?;
        }
        if report.overview.incomplete > 0 {
            let share = report.overview.incomplete as f64 / report.overview.connections as f64;
            let incomplete = counted(report.overview.incomplete, "connection");
            let text = format!("{incomplete} ({}) not seen from the opening on, or in part only", percent(share));
            self.line(Style::new(), &text)?;
        }
        Ok(())
    }

    fn pile_ups(&mut self) -> io::Result<()> {
        let mut table = Table::new(&[
            ("STATE", Align::Left),
            ("SOCKETS", Align::Right),
            ("STILL IN", Align::Right),
            ("MOST", Align::Right),
            ("AT", Align::Left),
            ("P50", Align::Right),
            ("P99", Align::Right),
            ("LONGEST", Align::Right),
            ("OVER TIME", Align::Left),
        ]);
        for row in &self.report.states {
            let plain = |text: String| (text, Style::new());
            let peak = row.peak.map_or(("-".to_owned(), "-".to_owned()), |peak| {
                (number(peak.value), time(&self.options.zone, peak.unix_ns))
            });
            table.styled([
                (row.state.as_str().to_owned(), style::state(row.state)),
                plain(count(row.sockets)),
                plain(count(row.open)),
                plain(peak.0),
                plain(peak.1),
                plain(row.p50.to_string()),
                plain(row.p99.to_string()),
                plain(longest(row).to_string()),
                plain(sparkline(&self.sockets(row.state), SPARK)),
            ]);
        }
        table.write(self.out, 0, self.options.colour)
    }

    /// Mean numbers of sockets in a state, over time.
    pub(super) fn sockets(&self, state: State) -> Vec<f64> {
        let place = TRACKED.iter().position(|tracked| *tracked == state).unwrap_or(0);
        self.report.points.iter().map(|point| point.sockets[place]).collect()
    }

    /// Whose the sockets in a state are, where they lead, and what became of them.
    fn pile_up(&mut self, row: &StateRow) -> io::Result<()> {
        let indent = " ".repeat(11);
        let mut lines = vec![("of", By::Process), ("with", By::Remote), ("at", By::Lport)];
        if !matches!(self.by(), By::Process | By::Remote | By::Lport) {
            lines.push(("in", self.by()));
        }
        let mut title = row.state.as_str();
        for (word, by) in lines {
            let Some(named) = self.largest(row.state, by) else { continue };
            writeln!(self.out, "{title:11}{word:<5} {named}")?;
            title = "";
        }
        if row.state == State::TimeWait {
            writeln!(self.out, "{indent}{:<5} {}", "ended", self.words_of("time_wait_end", 5))?;
        }
        if row.never_accepted > 0 {
            writeln!(self.out, "{indent}{} were never accepted", count(row.never_accepted))?;
        }
        Ok(())
    }

    /// The largest groups of those in a state, each with its share; `None` when they are all of one that says nothing.
    pub(super) fn largest(&self, state: State, by: By) -> Option<String> {
        let rows = self.report.groups.iter().filter(|row| row.state == Some(state) && row.group.by == by);
        let rows: Vec<_> =
            rows.map(|row| (&row.group, row.connections, row.total_share.unwrap_or(row.share))).collect();
        let says_nothing = rows.iter().all(|(group, ..)| by == By::Lport && group.local_port.is_none());
        (!says_nothing).then(|| self.named(&rows, NAMED))
    }

    fn named(&self, rows: &[(&Group, u64, f64)], most: usize) -> String {
        let named = |(of, _, share): &(&Group, u64, f64)| format!("{} {}", group(of, self.apart()), percent(*share));
        let mut names: Vec<_> = rows.iter().take(most).map(named).collect();
        let rest: f64 = rows.iter().skip(most).map(|(.., share)| share).sum();
        if rest > 0.0 {
            names.push(format!("others {}", percent(rest)));
        }
        names.join(", ")
    }

    /// `active 98.7 %, passive 1.3 %`.
    fn words_of(&self, property: &str, most: usize) -> String {
        let counts: Vec<&Count> = self.report.counts.iter().filter(|row| row.property.kind() == property).collect();
        let word =
            |row: &&Count| format!("{} {} ({})", row.property.word(), count(row.connections), percent(row.share));
        let mut words: Vec<_> = counts.iter().take(most).map(word).collect();
        if counts.len() > most {
            let rest = counts.iter().skip(most).map(|row| row.connections).sum();
            words.push(format!("others {}", count(rest)));
        }
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }

    /// Those of which nobody has closed yet.
    fn undecided(&self) -> String {
        match self.report.overview.closer_undecided {
            0 => String::new(),
            undecided => format!("; {} undecided (not closed yet)", count(undecided)),
        }
    }

    fn fact(&mut self, name: &str, text: &str) -> io::Result<()> {
        if self.options.colour {
            writeln!(self.out, "{HEADING}{name:10}{HEADING:#} {text}")
        } else {
            writeln!(self.out, "{name:10} {text}")
        }
    }

    fn failures(&mut self) -> io::Result<()> {
        let overview = &self.report.overview;
        if overview.failed == 0 {
            return self.fact("FAILED", "none");
        }
        let share = if overview.ended == 0 { 0.0 } else { overview.failed as f64 / overview.ended as f64 };
        let resets = if overview.reset > 0 { format!(", {} by a reset", count(overview.reset)) } else { String::new() };
        self.fact("FAILED", &format!("{} ({}){resets}", count(overview.failed), percent(share)))?;
        let ends = self.report.counts.iter().filter_map(|row| match row.property {
            Property::End(end) if crate::study::report::is_failure(end) => Some((end, row.connections)),
            _ => None,
        });
        for (end, connections) in ends.take(NAMED) {
            let with = self.failed_of(end, By::Remote);
            let by = self.by();
            let of = if by == By::Remote { String::new() } else { format!("; of {}", self.failed_of(end, by)) };
            writeln!(self.out, "{:11}{} {}: with {with}{of}", "", end.as_str(), count(connections))?;
        }
        Ok(())
    }

    /// The largest groups of those that failed in a way, each with its share.
    pub(super) fn failed_of(&self, end: End, by: By) -> String {
        let rows = self.report.failures.iter().filter(|row| row.end == end && row.group.by == by);
        let rows: Vec<_> = rows.map(|row| (&row.group, row.connections, row.share)).collect();
        self.named(&rows, NAMED)
    }

    /// What no connection shows, if anything: a line for each counter.
    fn dropped_in_short(&mut self) -> io::Result<()> {
        let mut title = "DROPPED";
        for counter in Unseen::ALL {
            let rows = self.report.counters.iter().filter(|row| row.counter == counter);
            let sum = rows.map(|row| row.increase).fold(0, u64::saturating_add);
            if sum > 0 {
                let (what, name, why) = (counter.what_of(sum), counter.as_str(), counter.why());
                self.fact(title, &format!("{} {what} ({name}): {why}", count(sum)))?;
                title = "";
            }
        }
        Ok(())
    }

    fn churn_in_short(&mut self) -> io::Result<()> {
        let report = self.report;
        let Some(most) = report.busiest_pair() else {
            return self.fact("SHORT", "no connection was in ESTABLISHED for less than 1 s");
        };
        let all: u64 = report.churn.iter().map(|row| row.connections).sum();
        let share = all as f64 / report.overview.connections.max(1) as f64;
        let text =
            format!("{} ({}) in ESTABLISHED for less than 1 s; most:", counted(all, "connection"), percent(share));
        self.fact("SHORT", &text)?;
        let per_second = report.overview.per_second(most.connections).map_or("-".to_owned(), rate);
        writeln!(
            self.out,
            "{:11}{}: {} ({per_second}), median {}, {} sent and {} received each",
            "",
            ends(most, self.apart()),
            count(most.connections),
            duration(most.p50),
            bytes(most.bytes_sent),
            bytes(most.bytes_received),
        )
    }

    fn still_open(&mut self) -> io::Result<()> {
        self.fact("OPEN", &self.words_of("open", 6))?;
        let by = self.by();
        let close_wait = self
            .report
            .open
            .iter()
            .find(|row| row.state == State::CloseWait && row.group.by == by && row.group.others.is_none());
        let Some(row) = close_wait else { return Ok(()) };
        let never = if row.never_accepted > 0 {
            format!(", {} never accepted", count(row.never_accepted))
        } else {
            String::new()
        };
        writeln!(
            self.out,
            "{:11}CLOSE_WAIT: {} has {}, the oldest for {}{never}",
            "",
            group(&row.group, self.apart()),
            count(row.connections),
            row.oldest,
        )
    }
}

/// The longest time in a state, known in part if that is longer than any known exactly.
pub(in crate::output) fn longest(row: &StateRow) -> Held {
    match (row.exact.max, row.parts.max) {
        (Some(exact), Some(part)) if exact < part => Held::AtLeast(part),
        (Some(exact), _) => Held::Exactly(exact),
        (None, Some(part)) => Held::AtLeast(part),
        (None, None) => Held::Unknown,
    }
}
