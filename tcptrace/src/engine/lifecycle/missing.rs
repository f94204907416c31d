//! Sockets that are gone, although the kernel reported neither their end nor a loss. If the kernel runs no program for
//! a while, an orphan's closing and its destruction can both go unseen: then only a survey shows it.
//!
//! One survey proves nothing. The kernel walks through a table in use (`inet_diag_dump_icsk` in `net/ipv4/inet_diag.c`
//! resumes by position within a chain), and can skip a socket. It takes two surveys in a row.

use std::collections::HashMap;
use std::mem::take;

use foldhash::fast::FixedState;

use super::conn::{Conn, MINI, Mark};
use super::engine::Engine;
use super::stuck::stay;
use super::survey::{Asked, UNSETTLED_NS};
use crate::model::event::{Cause, Found};
use crate::model::row::{Held, Loss, Row};
use crate::model::tcp::{End, State};
use crate::model::unanswered::{UNANSWERED_AT_END_NS, UNANSWERED_NS, is_time_to_ask, is_unanswered};

/// Sockets that surveys did not find.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Not found by the last survey, each with its stay.
    once: HashMap<u64, u64, FixedState>,
    /// Sockets that wait for an answer to their FIN and were found: the stay of each, and when.
    seen: HashMap<u64, (u64, u64), FixedState>,
    /// When to check how long they have waited.
    look_at: Option<u64>,
    survey_wanted: bool,
}

impl Missing {
    /// When to look again.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.look_at
    }

    /// Notes a socket that may have begun to wait.
    pub(super) fn attend(&mut self, conn: &Conn, now: u64) {
        if waits_for_answer(conn) {
            self.look_at.get_or_insert(now.saturating_add(UNANSWERED_NS));
        }
    }

    /// A socket was found.
    pub(super) fn note_found(&mut self, conn: &Conn, found: &Found) {
        if waits_for_answer(conn) && conn.state == found.state {
            self.seen.insert(conn.key(), (stay(conn), found.at));
        }
    }

    pub(super) fn survey_begins(&mut self) {
        self.survey_wanted = false;
    }
}

impl Engine {
    /// Whether the engine needs to know which sockets still exist. The caller then asks the kernel, if it can, and
    /// feeds the answer.
    pub fn wants_survey(&self) -> bool {
        self.missing.survey_wanted
    }

    /// The same at the end of a run.
    pub fn wants_last_survey(&self) -> bool {
        self.missing.survey_wanted || self.unanswered().any(|ns| ns >= UNANSWERED_AT_END_NS)
    }

    /// How long sockets have waited for an answer to their FIN.
    fn unanswered(&self) -> impl Iterator<Item = u64> {
        let unanswered = self.conns.all().filter(|conn| waits_for_answer(conn));
        unanswered.map(|conn| self.teller.held(conn, self.now).known_ns().unwrap_or(0))
    }

    pub(super) fn look_for_missing(&mut self) {
        if self.missing.look_at.is_none_or(|at| at > self.now) {
            return;
        }
        let (mut some_wait, mut is_time) = (false, false);
        for ns in self.unanswered() {
            some_wait = true;
            is_time |= is_time_to_ask(ns);
        }
        self.missing.survey_wanted |= is_time;
        self.missing.look_at = some_wait.then(|| self.now.saturating_add(UNANSWERED_NS));
    }

    /// A survey is over. A socket that neither it nor the one before found is gone.
    pub(super) fn end_missing(&mut self, asked: Asked, out: &mut Vec<Row>) {
        let before = take(&mut self.missing.once);
        if asked.gaps == self.teller.gaps {
            for (stay, key) in self.not_found(asked) {
                if before.get(&key) == Some(&stay) {
                    self.end_unreported(key, asked.at, out);
                } else {
                    self.missing.once.insert(key, stay);
                }
            }
            self.missing.survey_wanted |= !self.missing.once.is_empty();
        }
        let Self { conns, missing, .. } = self;
        missing.seen.retain(|key, _| conns.contains(*key));
    }

    /// The sockets that it should have found. Mini-sockets end by their timer; and where events were lost, that is
    /// known already.
    fn not_found(&self, asked: Asked) -> Vec<(u64, u64)> {
        let is_missing = |conn: &&Conn| {
            let is_full = conn.over.is_none() && !conn.is(Mark::Mini);
            let is_certain = conn.gaps == self.teller.gaps && !self.is_closing(conn.key() | MINI);
            let since = conn.since().or(conn.at_least_since());
            is_full
                && is_certain
                && conn.found_in < asked.number
                && conn.netns().is_some_and(|netns| self.inquiry.has_surveyed(netns))
                && since.is_none_or(|since| since + UNSETTLED_NS < asked.at)
        };
        let missing = self.conns.iter().filter(is_missing);
        let mut missing: Vec<_> = missing.map(|conn| (stay(conn), conn.key())).collect();
        missing.sort_unstable();
        missing
    }

    /// A socket was gone by then, and the kernel did not report it.
    fn end_unreported(&mut self, key: u64, at: u64, out: &mut Vec<Row>) {
        let Some(mut conn) = self.conns.remove_key(key) else { return };
        self.teller.stats.unreported += 1;
        out.push(Row::Loss(Loss { boot_ns: at, cause: Cause::Unreported, count: Some(1) }));
        let seen = self.missing.seen.remove(&key).filter(|(it, _)| *it == stay(&conn));
        let held = match (conn.since(), seen) {
            (Some(since), Some((_, seen_at))) if seen_at > since => Held::AtLeast(seen_at - since),
            _ => Held::Unknown,
        };
        conn.mark(Mark::Whole, false);
        conn.mark(Mark::Lingers, false);
        if conn.state == State::Listen {
            self.waiting.forget_listener(key, &conn);
            self.teller.put(&mut conn, at, State::Closed, Held::Unknown, None, out);
        } else {
            self.end(conn, at, held, End::Unknown.into(), out);
        }
    }
}

/// Whether its FIN was sent and not answered yet.
fn waits_for_answer(conn: &Conn) -> bool {
    is_unanswered(conn.state) && conn.over.is_none() && !conn.is(Mark::Mini)
}
