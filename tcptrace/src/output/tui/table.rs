//! A table with a heading, a selection, and a line that says how many more rows there are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::paint::{BAR, BOLD, DIM, put, width};
use crate::output::text::report::words::count;

/// A column. The first one takes what the others leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Marked as the one that orders the rows.
    pub(super) is_sorted: bool,
}

/// A cell.
pub(super) type Cell = (String, Style);

/// The first column is at least as wide, if the terminal is.
const FIRST: u16 = 18;

/// A table.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// Rows that are not here.
    pub(super) more: u64,
    /// What those are: `groups`.
    pub(super) what: &'static str,
    /// What is said where there are no rows.
    pub(super) empty: &'static str,
}

impl Column {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, is_sorted: false }
    }
}

impl Table {
    /// Draws as many rows as fit, with the selected one among them.
    pub(super) fn draw(&self, to: &mut Buffer, area: Rect, selected: Option<usize>) {
        if area.height < 2 {
            return;
        }
        put(to, area.x, area.y, area.width, &self.title, BOLD);
        let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
        if self.rows.is_empty() {
            put(to, area.x, area.y, area.width, self.empty, DIM);
            return;
        }
        let widths = self.widths(area.width);
        self.line(to, area, area.y, &widths, BAR, |column| {
            let Column { name, is_sorted } = self.columns[column];
            (if is_sorted { format!("{name}↓") } else { name.to_owned() }, BAR)
        });
        let room = usize::from(area.height - 1);
        let all = self.rows.len() as u64 + self.more;
        // The last line says how many more there are.
        let shown = if all > room as u64 { room.saturating_sub(1) } else { room };
        let chosen = selected.unwrap_or(0).min(self.rows.len() - 1);
        let first = (chosen + 1).saturating_sub(shown);
        for (y, place) in (area.y + 1..).zip(first..self.rows.len().min(first + shown)) {
            let row = &self.rows[place];
            let whole = if selected == Some(place) { BAR } else { Style::new() };
            self.line(to, area, y, &widths, whole, |column| row.get(column).cloned().unwrap_or_default());
        }
        let below = all.saturating_sub((first + shown) as u64);
        let hidden = all.saturating_sub(shown as u64);
        if hidden > 0 && shown < room {
            let above = if first > 0 { format!("{first} above, ") } else { String::new() };
            let text = format!("{above}{} more {}", count(below), self.what);
            put(to, area.x, area.bottom() - 1, area.width, &text, DIM);
        }
    }

    /// Lines that it takes to draw everything.
    pub(super) fn height(&self) -> u16 {
        let more = u16::from(self.more > 0);
        u16::try_from(self.rows.len()).unwrap_or(u16::MAX).max(1).saturating_add(2 + more)
    }

    /// The width of each column; those that do not fit have none.
    fn widths(&self, room: u16) -> Vec<u16> {
        let of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| width(text)).max();
            let heading = width(self.columns[column].name) + u16::from(self.columns[column].is_sorted);
            cells.unwrap_or(0).max(heading)
        };
        let mut widths: Vec<u16> = (0..self.columns.len()).map(of).collect();
        let mut left = room.saturating_sub(FIRST.min(widths.first().copied().unwrap_or(0)));
        for width in widths.iter_mut().skip(1) {
            // A space before each.
            if *width < left {
                left -= *width + 1;
            } else {
                (*width, left) = (0, 0);
            }
        }
        let taken: u16 = widths.iter().skip(1).filter(|width| **width > 0).map(|width| width + 1).sum();
        if let Some(first) = widths.first_mut() {
            *first = room.saturating_sub(taken);
        }
        widths
    }

    fn line(&self, to: &mut Buffer, area: Rect, y: u16, widths: &[u16], whole: Style, cell: impl Fn(usize) -> Cell) {
        to.set_style(Rect { y, height: 1, ..area }, whole);
        let mut x = area.x;
        for (column, columns) in widths.iter().copied().enumerate() {
            if columns == 0 {
                continue;
            }
            let (text, style) = cell(column);
            let style = whole.patch(style);
            if column == 0 {
                put(to, x, y, columns, &cut(&text, columns), style);
                x += columns;
            } else {
                let pad = columns.saturating_sub(width(&text));
                put(to, x + 1 + pad, y, columns - pad, &text, style);
                x += columns + 1;
            }
        }
    }
}

/// Ends with an ellipsis where something is cut off.
fn cut(text: &str, columns: u16) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        if width(&kept) + width(character.encode_utf8(&mut [0; 4])) + 1 > columns {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}
