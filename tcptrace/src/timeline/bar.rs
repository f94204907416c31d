//! A life as a row of cells.

use anstyle::Style;

use super::Line;
use super::glyphs::{Marks, block, letter};
use super::life::Life;
use crate::output::state_style;
use crate::tcp::State;

/// From time to columns. A cell has two halves, each in one state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// How long the whole width stands for, in ns; never 0.
    pub(super) span: u64,
    /// Cells between the margins; never 0.
    pub(super) cells: usize,
}

impl Scale {
    /// The half of a cell that begins nearest to this time, which counts from the left.
    pub(super) fn half(self, at: u64) -> usize {
        let halves = 2 * self.cells as u128;
        let span = u128::from(self.span);
        let nearest = (2 * u128::from(at.min(self.span)) * halves + span) / (2 * span);
        usize::try_from(nearest).unwrap_or(usize::MAX).min(2 * self.cells)
    }

    /// What one cell stands for, in ns.
    pub(super) fn cell(self) -> u64 {
        self.span / self.cells as u64
    }
}

/// What is in a cell of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    text: char,
    style: Style,
}

const BLANK: Cell = Cell { text: ' ', style: Style::new() };

/// Draws a life that begins at `offset` from the left, with a margin of one cell at each side for what is open.
pub(super) fn draw(line: &mut Line, life: &Life, offset: u64, scale: Scale, marks: Marks, ascii: bool) {
    let half = |at: u64| scale.half(offset.saturating_add(at - life.begin));
    let mut halves = vec![None; 2 * scale.cells];
    for span in &life.spans {
        halves[half(span.from)..half(span.to)].fill(Some(span.state));
    }
    let mut cells = vec![BLANK; scale.cells + 2];
    for (cell, halves) in cells[1..].iter_mut().zip(halves.chunks_exact(2)) {
        *cell = drawn(halves[0], halves[1], ascii);
    }
    for span in &life.spans {
        // The cells whose left half it has: at least one, if it is as long as a cell. Its letter is where it begins.
        let owned = half(span.from).div_ceil(2)..half(span.to).div_ceil(2);
        if !owned.is_empty() {
            cells[1 + owned.start] = lettered(span.state);
        }
    }
    let (from, to) = (half(life.begin), half(life.end));
    if from == to {
        let longest = life.spans.iter().max_by_key(|span| span.to - span.from);
        cells[1 + (from / 2).min(scale.cells - 1)] = lettered(longest.and_then(|span| span.state));
    }
    let first = cells.iter().position(|cell| *cell != BLANK).unwrap_or(1);
    let last = cells.iter().rposition(|cell| *cell != BLANK).unwrap_or(1);
    if !life.begin_seen {
        cells[first - 1].text = marks.before;
    }
    if life.is_open {
        cells[last + 1].text = marks.after;
    }
    // Without blanks at the end.
    let end = cells.iter().rposition(|cell| *cell != BLANK).map_or(0, |last| last + 1);
    for cell in &cells[..end] {
        line.push(cell.text, cell.style);
    }
}

fn drawn(left: Option<Option<State>>, right: Option<Option<State>>, ascii: bool) -> Cell {
    // One cell has one colour: that of the state that stands out.
    let styles = [left, right].map(|half| half.map_or(Style::new(), style));
    let style = if styles[0].is_plain() { styles[1] } else { styles[0] };
    match left.or(right) {
        Some(None) if ascii => Cell { text: '.', style },
        Some(state) if ascii => Cell { text: letter(state), style },
        _ => Cell { text: block(left, right), style },
    }
}

fn lettered(state: Option<State>) -> Cell {
    Cell { text: letter(state), style: style(state) }
}

pub(super) fn style(state: Option<State>) -> Style {
    state.map_or(Style::new(), state_style)
}
