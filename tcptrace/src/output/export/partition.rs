//! The directories of a data set in the style of Hive: `kind=connections/date=2025-01-02/host=web-1`.

use std::fmt::Write;

use jiff::Timestamp;

use crate::model::stream::Origin;
use crate::output::sanitise;

/// Hive and compatible readers read this as null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// No file of Linux has a longer name (`NAME_MAX`), `host=` included.
const LONGEST: usize = 255 - "host=".len();
/// The hash of a name that is longer.
const HASH_LEN: usize = 33;

const NS_PER_S: i64 = 1_000_000_000;
const S_PER_DAY: i64 = 86_400;

/// A day in UTC, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(i64);

impl Day {
    pub(super) fn of(unix_ns: i64) -> Self {
        Self(unix_ns.div_euclid(NS_PER_S * S_PER_DAY))
    }
}

/// The directories of a partition, outermost first.
pub(super) fn folders(kind: &str, day: Day, host: &str) -> [String; 3] {
    // Every i64 of nanoseconds is within jiff's range.
    let midnight = Timestamp::from_second(day.0 * S_PER_DAY).unwrap_or_default();
    let date = midnight.strftime("%Y-%m-%d");
    [format!("kind={kind}"), format!("date={date}"), format!("host={}", value(host))]
}

/// The name of the file that begins with a certain row: another export of the same rows gets the same name, so that no
/// row enters a data set twice unnoticed.
pub(super) fn file(origin: &Origin, boot_ns: u64, conn: u64) -> String {
    let boot: String = origin.boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let boot = if boot.is_empty() { "unknown" } else { &boot };
    format!("part-{boot}-{boot_ns}-{conn:x}.parquet")
}

/// A value as part of a path: unsafe characters are percent-encoded, as Hive and Spark do. A name that is too long for
/// a directory is cut and gets a hash; the file has the whole name.
fn value(name: &str) -> String {
    if name.is_empty() {
        return NULL.to_owned();
    }
    let mut safe = String::with_capacity(name.len());
    let mut cut = 0;
    for character in sanitise(name.as_bytes()).chars() {
        if character.is_alphanumeric() || matches!(character, '-' | '_' | '.') {
            safe.push(character);
        } else {
            encode(&mut safe, character);
        }
        if safe.len() + HASH_LEN <= LONGEST {
            cut = safe.len();
        }
    }
    if safe.len() > LONGEST {
        safe.truncate(cut);
        // An encoded name contains no other tilde.
        let _ = write!(safe, "~{:032x}", hash(name.as_bytes()));
    }
    safe
}

/// FNV-1a of 128 bits, which never changes, unlike the hashes of the standard library.
fn hash(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Readers decode the two digits to a character below U+0100, not to a byte. Other characters are safe as they are.
fn encode(to: &mut String, character: char) {
    match u8::try_from(character) {
        // Writing into a String cannot fail.
        Ok(code) if code.is_ascii() => drop(write!(to, "%{code:02X}")),
        _ => to.push(character),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("web-1.example.org", "web-1.example.org")]
    #[case("", "__HIVE_DEFAULT_PARTITION__")]
    #[case("a/b", "a%2Fb")]
    #[case("..", "..")]
    #[case("a=b%", "a%3Db%25")]
    #[case("a b:c'\"", "a%20b%3Ac%27%22")]
    #[case("größe", "größe")]
    #[case::escaped_first("a\nb\u{202e}", "a%5Cx0ab%5Cu%7B202e%7D")]
    fn hosts_become_folders(#[case] host: &str, #[case] expected: &str) {
        assert_eq!(value(host), expected);
    }

    #[rstest]
    #[case::as_long_as_can_be(&"x".repeat(250), &"x".repeat(250))]
    #[case::longer(&"x".repeat(251), &format!("{}~", "x".repeat(217)))]
    #[case::not_within_an_escape(&"\u{1b}".repeat(60), &format!("{}~", "%5Cx1b".repeat(36)))]
    #[case::not_within_a_character(&"ö".repeat(200), &format!("{}~", "ö".repeat(108)))]
    fn long_hosts_are_cut(#[case] host: &str, #[case] begins: &str) {
        let folder = value(host);
        assert!(folder.len() <= LONGEST && folder.starts_with(begins), "{folder}");
        assert_ne!(value(&format!("{host}x")), folder, "others have another one");
        assert_eq!(value(host), folder);
    }

    /// It must never change: a data set would have a host twice.
    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(hash(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(hash(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
        assert_eq!(hash(b"foobar"), 0x343e1662793c64bf6f0d3597ba446f18);
    }

    #[test]
    fn a_day_is_that_of_utc() {
        let folders = folders("connections", Day::of(1_735_786_245_000_000_042), "web-1");
        assert_eq!(folders, ["kind=connections", "date=2025-01-02", "host=web-1"]);
        assert_eq!(super::folders("x", Day::of(-1), "h")[1], "date=1969-12-31");
        assert_eq!(super::folders("x", Day::of(i64::MAX), "h")[1], "date=2262-04-11");
        assert_eq!(super::folders("x", Day::of(i64::MIN), "h")[1], "date=1677-09-21");
    }

    #[test]
    fn a_file_is_named_for_its_first_row() {
        let origin = Origin { boot_id: "6ad8fcbd-34df-42d5-bc33-d4b3a4e7d1a9".into(), ..Origin::default() };
        assert_eq!(file(&origin, 12, 0xab), "part-6ad8fcbd-12-ab.parquet");
        assert_eq!(file(&Origin { boot_id: "../x".into(), ..origin }, 1, 2), "part-unknown-1-2.parquet");
    }

    proptest! {
        /// Any host name gives one safe directory name, and different names stay different.
        #[test]
        fn any_host_is_one_folder(one: String, other: String) {
            let (folder, second) = (value(&one), value(&other));
            prop_assert!(!folder.contains(['/', '=', '\\', '\0']) && !folder.chars().any(char::is_control));
            prop_assert_eq!(folder == second, one == other);
        }
    }
}
