//! Ends by the kernel's timers: retries that failed, orphans, and TIME_WAITs.

use super::super::conversation::Segment;
use super::super::packets::{ACK, RST, SYN};
use super::super::play::{FIN_TIMEOUT, ORPHAN_RETRIES};
use super::super::script::Who;
use super::led::Led;
use super::{MS, Range, SECOND, SOON, Witness};

/// The kernel gives up this long after the last segment, with the few retries that are set here.
const GIVING_UP: u64 = 4 * SECOND;
/// Shortest wait for the last retry.
const LAST_TRY: u64 = 150 * MS;
/// `TCP_TIMEWAIT_LEN`, and one step of the timer wheel at the lowest HZ.
const TIME_WAIT: Range = (60 * SECOND, 65_200 * MS);

impl Witness<'_> {
    /// Nothing more arrived, and unacknowledged segments show since when.
    pub(super) fn give_up(&self, led: &mut Led) {
        if led.is_over() {
            return;
        }
        let (last, interval) = self.last_try();
        // Each retry waits twice as long as the one before.
        let at = (last, last + GIVING_UP.max(interval * 2 + SECOND));
        if at.1 > self.gone.0 || !self.is_retransmitted() {
            led.unsure("it has not ended");
        }
        match led.state() {
            "SYN_SENT" => led.finish(&["connect_timeout"], "never_established", at),
            "ESTABLISHED" | "CLOSE_WAIT" | "FIN_WAIT1" | "CLOSING" | "LAST_ACK" => {
                led.finish(self.timeouts(), "timeout", at);
            }
            _ => led.unsure("it has not ended"),
        }
    }

    /// An orphan does not stay in `FIN_WAIT2` for ever.
    pub(super) fn time_out(&self, led: &mut Led, next: Range) {
        if led.state() == "SYN_SENT" && !led.is_over() {
            return self.connect_in_vain(led, next);
        }
        let (Some(stay), Some(close)) = (led.states.last().copied(), self.last_close()) else { return };
        if led.is_over() || stay.state != "FIN_WAIT2" {
            return;
        }
        let orphaned = self.effect(close);
        let begin = (stay.begin.0.max(orphaned.0), stay.begin.1.max(orphaned.1));
        let timeout = match self.option("linger2") {
            // It does not wait at all, and the reset that follows ends it.
            Some(0) => return,
            Some(seconds) => seconds * SECOND,
            None => u64::try_from(FIN_TIMEOUT.as_nanos()).unwrap_or(u64::MAX),
        };
        // At least 3.5 retransmission timeouts, which delayed segments make long.
        let late = self
            .conversation
            .segments
            .iter()
            .filter_map(|segment| Some(segment.received?.saturating_sub(segment.sent)))
            .max();
        let longest = timeout.max(2_500 * MS).max((late.unwrap_or(0) * 6 + 200 * MS) * 7 / 2);
        let due = (begin.0 + timeout, begin.1 + longest + longest / 8 + 10 * MS);
        if next.0 < due.0 {
            return;
        }
        if next.0 <= due.1 + SOON {
            led.unsure("a FIN_WAIT2 whose time was over just then");
        }
        if due.1 > self.gone.0 {
            // It ends with the network namespace, if that is destroyed first.
            let at = (due.0.min(self.gone.0), due.1);
            return led.finish(&["fin_wait2_timeout", "orphan_killed"], "active", at);
        }
        led.finish(&["fin_wait2_timeout"], "active", due);
    }

    /// The end of a connection that the kernel gives up.
    pub(super) fn timeouts(&self) -> &'static [&'static str] {
        if self.mine().any(|segment| segment.is_unreachable) {
            // The stored error is the reason.
            &["retransmit_timeout", "user_timeout", "unreachable"]
        } else if self.option("usertimeout").is_some() {
            &["user_timeout", "retransmit_timeout"]
        } else {
            &["retransmit_timeout"]
        }
    }

    /// Whether its user timeout may have run out by then: it starts with the peer's first missing acknowledgement.
    pub(super) fn may_time_out_by(&self, by: u64) -> bool {
        let Some(ms) = self.option("usertimeout") else { return false };
        let acked = self.theirs().filter(|(at, segment)| *at <= by && segment.is(ACK)).last();
        let Some((_, acked)) = acked else { return true };
        let is_unacked = |segment: &&Segment| {
            let end = segment.seq.wrapping_add(segment.space());
            segment.space() > 0 && end.wrapping_sub(acked.ack).cast_signed() > 0
        };
        let first = self.mine().find(is_unacked).map(|segment| segment.sent);
        first.is_none_or(|first| first + ms * MS <= by + SOON)
    }

    /// A socket that retransmits in vain gives up after a while without sending anything; earlier after an error or a
    /// user timeout.
    pub(super) fn may_have_given_up(&self, by: u64) -> bool {
        let tries: Vec<u64> = self.tries().into_iter().filter(|sent| *sent <= by).collect();
        let is_soon = self.option("usertimeout").is_some() || self.mine().any(|segment| segment.is_unreachable);
        let is_last = |last: &u64| by.saturating_sub(*last) > LAST_TRY;
        tries.last().is_some_and(is_last) && (is_soon || tries.len() >= usize::from(ORPHAN_RETRIES))
    }

    /// When it last sent anything, and how long after the transmission before.
    fn last_try(&self) -> (u64, u64) {
        let mut sent: Vec<u64> = self.mine().map(|segment| segment.sent).collect();
        sent.sort_unstable();
        match sent[..] {
            [.., before, last] => (last, last - before),
            [last] => (last, 0),
            [] => (0, 0),
        }
    }

    /// The kernel retransmits a SYN as often as its settings say. Each wait is as long as the one before, or twice as
    /// long.
    fn connect_in_vain(&self, led: &mut Led, next: Range) {
        let syns: Vec<u64> = self.mine().filter(|segment| segment.is(SYN)).map(|segment| segment.sent).collect();
        let last = self.mine().filter(|segment| segment.is(SYN)).last();
        if let Some(last) = last.filter(|last| last.is_unreachable) {
            return self.connect_unreachable(led, last.sent, next);
        }
        let [.., before, last] = syns[..] else { return };
        let interval = last.abs_diff(before);
        let due = (last + interval * 9 / 10, last + interval * 2 + SECOND);
        if next.0 < due.0 {
            return;
        }
        if next.0 <= due.1 && next.0 != u64::MAX {
            led.unsure("a connect that times out just then");
        }
        led.finish(&["connect_timeout"], "never_established", due);
    }

    /// The kernel stores an error that arrives while a process owns the socket, until it stops retrying.
    fn connect_unreachable(&self, led: &mut Led, last: u64, next: Range) {
        if next.1 < last {
            return;
        }
        let has_it = self.calls.iter().any(|call| call.from <= last && call.to.is_none_or(|to| last <= to));
        if next.0 != u64::MAX && has_it {
            led.unsure("a connect whose last SYN drew an error");
        }
        if !self.conversation.is_in_one_namespace() {
            // The kernel limits the rate of errors to an address (`icmpv4_xrlim_allow`, net/ipv4/icmp.c), except to its
            // own.
            led.unsure("an error that may have been left out");
        }
        let until = if has_it { last + 3 * SECOND } else { last + SOON };
        led.finish(&["refused"], "never_established", (last, until));
    }

    pub(super) fn end_time_wait(&self, led: &mut Led) {
        let Some(stay) = led.states.last().copied().filter(|stay| stay.state == "TIME_WAIT" && !led.is_over()) else {
            return;
        };
        let last = self.theirs().map(|(at, _)| at).filter(|at| *at >= stay.begin.0).last().unwrap_or(stay.begin.0);
        let due = (stay.begin.0 + TIME_WAIT.0, last.max(stay.begin.1) + TIME_WAIT.1);
        let (how, at): (&[_], _) = match self.taken_over() {
            Some(next) if next < due.0 && self.who == Who::Client => {
                (&[Some("reused")], (next.saturating_sub(20 * MS), next + SOON))
            }
            Some(next) if next < due.0 => self.overtaken(next),
            _ if self.gone.1 < due.0 => (&[Some("netns_gone")], self.gone),
            _ if due.1 < self.gone.0 => (&[Some("expired")], due),
            _ => (&[Some("expired"), Some("netns_gone")], (due.0.min(self.gone.0), due.1)),
        };
        let closer = led.closer.clone();
        led.finish(&["fin"], "active", at);
        led.closer = closer;
        led.time_wait_end = how.to_vec();
    }

    /// When the next connection between the same ends replaces it: when its SYN leaves or arrives.
    fn taken_over(&self) -> Option<u64> {
        match self.who {
            Who::Client => self.conversation.next,
            Who::Server => self.next?.of(Who::Client).filter(|segment| segment.is(SYN)).find_map(|syn| syn.received),
        }
    }

    /// The end of a server's TIME_WAIT when a client connects again. If nothing listens any more, the TIME_WAIT answers
    /// the SYN with an acknowledgement, which the client resets.
    fn overtaken(&self, next: u64) -> (&'static [Option<&'static str>], Range) {
        let segments = self.next.map_or(&[][..], |next| &next.segments);
        let answers = |segment: &&Segment| segment.from == Who::Server && segment.is(SYN);
        if segments.iter().any(|segment| answers(&segment)) {
            return (&[Some("new_syn")], (next, next + SOON));
        }
        let reset = segments.iter().find(|segment| segment.from == Who::Client && segment.is(RST));
        match reset.and_then(|reset| reset.received) {
            Some(at) => (&[Some("reset")], (at, at + SOON)),
            None => (&[Some("new_syn"), Some("reset"), Some("expired"), Some("netns_gone")], (next, self.gone.1)),
        }
    }
}
