//! A recording and the engine that follows its items.

use std::io::{self, Read};

use super::recording::Recording;
use super::{Audience, Span};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::model::criteria::Criteria;
use crate::model::event::Event;
use crate::model::row::Row;
use crate::model::stream::{Head, Item, Origin, Summary};

/// A recording and the engine that follows its items.
pub(super) struct Followed<R> {
    pub(super) recording: Recording<R>,
    follower: Follower,
    /// Everything was read, or the rest is not wanted.
    pub(super) is_over: bool,
    begins: i64,
}

impl<R: Read> Followed<R> {
    /// `is_whole`: what the recording itself was to show does not matter.
    pub(super) fn new(
        number: usize,
        recording: Recording<R>,
        config: Config,
        criteria: &Criteria,
        is_whole: bool,
    ) -> Self {
        let head = &recording.head;
        let (resets, fins) = (head.sees_resets(), head.sees_fins());
        let (received_resets, accepts) = (head.sees_received_resets(), head.sees_accepts());
        let Head { existing, knows_cookies: scans, partial_scans, .. } = recording.head;
        let config = Config { existing, scans, partial_scans, resets, received_resets, fins, accepts, ..config };
        let mut origin = Origin {
            number,
            host: head.host.as_str().into(),
            kernel: head.kernel.as_str().into(),
            boot_id: head.boot_id.as_str().into(),
            ..Origin::default()
        };
        origin.context.clock = recording.clock;
        let own = (!is_whole).then(|| head.filter.clone());
        let follower = Follower::new(config, own.into_iter().chain([criteria.clone()]), origin);
        Self { begins: recording.starts(), recording, follower, is_over: false }
    }

    /// The time of the next event.
    pub(super) fn next_time(&self) -> Option<i64> {
        (!self.is_over).then(|| self.recording.clock.unix_ns(self.recording.at))
    }

    /// Passes on all events until then, and at least one item.
    pub(super) fn advance<E: From<io::Error>>(
        &mut self,
        until: i64,
        span: Span,
        audience: &mut impl Audience<E>,
    ) -> Result<(), E> {
        let Self { recording, follower, is_over, .. } = self;
        if recording.next >= recording.items.len() && !recording.fill()? {
            *is_over = true;
            return Ok(());
        }
        let rest = &recording.items[recording.next..];
        let mut clock = recording.clock;
        let mut taken = 0;
        for item in rest {
            match item {
                Item::Event(event) => {
                    let time = clock.unix_ns(event.at());
                    if time > span.to || time > until && taken > 0 {
                        break;
                    }
                    recording.at = recording.at.max(event.at());
                }
                Item::Clocks(clocks) => clock = clocks.clock(),
                _ => {}
            }
            taken += 1;
        }
        recording.clock = clock;
        if taken == 0 {
            // All further events are too late.
            *is_over = true;
            return Ok(());
        }
        audience.time(clock.unix_ns(recording.at))?;
        let items = &rest[..taken];
        recording.next += taken;
        follower.prepare(items);
        take(follower, items, span, audience)?;
        if let Some(Item::Event(next)) = recording.items.get(recording.next) {
            recording.at = recording.at.max(next.at());
        }
        Ok(())
    }

    pub(super) fn finish<E: From<io::Error>>(
        mut self,
        span: Span,
        open_too: bool,
        audience: &mut impl Audience<E>,
        summary: &mut Summary,
    ) -> Result<(), E> {
        let ends = self.recording.clock.unix_ns(self.recording.at);
        let at = ends.min(span.to).saturating_sub(self.recording.clock.boot_to_unix_ns);
        let passed = Item::Event(Event::Passed { at: u64::try_from(at).unwrap_or(0) });
        take(&mut self.follower, &[passed], span, audience)?;
        if open_too {
            self.follower.take_open(|row, origin| audience.row(row, origin))?;
        }
        self.follower.finish(|row, origin| pass_on(row, origin, span, audience))?;
        audience.ends(self.follower.origin());
        let host = &self.recording.head.host;
        if !summary.hosts.iter().any(|known| **known == **host) {
            summary.hosts.push(host.as_str().into());
        }
        summary.from_unix_ns = summary.from_unix_ns.min(self.begins.max(span.from));
        summary.to_unix_ns = summary.to_unix_ns.max(ends.min(span.to));
        self.follower.add_to(summary);
        summary.damage.append(&mut self.recording.damage);
        summary.cut_off.append(&mut self.recording.cut_off);
        Ok(())
    }
}

/// Follows items and passes on the rows; before those of each item, the item itself, if the audience takes items.
fn take<E>(follower: &mut Follower, items: &[Item], span: Span, audience: &mut impl Audience<E>) -> Result<(), E> {
    if !audience.takes_items() {
        return follower.take(items, |row, origin| pass_on(row, origin, span, audience));
    }
    // A new owner also concerns connections whose rows have come, and a look ends with what it found.
    let is_of_owner = |item: &Item| matches!(item, Item::Event(Event::Accepted { .. } | Event::Holder(_)));
    let ends_look = |item: &Item| matches!(item, Item::Event(Event::SurveyEnded { .. } | Event::ScanEnded { .. }));
    items.chunk_by(|item, next| !is_of_owner(next) && !ends_look(item)).try_for_each(|items| {
        items.iter().for_each(|item| audience.item(item, follower.origin()));
        follower.take(items, |row, origin| pass_on(row, origin, span, audience))?;
        if items.last().is_some_and(ends_look) {
            audience.looked(follower);
        }
        Ok(())
    })
}

/// Passes on a row within the wanted time.
fn pass_on<E>(row: &Row, origin: &Origin, span: Span, audience: &mut impl Audience<E>) -> Result<(), E> {
    let is_wanted = (span.from..=span.to).contains(&origin.context.clock.unix_ns(row.boot_ns()));
    if is_wanted { audience.row(row, origin) } else { Ok(()) }
}
