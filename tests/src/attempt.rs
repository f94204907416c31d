//! One attempt at a test: it passes, fails, or is skipped for a reason that it finds out itself.
//!
//! The standard harness prints "ok" for a test that finds out at run time that it must be skipped. So the `#[test]` of
//! this crate prints on stderr which test is skipped and why. It also records every attempt: a line of JSON when it
//! begins and one when it ends, in the file that `TCPTRACE_TEST_RECORD` names.

use std::any::Any;
use std::cell::RefCell;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use serde_json::json;

/// Environment variable with the file to which attempts are appended.
const RECORD: &str = "TCPTRACE_TEST_RECORD";

/// The panic payload of a skipped test: the reason.
struct Skip(String);

thread_local! {
    /// Location and message of this thread's last panic.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Ends the calling test, which cannot run here for this reason.
pub fn skip(why: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skip(why.into())))
}

/// Runs a test; `#[test]` calls this.
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

/// Prints past the harness, which captures the output of a test that passes.
fn say_skipped(test: &str, why: &str) {
    let line = format!("skipped {test}: {why}\n");
    // Without a stderr, the message is lost.
    let _ = io::stderr().write_all(line.as_bytes());
}

fn write_down(test: &str, outcome: &str, why: Option<&str>) {
    let Some(path) = env::var_os(RECORD) else { return };
    let line = format!("{}\n", json!({"outcome": outcome, "test": test, "why": why}));
    // In one write: other tests and other programs append to the same file.
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("write down how a test went");
}
