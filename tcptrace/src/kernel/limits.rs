//! How many descriptors processes have, and how many they may have.

use std::fs;
use std::io;

use crate::model::facts::Limit;

/// What `/proc` says of these processes. One that is gone is left out.
pub fn limits(pids: impl IntoIterator<Item = u32>) -> Vec<Limit> {
    pids.into_iter().filter_map(limit).collect()
}

fn limit(pid: u32) -> Option<Limit> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let (soft, hard) = parse(&text);
    Some(Limit { pid, descriptors: descriptors(pid).ok(), soft, hard })
}

/// `Max open files            1024                 1048576              files`: soft and hard.
pub(super) fn parse(text: &str) -> (Option<u64>, Option<u64>) {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut words = line.split_whitespace().map(|word| word.parse().ok());
    (words.next().flatten(), words.next().flatten())
}

/// Counts them.
fn descriptors(pid: u32) -> io::Result<u64> {
    let directory = format!("/proc/{pid}/fd");
    // Since 6.2 it is as large as there are many; before that it was empty.
    let size = fs::metadata(&directory)?.len();
    if size > 0 { Ok(size) } else { Ok(fs::read_dir(&directory)?.count() as u64) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use nix::sys::resource::{Resource, setrlimit};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Max processes 1 2 processes\nMax open files            1024                 524288               files\n", (Some(1024), Some(524_288)))]
    #[case("Max open files            1024                 unlimited            files\n", (Some(1024), None))]
    #[case("Max open files            unlimited            unlimited            files\n", (None, None))]
    #[case("", (None, None))]
    fn soft_and_hard(#[case] text: &str, #[case] expected: (Option<u64>, Option<u64>)) {
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_child_has_its_own() {
        let mut command = Command::new("sleep");
        command.arg("100").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let limited = || setrlimit(Resource::RLIMIT_NOFILE, 77, 99).map_err(Into::into);
        // SAFETY: it only makes one system call.
        unsafe { command.pre_exec(limited) };
        let mut child = command.spawn().expect("start a process");
        let listed = fs::read_dir(format!("/proc/{}/fd", child.id())).expect("list them").count();
        let read = limits([child.id(), 0]);
        child.kill().and_then(|()| child.wait().map(drop)).expect("end it");
        let descriptors = Some(listed as u64);
        assert_eq!(read, [Limit { pid: child.id(), descriptors, soft: Some(77), hard: Some(99) }]);
        assert_eq!(limits([child.id()]), [], "it is gone");
    }
}
