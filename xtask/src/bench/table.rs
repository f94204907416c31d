//! The results of a part of the benchmark: tables, and every measurement as JSON.

use std::fmt::Write as _;

use serde_json::Value;

/// A table in Markdown with a heading, and a text below it.
#[derive(Debug, Default)]
pub(super) struct Table {
    title: String,
    /// Headings; the first is that of the rows' names.
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    caption: String,
}

impl Table {
    /// A table without rows.
    pub(super) fn new<const N: usize>(title: &str, columns: [&str; N]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Sets the text below it.
    pub(super) fn caption(&mut self, caption: String) {
        self.caption = caption;
    }

    /// As Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}| ---{} |\n", self.title, line(&self.columns), {
            " | ---:".repeat(self.columns.len().saturating_sub(1))
        });
        for row in &self.rows {
            text.push_str(&line(row));
        }
        if !self.caption.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{}", wrapped(&self.caption, 120));
        }
        text
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Wraps `text` at this many characters, between words.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > width {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines
}

/// The results of a part.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// For people.
    pub(super) tables: Vec<Table>,
    /// Every measurement as JSON.
    pub(super) json: Value,
    /// Errors: losses that were not counted.
    pub(super) faults: Vec<String>,
}

/// `1 round`, `7 rounds`.
pub(super) fn rounds(count: u32) -> String {
    if count == 1 { "1 round".to_owned() } else { format!("{count} rounds") }
}

/// `1 round`, `7 interleaved rounds`.
pub(super) fn interleaved(count: u32) -> String {
    if count == 1 { rounds(count) } else { format!("{count} interleaved rounds") }
}

/// In MiB.
pub(super) fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// `12,000`.
pub(super) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Rate", ["", "kept", "lost"]);
        table.row(vec!["record".to_owned(), "95 %".to_owned(), "0".to_owned()]);
        table.caption("Of a run.".to_owned());
        let expected = "### Rate\n\n|  | kept | lost |\n| --- | ---: | ---: |\n| record | 95 % | 0 |\n\nOf a run.\n";
        assert_eq!(table.markdown(), expected);
    }

    #[test]
    fn long_texts_are_wrapped_between_words() {
        assert_eq!(wrapped("one two  three", 7), "one two\nthree");
        assert_eq!(wrapped("longer-than-that x", 7), "longer-than-that\nx");
        assert_eq!(wrapped("", 7), "");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 10_000, 1_234_567].map(grouped), ["0", "999", "10,000", "1,234,567"]);
    }
}
