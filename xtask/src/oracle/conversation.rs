//! Packets, put in order: one conversation for each connection that was begun, with when each segment left and came.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::log::Call;
use super::packets::{ACK, FIN, Packet, RST, SYN};
use super::script::Who;

/// Rules for segments that have neither FIN nor SYN nor RST.
pub(super) const REST: u64 = 8;

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
}

impl Segment {
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// By what kinds of rules it is dropped: those for FIN, for SYN, for RST, and for all else.
    fn kinds(&self) -> u64 {
        let kinds = u64::from(self.flags & (FIN | SYN | RST));
        if kinds == 0 { REST } else { kinds }
    }

    /// How much of the sequence space it takes.
    pub(super) fn space(&self) -> u32 {
        self.len + u32::from(self.is(SYN)) + u32::from(self.is(FIN))
    }
}

/// All segments of a connection, from its SYN.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) segments: Vec<Segment>,
    /// When the next one between the same ends began.
    pub(super) next: Option<u64>,
    /// Whether a segment came just when a rule was set that drops such.
    pub(super) is_ambiguous: bool,
}

impl Conversation {
    pub(super) fn begun(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.sent)
    }

    pub(super) fn of(&self, who: Who) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.from == who)
    }

    /// Its initial sequence number, once it has one.
    pub(super) fn initial(&self, who: Who) -> Option<u32> {
        self.of(who).find(|segment| segment.is(SYN)).map(|segment| segment.seq)
    }

    /// When the server got what makes it a connection.
    pub(super) fn accepted_by_server(&self) -> Option<u64> {
        let server = self.initial(Who::Server)?;
        let confirms = |segment: &&Segment| {
            segment.is(ACK) && !segment.is(SYN) && segment.ack.wrapping_sub(server) >= 1 && segment.received.is_some()
        };
        let first = self.of(Who::Client).find(confirms)?;
        if first.is(RST) { None } else { first.received }
    }
}

impl Conversation {
    /// When the server's socket was made: by the SYN if it took what that brought, as with Fast Open.
    pub(super) fn born(&self) -> Option<u64> {
        let answer = self.of(Who::Server).find(|segment| segment.is(SYN))?;
        let took = |segment: &&Segment| {
            segment.is(SYN) && segment.len > 0 && answer.ack == segment.seq.wrapping_add(segment.space())
        };
        let syn = self.of(Who::Client).find(took).and_then(|syn| syn.received);
        syn.or_else(|| self.accepted_by_server())
    }

    /// Whether a segment has a number that is near to the first one, where that is known.
    fn may_have(&self, who: Who, packet: &Packet) -> bool {
        const NEAR: u32 = 1 << 24;
        let of = |initial: u32, number: u32| number.wrapping_sub(initial) < NEAR;
        match (self.initial(who), self.initial(who.peer())) {
            (Some(initial), _) => of(initial, packet.seq),
            (None, Some(peer)) => packet.flags & ACK == 0 || of(peer, packet.ack),
            (None, None) => true,
        }
    }

    /// Forgets that segments came which a rule dropped after the packet socket saw them.
    pub(super) fn drop_by_rules(&mut self, calls: &[Call]) {
        for (at, rule) in calls.iter().enumerate().filter(|(_, call)| call.name == "drop" && call.errno == 0) {
            let ends = calls[at..].iter().find(|call| call.name == "undrop" && call.who == rule.who);
            let (begin, begun) = (rule.from, rule.to.unwrap_or(u64::MAX));
            let (end, ended) = ends.map_or((u64::MAX, u64::MAX), |call| (call.from, call.to.unwrap_or(u64::MAX)));
            let is_dropped = |segment: &Segment| segment.from != rule.who && rule.number & segment.kinds() != 0;
            for segment in self.segments.iter_mut().filter(|segment| is_dropped(segment)) {
                let Some(received) = segment.received else { continue };
                if received >= begun && received <= end {
                    segment.received = None;
                } else if received >= begin && received <= ended {
                    self.is_ambiguous = true;
                }
            }
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
        // What an earlier socket sends again belongs to it.
        let current = conversations.iter().rposition(is_of).or(latest);
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
            conversations.push(Conversation { client, server, segments: Vec::new(), next: None, is_ambiguous: false });
        }
        let at = if is_new { Some(conversations.len() - 1) } else { current };
        if let Some(at) = at {
            let Packet { at: sent, seq, ack, flags, len, .. } = *packet;
            conversations[at].segments.push(Segment { from: who, sent, received: None, seq, ack, flags, len });
        }
    }
    servers
}

/// Who sent it, and the client's and the server's addresses: servers have a port that no client has.
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
        segment.received = Some(packet.at);
    }
}
