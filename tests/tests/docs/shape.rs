//! Whether a command prints what its page shows, but for the numbers.

/// Where the shape of what was printed is not that of what is shown: the first line that is missing.
pub(crate) fn missing<'s>(shown: &'s [String], printed: &str) -> Option<&'s str> {
    let mut keys = printed.lines().map(key).peekable();
    let mut last = String::new();
    for line in shown {
        let wanted = key(line);
        // How many rows there are is a number, too.
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

/// What stays the same in each run: all of a line of column heads, the first word of any other.
fn key(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_head = |word: &&str| !word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(char::is_lowercase);
    if words.len() > 1 && words.iter().all(is_head) {
        return words.join(" ");
    }
    words.first().map_or_else(String::new, |word| without_numbers(word))
}

/// A word with `#` for each number in it: `5,340`, `05:14:03.562` and `17` are the same.
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
