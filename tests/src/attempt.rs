//! One attempt at a test: it passes, it fails, or it is skipped for a reason that it finds out by itself.
//!
//! The standard harness has no third end for a test that runs: it prints "ok" for a skipped one. So the `#[test]` of this
//! crate says on stderr which test is skipped and why, and writes every attempt down: a line of JSON when it begins and
//! one when it ends, in the file that `TCPTRACE_TEST_RECORD` names.

use std::any::Any;
use std::cell::RefCell;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use serde_json::json;

/// Names the file that attempts are written to the end of.
const RECORD: &str = "TCPTRACE_TEST_RECORD";

/// What ends a test that is skipped: the reason.
struct Skip(String);

thread_local! {
    /// Where this thread has panicked last, and with which message.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Ends the test that calls it, which cannot be made here for this reason.
pub fn skip(why: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skip(why.into())))
}

/// Makes a test; this is what `#[test]` does.
pub fn attempt(test: &str, body: impl FnOnce()) {
    note_panics();
    write_down(test, "begun", None);
    let Err(end) = catch_unwind(AssertUnwindSafe(body)) else {
        return write_down(test, "pass", None);
    };
    match end.downcast::<Skip>() {
        Ok(skip) => {
            say_skipped(test, &skip.0);
            write_down(test, "skipped", Some(&skip.0));
        }
        Err(panic) => fail(test, panic),
    }
}

fn fail(test: &str, panic: Box<dyn Any + Send>) -> ! {
    write_down(test, "fail", Some(&LAST_PANIC.take()));
    resume_unwind(panic)
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let show = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LAST_PANIC.set(info.to_string());
            show(info);
        }));
    });
}

/// Past what the harness captures of a test that does well.
fn say_skipped(test: &str, why: &str) {
    let line = format!("skipped {test}: {why}\n");
    // Without a stderr, there is nobody to tell.
    let _ = io::stderr().write_all(line.as_bytes());
}

fn write_down(test: &str, outcome: &str, why: Option<&str>) {
    let Some(path) = env::var_os(RECORD) else { return };
    let line = format!("{}\n", json!({"outcome": outcome, "test": test, "why": why}));
    // In one piece: other tests, and other programs, write to the same file.
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("write down how a test went");
}
