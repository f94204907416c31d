//! The keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{BOLD, PLAIN, put, put_all};

const KEYS: [(&str, &str); 19] = [
    ("↑ ↓  k j", "select a row (PgUp, PgDn, Home, End)"),
    ("Enter → l", "open: group, its connections, one connection; a finding's page"),
    ("Esc ← h", "back"),
    ("Tab", "next pane: groups, oldest waiters, ports, accept queues, findings"),
    ("f", "findings"),
    ("t", "timeline of the selected connection"),
    ("g", "group by process, remote end, listening port, container, namespace"),
    ("s S", "sort by the next or the previous column"),
    ("/", "filter, with the options of watch: --port 443 --state close-wait"),
    ("p Space", "pause the screen: events are still counted; a trace stops"),
    ("[ ]", "10 seconds back or forward: in what is remembered, or in the trace"),
    ("{ }", "the same by a minute"),
    ("0-9", "go to 0-90 % of what is remembered, or of the trace"),
    ("n", "now: leave the past"),
    ("+ -", "play a trace faster or slower"),
    ("Ctrl-L", "draw the screen again"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("?", "this help"),
    ("q Ctrl-C", "quit"),
];

pub(super) fn draw(to: &mut Buffer, area: Rect) {
    put(to, area.x, area.y, area.width, "keys", BOLD);
    for (y, (keys, meaning)) in (area.y + 1..area.bottom()).zip(KEYS) {
        put_all(to, area, y, &[(format!("{keys:<11}"), BOLD), (meaning.to_owned(), PLAIN)]);
    }
}
