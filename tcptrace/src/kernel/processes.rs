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

/// Whether `/proc` leaves out processes of others, because it is mounted with `hidepid`.
pub fn are_hidden() -> bool {
    // Process 1 lives as long as its pid namespace.
    if fs::symlink_metadata("/proc/1").is_err() {
        return true;
    }
    let read = |name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    hides(&read("mountinfo"), &read("status"))
}

/// The same, by what `/proc/self/mountinfo` and `/proc/self/status` say (`has_pid_permissions` in `fs/proc/base.c`).
pub(super) fn hides(mounts: &str, status: &str) -> bool {
    let Some(options) = mounts.lines().rev().find_map(options_of_proc) else { return false };
    let option = |name| options.split(',').find_map(|option: &str| option.strip_prefix(name));
    let by_group = match option("hidepid=") {
        Some("2" | "invisible") => true,
        Some("4" | "ptraceable") => false,
        _ => return false,
    };
    let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap_or_default();
    let group = option("gid=").unwrap_or("0");
    let mut groups = field("Groups:").split_whitespace().chain(field("Gid:").split_whitespace().nth(3));
    let effective = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
    let is_exempt = effective & (1 << CAP_SYS_PTRACE) != 0 || by_group && groups.any(|own| own == group);
    !is_exempt
}

/// From `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

/// The options of the file system, if it is mounted at `/proc`: `31 23 0:28 / /proc … - proc SOURCE OPTIONS`.
fn options_of_proc(line: &str) -> Option<&str> {
    let (mount, system) = line.split_once(" - ")?;
    let is_it = mount.split(' ').nth(4) == Some("/proc") && system.starts_with("proc ");
    is_it.then(|| system.rsplit(' ').next()).flatten()
}

/// Inode number of the first pid namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`), which shows every process.
const ALL: u64 = 0xefff_fffc;

/// Whether `/proc` shows every process, under the number that the kernel side uses. In a pid namespace of its own, it
/// shows some of them, under other numbers.
pub fn are_all_visible() -> bool {
    let is_own = fs::read_link("/proc/self").is_ok_and(|own| number(own.as_os_str()) == Some(std::process::id()));
    is_own && fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == ALL)
}

/// Whether the first process shows its descriptors, as all do then.
pub fn are_descriptors_shown() -> bool {
    fs::read_dir("/proc/1/fd").is_ok()
}

/// The ids of a process's threads; none if it has ended, or has only one.
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

    const USER: &str = "Name:\tx\nGid:\t1000\t1000\t1000\t1000\nGroups:\t27 44\nCapEff:\t0000000000000000\n";

    #[rstest]
    #[case::as_it_mostly_is("rw", false)]
    #[case::no_access_is_no_secret("rw,hidepid=noaccess", false)]
    #[case::by_number("rw,hidepid=2", true)]
    #[case::by_name("rw,hidepid=invisible", true)]
    #[case::for_another_group("rw,gid=28,hidepid=invisible", true)]
    #[case::for_this_group("rw,gid=44,hidepid=invisible", false)]
    #[case::for_its_own_group("rw,gid=1000,hidepid=2", false)]
    #[case::whatever_the_group("rw,gid=44,hidepid=ptraceable", true)]
    fn a_mount_can_hide_processes(#[case] options: &str, #[case] expected: bool) {
        let mounts = format!(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw,hidepid=2\n25 22 0:23 / /proc rw,nosuid shared:9 - proc proc {options}\n"
        );
        assert_eq!(hides(&mounts, USER), expected);
        assert!(!hides(&mounts, &USER.replace("0000000000000000", "000001ffffffffff")), "it may trace all of them");
    }

    #[test]
    fn this_process_is_among_them() {
        let ids = ids().expect("read /proc");
        assert!(ids.is_sorted());
        assert!(ids.contains(&std::process::id()));
    }
}
