//! Lines made of cells. Padding counts visible columns: escape sequences take none, `→` takes one.

use std::io::Write;

use anstyle::{Effects, Style};

use crate::output::width;

/// Between two states.
pub(super) const ARROW: &str = " →";

const HEADING: Style = Style::new().effects(Effects::BOLD);

/// The edge that a column aligns to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A column, as wide as its widest value so far.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    align: Align,
    width: usize,
}

impl Column {
    pub(super) fn new(name: &'static str, align: Align, width: usize) -> Self {
        Self { name, align, width: width.max(name.len()) }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn heading(&self, line: &mut Line, colour: bool) {
        let style = if colour { HEADING } else { Style::new() };
        line.cell(self, style, |to| to.extend_from_slice(self.name.as_bytes()));
    }

    /// Adds a cell to a line and widens the column if it has to.
    pub(super) fn cell(&mut self, line: &mut Line, style: Style, write: impl FnOnce(&mut Vec<u8>)) {
        let taken = line.cell(self, style, write);
        self.width = self.width.max(taken);
    }
}

/// A cell of a line that has to fit a terminal.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) align: Align,
    /// The width of its column.
    pub(super) width: usize,
    pub(super) style: Style,
    pub(super) text: String,
}

/// A line under construction.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    content: Vec<u8>,
    /// The cells so far, where fitting needs the whole line.
    cells: Option<Vec<Cell>>,
}

impl Line {
    /// A line that collects its cells: [`Line::take_cells`].
    pub(super) fn collecting() -> Self {
        Self { cells: Some(Vec::new()), ..Self::default() }
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.cells.is_some()
    }

    /// How many bytes it has so far.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// What was added since it had so many bytes.
    pub(super) fn since(&self, length: usize) -> &[u8] {
        self.bytes.get(length..).unwrap_or_default()
    }

    /// Takes the collected cells.
    pub(super) fn take_cells(&mut self) -> Vec<Cell> {
        self.cells.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds an arrow between two cells. For collected cells, `fit` adds it.
    pub(super) fn arrow(&mut self) {
        if self.cells.is_none() {
            self.raw(ARROW.as_bytes());
        }
    }

    /// Adds bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds what `write` writes, without padding.
    pub(super) fn styled(&mut self, style: Style, write: impl FnOnce(&mut Vec<u8>)) {
        self.content.clear();
        write(&mut self.content);
        self.push_content(style);
    }

    /// Adds a cell, after a space if it is not the first, and returns how many columns its content takes.
    fn cell(&mut self, column: &Column, style: Style, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.content.clear();
        write(&mut self.content);
        let Column { name, align, width, .. } = *column;
        if let Some(cells) = &mut self.cells {
            let text = String::from_utf8_lossy(&self.content).into_owned();
            cells.push(Cell { name, align, width, style, text });
            return width;
        }
        if !self.bytes.is_empty() {
            self.bytes.push(b' ');
        }
        let taken = columns(&self.content);
        let padding = width.saturating_sub(taken);
        match align {
            Align::Left => {
                self.push_content(style);
                self.pad(padding);
            }
            Align::Right => {
                self.pad(padding);
                self.push_content(style);
            }
        }
        taken
    }

    pub(super) fn pad(&mut self, columns: usize) {
        self.bytes.resize(self.bytes.len() + columns, b' ');
    }

    fn push_content(&mut self, style: Style) {
        if style.is_plain() || self.content.is_empty() {
            self.bytes.extend_from_slice(&self.content);
            return;
        }
        // Writing into a Vec cannot fail.
        let _ = write!(self.bytes, "{style}");
        self.bytes.extend_from_slice(&self.content);
        let _ = write!(self.bytes, "{style:#}");
    }

    /// The whole line with its newline and without trailing spaces.
    pub(super) fn end(&mut self) -> &[u8] {
        let length = self.bytes.trim_ascii_end().len();
        self.bytes.truncate(length);
        self.bytes.push(b'\n');
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

fn columns(bytes: &[u8]) -> usize {
    if bytes.is_ascii() { bytes.len() } else { str::from_utf8(bytes).map_or(bytes.len(), width) }
}

/// As much of a text as fits into `columns`. If that is not all, one column stays free for an ellipsis.
pub(crate) fn fitting(text: &str, columns: usize) -> &str {
    if width(text) <= columns {
        return text;
    }
    let fits = |(end, _): &(usize, char)| width(&text[..*end]) < columns;
    let end = text.char_indices().take_while(fits).last().map_or(0, |(end, _)| end);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;
    use rstest::rstest;

    use super::*;

    fn line(style: Style, align: Align, contents: &[&str]) -> Vec<String> {
        let (mut column, mut line) = (Column::new("C", align, 4), Line::default());
        let mut row = |content: &&str| {
            line.clear();
            column.cell(&mut line, style, |to| to.extend_from_slice(content.as_bytes()));
            line.raw(b"|");
            String::from_utf8(line.end().to_vec()).expect("UTF-8")
        };
        contents.iter().map(&mut row).collect()
    }

    #[test]
    fn columns_grow_and_stay_grown() {
        assert_eq!(line(Style::new(), Align::Left, &["ab", "abcdef", "a"]), ["ab  |\n", "abcdef|\n", "a     |\n"]);
        assert_eq!(line(Style::new(), Align::Right, &["ab", "abcdef", "a"]), ["  ab|\n", "abcdef|\n", "     a|\n"]);
    }

    #[test]
    fn padding_counts_what_is_seen() {
        let yellow = AnsiColor::Yellow.on_default();
        assert_eq!(line(yellow, Align::Left, &["→µ"]), ["\x1b[33m→µ\x1b[0m  |\n"]);
        assert_eq!(line(yellow, Align::Right, &["名"]), ["  \x1b[33m名\x1b[0m|\n"]);
    }

    #[rstest]
    #[case("abcd", "abcd")]
    #[case("abcde", "abc")]
    #[case("名前名", "名")]
    #[case("ab名前", "ab")]
    #[case("名前", "名前")]
    fn long_text_is_cut(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(fitting(text, 4), expected);
    }
}
