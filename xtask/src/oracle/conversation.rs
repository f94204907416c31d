//! Sorts packets into conversations, one for each attempt to connect, with the times at which each segment left and
//! arrived.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::log::Call;
use super::packets::{ACK, FIN, Packet, RST, SYN};
use super::rules::Verdict;
use super::script::{Place, Who};

/// Rules for segments that have neither FIN nor SYN nor RST.
pub(super) const REST: u64 = 8;

/// The kinds of rules that match a segment with these flags: rules for FIN, for SYN, for RST, and for all other
/// segments.
pub(super) fn kinds(flags: u8) -> u64 {
    let kinds = u64::from(flags & (FIN | SYN | RST));
    if kinds == 0 { REST } else { kinds }
}

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) from: Who,
    pub(super) sent: u64,
    pub(super) received: Option<u64>,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) len: u32,
    /// Whether a rule's answer made it, not the socket.
    pub(super) is_by_rule: bool,
    /// Whether a rule answered it with an ICMP error.
    pub(super) is_unreachable: bool,
}

impl Segment {
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn kinds(&self) -> u64 {
        kinds(self.flags)
    }

    /// Whether a call made this reset: the answer to a segment acknowledges nothing, unless that segment had no
    /// acknowledgement.
    pub(super) fn is_active_reset(&self) -> bool {
        self.is(RST) && self.is(ACK)
    }

    /// Whether it acknowledges all of a segment that came from the other end.
    pub(super) fn acknowledges(&self, other: &Self) -> bool {
        self.is(ACK) && self.ack.wrapping_sub(other.seq.wrapping_add(other.space())).cast_signed() >= 0
    }

    /// Its length in the sequence space.
    pub(super) fn space(&self) -> u32 {
        self.len + u32::from(self.is(SYN)) + u32::from(self.is(FIN))
    }
}

/// All segments of a connection, from its SYN on.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) segments: Vec<Segment>,
    /// The beginning of the next connection between the same ends.
    pub(super) next: Option<u64>,
    /// Why its outcome is unknown.
    pub(super) doubt: Option<&'static str>,
}

impl Conversation {
    pub(super) fn begun(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.sent)
    }

    /// Whether both ends are in the same network namespace.
    pub(super) fn is_in_one_namespace(&self) -> bool {
        super::actor::place_of(self.server.ip()) == Some(Place::Loopback)
    }

    pub(super) fn of(&self, who: Who) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.from == who)
    }

    /// Its initial sequence number, if it has one.
    pub(super) fn initial(&self, who: Who) -> Option<u32> {
        self.of(who).find(|segment| segment.is(SYN)).map(|segment| segment.seq)
    }

    /// The answers of further sockets of the server to a SYN: each has an initial sequence number of its own. A SYN that is
    /// repeated after the server's first socket has ended, as by an ICMP error, makes another one.
    pub(super) fn other_servers(&self) -> impl Iterator<Item = &Segment> {
        let mut known: Vec<u32> = self.initial(Who::Server).into_iter().collect();
        self.of(Who::Server).filter(move |segment| {
            let is_other = segment.is(SYN) && !known.contains(&segment.seq);
            known.extend(is_other.then_some(segment.seq));
            is_other
        })
    }

    /// When the server received the segment that completes the handshake.
    pub(super) fn accepted_by_server(&self) -> Option<u64> {
        let server = self.initial(Who::Server)?;
        let confirms = |segment: &&Segment| {
            segment.is(ACK) && !segment.is(SYN) && segment.ack.wrapping_sub(server) >= 1 && segment.received.is_some()
        };
        let first = self.of(Who::Client).filter(confirms).min_by_key(|segment| segment.received)?;
        if first.is(RST) { None } else { first.received }
    }
}

impl Conversation {
    /// When the server's socket was created: at the SYN if it accepted the SYN's data, as with Fast Open.
    pub(super) fn born(&self) -> Option<u64> {
        let answer = self.of(Who::Server).find(|segment| segment.is(SYN))?;
        let took = |segment: &&Segment| {
            segment.is(SYN) && segment.len > 0 && answer.ack == segment.seq.wrapping_add(segment.space())
        };
        let syn = self.of(Who::Client).filter(took).filter_map(|syn| syn.received).min();
        syn.or_else(|| self.accepted_by_server())
    }

    /// Whether a segment's number is near the initial one, as far as that is known.
    fn may_have(&self, who: Who, packet: &Packet) -> bool {
        const NEAR: u32 = 1 << 24;
        let of = |initial: u32, number: u32| number.wrapping_sub(initial) < NEAR;
        match (self.initial(who), self.initial(who.peer())) {
            (Some(initial), _) => of(initial, packet.seq),
            (None, Some(peer)) => packet.flags & ACK == 0 || of(peer, packet.ack),
            (None, None) => true,
        }
    }

