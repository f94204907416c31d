//! Compares the sockets that exist with those that the engine follows. This finds sockets that existed before, and
//! changes that a gap in the stream has hidden.
//!
//! An answer is older than the events since the question. So it does not bring back a socket that has ended since, and
//! it does not overrule later events of a socket. The caller feeds all older events before the answer.

use std::collections::HashSet;

use foldhash::fast::FixedState;

use super::conn::{Conn, MINI, Mark, progress};
use super::decide::closer_in;
use super::engine::{Engine, key};
use super::tell::Teller;
use crate::model::event::{Change, Found, Holder, Kept};
use crate::model::row::Row;
use crate::model::tcp::{End, OwnerSource, State};

/// How long a TIME_WAIT lasts, from the segment that began it or the last one that it answered (`TCP_TIMEWAIT_LEN` in
/// `include/net/tcp.h`, the same since 2.6).
pub const TIME_WAIT_NS: u64 = 60_000_000_000;

/// A socket that began this shortly before the survey may have been between two of the kernel's tables.
pub(super) const UNSETTLED_NS: u64 = 100_000_000;

/// The current question.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// Number of the last survey or scan.
    number: u32,
    survey: Option<Asked>,
    scan: Option<Asked>,
    /// Namespaces whose sockets were all found.
    namespaces: HashSet<u32, FixedState>,
    /// Sockets that ended since the first question without an answer.
    ended: HashSet<u64, FixedState>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) at: u64,
    pub(super) number: u32,
    /// Number of gaps in the stream at that time.
    pub(super) gaps: u32,
}

impl Inquiry {
    pub(super) fn survey_begins(&mut self, at: u64, gaps: u32) {
        self.survey = Some(self.ask(at, gaps));
        self.namespaces.clear();
    }

    fn ask(&mut self, at: u64, gaps: u32) -> Asked {
        if self.survey.is_none() && self.scan.is_none() {
            self.ended.clear();
        }
        self.number += 1;
        Asked { at, number: self.number, gaps }
    }

    pub(super) fn surveyed(&mut self, netns: u32) {
        self.namespaces.insert(netns);
    }

    /// Whether every socket of this namespace has been found.
    pub(super) fn has_surveyed(&self, netns: u32) -> bool {
        self.namespaces.contains(&netns)
    }

    /// A socket has ended: an older answer about it is no longer true.
    pub(super) fn note_end(&mut self, key: u64) {
        if self.survey.is_some() || self.scan.is_some() {
            self.ended.insert(key);
        }
    }

    /// When the running scan began.
    pub(super) fn scan_began(&self) -> Option<u64> {
        self.scan.map(|asked| asked.at)
    }

    fn answered(&mut self) {
        if self.survey.is_none() && self.scan.is_none() {
            self.ended = HashSet::default();
        }
    }
}

impl Engine {
    pub(super) fn on_survey_begun(&mut self, at: u64) {
        self.inquiry.survey_begins(at, self.teller.gaps);
        self.missing.survey_begins();
    }

    /// A socket was found.
    pub(super) fn on_found(&mut self, found: &Found) {
        let full = key(found.id);
        let key = if matches!(found.kept, Kept::Mini { .. }) { full | MINI } else { full };
        if self.inquiry.ended.contains(&key) {
            return;
        }
        if self.conns.contains(key) {
            self.compare(key, found);
        } else if key != full
            && self.conns.get(full).is_some_and(|conn| conn.over.is_none())
            && let Some(conn) = self.conns.remove_key(full)
        {
            self.adopt_mini(conn, found);
        } else if self.teller.config.existing {
            self.take_up(Conn::found(found.id.number(), found, self.teller.gaps), found);
        }
    }

    /// Begins to follow a socket in the middle of its life.
    fn take_up(&mut self, mut conn: Conn, found: &Found) {
        conn.found_in = self.inquiry.number;
        if let Kept::Mini { due_ns } = found.kept {
            if found.state == State::TimeWait {
                // It may have got more time, and have begun earlier.
                conn.set_at_least_since((found.at + due_ns).checked_sub(TIME_WAIT_NS));
            }
            self.deadlines.expect_end(&mut conn, found.at, due_ns);
        }
        self.waiting.attend(&conn, &self.teller.config, self.now);
        self.missing.attend(&conn, self.now);
        self.keep(conn, found.at);
    }

    /// A full socket has become a mini-socket, unseen.
    fn adopt_mini(&mut self, mut conn: Conn, found: &Found) {
        conn.change_unseen(found.state, Some(found.at));
        conn.mark(Mark::Mini, true);
        conn.mark(Mark::Orphan, true);
        self.take_up(conn, found);
    }

