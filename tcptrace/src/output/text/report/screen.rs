//! The incident on one screen.

use std::io::{self, Write};

use anstyle::Style;

use super::lines::{Goes, Lines};
use super::table::Table;
use super::words::{bytes, count, counted, duration, ends, fired, group, hosts, number, percent, period, rate, time};
use super::{HEADING, Writer, sparkline, style, words};
use crate::model::counters::Unseen;
use crate::model::row::Held;
use crate::model::stream::Lost;
use crate::model::tcp::{End, State};
use crate::output::lost::bound;
use crate::output::text::column::Align;
use crate::output::width;
use crate::study::report::{By, Count, Group, Property, StateRow, TRACKED};

/// Names per line where `--full` has a table of all.
const NAMED: usize = 3;

/// Values per line of a property that connections are counted by.
const WORDS: usize = 5;

/// Columns of a sparkline. With fewer than the least, there is none.
const SPARK: usize = 24;
const SPARK_LEAST: usize = 8;

/// Findings that have a line each.
const FOUND: usize = 4;

/// The most lines of the screen, and the least.
const LINES_MOST: usize = 30;
const LINES_LEAST: usize = 22;

impl<W: Write> Writer<'_, W> {
    /// About thirty lines. Unless the whole report follows, never more, and the last one says how to get the rest.
    pub(super) fn screen(&mut self) -> io::Result<()> {
        let report = self.report;
        let is_all = self.options.full;
        let mut lines = Lines::new(self.options.colour, self.options.width.filter(|_| !is_all));
        for fired in fired(&self.options.zone, report) {
            lines.line(Goes::Never, style::RESET, &fired);
        }
        lines.line(Goes::Never, HEADING, &format!("{}, {}", hosts(report), period(&self.options.zone, report)));
        self.losses(&mut lines);
        self.found(&mut lines);
        self.totals(&mut lines);
        lines.blank();
        self.pile_ups(&mut lines)?;
        lines.below(Goes::Legend, "", "shares of the sockets in this state, averaged over time:");
        for row in report.states.iter().filter(|row| row.sockets > 0) {
            self.pile_up(&mut lines, row);
        }
        lines.blank();
        let undecided = self.undecided();
        let closers = lines.list(width(&undecided), WORDS, |most| self.words_of("closer", most));
        lines.fact(Goes::Never, "CLOSED BY", &format!("{closers}{undecided}"));
        lines.fact(Goes::Never, "ENDED BY", &lines.list(0, WORDS, |most| self.words_of("end", most)));
        self.failures(&mut lines);
        self.dropped_in_short(&mut lines);
        self.churn_in_short(&mut lines);
        self.still_open(&mut lines);
        if !is_all {
            lines.fact(Goes::Never, "MORE", "--full prints every table; --html FILE writes a page for a browser");
        }
        lines.write(self.out, self.most_lines())
    }

    /// Lines of one screen. Two stay free: for the closing line and the shell's prompt.
    fn most_lines(&self) -> Option<usize> {
        let fits =
            self.options.height.map_or(LINES_MOST, |lines| lines.saturating_sub(2).clamp(LINES_LEAST, LINES_MOST));
        (!self.options.full).then_some(fits)
    }

    /// What is wrong, a line each.
    fn found(&self, lines: &mut Lines) {
        let causes = self.report.causes();
        for finding in causes.iter().take(FOUND) {
            let text = format!("{}: {} ({})", finding.severity.as_str(), finding.headline, finding.id);
            lines.fact(Goes::Never, "FOUND", &crate::output::sanitise_message(&text));
        }
        if causes.len() > FOUND {
            let more = counted((causes.len() - FOUND) as u64, "more finding");
            lines.below(Goes::Never, "", &format!("and {more}"));
        }
        if !causes.is_empty() {
            lines.below(Goes::Details, "", "tcptrace diagnose FILE shows the evidence, and what to do");
        }
    }

    fn totals(&self, lines: &mut Lines) {
        let overview = &self.report.overview;
        let rates = |count: u64, peak: Option<crate::study::report::Peak>| {
            let mean = overview.per_second(count).map_or("-".to_owned(), rate);
            let most = peak.filter(|peak| peak.value > 0.0);
            let most =
                most.map(|peak| format!(", most {} at {}", rate(peak.value), time(&self.options.zone, peak.unix_ns)));
            format!("{} ({mean}{})", words::count(count), most.unwrap_or_default())
        };
        let totals = [
            format!("{}, {} still open", counted(overview.connections, "connection"), count(overview.open)),
            format!("opened {}", rates(overview.opened, overview.opened_peak)),
            format!("ended  {}", rates(overview.ended, overview.ended_peak)),
        ];
        let [all, opened, ended] = totals;
        for (goes, line) in [(Goes::Never, all), (Goes::Never, opened), (Goes::Totals, ended)] {
            lines.line(goes, Style::new(), &line);
        }
        if overview.incomplete > 0 {
            let share = overview.incomplete as f64 / overview.connections as f64;
            let incomplete = counted(overview.incomplete, "connection");
            let text = format!("{incomplete} ({}) incomplete: opening not seen, or events may be lost", percent(share));
            lines.line(Goes::Incomplete, Style::new(), &text);
        }
    }

    /// Losses and damage that the figures do not include.
    fn losses(&self, lines: &mut Lines) {
        let report = self.report;
        if report.overview.lost > 0 || report.overview.lost_at_least {
            let causes = report.lost.iter().filter(|lost| lost.events > 0 || lost.at_least);
            let cause = |lost: &Lost| format!("{} ({})", bound(count(lost.events), lost.at_least), lost.cause.words());
            let causes = causes.map(cause).collect::<Vec<_>>().join(", ");
            let text = format!("LOST EVENTS: {causes}. Not in the figures below.");
            lines.line(Goes::Never, style::RESET, &text);
        }
        if let Some(first) = report.damage.first() {
            let more = report.damage.len() - 1;
            let more = if more > 0 { format!("; and {}", counted(more as u64, "more place")) } else { String::new() };
            let text = format!("DAMAGED: {}{more}", crate::output::sanitise(first.as_bytes()));
            lines.line(Goes::Never, style::RESET, &text);
        }
    }

    fn pile_ups(&self, lines: &mut Lines) -> io::Result<()> {
        let spark = lines.room(self.states_over_time(0).width()).unwrap_or(SPARK).min(SPARK);
        let table = self.states_over_time(if spark < SPARK_LEAST { 0 } else { spark });
        let mut ready = Vec::new();
        table.write(&mut ready, 0, self.options.colour)?;
        lines.ready(&ready);
        Ok(())
    }

    /// With a sparkline of this width; 0: without.
    fn states_over_time(&self, spark: usize) -> Table {
        let mut heads = vec![
            ("STATE", Align::Left),
            ("SOCKETS", Align::Right),
            ("STILL IN", Align::Right),
            ("MOST", Align::Right),
            ("AT", Align::Left),
            ("P50", Align::Right),
            ("P99", Align::Right),
            ("LONGEST", Align::Right),
        ];
        if spark > 0 {
            heads.push(("OVER TIME", Align::Left));
        }
        let mut table = Table::new(&heads);
        for row in &self.report.states {
            let plain = |text: String| (text, Style::new());
            let peak = row.peak.map_or(("-".to_owned(), "-".to_owned()), |peak| {
                (number(peak.value), time(&self.options.zone, peak.unix_ns))
            });
            let mut cells = vec![
                (row.state.as_str().to_owned(), style::state(row.state)),
                plain(count(row.sockets)),
                plain(count(row.open)),
                plain(peak.0),
                plain(peak.1),
                plain(row.p50.to_string()),
                plain(row.p99.to_string()),
                plain(longest(row).to_string()),
            ];
            if spark > 0 {
                cells.push(plain(sparkline(&self.sockets(row.state), spark)));
            }
            table.styled(cells);
        }
        table
    }

    /// Mean numbers of sockets in a state, over time.
    pub(super) fn sockets(&self, state: State) -> Vec<f64> {
        let place = TRACKED.iter().position(|tracked| *tracked == state).unwrap_or(0);
        self.report.points.iter().map(|point| point.sockets[place]).collect()
    }

    /// Owners, remote ends and local ports of the sockets in a state, and how they left it.
    fn pile_up(&self, lines: &mut Lines, row: &StateRow) {
        let mut parts =
            vec![("of", By::Process, Goes::Never), ("with", By::Remote, Goes::Remote), ("at", By::Lport, Goes::Ports)];
        if !parts.iter().any(|(_, by, _)| *by == self.by()) {
            parts.push(("in", self.by(), Goes::By));
        }
        // The state is named once, before the line that stays longest.
        let goes = |goes| if row.state == State::FinWait2 { Goes::FinWait2 } else { goes };
        let mut title = row.state.as_str();
        for (word, by, part) in parts {
            let named = lines.list(6, NAMED, |most| self.largest_few(row.state, by, most).unwrap_or_default());
            if !named.is_empty() {
                lines.below(goes(part), title, &format!("{word:<5} {named}"));
                title = "";
            }
        }
        if row.state == State::TimeWait {
            let ended = lines.list(6, WORDS, |most| self.words_of("time_wait_end", most));
            lines.below(Goes::Ended, "", &format!("{:<5} {ended}", "ended"));
        }
        if row.never_accepted > 0 {
            lines.below(goes(Goes::NeverAccepted), "", &format!("{} were never accepted", count(row.never_accepted)));
        }
    }

    /// The largest groups of those in a state, each with its share; `None` when all are in one group without
    /// information.
    pub(super) fn largest(&self, state: State, by: By) -> Option<String> {
        self.largest_few(state, by, NAMED)
    }

    fn largest_few(&self, state: State, by: By, most: usize) -> Option<String> {
        let rows = self.report.groups.iter().filter(|row| row.state == Some(state) && row.group.by == by);
        let rows: Vec<_> =
            rows.map(|row| (&row.group, row.connections, row.total_share.unwrap_or(row.share))).collect();
        let says_nothing = rows.iter().all(|(group, ..)| by == By::Lport && group.local_port.is_none());
        (!says_nothing).then(|| self.named(&rows, most))
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

    /// Connections that neither side has closed yet.
    fn undecided(&self) -> String {
        match self.report.overview.closer_undecided {
            0 => String::new(),
            undecided => format!("; {} undecided (not closed yet)", count(undecided)),
        }
    }

    fn failures(&self, lines: &mut Lines) {
        let overview = &self.report.overview;
        if overview.failed == 0 {
            return lines.fact(Goes::Never, "FAILED", "none");
        }
        let share = if overview.ended == 0 { 0.0 } else { overview.failed as f64 / overview.ended as f64 };
        let resets = if overview.reset > 0 { format!(", {} by a reset", count(overview.reset)) } else { String::new() };
        lines.fact(Goes::Never, "FAILED", &format!("{} ({}){resets}", count(overview.failed), percent(share)));
        let ends = self.report.counts.iter().filter_map(|row| match row.property {
            Property::End(end) if crate::study::report::is_failure(end) => Some((end, row.connections)),
            _ => None,
        });
        for (place, (end, connections)) in ends.take(NAMED).enumerate() {
            let goes = if place == 0 { Goes::Details } else { Goes::Failures };
            let failed = lines.list(0, NAMED, |most| {
                let with = self.failed_few(end, By::Remote, most);
                let by = self.by();
                let of =
                    if by == By::Remote { String::new() } else { format!("; of {}", self.failed_few(end, by, most)) };
                format!("{} {}: with {with}{of}", end.as_str(), count(connections))
            });
            lines.below(goes, "", &failed);
        }
    }

    /// The largest groups of those that failed in one way, each with its share.
    fn failed_few(&self, end: End, by: By, most: usize) -> String {
        let rows = self.report.failures.iter().filter(|row| row.end == end && row.group.by == by);
        let rows: Vec<_> = rows.map(|row| (&row.group, row.connections, row.share)).collect();
        self.named(&rows, most)
    }

    /// Kernel counters that no connection shows: a line for each.
    fn dropped_in_short(&self, lines: &mut Lines) {
        let sum = |counter| {
            let rows = self.report.counters.iter().filter(|row| row.counter == counter);
            rows.map(|row| row.increase).fold(0, u64::saturating_add)
        };
        let counters = Unseen::ALL.into_iter().map(|counter| (counter, sum(counter))).filter(|(_, sum)| *sum > 0);
        for (place, (counter, sum)) in counters.enumerate() {
            let (what, name, why) = (counter.what_of(sum), counter.as_str(), counter.why());
            let text = format!("{} {what} ({name}): {why}", count(sum));
            match place {
                0 => lines.fact(Goes::Never, "DROPPED", &text),
                1 => lines.below(Goes::Details, "", &text),
                _ => lines.below(Goes::Counters, "", &text),
            }
        }
    }

    fn churn_in_short(&self, lines: &mut Lines) {
        let report = self.report;
        let Some(most) = report.busiest_pair() else {
            return lines.fact(Goes::Never, "SHORT", "no connection was in ESTABLISHED for less than 1 s");
        };
        let all: u64 = report.churn.iter().map(|row| row.connections).sum();
        let share = all as f64 / report.overview.connections.max(1) as f64;
        let per_second = report.overview.per_second(most.connections).map_or("-".to_owned(), rate);
        let pair = format!(
            "{}: {} ({per_second}), median {}, {} sent and {} received each",
            ends(most, self.apart()),
            count(most.connections),
            duration(most.p50),
            bytes(most.bytes_sent),
            bytes(most.bytes_received),
        );
        let short = counted(all, "connection");
        let text = format!("{short} ({}) in ESTABLISHED for less than 1 s; most:\n{pair}", percent(share));
        lines.fact(Goes::Short, "SHORT", &text);
    }

    fn still_open(&self, lines: &mut Lines) {
        lines.fact(Goes::Never, "OPEN", &lines.list(0, WORDS + 1, |most| self.words_of("open", most)));
        let by = self.by();
        let close_wait = self
            .report
            .open
            .iter()
            .find(|row| row.state == State::CloseWait && row.group.by == by && row.group.others.is_none());
        let Some(row) = close_wait else { return };
        let never = if row.never_accepted > 0 {
            format!(", {} never accepted", count(row.never_accepted))
        } else {
            String::new()
        };
        let (owner, sockets) = (group(&row.group, self.apart()), count(row.connections));
        let text = format!("CLOSE_WAIT: {owner} has {sockets}, the oldest for {}{never}", row.oldest);
        lines.below(Goes::Never, "", &text);
    }
}

/// The longest time in a state: a lower bound, if one is longer than all exact times.
pub(in crate::output) fn longest(row: &StateRow) -> Held {
    match (row.exact.max, row.parts.max) {
        (Some(exact), Some(part)) if exact < part => Held::AtLeast(part),
        (Some(exact), _) => Held::Exactly(exact),
        (None, Some(part)) => Held::AtLeast(part),
        (None, None) => Held::Unknown,
    }
}
