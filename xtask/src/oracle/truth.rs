//! The witnesses' knowledge of each end of a connection: its states and when they began, how it ended, and its owner.
//!
//! This is a second implementation of RFC 9293 and of the kernel's behaviour, from segments and system calls alone.
//! Every time is a range, and every word one of several alternatives. Where the witnesses do not know, they say why.

mod amounts;
mod happened;
mod led;
mod steps;
#[cfg(test)]
mod tests;
mod timers;

use std::net::SocketAddr;

use super::conversation::{Conversation, Segment};
use super::destroyed::Counted;
use super::log::Call;
use super::packets::{FIN, RST, SYN};
use super::script::Who;

/// Earliest and latest time, in ns of `CLOCK_BOOTTIME`.
pub(super) type Range = (u64, u64);

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The kernel has processed a segment this long after its arrival.
const SOON: u64 = 2 * MS;

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
    /// Its owner; none if it was never accepted.
    pub(super) owner: Vec<u32>,
    pub(super) is_owned: bool,
    /// Processes that may have closed it, and whether one of them certainly did.
    pub(super) closers: Vec<u32>,
    pub(super) is_closed: bool,
    pub(super) sent: Range,
    pub(super) received: Range,
    pub(super) is_retransmitted: bool,
    /// The counts of its socket when the kernel freed it.
    pub(super) counted: Option<Counted>,
    /// Why the witnesses do not know.
    pub(super) unsure: Option<&'static str>,
}

/// A state, with the times of its beginning and its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stay {
    pub(super) state: &'static str,
    pub(super) begin: Range,
    pub(super) end: Range,
}

/// Something that happened to an end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Established,
    OwnFin,
    FinAcked,
    PeerFin,
    OwnReset,
    PeerReset,
    /// The last descriptor of its socket was closed.
    Orphaned,
    /// The first call that ends a connect.
    LetGo,
    /// An administrator destroyed it.
    Killed,
    /// A call returned that it had timed out.
    TimedOut,
    /// `connect(AF_UNSPEC)` in a state in which it sends no reset.
    Disconnected,
}

/// Everything that the witnesses know about one end.
struct Witness<'a> {
    who: Who,
    conversation: &'a Conversation,
    /// The next connection between the same ends.
    next: Option<&'a Conversation>,
    /// Calls on this socket, or on the listener if it was never accepted.
    calls: Vec<&'a Call>,
    is_accepted: bool,
    /// When the network namespace was destroyed.
    gone: Range,
}

/// The ends of a life's connections.
pub(super) fn of_life(calls: &[Call], conversations: &[Conversation], gone: Range) -> Vec<Expected> {
    let mut ends = Vec::new();
    let mut accepts: Vec<&Call> = calls.iter().filter(|call| call.name == "accept" && call.errno == 0).collect();
    let listeners: Vec<&Call> = calls.iter().filter(|call| call.name == "listen" && call.errno == 0).collect();
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
        let accept = take_accept(&mut accepts, conversation, born, listeners.len() > 1);
        let first = server(conversation, next, calls, &listeners, accept, born, gone);
        // Which of them was accepted is unknown, and so is whether each became more than a request.
        let other = |answer: &Segment| Expected {
            cookie: None,
            opened: (answer.sent, gone.1),
            unsure: conversation.doubt.or(first.unsure),
            ..first.clone()
        };
        let others: Vec<Expected> = conversation.other_servers().map(other).collect();
        ends.push(first);
        ends.extend(others);
    }
    ends.extend(calls.iter().filter_map(|call| without_segments(call, conversations)));
    ends
}

/// Each listener's queue is in order: the connection that was made first is accepted first.
fn take_accept<'a>(
    accepts: &mut Vec<&'a Call>,
    conversation: &Conversation,
    born: u64,
    is_shared: bool,
) -> Option<&'a Call> {
    let later = |call: &&Call| call.to.is_some_and(|to| to >= born);
    let at = if is_shared {
        let is_it = |call: &Call| call.remote.is_none_or(|remote| remote == conversation.client);
        let candidates = accepts.iter().enumerate().filter(|(_, call)| later(call) && is_it(call));
        candidates.min_by_key(|(_, call)| call.to).map(|(at, _)| at)
    } else {
        accepts.iter().position(later)
    };
    at.map(|at| accepts.remove(at))
}

