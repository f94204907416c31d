//! What the helper logs, on its way to the process that follows the kernel, which prints it.

use std::sync::OnceLock;

use log::{Level, Record};
use serde::{Deserialize, Serialize};

use super::way::Way;

/// Longest text that is passed on.
const LONGEST: usize = 4096;

/// Where it goes, in the helper.
static WAY: OnceLock<Way> = OnceLock::new();

/// A message.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// Higher for what matters less.
    level: u8,
    target: String,
    text: String,
}

/// This process is the helper: from now on, [`report`] sends by this way.
pub(super) fn report_by(way: Way) {
    // It is set once.
    let _ = WAY.set(way);
}

/// Sends what the helper logs to the process that prints it. Returns whether this is the helper.
pub fn report(record: &Record<'_>) -> bool {
    let Some(way) = WAY.get() else { return false };
    let text: String = record.args().to_string().chars().take(LONGEST).collect();
    let message = Message { level: record.level() as u8, target: record.target().to_owned(), text };
    // It is gone if it does not listen.
    let _ = way.send(&message);
    true
}

/// Logs what the helper sends, until it ends.
pub(super) fn pass_on(way: &Way) {
    while let Ok(Message { level, target, text }) = way.take() {
        let level = Level::iter().find(|known| *known as u8 == level).unwrap_or(Level::Warn);
        log::log!(target: &target, level, "{text}");
    }
}
