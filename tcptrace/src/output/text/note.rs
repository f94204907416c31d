//! The note of a row: its reason, else who closed; whether the socket is an orphan; the process that closed it, if that
//! was not its owner; and the holder of a stuck socket. It may be empty.

use std::io::Write;

use crate::model::event::{Kept, Multipath};
use crate::model::row::{Connection, Entry, Held, Owner, Reason, Report, Status, Stuck, Transition};
use crate::model::tcp::{Closer, End, State, Task, TimeWaitEnd};
use crate::output::{human, sanitise};
use crate::study::ports::Ranked;
use crate::study::snapshot::{By, Count, Shares};

/// Writes the note of a change of state.
pub(super) fn transition(to: &mut Vec<u8>, row: &Transition) {
    match (row.reason, row.closer) {
        // The closer says more than these.
        (Some(Reason::End(End::Fin | End::ResetOther | End::Unknown)) | None, Some(closer)) => add(to, by(closer)),
        (Some(reason), _) => add_reason(to, reason),
        (None, None) => {}
    }
    if row.orphan {
        comma(to);
        add(to, "orphan");
    }
    closed_by(to, row.identity.owner.as_ref(), row.closed_by.as_ref());
    match &row.stuck {
        None => {}
        Some(Stuck::Waiting(report)) if row.orphan => unacknowledged(to, report),
        Some(Stuck::Waiting(report)) => who_has_it(to, row.new == State::Closed, report),
        Some(Stuck::Released { .. }) => released(to),
    }
    multipath(to, row.stuck.as_ref().and_then(Stuck::report).and_then(|report| report.multipath));
}

/// Writes the note of a connection.
pub(super) fn connection(to: &mut Vec<u8>, row: &Connection) {
    closed_by(to, row.identity.owner.as_ref(), row.closed_by.as_ref());
    match &row.status {
        Status::Ended(_) => {}
        Status::Open { accepted, .. } => {
            who_has_it(to, false, &Report { accepted: *accepted, ..Report::default() });
        }
        Status::Waiting { report, .. } => who_has_it(to, false, report),
        Status::Unreleased { report, .. } => who_has_it(to, true, report),
        Status::Released { .. } => released(to),
    }
    multipath(to, row.status.report().and_then(|report| report.multipath));
}

/// Writes the note of a socket that exists.
pub(super) fn socket(to: &mut Vec<u8>, row: &Entry) {
    match row.kept {
        Kept::Held => {}
        Kept::Queued if row.state == State::SynRecv => {}
        Kept::Queued => never_accepted(to, row.listener.as_ref()),
        Kept::Orphan => add(to, "orphan"),
        Kept::Mini { .. } if row.state == State::TimeWait => {}
        Kept::Mini { .. } => add(to, "orphan, mini-socket"),
    }
    if let Some(holding) = row.holding {
        descriptors(to, holding.fd, Some(holding.count));
    }
    if row.state == State::Listen && row.recv_queue > 0 {
        comma(to);
        // One more fits than the limit says.
        let full = if row.recv_queue > row.send_queue { ", full" } else { "" };
        let _ = write!(to, "accept queue {}/{}{full}", row.recv_queue, row.send_queue);
    }
    // Elsewhere, AGE says the same.
    if let Some(idle) = row.idle_ns.filter(|_| row.age == Held::Unknown) {
        comma(to);
        let _ = write!(to, "idle {}", human::Duration(idle));
    }
    multipath(to, row.multipath);
}

/// Writes the note of a count by owner or by end.
pub(super) fn count(to: &mut Vec<u8>, row: &Count) {
    let Shares { held, orphan, mini, .. } = row.shares.unwrap_or_default();
    if let Some(groups) = row.groups {
        let what = if row.by == By::Owner { "owner" } else { "end" };
        // Writing into a Vec cannot fail.
        let _ = write!(to, "the sum of {groups} more {what}{}", if groups == 1 { "" } else { "s" });
    } else if row.several_owners {
        add(to, "several owners");
    } else if row.accepted == Some(false) {
        never_accepted(to, row.listener.as_ref());
    } else if row.owner.is_none() {
        let parts = [(held, "holder not found"), (orphan, "orphans"), (mini, "mini-sockets")];
        let named: Vec<_> = parts.iter().filter(|(count, _)| *count > 0).map(|(_, name)| *name).collect();
        add(to, &named.join(", "));
    }
}

