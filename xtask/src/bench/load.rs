//! One measurement: generators, and the subject that runs beside them.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::generator::{Generator, LISTENER_TRANSITIONS, Load, Order, TRANSITIONS};
use super::polling::{Polling, Seen};
use super::running::{Cost, Running};
use super::subject::What;

/// The results of one measurement.
pub(super) struct Sample {
    /// The result of each generator.
    pub(super) loads: Vec<Load>,
    /// The inode numbers of their network namespaces.
    pub(super) netns: Vec<u32>,
    /// The cost of the tool, if one ran.
    pub(super) cost: Option<Cost>,
    /// What polling with `ss` saw.
    pub(super) polled: Option<Seen>,
}

impl Sample {
    /// Connections made by all generators.
    pub(super) fn connections(&self) -> u32 {
        self.loads.iter().map(|load| load.connections).sum()
    }

    /// Connections a second, of all generators.
    pub(super) fn rate(&self) -> f64 {
        self.loads.iter().map(Load::rate).sum()
    }

    /// Transitions of these connections in the kernel.
    pub(super) fn transitions(&self) -> u64 {
        let listeners = self.loads.len() as u64 * u64::from(LISTENER_TRANSITIONS);
        u64::from(self.connections()) * u64::from(TRANSITIONS) + listeners
    }

    /// Transitions that the tool neither reported nor counted as lost; there must be none. Other programs' transitions
    /// count as seen, too, and the kernel may have hidden one in ten thousand from every eBPF program:
    /// [`super::completeness`] counts exactly.
    pub(super) fn missing(&self) -> u64 {
        let told = self.cost.as_ref().and_then(|cost| Some(cost.seen? + cost.lost));
        let missing = told.map_or(0, |told| self.transitions().saturating_sub(told));
        if missing > self.transitions() / 10_000 { missing } else { 0 }
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let load = |load: &Load| json!({ "connections": load.connections, "seconds": load.seconds });
        let cost = self.cost.as_ref().map(|cost| {
            json!({
                "cpu_seconds": cost.cpu.as_secs_f64(),
                "user_seconds": cost.user.as_secs_f64(),
                "written_bytes": cost.written,
                "peak_rss_bytes": cost.peak_rss,
                "lines": cost.lines,
                "seen": cost.seen,
                "lost": cost.lost,
            })
        });
        let polled = self.polled.as_ref().map(|seen| {
            json!({ "looks": seen.looks.len(), "states_seen": seen.states(), "time_waits_seen": seen.time_waits() })
        });
        json!({ "loads": self.loads.iter().map(load).collect::<Vec<_>>(), "cost": cost, "polled": polled })
    }
}

/// Runs the generators beside a subject; files go to `folder`.
pub(super) fn measure(what: Option<&What>, orders: &[Order], folder: &Path) -> Result<Sample> {
    let polls = match what {
        Some(What::Polling(ss)) => Some(ss.as_path()),
        _ => None,
    };
    let running = match what {
        Some(What::Tool(tool)) => Some(Running::attach(tool, folder)?),
        _ => None,
    };
    let mut sample = run(orders, polls)?;
    match (running, what) {
        (Some(running), Some(What::Tool(tool))) => {
            running.wait_until_quiet()?;
            let cost = running.finish()?;
            if !tool.is_tcptrace {
                cost.require_rows(sample.connections())?;
            }
            sample.cost = Some(cost);
        }
        _ => sample.cost = sample.polled.as_ref().map(cost_of),
    }
    Ok(sample)
}

fn run(orders: &[Order], ss: Option<&Path>) -> Result<Sample> {
    let mut generators = orders.iter().map(Generator::start).collect::<Result<Vec<_>>>()?;
    let polling = ss.zip(generators.first()).map(|(ss, generator)| Polling::start(ss, generator.pid()));
    generators.iter_mut().try_for_each(Generator::go)?;
    let loads = generators.iter_mut().map(Generator::wait).collect::<Result<_>>()?;
    let polled = polling.map(Polling::stop).transpose()?;
    let netns = generators.iter().map(Generator::netns).collect();
    generators.into_iter().try_for_each(Generator::finish)?;
    Ok(Sample { loads, netns, cost: None, polled })
}

fn cost_of(seen: &Seen) -> Cost {
    Cost {
        cpu: seen.looks.iter().map(|look| look.cpu.user + look.cpu.system).sum(),
        user: seen.looks.iter().map(|look| look.cpu.user).sum(),
        written: seen.written,
        peak_rss: seen.looks.iter().map(|look| look.peak_rss).max().unwrap_or(0),
        lines: seen.lines,
        ..Cost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_neither_seen_nor_lost_is_missing() {
        let load = Load { connections: 100, seconds: 0.5 };
        let sample = |seen, lost| {
            let cost = Cost { seen, lost, ..Cost::default() };
            Sample { loads: vec![load, load], netns: Vec::new(), cost: Some(cost), polled: None }
        };
        assert_eq!(sample(Some(2004), 0).missing(), 0);
        assert_eq!(sample(Some(2001), 1).missing(), 2);
        assert_eq!(sample(Some(2100), 0).missing(), 0, "others did something");
        assert_eq!(sample(None, 0).missing(), 0, "it does not say");
        assert!((sample(None, 0).rate() - 400.0).abs() < 1e-9);
    }
}
