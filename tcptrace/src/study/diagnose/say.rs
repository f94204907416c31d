//! Numbers, processes and ends, as findings say them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::model::human::{self, Count};
use crate::model::sanitise::sanitise;
use crate::model::tcp::{Comm, Task, unmapped};

/// `28,232`.
pub fn count(number: impl TryInto<u64>) -> Count {
    Count(number.try_into().unwrap_or(u64::MAX))
}

/// `1 connection`, `12 connections`.
pub fn counted(number: u64, what: &str) -> String {
    let ending = match number {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {what}{ending}", Count(number))
}

/// A duration in ns: `1.23ms`, `61.8s`, `3h12m`.
pub fn time(ns: u64) -> human::Duration {
    human::Duration(ns)
}

/// Seconds: `0.4s`, `58s`, `3h52m`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { time(whole_ns(seconds)).to_string() }
}

/// In ns, for what is no precise measurement: whole seconds.
fn whole_ns(seconds: f64) -> u64 {
    // A cast of a float saturates.
    let seconds = seconds.max(0.0).round() as u64;
    seconds.saturating_mul(1_000_000_000)
}

/// So many a second: `0.4/s`, `462/s`, `31,800/s`.
pub fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        return format!("{per_second:.1}/s");
    }
    let whole = per_second.round() as u64;
    format!("{}/s", Count(whole))
}

/// A share: `0.4 %`, `96 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// How many columns a headline may take.
const HEADLINE: usize = 110;

/// The first of these headlines that fits: the fullest comes first, and the last one is taken if none fits.
pub fn fitting<const N: usize>(variants: [String; N]) -> String {
    let mut variants = variants.into_iter();
    let mut chosen = variants.next().unwrap_or_default();
    for shorter in variants {
        if chosen.chars().count() <= HEADLINE {
            break;
        }
        chosen = shorter;
    }
    chosen
}

/// A number of bytes: `2.1 MiB`.
pub fn bytes(bytes: u64) -> String {
    let text = human::Bytes(bytes).to_string();
    match text.char_indices().last() {
        Some((place, unit)) if unit.is_ascii_alphabetic() => format!("{} {unit}iB", &text[..place]),
        _ => format!("{text} B"),
    }
}

/// `api[4711]`; the name is made safe to print.
pub fn process(task: Task) -> String {
    format!("{}[{}]", comm(task.comm), task.pid)
}

/// A process name, safe to print.
pub fn comm(comm: Comm) -> String {
    sanitise(comm.bytes()).into_owned()
}

/// An address and a port, IPv4 as IPv4.
pub fn end(ip: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(unmapped(ip), port)
}

/// An address, IPv4 as IPv4.
pub fn address(ip: Ipv6Addr) -> IpAddr {
    unmapped(ip)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_first_headline_that_fits_is_taken() {
        let headline = |columns: usize| "≥".repeat(columns);
        assert_eq!(fitting([headline(111), headline(110), headline(1)]), headline(110));
        assert_eq!(fitting([headline(112), headline(111)]), headline(111));
    }

    #[rstest]
    #[case(0.43, "0.4/s")]
    #[case(462.4, "462/s")]
    #[case(31_800.0, "31,800/s")]
    fn rates(#[case] per_second: f64, #[case] expected: &str) {
        assert_eq!(rate(per_second), expected);
    }

    #[rstest]
    #[case(0.004, "0.4 %")]
    #[case(0.0, "0 %")]
    #[case(0.963, "96 %")]
    #[case(1.0, "100 %")]
    fn shares(#[case] share: f64, #[case] expected: &str) {
        assert_eq!(percent(share), expected);
    }

    #[rstest]
    #[case::fits(110, 'a')]
    #[case::is_too_long(111, 'b')]
    fn the_fullest_headline_that_fits(#[case] columns: usize, #[case] expected: char) {
        assert!(fitting(["a".repeat(columns), "b".into(), "c".into()]).starts_with(expected));
        assert_eq!(fitting(["a".repeat(columns), "b".repeat(111), "c".into()]).starts_with('a'), expected == 'a');
    }

    #[rstest]
    #[case(84, "84 B")]
    #[case(2_202_010, "2.1 MiB")]
    fn sizes(#[case] size: u64, #[case] expected: &str) {
        assert_eq!(bytes(size), expected);
    }
}
