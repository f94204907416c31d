//! The processes that `/proc` shows.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::about;

/// Their ids, in ascending order, as the pid namespace of the mounted `/proc` numbers them.
pub(super) fn ids() -> io::Result<Vec<u32>> {
    numbers("/proc")
}

/// Inode number of the first pid namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`), which shows every process.
const ALL: u64 = 0xefff_fffc;

/// Whether `/proc` shows every process, under the number that the kernel side knows it by. In a pid namespace of its own
/// it shows some, under other numbers.
pub fn are_all_visible() -> bool {
    let is_own = fs::read_link("/proc/self").is_ok_and(|own| number(own.as_os_str()) == Some(std::process::id()));
    is_own && fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == ALL)
}

/// The ids of a process's threads; none if it has ended, or has but one.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    let directory = format!("/proc/{pid}/task");
    // Itself, the entry in `/proc/PID`, and one for every thread.
    let has_more = fs::metadata(&directory).is_ok_and(|metadata| metadata.nlink() > 3);
    if has_more { numbers(&directory).unwrap_or_default() } else { Vec::new() }
}

fn numbers(directory: &str) -> io::Result<Vec<u32>> {
    let mut ids: Vec<u32> = fs::read_dir(directory)
        .map_err(about(directory))?
        .filter_map(|entry| number(entry.ok()?.file_name().as_os_str()))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn number(name: &OsStr) -> Option<u32> {
    digits(name.as_bytes())
}

/// A decimal number and nothing else.
pub(super) fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case("4294967295", Some(u32::MAX))]
    #[case("4294967296", None)]
    #[case("", None)]
    #[case("+1", None)]
    #[case("self", None)]
    fn only_digits_are_a_number(#[case] text: &str, #[case] expected: Option<u32>) {
        assert_eq!(digits(text.as_bytes()), expected);
    }

    #[test]
    fn threads_of_a_process() {
        let (tid, threads) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let tid = nix::unistd::gettid().as_raw().cast_unsigned();
                (tid, threads(std::process::id()))
            });
            thread.join().expect("no panic")
        });
        assert!(threads.contains(&tid) && threads.contains(&std::process::id()), "{tid} in {threads:?}");
    }

    #[test]
    fn what_cannot_be_read_has_its_name_in_the_error() {
        let error = numbers("/proc/no-such-process/task").expect_err("it is not there");
        assert_eq!(error.to_string(), "/proc/no-such-process/task: No such file or directory (os error 2)");
    }

    #[test]
    fn this_process_is_among_them() {
        let ids = ids().expect("read /proc");
        assert!(ids.is_sorted());
        assert!(ids.contains(&std::process::id()));
    }
}
