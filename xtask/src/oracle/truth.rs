//! What the witnesses say of each end of a connection: its states and when they began, how it ended, and whose it was.
//!
//! This is another reading of RFC 9293 and of the kernel than tcptrace's: from segments and system calls alone. Every time
//! is a range, every word one of several; where the witnesses cannot tell, they say why.

use std::net::SocketAddr;
use std::time::Duration;

use super::conversation::{Conversation, Segment};
use super::destroyed::Counted;
use super::log::Call;
use super::packets::{ACK, FIN, RST, SYN};
use super::play::FIN_TIMEOUT;
use super::script::Who;

/// In ns of `CLOCK_BOOTTIME`: not earlier, and not later.
pub(super) type Range = (u64, u64);

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// What the kernel makes of a segment is made so soon after it came.
const SOON: u64 = 2 * MS;
/// The kernel gives up so long after the last segment, with as few retries as there are here.
const GIVING_UP: u64 = 4 * SECOND;
/// `TCP_TIMEWAIT_LEN`, and one step of the timer wheel at the slowest rate of its clock.
const TIME_WAIT: Range = (60 * SECOND, 65_200 * MS);

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) who: Who,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
    pub(super) cookie: Option<u64>,
    pub(super) opened: Range,
    pub(super) states: Vec<Stay>,
    pub(super) closer: Vec<&'static str>,
    pub(super) end: Vec<&'static str>,
    pub(super) time_wait_end: Vec<Option<&'static str>>,
    /// Whose it is; nobody's, if nobody accepted it.
    pub(super) owner: Vec<u32>,
    pub(super) is_owned: bool,
    /// Who may have closed it, and whether somebody has for certain.
    pub(super) closers: Vec<u32>,
    pub(super) is_closed: bool,
    pub(super) sent: Range,
    pub(super) received: Range,
    pub(super) is_retransmitted: bool,
    /// What its socket had counted when the kernel freed it.
    pub(super) counted: Option<Counted>,
    /// Why the witnesses cannot tell.
    pub(super) unsure: Option<&'static str>,
}

/// A state, when it began and when it was over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stay {
    pub(super) state: &'static str,
    pub(super) begin: Range,
    pub(super) end: Range,
}

/// What happened to an end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Established,
    OwnFin,
    FinAcked,
    PeerFin,
    OwnReset,
    PeerReset,
    /// Nobody holds its socket any more.
    Orphaned,
    /// The first call that ends a connect.
    LetGo,
    /// An administrator destroyed it.
    Killed,
}

/// All that the witnesses know of one end.
struct Witness<'a> {
    who: Who,
    conversation: &'a Conversation,
    /// The next one between the same ends.
    next: Option<&'a Conversation>,
    /// Calls on this socket, or on the listener of one that nobody accepted.
    calls: Vec<&'a Call>,
    is_accepted: bool,
    /// When the network namespace went.
    gone: Range,
}

/// The ends that a life had.
pub(super) fn of_life(calls: &[Call], conversations: &[Conversation], gone: Range) -> Vec<Expected> {
    let mut ends = Vec::new();
    let mut accepts = calls.iter().filter(|call| call.name == "accept" && call.errno == 0).peekable();
    for conversation in conversations {
        let begun = conversation.begun();
        let connects = |call: &&Call| {
            matches!(call.name.as_str(), "connect" | "reconnect" | "fastopen")
                && call.from <= begun
                && call.to.is_none_or(|to| begun <= to)
        };
        let next = conversation.next.and_then(|begun| {
            conversations.iter().find(|other| other.client == conversation.client && other.begun() == begun)
        });
        if let Some(connect) = calls.iter().find(connects) {
            let own = calls.iter().filter(|call| call.who == Who::Client && call.cookie == connect.cookie).collect();
            let client = Witness { who: Who::Client, conversation, next, calls: own, is_accepted: true, gone };
            ends.push(client.expected(Some(connect)));
        }
        let Some(born) = conversation.born() else { continue };
        // The queue is in order: the first that was accepted is the first that was made.
        let accept = accepts.next_if(|call| call.to.is_some_and(|to| to >= born));
        let is_another = accept.and_then(|accept| accept.remote).is_some_and(|remote| remote != conversation.client);
        let is_own = |call: &&Call| {
            call.who == Who::Server
                && match accept {
                    Some(accept) => call.cookie == accept.cookie && call.name != "unlisten",
                    None => matches!(call.name.as_str(), "unlisten" | "exit" | "kill") && call.errno == 0,
                }
        };
        let own = calls.iter().filter(is_own).collect();
        let server = Witness { who: Who::Server, conversation, next, calls: own, is_accepted: accept.is_some(), gone };
        let mut end = server.expected(accept.or_else(|| calls.iter().find(|call| call.name == "listen")));
        let unlistens = |call: &Call| {
            call.who == Who::Server && matches!(call.name.as_str(), "unlisten" | "exit" | "kill") && call.from <= born
        };
        if is_another {
            end.unsure = Some("accepted in another order");
        } else if accept.is_none() && calls.iter().any(unlistens) {
            end.unsure = Some("the listener was closed just then");
        }
        ends.push(end);
    }
    ends.extend(calls.iter().filter_map(|call| without_segments(call, conversations)));
    ends
}

