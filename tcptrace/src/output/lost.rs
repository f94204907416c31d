//! The number of lost events and the causes, in words.

use std::fmt::Write as _;

use crate::model::stream::Lost;

/// The part of a closing line about losses: `0 lost`, `12 lost (12 not written)`, and with `≥` where the number is a
/// lower bound.
pub fn lost(all: &[Lost]) -> String {
    let mut line = format!("{} lost", bound(total(all), all.iter().any(|lost| lost.at_least)));
    for (index, lost) in all.iter().enumerate() {
        let separator = if index == 0 { " (" } else { "; " };
        // Writing into a String cannot fail.
        let _ = write!(line, "{separator}{}", cause(lost));
    }
    if !all.is_empty() {
        line.push(')');
    }
    line
}

/// `12 not written`, `≥12 trace damaged`.
fn cause(lost: &Lost) -> String {
    let cause = lost.cause.words();
    match lost.events {
        0 if lost.at_least => format!("{cause}, number unknown"),
        events => format!("{} {cause}", bound(events, lost.at_least)),
    }
}

/// Events lost by all causes, as far as their number is known.
fn total(all: &[Lost]) -> u64 {
    all.iter().fold(0, |sum, lost| sum.saturating_add(lost.events))
}

/// A number, or a lower bound.
pub(super) fn bound(number: impl std::fmt::Display, at_least: bool) -> String {
    format!("{}{number}", if at_least { "≥" } else { "" })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::event::Cause;

    #[rstest]
    #[case(&[], "0 lost")]
    #[case(&[(Cause::Disk, 12, false)], "12 lost (12 not written)")]
    #[case(&[(Cause::Disk, 2, false), (Cause::Damage, 10, true)], "≥12 lost (2 not written; ≥10 trace damaged)")]
    #[case(&[(Cause::Damage, 10, false)], "10 lost (10 trace damaged)")]
    #[case(&[(Cause::Damage, 0, true)], "≥0 lost (trace damaged, number unknown)")]
    #[case(&[(Cause::Disk, u64::MAX, false), (Cause::Recursion, 1, false)], "18446744073709551615 lost (18446744073709551615 not written; 1 program was running already)")]
    fn closing_lines_say_what_was_lost(#[case] causes: &[(Cause, u64, bool)], #[case] expected: &str) {
        let all: Vec<_> = causes.iter().map(|&(cause, events, at_least)| Lost { cause, events, at_least }).collect();
        assert_eq!(lost(&all), expected);
    }
}
