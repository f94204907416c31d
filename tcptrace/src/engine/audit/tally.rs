//! Events in, counts out.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::engine::lifecycle::{Refusal, time_wait_refused};
use crate::model::event::{Birth, Change, Event, Id, KilledBy, Losses, Mini, MiniEvent};
use crate::model::finding::{Counter, MARGIN_NS, Reading};
use crate::model::stream::Item;
use crate::model::tcp::State;

/// Most ends to keep that depend on a reset that may follow: far more than can be undecided at a time.
const UNDECIDED: usize = 4096;

/// Counts, by network namespace, the events that the kernel counts too.
#[derive(Debug, Default)]
pub struct Tally {
    /// When the counters were first read.
    readings: HashMap<u32, (u64, u64), FixedState>,
    counts: HashMap<u32, Counts, FixedState>,
    /// When the last reading of the counters begins.
    last_call: Option<u64>,
    /// The kernel refused these a mini-socket, unless a reset follows.
    undecided: HashMap<Id, u32, FixedState>,
    losses: Losses,
}

/// What was seen in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events by counter.
    pub seen: [u64; Counter::ALL.len()],
    /// Events that may or may not be in the kernel's count.
    pub doubtful: [u64; Counter::ALL.len()],
    /// Changes of state of full sockets.
    pub transitions: u64,
    /// Mini-sockets whose timer has fired: what [`Counter::Tw`] is before 5.18.
    pub expired: u64,
    /// How many of those may or may not be in the kernel's count.
    pub expired_doubtful: u64,
}

/// Whether an event lies between the two readings of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timing {
    Before,
    /// It may or may not; the flag says which by its time.
    Doubtful(bool),
    Between,
}

/// What an event does to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    One,
    /// An earlier event did not count.
    OneLess,
    /// One or none.
    Perhaps,
}

impl Tally {
    /// A tally that begins with these readings. A namespace without a reading begins with 0.
    pub fn new(readings: &[Reading]) -> Self {
        let times = readings.iter().map(|reading| (reading.netns, (reading.from, reading.to)));
        Self { readings: times.collect(), ..Self::default() }
    }

    /// The last reading of the counters comes a [`MARGIN_NS`] after this moment.
    pub fn last_call(&mut self, at: u64) {
        self.last_call = Some(at);
    }

    /// Events that were lost on their way here.
    pub fn lost(&self) -> u64 {
        self.losses.total().saturating_sub(self.losses.unwritten)
    }

    /// Changes of state among those.
    pub fn lost_transitions(&self) -> u64 {
        self.losses.ring_full.saturating_add(self.losses.output_slow)
    }

    /// What was seen, by namespace.
    pub fn counts(&self) -> &HashMap<u32, Counts, FixedState> {
        &self.counts
    }

    /// Takes an item from a source.
    pub fn take(&mut self, item: &Item) {
        match item {
            Item::Event(Event::Change(change)) => self.change(change),
            Item::Event(Event::Mini(mini)) => self.mini(mini),
            Item::Event(Event::ResetSent { at, id, .. }) => {
                if let Some(netns) = self.undecided.remove(id) {
                    self.count(netns, *at, Counter::TwOverflow, Effect::OneLess);
                }
            }
            Item::Losses(losses) => self.losses = *losses,
            _ => {}
        }
    }

    fn change(&mut self, change: &Change) {
        let Some(netns) = change.netns else { return };
        let is_before = self.timing(netns, change.at) == Timing::Before;
        self.counts.entry(netns).or_default().transitions += u64::from(!is_before);
        let effect = match (change.old, change.new) {
            (State::Closed, State::SynSent) => Some((Counter::ActiveOpens, Effect::One)),
            (State::Listen, State::SynRecv) => Some((Counter::PassiveOpens, Effect::One)),
            (State::SynSent, State::Closed) => never_established(change),
            // Without an error, it was dropped before it was complete, or was one of two made from the same request.
            (State::SynRecv, State::Closed) if error(change) == 0 => Some((Counter::AttemptFails, Effect::Perhaps)),
            (State::SynRecv, State::Closed) => Some((Counter::AttemptFails, Effect::One)),
            (State::Established | State::CloseWait, State::Closed) => Some((Counter::EstabResets, Effect::One)),
            _ => None,
        };
        if let Some((counter, effect)) = effect {
            self.count(netns, change.at, counter, effect);
        }
        if let Some(effect) = gave_up(change) {
            self.count(netns, change.at, Counter::AbortOnTimeout, effect);
        }
        if change.end.is_some_and(|end| matches!(end.mini, Birth::Made { .. })) {
            self.count(netns, change.at, Counter::Tw, Effect::One);
        }
        if let Some(refusal) = time_wait_refused(change) {
            self.count(netns, change.at, Counter::TwOverflow, Effect::One);
            if self.lost() > 0 {
                // When the socket appeared for the first time, it had no cookie to link it to its mini-socket.
                self.count(netns, change.at, Counter::TwOverflow, Effect::Perhaps);
            }
            if refusal == Refusal::UnlessReset && self.undecided.len() < UNDECIDED {
                self.undecided.insert(change.id, netns);
            }
        }
    }

