//! Facts that only the kernel's version tells.

/// Whether a kernel lists sockets that are bound and neither connect nor listen (`TCP_BOUND_INACTIVE`): 6.8 and newer do.
/// `release` is what `uname -r` prints.
pub fn lists_bound(release: &str) -> bool {
    version(release).is_some_and(|version| version >= (6, 8))
}

/// Whether a kernel counts reordered ACKs apart from other segments with an older timestamp (`PAWSOldAck`), and those that
/// meet a TIME_WAIT (`PAWSTimewait`): 6.14 and newer do. So it is taken to be where the release is unknown.
pub fn counts_old_acks_apart(release: &str) -> bool {
    version(release).is_none_or(|version| version >= (6, 14))
}

/// `6.12.9-amd64` as 6 and 12.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("6.12.9-amd64", Some((6, 12)))]
    #[case("5.10.0", Some((5, 10)))]
    #[case("7.0-rc1", Some((7, 0)))]
    #[case("6", None)]
    #[case("", None)]
    fn versions(#[case] release: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(version(release), expected);
    }
}
