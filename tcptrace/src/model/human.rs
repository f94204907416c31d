//! Durations and sizes for people, in at most six columns.

use std::fmt;

use crate::model::row::Held;

/// A duration in ns: `420µs`, `1.23ms`, `61.8s`, `2m03s`, `3h12m`. Cut, not rounded, so it is never too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

/// A number of bytes: `980`, `1.2K`, `34.5M`. Powers of 1024, cut, not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A number with commas between thousands: `28,232`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
const MIN: u64 = 60 * S;
const H: u64 = 60 * MIN;
const DAY: u64 = 24 * H;

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Short::default();
        duration(&mut text, self.0);
        f.pad(text.as_str())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Short::default();
        bytes(&mut text, self.0);
        f.pad(text.as_str())
    }
}

/// `-` when unknown; `≥1.2s` for a lower bound.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Short::of(*self).as_str())
    }
}

impl Held {
    /// Writes it as it is displayed. Every row has one, and this takes a fraction of the time.
    pub(crate) fn write_to(self, to: &mut Vec<u8>) {
        to.extend_from_slice(Short::of(self).as_bytes());
    }
}

fn duration(to: &mut Short, ns: u64) {
    match ns {
        0..US => to.number(ns).word("ns"),
        US..MS => three_digits(to, ns, US, "µs"),
        MS..S => three_digits(to, ns, MS, "ms"),
        S..100_000_000_000 => three_digits(to, ns, S, "s"),
        _ if ns < H => to.number(ns / MIN).word("m").digits(ns % MIN / S, 2).word("s"),
        _ if ns < 100 * H => to.number(ns / H).word("h").digits(ns % H / MIN, 2).word("m"),
        _ => to.number(ns / DAY).word("d").digits(ns % DAY / H, 2).word("h"),
    };
}

fn three_digits<'s>(to: &'s mut Short, value: u64, unit: u64, name: &str) -> &'s mut Short {
    let (whole, part) = (value / unit, value % unit);
    match whole {
        0..10 => to.number(whole).word(".").digits(part / (unit / 100), 2).word(name),
        10..100 => to.number(whole).word(".").number(part / (unit / 10)).word(name),
        _ => to.number(whole).word(name),
    }
}

fn bytes(to: &mut Short, bytes: u64) {
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = 1_u64 << (10 * power);
    let (whole, name) = (bytes / unit, ["", "K", "M", "G", "T", "P", "E"][power as usize]);
    if power == 0 || whole >= 100 {
        to.number(whole).word(name);
    } else {
        // The remainder is below 2^60, so ten times it fits.
        to.number(whole).word(".").number(bytes % unit * 10 / unit).word(name);
    }
}

/// Text without an allocation and without the formatting machinery. All that is written here fits.
#[derive(Default)]
struct Short {
    bytes: [u8; 24],
    length: usize,
}

impl Short {
    fn of(held: Held) -> Self {
        let mut text = Self::default();
        match held {
            Held::Unknown => {
                text.word("-");
            }
            Held::AtLeast(ns) => duration(text.word("≥"), ns),
            Held::Exactly(ns) => duration(&mut text, ns),
        }
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn word(&mut self, word: &str) -> &mut Self {
        self.room(word.len()).copy_from_slice(word.as_bytes());
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.digits(number, number.checked_ilog10().unwrap_or(0) as usize + 1)
    }

    /// The last digits of a number, with leading zeros.
    fn digits(&mut self, mut number: u64, count: usize) -> &mut Self {
        for place in self.room(count).iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self
    }

    fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.length;
        self.length += length;
        &mut self.bytes[start..self.length]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1_000, "1,000")]
    #[case(1_234_567, "1,234,567")]
    fn counts(#[case] number: u64, #[case] expected: &str) {
        assert_eq!(Count(number).to_string(), expected);
    }

    #[rstest]
    #[case(0, "0ns")]
    #[case(999, "999ns")]
    #[case(1_000, "1.00µs")]
    #[case(420_000, "420µs")]
    #[case(999_999, "999µs")]
    #[case(1_234_567, "1.23ms")]
    #[case(12_345_678, "12.3ms")]
    #[case(999_999_999, "999ms")]
    #[case(61_850_000_000, "61.8s")]
    #[case(99_999_999_999, "99.9s")]
    #[case(100_000_000_000, "1m40s")]
    #[case(123_000_000_000, "2m03s")]
    #[case(3_599_999_999_999, "59m59s")]
    #[case(3 * H + 12 * MIN, "3h12m")]
    #[case(100 * H - 1, "99h59m")]
    #[case(100 * H, "4d04h")]
    #[case(u64::MAX, "213503d23h")]
    fn durations(#[case] ns: u64, #[case] expected: &str) {
        assert_eq!(Duration(ns).to_string(), expected);
    }

    #[rstest]
    #[case(0, "0")]
    #[case(1023, "1023")]
    #[case(1024, "1.0K")]
    #[case(1_234, "1.2K")]
    #[case(102_400 - 1, "99.9K")]
    #[case(1_048_575, "1023K")]
    #[case(3_600_000, "3.4M")]
    #[case(u64::MAX, "15.9E")]
    fn sizes(#[case] bytes: u64, #[case] expected: &str) {
        assert_eq!(Bytes(bytes).to_string(), expected);
    }

    #[rstest]
    #[case(Held::Unknown, "     -")]
    #[case(Held::AtLeast(1_200_000_000), "≥1.20s")]
    #[case(Held::Exactly(1_200_000_000), " 1.20s")]
    fn held_times_can_be_padded(#[case] held: Held, #[case] expected: &str) {
        assert_eq!(format!("{held:>6}"), expected);
    }

    proptest! {
        #[test]
        fn durations_below_a_hundred_days_fit(ns in 0..100 * DAY, bytes: u64) {
            let columns = Duration(ns).to_string().chars().count();
            prop_assert!((3..=6).contains(&columns));
            prop_assert!(Bytes(bytes).to_string().len() <= 5);
        }
    }
}
