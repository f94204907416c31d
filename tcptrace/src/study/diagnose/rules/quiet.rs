//! Times without data before an end: a timer cuts them all off at the same length.

use crate::study::diagnose::evidence::Spread;

/// So far may the times of one timer be apart, ninth decile to first: what a busy process needs to act on it.
const ALIKE: f64 = 1.1;

/// Whether they are as alike as those that one timer makes.
pub(super) fn is_timer(times: &Spread) -> bool {
    match (times.percentile(10), times.percentile(90)) {
        (Some(low), Some(high)) => low > 0 && high as f64 <= ALIKE * low as f64,
        _ => false,
    }
}

/// How long that timer runs, in ns: the median; `None` if they are not alike.
pub(super) fn timer(times: &Spread) -> Option<u64> {
    times.percentile(50).filter(|_| is_timer(times))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(&[], None)]
    #[case::at_once(&[0, 0, 0], None)]
    #[case::equal(&[1_000, 1_000, 1_000], Some(1_000))]
    #[case::alike(&[1_000, 1_000, 1_090], Some(1_000))]
    #[case::apart(&[1_000, 1_000, 1_200], None)]
    fn timers(#[case] times: &[u64], #[case] expected: Option<u64>) {
        let mut spread = Spread::default();
        times.iter().for_each(|time| spread.add(*time));
        let near = |found: u64, expected: u64| found.abs_diff(expected) * 50 <= expected;
        match (timer(&spread), expected) {
            (Some(found), Some(expected)) => assert!(near(found, expected), "{found}"),
            (found, expected) => assert_eq!(found, expected),
        }
    }
}
