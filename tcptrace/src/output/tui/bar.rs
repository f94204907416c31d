//! The first line, the line of panes, and the last line.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::paint::{ALARM, BAR, BOLD, DIM, PLAIN, WARNING, put, put_all, width};
use super::view::{Over, Pane, Playing, View};
use crate::output::sanitise;
use crate::output::text::report::words::count;
use crate::study::diagnose::say;

/// Columns of the bar that shows where in time one is.
const TIME: usize = 20;

/// Whose sockets, of when, and how many.
pub(super) fn head(to: &mut Buffer, area: Rect, view: &View) {
    let frame = &view.frame;
    let host = if frame.host.is_empty() { "unknown host".into() } else { sanitise(frame.host.as_bytes()) };
    let mut parts = vec![
        (format!("tcptrace top  {host}  {}", time(view, frame.unix_ns)), BOLD),
        (format!("  {} sockets", count(frame.total())), PLAIN),
    ];
    if !frame.is_surveyed && frame.unix_ns > 0 {
        parts.push(("  looking for sockets that were there before…".to_owned(), DIM));
    }
    if view.is_paused {
        parts.push(("  PAUSED".to_owned(), WARNING));
    }
    match view.playing {
        Playing::Live { is_past: true, oldest } => {
            parts.push(("  THE PAST ".to_owned(), WARNING));
            parts.push((line(oldest.unwrap_or(frame.unix_ns), frame.unix_ns, view.frame.unix_ns), PLAIN));
        }
        Playing::Live { .. } => {}
        Playing::Trace { from, to, speed, is_over } => {
            let speed = if is_over { "the end".to_owned() } else { format!("×{speed}") };
            parts.push((format!("  {} {speed}", line(from, to, frame.unix_ns)), PLAIN));
        }
    }
    if !view.filter.is_empty() && view.typing.is_none() {
        parts.push((format!("  only {}", view.filter), WARNING));
    }
    if frame.lost_events() > 0 {
        parts.push((format!("  LOST {}", count(frame.lost_events())), ALARM));
    }
    put_all(to, area, area.y, &parts);
}

/// Where a time is between two others.
fn line(from: i64, until: i64, at: i64) -> String {
    let (whole, part) = (until.saturating_sub(from).max(1) as f64, at.saturating_sub(from).max(0) as f64);
    let place = ((part / whole * TIME as f64) as usize).min(TIME - 1);
    format!("[{}│{}]", "─".repeat(place), "·".repeat(TIME - 1 - place))
}

fn time(view: &View, unix_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).map(|time| time.to_zoned(view.zone.clone()));
    if unix_ns == 0 {
        return String::new();
    }
    time.map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

/// The panes, the one with the keys marked.
pub(super) fn tabs(to: &mut Buffer, area: Rect, view: &View) {
    let findings = view.frame.diagnosis.causes().count();
    let mut parts: Vec<(String, Style)> = Vec::new();
    for pane in Pane::ALL {
        let number = if pane == Pane::Findings { format!(" {findings}") } else { String::new() };
        parts.push((format!(" {}{number} ", pane.name()), if pane == view.pane { BAR } else { DIM }));
        parts.push((" ".to_owned(), PLAIN));
    }
    put_all(to, area, area.y, &parts);
}

/// The filter that is being typed, or the keys.
pub(super) fn foot(to: &mut Buffer, area: Rect, view: &View) {
    if let Some(typing) = &view.typing {
        let error = view.error.as_deref().map(|error| format!("   {error}")).unwrap_or_default();
        let hint = if typing.is_empty() { "   such as --port 443 --state close-wait, Enter, Esc" } else { "" };
        let parts =
            [(format!("filter: {typing}"), BOLD), ("▌".to_owned(), PLAIN), (error, ALARM), (hint.to_owned(), DIM)];
        return put_all(to, area, area.y, &parts);
    }
    let keys: &[(&str, &str)] = match view.over.last() {
        Some(Over::Help) => &[("Esc", "back"), ("q", "quit")],
        Some(Over::Finding(_) | Over::Connection(_)) => {
            &[("Esc", "back"), ("↑↓", "scroll"), ("p", "pause"), ("q", "quit")]
        }
        Some(Over::Group(..)) => &[("↑↓", "select"), ("Enter", "timeline"), ("Esc", "back"), ("q", "quit")],
        None => &[
            ("Enter", "open"),
            ("Tab", "pane"),
            ("/", "filter"),
            ("s", "sort"),
            ("g", "group"),
            ("f", "findings"),
            ("p", "pause"),
            ("?", "help"),
            ("q", "quit"),
            ("[ ]", "time"),
            ("↑↓", "select"),
        ],
    };
    let mut x = area.x;
    for (key, meaning) in keys {
        let columns = width(key) + 1 + width(meaning) + 1;
        if x + columns > area.right() {
            break;
        }
        x += put(to, x, area.y, area.width, key, BAR);
        x += put(to, x, area.y, area.width, &format!(" {meaning} "), PLAIN);
    }
    let observed = format!("{} observed", say::time(view.frame.observed_ns));
    if x + width(&observed) + 1 < area.right() {
        put(to, area.right() - width(&observed), area.y, width(&observed), &observed, DIM);
    }
}
