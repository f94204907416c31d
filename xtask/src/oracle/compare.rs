//! Compares rows with the witnesses.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde_json::Value;

use super::destroyed::Counted;
use super::row::Row;
use super::script::Who;
use super::truth::{Expected, Range};

/// Tolerance for a duration, in ns.
pub(super) const TOLERANCE: u64 = 5_000_000;

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The row contradicts the witnesses.
    Wrong,
    /// The row lacks a value that the witnesses know.
    Unknown,
    /// The witnesses do not know the value.
    Abstained,
}

/// A value that does not agree with the witnesses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// The field or the reason.
    pub(super) what: String,
    pub(super) detail: String,
}

/// The result of comparing the rows of a life.
#[derive(Clone, Debug, Default)]
pub(super) struct Compared {
    pub(super) findings: Vec<Finding>,
    /// Number of compared values.
    pub(super) values: u64,
    /// Number of compared rows.
    pub(super) rows: u64,
}

impl Compared {
    fn note(&mut self, kind: Kind, what: impl Into<String>, detail: impl Into<String>) {
        self.findings.push(Finding { kind, what: what.into(), detail: detail.into() });
    }

    pub(super) fn value(&mut self, is_so: bool, what: &str, detail: impl FnOnce() -> String) {
        self.values += 1;
        if !is_so {
            self.note(Kind::Wrong, what, detail());
        }
    }

    /// A row that is marked incomplete makes no claims.
    fn excuse(&mut self, from: usize) {
        for finding in &mut self.findings[from..] {
            finding.kind = Kind::Unknown;
            finding.what = format!("incomplete: {}", finding.what);
        }
    }

    /// The kernel hid events of this end from every eBPF program.
    fn excuse_hidden(&mut self, from: usize) {
        for finding in self.findings[from..].iter_mut().filter(|finding| finding.kind != Kind::Abstained) {
            finding.kind = Kind::Unknown;
            finding.what += ", with events that this kernel hides from every program (process 1)";
        }
    }

    /// The witnesses do not know the value.
    pub(super) fn abstain(&mut self, what: &str, detail: String) {
        self.note(Kind::Abstained, what, detail);
    }

    fn unknown(&mut self, what: &str, detail: impl Into<String>) {
        self.values += 1;
        self.note(Kind::Unknown, what, detail);
    }
}

/// Compares the rows of a life with its ends. `hidden` names the sockets of which the kernel hid events from every eBPF
/// program.
pub(super) fn life(expected: &[Expected], rows: &[Row], hidden: &HashSet<(SocketAddr, SocketAddr)>) -> Compared {
    let mut compared = Compared::default();
    let mut left: Vec<&Row> = rows.iter().collect();
    for end in expected {
        let before = compared.findings.len();
        let best = left
            .iter()
            .enumerate()
            .filter(|(_, row)| may_be(end, row))
            .min_by_key(|(_, row)| (!has_cookie(end, row), row.begun.abs_diff(end.opened.0)))
            .map(|(at, _)| at);
        match (best.map(|at| left.remove(at)), end.unsure) {
            (Some(_), Some(why)) => compared.note(Kind::Abstained, why, format!("{end:?}")),
            (None, Some(why)) => compared.note(Kind::Abstained, why, format!("no row: {end:?}")),
            (Some(row), None) => compare(end, row, &mut compared),
            (None, None) => {
                compared.values += 1;
                compared.note(Kind::Wrong, format!("{} missing", side(end.who)), format!("{end:?}"));
            }
        }
        if end.local.is_some_and(|local| hidden.contains(&(local, end.remote))) {
            compared.excuse_hidden(before);
        }
    }
    for row in left {
        let before = compared.findings.len();
        compared.note(Kind::Wrong, "row invented", row.value.to_string());
        if hidden.contains(&(row.local, row.remote)) {
            compared.excuse_hidden(before);
        }
    }
    compared
}

fn side(who: Who) -> &'static str {
    match who {
        Who::Client => "client",
        Who::Server => "server",
    }
}

fn has_cookie(end: &Expected, row: &Row) -> bool {
    end.cookie.is_some_and(|cookie| row.value["conn"] == format!("{cookie:x}"))
}

fn may_be(end: &Expected, row: &Row) -> bool {
    match end.local {
        Some(local) => row.local == local && row.remote == end.remote,
        None => has_cookie(end, row),
    }
}

