//! The time axis: round numbers at even distances.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::bar::Scale;
use crate::output::human;

const S: u64 = 1_000_000_000;
const DAY: u64 = 24 * 60 * 60 * S;

/// Distances of a second and more, in seconds.
const STEPS: [u64; 17] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200];

/// A mark on the axis, in ns from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) at: u64,
    pub(super) label: String,
}

/// The left end of the axis.
#[derive(Clone, Debug)]
pub(super) enum Start<'z> {
    /// This time, in ns of Unix time.
    Clock(i64, &'z TimeZone),
    /// The start of each connection.
    Own,
}

/// Marks that do not overlap.
pub(super) fn ticks(start: &Start<'_>, scale: Scale) -> Vec<Tick> {
    let enough = |step: &u64| fits(*step, width(start, *step, scale), scale);
    let Some(step) = steps().find(enough) else { return Vec::new() };
    let first = match start {
        Start::Clock(at, zone) if step >= S => to_next(local(*at, zone), step),
        _ => 0,
    };
    let places =
        (0..).map_while(|number| first.checked_add(step.checked_mul(number)?)).take_while(|at| *at <= scale.span);
    places.map(|at| Tick { at, label: label(start, at, step) }).collect()
}

/// All distances, from small to large.
fn steps() -> impl Iterator<Item = u64> {
    let powers = (0..9).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let days = (0..18).map_while(|power| DAY.checked_mul(1 << power));
    powers.chain(STEPS.map(|seconds| seconds * S)).chain(days)
}

fn fits(step: u64, width: usize, scale: Scale) -> bool {
    let columns = u128::from(step) * scale.cells as u128 / u128::from(scale.span);
    columns >= width as u128 + 3
}

/// Columns of the widest label.
fn width(start: &Start<'_>, step: u64, scale: Scale) -> usize {
    match start {
        Start::Clock(..) if step >= S => format(step).1,
        // Only days and more are wider than short times.
        _ => "+1.23ms".len().max(1 + human::Duration(scale.span).to_string().len()),
    }
}

fn label(start: &Start<'_>, at: u64, step: u64) -> String {
    match start {
        Start::Clock(begin, zone) if step >= S => {
            let time = begin.saturating_add_unsigned(at);
            timestamp(time).to_zoned((*zone).clone()).strftime(format(step).0).to_string()
        }
        _ if at == 0 => "0".to_owned(),
        _ => format!("+{}", human::Duration(at)),
    }
}

/// The format of times this far apart, and its width.
fn format(step: u64) -> (&'static str, usize) {
    match step {
        DAY.. => ("%Y-%m-%d", 10),
        _ if step >= 3_600 * S => ("%d %H:%M", 8),
        _ => ("%H:%M:%S", 8),
    }
}

/// Ns of local time.
fn local(unix_ns: i64, zone: &TimeZone) -> i64 {
    unix_ns.saturating_add(i64::from(zone.to_offset(timestamp(unix_ns)).seconds()).saturating_mul(1_000_000_000))
}

fn to_next(local: i64, step: u64) -> u64 {
    let over = i128::from(local).rem_euclid(i128::from(step));
    u64::try_from((i128::from(step) - over) % i128::from(step)).unwrap_or(0)
}

/// Every i64 of nanoseconds is within jiff's range.
pub(super) fn timestamp(unix_ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// 2025-01-02T03:04:05.5Z.
    const AT: i64 = 1_735_787_045_500_000_000;

    fn labels(start: &Start<'_>, span: u64, cells: usize) -> String {
        let ticks = ticks(start, Scale { span, cells });
        ticks.iter().map(|tick| format!("{}@{}", tick.label, tick.at)).collect::<Vec<_>>().join(" ")
    }

    #[rstest]
    #[case(50_000, 40, "0@0 +20.0µs@20000 +40.0µs@40000")]
    #[case(20 * S, 60, "03:04:10@4500000000 03:04:15@9500000000 03:04:20@14500000000 03:04:25@19500000000")]
    #[case(3_600 * S, 30, "03:30:00@1554500000000 04:00:00@3354500000000")]
    #[case(30 * 3_600 * S, 30, "02 12:00@32154500000000 03 00:00@75354500000000")]
    #[case(9 * DAY, 40, "2025-01-04@161754500000000 2025-01-08@507354500000000")]
    fn by_the_clock(#[case] span: u64, #[case] cells: usize, #[case] expected: &str) {
        assert_eq!(labels(&Start::Clock(AT, &TimeZone::UTC), span, cells), expected);
    }

    #[test]
    fn round_times_are_those_of_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(19_800).expect("India"));
        assert_eq!(labels(&Start::Clock(AT, &zone), 7_200 * S, 30), "02 09:00@1554500000000 02 10:00@5154500000000");
    }

    #[test]
    fn from_the_beginning_of_each() {
        assert_eq!(labels(&Start::Own, 65 * S, 40), "0@0 +30.0s@30000000000 +60.0s@60000000000");
    }

    proptest! {
        #[test]
        fn labels_leave_each_other_room(at in any::<i64>(), span in 1..u64::MAX, cells in 16_usize..500, own in any::<bool>()) {
            let zone = TimeZone::UTC;
            let start = if own { Start::Own } else { Start::Clock(at, &zone) };
            let scale = Scale { span, cells };
            let ticks = ticks(&start, scale);
            prop_assert!(ticks.len() <= cells);
            for pair in ticks.windows(2) {
                let columns = (scale.half(pair[1].at) - scale.half(pair[0].at)) / 2;
                prop_assert!(columns > crate::output::width(&pair[0].label), "{pair:?}");
            }
        }
    }
}
