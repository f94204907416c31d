//! Compares a command's output with the page, without its numbers.

/// The first line of the page that is missing in the output, if their shapes differ.
pub(crate) fn missing<'s>(shown: &'s [String], printed: &str) -> Option<&'s str> {
    let mut keys = printed.lines().map(key).peekable();
    let mut last = String::new();
    for line in shown {
        let wanted = key(line);
        // The number of rows may differ, too.
        if wanted == last {
            continue;
        }
        if !keys.any(|key| key == wanted) {
            return Some(line);
        }
        last = wanted;
    }
    None
}

/// The part of a line that is the same in each run: all column headings, or the first word of another line.
fn key(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_head = |word: &&str| !word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(char::is_lowercase);
    if words.len() > 1 && words.iter().all(is_head) {
        return words.join(" ");
    }
    words.first().map_or_else(String::new, |word| without_numbers(word))
}

/// A word with `#` in place of each number: `5,340`, `05:14:03.562` and `17` become the same.
fn without_numbers(word: &str) -> String {
    let mut plain = String::new();
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_digit() {
            plain.push(c);
            continue;
        }
        plain.push('#');
        while rest.next_if(|c| c.is_ascii_digit() || ",.:".contains(*c)).is_some() {}
    }
    plain
}

#[test]
fn numbers_and_how_many_rows_there_are_may_differ() {
    let shown =
        ["TIME PID COMM", "05:14:03.562 17 shop", "05:14:03.573 17 shop", "6,553 connections"].map(str::to_owned);
    assert_eq!(missing(&shown, "TIME   PID COMM\n11:00:00.001 4 shop\n9 connections\nmore"), None);
}

#[test]
fn another_column_a_lost_row_or_another_word_is_found() {
    let shown = ["TIME PID COMM", "05:14:03.562 17 shop", "opened 4"].map(str::to_owned);
    assert_eq!(missing(&shown, "TIME PID NAME\n1 17 shop\nopened 4"), Some("TIME PID COMM"));
    assert_eq!(missing(&shown, "TIME PID COMM\nopened 4"), Some("05:14:03.562 17 shop"));
    assert_eq!(missing(&shown, "TIME PID COMM\n1 17 shop\nclosed 4"), Some("opened 4"));
}