fn compare(end: &Expected, row: &Row, compared: &mut Compared) {
    compared.rows += 1;
    let before = compared.findings.len();
    let side = side(end.who);
    let field = |name: &str| &row.value[name];
    let words: [(&str, Vec<Option<&str>>); 4] = [
        ("side", vec![Some(side)]),
        ("closer", end.closer.iter().copied().map(Some).collect()),
        ("end", end.end.iter().copied().map(Some).collect()),
        ("time_wait_end", end.time_wait_end.clone()),
    ];
    for (name, allowed) in words {
        let said = field(name);
        if said == "unknown" {
            compared.unknown(name, format!("{side}, expected {allowed:?}"));
            continue;
        }
        compared.value(allowed.contains(&said.as_str()), name, || format!("{side} expected {allowed:?}, got {said}"));
    }
    states(end, row, compared);
    times(end, row, compared);
    if let Some(cookie) = end.cookie {
        compared.value(has_cookie(end, row), "conn", || format!("{side} expected {cookie:x}, got {}", field("conn")));
    }
    match field("pid").as_u64() {
        None if !end.is_owned => compared.values += 1,
        None => compared.unknown("pid", format!("{side}, expected {:?}", end.owner)),
        Some(pid) => {
            // For a connection that was never accepted, the closer of the listener is as good as its opener.
            let or_closer = if field("owner_source") == "close" { &end.closers[..] } else { &[] };
            let is_so = end.owner.iter().chain(or_closer).any(|owner| u64::from(*owner) == pid);
            compared.value(is_so, "pid", || {
                format!("{side} expected {:?}, got {pid} by {}", end.owner, field("owner_source"))
            });
        }
    }
    match field("close_pid").as_u64() {
        None if end.is_closed => compared.unknown("close_pid", format!("{side}, expected {:?}", end.closers)),
        None => compared.values += 1,
        Some(pid) => {
            let is_so = end.closers.iter().any(|closer| u64::from(*closer) == pid);
            compared.value(is_so, "close_pid", || format!("{side} expected {:?}, got {pid}", end.closers));
        }
    }
    number(side, "bytes_sent", field("bytes_sent"), end.sent, compared);
    number(side, "bytes_received", field("bytes_received"), end.received, compared);
    if !end.is_retransmitted {
        number(side, "retransmits", field("retransmits"), (0, 0), compared);
    }
    counted(end, row, side, compared);
    if field("complete") == false {
        compared.excuse(before);
        compared.unknown("complete", format!("{side} is marked incomplete"));
    }
}

/// The counts of its socket, unless a disconnect reset them to 0.
fn counted(end: &Expected, row: &Row, side: &str, compared: &mut Compared) {
    let Some(counted) = end.counted.filter(|counted| counted.bytes_sent + counted.bytes_received > 0) else { return };
    let Counted { bytes_sent, bytes_received, retransmits } = counted;
    // The peer's FIN counts as one byte there.
    let received = (bytes_received.saturating_sub(1), bytes_received);
    for (name, range) in [
        ("bytes_sent", (bytes_sent, bytes_sent)),
        ("bytes_received", received),
        ("retransmits", (retransmits, retransmits)),
    ] {
        number(side, name, &row.value[name], range, compared);
    }
}

fn number(side: &str, name: &str, said: &Value, (least, most): Range, compared: &mut Compared) {
    match said.as_u64() {
        None => compared.unknown(name, format!("{side}, expected {least}..={most}")),
        Some(said) => {
            let is_so = (least..=most).contains(&said);
            compared.value(is_so, name, || format!("{side} expected {least}..={most}, got {said}"));
        }
    }
}

/// Its beginning and its end.
fn times(end: &Expected, row: &Row, compared: &mut Compared) {
    if row.states().any(|(_, _, at_least)| at_least) {
        return;
    }
    let side = side(end.who);
    let ended = end.states.last().map_or(end.opened, |stay| stay.end);
    for (name, (least, most), said) in
        [("opened", end.opened, row.begun), ("closed", ended, row.value["boot_ns"].as_u64().unwrap_or(0))]
    {
        let is_so = (least.saturating_sub(TOLERANCE)..=most + TOLERANCE).contains(&said);
        compared.value(is_so, name, || format!("{side} expected {least}..={most}, got {said}"));
    }
}

fn states(end: &Expected, row: &Row, compared: &mut Compared) {
    let side = side(end.who);
    let expected: Vec<_> = end.states.iter().map(|stay| stay.state).collect();
    let said: Vec<_> = row.states().map(|(state, ..)| state).collect();
    compared.value(expected == said, "states", || format!("{side} expected {expected:?}, got {said:?}"));
    if expected != said {
        return;
    }
    for (stay, (state, ns, at_least)) in end.states.iter().zip(row.states()) {
        let least = stay.end.0.saturating_sub(stay.begin.1).saturating_sub(TOLERANCE);
        let most = stay.end.1.saturating_sub(stay.begin.0) + TOLERANCE;
        if at_least {
            compared.unknown(&format!("{state} at least"), format!("{side} {ns}, expected {least}..={most}"));
            continue;
        }
        let ms = |ns: u64| std::time::Duration::from_nanos(ns).as_secs_f64() * 1e3;
        compared.value((least..=most).contains(&ns), &format!("{state} length"), || {
            format!("{side} expected {:.3}..={:.3} ms, got {:.3}", ms(least), ms(most), ms(ns))
        });
    }
}
