//! Compares the events with the kernel's own counters.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::clock::boot_ns;
use super::source::{Readings, Source};
use crate::engine::audit::{Scope, Tally, compare};
use crate::model::criteria::Criteria;
use crate::model::event::Event;
use crate::model::feature::Feature;
use crate::model::finding::{Counter, MARGIN_NS, Reading};
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::Item;
use crate::model::transition::Transition;

/// Passes items to a sink, and counts them for the audit if requested.
pub struct Audited<S> {
    pub sink: S,
    audit: Option<Audit>,
}

struct Audit {
    tally: Tally,
    scope: Scope,
    first: Vec<Reading>,
    readings: Readings,
}

impl<S: Sink> Audited<S> {
    /// Starts to count, if `wanted`. The programs must be attached, and no item passed on yet.
    ///
    /// # Errors
    /// When the kernel side lacks what the audit needs, or the kernel's counters cannot be read.
    pub fn new(sink: S, wanted: bool, source: &Source, criteria: &Criteria) -> Result<Self> {
        if !wanted {
            return Ok(Self { sink, audit: None });
        }
        anyhow::ensure!(
            source.knows_cookies(),
            "--audit needs the network namespace of every event, and therefore BTF (see tcptrace check)"
        );
        let scope = Scope {
            namespaces: criteria.netns.clone(),
            counters: Counter::ALL.into_iter().filter(|counter| is_watched(*counter, source)).collect(),
            counts_made: counts_made(&source.head()?.kernel),
        };
        let readings = source.readings();
        let first = readings.read(scope.namespaces.clone()).context("cannot read the kernel's counters")?;
        Ok(Self { sink, audit: Some(Audit { tally: Tally::new(&first), scope, first, readings }) })
    }

    /// With an audit, follows the source for a moment, so that events of the start are certain to be counted.
    ///
    /// # Errors
    /// What the sink returns.
    pub async fn settle_down(&mut self, source: &mut Source) -> Result<()> {
        if self.audit.is_some() {
            source.follow(self, tokio::time::sleep(Duration::from_nanos(MARGIN_NS))).await?;
        }
        Ok(())
    }

    /// Passes on everything that is left, and gives the sink the result of the audit.
    ///
    /// # Errors
    /// What the sink returns, or when the kernel's counters cannot be read.
    pub async fn finish(mut self, source: &mut Source) -> Result<S> {
        source.look_for_missing(&mut self).await?;
        let margin = Duration::from_nanos(MARGIN_NS);
        let Some(audit) = &mut self.audit else {
            source.finish(&mut self.sink)?;
            return Ok(self.sink);
        };
        audit.tally.last_call(boot_ns()?);
        let (only, readings) = (audit.scope.namespaces.clone(), audit.readings.clone());
        source.follow(&mut self, tokio::time::sleep(margin)).await?;
        let (sender, receiver) = oneshot::channel();
        // Events are still received meanwhile. The receiver is gone if the sink stops early.
        thread::spawn(move || drop(sender.send(readings.read(only))));
        let last = source.follow(&mut self, receiver).await?;
        source.follow(&mut self, tokio::time::sleep(margin)).await?;
        source.finish(&mut self)?;
        let Self { mut sink, audit } = self;
        if let (Some(audit), Some(last)) = (audit, last) {
            let last = last.ok().flatten().context("cannot read the kernel's counters")?;
            let findings = compare(&audit.tally, &audit.first, &last, &audit.scope, boot_ns()?);
            sink.take(&findings.into_iter().map(Item::Audit).collect::<Vec<_>>())?;
        }
        Ok(sink)
    }
}

fn is_watched(counter: Counter, source: &Source) -> bool {
    match counter {
        Counter::ActiveOpens | Counter::PassiveOpens | Counter::AttemptFails | Counter::EstabResets => true,
        Counter::AbortOnTimeout => true,
        Counter::Tw => source.has(Feature::MiniCreated) && source.has(Feature::MiniExpired),
        Counter::TwRecycled => source.has(Feature::MiniKilled),
        Counter::TwOverflow => source.has(Feature::MiniCreated) && source.has(Feature::ResetSent),
    }
}

/// Whether this release counts new mini-sockets, as 5.18 and newer do.
fn counts_made(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    let version: (u32, u32) = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return true,
    };
    version >= (5, 18)
}

impl<S: Sink> Sink for Audited<S> {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        if let Some(audit) = &mut self.audit {
            items.iter().for_each(|item| audit.tally.take(item));
        }
        self.sink.take(items)
    }

    /// An audit counts events.
    fn wants_changes(&self) -> bool {
        self.audit.is_none() && self.sink.wants_changes()
    }

    fn take_change(&mut self, change: &impl Transition) -> Result<()> {
        if let Some(audit) = &mut self.audit {
            audit.tally.take(&Item::Event(Event::Change(change.change())));
        }
        self.sink.take_change(change)
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        self.sink.settle(now)
    }

    fn misses_any(&mut self) -> bool {
        self.sink.misses_any()
    }

    fn wishes(&mut self) -> Wishes {
        self.sink.wishes()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("5.8.0", false)]
    #[case("5.17.15-300.fc36", false)]
    #[case("5.18.0-rc1", true)]
    #[case("6.1.0-18-cloud-amd64", true)]
    #[case("10.0", true)]
    fn since_5_18(#[case] release: &str, #[case] expected: bool) {
        assert_eq!(super::counts_made(release), expected);
    }
}
