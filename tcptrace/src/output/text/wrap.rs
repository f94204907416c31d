//! Breaks text into lines.

use crate::output::width;

/// Breaks text at spaces, so that no line is wider than `columns` unless a word is. Only spaces are dropped.
pub(in crate::output) fn wrapped(text: &str, columns: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while width(rest) > columns {
        let Some((line, after)) = broken(rest, columns) else { break };
        lines.push(line);
        rest = after;
    }
    lines.push(rest);
    lines
}

/// Breaks at the last space within `columns`, else at the first one after.
fn broken(text: &str, columns: usize) -> Option<(&str, &str)> {
    let mut spaces = text.match_indices(' ').map(|(at, _)| at).filter(|at| *at > 0).peekable();
    let mut last = *spaces.peek()?;
    while let Some(at) = spaces.next_if(|at| width(&text[..*at]) <= columns) {
        last = at;
    }
    Some((&text[..last], &text[last + 1..]))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", &[""])]
    #[case("one", &["one"])]
    #[case("one two three", &["one two", "three"])]
    #[case("incomprehensible one", &["incomprehensible", "one"])]
    #[case("名前 名前", &["名前", "名前"])]
    fn lines_break_at_spaces(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(wrapped(text, 8), expected);
    }
}