    /// Removes the arrival of segments that a rule dropped after the packet socket saw them.
    pub(super) fn drop_by_rules(&mut self, calls: &[Call]) {
        for verdict in Verdict::ALL {
            let is_it = |call: &&Call| call.name == verdict.name() && call.errno == 0;
            for rule in calls.iter().filter(is_it) {
                self.apply(verdict, rule, calls);
            }
        }
        if self.other_servers().next().is_some() {
            self.doubt.get_or_insert("a server that was asked twice");
        }
    }

    fn apply(&mut self, verdict: Verdict, rule: &Call, calls: &[Call]) {
        let is_end = |call: &&Call| call.name == "undrop" && call.who == rule.who && call.from >= rule.from;
        let ends = calls.iter().find(is_end);
        let (begin, begun) = (rule.from, rule.to.unwrap_or(u64::MAX));
        let (end, ended) = ends.map_or((u64::MAX, u64::MAX), |call| (call.from, call.to.unwrap_or(u64::MAX)));
        for at in 0..self.segments.len() {
            let segment = self.segments[at];
            let Some(received) = segment.received else { continue };
            if segment.from == rule.who || rule.number & segment.kinds() == 0 {
                continue;
            }
            if received >= begun && received <= end {
                self.segments[at].received = None;
                self.segments[at].is_unreachable = verdict == Verdict::Unreach;
                if verdict == Verdict::Reject {
                    self.note_answer(&segment, received);
                }
            } else if received >= begin && received <= ended {
                self.doubt.get_or_insert("a segment that came while a rule was set");
            }
        }
    }

    /// Finds a rule's reset in answer to a segment (`nf_reject_ip_tcphdr_put`, net/ipv4/netfilter/nf_reject_ipv4.c).
    fn note_answer(&mut self, rejected: &Segment, at: u64) {
        let (seq, ack) =
            if rejected.is(ACK) { (rejected.ack, 0) } else { (0, rejected.seq.wrapping_add(rejected.space())) };
        let is_it = |segment: &&mut Segment| {
            segment.from != rejected.from
                && segment.is(RST)
                && !segment.is_by_rule
                && (segment.seq, segment.ack) == (seq, ack)
                && segment.sent >= at
        };
        if let Some(answer) = self.segments.iter_mut().find(is_it) {
            answer.is_by_rule = true;
        }
    }
}

/// The conversations with each server.
pub(super) fn sort(packets: &[Packet]) -> HashMap<SocketAddr, Vec<Conversation>> {
    let mut servers: HashMap<SocketAddr, Vec<Conversation>> = HashMap::new();
    for packet in packets {
        let Some((who, client, server)) = ends(packet) else { continue };
        let conversations = servers.entry(server).or_default();
        let is_of = |other: &Conversation| other.client == client && other.may_have(who, packet);
        let latest = conversations.iter().rposition(|other| other.client == client);
        // Retransmissions of an earlier socket belong to that socket.
        let is_sure = |other: &Conversation| is_of(other) && other.initial(who).is_some();
        // A reset without an acknowledgement says least about its connection.
        let is_bare = packet.flags & (RST | ACK) == RST;
        let sure = conversations.iter().rposition(is_sure).filter(|_| is_bare);
        let current = sure.or_else(|| conversations.iter().rposition(is_of)).or(latest);
        if !packet.is_outgoing {
            if let Some(at) = current {
                note_received(&mut conversations[at], who, packet);
            }
            continue;
        }
        let is_syn = packet.flags & (SYN | ACK) == SYN && who == Who::Client;
        let is_new = is_syn && latest.is_none_or(|at| conversations[at].initial(Who::Client) != Some(packet.seq));
        if is_new {
            if let Some(at) = latest {
                conversations[at].next = Some(packet.at);
            }
            conversations.push(Conversation { client, server, segments: Vec::new(), next: None, doubt: None });
        }
        let at = if is_new { Some(conversations.len() - 1) } else { current };
        if let Some(at) = at {
            let Packet { at: sent, seq, ack, flags, len, .. } = *packet;
            conversations[at].segments.push(Segment {
                from: who,
                sent,
                received: None,
                seq,
                ack,
                flags,
                len,
                is_by_rule: false,
                is_unreachable: false,
            });
        }
    }
    servers
}

/// The sender, and the client's and the server's addresses; only servers use the servers' port.
fn ends(packet: &Packet) -> Option<(Who, SocketAddr, SocketAddr)> {
    match (packet.from.port(), packet.to.port()) {
        (_, super::actor::PORT) => Some((Who::Client, packet.from, packet.to)),
        (super::actor::PORT, _) => Some((Who::Server, packet.to, packet.from)),
        _ => None,
    }
}

fn note_received(conversation: &mut Conversation, who: Who, packet: &Packet) {
    let of_packet = (packet.seq, packet.ack, packet.flags, packet.len);
    let is_it = |segment: &&mut Segment| {
        segment.from == who
            && segment.received.is_none()
            && (segment.seq, segment.ack, segment.flags, segment.len) == of_packet
    };
    if let Some(segment) = conversation.segments.iter_mut().find(is_it) {
        segment.received = Some(packet.at.max(segment.sent));
    }
}
