//! The texts of tcptrace that scenarios look for, kept here so that a change touches one place.

/// Printed when every probe is attached.
pub(super) const READY: &str = "tcptrace: ready\n";
/// Printed when the last record of a trace is missing.
const ABRUPT: &str = "ended abruptly";
/// Printed when a trace, or a part of it, cannot be read.
const DAMAGE: [&str; 4] = ["damaged", "cannot be read", "cannot read the trace", "is not a tcptrace trace"];
/// Printed for the only damage that a kill can cause.
const CUT: &str = "the file ends within a block";
/// Printed for a file that is still empty.
const EMPTY: &str = "empty";
/// Printed by Rust for a panic.
const PANIC: &str = "panicked at";
/// The system's errors for a full disk, and for a file that reached its size limit.
pub(super) const NO_SPACE: &str = "No space left on device";
pub(super) const TOO_LARGE: &str = "File too large";
/// Printed when a full disk has room again.
pub(super) const ROOM_AGAIN: &str = "there is room again: recording continues";

/// The numbers of a closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Events recorded or read; for a live command, transitions seen.
    pub(super) events: u64,
    /// Transitions read.
    pub(super) transitions: u64,
    /// Events lost.
    pub(crate) lost: u64,
    /// Whether more may have been lost.
    pub(super) is_lower_bound: bool,
}

/// The numbers of the closing line, if there is one.
pub(super) fn closing(said: &str) -> Option<Figures> {
    said.lines().rev().find_map(|line| closing_line(line.strip_prefix("tcptrace: ")?))
}

/// `12 events recorded, 3 lost (3 ring buffer full), 1.5 KiB`; `12 events read, 9 transitions, ≥3 lost`;
/// `9 transitions seen, 0 lost`.
fn closing_line(line: &str) -> Option<Figures> {
    let mut parts = line.split(", ");
    let events = counted(parts.next()?, &["events recorded", "events read", "transitions seen"])?;
    let second = parts.next()?;
    let transitions = counted(second, &["transitions"]);
    let lost = if transitions.is_some() { parts.next()? } else { second };
    let lost = lost.split(" (").next()?;
    let exact = lost.strip_prefix('≥');
    Some(Figures {
        events,
        transitions: transitions.unwrap_or(0),
        lost: counted(exact.unwrap_or(lost), &["lost"])?,
        is_lower_bound: exact.is_some(),
    })
}

fn counted(part: &str, units: &[&str]) -> Option<u64> {
    let (number, unit) = part.split_once(' ')?;
    if units.contains(&unit) { number.parse().ok() } else { None }
}

/// Whether a reader reports that the recording ended abruptly.
pub(super) fn is_abrupt(said: &str) -> bool {
    said.contains(ABRUPT)
}

/// Whether a reader reports damage.
pub(super) fn is_damaged(said: &str) -> bool {
    damage(said).next().is_some()
}

/// Whether all reported damage is a last block that was cut.
pub(super) fn is_cut_at_most(said: &str) -> bool {
    damage(said).all(|line| line.contains(CUT))
}

/// Lines that report damage, without those that count it.
fn damage(said: &str) -> impl Iterator<Item = &str> {
    let is_named = |line: &&str| DAMAGE.iter().any(|words| line.contains(words));
    said.lines().filter(move |line| is_named(line) && !line.contains(" events read, "))
}

/// Whether a reader reports an empty file.
pub(super) fn is_empty(said: &str) -> bool {
    said.contains(EMPTY)
}

/// Whether a program panicked.
pub(super) fn has_panicked(said: &str) -> bool {
    said.contains(PANIC)
}

/// How many lines contain it.
pub(super) fn times(said: &str, what: &str) -> usize {
    said.lines().filter(|line| line.contains(what)).count()
}

/// The end of stderr, for a complaint.
pub(crate) fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// Lines that are neither the first nor the closing line.
pub(super) fn complaints(said: &str) -> Vec<&str> {
    let of_note = |line: &&str| {
        let line = line.strip_prefix("tcptrace: ").unwrap_or(line);
        let is_usual = ["audit: ", "not seen here: ", "writing "].iter().any(|begins| line.starts_with(begins));
        line != "ready" && closing_line(line).is_none() && !is_usual
    };
    said.lines().filter(of_note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_understood() {
        let recorded = "tcptrace: ready\ntcptrace: 123 events recorded, 18 lost (12 ring buffer full, try --ring-size; 6 x), 1 KiB\n";
        let expected = Figures { events: 123, lost: 18, ..Figures::default() };
        assert_eq!(closing(recorded), Some(expected));
        let read = "tcptrace: 12 events read, 9 transitions, ≥3 lost (3 damage)\n";
        let expected = Figures { events: 12, transitions: 9, lost: 3, is_lower_bound: true };
        assert_eq!(closing(read), Some(expected));
        let seen = "tcptrace: 7 transitions seen, 0 lost, 1 sockets followed, 0 filtered out\n";
        assert_eq!(closing(seen), Some(Figures { events: 7, ..Figures::default() }));
        assert_eq!(closing("tcptrace: ready\n"), None);
    }

    #[test]
    fn what_is_said_beside_it_is_told_apart() {
        let said = "tcptrace: ready\ntcptrace: cannot write\ntcptrace: 1 events recorded, 0 lost, 1 B\n";
        assert_eq!(complaints(said), ["tcptrace: cannot write"]);
        assert!(is_cut_at_most("x: damaged at byte 7: the file ends within a block; 9 bytes skipped\n"));
        assert!(!is_cut_at_most("x: damaged at byte 7: the data of a block is damaged; 9 bytes skipped\n"));
    }
}
