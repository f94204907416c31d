//! One line that says how a recording goes.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// How often it is shown.
const PROGRESS_NS: u64 = 1_000_000_000;

/// The line. It is gone from the terminal when it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    begun_at: Option<u64>,
    shown_at: u64,
    events: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, begun_at: None, shown_at: 0, events: 0 }
    }

    /// When it is to be shown again, in ns of `CLOCK_BOOTTIME`.
    pub(super) fn due_at(&self) -> u64 {
        self.shown_at + PROGRESS_NS
    }

    pub(super) fn show(&mut self, now: u64, events: u64, bytes: u64, lost: u64) {
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

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
