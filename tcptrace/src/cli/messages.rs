//! Messages to the user: one line each, on standard error, apart from the data.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;

use log::{Level, Record};

use crate::live::{self, Source};
use crate::output::sanitise_message;

/// Messages that wait until a screen is gone; `None`: they are printed at once.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Most messages that wait.
const MOST_HELD: usize = 100;

/// Keeps messages from now on, for a screen that they would break.
pub(super) fn hold() {
    if let Ok(mut held) = HELD.lock() {
        held.get_or_insert_default();
    }
}

/// Prints what was kept.
pub(super) fn release() {
    let held = HELD.lock().ok().and_then(|mut held| held.take());
    held.into_iter().flatten().for_each(|line| print(line.as_bytes()));
}

fn is_held(line: &str) -> bool {
    let Ok(mut held) = HELD.lock() else { return false };
    let Some(lines) = &mut *held else { return false };
    if lines.len() < MOST_HELD {
        lines.push(line.to_owned());
    }
    true
}

/// One write, because threads may print at the same time. An error here cannot be reported anywhere.
fn print(line: &[u8]) {
    let _ = io::stderr().write_all(line);
}

/// Prints a message. It may quote untrusted text as it is: this function escapes it.
pub(super) fn say(message: impl Display) {
    let line = format!("tcptrace: {}\n", sanitise_message(&message.to_string()));
    if !is_held(&line) {
        print(line.as_bytes());
    }
}

/// The same, as a callback for code that reports while it works.
pub(super) fn tell(message: &dyn Display) {
    say(message);
}

/// Says that tcptrace is ready, and which features are unavailable.
pub(super) fn say_ready(source: &Source) {
    say("ready");
    if source.scans_in_part() {
        say("cannot see which processes outside this pid namespace hold a socket (tcptrace check says why)");
    }
    let missing: Vec<_> = source.missing().collect();
    if !missing.is_empty() {
        say(format_args!("not seen here: {} (tcptrace check says why)", missing.join("; ")));
    }
}

/// Formats log records like all other messages.
pub(super) fn show_log() {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("TCPTRACE_LOG", "warn"))
        .format(|out, record| {
            if live::report(record) {
                return Ok(());
            }
            let line = logged(record);
            if is_held(&line) { Ok(()) } else { out.write_all(line.as_bytes()) }
        })
        .init();
}

fn logged(record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let message = sanitise_message(&message);
    match record.level() {
        Level::Error => format!("tcptrace: error: {message}\n"),
        Level::Warn => format!("tcptrace: warning: {message}\n"),
        level => {
            let level = level.as_str().to_ascii_lowercase();
            format!("tcptrace: {level}: {}: {message}\n", record.target())
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Level::Warn, "tcptrace: warning: cannot read '\\x1b[31m'\n")]
    #[case(Level::Debug, "tcptrace: debug: tcptrace::probe: cannot read '\\x1b[31m'\n")]
    fn warnings_read_like_other_messages(#[case] level: Level, #[case] expected: &str) {
        let line = |args: std::fmt::Arguments<'_>| {
            logged(&Record::builder().level(level).target("tcptrace::probe").args(args).build())
        };
        assert_eq!(line(format_args!("cannot read '\u{1b}[31m'")), expected);
    }
}
