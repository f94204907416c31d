//! Tables whose rows are all known before the first is written.

use std::io::{self, Write};

use anstyle::Style;

use crate::output::text::column::{Align, Column, Line};
use crate::output::width;

/// Rows of cells, below a heading.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of plain cells.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.styled(cells.into_iter().map(|cell| (cell, Style::new())));
    }

    /// Adds a row.
    pub(super) fn styled(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its width on a terminal.
    pub(super) fn width(&self) -> usize {
        let widest = |(place, (name, _)): (usize, &(&str, Align))| self.widest(place).max(name.len());
        self.columns.iter().enumerate().map(|column| widest(column) + 1).sum()
    }

    fn widest(&self, place: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(place)).map(|(cell, _)| width(cell)).max().unwrap_or(0)
    }

    /// Writes it, indented.
    pub(super) fn write(&self, out: &mut impl Write, indent: usize, colour: bool) -> io::Result<()> {
        let columns = self.columns.iter().enumerate();
        let mut columns: Vec<Column> =
            columns.map(|(place, (name, align))| Column::new(name, *align, self.widest(place))).collect();
        let mut line = Line::default();
        let margin = " ".repeat(indent);
        columns.iter().for_each(|column| column.heading(&mut line, colour));
        out.write_all(margin.as_bytes())?;
        out.write_all(line.end())?;
        for row in &self.rows {
            line.clear();
            for (column, (cell, style)) in columns.iter_mut().zip(row) {
                let style = if colour { *style } else { Style::new() };
                column.cell(&mut line, style, |to| to.extend_from_slice(cell.as_bytes()));
            }
            out.write_all(margin.as_bytes())?;
            out.write_all(line.end())?;
        }
        Ok(())
    }
}
