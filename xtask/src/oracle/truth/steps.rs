//! Turns events into states and an end.

use super::super::conversation::Segment;
use super::super::packets::{ACK, RST, SYN};
use super::super::script::Who;
use super::led::Led;
use super::{MS, Range, SOON, What, Witness};

/// The most data in a SYN.
const FAST_OPEN: u32 = 65_535;

impl Witness<'_> {
    /// Processes the events in order.
    pub(super) fn lead(&self) -> Led {
        let begun = self.conversation.begun();
        let mut led = match self.who {
            Who::Client => {
                let call = self.calls.iter().find(|call| call.from <= begun).map_or(begun, |call| call.from);
                Led::new((call, begun), "SYN_SENT")
            }
            Who::Server => {
                let at = self.conversation.born().unwrap_or(begun);
                Led::new(self.on_arrival(at), "SYN_RECV")
            }
        };
        let happened = self.happened();
        for (at, what) in &happened {
            self.time_out(&mut led, *at);
            self.step(&mut led, *at, *what, &happened);
        }
        self.time_out(&mut led, (u64::MAX, u64::MAX));
        self.end_time_wait(&mut led);
        self.give_up(&mut led);
        self.doubt_overlaps(&mut led, &happened);
        if let Some(doubt) = self.conversation.doubt {
            led.unsure(doubt);
        }
        led
    }

    /// Events whose order may be different from how it seems.
    fn doubt_overlaps(&self, led: &mut Led, happened: &[(Range, What)]) {
        let at = |what| happened.iter().find(|(_, other)| *other == what).map(|(at, _)| *at);
        let overlap = |one: Range, other: Range| one.0 <= other.1 + SOON && other.0 <= one.1 + SOON;
        let ended = led.states.last().map_or((0, 0), |stay| stay.end);
        if at(What::Killed).is_some_and(|killed| overlap(killed, ended))
            && led.end != ["killed"]
            && led.time_wait_end != [Some("killed")]
        {
            led.unsure("killed while something else happens");
        }
        // Behind data, the FIN does not leave at once, and does not show what had arrived.
        let is_behind = self.own_fin().is_some_and(|(_, fin)| fin.is_none_or(|fin| !self.is_prompt(&fin)));
        let resets = |own| happened.iter().any(|(at, what)| *what == What::OwnReset && overlap(*at, own));
        if is_behind && self.drawn_reset().is_none() && at(What::OwnFin).is_some_and(resets) {
            led.unsure("a reset while it is closed with data unsent");
        }
        let Some(peer) = at(What::PeerFin) else { return };
        if is_behind && at(What::OwnFin).is_some_and(|own| overlap(own, peer)) {
            led.unsure("a FIN that comes while it is closed with data unsent");
        }
        let bare = |segment: &&Segment| segment.is(RST) && !segment.is(ACK);
        let resets = self.mine().filter(bare).any(|reset| overlap((reset.sent, reset.sent), (peer.0, peer.0)));
        // A connection that ended before cannot change.
        let is_before = led.is_over() && ended.1 + SOON < peer.0;
        if resets && !is_before && at(What::OwnFin).is_some_and(|own| own.0 <= peer.1) {
            led.unsure("a reset that comes with a FIN");
        }
    }

    fn step(&self, led: &mut Led, at: Range, what: What, happened: &[(Range, What)]) {
        if led.is_over() {
            return;
        }
        let state = led.state();
        match (what, state) {
            (What::Established, "SYN_SENT" | "SYN_RECV") => led.enter("ESTABLISHED", at),
            (What::LetGo, "SYN_SENT") => led.finish(&["closed_while_connecting"], "never_established", at),
            (What::TimedOut, "SYN_SENT") => led.finish(&["connect_timeout"], "never_established", at),
            // Unanswered probes end with a reset.
            (What::TimedOut, "SYN_RECV" | "TIME_WAIT") => led.unsure("a time-out in an odd state"),
            (What::TimedOut, _) if happened.iter().any(|(_, what)| *what == What::OwnReset) => {}
            (What::TimedOut, _) => led.finish(self.timeouts(), "timeout", at),
            (What::OwnFin, "ESTABLISHED" | "CLOSE_WAIT") if self.is_retransmitted() && self.may_time_out_by(at.1) => {
                led.unsure("a user timeout that may have been over");
                led.enter(if state == "CLOSE_WAIT" { "LAST_ACK" } else { "FIN_WAIT1" }, at);
            }
            (What::OwnFin, "SYN_RECV") => led.unsure("closed while it is being opened"),
            (What::OwnFin, "ESTABLISHED") => {
                led.closer = vec!["active"];
                led.enter("FIN_WAIT1", at);
            }
            (What::OwnFin, "CLOSE_WAIT") => led.enter("LAST_ACK", at),
            (What::PeerFin, "ESTABLISHED") => {
                led.closer = vec!["passive"];
                led.enter("CLOSE_WAIT", at);
            }
            (What::FinAcked, "FIN_WAIT1") => {
                led.enter("FIN_WAIT2", at);
                let closed = self.last_close().filter(|call| call.from <= at.1).map(|call| self.effect(call));
                if let Some(closed) = closed.filter(|_| self.option("linger2") == Some(0)) {
                    if closed.1 + SOON >= at.0 {
                        led.unsure("a negative TCP_LINGER2 that is looked at just then");
                    }
                    led.finish(&["reset_other"], "reset_local", at);
                }
            }
            (What::PeerFin, "FIN_WAIT1") => {
                led.closer = vec!["simultaneous"];
                led.enter("CLOSING", at);
            }
            (What::FinAcked, "CLOSING") | (What::PeerFin, "FIN_WAIT2") => led.enter("TIME_WAIT", at),
            (What::FinAcked, "LAST_ACK") => led.finish(&["fin"], "passive", at),
            (What::Killed, "TIME_WAIT") => {
                led.finish(&["fin"], "active", at);
                led.time_wait_end = vec![Some("killed")];
            }
            (What::Killed, "SYN_SENT" | "SYN_RECV") => led.finish(&["killed"], "never_established", at),
            (What::Killed, _) => {
                if led.states.last().is_some_and(|stay| stay.begin.1 >= at.0) {
                    led.unsure("killed while something else happens");
                }
                led.finish(&["killed"], "killed", at);
            }
            (What::Disconnected, "CLOSING" | "LAST_ACK") if !self.resets_within(at) => {
                if happened.iter().any(|(other, what)| *what == What::FinAcked && other.0 <= at.1 + SOON) {
                    led.unsure("a FIN that is acknowledged while it is closed");
                }
                led.finish(&["disconnected"], "reset_local", at);
            }
            // These states send no reset, and wait for nothing.
            (What::Orphaned, "CLOSING" | "LAST_ACK") if self.option("linger") == Some(0) && !self.resets_within(at) => {
                if happened.iter().any(|(other, what)| *what == What::FinAcked && other.0 <= at.1 + SOON) {
                    led.unsure("a FIN that is acknowledged while it is closed");
                }
                led.finish(&["disconnected", "unknown"], "reset_local", at);
            }
            (What::PeerReset, _) => self.peer_reset(led, at, happened),
            (What::OwnReset, _) => self.own_reset_ends(led, at, happened),
            _ => {}
        }
    }

    fn peer_reset(&self, led: &mut Led, at: Range, happened: &[(Range, What)]) {
        let reset =
            self.theirs().find(|(received, segment)| *received == at.0 && segment.is(RST)).map(|(_, reset)| *reset);
        if led.state() == "SYN_SENT" {
            // A segment that does not acknowledge the SYN belongs to an earlier connection, and changes nothing.
            let syn = self.mine().find(|segment| segment.is(SYN)).map(|syn| syn.seq.wrapping_add(1));
            if reset
                .is_some_and(|reset| !reset.is(ACK) || syn.is_some_and(|next| reset.ack.wrapping_sub(next) > FAST_OPEN))
            {
                return;
            }
            return led.finish(&["refused"], "never_established", at);
        }
        let otherwise = if led.state() == "SYN_RECV" { "never_established" } else { "reset_remote" };
        // The FIN, which was not seen to leave, may have left before this or not at all.
        let unseen = self.own_fin().filter(|(_, fin)| fin.is_none_or(|fin| fin.sent >= at.0));
        let is_begun = |call: Range, fin: Option<Segment>| call.0 <= at.0 + if fin.is_some() { SOON } else { 0 };
        if unseen.is_some_and(|(call, fin)| is_begun(call, fin) && at.0 <= call.1 + SOON) {
            led.unsure("a reset that comes while it is closed");
        }
        if self.may_have_given_up(at.0) {
            led.unsure("a reset that may have come after the last try");
        }
        // A segment is lost on a socket that a mini-socket replaces.
        let gives_way = self.last_close().map(|call| self.effect(call));
        if led.state() == "FIN_WAIT2"
            && gives_way.is_some_and(|closed| closed.0 <= at.1 + SOON && at.0 <= closed.1 + SOON)
        {
            led.unsure("a reset that comes while it is closed");
        }
        if let (Some(reset), Some(next), Some(initial)) =
            (reset, self.next_expected(at.0), self.conversation.initial(self.who.peer()))
            && reset.seq.wrapping_sub(initial) != next
        {
            led.unsure("a reset that is not the next segment");
        }
        if led.state() == "TIME_WAIT" {
            led.finish(&["fin"], "active", at);
            led.time_wait_end = vec![Some("reset")];
            return;
        }
        let own = happened
            .iter()
            .any(|(other, what)| *what == What::OwnReset && other.0 <= at.1 + SOON && other.1 + SOON >= at.0);
        if own {
            led.unsure("resets that cross");
        }
        led.finish(&["reset_received"], otherwise, at);
    }

    fn own_reset_ends(&self, led: &mut Led, at: Range, happened: &[(Range, What)]) {
        if led.state() == "SYN_SENT" {
            // It acknowledges something else, and changes nothing.
            return;
        }
        if led.state() == "SYN_RECV" {
            led.unsure("a reset while it is being opened");
        }
        let crosses = happened
            .iter()
            .any(|(other, what)| *what == What::PeerReset && other.0 <= at.1 + SOON && other.1 + SOON >= at.0);
        if crosses {
            led.unsure("resets that cross");
        }
        if led.state() == "TIME_WAIT" {
            led.unsure("a reset from TIME_WAIT");
        }
        // A close does not show whether its FIN had been acknowledged.
        let acked = happened.iter().find(|(_, what)| *what == What::FinAcked).map(|(acked, _)| *acked);
        let is_just_acked = matches!(led.state(), "FIN_WAIT1" | "FIN_WAIT2")
            && acked.is_some_and(|acked| acked.1 + SOON >= at.1 && acked.0 <= at.1 + SOON);
        if is_just_acked && self.closing_calls().iter().any(|call| call.from <= at.1 && at.1 <= self.effect(call).1) {
            led.unsure("a reset just after its FIN was acknowledged");
        }
        let ends = self.why_reset(at);
        if ends.is_empty() {
            led.unsure("a reset that no call explains");
        }
        let otherwise = if ends.first() == Some(&"keepalive_timeout") { "timeout" } else { "reset_local" };
        led.finish(&ends, otherwise, at);
        if led.end.is_empty() {
            led.end.push("unknown");
        }
    }

    /// Why it sent a reset at that time.
    fn why_reset(&self, at: Range) -> Vec<&'static str> {
        let closing = self.closing_calls();
        let call = closing.iter().rev().find(|call| {
            let (from, to) = self.effect(call);
            from <= at.1 && at.1 <= to + SOON
        });
        let takes_no_more = |name: &str| matches!(name, "close" | "exit" | "kill" | "shutrd" | "shutrdwr");
        let is_after_close =
            self.calls.iter().any(|call| takes_no_more(&call.name) && call.errno == 0 && call.from <= at.1);
        // A reset caused by a call acknowledges something.
        let resets: Vec<_> = self.mine().filter(|segment| segment.is(RST) && segment.sent == at.1).collect();
        let is_drawn = resets.iter().any(|reset| !reset.is(ACK));
        let mut ends = Vec::new();
        if let Some(call) = call {
            match call.name.as_str() {
                "disconnect" => return vec!["disconnected"],
                _ if !self.is_accepted => return vec!["never_accepted"],
                "shutwr" | "shutrdwr" => {}
                _ => {
                    let (least, most) = self.unread(call, resets.iter().find(|reset| reset.is(ACK)).copied());
                    if most > 0 && !is_drawn {
                        ends.push("reset_unread_data");
                    }
                    if least == 0 && self.option("linger") == Some(0) && !is_drawn {
                        ends.push("reset_linger0");
                    }
                    if least == 0 && self.option("linger2") == Some(0) {
                        ends.push("reset_other");
                    }
                }
            }
        }
        let brings =
            |(received, segment): &(u64, &Segment)| segment.len > 0 && *received <= at.1 && at.1 - *received < 50 * MS;
        if is_after_close && is_drawn && self.theirs().any(|(at, segment)| brings(&(at, segment))) {
            ends.push("reset_data_after_close");
        }
        if ends.is_empty() && call.is_none() && self.is_probed_in_vain(at) {
            ends.push("keepalive_timeout");
            // The stored error is the reason.
            ends.extend(self.mine().any(|segment| segment.is_unreachable).then_some("unreachable"));
        }
        if is_after_close && ends.is_empty() && self.option("linger2") == Some(0) {
            ends.push("reset_other");
        }
        ends
    }

    /// Whether keepalive is on, and nothing had arrived for as long as it waits.
    fn is_probed_in_vain(&self, at: Range) -> bool {
        let last = self.theirs().map(|(received, _)| received).filter(|received| *received <= at.1).last();
        self.option("keepalive").is_some() && last.is_some_and(|last| at.1.saturating_sub(last) > 900 * MS)
    }
}
