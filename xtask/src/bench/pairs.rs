//! Interleaved pairs: every measurement with something is compared with the two without it, right before and right
//! after. What else changes the speed of the machine changes both alike.

use anyhow::Result;
use serde_json::{Value, json};

use super::running::DidNotAttach;
use super::stats::Figures;

/// How long one operation of a load took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Mean of the whole measurement, in ns.
    pub(super) mean: f64,
    /// The tenth percentile of short batches, in ns, if the load measures batches. Interrupts, and whatever else takes
    /// the CPU for a while, do not show in it.
    pub(super) undisturbed: Option<f64>,
}

impl Pace {
    fn between(self, other: Self) -> Self {
        let undisturbed = self.undisturbed.zip(other.undisturbed);
        Self {
            mean: f64::midpoint(self.mean, other.mean),
            undisturbed: undisturbed.map(|(one, other)| f64::midpoint(one, other)),
        }
    }
}

/// A measurement without something, and one with it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    without: Pace,
    with: Pace,
}

/// All pairs of one subject under one load.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs(Vec<Pair>);

impl Pairs {
    fn add(&mut self, before: Pace, with: Pace, after: Pace) {
        self.0.push(Pair { without: before.between(after), with });
    }

    /// Their number.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What an operation takes without the subject, in ns.
    pub(super) fn without(&self) -> Figures {
        self.0.iter().map(|pair| pair.without.mean).collect()
    }

    /// What the subject adds to an operation that consists of so many steps, in ns a step.
    pub(super) fn added(&self, steps: u32) -> Figures {
        self.0.iter().map(|pair| (pair.with.mean - pair.without.mean) / f64::from(steps)).collect()
    }

    /// The same in undisturbed moments.
    pub(super) fn added_undisturbed(&self, steps: u32) -> Figures {
        let added = |pair: &Pair| Some((pair.with.undisturbed? - pair.without.undisturbed?) / f64::from(steps));
        self.0.iter().filter_map(added).collect()
    }

    /// What the subject adds to an operation, in per cent.
    pub(super) fn share(&self) -> Figures {
        self.0.iter().map(|pair| 100.0 * (pair.with.mean / pair.without.mean - 1.0)).collect()
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let pace = |pace: Pace| json!({ "mean_ns": pace.mean, "undisturbed_ns": pace.undisturbed });
        self.0.iter().map(|pair| json!({ "without": pace(pair.without), "with": pace(pair.with) })).collect()
    }
}

/// The results of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// One for each load.
    pub(super) loads: Vec<Pairs>,
    /// Why it could not be measured.
    pub(super) failed: Option<String>,
}

impl Series {
    /// The pairs of the first load.
    pub(super) fn first(&self) -> Pairs {
        self.loads.first().cloned().unwrap_or_default()
    }
}

/// Measures every subject as often as it asks for, in turn, each between two measurements without a subject. `measure`
/// gets the subject, or `None`, and returns a pace for each load. A subject that did not attach is not measured again.
pub(super) fn interleave<S>(
    subjects: &[(S, u32)],
    mut measure: impl FnMut(Option<&S>) -> Result<Vec<Pace>>,
) -> Result<Vec<Series>> {
    let mut series = vec![Series::default(); subjects.len()];
    let rounds = subjects.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0);
    let mut before = measure(None)?;
    for round in 0..rounds {
        // Begins with another one each time.
        let first = round as usize % subjects.len();
        for index in (first..subjects.len()).chain(0..first) {
            let ((subject, wanted), series) = (&subjects[index], &mut series[index]);
            if round >= *wanted || series.failed.is_some() {
                continue;
            }
            let with = match measure(Some(subject)) {
                Ok(with) => with,
                Err(error) => {
                    series.failed = Some(error.downcast::<DidNotAttach>()?.to_string());
                    series.loads.clear();
                    continue;
                }
            };
            let after = measure(None)?;
            series.loads.resize(with.len(), Pairs::default());
            for (pairs, ((before, with), after)) in series.loads.iter_mut().zip(before.iter().zip(with).zip(&after)) {
                pairs.add(*before, with, *after);
            }
            before = after;
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn pace(mean: f64, undisturbed: f64) -> Pace {
        Pace { mean, undisturbed: Some(undisturbed) }
    }

    #[test]
    fn a_measurement_is_compared_with_those_before_and_after() {
        let mut pairs = Pairs::default();
        pairs.add(pace(1000.0, 800.0), pace(1500.0, 1000.0), pace(1400.0, 900.0));
        assert_eq!(pairs.without().median(), Some(1200.0));
        assert_eq!(pairs.added(10).median(), Some(30.0));
        assert_eq!(pairs.added_undisturbed(10).median(), Some(15.0));
        assert_eq!(pairs.share().median(), Some(25.0));
        assert_eq!(pairs.json()[0]["without"]["mean_ns"], 1200.0);
    }

    #[test]
    fn a_load_without_batches_has_no_undisturbed_moments() {
        let plain = |mean| Pace { mean, undisturbed: None };
        let mut pairs = Pairs::default();
        pairs.add(plain(100.0), plain(90.0), plain(100.0));
        assert_eq!(pairs.added(1).median(), Some(-10.0), "noise can be larger than the cost");
        assert_eq!(pairs.added_undisturbed(1).median(), None);
    }

    #[test]
    fn each_runs_between_two_measurements_of_nothing() {
        let mut order = Vec::new();
        let mut nothings = 0.0;
        let series = interleave(&[("a", 2), ("b", 1)], |subject| {
            order.push(*subject.unwrap_or(&"-"));
            nothings += f64::from(u8::from(subject.is_none()));
            Ok(vec![subject.map_or(pace(nothings, 1.0), |_| pace(10.0, 2.0)), pace(7.0, 7.0)])
        });
        let series = series.expect("all can be measured");
        assert_eq!(order.concat(), "-a-b-a-");
        assert_eq!(series.iter().map(|series| series.loads[0].count()).collect::<Vec<_>>(), [2, 1]);
        // Between the second and the third.
        assert_eq!(series[1].loads[0].added(1).median(), Some(7.5));
        assert_eq!(series[1].loads[1].added(1).median(), Some(0.0));
    }

    #[test]
    fn what_did_not_attach_has_no_figures() {
        let subjects = [("works", 3), ("fails", 3)];
        let mut tries = 0;
        let series = interleave(&subjects, |subject| {
            if subject == Some(&"fails") {
                tries += 1;
                return Err(anyhow!(DidNotAttach("no tracefs".to_owned())).context("cannot measure it"));
            }
            Ok(vec![pace(1.0, 1.0)])
        });
        let series = series.expect("the other can be measured");
        assert_eq!((tries, series[0].first().count(), series[1].first().count()), (1, 3, 0));
        assert_eq!(series[1].failed.as_deref(), Some("did not attach: no tracefs"));
        interleave(&subjects, |_| Err(anyhow!("another error"))).expect_err("that is not about a subject");
    }
}
