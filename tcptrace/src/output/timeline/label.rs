//! The label of a connection above its bar: id, owner, ends, long states, and how it ended.

use anstyle::Style;
use jiff::tz::TimeZone;

use super::Part;
use super::axis::timestamp;
use crate::model::row::{Connection, Held};
use crate::model::tcp::{Closer, State, TimeWaitEnd};
use crate::output::fields::address;
use crate::output::{end_style, fitting, sanitise, state_style};
use crate::study::timeline::Item;

/// The kernel's names are at most 15 bytes; only escaped ones are longer, and those are cut.
const COMM_WIDTH: usize = 15;

/// Host names in traces can be anything.
const HOST_WIDTH: usize = 24;

/// Pieces of every label.
pub(super) const PIECES: usize = 9;

/// The label of a connection; a piece may be empty. It names the host if there are several, and the start if the axis
/// does not show it.
pub(super) fn pieces(item: &Item, with_host: bool, zone: Option<&TimeZone>) -> [Part; PIECES] {
    let connection = &item.connection;
    let identity = &connection.identity;
    let host = if with_host { cut(&sanitise(item.host.as_bytes()), HOST_WIDTH) + " " } else { String::new() };
    let place = |end| without_port(&address(identity, end, &item.context));
    let ends = format!("{} → {}", place(identity.local()), place(identity.remote()));
    [
        plain(format!("{host}{:x}", identity.conn)),
        plain(owner(connection)),
        plain(ends),
        plain(zone.map(|zone| begin(item, zone)).unwrap_or_default()),
        plain(format!("life {}", connection.lifetime())),
        hurt(connection, State::CloseWait, true),
        hurt(connection, State::FinWait2, is_long(connection.held(State::FinWait2), item.life.length())),
        hurt(connection, State::TimeWait, true),
        end(connection),
    ]
}

fn plain(text: String) -> Part {
    Part { text, style: Style::new() }
}

fn owner(connection: &Connection) -> String {
    let Some(owner) = &connection.identity.owner else { return "-".to_owned() };
    format!("{}[{}]", cut(&sanitise(owner.task.comm.bytes()), COMM_WIDTH), owner.task.pid)
}

/// As much of a text as fits.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let fitting = fitting(text, columns);
    let ellipsis = if fitting.len() < text.len() { "…" } else { "" };
    format!("{fitting}{ellipsis}")
}

/// A port that the kernel has not chosen is `-`.
fn without_port(text: &str) -> String {
    text.strip_suffix(":0").map_or_else(|| text.to_owned(), |host| format!("{host}:-"))
}

fn begin(item: &Item, zone: &TimeZone) -> String {
    let time = timestamp(item.begin()).to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S%.3f");
    format!("{} {time}", if item.life.begin_seen { "from" } else { "before" })
}

/// The time in a state and the reason for its end, unless that is its timer.
fn hurt(connection: &Connection, state: State, is_shown: bool) -> Part {
    let held = connection.held(state);
    let why = connection.time_wait_end().filter(|_| state == State::TimeWait);
    let why = why.filter(|why| !matches!(why, TimeWaitEnd::Expired | TimeWaitEnd::Unknown));
    let text = match (held, why) {
        (_, _) if !is_shown => String::new(),
        (Held::Unknown, None) => String::new(),
        (Held::Unknown, Some(why)) => format!("{state} {why}"),
        (held, None) => format!("{state} {held}"),
        (held, Some(why)) => format!("{state} {held} {why}"),
    };
    Part { text, style: state_style(state) }
}

/// Whether it is at least a hundredth of the lifetime.
fn is_long(held: Held, life: u64) -> bool {
    held.known_ns().is_some_and(|ns| ns >= life / 100)
}

/// Who closed, and how it ended.
fn end(connection: &Connection) -> Part {
    let closer = connection.closer;
    let Some(end) = connection.end() else {
        let closer = if closer == Closer::Unknown { String::new() } else { format!("{closer}, ") };
        return Part { text: format!("{closer}open"), style: Style::new() };
    };
    let text = if closer.as_str() == end.as_str() { closer.to_string() } else { format!("{closer} {end}") };
    Part { text, style: end_style(closer, Some(end)) }
}
