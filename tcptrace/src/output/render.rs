//! Numbers, addresses and names as bytes, without allocating.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::model::stream::Lost;

/// Decimal.
pub(crate) fn decimal(to: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut start = text.len();
    while number >= 10 {
        start -= 2;
        text[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    // A single last digit, or the zero before a pair.
    if number > 0 || start == text.len() {
        start -= 1;
        text[start] = digit(number);
    } else if text[start] == b'0' {
        start += 1;
    }
    to.extend_from_slice(&text[start..]);
}

/// Decimal with up to 4 places, without trailing zeros. Not for negative numbers; NaN is 0.
pub(super) fn real(to: &mut Vec<u8>, number: f64) {
    let parts = (number * 10_000.0).round() as u64;
    decimal(to, parts / 10_000);
    if !parts.is_multiple_of(10_000) {
        to.push(b'.');
        digits::<4>(to, parts % 10_000);
        while to.pop_if(|last| *last == b'0').is_some() {}
    }
}

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value as usize] = [digit(value / 10), digit(value % 10)];
        value += 1;
    }
    pairs
};

/// The last `N` decimal digits, with leading zeros.
pub(crate) fn digits<const N: usize>(to: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; N];
    for place in text.iter_mut().rev() {
        *place = digit(number % 10);
        number /= 10;
    }
    to.extend_from_slice(&text);
}

/// Lower-case hexadecimal, without a prefix.
pub(crate) fn hex(to: &mut Vec<u8>, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    to.extend((0..digits).rev().map(|place| digit16((number >> (4 * place)) & 0xf)));
}

/// `127.0.0.1:80`, `[::1]:80` or `[fe80::1%2]:80`.
pub(crate) fn address(to: &mut Vec<u8>, address: SocketAddr) {
    ip_in(to, address, None);
    to.push(b':');
    decimal(to, address.port().into());
}

/// `[fe80::1%eth0]:80`: an address that is only meaningful with its interface.
pub(crate) fn zoned(to: &mut Vec<u8>, address: SocketAddr, zone: &str) {
    ip_in(to, address, Some(zone));
    to.push(b':');
    decimal(to, address.port().into());
}

/// Like [`address`] or [`zoned`], but for people: a port of 0 is `no_port`.
pub(super) fn address_or(to: &mut Vec<u8>, address: SocketAddr, zone: Option<&str>, no_port: u8) {
    ip_in(to, address, zone);
    to.push(b':');
    match address.port() {
        0 => to.push(no_port),
        port => decimal(to, port.into()),
    }
}

/// An address, IPv6 in brackets, with this zone or the number of its own.
fn ip_in(to: &mut Vec<u8>, address: SocketAddr, zone: Option<&str>) {
    let SocketAddr::V6(v6) = address else { return bare_ip(to, address.ip()) };
    to.push(b'[');
    ipv6(to, *v6.ip());
    match (zone, v6.scope_id()) {
        (Some(zone), _) => {
            to.push(b'%');
            to.extend_from_slice(zone.as_bytes());
        }
        (None, 0) => {}
        (None, number) => {
            to.push(b'%');
            decimal(to, number.into());
        }
    }
    to.push(b']');
}

/// `127.0.0.1` or `::1`.
pub(crate) fn bare_ip(to: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => ipv4(to, ip),
        IpAddr::V6(ip) => ipv6(to, ip),
    }
}

fn ipv4(to: &mut Vec<u8>, ip: Ipv4Addr) {
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            to.push(b'.');
        }
        decimal(to, octet.into());
    }
}

/// As in RFC 5952: the first of the longest runs of zeros is left out.
fn ipv6(to: &mut Vec<u8>, ip: Ipv6Addr) {
    if let Some(ip) = ip.to_ipv4_mapped() {
        to.extend_from_slice(b"::ffff:");
        return ipv4(to, ip);
    }
    let segments = ip.segments();
    let zeros = longest_zeros(segments);
    let mut place = 0;
    while place < segments.len() {
        if zeros.contains(&place) {
            to.extend_from_slice(b"::");
            place = zeros.end;
            continue;
        }
        if place > 0 && place != zeros.end {
            to.push(b':');
        }
        hex(to, segments[place].into());
        place += 1;
    }
}

