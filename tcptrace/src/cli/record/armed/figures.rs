//! The figures of a condition: sockets by state from a look of its own, and what the kernel counts.

use std::collections::HashMap;

use anyhow::{Context, Result};
use foldhash::fast::FixedState;

use crate::live::{Source, Tally};
use crate::model::counters::Sample;
use crate::study::when::{Condition, Figure};

/// Counters are reported when they have grown, after this time at the latest; from then on, they have not.
const GROWTH_LASTS_NS: u64 = 11_000_000_000;

/// The newest figures.
pub(super) struct Figures {
    /// If the condition has states.
    tally: Option<Tally>,
    /// Counters and levels of the condition.
    growing: Vec<Box<str>>,
    levels: Vec<Box<str>>,
    /// When a counter of a network namespace was reported, and its growth in a second.
    growth: HashMap<(u32, usize), (u64, f64), FixedState>,
    level: HashMap<(u32, usize), u64, FixedState>,
}

impl Figures {
    pub(super) fn begin(condition: &Condition, only: &[u32], source: &Source) -> Result<Self> {
        let mut figures = Self::new(condition);
        let state = |figure: &Figure| if let Figure::Sockets(state) = figure { Some(*state) } else { None };
        let states: Vec<_> = condition.figures().filter_map(state).collect();
        let tally = (!states.is_empty()).then(|| source.tally(&states, only.to_vec()));
        figures.tally = tally.transpose().context("cannot count sockets: cannot start a thread")?;
        Ok(figures)
    }

    /// Without a look at sockets.
    pub(super) fn new(condition: &Condition) -> Self {
        let (mut growing, mut levels) = (Vec::new(), Vec::new());
        for figure in condition.figures() {
            match figure {
                Figure::Sockets(_) => {}
                Figure::Growth(name) => growing.push(name.clone()),
                Figure::Level(name) => levels.push(name.clone()),
            }
        }
        let (growth, level) = (HashMap::default(), HashMap::default());
        Self { tally: None, growing, levels, growth, level }
    }

    pub(super) fn take(&mut self, sample: &Sample) {
        for (place, name) in self.levels.iter().enumerate() {
            let level = sample.levels.get(name);
            // A whole sample leaves out zeros.
            if let Some(level) = level.copied().or(sample.whole.then_some(0)) {
                self.level.insert((sample.netns, place), level);
            }
        }
        let Some(ns) = sample.since.map(|since| sample.at.saturating_sub(since)).filter(|ns| *ns > 0) else { return };
        for (place, name) in self.growing.iter().enumerate().filter(|_| !sample.whole) {
            if let Some(more) = sample.counts.get(name) {
                let in_a_second = *more as f64 * 1e9 / ns as f64;
                self.growth.insert((sample.netns, place), (sample.at, in_a_second));
            }
        }
    }

    /// The sum over all network namespaces; `None` when nothing is known yet.
    pub(super) fn of(&self, figure: &Figure, now: u64) -> Option<f64> {
        match figure {
            Figure::Sockets(state) => self.tally.as_ref()?.of(*state).map(|sockets| sockets as f64),
            Figure::Growth(name) => {
                let wanted = self.growing.iter().position(|known| known == name)?;
                let is_new = |at: u64| now < at.saturating_add(GROWTH_LASTS_NS);
                let all = self.growth.iter().filter(|((_, place), (at, _))| *place == wanted && is_new(*at));
                Some(all.map(|(_, (_, in_a_second))| in_a_second).sum())
            }
            Figure::Level(name) => {
                let wanted = self.levels.iter().position(|known| known == name)?;
                let mut all = self.level.iter().filter(|((_, place), _)| *place == wanted).peekable();
                all.peek()?;
                Some(all.map(|(_, level)| *level as f64).sum())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn sample(netns: u32, at: u64, counts: &[(&str, u64)], levels: &[(&str, u64)]) -> Sample {
        let of = |all: &[(&str, u64)]| all.iter().map(|(name, value)| ((*name).into(), *value)).collect();
        let since = Some(at.saturating_sub(2 * S));
        Sample { at, netns, since, counts: of(counts), levels: of(levels), ..Sample::default() }
    }

    #[test]
    fn counters_grow_in_a_second_and_namespaces_add_up() {
        let condition: Condition =
            "TcpExt.ListenDrops > 1 or sockstat.TCP.orphan > 1".parse().expect("it is a condition");
        let mut figures = Figures::new(&condition);
        let all: Vec<_> = condition.figures().cloned().collect();
        let of = |figures: &Figures, now| [figures.of(&all[0], now), figures.of(&all[1], now)];
        assert_eq!(of(&figures, S), [Some(0.0), None]);
        figures.take(&sample(1, 4 * S, &[("TcpExt.ListenDrops", 10)], &[("sockstat.TCP.orphan", 3)]));
        figures.take(&sample(2, 5 * S, &[("TcpExt.ListenDrops", 2)], &[("sockstat.TCP.orphan", 4)]));
        assert_eq!(of(&figures, 5 * S), [Some(6.0), Some(7.0)]);
        // What was not reported again has not grown; a level stays.
        assert_eq!(of(&figures, 15 * S), [Some(1.0), Some(7.0)]);
        figures.take(&Sample {
            whole: true,
            counts: sample(1, 16 * S, &[("TcpExt.ListenDrops", 900)], &[]).counts,
            netns: 1,
            at: 16 * S,
            ..Sample::default()
        });
        assert_eq!(of(&figures, 16 * S), [Some(0.0), Some(4.0)], "totals are no growth");
    }
}
