//! Wall-clock times as text.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::render::digits;

const NS_PER_S: i64 = 1_000_000_000;

/// Writes RFC 3339 in UTC with 9 digits. Most rows are in the same second as the row before, so it caches the text of
/// the last second.
#[derive(Debug, Default)]
pub(super) struct Rfc3339 {
    second: Option<i64>,
    /// `2025-01-02T03:04:05`.
    text: Vec<u8>,
}

impl Rfc3339 {
    pub(super) fn write(&mut self, to: &mut Vec<u8>, unix_ns: i64) {
        let second = unix_ns.div_euclid(NS_PER_S);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = timestamp(second).to_string().into_bytes();
            self.text.pop_if(|last| *last == b'Z');
        }
        to.extend_from_slice(&self.text);
        to.push(b'.');
        digits::<9>(to, unix_ns.rem_euclid(NS_PER_S).unsigned_abs());
        to.push(b'Z');
    }
}

/// Writes the time of day as `HH:MM:SS.mmm` in one zone.
#[derive(Debug)]
pub(super) struct TimeOfDay {
    zone: TimeZone,
    second: Option<i64>,
    /// `HH:MM:SS`.
    text: Vec<u8>,
}

impl TimeOfDay {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, second: None, text: Vec::new() }
    }

    pub(super) fn write(&mut self, to: &mut Vec<u8>, unix_ns: i64) {
        let second = unix_ns.div_euclid(NS_PER_S);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let time = self.zone.to_datetime(timestamp(second)).time();
            // Writing into a Vec cannot fail.
            let _ = write!(self.text, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
        }
        to.extend_from_slice(&self.text);
        to.push(b'.');
        digits::<3>(to, unix_ns.rem_euclid(NS_PER_S).unsigned_abs() / 1_000_000);
    }
}

/// Every i64 of nanoseconds is within jiff's range (years -9999 to 9999), so the epoch never shows.
fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stream::Clock;

    fn rfc3339(times: &[i64]) -> Vec<String> {
        let mut cached = Rfc3339::default();
        let write = |&ns| {
            let mut text = Vec::new();
            cached.write(&mut text, ns);
            String::from_utf8(text).expect("ASCII")
        };
        times.iter().map(write).collect()
    }

    #[test]
    fn rfc3339_has_nine_digits_and_follows_the_second() {
        let written = rfc3339(&[0, 1, 999_999_999, 1_000_000_000, 5, -1, 1_735_786_245_000_000_042]);
        let expected = [
            "1970-01-01T00:00:00.000000000Z",
            "1970-01-01T00:00:00.000000001Z",
            "1970-01-01T00:00:00.999999999Z",
            "1970-01-01T00:00:01.000000000Z",
            "1970-01-01T00:00:00.000000005Z",
            "1969-12-31T23:59:59.999999999Z",
            "2025-01-02T02:50:45.000000042Z",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn the_ends_of_the_range_are_dates() {
        let written = rfc3339(&[i64::MIN, i64::MAX]);
        assert_eq!(written, ["1677-09-21T00:12:43.145224192Z", "2262-04-11T23:47:16.854775807Z"]);
    }

    #[test]
    fn time_of_day_is_in_its_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut text = Vec::new();
        TimeOfDay::new(zone).write(&mut text, 1_735_786_245_987_654_321);
        assert_eq!(text, b"04:50:45.987");
    }

    #[test]
    fn a_clock_does_not_overflow() {
        let clock = Clock { boot_to_unix_ns: i64::MAX };
        assert_eq!(clock.unix_ns(u64::MAX), i64::MAX);
        assert_eq!(Clock { boot_to_unix_ns: -5 }.unix_ns(3), -2);
    }
}
