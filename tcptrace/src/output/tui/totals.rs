//! Sockets by state with their course, rates, and losses.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{ALARM, DIM, PLAIN, of_state, put, put_all, sparkline, width};
use crate::model::tcp::State;
use crate::output::text::report::words::{count, number};
use crate::study::top::{Frame, Second};

/// States in reading order, those that pile up first.
const STATES: [State; 9] = [
    State::Established,
    State::TimeWait,
    State::CloseWait,
    State::FinWait2,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::LastAck,
    State::Closing,
];

/// Lines of the pane.
pub(super) const LINES: u16 = 5;

/// Columns of a state's name and its count.
const NAME: u16 = 12;
const COUNT: u16 = 7;

/// The course covers at most this many seconds.
const COURSE: usize = 300;

pub(super) fn draw(to: &mut Buffer, area: Rect, frame: &Frame) {
    let rates = (area.width / 3).clamp(26, 60);
    let column = (area.width.saturating_sub(rates)) / 2;
    for (place, state) in (0..).zip(STATES) {
        let (x, y) = (area.x + place / LINES * column, area.y + place % LINES);
        draw_state(to, Rect { x, y, width: column.saturating_sub(1), height: 1 }, frame, state);
    }
    let (x, y) = (area.x + column, area.y + 4);
    let total = format!("{:<12}{:>7}", "all", count(frame.total()));
    put(to, x, y, column.saturating_sub(1), &total, PLAIN);
    draw_rates(to, Rect { x: area.x + 2 * column, width: area.width - 2 * column, ..area }, frame);
}

fn draw_state(to: &mut Buffer, area: Rect, frame: &Frame, state: State) {
    let now = frame.sockets(state);
    let style = if now == 0 { DIM } else { of_state(state) };
    put(to, area.x, area.y, NAME, state.as_str(), style);
    let text = count(now);
    put(to, area.x + NAME + COUNT.saturating_sub(width(&text)), area.y, COUNT, &text, style);
    let begin = NAME + COUNT + 1;
    let course = course(&frame.seconds, area.width.saturating_sub(begin), |second| second.states[state as usize]);
    put(to, area.x + begin, area.y, area.width.saturating_sub(begin), &course, style);
}

fn draw_rates(to: &mut Buffer, area: Rect, frame: &Frame) {
    let rates = &frame.rates;
    let columns = area.width.saturating_sub(19);
    let line = |name: &str, rate: f64, of: fn(&Second) -> u32| {
        format!("{name:<8}{:>8}/s {}", number(rate), course(&frame.seconds, columns, of))
    };
    put(to, area.x, area.y, area.width, &line("opened", rates.opened, |second| second.opened), PLAIN);
    put(to, area.x, area.y + 1, area.width, &line("closed", rates.ended, Second::ended), PLAIN);
    let words = |all: &mut dyn Iterator<Item = (&str, f64)>| {
        all.map(|(word, rate)| format!("{word} {}", number(rate))).collect::<Vec<_>>().join(", ")
    };
    let closers = words(&mut rates.closers.iter().map(|(closer, rate)| (closer.as_str(), *rate)));
    put(to, area.x, area.y + 2, area.width, &format!(" by {}", or_dash(&closers)), DIM);
    let failures = words(&mut rates.failures.iter().map(|(end, rate)| (end.as_str(), *rate)));
    let failed = format!("{:<8}{:>8}/s ", "failed", number(rates.failed));
    let style = if rates.failed > 0.0 { ALARM } else { PLAIN };
    put_all(to, area, area.y + 3, &[(failed, style), (failures, DIM)]);
    put_all(to, area, area.y + 4, &[lost(frame)]);
}

/// Losses are never left out.
fn lost(frame: &Frame) -> (String, ratatui::style::Style) {
    if frame.lost.is_empty() {
        return ("lost           0".to_owned(), PLAIN);
    }
    let causes: Vec<String> = frame.lost.iter().map(|lost| lost.cause.as_str().to_owned()).collect();
    let at_least = if frame.lost.iter().any(|lost| lost.at_least) { "≥" } else { "" };
    (format!("lost    {at_least}{} events: {}", count(frame.lost_events()), causes.join(", ")), ALARM)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// The last minutes, as many as fit: each column is the mean of as many seconds.
fn course(seconds: &[Second], columns: u16, of: impl Fn(&Second) -> u32) -> String {
    let columns = usize::from(columns);
    if columns == 0 || seconds.is_empty() {
        return String::new();
    }
    // A column that always covers the same seconds does not change its height when time passes.
    let each = seconds.len().min(COURSE).div_ceil(columns).max(1);
    let number = |second: &Second| second.number.div_euclid(i64::try_from(each).unwrap_or(1));
    let mut means: Vec<(i64, f64, f64)> = Vec::new();
    for second in seconds {
        let value = f64::from(of(second));
        match means.last_mut() {
            Some((of, sum, count)) if *of == number(second) => (*sum, *count) = (*sum + value, *count + 1.0),
            _ => means.push((number(second), value, 1.0)),
        }
    }
    let values: Vec<f64> = means.iter().map(|(_, sum, count)| sum / count).collect();
    sparkline(&values[values.len().saturating_sub(columns)..])
}
