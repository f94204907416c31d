//! What a transition's row says in words: why it happened, else who closed; and whether the socket is an orphan.

use crate::lifecycle::{Reason, Transition};
use crate::tcp::{Closer, End, TimeWaitEnd};

/// Writes the note; nothing where there is nothing to say.
pub(super) fn write(to: &mut Vec<u8>, row: &Transition) {
    match (row.reason, row.closer) {
        // These say less than who closed.
        (Some(Reason::End(End::Fin | End::ResetOther | End::Unknown)) | None, Some(closer)) => add(to, by(closer)),
        (Some(reason), _) => add_reason(to, reason),
        (None, None) => {}
    }
    if row.orphan {
        let comma = if to.is_empty() { "" } else { ", " };
        add(to, comma);
        add(to, "orphan");
    }
}

fn add(to: &mut Vec<u8>, words: &str) {
    to.extend_from_slice(words.as_bytes());
}

fn by(closer: Closer) -> &'static str {
    match closer {
        Closer::Active => "active close",
        Closer::Passive => "passive close",
        Closer::Simultaneous => "simultaneous close",
        Closer::ResetLocal => "reset by us",
        Closer::ResetRemote => "reset by peer",
        Closer::Timeout => "timeout",
        Closer::Killed => "killed",
        Closer::NeverEstablished => "never established",
        Closer::Unknown => "closer unknown",
    }
}

fn add_reason(to: &mut Vec<u8>, reason: Reason) {
    match reason {
        Reason::End(End::FinWait2Timeout) => add(to, "FIN_WAIT2 timeout"),
        Reason::TimeWait(TimeWaitEnd::Refused) => add(to, "TIME_WAIT refused"),
        Reason::End(End::Unknown) | Reason::TimeWait(TimeWaitEnd::Unknown) => add(to, "end unknown"),
        _ => add_plain(to, reason.as_str()),
    }
}

/// `reset_unread_data` as `reset: unread data`, `no_local_port` as `no local port`.
fn add_plain(to: &mut Vec<u8>, word: &str) {
    let rest = word.strip_prefix("reset_");
    if rest.is_some() {
        add(to, "reset: ");
    }
    to.extend(rest.unwrap_or(word).bytes().map(|byte| if byte == b'_' { b' ' } else { byte }));
}
