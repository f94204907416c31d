//! The numbers that all commands print about one recording, and whether they agree.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::process::Ended;
use super::reader::{self, Read};
use super::words::{self, Figures};
use super::{Ground, Verdict};
use crate::summary::Summary;

/// The longest time that reading an honest trace may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Transitions in the life of a connection: 5 of each socket.
const TRANSITIONS: u64 = 10;

pub(super) struct Books {
    /// From the recorder, if it could still print them.
    pub(super) recorder: Option<(Figures, i32)>,
    /// From `replay`.
    pub(super) replay: Figures,
    /// Counted from the rows of `replay`.
    pub(super) rows: Rows,
    /// From `report`.
    report: [u64; 3],
    pub(super) status: i32,
    report_status: i32,
    pub(super) said: String,
    hidden: u64,
}

/// Rows of `replay --format json`.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) transitions: u64,
    /// Ends of TIME_WAIT among them, for which the kernel has no transition.
    pub(super) time_wait_ends: u64,
    /// Rows of loss, and the sum of their events.
    pub(super) losses: u64,
    pub(super) lost: u64,
    /// Transitions with an unknown control group.
    pub(super) groupless: u64,
    /// The summary row.
    summary: Option<Summary>,
}

impl Rows {
    pub(super) fn add(&mut self, line: &[u8]) {
        if line.starts_with(br#"{"event":"transition""#) {
            self.transitions += 1;
            self.time_wait_ends += u64::from(has(line, br#""old":"TIME_WAIT""#));
            self.groupless += u64::from(has(line, br#""cgroup":null"#));
        } else if line.starts_with(br#"{"event":"lost""#) {
            let row: Value = serde_json::from_slice(line).unwrap_or_default();
            self.losses += 1;
            self.lost = self.lost.saturating_add(row["count"].as_u64().unwrap_or(0));
        } else {
            self.summary = Summary::of(line).or(self.summary.take());
        }
    }
}

/// Whether the line contains this.
pub(super) fn has(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|window| window == what)
}

impl Books {
    /// Reads a trace, or several as one.
    pub(super) fn open(ground: &Ground, files: &[impl AsRef<Path>], recorder: Option<&Ended>) -> Result<Self> {
        let with = |arguments: &[&str]| {
            let mut command = ground.tcptrace(arguments);
            command.args(files.iter().map(AsRef::as_ref));
            command
        };
        let mut rows = Rows::default();
        let replay = reader::read(with(&["replay", "--format", "json"]), PATIENCE, |line| rows.add(line))?;
        let mut first = Vec::new();
        let report = reader::read(with(&["report", "--format", "json"]), PATIENCE, |line| {
            if first.is_empty() {
                first = line.to_vec();
            }
        })?;
        let figures = closing(&replay)?;
        let row: Value = serde_json::from_slice(&first).with_context(|| {
            format!("`report` prints no JSON (status {}): {}", report.status, words::tail(&report.said))
        })?;
        let number = |name: &str| row[name].as_u64().with_context(|| format!("`report` has no `{name}`"));
        Ok(Self {
            recorder: recorder.map(|ended| Ok::<_, anyhow::Error>((ended.figures()?, ended.status))).transpose()?,
            replay: figures,
            rows,
            report: [number("events")?, number("transitions")?, number("lost")?],
            status: replay.status,
            report_status: report.status,
            said: replay.said,
            hidden: 0,
        })
    }

    /// Whether the trace reports that its recording ended abruptly.
    pub(super) fn is_abrupt(&self) -> bool {
        words::is_abrupt(&self.said)
    }

    /// The kernel hid at most this many transitions from every program.
    pub(super) fn with_hidden(self, hidden: u64) -> Self {
        Self { hidden, ..self }
    }

    /// Checks that every printed number is the same everywhere.
    pub(super) fn must_agree(&self, verdict: &mut Verdict) {
        let Self { replay, rows, report: [events, transitions, lost], status, .. } = self;
        verdict.must(replay.events == *events, || format!("replay reads {} events, report {events}", replay.events));
        verdict.must(replay.lost == *lost, || format!("replay says {} lost, report {lost}", replay.lost));
        verdict.must(replay.transitions == *transitions && rows.transitions == *transitions, || {
            let (said, rows) = (replay.transitions, rows.transitions);
            format!("replay says {said} transitions and prints {rows}, report says {transitions}")
        });
        verdict.must(rows.lost == replay.lost, || {
            format!("rows of loss add up to {}, the closing line says {}", rows.lost, replay.lost)
        });
        let summed_up = rows.summary.as_ref().map(|row| [row.events(), row.seen(), row.lost(), row.exit()]);
        let said = [replay.events, replay.transitions, replay.lost, u64::from(status.unsigned_abs())];
        verdict.must(summed_up == Some(said), || format!("the closing line says {said:?}, the last row {summed_up:?}"));
        let is_whole =
            replay.lost == 0 && !replay.is_lower_bound && !self.is_abrupt() && !words::is_damaged(&self.said);
        verdict.must(*status == if is_whole { 0 } else { 3 }, || format!("replay: status {status}: {}", self.last()));
        verdict
            .must(self.report_status == *status, || format!("report: status {}, replay: {status}", self.report_status));
        if let Some((recorder, status)) = self.recorder {
            self.must_agree_with(recorder, status, verdict);
        }
    }

    fn must_agree_with(&self, recorder: Figures, status: i32, verdict: &mut Verdict) {
        let replay = self.replay;
        verdict.must(recorder.events == replay.events, || {
            format!("the recorder says {} events, replay {}", recorder.events, replay.events)
        });
        // A trace that could not be written to its end cannot report the losses of that time.
        // From what the kernel hid, replay may conclude that more is missing.
        let most = recorder.lost + self.hidden;
        let agrees = replay.lost <= most && (self.is_abrupt() || replay.lost >= recorder.lost);
        verdict.must(agrees, || format!("the recorder says {} lost, replay {}", recorder.lost, replay.lost));
        verdict.must(status == 0 || self.status == 3, || {
            format!("the recorder: status {status}, replay: {}", self.status)
        });
        verdict.must(recorder.lost == 0 || status == 3, || format!("{} lost, and status {status}", recorder.lost));
    }

    /// Checks that recorded and lost events, and those that the kernel hid, add up to this many whole connections.
    pub(super) fn must_be_true(&self, connections: u64, verdict: &mut Verdict) {
        let hidden = self.hidden;
        let truth = connections * TRANSITIONS;
        let seen = self.rows.transitions - self.rows.time_wait_ends;
        let lost = self.recorder.map_or(self.replay.lost, |(recorder, _)| recorder.lost);
        verdict.must(seen <= truth, || format!("{seen} transitions seen of {truth}"));
        verdict.must(seen + lost + hidden >= truth, || {
            format!("{seen} transitions seen and {lost} events lost, of {truth} transitions")
        });
        verdict.must(lost > 0 || seen + hidden >= truth, || format!("{seen} transitions seen of {truth}, none lost"));
    }

    /// A short form for the table.
    pub(super) fn summary(&self) -> String {
        let (figures, whose) = match self.recorder {
            Some((recorder, _)) => (recorder, "recorded"),
            None => (self.replay, "read"),
        };
        format!("{} events {whose}, {} lost", figures.events, figures.lost)
    }

    fn last(&self) -> &str {
        self.said.lines().last().unwrap_or("")
    }
}

/// The closing line of a reader.
pub(super) fn closing(read: &Read) -> Result<Figures> {
    words::closing(&read.said).with_context(|| {
        format!("`{}` has no closing line (status {}): {}", read.line, read.status, words::tail(&read.said))
    })
}
