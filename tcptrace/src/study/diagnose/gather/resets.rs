//! Who has sent a reset, where both ends of a connection are on this machine.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use crate::model::row::Connection;
use crate::model::tcp::{End, State, Tuple};
use crate::study::diagnose::evidence::{PairKey, Senders, Standing};

/// How many connections wait to be seen from their other end, which ends within milliseconds as a rule.
const MOST: usize = 1 << 14;

/// Resets, until the other end of the connection is seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Resets {
    /// By their ends, as this side sees them.
    halves: HashMap<(Place, Tuple), Half, FixedState>,
    order: VecDeque<(Place, Tuple)>,
    senders: HashMap<PairKey, Senders, FixedState>,
}

/// The network namespace of addresses that mean another host elsewhere: those of the loopback.
type Place = Option<u32>;

/// One side of a connection that a reset has ended.
#[derive(Clone, Copy, Debug)]
struct Half {
    key: PairKey,
    end: End,
}

impl Resets {
    /// A connection has ended.
    pub(super) fn ended(&mut self, row: &Connection, key: PairKey) {
        let Some(end) = row.end().filter(|end| *end == End::ResetReceived || sends_reset(*end)) else { return };
        let (tuple, half) = (row.identity.tuple, Half { key, end });
        let place = place(row.identity.netns, &tuple);
        if let Some(other) = self.halves.remove(&(place, tuple.reversed())) {
            self.note(half, other.end);
            self.note(other, end);
            return;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.halves.remove(&oldest);
        }
        self.order.push_back((place, tuple));
        self.halves.insert((place, tuple), half);
    }

    /// This side has ended, and the other one has so.
    fn note(&mut self, half: Half, other: End) {
        if half.end != End::ResetReceived {
            return;
        }
        let senders = self.senders.entry(half.key).or_default();
        match other {
            End::ResetReceived => senders.nobody += 1,
            End::ResetDataAfterClose => senders.after_close += 1,
            _ => senders.process += 1,
        }
    }

    /// By pair. A connection whose other end is still open was reset by neither.
    pub(super) fn finish(&self, sockets: &[Standing]) -> HashMap<PairKey, Senders, FixedState> {
        let mut all = self.senders.clone();
        if self.halves.is_empty() {
            return all;
        }
        let is_open =
            |socket: &&Standing| matches!(socket.state, State::Established | State::CloseWait | State::FinWait1);
        let others = sockets.iter().filter(is_open).map(|it| (place(it.netns, &it.tuple), it.tuple.reversed()));
        let others: HashSet<(Place, Tuple), FixedState> = others.collect();
        let received = self.halves.iter().filter(|(_, half)| half.end == End::ResetReceived);
        for (_, half) in received.filter(|(ends, _)| others.contains(ends)) {
            all.entry(half.key).or_default().nobody += 1;
        }
        all
    }
}

/// Whether this side may have sent a reset then.
fn sends_reset(end: End) -> bool {
    end.is_reset()
        || matches!(
            end,
            End::NeverAccepted
                | End::Disconnected
                | End::Killed
                | End::OrphanKilled
                | End::KeepaliveTimeout
                | End::UserTimeout
                | End::FinWait2Timeout
        )
}

/// Two containers can have connections between the same addresses of the loopback.
fn place(netns: Option<u32>, tuple: &Tuple) -> Place {
    let is_loopback = |ip: Ipv6Addr| ip.to_canonical().is_loopback();
    netns.filter(|_| is_loopback(tuple.local_ip) || is_loopback(tuple.remote_ip))
}
