//! A tcptrace under stress, and its summary: a row of JSON, or a closing line when it records.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::summary::Summary;

/// A running tracer.
pub(super) struct Tracer {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Number of connections of which it printed a row.
    pub(super) rows: Arc<AtomicU64>,
    reader: Option<JoinHandle<Said>>,
}

/// The summary of a tracer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    /// The audit's counters by network namespace and name: seen, expected, and the certain part of the difference.
    pub(super) counters: BTreeMap<(u64, String), [u64; 3]>,
    /// The audit's verdict: transitions seen, transitions lost, events lost, and unexplained differences.
    pub(super) verdict: Option<[u64; 4]>,
    /// Events recorded, or transitions seen.
    pub(super) events: u64,
    /// Events lost, and the causes.
    pub(super) lost: u64,
    pub(super) causes: String,
    /// How often a program was not run because it was running already.
    pub(super) missed: u64,
    /// Its exit status.
    pub(super) status: Option<i32>,
    /// Whether it printed a summary row.
    has_summary: bool,
}

impl Tracer {
    /// Starts a tracer, and waits until it is ready.
    pub(super) fn start(tcptrace: &Path, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(tcptrace);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", tcptrace.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("tcptrace has no output")?);
        let mut stderr = BufReader::new(child.stderr.take().context("tcptrace has no output")?);
        let rows = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&rows);
        let reader = std::thread::spawn(move || {
            let (mut said, mut line) = (Said::default(), Vec::new());
            while stdout.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let is_row = line.starts_with(br#"{"event":"connection""#);
                counter.fetch_add(u64::from(is_row), Ordering::Relaxed);
                said.take_row(&line);
                line.clear();
            }
            said
        });
        let mut line = String::new();
        while line != "tcptrace: ready\n" {
            line.clear();
            ensure!(stderr.read_line(&mut line)? > 0, "tcptrace did not get ready");
        }
        Ok(Self { child, stderr, rows, reader: Some(reader) })
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context("tcptrace is gone")
    }

    /// Ends it with SIGINT.
    pub(super) fn finish(mut self) -> Result<Said> {
        self.signal(Signal::SIGINT)?;
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).context("cannot read tcptrace's output")?;
        let status = self.child.wait().context("cannot wait for tcptrace")?;
        let rows = self.reader.take().map(JoinHandle::join).and_then(Result::ok).filter(|said| said.has_summary);
        let said = Said { status: status.code(), ..rows.unwrap_or_else(|| parse(&text)) };
        ensure!(matches!(said.status, Some(0 | 3)), "tcptrace failed ({status}): {text}");
        Ok(said)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("tcptrace: ") else { continue };
        match line.strip_prefix("audit: ") {
            Some(line) => said.take_audit(line),
            None => said.take_closing(line),
        }
    }
    said
}

impl Said {
    /// Adds a row of JSON.
    fn take_row(&mut self, line: &[u8]) {
        if let Some(summary) = Summary::of(line) {
            (self.events, self.lost, self.causes) = (summary.seen(), summary.lost(), summary.words());
            self.missed = summary.lost_by("recursion");
            self.has_summary = true;
        } else if line.starts_with(br#"{"event":"audit"#) {
            let row: Value = serde_json::from_slice(line).unwrap_or_default();
            let numbers = |names: [&str; 4]| names.map(|name| row[name].as_u64().unwrap_or(0));
            if row["event"] == "audited" {
                self.verdict = Some(numbers(["transitions", "lost_transitions", "lost", "unexplained"]));
            } else {
                let [seen, expected, difference, within] = numbers(["seen", "expected", "difference", "within"]);
                let counter = (row["netns"].as_u64().unwrap_or(0), row["counter"].as_str().unwrap_or("").to_owned());
                self.counters.insert(counter, [seen, expected, difference.saturating_sub(within)]);
            }
        }
    }

