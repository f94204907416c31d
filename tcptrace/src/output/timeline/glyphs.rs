//! The characters of the drawing, in Unicode and in ASCII.

use crate::model::tcp::State;

/// The letter of a state, or of an unknown one.
pub(crate) fn letter(state: Option<State>) -> char {
    match state {
        Some(State::SynSent) => 'S',
        Some(State::SynRecv) => 'R',
        Some(State::Established) => 'E',
        Some(State::FinWait1) => '1',
        Some(State::FinWait2) => '2',
        Some(State::CloseWait) => 'C',
        Some(State::Closing) => 'X',
        Some(State::LastAck) => 'L',
        Some(State::TimeWait) => 'T',
        Some(State::Closed | State::Listen) => '-',
        None => '?',
    }
}

/// How a state fills half a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Empty,
    /// Unknown.
    Dots,
    /// Up to ESTABLISHED: neither side has closed yet.
    Low,
    /// From the first FIN on.
    High,
}

fn fill(half: Option<Option<State>>) -> Fill {
    match half {
        None => Fill::Empty,
        Some(None | Some(State::Closed | State::Listen)) => Fill::Dots,
        Some(Some(State::SynSent | State::SynRecv | State::Established)) => Fill::Low,
        Some(Some(_)) => Fill::High,
    }
}

/// The block for a cell with these halves: no state, an unknown one, or a known one.
pub(super) fn block(left: Option<Option<State>>, right: Option<Option<State>>) -> char {
    use Fill::{Dots, Empty, High, Low};
    match (fill(left), fill(right)) {
        (Empty, Empty) => ' ',
        (Dots, Dots | Empty) | (Empty, Dots) => '·',
        (Low, Low) => '▄',
        (Low, Empty | Dots) => '▖',
        (Empty | Dots, Low) => '▗',
        (High, High) => '█',
        (High, Empty | Dots) => '▌',
        (Empty | Dots, High) => '▐',
        (Low, High) => '▟',
        (High, Low) => '▙',
    }
}

/// Marks around bars and labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Its beginning was not seen.
    pub(super) before: char,
    /// It has not ended.
    pub(super) after: char,
    /// Where a tick is.
    pub(super) tick: char,
    /// The first of two ends: its first line, further lines, and its bar.
    pub(super) first: [char; 3],
    /// The second one.
    pub(super) second: [char; 3],
}

pub(super) const UNICODE: Marks =
    Marks { before: '‹', after: '›', tick: '╷', first: ['┌', '│', '│'], second: ['├', '│', '└'] };

pub(super) const ASCII: Marks =
    Marks { before: '<', after: '>', tick: '|', first: ['/', '|', '|'], second: ['|', '|', '\\'] };

/// The same text in ASCII. Characters without a counterpart are escaped.
pub(super) fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '≥' => plain.push_str(">="),
            'µ' => plain.push('u'),
            '→' => plain.push_str("->"),
            '–' => plain.push('-'),
            '…' => plain.push('~'),
            _ if character.is_ascii() => plain.push(character),
            _ => plain.extend(character.escape_unicode()),
        }
    }
    plain
}