    fn mini(&mut self, mini: &Mini) {
        let Some(netns) = mini.netns else { return };
        match mini.what {
            MiniEvent::Killed(KilledBy::Connect) => self.count(netns, mini.at, Counter::TwRecycled, Effect::One),
            MiniEvent::Killed(KilledBy::Unknown) => self.count(netns, mini.at, Counter::TwRecycled, Effect::Perhaps),
            MiniEvent::Expired => {
                let timing = self.timing(netns, mini.at);
                let counts = self.counts.entry(netns).or_default();
                counts.expired += u64::from(matches!(timing, Timing::Between | Timing::Doubtful(true)));
                counts.expired_doubtful += u64::from(matches!(timing, Timing::Doubtful(_)));
            }
            MiniEvent::Fin | MiniEvent::Rearmed | MiniEvent::Killed(_) => {}
        }
    }

    fn count(&mut self, netns: u32, at: u64, counter: Counter, effect: Effect) {
        let timing = self.timing(netns, at);
        let counts = self.counts.entry(netns).or_default();
        let (seen, doubtful) = (&mut counts.seen[counter as usize], &mut counts.doubtful[counter as usize]);
        match (timing, effect) {
            (Timing::Before, _) => return,
            (Timing::Between | Timing::Doubtful(true), Effect::One) => *seen += 1,
            (Timing::Between | Timing::Doubtful(true), Effect::OneLess) => *seen = seen.saturating_sub(1),
            (Timing::Doubtful(false), _) | (_, Effect::Perhaps) => {}
        }
        *doubtful += u64::from(timing != Timing::Between || effect == Effect::Perhaps);
    }

    fn timing(&self, netns: u32, at: u64) -> Timing {
        if let Some((from, to)) = self.readings.get(&netns) {
            if at.saturating_add(MARGIN_NS) < *from {
                return Timing::Before;
            }
            if at <= to.saturating_add(MARGIN_NS) {
                return Timing::Doubtful(at > *to);
            }
        }
        match self.last_call {
            Some(last_call) if at > last_call => Timing::Doubtful(at <= last_call.saturating_add(MARGIN_NS)),
            _ => Timing::Between,
        }
    }
}

fn error(change: &Change) -> u16 {
    change.end.map_or(0, |end| end.err)
}

/// Whether a timer closed the socket because no answer came.
fn gave_up(change: &Change) -> Option<Effect> {
    const EPIPE: u16 = 32;
    const ECONNABORTED: u16 = 103;
    const ECONNRESET: u16 = 104;
    const ETIMEDOUT: u16 = 110;
    const ECONNREFUSED: u16 = 111;
    let end = change.end.as_ref()?;
    let is_waiting = end.retransmits > 0 || end.probes > 0;
    match end.err {
        ETIMEDOUT => Some(Effect::One),
        EPIPE | ECONNABORTED | ECONNRESET => None,
        // Its process may have fetched the error already: before 6.11 the kernel reports it before it closes the
        // socket.
        0 => (is_waiting && change.flags.is_some_and(|flags| !flags.dead)).then_some(Effect::Perhaps),
        // By a reset; or by a timer that found an earlier ICMP error.
        ECONNREFUSED => is_waiting.then_some(Effect::Perhaps),
        // By ICMP at once, or kept until the timer gave up.
        _ => Some(Effect::Perhaps),
    }
}

/// How closing a connecting socket counts.
fn never_established(change: &Change) -> Option<(Counter, Effect)> {
    if error(change) != 0 {
        return Some((Counter::AttemptFails, Effect::One));
    }
    if change.tuple.local_port == 0 {
        // No local port was available: the kernel sent no SYN.
        return Some((Counter::ActiveOpens, Effect::OneLess));
    }
    // Closed by its process; or `connect` failed before it sent a SYN, though it had a port.
    let is_closed = change.flags.is_some_and(|flags| flags.rcv_shutdown && flags.send_shutdown);
    (!is_closed).then_some((Counter::ActiveOpens, Effect::Perhaps))
}