/// The longest run of two zeros or more.
fn longest_zeros(segments: [u16; 8]) -> Range<usize> {
    let (mut longest, mut start) = (0..0, 0);
    for (place, &segment) in segments.iter().enumerate() {
        if segment != 0 {
            start = place + 1;
        } else if place + 1 - start > longest.len().max(1) {
            longest = start..place + 1;
        }
    }
    longest
}

/// `value` is below 10.
const fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

/// `value` is below 16.
fn digit16(value: u64) -> u8 {
    if value < 10 { digit(value) } else { b'a' + (value - 10) as u8 }
}

/// Numbers of lost events by cause: `ring_full:12;disk:3`.
pub(crate) fn counts(to: &mut Vec<u8>, counts: &[Lost]) {
    for (place, lost) in counts.iter().enumerate() {
        if place > 0 {
            to.push(b';');
        }
        to.extend_from_slice(lost.cause.as_str().as_bytes());
        to.push(b':');
        decimal(to, lost.events);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut to = Vec::new();
        write(&mut to);
        String::from_utf8(to).expect("ASCII")
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_does(number: u64) {
            prop_assert_eq!(text(|to| decimal(to, number)), number.to_string());
            prop_assert_eq!(text(|to| hex(to, number)), format!("{number:x}"));
            prop_assert_eq!(text(|to| digits::<4>(to, number)), format!("{:04}", number % 10_000));
        }

        #[test]
        fn addresses_are_written_as_the_standard_library_does(ip: IpAddr, port: u16) {
            let expected = SocketAddr::new(ip, port);
            prop_assert_eq!(text(|to| address(to, expected)), expected.to_string());
        }

        #[test]
        fn interfaces_are_written_as_the_standard_library_does(ip: Ipv6Addr, port: u16, interface: u32) {
            let expected = SocketAddr::V6(SocketAddrV6::new(ip, port, 0, interface));
            prop_assert_eq!(text(|to| address(to, expected)), expected.to_string());
            let named = expected.to_string().replace(&format!("%{interface}]"), "%eth0]");
            if interface != 0 {
                prop_assert_eq!(text(|to| zoned(to, expected, "eth0")), named);
            }
        }

        #[test]
        fn zeros_are_left_out_as_the_standard_library_does(segments: [Option<u16>; 8], ones: [bool; 8]) {
            let segment = |(segment, one): (Option<u16>, bool)| segment.filter(|_| one).unwrap_or(0);
            let segments: Vec<u16> = segments.into_iter().zip(ones).map(segment).collect();
            let segments = <[u16; 8]>::try_from(segments).expect("eight");
            let ip = Ipv6Addr::from(segments);
            prop_assert_eq!(text(|to| ipv6(to, ip)), ip.to_string());
        }
    }

    #[test]
    fn reals_have_four_places_at_most() {
        let numbers = [0.0, 1.0, 0.5, 1234.56789, 0.00004, 0.00005, 99.99996, 100.0];
        let written = numbers.map(|number| text(|to| real(to, number)));
        assert_eq!(written, ["0", "1", "0.5", "1234.5679", "0", "0.0001", "100", "100"]);
    }

    #[test]
    fn small_numbers_have_their_digits() {
        for number in 0..2_000 {
            assert_eq!(text(|to| decimal(to, number)), number.to_string());
        }
        assert_eq!(text(|to| hex(to, 0)), "0");
    }

    #[test]
    fn a_missing_port_is_shown_as_told() {
        assert_eq!(text(|to| address_or(to, ([127, 0, 0, 1], 0).into(), None, b'-')), "127.0.0.1:-");
        assert_eq!(text(|to| address_or(to, ([127, 0, 0, 1], 9).into(), None, b'-')), "127.0.0.1:9");
    }
}
