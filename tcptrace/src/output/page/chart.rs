//! Drawings: shapes only, stretched to the room available. Their texts are outside.

use std::fmt::Write;

use maud::{Markup, html};

use crate::model::life::{Life, Span};
use crate::model::row::{Connection, Held};
use crate::model::tcp::State;
use crate::study::report::{Point, TRACKED};

/// What happened in a part of the time.
pub(super) type Moments = fn(&Point) -> u64;

/// Units of a drawing's width, and of its height.
const WIDE: f64 = 1000.0;
const HIGH: f64 = 100.0;

/// Patterns on top of the colours, so that states differ without colours, too.
pub(super) fn patterns() -> Markup {
    html! {
        svg width="0" height="0" aria-hidden="true" {
            defs {
                pattern #rising width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect width="2" height="7" fill="#000" fill-opacity=".35" {}
                }
                pattern #falling width="9" height="9" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)" {
                    rect width="2" height="9" fill="#fff" fill-opacity=".55" {}
                }
            }
        }
    }
}

/// The pattern on top of a state's colour.
fn pattern(state: State) -> Option<&'static str> {
    match state {
        State::CloseWait => Some("url(#rising)"),
        State::FinWait2 => Some("url(#falling)"),
        _ => None,
    }
}

/// A patch of a state's colour and pattern.
pub(super) fn key(state: State) -> Markup {
    html! {
        svg.key viewBox="0 0 22 16" aria-hidden="true" {
            rect width="22" height="16" class=(state) {}
            @if let Some(fill) = pattern(state) { rect width="22" height="16" fill=(fill) {} }
        }
    }
}

fn drawing(label: &str, shapes: &Markup) -> Markup {
    html! {
        svg viewBox={ "0 0 " (WIDE) " " (HIGH) } preserveAspectRatio="none" role="img" aria-label=(label) { (shapes) }
    }
}

/// Where each point begins and ends, from left to right.
fn columns(points: &[Point]) -> Vec<(f64, f64)> {
    let Some(first) = points.first() else { return Vec::new() };
    let total: f64 = points.iter().map(|point| point.width_ns as f64).sum();
    let x = |ns: f64| ns / total * WIDE;
    let column = |point: &Point| {
        let start = point.from_unix_ns.saturating_sub(first.from_unix_ns) as f64;
        (x(start), x(start + point.width_ns as f64))
    };
    points.iter().map(column).collect()
}

/// Sockets in some states, stacked; and the highest sum.
pub(super) fn stacked(points: &[Point], states: &[State], label: &str) -> (Markup, f64) {
    let places: Vec<usize> =
        states.iter().filter_map(|state| TRACKED.iter().position(|tracked| tracked == state)).collect();
    let sum = |point: &Point| places.iter().map(|place| point.sockets[*place]).sum::<f64>();
    let highest = points.iter().map(sum).fold(0.0, f64::max);
    let columns = columns(points);
    let mut below = vec![0.0; points.len()];
    let mut layers = Vec::new();
    for place in places {
        let above: Vec<f64> = below.iter().zip(points).map(|(below, point)| below + point.sockets[place]).collect();
        layers.push((TRACKED[place], area(&columns, &below, &above, highest)));
        below = above;
    }
    let shapes = html! {
        @for (state, path) in &layers {
            path class=(state) d=(path) { title { (state) } }
            @if let Some(fill) = pattern(*state) { path fill=(fill) d=(path) { title { (state) } } }
        }
    };
    (drawing(label, &shapes), highest)
}

/// The area between two stepped lines.
fn area(columns: &[(f64, f64)], below: &[f64], above: &[f64], highest: f64) -> String {
    let y = |value: f64| if highest > 0.0 { HIGH - value / highest * HIGH * 0.98 } else { HIGH };
    let mut path = String::new();
    for ((from, to), value) in columns.iter().zip(above) {
        let command = if path.is_empty() { 'M' } else { 'L' };
        // Writing into a String cannot fail, here and below.
        let _ = write!(path, "{command}{from:.1} {:.2}L{to:.1} {0:.2}", y(*value));
    }
    for ((from, to), value) in columns.iter().zip(below).rev() {
        let _ = write!(path, "L{to:.1} {:.2}L{from:.1} {0:.2}", y(*value));
    }
    path.push('Z');
    path
}

/// Lines of rates per second, each with its class; and the highest rate.
pub(super) fn rates(points: &[Point], lines: &[(&str, Moments)], label: &str) -> (Markup, f64) {
    let rate = |point: &Point, count: u64| count as f64 * 1e9 / point.width_ns.max(1) as f64;
    let all = lines.iter().flat_map(|(_, of)| points.iter().map(|point| rate(point, of(point))));
    let highest = all.fold(0.0, f64::max);
    let columns = columns(points);
    let line = |of: &Moments| {
        let mut path = String::new();
        for ((from, to), point) in columns.iter().zip(points) {
            let value = rate(point, of(point));
            let y = if highest > 0.0 { HIGH - value / highest * HIGH * 0.98 } else { HIGH };
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{from:.1} {y:.2}L{to:.1} {y:.2}");
        }
        path
    };
    let shapes = html! { @for (class, of) in lines { path.line.(class) d=(line(of)) { title { (class) } } } };
    (drawing(label, &shapes), highest)
}

/// A bar: the exact part, then that of lower bounds; both from 0 to 1.
pub(super) fn bar(exact: f64, part: f64, class: &str) -> Markup {
    let [exact, part] = [exact, part].map(|share| format!("{:.1}", share * WIDE));
    html! {
        svg.bars viewBox={ "0 0 " (WIDE) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            rect.(class) width=(exact) height="10" {}
            rect.(class).part x=(exact) width=(part) height="10" {}
        }
    }
}

/// The states of a connection over time, to the scale of the longest life. Unknown times are gaps.
pub(super) fn life(connection: &Connection, longest_ns: u64, label: &str) -> Markup {
    let life = Life::of(connection);
    let x = |at: u64| (at - life.begin) as f64 / longest_ns.max(1) as f64 * WIDE;
    let span = |Span { state, from, to }: &Span| {
        let title = match state {
            Some(state) => format!("{state} {}", connection.held(*state)),
            None => format!("unknown {}", Held::Exactly(to - from)),
        };
        let (left, width) = (format!("{:.2}", x(*from)), format!("{:.2}", x(*to) - x(*from)));
        html! {
            rect.(state.map_or("unseen", State::as_str)) x=(left) width=(width) height="10" { title { (title) } }
            @if let Some(fill) = state.and_then(pattern) {
                rect fill=(fill) x=(left) width=(width) height="10" { title { (title) } }
            }
        }
    };
    html! {
        svg.life viewBox={ "0 0 " (WIDE) " 10" } preserveAspectRatio="none" role="img" aria-label=(label) {
            @for it in &life.spans { (span(it)) }
        }
    }
}