    fn take_audit(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| words.get(place).and_then(|word| word.trim_start_matches('(').parse::<u64>().ok());
        if line.contains(" network namespaces compared") {
            let behind = |text: &str| {
                let before = &line[..line.find(text)?];
                before.rsplit([' ', '(']).find(|word| !word.is_empty())?.parse().ok()
            };
            let figures = [" transitions seen in them", " lost (", " events)", " unaccounted for"].map(behind);
            if let [Some(seen), Some(lost), Some(events), Some(unexplained)] = figures {
                self.verdict = Some([seen, lost, events, unexplained]);
            }
        } else if let (Some(netns), Some(seen), Some(expected), Some(difference)) =
            (number(0), number(2), number(3), number(4))
        {
            let within = words.iter().find_map(|word| word.strip_prefix('±')?.trim_end_matches(',').parse().ok());
            let certain = difference.saturating_sub(within.unwrap_or(0));
            self.counters.insert((netns, words[1].to_owned()), [seen, expected, certain]);
        }
    }

    /// `12 events recorded, 3 lost (3 ring buffer full), 1.5 KiB`.
    fn take_closing(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let events = words.next().and_then(|word| word.parse().ok());
        let kind = words.next();
        let lost = words.nth(1).and_then(|word| word.parse().ok());
        if let (Some(events), Some("events"), Some(lost)) = (events, kind, lost) {
            (self.events, self.lost) = (events, lost);
            let causes = line.split_once(" lost (").and_then(|(_, rest)| rest.split_once(')'));
            self.causes = causes.map_or_else(String::new, |(causes, _)| causes.to_owned());
            let missed = self.causes.split("; ").find_map(|cause| cause.strip_suffix(" program was running already"));
            self.missed = missed.and_then(|missed| missed.parse().ok()).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_understood() {
        let said = parse(
            "tcptrace: ready\n\
             tcptrace: audit: NETNS      COUNTER                    SEEN    EXPECTED  DIFFERENCE\n\
             tcptrace: audit: 4026532201 ActiveOpens              999990     1000000          10 within ±4, blue\n\
             tcptrace: audit: 1 network namespaces compared, 0 gone before the end, 0 unclear; 9999990 transitions seen in \
             them, 10 lost (12 events), 6 unaccounted for\n\
             tcptrace: 123 events recorded, 18 lost (12 ring buffer full, try --ring-size; 6 unaccounted for by the audit), \
             1.5 KiB\n",
        );
        let active = said.counters.get(&(4_026_532_201, "ActiveOpens".to_owned()));
        assert_eq!(active, Some(&[999_990, 1_000_000, 6]));
        assert_eq!(said.verdict, Some([9_999_990, 10, 12, 6]));
        assert_eq!((said.events, said.lost), (123, 18));
        assert_eq!(said.causes, "12 ring buffer full, try --ring-size; 6 unaccounted for by the audit");
        let lost = "tcptrace: 9 events recorded, 5 lost (3 not written; 2 program was running already), 1 KiB\n";
        assert_eq!(parse(lost).missed, 2);
    }

    #[test]
    fn rows_are_understood() {
        let mut said = Said::default();
        for line in [
            r#"{"event":"audit","netns":4026532201,"counter":"ActiveOpens","seen":999990,"expected":1000000,"difference":10,"within":4}"#,
            r#"{"event":"audited","transitions":9999990,"lost":12,"lost_transitions":10,"unexplained":6}"#,
            r#"{"event":"lost","cause":"ring_full","count":12}"#,
            r#"{"event":"summary","seen":123,"lost":{"ring_full":12,"recursion":2,"unaccounted":6},"exit":3}"#,
        ] {
            said.take_row(line.as_bytes());
        }
        let active = said.counters.get(&(4_026_532_201, "ActiveOpens".to_owned()));
        assert_eq!(active, Some(&[999_990, 1_000_000, 6]));
        assert_eq!(said.verdict, Some([9_999_990, 10, 12, 6]));
        assert_eq!((said.events, said.lost, said.missed, said.has_summary), (123, 20, 2, true));
    }
}
