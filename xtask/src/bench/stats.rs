//! Statistics of repeated measurements.

/// Sorted measurements.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(Vec<f64>);

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Figures {
    /// Number of measurements.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The median; with two middle values, their mean. `None` without measurements.
    pub(super) fn median(&self) -> Option<f64> {
        let half = self.0.len() / 2;
        match (self.0.get(half.wrapping_sub(1)), self.0.get(half)) {
            (Some(below), Some(above)) if self.0.len().is_multiple_of(2) => Some(f64::midpoint(*below, *above)),
            (_, middle) => middle.copied(),
        }
    }

    /// The smallest value that is not below this percentage of all.
    pub(super) fn percentile(&self, percent: f64) -> Option<f64> {
        // Between 0 and the length.
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }

    /// The value below which this share of the measurements lies: in proportion between two of them.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let place = share.clamp(0.0, 1.0) * self.0.len().checked_sub(1)? as f64;
        let below = self.0.get(place as usize)?;
        let above = self.0.get(place as usize + 1).unwrap_or(below);
        Some(below + place.fract() * (above - below))
    }

    /// The median with the quartiles: `12.3 (11.9–13.0)`; `–` without measurements.
    pub(super) fn quartiles(&self, digits: usize) -> String {
        match (self.quantile(0.25), self.median(), self.quantile(0.75)) {
            (Some(lower), Some(median), Some(upper)) => {
                // Differences can be below zero; a dash before a minus would be hard to read.
                let [lower, median, upper] = [lower, median, upper].map(|figure| rounded(figure, digits));
                let to = if upper.starts_with('-') { " to " } else { "–" };
                format!("{median} ({lower}{to}{upper})")
            }
            _ => "–".to_owned(),
        }
    }

    /// The largest.
    pub(super) fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// The median with minimum and maximum: `12.3 (11.0–15.8)`; `–` without measurements.
    pub(super) fn spread(&self, digits: usize) -> String {
        self.spread_of(digits, "")
    }

    /// The same with a unit: `12.3 % (11.0–15.8)`.
    pub(super) fn spread_of(&self, digits: usize, unit: &str) -> String {
        match (self.median(), self.0.first(), self.0.last()) {
            (Some(median), Some(least), Some(most)) => {
                // As above. The least is below zero wherever the most is.
                let [median, least, most] = [median, *least, *most].map(|figure| rounded(figure, digits));
                let to = if least.starts_with('-') { " to " } else { "–" };
                format!("{median}{unit} ({least}{to}{most})")
            }
            _ => "–".to_owned(),
        }
    }
}

/// With so many digits, and without the sign of what is rounded to zero.
fn rounded(figure: f64, digits: usize) -> String {
    let text = format!("{figure:.digits$}");
    let is_zero = !text.contains(|c: char| matches!(c, '1'..='9'));
    if is_zero { text.trim_start_matches('-').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<const N: usize>(values: [f64; N]) -> Figures {
        Figures::from_iter(values)
    }

    #[test]
    fn medians() {
        assert_eq!(of([9.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(of([9.0, 1.0, 4.0, 2.0]).median(), Some(3.0));
        assert_eq!(of([]).median(), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Figures = (1..=100).map(f64::from).collect();
        assert_eq!(hundred.percentile(50.0), Some(50.0));
        assert_eq!(hundred.percentile(99.0), Some(99.0));
        assert_eq!(hundred.percentile(100.0), Some(100.0));
        assert_eq!(of([7.0]).percentile(99.0), Some(7.0));
        assert_eq!(of([]).percentile(99.0), None);
    }

    #[test]
    fn quartiles_lie_between_measurements() {
        let five = of([50.0, 10.0, 20.0, 40.0, 30.0]);
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| five.quantile(share)),
            [10.0, 20.0, 30.0, 40.0, 50.0].map(Some)
        );
        let four = of([1.0, 2.0, 3.0, 4.0]);
        assert_eq!([0.25, 0.5, 0.75].map(|share| four.quantile(share)), [1.75, 2.5, 3.25].map(Some));
        assert_eq!((of([7.0]).quantile(0.25), of([]).quantile(0.25)), (Some(7.0), None));
        assert_eq!((four.quartiles(2), of([]).quartiles(2)), ("2.50 (1.75–3.25)".to_owned(), "–".to_owned()));
        assert_eq!(of([-30.0, -20.0, -10.0]).quartiles(0), "-20 (-25 to -15)");
        assert_eq!(of([-0.04, -0.04, 0.04]).quartiles(1), "0.0 (0.0–0.0)");
    }

    #[test]
    fn a_median_is_shown_with_its_spread() {
        assert_eq!(of([2.0, 1.0, 4.25]).spread(1), "2.0 (1.0–4.2)");
        assert_eq!(of([2100.0, 1100.0]).spread(0), "1600 (1100–2100)");
        assert_eq!(of([0.1, -0.13, -0.001]).spread(2), "0.00 (-0.13 to 0.10)");
        assert_eq!(of([-0.5]).spread(1), "-0.5 (-0.5 to -0.5)");
        assert_eq!(of([95.25, 94.0, 97.0]).spread_of(1, " %"), "95.2 % (94.0–97.0)");
        assert_eq!(of([]).spread(0), "–");
    }
}