    /// A followed socket was found.
    fn compare(&mut self, key: u64, found: &Found) {
        let Teller { gaps, blind_until, .. } = self.teller;
        let number = self.inquiry.number;
        let Some(asked) = self.inquiry.survey.or(self.inquiry.scan) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.found_in = number;
        conn.complete_tuple(&found.tuple);
        conn.complete_place(None, found.uid, found.cgroup);
        conn.complete_interface(found.interface);
        self.missing.note_found(conn, found);
        if conn.gaps == gaps || blind_until.is_some_and(|blind| blind > asked.at) {
            return;
        }
        conn.gaps = gaps;
        // A state is never entered twice: if it is still the same, nothing was missed.
        if progress(found.state) > progress(conn.state) {
            conn.change_unseen(found.state, Some(found.at));
        }
    }

    /// Ends sockets that may have been missed and were not found.
    pub(super) fn on_survey_ended(&mut self, out: &mut Vec<Row>) {
        let Some(asked) = self.inquiry.survey.take() else { return };
        if self.teller.gaps > 0 && self.teller.blind_until.is_none_or(|blind| blind <= asked.at) {
            let is_gone = |conn: &&Conn| {
                conn.over.is_none()
                    && conn.gaps != self.teller.gaps
                    && conn.found_in < asked.number
                    && conn.netns().is_some_and(|netns| self.inquiry.namespaces.contains(&netns))
                    && conn.since().is_none_or(|since| since + UNSETTLED_NS < asked.at)
            };
            let gone: Vec<u64> = self.conns.iter().filter(is_gone).map(Conn::key).collect();
            for key in gone {
                self.end_lost(key, asked.at, out);
            }
        }
        self.end_missing(asked, out);
        self.inquiry.answered();
    }

    pub(super) fn on_scan_begun(&mut self, at: u64) {
        self.inquiry.scan = Some(self.inquiry.ask(at, self.teller.gaps));
        self.waiting.scan_begins();
    }

    /// A process has a descriptor of a socket.
    pub(super) fn on_holder(&mut self, holder: &Holder) {
        let found = &holder.found;
        let key = key(found.id);
        if self.inquiry.ended.contains(&key) && !self.conns.contains(key) {
            return;
        }
        if !self.conns.contains(key) {
            match found.state {
                // Never connected.
                State::Closed if found.tuple.remote_port == 0 || !self.teller.config.existing => return,
                State::Closed => {
                    let mut conn = Conn::found(found.id.number(), found, self.teller.gaps);
                    conn.over = Some(End::Unknown.into());
                    // Only a full socket has a descriptor.
                    conn.mark(Mark::Mini, false);
                    if self.conns.contains(key | MINI) {
                        // tcptrace has seen its mini-socket before.
                        conn.set_at_least_since(Some(found.at));
                    }
                    self.take_up(conn, found);
                }
                _ => self.on_found(found),
            }
        }
        if let Some(conn) = self.conns.get(key) {
            self.waiting.note_holder(key, conn, holder);
        }
        let number = self.inquiry.number;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.found_in = number;
            conn.complete_tuple(&found.tuple);
            conn.accepted = Some(true);
            conn.own(holder.task, OwnerSource::Scan);
        }
    }

    pub(super) fn on_scan_ended(&mut self, out: &mut Vec<Row>) {
        let Some(asked) = self.inquiry.scan.take() else { return };
        self.waiting.scan_ends(asked.at);
        self.report_answered(asked.at, out);
        self.report_unacked(out);
        self.report_multipaths(out);
        if self.teller.gaps > 0 && !self.teller.config.partial_scans {
            let is_gone = |conn: &&Conn| {
                let closed_before = conn.since().is_none_or(|since| since < asked.at);
                let is_unsure = conn.gaps != self.teller.gaps && conn.found_in < asked.number;
                conn.over.is_some() && is_unsure && closed_before
            };
            let gone: Vec<u64> = self.conns.iter().filter(is_gone).map(Conn::key).collect();
            for key in gone {
                self.end_lost(key, asked.at, out);
            }
        }
        self.inquiry.answered();
    }
}

impl Conn {
    /// A socket that a survey or scan shows for the first time.
    fn found(number: u64, found: &Found, gaps: u32) -> Self {
        let change = Change {
            at: found.at,
            id: found.id,
            address: None,
            tuple: found.tuple,
            netns: found.netns,
            uid: found.uid,
            cgroup: found.cgroup,
            interface: found.interface,
            old: found.state,
            new: found.state,
            flags: None,
            task: None,
            idle: None,
            end: None,
        };
        let mut conn = Self::new(number, &change, gaps);
        conn.closer = closer_in(found.state);
        conn.mark(Mark::Orphan, matches!(found.kept, Kept::Orphan | Kept::Mini { .. }));
        conn.mark(Mark::Mini, matches!(found.kept, Kept::Mini { .. }));
        conn.accepted = match found.kept {
            Kept::Held => Some(true),
            Kept::Queued => Some(false),
            Kept::Orphan | Kept::Mini { .. } => None,
        };
        conn
    }
}
