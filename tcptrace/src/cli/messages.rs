//! What is said to the person at the terminal, beside the data: on standard error, a line each.

use std::fmt::Display;
use std::io::{self, Write};

use log::{Level, Record};

use crate::live::Source;
use crate::output::sanitise_message;

/// Says something. Whatever is typed or read stands in it as it is: nothing of that reaches the terminal unescaped.
pub(super) fn say(message: impl Display) {
    let line = format!("tcptrace: {}\n", sanitise_message(&message.to_string()));
    // In one piece, as threads may say something at once. Nobody is left to tell when this fails.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The same, for what says something while it works.
pub(super) fn tell(message: &dyn Display) {
    say(message);
}

/// Says that everything is attached that can be, and what cannot.
pub(super) fn say_ready(source: &Source) {
    say("ready");
    if source.scans_in_part() {
        say("which processes outside this pid namespace hold a socket is not seen here (tcptrace check says why)");
    }
    let missing: Vec<_> = source.missing().collect();
    if !missing.is_empty() {
        say(format_args!("not seen here: {} (tcptrace check says why)", missing.join("; ")));
    }
}

/// From now on, warnings read like all other messages.
pub(super) fn show_log() {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("TCPTRACE_LOG", "warn"))
        .format(|out, record| out.write_all(logged(record).as_bytes()))
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