/// Writes the note of the ports of a destination.
pub(super) fn ports(to: &mut Vec<u8>, row: &Ranked) {
    let budget = match row {
        Ranked::One(budget) => budget,
        Ranked::Rest(rest) => {
            let ending = if rest.groups == 1 { "" } else { "s" };
            // Writing into a Vec cannot fail, here and below.
            let _ = write!(to, "the sum of {} more destination{ending}", rest.groups);
            return;
        }
    };
    if budget.free == 0 {
        add(to, "no port is left");
    } else if budget.half_walked {
        add(to, "connect slows down");
    }
    if budget.reusable > 0 {
        comma(to);
        let _ = write!(to, "{} reusable", budget.reusable);
    }
    if budget.owners.known.len() > 1 {
        comma(to);
        add(to, "several owners");
    }
}

fn closed_by(to: &mut Vec<u8>, owner: Option<&Owner>, closed_by: Option<&Task>) {
    if let Some(task) = closed_by.filter(|task| owner.is_some_and(|owner| owner.task.pid != task.pid)) {
        comma(to);
        add(to, "closed by ");
        process(to, task);
    }
}

fn released(to: &mut Vec<u8>) {
    comma(to);
    add(to, "descriptor closed");
}

fn who_has_it(to: &mut Vec<u8>, is_over: bool, report: &Report) {
    comma(to);
    match (&report.holder, report.holders) {
        (Some((task, fd)), holders) => {
            add(to, if is_over { "still held by " } else { "held by " });
            process(to, task);
            add(to, " ");
            descriptors(to, *fd, holders);
        }
        (None, _) if report.accepted == Some(false) => never_accepted(to, report.listener.as_ref()),
        (None, Some(_)) => add(to, "no holder found"),
        (None, None) => add(to, "holder unknown"),
    }
    unacknowledged(to, report);
}

fn unacknowledged(to: &mut Vec<u8>, report: &Report) {
    if let Some(bytes) = report.stalled.map(|stalled| stalled.unacked).filter(|bytes| *bytes > 0) {
        comma(to);
        let _ = write!(to, "{bytes} bytes not acknowledged");
    }
}

/// `MPTCP subflow of 1a0e7afa in CLOSE_WAIT`.
fn multipath(to: &mut Vec<u8>, of: Option<Multipath>) {
    let Some(Multipath { token, state }) = of else { return };
    comma(to);
    if state == Some(State::Listen) {
        return add(to, "MPTCP listener");
    }
    add(to, "MPTCP subflow");
    if let Some(token) = token {
        let _ = write!(to, " of {token:08x}");
    }
    if let Some(state) = state {
        let _ = write!(to, " in {state}");
    }
}

fn descriptors(to: &mut Vec<u8>, fd: u32, all: Option<u32>) {
    // Writing into a Vec cannot fail, here and below.
    let _ = write!(to, "fd {fd}");
    if let Some(others) = all.and_then(|all| all.checked_sub(1)).filter(|others| *others > 0) {
        let _ = write!(to, " and {others} more");
    }
}

fn never_accepted(to: &mut Vec<u8>, listener: Option<&Task>) {
    add(to, "never accepted");
    if let Some(listener) = listener {
        add(to, ", listener ");
        process(to, listener);
    }
}

/// `nginx[80]`.
fn process(to: &mut Vec<u8>, task: &Task) {
    let _ = write!(to, "{}[{}]", sanitise(task.comm.bytes()), task.pid);
}

fn comma(to: &mut Vec<u8>) {
    if !to.is_empty() {
        add(to, ", ");
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
