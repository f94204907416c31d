//! Everything that happened to one end, in order, each with its range of times.

use super::super::conversation::Segment;
use super::super::log::Call;
use super::super::packets::{ACK, FIN, RST, SYN};
use super::super::script::Who;
use super::{MS, Range, SOON, What, Witness};

impl Witness<'_> {
    pub(super) fn own_fin(&self) -> Option<(Range, Option<Segment>)> {
        let segment = self.mine().find(|segment| segment.is(FIN)).copied();
        let call = self.closing_calls().into_iter().find(|call| call.name != "disconnect");
        match (segment, call) {
            (Some(segment), Some(call)) if call.from <= segment.sent => {
                // An exiting process closes its descriptors soon, even if the FIN waits behind data.
                Some(((call.from, self.effect(call).1.min(segment.sent)), Some(segment)))
            }
            (Some(segment), _) => Some(((segment.sent, segment.sent), Some(segment))),
            // Behind data for which the peer has no room.
            (None, Some(call))
                if self.is_accepted && (call.name.starts_with("shut") || !self.resets_within(self.effect(call))) =>
            {
                Some((self.effect(call), None))
            }
            _ => None,
        }
    }

    pub(super) fn peer_fin(&self) -> Option<(Range, Segment)> {
        let (_, fin) = self.theirs().find(|(_, segment)| segment.is(FIN))?;
        let end = fin.seq.wrapping_add(fin.space()).wrapping_sub(self.conversation.initial(self.who.peer())?);
        // A segment counts when no earlier data is missing.
        let at = self.theirs().map(|(at, _)| at).find(|at| self.next_expected(*at).is_some_and(|next| next >= end))?;
        // A FIN that arrives while a mini-socket replaces the socket is lost; the peer retransmits it before it is
        // acknowledged.
        let acks = |segment: &&Segment| {
            let initial = self.conversation.initial(self.who.peer()).unwrap_or(0);
            segment.is(ACK) && segment.sent >= at && segment.ack.wrapping_sub(initial) >= end
        };
        let acked = self.mine().find(acks).map_or(at, |segment| segment.sent);
        let again = self.theirs().filter(|(other, segment)| segment.is(FIN) && (at..=acked).contains(other)).last();
        Some(((at, again.map_or(at, |(at, _)| at)), *fin))
    }

    pub(super) fn happened(&self) -> Vec<(Range, What)> {
        let mut all = Vec::new();
        let established = match self.who {
            Who::Client => self.theirs().find(|(_, segment)| segment.is(SYN)).map(|(at, _)| at),
            Who::Server => self.conversation.accepted_by_server(),
        };
        all.extend(established.map(|at| (self.on_arrival(at), What::Established)));
        let own = self.own_fin();
        let peer = self.peer_fin();
        if let Some((at, Some(fin))) = own {
            let acks = |(_, segment): &(u64, &Segment)| !segment.is(RST) && segment.acknowledges(&fin);
            let acked = self.theirs().filter(|(received, _)| *received >= at.0).find(acks);
            all.extend(acked.map(|(at, _)| (self.on_arrival(at), What::FinAcked)));
        }
        if let Some((at, _)) = own {
            all.push((at, What::OwnFin));
        }
        if let Some(((first, last), _)) = peer {
            all.push(((first, self.done_by(last)), What::PeerFin));
        }
        all.extend(self.last_close().map(|call| (self.effect(call), What::Orphaned)));
        all.extend(self.closing_calls().first().map(|call| (self.effect(call), What::LetGo)));
        all.extend(self.killed().map(|at| (at, What::Killed)));
        let disconnects = self.closing_calls().into_iter().filter(|call| call.name == "disconnect");
        all.extend(disconnects.map(|call| (self.effect(call), What::Disconnected)));
        all.extend(self.timed_out().map(|at| (at, What::TimedOut)));
        all.extend(self.own_resets().map(|segment| (self.own_reset(segment), What::OwnReset)));
        let resets = self.theirs().filter(|(_, segment)| segment.is(RST));
        all.extend(resets.map(|(at, _)| (self.on_arrival(at), What::PeerReset)));
        // Its own actions have happened when they are visible; an arrival counts at its arrival.
        all.sort_by_key(|(at, what)| match what {
            What::OwnFin | What::OwnReset | What::Killed => (at.1, *what == What::OwnReset),
            _ => (at.0, *what == What::PeerFin),
        });
        self.order_fins(&mut all, own.and_then(|(_, fin)| fin), peer);
        self.order_reset(&mut all, peer);
        self.order_drawn_reset(&mut all);
        all
    }

    /// A reset that acknowledges nothing answers a segment: a socket that still sends data does so if it was closed
    /// before that segment arrived.
    fn order_drawn_reset(&self, all: &mut [(Range, What)]) {
        let Some(reset) = self.drawn_reset() else { return };
        let at = |what| all.iter().position(|(_, other)| *other == what);
        let (Some(own_at), Some(reset_at)) = (at(What::OwnFin), at(What::OwnReset)) else { return };
        let (own, _) = &mut all[own_at];
        own.1 = own.1.min(reset.sent).max(own.0);
        if reset_at < own_at {
            all[reset_at..=own_at].rotate_right(1);
        }
    }

    /// The reset of a socket that was closed with unsent data, so that its FIN never left, if the peer's data caused
    /// it.
    pub(super) fn drawn_reset(&self) -> Option<Segment> {
        let (own, None) = self.own_fin()? else { return None };
        let call = self.last_close().filter(|call| call.from == own.0)?;
        let reset = self.own_resets().next()?;
        let is_drawn = self.theirs().any(|(at, segment)| segment.len > 0 && (call.from..=reset.sent).contains(&at));
        (!reset.is(ACK) && is_drawn && !self.is_retransmitted() && reset.sent >= call.from).then_some(*reset)
    }

    /// A reset with an acknowledgement shows whether the peer's FIN had arrived.
    fn order_reset(&self, all: &mut [(Range, What)], peer: Option<(Range, Segment)>) {
        let Some(reset) = self.mine().find(|segment| segment.is(RST) && segment.is(ACK)) else { return };
        let Some((_, peer)) = peer else { return };
        let is_covered = reset.acknowledges(&peer);
        let at = |what| all.iter().position(|(_, other)| *other == what);
        let (Some(reset_at), Some(peer_at)) = (at(What::OwnReset), at(What::PeerFin)) else { return };
        if is_covered == (reset_at < peer_at) {
            all.swap(reset_at, peer_at);
        }
    }

    /// The acknowledgement in each FIN shows which FIN was first.
    fn order_fins(&self, all: &mut [(Range, What)], own: Option<Segment>, peer: Option<(Range, Segment)>) {
        let (Some(own), Some((_, peer))) = (own, peer) else { return };
        let is_covered = own.acknowledges(&peer);
        let at = |what| all.iter().position(|(_, other)| *other == what);
        let (Some(own_at), Some(peer_at)) = (at(What::OwnFin), at(What::PeerFin)) else { return };
        if is_covered == (own_at < peer_at) && self.is_prompt(&own) {
            // In between, only conclusions that depend on neither.
            all.swap(own_at, peer_at);
        }
    }

    /// Whether the FIN left during the call.
    pub(super) fn is_prompt(&self, fin: &Segment) -> bool {
        let Some(call) = self.closing_calls().into_iter().find(|call| call.name != "disconnect") else { return false };
        // A FIN with data, or behind data, was not the next segment to send.
        let is_behind = |segment: &Segment| segment.len > 0 && (call.from..=fin.sent).contains(&segment.sent);
        // While the socket retransmits, the FIN waits behind unacknowledged data.
        !self.is_retransmitted()
            && !self.mine().any(is_behind)
            && (call.from..=call.to.unwrap_or(call.from + 50 * MS)).contains(&fin.sent)
    }

    /// The kernel gave up some time after the last retry, and before a call returned the error.
    fn timed_out(&self) -> Option<Range> {
        let hears =
            |call: &&&Call| call.errno == nix::libc::ETIMEDOUT && matches!(call.name.as_str(), "recv" | "eof" | "send");
        let to = self.calls.iter().find(hears)?.to?;
        let last =
            self.mine().filter(|segment| segment.sent <= to && !segment.is(RST)).map(|segment| segment.sent).max()?;
        Some((last, to))
    }

    /// When `ss -K` destroyed it: when its reset left, if it sent one.
    fn killed(&self) -> Option<Range> {
        let call = self.calls.iter().find(|call| call.name == "ssk" && call.errno == 0)?;
        let (from, to) = (call.from, call.to?);
        let reset = self.mine().find(|segment| segment.is(RST) && (from..=to).contains(&segment.sent));
        Some((from, reset.map_or(to, |reset| reset.sent)))
    }

    /// Its resets, without an answer that left just before the reset of a call: that call had closed the socket already, on
    /// another CPU.
    fn own_resets(&self) -> impl Iterator<Item = &Segment> {
        let resets = || self.mine().filter(|segment| segment.is(RST));
        let follows = move |at: u64| resets().any(|other| other.is(ACK) && (at..=at + SOON).contains(&other.sent));
        resets().filter(move |reset| reset.is(ACK) || !follows(reset.sent))
    }

    fn own_reset(&self, reset: &Segment) -> Range {
        if let Some(call) = self.closing_calls().into_iter().rev().find(|call| {
            let (from, to) = self.effect(call);
            reset.sent >= from && reset.sent <= to
        }) {
            return (call.from, reset.sent);
        }
        let drawn_by = self.theirs().map(|(at, _)| at).filter(|at| *at <= reset.sent).last();
        (drawn_by.unwrap_or(reset.sent), reset.sent)
    }
}
