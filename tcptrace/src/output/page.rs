//! A report as one page: no network, no scripts, everything drawn here.
//!
//! Every text is escaped, and the page forbids itself to load or to run anything. Its figures stand in tables, whose rows
//! name the rows of JSON that they show, and as JSON in an element with the id `report`.

mod chart;
mod markup;
mod parts;
mod states;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use self::markup::{Page, embedded, escaped};
use super::lost::bound;
use super::text::report::longest;
use super::text::report::words::{
    Apart, count, counted, duration, ends, group, hosts, number, percent, period, rate, time,
};
use crate::study::report::{By, Peak, Report};

/// What the page may load, and run: nothing. Its style is its own.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("page/style.css");

/// Writes a report as a page.
///
/// # Errors
/// What the writer returns.
pub fn page(mut out: impl Write, zone: &TimeZone, report: &Report) -> io::Result<()> {
    let mut writer = Writer { page: Page::default(), zone, report };
    writer.write()?;
    out.write_all(writer.page.html.as_bytes())?;
    out.flush()
}

/// Writes parts of a page.
struct Writer<'a> {
    page: Page,
    zone: &'a TimeZone,
    report: &'a Report,
}

impl Writer<'_> {
    fn write(&mut self) -> io::Result<()> {
        let title = format!("{}: TCP connections", hosts(self.report));
        self.page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
        self.page.raw(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">"));
        self.page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        self.page.raw("<meta name=\"referrer\" content=\"no-referrer\">");
        self.page.raw(&format!("<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>", escaped(&title)));
        self.page.raw(chart::PATTERNS);
        self.page.raw("<header>");
        self.page.element("h1", "", &title);
        self.page.element("p", "soft", &period(self.zone, self.report));
        self.page.raw("</header>\n<main>");
        self.missing();
        self.cards();
        self.in_short();
        self.contents();
        self.over_time();
        for row in self.report.states.iter().filter(|row| row.sockets > 0) {
            self.state(row);
        }
        self.ends();
        self.short_lived();
        self.failures();
        self.dropped();
        self.open();
        self.all_connections();
        self.slowest();
        self.page.raw("</main>");
        self.footer()?;
        self.page.raw("</body>\n</html>");
        Ok(())
    }

    /// What its tables group by first.
    fn by(&self) -> By {
        self.report.options.by.unwrap_or_default()
    }

    /// What has to be told apart.
    fn apart(&self) -> Apart {
        Apart::of(self.report)
    }

    fn at(&self, unix_ns: i64) -> String {
        time(self.zone, unix_ns)
    }

    /// What is not in the figures.
    fn missing(&mut self) {
        let report = self.report;
        for lost in report.lost.iter().filter(|lost| lost.events > 0 || lost.at_least) {
            let cause = lost.cause.words();
            let text = format!(
                "{} lost ({cause}). The figures leave out what they would have told.",
                bound(counted(lost.events, "event"), lost.at_least)
            );
            self.page.raw(&format!("<p class=\"alarm\" role=\"alert\">{}</p>", escaped(&text)));
        }
        for damage in &report.damage {
            let text = format!("Damaged: {}", super::sanitise(damage.as_bytes()));
            self.page.raw(&format!("<p class=\"alarm\" role=\"alert\">{}</p>", escaped(&text)));
        }
    }

    fn cards(&mut self) {
        let overview = &self.report.overview;
        let most = |peak: Option<Peak>| {
            let peak = peak.filter(|peak| peak.value > 0.0);
            peak.map_or(String::new(), |peak| format!(", most {} at {}", rate(peak.value), self.at(peak.unix_ns)))
        };
        let mean = |count: u64| overview.per_second(count).map_or("-".to_owned(), rate);
        let share = |part: u64, all: u64| percent(if all == 0 { 0.0 } else { part as f64 / all as f64 });
        let cards = [
            (
                "connections",
                "Connections",
                overview.connections,
                format!("{} not seen in full", count(overview.incomplete)),
            ),
            ("opened", "Opened", overview.opened, format!("{}{}", mean(overview.opened), most(overview.opened_peak))),
            ("ended", "Ended", overview.ended, format!("{}{}", mean(overview.ended), most(overview.ended_peak))),
            ("open", "Still open", overview.open, share(overview.open, overview.connections)),
            (
                "failed",
                "Failed",
                overview.failed,
                format!(
                    "{} of those that ended; {} by a reset",
                    share(overview.failed, overview.ended),
                    count(overview.reset)
                ),
            ),
        ];
        self.page.raw("<dl class=\"cards\" data-event=\"report\" data-key=\"\">");
        for (name, title, value, note) in cards {
            self.page.raw(&format!(
                "<div class=\"card\"><dt>{title}</dt><dd data-name=\"{name}\" data-value=\"{value}\">{}</dd>\
                 <dd class=\"note\">{}</dd></div>",
                count(value),
                escaped(&note)
            ));
        }
        self.page.raw("</dl>");
    }

    /// A sentence for each thing that stands out.
    fn in_short(&mut self) {
        let report = self.report;
        self.page.raw("<ul class=\"short\">");
        for row in report.states.iter().filter(|row| row.sockets > 0) {
            let first = |by: By| {
                let mut rows =
                    report.groups.iter().filter(|group| group.state == Some(row.state) && group.group.by == by);
                rows.next().map(|first| {
                    format!(
                        "{} {}",
                        percent(first.total_share.unwrap_or(first.share)),
                        group(&first.group, self.apart())
                    )
                })
            };
            let most = row.peak.map_or(String::new(), |peak| {
                format!(" at most {} at once, at {};", number(peak.value), self.at(peak.unix_ns))
            });
            let parts: Vec<_> = [By::Process, By::Remote].into_iter().filter_map(first).collect();
            let text = format!("{most} longest {}; {}.", longest(row), parts.join("; with "));
            self.page.raw(&format!(
                "<li><strong>{}{}</strong>{}</li>",
                chart::key(row.state),
                row.state,
                escaped(&text)
            ));
        }
        if let Some(most) = report.busiest_pair() {
            let all: u64 = report.churn.iter().map(|row| row.connections).sum();
            let mean = report.overview.per_second(most.connections).map_or("-".to_owned(), rate);
            let text = format!(
                " {} in ESTABLISHED for less than 1 s; most: {}, {} ({mean}), median {}.",
                counted(all, "connection"),
                ends(most, self.apart()),
                count(most.connections),
                duration(most.p50),
            );
            self.page.raw(&format!("<li><strong>Short-lived</strong>{}</li>", escaped(&text)));
        }
        self.page.raw("</ul>");
    }

    fn contents(&mut self) {
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
        let links: Vec<_> =
            [("time", "Over time")].into_iter().chain(states.map(|name| (name, name))).chain(parts).collect();
        let links = links.into_iter().filter(|(id, _)| *id != "dropped" || !self.report.counters.is_empty());
        self.page.raw("<nav aria-label=\"Contents\">");
        for (id, name) in links {
            self.page.raw(&format!("<a href=\"#{id}\">{name}</a>"));
        }
        self.page.raw("</nav>");
    }

    fn footer(&mut self) -> io::Result<()> {
        let mut rows = Vec::new();
        super::report::json(&mut rows, self.report)?;
        let rows = String::from_utf8_lossy(&rows);
        let rows = rows.trim_end().replace('\n', ",\n");
        self.page.raw("<footer>");
        self.page.element(
            "p",
            "soft",
            "Each end of a connection on a machine that was recorded counts. ≥ is a lower bound, - is \
             unknown. Medians and percentiles are estimates (Kaplan-Meier) that count stays that are not over, or were seen in \
             part.",
        );
        self.page.element("p", "soft", concat!("Made by tcptrace ", env!("CARGO_PKG_VERSION"), "."));
        self.page.raw("</footer>");
        self.page.raw(&format!("<script type=\"application/json\" id=\"report\">[\n{}\n]</script>", embedded(&rows)));
        Ok(())
    }
}
