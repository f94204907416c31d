//! Styles of what should stand out. Marks differ in weight as well as in colour, so they work without colours, too.

use anstyle::{AnsiColor, Color, Effects, Style};

use crate::model::row::{Reason, Transition};
use crate::model::tcp::{Closer, End, State, TimeWaitEnd};

/// Resets: red, bold, underlined.
pub(super) const RESET: Style = colour(AnsiColor::Red).effects(Effects::BOLD.insert(Effects::UNDERLINE));

const TIME_WAIT: Style = colour(AnsiColor::Yellow);
const CLOSE_WAIT: Style = colour(AnsiColor::Magenta).effects(Effects::BOLD);
const CLOSED: Style = Style::new().effects(Effects::DIMMED);

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// How a state is marked.
pub(crate) fn state(state: State) -> Style {
    match state {
        State::TimeWait => TIME_WAIT,
        State::CloseWait => CLOSE_WAIT,
        State::Closed => CLOSED,
        _ => Style::new(),
    }
}

/// How the end of a connection is marked.
pub(crate) fn end(closer: Closer, end: Option<End>) -> Style {
    if is_reset(Some(closer), end) { RESET } else { Style::new() }
}

/// How the note of a transition is marked.
pub(super) fn note(row: &Transition) -> Style {
    let reset = match row.reason {
        Some(Reason::End(end)) => is_reset(row.closer, Some(end)),
        Some(Reason::TimeWait(end)) => end == TimeWaitEnd::Reset,
        None => is_reset(row.closer, None),
    };
    if reset { RESET } else { Style::new() }
}

/// Whether a reset ended it.
pub(super) fn is_reset(closer: Option<Closer>, end: Option<End>) -> bool {
    matches!(closer, Some(Closer::ResetLocal | Closer::ResetRemote)) || end.is_some_and(End::is_reset)
}