/// A connect that never sent a SYN.
fn without_segments(call: &Call, conversations: &[Conversation]) -> Option<Expected> {
    let is_connect = matches!(call.name.as_str(), "connect" | "reconnect" | "fastopen");
    let to = call.to?;
    if !is_connect || conversations.iter().any(|other| (call.from..=to).contains(&other.begun())) {
        return None;
    }
    Some(Expected {
        who: Who::Client,
        local: None,
        remote: call.remote?,
        cookie: Some(call.cookie),
        opened: (call.from, to),
        states: vec![Stay { state: "SYN_SENT", begin: (call.from, to), end: (call.from, to) }],
        closer: vec!["never_established"],
        end: vec!["no_local_port"],
        time_wait_end: vec![None],
        owner: vec![call.pid],
        is_owned: true,
        closers: vec![call.pid],
        is_closed: false,
        sent: (0, 0),
        received: (0, 0),
        is_retransmitted: false,
        counted: None,
        unsure: (call.errno != nix::libc::EADDRNOTAVAIL).then_some("a connect without a SYN"),
    })
}

impl Witness<'_> {
    fn mine(&self) -> impl Iterator<Item = &Segment> {
        self.conversation.of(self.who)
    }

    /// Those that came, and when.
    fn theirs(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.conversation.of(self.who.peer()).filter_map(|segment| Some((segment.received?, segment)))
    }

    fn expected(&self, opener: Option<&Call>) -> Expected {
        let life = self.lead();
        let (local, remote) = match self.who {
            Who::Client => (self.conversation.client, self.conversation.server),
            Who::Server => (self.conversation.server, self.conversation.client),
        };
        let ended = life.states.last().map_or((0, 0), |stay| stay.end);
        let closing = self.closing_calls();
        let killer = self.calls.iter().find(|call| call.name == "ssk" && call.errno == 0);
        let killer = killer.and_then(|call| u32::try_from(call.number).ok());
        let is_before = |call: &&&Call| call.from <= ended.1 + SOON;
        Expected {
            who: self.who,
            local: Some(local),
            remote,
            cookie: opener.filter(|_| self.is_accepted).map(|call| call.cookie),
            opened: life.opened,
            closer: life.closer,
            end: life.end,
            time_wait_end: life.time_wait_end,
            owner: opener.map(|call| call.pid).into_iter().collect(),
            is_owned: self.is_accepted && opener.is_some_and(|call| call.to.is_some_and(|to| to + SOON < ended.0)),
            closers: closing.iter().filter(is_before).map(|call| call.pid).chain(killer).collect(),
            is_closed: self.is_accepted && closing.iter().any(|call| call.to.unwrap_or(call.from) + SOON < ended.0),
            sent: self.sent(ended),
            received: self.received(ended),
            is_retransmitted: self.is_retransmitted(),
            counted: None,
            states: life.states,
            unsure: life.unsure.or_else(|| opener.is_none().then_some("nobody says who opened it")),
        }
    }

    fn closing_calls(&self) -> Vec<&Call> {
        let closes = |call: &&&Call| {
            call.errno == 0
                && match call.name.as_str() {
                    "shutwr" | "shutrdwr" | "disconnect" | "close" | "exit" | "kill" => true,
                    "unlisten" => !self.is_accepted,
                    // While it connects, to shut down either way is to give up.
                    "shutrd" => !self.theirs().any(|(_, segment)| segment.is(SYN)),
                    _ => false,
                }
        };
        let mut calls = Vec::new();
        for call in self.calls.iter().filter(closes) {
            calls.push(*call);
            // After this, the process has the socket no more.
            if matches!(call.name.as_str(), "close" | "exit" | "kill" | "unlisten" | "disconnect") {
                break;
            }
        }
        calls
    }

    /// The call by which nobody holds the socket any more.
    fn last_close(&self) -> Option<&Call> {
        let calls = self.closing_calls();
        calls.into_iter().find(|call| matches!(call.name.as_str(), "close" | "exit" | "kill" | "unlisten"))
    }

    /// The latest moment at which the kernel has done what a segment that came then makes it do: it waits while a call has
    /// the socket.
    fn done_by(&self, at: u64) -> u64 {
        let has_it = |call: &&&Call| call.from <= at + SOON;
        self.calls.iter().filter(has_it).filter_map(|call| call.to).filter(|to| *to >= at).max().unwrap_or(at)
    }

    fn on_arrival(&self, at: u64) -> Range {
        (at, self.done_by(at))
    }

    /// When a closing call had its effect.
    fn effect(&self, call: &Call) -> Range {
        // A process that exits closes its descriptors soon; what it sends shows when.
        let sent = self.mine().map(|segment| segment.sent).find(|sent| *sent >= call.from);
        let back = call.to.or(sent).unwrap_or(call.from + 50 * MS);
        (call.from, back)
    }

    fn own_fin(&self) -> Option<(Range, Option<Segment>)> {
        let segment = self.mine().find(|segment| segment.is(FIN)).copied();
        let call = self.closing_calls().into_iter().find(|call| call.name != "disconnect");
        match (segment, call) {
            (Some(segment), Some(call)) if call.from <= segment.sent => {
                // A process that exits closes its descriptors soon, even if the FIN waits behind data.
                let back = call.to.unwrap_or(call.from + 50 * MS);
                Some(((call.from, back.min(segment.sent)), Some(segment)))
            }
            (Some(segment), _) => Some(((segment.sent, segment.sent), Some(segment))),
            // Behind data that the peer has no room for.
            (None, Some(call))
                if self.is_accepted && (call.name.starts_with("shut") || !self.resets_within(self.effect(call))) =>
            {
                Some((self.effect(call), None))
            }
            _ => None,
        }
    }

    fn resets_within(&self, (from, to): Range) -> bool {
        self.mine().any(|segment| segment.is(RST) && segment.sent >= from && segment.sent <= to + SOON)
    }

    fn peer_fin(&self) -> Option<(Range, Segment)> {
        let (_, fin) = self.theirs().find(|(_, segment)| segment.is(FIN))?;
        let end = fin.seq.wrapping_add(fin.space()).wrapping_sub(self.conversation.initial(self.who.peer())?);
        // It counts when nothing before it is missing.
        let at = self.theirs().map(|(at, _)| at).find(|at| self.next_expected(*at).is_some_and(|next| next >= end))?;
        // A FIN that comes while the socket gives way to its mini-socket is lost, and comes again before it is acknowledged.
        let acks = |segment: &&Segment| {
            let initial = self.conversation.initial(self.who.peer()).unwrap_or(0);
            segment.is(ACK) && segment.sent >= at && segment.ack.wrapping_sub(initial) >= end
        };
        let acked = self.mine().find(acks).map_or(at, |segment| segment.sent);
        let again = self.theirs().filter(|(other, segment)| segment.is(FIN) && (at..=acked).contains(other)).last();
        Some(((at, again.map_or(at, |(at, _)| at)), *fin))
    }

    /// How much of what the peer sent had come, in order, by some time.
    fn next_expected(&self, by: u64) -> Option<u32> {
        let initial = self.conversation.initial(self.who.peer())?;
        let mut parts: Vec<(u32, u32)> = self
            .theirs()
            .filter(|(at, segment)| *at <= by && !segment.is(RST))
            .map(|(_, segment)| (segment.seq.wrapping_sub(initial), segment.space()))
            .collect();
        parts.sort_unstable();
        let next = parts.into_iter().fold(
            0,
            |next: u32, (begin, space)| {
                if begin <= next { next.max(begin.saturating_add(space)) } else { next }
            },
        );
        Some(next)
    }

    fn happened(&self) -> Vec<(Range, What)> {
        let mut all = Vec::new();
        let established = match self.who {
            Who::Client => self.theirs().find(|(_, segment)| segment.is(SYN)).map(|(at, _)| at),
            Who::Server => self.conversation.accepted_by_server(),
        };
        all.extend(established.map(|at| (self.on_arrival(at), What::Established)));
        let own = self.own_fin();
        let peer = self.peer_fin();
        if let Some((at, Some(fin))) = own {
            let end = fin.seq.wrapping_add(fin.space());
            let acks = |(_, segment): &(u64, &Segment)| {
                segment.is(ACK) && !segment.is(RST) && segment.ack.wrapping_sub(end).cast_signed() >= 0
            };
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
        all.extend(
            self.mine().filter(|segment| segment.is(RST)).map(|segment| (self.own_reset(segment), What::OwnReset)),
        );
        let resets = self.theirs().filter(|(_, segment)| segment.is(RST));
        all.extend(resets.map(|(at, _)| (self.on_arrival(at), What::PeerReset)));
        // What it does itself is done when it shows; what comes is done when it comes.
        all.sort_by_key(|(at, what)| match what {
            What::OwnFin | What::OwnReset | What::Killed => (at.1, *what == What::OwnReset),
            _ => (at.0, *what == What::PeerFin),
        });
        self.order_fins(&mut all, own.and_then(|(_, fin)| fin), peer);
        self.order_reset(&mut all, peer);
        all
    }

    /// A reset that acknowledges something says whether the peer's FIN was there.
    fn order_reset(&self, all: &mut [(Range, What)], peer: Option<(Range, Segment)>) {
        let Some(reset) = self.mine().find(|segment| segment.is(RST) && segment.is(ACK)) else { return };
        let Some((_, peer)) = peer else { return };
        let is_covered = reset.ack.wrapping_sub(peer.seq.wrapping_add(peer.space())).cast_signed() >= 0;
        let at = |what| all.iter().position(|(_, other)| *other == what);
        let (Some(reset_at), Some(peer_at)) = (at(What::OwnReset), at(What::PeerFin)) else { return };
        if is_covered == (reset_at < peer_at) {
            all.swap(reset_at, peer_at);
        }
    }

    /// What each FIN acknowledges says which was first.
    fn order_fins(&self, all: &mut [(Range, What)], own: Option<Segment>, peer: Option<(Range, Segment)>) {
        let (Some(own), Some((_, peer))) = (own, peer) else { return };
        let is_covered = own.ack.wrapping_sub(peer.seq.wrapping_add(peer.space())).cast_signed() >= 0;
        let at = |what| all.iter().position(|(_, other)| *other == what);
        let (Some(own_at), Some(peer_at)) = (at(What::OwnFin), at(What::PeerFin)) else { return };
        if is_covered == (own_at < peer_at) && self.is_prompt(&own) {
            // Between them, only what depends on neither.
            all.swap(own_at, peer_at);
        }
    }

    /// Whether it left when the call was made.
    fn is_prompt(&self, fin: &Segment) -> bool {
        let first = self.closing_calls().into_iter().find(|call| call.name != "disconnect");
        first.is_some_and(|call| fin.sent >= call.from && fin.sent <= call.to.unwrap_or(call.from + 50 * MS))
    }

    /// When `ss -K` destroyed it: when its reset left, if one did.
    fn killed(&self) -> Option<Range> {
        let call = self.calls.iter().find(|call| call.name == "ssk" && call.errno == 0)?;
        let (from, to) = (call.from, call.to?);
        let reset = self.mine().find(|segment| segment.is(RST) && (from..=to).contains(&segment.sent));
        Some((from, reset.map_or(to, |reset| reset.sent)))
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

/// What a life came to.
struct Led {
    opened: Range,
    states: Vec<Stay>,
    closer: Vec<&'static str>,
    end: Vec<&'static str>,
    time_wait_end: Vec<Option<&'static str>>,
    unsure: Option<&'static str>,
}

impl Led {
    fn new(opened: Range, state: &'static str) -> Self {
        Self {
            opened,
            states: vec![Stay { state, begin: opened, end: opened }],
            closer: Vec::new(),
            end: Vec::new(),
            time_wait_end: vec![None],
            unsure: None,
        }
    }

    fn state(&self) -> &'static str {
        self.states.last().map_or("", |stay| stay.state)
    }

    fn close_stay(&mut self, at: Range) {
        if let Some(stay) = self.states.last_mut() {
            stay.end = (at.0.max(stay.begin.0), at.1.max(stay.begin.1));
        }
    }

    fn enter(&mut self, state: &'static str, at: Range) {
        self.close_stay(at);
        let begin = self.states.last().map_or(at, |stay| stay.end);
        self.states.push(Stay { state, begin, end: begin });
    }

    fn is_over(&self) -> bool {
        !self.end.is_empty()
    }

    fn finish(&mut self, end: &[&'static str], otherwise: &'static str, at: Range) {
        self.close_stay(at);
        self.end = end.to_vec();
        if self.closer.is_empty() {
            self.closer = vec![otherwise];
        }
    }

    fn unsure(&mut self, why: &'static str) {
        self.unsure.get_or_insert(why);
    }
}

impl Witness<'_> {
    /// Goes through what happened, in order.
    fn lead(&self) -> Led {
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
        if self.conversation.is_ambiguous {
            led.unsure("a segment that came while a rule was set");
        }
        led
    }

    /// Nothing more came, and what it sent in vain shows since when.
    fn give_up(&self, led: &mut Led) {
        if led.is_over() {
            return;
        }
        let last = self.mine().map(|segment| segment.sent).max().unwrap_or(0);
        let at = (last, last + GIVING_UP);
        if at.1 > self.gone.0 || !self.is_retransmitted() {
            led.unsure("it has not ended");
        }
        match led.state() {
            "SYN_SENT" => led.finish(&["connect_timeout"], "never_established", at),
            "ESTABLISHED" | "CLOSE_WAIT" | "FIN_WAIT1" | "CLOSING" | "LAST_ACK" => {
                let ends: &[_] = if self.option("usertimeout").is_some() {
                    &["user_timeout", "retransmit_timeout"]
                } else {
                    &["retransmit_timeout"]
                };
                led.finish(ends, "timeout", at);
            }
            _ => led.unsure("it has not ended"),
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
            // There is no reset from these states, and nothing is waited for.
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
            return led.finish(&["refused"], "never_established", at);
        }
        let otherwise = if led.state() == "SYN_RECV" { "never_established" } else { "reset_remote" };
        // A FIN that was not seen to leave before may have been before it or not at all.
        let unseen = self.own_fin().filter(|(_, fin)| fin.is_none_or(|fin| fin.sent >= at.0));
        if unseen.is_some_and(|(call, _)| call.0 <= at.0 && at.0 <= call.1 + SOON) {
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
            // Of an acknowledgement of something else, which changes nothing.
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
        // Who closes does not say whether the acknowledgement of its FIN was there.
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
        let otherwise = if ends == ["keepalive_timeout"] { "timeout" } else { "reset_local" };
        led.finish(&ends, otherwise, at);
        if led.end.is_empty() {
            led.end.push("unknown");
        }
    }

    /// Why it sent a reset, at that time.
    fn why_reset(&self, at: Range) -> Vec<&'static str> {
        let closing = self.closing_calls();
        let call = closing.iter().rev().find(|call| {
            let (from, to) = self.effect(call);
            from <= at.1 && at.1 <= to + SOON
        });
        let takes_no_more = |name: &str| matches!(name, "close" | "exit" | "kill" | "shutrd" | "shutrdwr");
        let is_after_close =
            self.calls.iter().any(|call| takes_no_more(&call.name) && call.errno == 0 && call.from <= at.1);
        let mut ends = Vec::new();
        if let Some(call) = call {
            match call.name.as_str() {
                "disconnect" => return vec!["disconnected"],
                _ if !self.is_accepted => return vec!["never_accepted"],
                "shutwr" | "shutrdwr" => {}
                _ => {
                    let (least, most) = self.unread(call);
                    if most > 0 {
                        ends.push("reset_unread_data");
                    }
                    if least == 0 && self.option("linger") == Some(0) {
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
        if is_after_close && self.theirs().any(|(at, segment)| brings(&(at, segment))) {
            ends.push("reset_data_after_close");
        }
        if ends.is_empty() && call.is_none() && self.is_probed_in_vain(at) {
            ends.push("keepalive_timeout");
        }
        if is_after_close && ends.is_empty() && self.option("linger2") == Some(0) {
            ends.push("reset_other");
        }
        ends
    }

    /// Whether it has keepalive, and nothing had come for as long as that takes.
    fn is_probed_in_vain(&self, at: Range) -> bool {
        let last = self.theirs().map(|(received, _)| received).filter(|received| *received <= at.1).last();
        self.option("keepalive").is_some() && last.is_some_and(|last| at.1.saturating_sub(last) > 900 * MS)
    }

    /// The option of its socket that was set last.
    fn option(&self, name: &str) -> Option<u64> {
        self.calls.iter().rev().find(|call| call.name == name && call.errno == 0).map(|call| call.number)
    }

    /// How many bytes had come that nobody had read when it was closed.
    fn unread(&self, call: &Call) -> Range {
        let bytes = |by| u64::from(self.next_expected(by).unwrap_or(1).saturating_sub(1 + self.fin_by(by)));
        let read: u64 = self
            .calls
            .iter()
            .filter(|other| matches!(other.name.as_str(), "recv" | "eof") && other.from <= call.from)
            .map(|other| other.number)
            .sum();
        (bytes(call.from).saturating_sub(read), bytes(self.effect(call).1).saturating_sub(read))
    }

    /// Whether the peer's FIN had come.
    fn fin_by(&self, by: u64) -> u32 {
        u32::from(self.peer_fin().is_some_and(|(at, _)| at.0 <= by))
    }

    /// An orphan does not wait in `FIN_WAIT2` for ever.
    fn time_out(&self, led: &mut Led, next: Range) {
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
        // 3.5 retransmission timeouts are the least.
        let longest = timeout.max(u64::try_from(Duration::from_millis(2_500).as_nanos()).unwrap_or(0));
        let due = (begin.0 + timeout, begin.1 + longest + longest / 8 + 10 * MS);
        if next.0 < due.0 {
            return;
        }
        if next.0 <= due.1 + SOON {
            led.unsure("a FIN_WAIT2 whose time was over just then");
        }
        led.finish(&["fin_wait2_timeout"], "active", due);
    }

    /// A SYN is sent again once, after a second, and waited for two more.
    fn connect_in_vain(&self, led: &mut Led, next: Range) {
        let syns: Vec<u64> = self.mine().filter(|segment| segment.is(SYN)).map(|segment| segment.sent).collect();
        let [first, .., last] = syns[..] else { return };
        let due = (last + last.abs_diff(first) * 3 / 2, last + 3 * SECOND);
        if next.0 < due.0 {
            return;
        }
        if next.0 <= due.1 && next.0 != u64::MAX {
            led.unsure("a connect that times out just then");
        }
        led.finish(&["connect_timeout"], "never_established", due);
    }

    fn end_time_wait(&self, led: &mut Led) {
        let Some(stay) = led.states.last().copied().filter(|stay| stay.state == "TIME_WAIT" && !led.is_over()) else {
            return;
        };
        let last = self.theirs().map(|(at, _)| at).filter(|at| *at >= stay.begin.0).last().unwrap_or(stay.begin.0);
        let due = (stay.begin.0 + TIME_WAIT.0, last.max(stay.begin.1) + TIME_WAIT.1);
        let (how, at): (&[_], _) = match self.conversation.next {
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

    /// How a server's TIME_WAIT ends that a client connects to again. Where nobody listens any more, it answers the SYN with
    /// an acknowledgement, which the client resets.
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

    fn sent(&self, ended: Range) -> Range {
        let by = |at: u64| self.mine().filter(|segment| segment.sent <= at).map(|segment| u64::from(segment.len)).sum();
        (by(ended.0.saturating_sub(SOON)), by(ended.1 + SOON))
    }

    /// What it acknowledged has been received, and what never came has not.
    fn received(&self, ended: Range) -> Range {
        let Some(initial) = self.conversation.initial(self.who.peer()) else { return (0, 0) };
        let fin = self.fin_by(u64::MAX);
        let acked = self
            .mine()
            .filter(|segment| segment.is(ACK) && !segment.is(RST) && segment.sent <= ended.0)
            .map(|segment| segment.ack.wrapping_sub(initial))
            .max();
        let most = self.next_expected(ended.1 + SOON).unwrap_or(1);
        (u64::from(acked.unwrap_or(1).saturating_sub(1 + fin)), u64::from(most.saturating_sub(1)))
    }

    fn is_retransmitted(&self) -> bool {
        let Some(initial) = self.conversation.initial(self.who) else { return false };
        let mut next = 0;
        for segment in self.mine().filter(|segment| !segment.is(RST)) {
            let begin = segment.seq.wrapping_sub(initial);
            let is_again = segment.space() > 0 && begin < next;
            // A zero window is probed with the byte before.
            if is_again || (segment.space() == 0 && begin.wrapping_add(1) == next && next > 1) {
                return true;
            }
            next = next.max(begin.wrapping_add(segment.space()));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::packets::Packet;
    use super::*;

    const CLIENT: &str = "127.0.0.1:40000";
    const SERVER: &str = "127.1.0.0:7000";
    const GONE: Range = (40 * SECOND, 50 * SECOND);

    /// Each segment is seen when it leaves, and 1 ms later when it comes: who sends it, when in ms, flags, bytes, and
    /// numbers from the initial ones, which are 0.
    fn conversation(segments: &[(Who, u64, u8, u32, [u32; 2])]) -> Vec<Conversation> {
        let [client, server] = [CLIENT, SERVER].map(|address| address.parse().expect("an address"));
        let seen = |is_outgoing: bool| {
            segments.iter().map(move |&(who, ms, flags, len, [seq, ack])| {
                let (from, to) = if who == Who::Client { (client, server) } else { (server, client) };
                let at = (ms + u64::from(!is_outgoing)) * MS;
                Packet { at, is_outgoing, from, to, seq, ack, flags, len }
            })
        };
        let mut packets: Vec<_> = seen(true).chain(seen(false)).collect();
        packets.sort_by_key(|packet| packet.at);
        super::super::conversation::sort(&packets).remove(&server).expect("a conversation")
    }

    fn call(who: Who, name: &str, ms: u64) -> Call {
        let [client, server] = [CLIENT, SERVER].map(|address| address.parse().ok());
        let (local, remote) = if who == Who::Client { (client, server) } else { (server, client) };
        let (pid, cookie) = if who == Who::Client { (1, 10) } else { (2, 20) };
        let (from, to) = (ms * MS, Some(ms * MS + 2 * MS));
        Call { life: 0, who, name: name.to_owned(), pid, from, to, errno: 0, cookie, local, remote, number: 0 }
    }

    const HANDSHAKE: [(Who, u64, u8, u32, [u32; 2]); 3] = [
        (Who::Client, 101, SYN, 0, [0, 0]),
        (Who::Server, 102, SYN | ACK, 0, [0, 1]),
        (Who::Client, 103, ACK, 0, [1, 1]),
    ];

    fn opening() -> Vec<Call> {
        vec![call(Who::Server, "listen", 50), call(Who::Client, "connect", 100), call(Who::Server, "accept", 120)]
    }

    fn states(end: &Expected) -> Vec<&str> {
        end.states.iter().map(|stay| stay.state).collect()
    }

    #[test]
    fn who_closes_first_waits() {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([
            (Who::Client, 201, FIN | ACK, 0, [1, 1]),
            (Who::Server, 202, ACK, 0, [1, 2]),
            (Who::Server, 301, FIN | ACK, 0, [1, 2]),
            (Who::Client, 302, ACK, 0, [2, 2]),
        ]);
        let mut calls = opening();
        calls.extend([call(Who::Client, "close", 200), call(Who::Server, "close", 300)]);
        let ends = of_life(&calls, &conversation(&segments), GONE);
        let [client, server] = &ends[..] else { unreachable!("two ends") };
        assert_eq!(states(client), ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"]);
        assert_eq!((&client.closer[..], &client.end[..]), (&["active"][..], &["fin"][..]));
        assert_eq!((&client.time_wait_end[..], &client.closers[..]), (&[Some("netns_gone")][..], &[1][..]));
        assert_eq!(client.states[3].begin, (203 * MS, 203 * MS));
        assert_eq!(client.states[3].end, (302 * MS, 302 * MS));
        assert_eq!(states(server), ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
        assert_eq!(
            (&server.closer[..], &server.end[..], &server.owner[..]),
            (&["passive"][..], &["fin"][..], &[2][..])
        );
        assert!(client.unsure.is_none() && server.unsure.is_none());
    }

    /// Both FINs acknowledge only what was there.
    #[test]
    fn fins_that_cross() {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([
            (Who::Client, 201, FIN | ACK, 0, [1, 1]),
            (Who::Server, 201, FIN | ACK, 0, [1, 1]),
            (Who::Client, 203, ACK, 0, [2, 2]),
            (Who::Server, 203, ACK, 0, [2, 2]),
        ]);
        let mut calls = opening();
        calls.extend([call(Who::Client, "close", 200), call(Who::Server, "close", 200)]);
        for end in of_life(&calls, &conversation(&segments), GONE) {
            assert_eq!(states(&end)[1..], ["ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT"]);
            assert_eq!(end.closer, ["simultaneous"]);
        }
    }

    /// A connection that nobody accepted is reset with its listener, and data that nobody read is why the other is.
    #[test]
    fn resets() {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([(Who::Client, 150, ACK, 5, [1, 1]), (Who::Server, 201, RST | ACK, 0, [1, 6])]);
        let never = [opening().remove(0), opening().remove(1), call(Who::Server, "unlisten", 200)];
        let accepted: Vec<_> = opening().into_iter().chain([call(Who::Server, "close", 200)]).collect();
        for (calls, why) in [(&never[..], "never_accepted"), (&accepted[..], "reset_unread_data")] {
            let ends = of_life(calls, &conversation(&segments), GONE);
            assert_eq!((&ends[0].closer[..], &ends[0].end[..]), (&["reset_remote"][..], &["reset_received"][..]));
            assert_eq!((&ends[1].closer[..], &ends[1].end[..]), (&["reset_local"][..], &[why][..]));
            assert_eq!((ends[0].sent, ends[1].received.1), ((5, 5), 5));
        }
    }

    #[test]
    fn an_orphan_does_not_wait_for_ever() {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([(Who::Client, 201, FIN | ACK, 0, [1, 1]), (Who::Server, 202, ACK, 0, [1, 2])]);
        let mut calls = opening();
        calls.push(call(Who::Client, "close", 200));
        let ends = of_life(&calls, &conversation(&segments), GONE);
        assert_eq!((&ends[0].closer[..], &ends[0].end[..]), (&["active"][..], &["fin_wait2_timeout"][..]));
        assert_eq!(states(&ends[0])[2..], ["FIN_WAIT1", "FIN_WAIT2"]);
        assert!(ends[1].unsure.is_some(), "nobody closes the other");
    }
}
