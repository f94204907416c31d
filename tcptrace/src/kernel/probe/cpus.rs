//! The CPUs of this machine.

use std::{fs, io};

/// Which CPUs there are, by their numbers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cpus {
    /// CPUs that run now.
    pub(super) online: Vec<u32>,
    /// All CPUs of the machine, also those that are offline.
    pub(super) possible: Vec<u32>,
}

impl Cpus {
    /// Asks the kernel.
    pub(super) fn find() -> io::Result<Self> {
        let read = |name: &str| {
            let path = format!("/sys/devices/system/cpu/{name}");
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
            numbers(&text).ok_or_else(|| io::Error::other(format!("{path} is no list of CPUs")))
        };
        Ok(Self { online: read("online")?, possible: read("possible")? })
    }

    /// How many numbers a table by CPU needs.
    pub(super) fn numbers(&self) -> u32 {
        self.possible.last().map_or(1, |last| last + 1)
    }
}

/// The numbers of a list such as `0-3,8`.
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one("0\n", Some(vec![0]))]
    #[case::a_range("0-3\n", Some(vec![0, 1, 2, 3]))]
    #[case::with_gaps("0,2-3,8\n", Some(vec![0, 2, 3, 8]))]
    #[case::none("\n", None)]
    #[case::no_list("all\n", None)]
    fn lists_of_cpus(#[case] list: &str, #[case] expected: Option<Vec<u32>>) {
        assert_eq!(numbers(list), expected);
    }

    #[test]
    fn a_table_reaches_the_last_number() {
        assert_eq!(Cpus { online: vec![0], possible: vec![0, 5] }.numbers(), 6);
    }
}
