//! Readings in, samples out.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::{Counters, Sample, Unseen, Values};

/// A change is reported after this time at the latest; growth that no event shows, at once.
const REPORT_NS: u64 = 10_000_000_000;

/// The last reading of every network namespace.
#[derive(Debug, Default)]
pub struct History {
    known: HashMap<u32, Known, FixedState>,
    /// The first look has ended: a namespace that is new from then on was made since.
    is_begun: bool,
}

#[derive(Debug)]
struct Known {
    /// As last reported.
    reported: Counters,
    looked_at: u64,
}

impl History {
    /// Takes a reading, and emits samples: the changes, if they are due, and the totals, if `whole`.
    pub fn take(&mut self, reading: Counters, whole: bool, out: &mut Vec<Sample>) {
        let Some(known) = self.known.get_mut(&reading.netns).filter(|known| is_same(&known.reported, &reading)) else {
            let (at, is_base) = (reading.at, !self.is_begun);
            if !is_base {
                out.push(Sample { whole: false, ..everything(&reading) });
            }
            if is_base || whole {
                out.push(everything(&reading));
            }
            self.known.insert(reading.netns, Known { reported: reading, looked_at: at });
            return;
        };
        let sample = difference(known, &reading);
        let is_news = !sample.counts.is_empty() || !sample.levels.is_empty();
        let is_time = whole
            || reading.at.saturating_sub(known.reported.at) >= REPORT_NS
            || Unseen::ALL.iter().any(|counter| sample.counts.contains_key(counter.key()));
        known.looked_at = reading.at;
        if is_news && is_time {
            out.push(sample);
        }
        out.extend(whole.then(|| everything(&reading)));
        if is_time || !is_news {
            known.reported = reading;
        }
    }

    /// The look is over. `all` are the existing namespaces, if the look searched for them: others are gone.
    pub fn end_look(&mut self, all: Option<&HashSet<u32, FixedState>>) {
        self.is_begun = true;
        if let Some(all) = all {
            self.known.retain(|netns, _| all.contains(netns));
        }
    }
}

/// Whether both readings are of the same namespace, the second one later.
fn is_same(before: &Counters, now: &Counters) -> bool {
    match (before.cookie, now.cookie) {
        (Some(before), Some(now)) => before == now,
        // Counters only grow.
        _ => before.counts.iter().all(|(name, count)| now.counts.get(name).is_some_and(|now| now >= count)),
    }
}

fn everything(reading: &Counters) -> Sample {
    let Counters { netns, cookie, at, ref counts, ref levels } = *reading;
    let (counts, levels) = (counts.clone(), levels.clone());
    Sample { at, netns, cookie, whole: true, since: None, quiet_until: None, counts, levels }
}

fn difference(known: &Known, now: &Counters) -> Sample {
    let Known { reported: before, looked_at } = known;
    let of = |values: &Values, name: &str| values.get(name).copied().unwrap_or(0);
    let grown = now.counts.iter().map(|(name, count)| (name, count.saturating_sub(of(&before.counts, name))));
    let gone = before.levels.keys().filter(|name| !now.levels.contains_key(*name)).map(|name| (name.clone(), 0));
    let changed = now.levels.iter().filter(|(name, level)| of(&before.levels, name) != **level);
    let changed = changed.map(|(name, level)| (name.clone(), *level));
    Sample {
        at: now.at,
        netns: now.netns,
        cookie: now.cookie,
        whole: false,
        since: Some(before.at),
        quiet_until: Some(*looked_at),
        counts: grown.filter(|(_, more)| *more > 0).map(|(name, more)| (name.clone(), more)).collect(),
        levels: changed.chain(gone).collect(),
    }
}
