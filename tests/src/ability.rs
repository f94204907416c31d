//! What the running kernel can do, where a test depends on it.
//!
//! A test that cannot be made here says so with a line that begins with `cannot: `, which `cargo xtask vm` looks for.

use std::fs;

use serde_json::Value;

use crate::program::run;

/// The first version on which a tracing program can ask for a socket's cookie, by which all is told apart.
const COOKIES: (u32, u32) = (5, 12);

/// Says why a test cannot be made here.
#[expect(clippy::print_stdout, reason = "a test that cannot be made says why")]
pub fn cannot(why: &str) {
    println!("cannot: {why}");
}

/// The version of the running kernel: 6.1.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a version"), numbers.next().expect("a version"))
}

/// Fails, saying that a test cannot be made here, on a kernel that is too old for more than changes of state. On any other
/// a tracer that sees no more is a bug.
pub(crate) fn expect_whole_picture() {
    if kernel() >= COOKIES {
        return;
    }
    let check = run(&["check", "--format", "json"]);
    let rows = check.text().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lacking = rows.filter(|row| row["available"] == false);
    let why = lacking.find_map(|row| Some(row["detail"].as_str()?.to_owned())).expect("something that it cannot do");
    panic!("an old kernel\ncannot: {why}");
}
