//! Progress of a long read: a bar with rate and time left, on standard error if that is a terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A shorter read shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Bytes between two looks at the clock.
const STRIDE: u64 = 1 << 16;

const TEMPLATE: &str =
    "tcptrace: reading [{bar:30}] {percent:>3} %, {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// The progress of a read. Dropping it clears it from the terminal.
#[derive(Debug)]
pub(super) struct Progress {
    /// `None` where it would not be visible.
    bar: Option<Bar>,
}

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    began: Instant,
    /// The byte at which it looks at the clock again.
    next: u64,
    is_drawn: bool,
}

impl Progress {
    /// For a command that prints when the read is over.
    pub(super) fn new(total_bytes: u64) -> Self {
        Self::shown_if(io::stderr().is_terminal(), total_bytes)
    }

    /// For a command that prints while it reads: a bar must not mix with rows on the terminal.
    pub(super) fn beside_output(total_bytes: u64) -> Self {
        Self::shown_if(io::stderr().is_terminal() && !io::stdout().is_terminal(), total_bytes)
    }

    /// For a command that has the whole screen.
    pub(super) fn hidden(_total_bytes: u64) -> Self {
        Self { bar: None }
    }

    fn shown_if(is_shown: bool, total_bytes: u64) -> Self {
        // It counts from the start, so that its rate is right once it is drawn.
        let bar = is_shown.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::hidden());
            Bar { bar: bar.with_finish(ProgressFinish::AndClear), began: Instant::now(), next: 0, is_drawn: false }
        });
        Self { bar }
    }

    /// Sets how many bytes are read. Cheap enough to call for every block.
    pub(super) fn advanced_to(&mut self, bytes: u64) {
        if let Some(bar) = self.bar.as_mut().filter(|bar| bytes >= bar.next) {
            bar.next = bytes.saturating_add(STRIDE);
            bar.advance(bytes, bar.began.elapsed());
        }
    }
}

impl Bar {
    fn advance(&mut self, bytes: u64, elapsed: Duration) {
        if !self.is_drawn && elapsed >= PATIENCE {
            self.is_drawn = true;
            // The template is a constant. If it were invalid, the default bar would do.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(bytes);
    }
}

/// How often a line about the time that is left is drawn.
const TICK: Duration = Duration::from_millis(200);

const LOOKING: &str = "tcptrace: looking [{bar:30}] {msg} left; Ctrl-C ends it now";

/// Waits for this time, and shows how much of it is left, if somebody sits there.
pub(super) async fn wait(time: Duration) {
    let (begun, draws) = (Instant::now(), io::stderr().is_terminal());
    let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(millis), target).with_finish(ProgressFinish::AndClear);
    // The template is a constant; with the default one the bar would be plainer, no more.
    if let Ok(style) = ProgressStyle::with_template(LOOKING) {
        bar.set_style(style.progress_chars("=> "));
    }
    loop {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        bar.set_message(format!("{}s", left.as_secs() + 1));
        bar.set_position(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        tokio::time::sleep(if draws { left.min(TICK) } else { left }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar() -> Bar {
        Progress::shown_if(true, 1 << 20).bar.expect("it is shown")
    }

    #[test]
    fn nothing_is_drawn_before_long() {
        let mut bar = bar();
        bar.advance(1 << 19, PATIENCE - Duration::from_millis(1));
        assert!(!bar.is_drawn && bar.bar.is_hidden());
        bar.advance(1 << 20, PATIENCE);
        assert!(bar.is_drawn);
    }

    #[test]
    fn the_template_is_one() {
        ProgressStyle::with_template(TEMPLATE).expect("a template");
    }

    #[test]
    fn the_clock_is_not_looked_at_for_every_byte() {
        let mut progress = Progress::shown_if(true, 1 << 30);
        (1..=STRIDE).for_each(|bytes| progress.advanced_to(bytes));
        let bar = progress.bar.as_ref().expect("it is shown");
        assert_eq!((bar.bar.position(), bar.next), (1, STRIDE + 1));
        drop(progress);
    }

    #[test]
    fn nobody_looks_and_nothing_is_done() {
        let mut progress = Progress::shown_if(false, 1 << 30);
        progress.advanced_to(1 << 29);
        assert!(progress.bar.is_none());
    }
}
