//! The last row of tcptrace's JSON, the summary.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Longer than any summary, in bytes.
const LONGEST: u64 = 64 << 10;

/// A summary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary(Value);

impl Summary {
    /// Parses a row, if it is the summary.
    pub(crate) fn of(row: &[u8]) -> Option<Self> {
        if !row.starts_with(br#"{"event":"summary""#) {
            return None;
        }
        serde_json::from_slice(row).ok().map(Self)
    }

    /// Parses the end of a file, if it has rows of JSON.
    pub(crate) fn at_end_of(path: &Path) -> Result<Option<Self>> {
        let failed = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST))).with_context(failed)?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).with_context(failed)?;
        Ok(end.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().and_then(Self::of))
    }

    /// Transitions seen.
    pub(crate) fn seen(&self) -> u64 {
        self.number("seen")
    }

    /// Events recorded.
    pub(crate) fn events(&self) -> u64 {
        self.number("events")
    }

    /// Events lost by any cause.
    pub(crate) fn lost(&self) -> u64 {
        self.causes().map(|(_, count)| count).sum()
    }

    /// Events lost by this cause.
    pub(crate) fn lost_by(&self, cause: &str) -> u64 {
        self.causes().find(|(name, _)| *name == cause).map_or(0, |(_, count)| count)
    }

    /// Its exit status.
    pub(crate) fn exit(&self) -> u64 {
        self.number("exit")
    }

    /// `12 ring_full; 3 recursion`.
    pub(crate) fn words(&self) -> String {
        self.causes().map(|(cause, count)| format!("{count} {cause}")).collect::<Vec<_>>().join("; ")
    }

    fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or(0)
    }

    fn causes(&self) -> impl Iterator<Item = (&str, u64)> {
        let causes = self.0["lost"].as_object().into_iter().flatten();
        causes.map(|(cause, count)| (cause.as_str(), count.as_u64().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"event":"summary","seen":300123,"lost":{"recursion":2,"ring_full":5},"exit":3}"#;

    #[test]
    fn the_last_row_is_understood() {
        let summary = Summary::of(ROW.as_bytes()).expect("it is one");
        assert_eq!(
            [summary.seen(), summary.lost(), summary.lost_by("recursion"), summary.lost_by("disk")],
            [300_123, 7, 2, 0]
        );
        assert_eq!(summary.words(), "2 recursion; 5 ring_full");
        assert_eq!(Summary::of(br#"{"event":"transition","seen":1}"#), None);
    }

    #[test]
    fn it_is_found_at_the_end_of_a_file() {
        let file = std::env::temp_dir().join(format!("tcptrace-summary-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).expect("a file");
            Summary::at_end_of(&file).expect("it can be read")
        };
        let rows = "{\"event\":\"transition\"}\n".repeat(10_000);
        assert_eq!(read(&format!("{rows}{ROW}\n")), Summary::of(ROW.as_bytes()));
        assert_eq!(read(&rows), None, "cut off");
        assert_eq!(read("12:00:00 text\n"), None);
        assert_eq!(read(""), None);
        std::fs::remove_file(&file).expect("it is there");
    }
}
