//! Requirements of tests: what the running kernel supports, and what this process may do.

use std::{env, fs};

use nix::unistd::Uid;
use serde_json::Value;

use crate::attempt::skip;
use crate::program::run;

/// The first version in which a tracing program can read a socket's cookie, by which tcptrace identifies sockets.
const COOKIES: (u32, u32) = (5, 12);

/// Whether root runs this process.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Skips the calling test unless root runs it.
pub fn need_root() {
    if !is_root() {
        skip("it needs root");
    }
}

/// Skips the calling test unless no other programs matter on this machine, for this reason. The name of such a test contains
/// `::alone::`: virtual machines run those one by one.
pub fn need_alone(why: &str) {
    if env::var_os("TCPTRACE_TEST_ALONE").is_none() {
        skip(format!("{why}, and other programs run on it"));
    }
}

/// The version of the running kernel: 6.1.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a version"), numbers.next().expect("a version"))
}

/// Skips the calling test on a kernel that is too old for anything but changes of state. On newer kernels, a tracer
/// that sees no more has a bug.
pub(crate) fn expect_whole_picture() {
    if kernel() >= COOKIES {
        return;
    }
    let check = run(&["check", "--format", "json"]);
    let rows = check.text().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lacking = rows.filter(|row| row["available"] == false);
    let why = lacking.find_map(|row| Some(row["detail"].as_str()?.to_owned())).expect("something that it cannot do");
    skip(why);
}
