//! The kernel's own count of sockets.

use std::fs;

/// How many full TCP sockets there are in all network namespaces, unconnected ones included (`sk_prot->sockets_allocated`,
/// which `net/ipv4/proc.c` shows as `alloc`); `None` where `/proc` does not say.
pub fn allocated() -> Option<u64> {
    parse(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

pub(super) fn parse(text: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|line| line.strip_prefix("TCP: "))?.split_whitespace();
    words.find(|word| *word == "alloc")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("sockets: used 9\nTCP: inuse 4 orphan 0 tw 2 alloc 17 mem 1\nUDP: inuse 1 mem 0\n", Some(17))]
    #[case("TCP: inuse 4 alloc\n", None)]
    #[case("TCP: inuse 4 alloc -1\n", None)]
    #[case("", None)]
    fn only_what_is_there(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(super::parse(text), expected);
    }
}
