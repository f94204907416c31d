//! The status line of a recording.

use std::io::{self, IsTerminal};

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::model::sink::{Sink, Wishes};
use crate::model::stream::Item;
use crate::model::transition::Transition;
use crate::trace::write::{Progress, Recorder};

/// Time between two updates.
const PROGRESS_NS: u64 = 1_000_000_000;

/// A recorder with a status line.
pub(super) struct Shown {
    pub(super) recorder: Recorder,
    line: Option<Line>,
}

impl Shown {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, line: None }
    }

    /// Starts the line, if standard error is a terminal.
    pub(super) fn begin(&mut self) {
        self.line = io::stderr().is_terminal().then(Line::new);
    }
}

impl Sink for Shown {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        self.recorder.take(items)
    }

    fn wants_changes(&self) -> bool {
        self.recorder.wants_changes()
    }

    fn take_change(&mut self, change: &impl Transition) -> Result<()> {
        self.recorder.take_change(change)
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        self.recorder.settle(now)?;
        if let Some(line) = &mut self.line {
            line.show(now, self.recorder.progress());
        }
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        self.recorder.misses_any()
    }

    fn wishes(&mut self) -> Wishes {
        let due = self.line.as_ref().map(Line::due_at);
        self.recorder.wishes().and(Wishes { settle_by: due, ..Wishes::default() })
    }
}

/// The line. Dropping it clears it from the terminal.
struct Line {
    bar: ProgressBar,
    begun_at: Option<u64>,
    shown_at: u64,
    events: u64,
}

impl Line {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, begun_at: None, shown_at: 0, events: 0 }
    }

    /// When to update it, in ns of `CLOCK_BOOTTIME`.
    fn due_at(&self) -> u64 {
        self.shown_at + PROGRESS_NS
    }

    fn show(&mut self, now: u64, Progress { events, bytes, lost }: Progress) {
        let elapsed_ns = now.saturating_sub(self.shown_at);
        if elapsed_ns < PROGRESS_NS {
            return;
        }
        let begun_at = *self.begun_at.get_or_insert(now);
        let rate = u128::from(events - self.events) * 1_000_000_000 / u128::from(elapsed_ns);
        let rate = HumanCount(u64::try_from(rate).unwrap_or(u64::MAX));
        let seconds = (now - begun_at) / 1_000_000_000;
        self.bar.set_message(format!(
            "{:02}:{:02}:{:02}  {rate} events/s  {}  {} lost",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            HumanBytes(bytes),
            HumanCount(lost),
        ));
        (self.shown_at, self.events) = (now, events);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
