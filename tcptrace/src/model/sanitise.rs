//! Makes untrusted names safe to show.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes everything that could control a terminal, hide or reorder the text around it, or break a line.
///
/// Escaped are:
/// - control characters below U+0080 (C0, DEL): `\x1b`;
/// - bytes that are not UTF-8: `\xff`;
/// - C1, bidi controls, zero-width and combining characters, separators, whatever else has no glyph: `\u{202e}`;
/// - the backslash: `\\`, so that different names stay different.
pub fn sanitise(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) if text.chars().all(is_safe) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

/// The same for a whole message: names in it may be escaped already, so the backslash stays.
pub fn sanitise_message(text: &str) -> Cow<'_, str> {
    let is_harmless = |character| character == '\\' || is_safe(character);
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmless(character) { safe.push(character) } else { escape_character(&mut safe, character) }
    }
    Cow::Owned(safe)
}

fn escape(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len() * 4);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape_character(&mut safe, character);
        }
        for byte in chunk.invalid() {
            escape_byte(&mut safe, *byte);
        }
    }
    safe
}

fn escape_character(to: &mut String, character: char) {
    match character {
        '\\' => to.push_str("\\\\"),
        _ if is_safe(character) => to.push(character),
        '\0'..='\x7f' => escape_byte(to, character as u8),
        _ => to.extend(character.escape_unicode()),
    }
}

fn escape_byte(to: &mut String, byte: u8) {
    // Writing into a String cannot fail.
    let _ = write!(to, "\\x{byte:02x}");
}

fn is_safe(character: char) -> bool {
    match character {
        '\\' | '\x7f' => false,
        ' '..='~' => true,
        // Letters and symbols that are blank on screen: Hangul fillers and the empty Braille pattern.
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => false,
        // `escape_debug` escapes characters without a glyph of their own (categories C*, Z*, grapheme extenders).
        _ => character.escape_debug().len() == 1,
    }
}

/// The width of safe text in columns of a terminal.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(|character| 1 + usize::from(is_wide(character))).sum() }
}

/// The blocks of East Asian scripts and emoji (Unicode's UAX #11, roughly).
fn is_wide(character: char) -> bool {
    matches!(character,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}' | '\u{1f680}'..='\u{1f6ff}' | '\u{1f900}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(b"nginx: worker", "nginx: worker")]
    #[case::quotes(b"a\"b'c", "a\"b'c")]
    #[case::letters("größe-名前".as_bytes(), "größe-名前")]
    #[case::escape_sequence(b"\x1b[2J\x07", "\\x1b[2J\\x07")]
    #[case::lines(b"a\nb\r\tc", "a\\x0ab\\x0d\\x09c")]
    #[case::delete(b"\x7f", "\\x7f")]
    #[case::c1_as_utf8("\u{9b}2J".as_bytes(), "\\u{9b}2J")]
    #[case::c1_as_byte(b"\x9b2J", "\\x9b2J")]
    #[case::cut_in_a_character(&"abc名".as_bytes()[..5], "abc\\xe5\\x90")]
    #[case::bidi("a\u{202e}b\u{2066}".as_bytes(), "a\\u{202e}b\\u{2066}")]
    #[case::zero_width("a\u{200b}b\u{200d}\u{feff}".as_bytes(), "a\\u{200b}b\\u{200d}\\u{feff}")]
    #[case::blank("\u{3164}\u{2800}\u{a0}".as_bytes(), "\\u{3164}\\u{2800}\\u{a0}")]
    #[case::combining("e\u{301}".as_bytes(), "e\\u{301}")]
    #[case::line_separator("\u{2028}".as_bytes(), "\\u{2028}")]
    #[case::backslash(b"\\x1b", "\\\\x1b")]
    fn names_become_safe(#[case] name: &[u8], #[case] expected: &str) {
        assert_eq!(sanitise(name), expected);
    }

    #[rstest]
    #[case("cannot read 'a b\\x1b': größe ≥ 1…", "cannot read 'a b\\x1b': größe ≥ 1…")]
    #[case("'\u{1b}[31m\u{202e}'\nforged", "'\\x1b[31m\\u{202e}'\\x0aforged")]
    fn messages_become_safe(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(sanitise_message(message), expected);
    }

    #[test]
    fn harmless_names_are_not_copied() {
        assert!(matches!(sanitise(b"curl"), Cow::Borrowed("curl")));
    }

    #[test]
    fn width_is_in_columns() {
        assert_eq!((width("abc"), width("größe"), width("名前")), (3, 5, 4));
    }
}
