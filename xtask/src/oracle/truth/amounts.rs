//! Bytes that were sent, that arrived, and that were left unread.

use super::super::conversation::Segment;
use super::super::log::Call;
use super::super::packets::{ACK, RST};
use super::{Range, SOON, Witness};

impl Witness<'_> {
    /// How much of the peer's data had arrived in order by this time.
    pub(super) fn next_expected(&self, by: u64) -> Option<u32> {
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

    /// Number of bytes that were unread at the close, which may have sent a reset.
    pub(super) fn unread(&self, call: &Call, reset: Option<&Segment>) -> Range {
        let read: u64 = self
            .calls
            .iter()
            .filter(|other| matches!(other.name.as_str(), "recv" | "eof") && other.from <= call.from)
            .map(|other| other.number)
            .sum();
        if let Some(received) = reset.and_then(|reset| self.acknowledged_by(reset)) {
            let unread = received.saturating_sub(read);
            return (unread, unread);
        }
        let bytes = |by| u64::from(self.next_expected(by).unwrap_or(1).saturating_sub(1 + self.fin_by(by)));
        (bytes(call.from).saturating_sub(read), bytes(self.effect(call).1).saturating_sub(read))
    }

    /// Number of bytes that its socket had received when it sent this segment: a segment that arrived just before may not
    /// have been processed.
    fn acknowledged_by(&self, segment: &Segment) -> Option<u64> {
        let space = segment.ack.wrapping_sub(self.conversation.initial(self.who.peer())?);
        let has_fin = self.peer_fin().is_some_and(|(_, fin)| segment.acknowledges(&fin));
        segment.is(ACK).then(|| u64::from(space.saturating_sub(1 + u32::from(has_fin))))
    }

    /// Whether the peer's FIN had come.
    pub(super) fn fin_by(&self, by: u64) -> u32 {
        u32::from(self.peer_fin().is_some_and(|(at, _)| at.0 <= by))
    }

    pub(super) fn sent(&self, ended: Range) -> Range {
        let by = |at: u64| self.mine().filter(|segment| segment.sent <= at).map(|segment| u64::from(segment.len)).sum();
        (by(ended.0.saturating_sub(SOON)), by(ended.1 + SOON))
    }

    /// Acknowledged bytes were received; bytes that never arrived were not.
    pub(super) fn received(&self, ended: Range) -> Range {
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

    pub(super) fn is_retransmitted(&self) -> bool {
        !self.tries().is_empty()
    }

    /// When it retransmitted.
    pub(super) fn tries(&self) -> Vec<u64> {
        let Some(initial) = self.conversation.initial(self.who) else { return Vec::new() };
        let mut next = 0;
        let mut tries = Vec::new();
        for segment in self.mine().filter(|segment| !segment.is(RST)) {
            let begin = segment.seq.wrapping_sub(initial);
            let is_again = segment.space() > 0 && begin < next;
            // A zero-window probe sends the previous byte.
            if is_again || (segment.space() == 0 && begin.wrapping_add(1) == next && next > 1) {
                tries.push(segment.sent);
            }
            next = next.max(begin.wrapping_add(segment.space()));
        }
        tries
    }
}
