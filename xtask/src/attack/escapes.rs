//! Characters that no output may contain: they move the cursor, reorder text, or end a line.

/// The first such character in a line, not counting the line's own end.
pub(super) fn raw(line: &[u8]) -> Option<String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match str::from_utf8(line) {
        Ok(text) => text.chars().find(|c| is_raw(*c)).map(|c| format!("U+{:04X}", u32::from(c))),
        Err(_) => Some("bytes that are not UTF-8".to_owned()),
    }
}

fn is_raw(c: char) -> bool {
    let is_bidi = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_bidi || (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether a spreadsheet would evaluate a cell of this line of CSV.
pub(super) fn has_formula(line: &[u8]) -> bool {
    let begins = |cell: &[u8]| {
        let cell = cell.strip_prefix(b"\"").unwrap_or(cell);
        matches!(cell.first(), Some(b'=' | b'@' | b'+')) || (cell.first() == Some(&b'-') && cell.len() > 1)
    };
    line.trim_ascii_end().split(|byte| *byte == b',').any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_a_terminal_is_found() {
        for text in ["a\x1b[31m", "\u{202e}txt", "a\rb", "\u{9b}31m", "\x7f", "a\nb\n"] {
            assert!(raw(text.as_bytes()).is_some(), "{text:?}");
        }
        assert_eq!(raw(b"\xff"), Some("bytes that are not UTF-8".to_owned()));
        assert_eq!(raw("Größe\t→ \\x1b[31m\n".as_bytes()), None);
    }

    #[test]
    fn formulae_are_found() {
        assert!(has_formula(b"1,=cmd|' /C calc'!A0,2\n"));
        assert!(has_formula(b"1,\"@SUM(A1)\""));
        assert!(!has_formula(b"1,'=cmd,a=b,-\n"));
    }
}