/// The server's end.
fn server(
    conversation: &Conversation,
    next: Option<&Conversation>,
    calls: &[Call],
    listeners: &[&Call],
    accept: Option<&Call>,
    born: u64,
    gone: Range,
) -> Expected {
    let unlistens = |call: &&Call| {
        call.who == Who::Server && matches!(call.name.as_str(), "unlisten" | "exit" | "kill") && call.errno == 0
    };
    // With several listeners, it is the one whose close resets the connection.
    let resets = |call: &&Call| {
        let until = call.to.unwrap_or(call.from + 50 * MS) + SOON;
        conversation.of(Who::Server).any(|segment| segment.is(RST) && (call.from..=until).contains(&segment.sent))
    };
    let is_shared = listeners.len() > 1;
    let mut pids: Vec<u32> = calls.iter().filter(unlistens).filter(resets).map(|call| call.pid).collect();
    pids.dedup();
    let pid = if let &[pid] = &pids[..] { Some(pid) } else { None };
    let is_own = |call: &&Call| match accept {
        Some(accept) => call.who == Who::Server && call.cookie == accept.cookie && call.name != "unlisten",
        None => unlistens(call) && (!is_shared || Some(call.pid) == pid),
    };
    let own = calls.iter().filter(is_own).collect();
    let witness = Witness { who: Who::Server, conversation, next, calls: own, is_accepted: accept.is_some(), gone };
    let is_listener = |call: &&&Call| !is_shared || Some(call.pid) == pid;
    let listener = listeners.iter().find(is_listener).or(listeners.first()).copied();
    let mut end = witness.expected(accept.or(listener));
    if accept.and_then(|accept| accept.remote).is_some_and(|remote| remote != conversation.client) {
        end.unsure = Some("accepted in another order");
    } else if is_shared && next.is_some_and(|next| accept.and_then(|call| call.to).is_some_and(|to| to >= next.begun()))
    {
        end.unsure = Some("unknown which of two was accepted");
    } else if accept.is_none() && calls.iter().filter(unlistens).any(|call| call.from <= born) {
        end.unsure = Some("the listener was closed just then");
    } else if accept.is_none() && is_shared && pid.is_none() {
        end.unsure = Some("a listener with an unknown owner");
    }
    end
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
    /// Segments that its socket sent.
    fn mine(&self) -> impl Iterator<Item = &Segment> {
        self.conversation.of(self.who).filter(|segment| !segment.is_by_rule)
    }

    /// Segments that arrived, and when.
    fn theirs(&self) -> impl Iterator<Item = (u64, &Segment)> {
        let came = self.conversation.of(self.who.peer()).filter_map(|segment| Some((segment.received?, segment)));
        let mut came: Vec<_> = came.collect();
        came.sort_by_key(|(at, _)| *at);
        came.into_iter()
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
            unsure: life.unsure.or_else(|| opener.is_none().then_some("an unknown opener")),
        }
    }

    fn closing_calls(&self) -> Vec<&Call> {
        let closes = |call: &&&Call| {
            call.errno == 0
                && match call.name.as_str() {
                    "shutwr" | "shutrdwr" | "disconnect" | "close" | "exit" | "kill" => true,
                    "unlisten" => !self.is_accepted,
                    // During a connect, a shutdown in either direction gives it up.
                    "shutrd" => !self.theirs().any(|(_, segment)| segment.is(SYN)),
                    _ => false,
                }
        };
        let mut calls = Vec::new();
        for call in self.calls.iter().filter(closes) {
            calls.push(*call);
            // After this, the process no longer has the socket.
            if matches!(call.name.as_str(), "close" | "exit" | "kill" | "unlisten" | "disconnect") {
                break;
            }
        }
        calls
    }

    /// The call that closed the last descriptor of the socket.
    fn last_close(&self) -> Option<&Call> {
        let calls = self.closing_calls();
        calls.into_iter().find(|call| matches!(call.name.as_str(), "close" | "exit" | "kill" | "unlisten"))
    }

    /// The latest time at which the kernel has processed a segment that arrived at this time: it waits while a call
    /// owns the socket lock.
    fn done_by(&self, at: u64) -> u64 {
        let has_it = |call: &&&Call| call.from <= at + SOON;
        self.calls.iter().filter(has_it).filter_map(|call| call.to).filter(|to| *to >= at).max().unwrap_or(at)
    }

    fn on_arrival(&self, at: u64) -> Range {
        (at, self.done_by(at))
    }

    /// When a closing call took effect.
    fn effect(&self, call: &Call) -> Range {
        // An exiting process closes its descriptors soon; the segments that it sends show when.
        let ends = |segment: &&Segment| {
            (segment.is(FIN) || segment.is_active_reset()) && (call.from..=call.from + SECOND).contains(&segment.sent)
        };
        let sent = self.mine().find(ends).map(|segment| segment.sent);
        let back = call.to.or(sent).unwrap_or(call.from + 50 * MS);
        (call.from, back)
    }

    fn resets_within(&self, (from, to): Range) -> bool {
        self.mine().any(|segment| segment.is_active_reset() && segment.sent >= from && segment.sent <= to + SOON)
    }

    /// The last value of this socket option.
    fn option(&self, name: &str) -> Option<u64> {
        self.calls.iter().rev().find(|call| call.name == name && call.errno == 0).map(|call| call.number)
    }
}
