//! A life as a row of cells.

use anstyle::Style;

use super::Line;
use super::glyphs::{Marks, block, letter};
use crate::model::life::Life;
use crate::model::tcp::State;
use crate::output::state_style;

/// From time to columns. A cell has two halves, each in one state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The time of the whole width, in ns; never 0.
    pub(super) span: u64,
    /// Cells between the margins; never 0.
    pub(super) cells: usize,
}

impl Scale {
    /// The half cell that starts nearest to this time, counted from the left.
    pub(super) fn half(self, at: u64) -> usize {
        let halves = 2 * self.cells as u128;
        let span = u128::from(self.span);
        let nearest = (2 * u128::from(at.min(self.span)) * halves + span) / (2 * span);
        usize::try_from(nearest).unwrap_or(usize::MAX).min(2 * self.cells)
    }

    /// The time of one cell, in ns.
    pub(super) fn cell(self) -> u64 {
        self.span / self.cells as u64
    }
}

/// A cell of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    text: char,
    style: Style,
}

const BLANK: Cell = Cell { text: ' ', style: Style::new() };

/// Draws a life that starts at `offset` from the left. A cell at each side stays free for the marks of an open end.
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
        // The cells whose left half is in this state: at least one, if it is as long as a cell. Its letter goes at its
        // start.
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
    // Drops blanks at the end.
    let end = cells.iter().rposition(|cell| *cell != BLANK).map_or(0, |last| last + 1);
    for cell in &cells[..end] {
        line.push(cell.text, cell.style);
    }
}

fn drawn(left: Option<Option<State>>, right: Option<Option<State>>, ascii: bool) -> Cell {
    // A cell has one colour: that of the more important state.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::life::Span;
    use crate::output::timeline::glyphs::{ASCII, UNICODE};

    #[rstest]
    #[case::whole_cells(&[(State::Established, 40), (State::TimeWait, 60)], " E▄▄▄T█████")]
    #[case::halves(&[(State::Established, 35), (State::TimeWait, 50)], " E▄▄▟T███▌")]
    #[case::half_a_cell_has_no_letter(&[(State::Established, 45), (State::FinWait1, 5), (State::TimeWait, 50)], " E▄▄▄▟T████")]
    #[case::one_cell_is_its_letter(&[(State::FinWait1, 10), (State::FinWait2, 10), (State::TimeWait, 10)], " 12T")]
    #[case::too_short(&[(State::SynSent, 1), (State::Established, 99)], " E▄▄▄▄▄▄▄▄▄")]
    fn bars(#[case] stays: &[(State, u64)], #[case] expected: &str) {
        assert_eq!(drawn(&life(stays), 0, false), expected);
    }

    #[test]
    fn margins_show_what_is_open() {
        let open = Life { begin_seen: false, is_open: true, ..life(&[(State::CloseWait, 100)]) };
        assert_eq!(drawn(&open, 0, false), "‹C█████████›");
        assert_eq!(drawn(&open, 0, true), "<CCCCCCCCCC>");
        let short = Life { begin_seen: false, is_open: true, ..life(&[(State::CloseWait, 20)]) };
        assert_eq!(drawn(&short, 30, false), "   ‹C█›");
        let dot = Life { begin_seen: false, is_open: true, ..life(&[]) };
        assert_eq!(drawn(&dot, 100, false), "         ‹?›");
    }

    #[test]
    fn what_is_not_known_is_dots() {
        let mut life = life(&[(State::Established, 20), (State::Closed, 50), (State::LastAck, 30)]);
        life.spans[1].state = None;
        assert_eq!(drawn(&life, 0, false), " E▄?····L██");
        assert_eq!(drawn(&life, 0, true), " EE?....LLL");
    }

    fn life(stays: &[(State, u64)]) -> Life {
        let mut at = 1000;
        let spans = stays.iter().map(|(state, ns)| {
            at += ns;
            Span { state: Some(*state), from: at - ns, to: at }
        });
        let spans = spans.collect();
        Life { begin: 1000, begin_seen: true, end: at, is_open: false, spans }
    }

    /// 10 cells for 100 ns.
    fn drawn(life: &Life, offset: u64, ascii: bool) -> String {
        let mut line = Line::default();
        let scale = Scale { span: 100, cells: 10 };
        draw(&mut line, life, offset, scale, if ascii { ASCII } else { UNICODE }, ascii);
        line.0.into_iter().map(|part| part.text).collect()
    }

    proptest! {
        #[test]
        fn the_scale_is_monotonic_and_ends_at_its_ends(
            span in 1..=u64::MAX,
            cells in 1_usize..1000,
            one in any::<u64>(),
            other in any::<u64>(),
        ) {
            let scale = Scale { span, cells };
            prop_assert_eq!((scale.half(0), scale.half(span)), (0, 2 * cells));
            prop_assert!(scale.half(one.min(other)) <= scale.half(one.max(other)));
            prop_assert!(scale.half(one) <= 2 * cells);
        }
    }
}
